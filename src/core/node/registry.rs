//! What this node offers and keeps under keys, and what it knows of what others do.
//!
//! Everything that comes, from members, the DHT or the disk, goes through [`Node::take_entry`], and everything that is read
//! comes out of [`Node::entries`], [`Node::entries_at`] and [`Node::services`], which look again at what time changes. How
//! replicas are brought together is in `exchange.rs`, how busy services are in `loads.rs`, what we write in `writing.rs`.

mod exchange;
mod loads;
mod writing;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use libp2p_identity::PeerId;

use super::{Node, Now, Resync};
use crate::{
    allowance::Allowances,
    membership::{
        DhtVerdict, Name, Network, Rejection, SignerKey, UnixTime, directory::MAX_MEMBERS,
    },
    output::Output,
    registry::{
        Entry, Key, Load, Replica, Rules, Service,
        replica::{Held, MAX_MARKS},
        seal::Sealing,
        validator::{Passed, Pipeline, Refused},
    },
};

/// Entries of one owner that are taken at once: all that it may have.
const OWNERS_BURST: u32 = MAX_MARKS as u32;
/// And one more in this time: each is checked, saved and passed on by everybody.
const OWNERS_PERIOD: Duration = Duration::from_millis(250);
/// Rules with a time window are looked at this often.
const WINDOW_PERIOD: Duration = Duration::from_secs(60);
/// Nothing is planned for a time further away.
const HORIZON: Duration = Duration::from_secs(24 * 60 * 60);

/// A service of a member, this node included.
#[derive(Debug, Clone, PartialEq)]
pub struct ServiceStatus {
    /// Whose.
    pub owner: PeerId,
    /// What its owner calls it.
    pub name: Name,
    /// What it is.
    pub service: Service,
    /// How busy it is, if its owner says.
    pub load: Option<Load>,
    /// When its entry was signed.
    pub issued: UnixTime,
    /// When it is gone, unless it is renewed before.
    pub expires: UnixTime,
}

/// What is known, and what we do about it.
pub(super) struct Registry {
    sealing: Sealing,
    rules: Rules,
    is_client: bool,
    pub(super) replica: Replica,
    /// The last number that we signed with.
    seq: u64,
    offers: BTreeMap<Name, writing::Offer>,
    loads: loads::Loads,
    fetches: BTreeMap<PeerId, exchange::Fetch>,
    /// With whom replicas are to be compared, and when.
    pub(super) resync: BTreeMap<PeerId, Resync>,
    allowances: Allowances<PeerId>,
    changes: u64,
    next_window: Option<Instant>,
    next: Instant,
}

/// Where an entry comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    Ourselves,
    /// Asked for or not, a member sent it.
    Member(PeerId),
    Dht,
    Disk,
}

impl Registry {
    pub fn new(network: &Network, rules: Rules, is_client: bool, now: Instant) -> Self {
        Self {
            sealing: Sealing::of(network),
            next_window: rules.depend_on_time().then_some(now),
            rules,
            is_client,
            replica: Replica::default(),
            seq: 0,
            offers: BTreeMap::new(),
            loads: loads::Loads::default(),
            fetches: BTreeMap::new(),
            resync: BTreeMap::new(),
            allowances: Allowances::new(OWNERS_BURST, OWNERS_PERIOD, 2 * MAX_MEMBERS),
            changes: 0,
            next: now,
        }
    }

    /// When [`Node::tend_registry`] is wanted next.
    pub fn next(&self) -> Instant {
        self.next
    }

    /// What is read may be something else now.
    pub fn changed(&mut self) {
        self.changes += 1;
    }

    /// Somebody is no member any more.
    pub fn part_with(&mut self, peer: &PeerId, now: Instant) {
        self.loads.forget(peer);
        self.end_fetch(peer, now);
        self.resync.remove(peer);
        self.changed();
    }
}

impl Node {
    // ---- reading -----------------------------------------------------------------------------------------

    /// The services of all members, by name and owner.
    pub fn services(&self) -> Vec<ServiceStatus> {
        let pipeline = self.pipeline();
        let held = self.registry.replica.below("svc");
        held.filter(|held| pipeline.reading(held).is_ok())
            .filter_map(|held| {
                let owner = held.entry.owner;
                let name = held.entry.key.service()?;
                Some(ServiceStatus {
                    owner,
                    load: self.load_of(&owner, &name),
                    name,
                    service: held.service.clone()?,
                    issued: held.entry.issued,
                    expires: held.entry.expires,
                })
            })
            .collect()
    }

    /// What all members have under a key or below it, or everywhere: what may be believed at this moment, by key and owner.
    pub fn entries(&self, under: Option<&Key>) -> Vec<&Entry> {
        let replica = &self.registry.replica;
        match under {
            None => self.readable(replica.all()),
            Some(key) => self.readable(replica.at(key).chain(replica.below(key.as_str()))),
        }
    }

    /// What all members have under this very key, by owner.
    pub fn entries_at(&self, key: &Key) -> Vec<&Entry> {
        self.readable(self.registry.replica.at(key))
    }

    fn readable<'a>(&'a self, held: impl Iterator<Item = &'a Held>) -> Vec<&'a Entry> {
        let pipeline = self.pipeline();
        held.filter(|held| !held.entry.is_tombstone() && pipeline.reading(held).is_ok())
            .map(|held| &held.entry)
            .collect()
    }

    /// Where an entry lies in the DHT.
    pub fn entry_slot(&self, owner: &PeerId, key: &Key) -> [u8; 32] {
        self.network.entry_slot(owner, key)
    }

    /// Another number whenever [`services`](Self::services) has changed.
    pub fn registry_changes(&self) -> u64 {
        self.registry.changes
    }

    /// As of the latest moment that we know of.
    fn pipeline(&self) -> Pipeline<'_> {
        Pipeline {
            network: &self.network,
            sealing: &self.registry.sealing,
            directory: &self.directory,
            rules: &self.registry.rules,
            replica: &self.registry.replica,
            now: self.time.floor(),
        }
    }

    // ---- taking in ---------------------------------------------------------------------------------------

    /// Takes in what an earlier run kept.
    pub(super) fn restore_entries(&mut self, entries: Vec<Vec<u8>>, now: Now) {
        for sealed in entries {
            let Err(reason) = self.take_entry(&sealed, None, Origin::Disk, now) else {
                continue;
            };
            tracing::debug!(%reason, "a stored entry is not taken");
            if let Some(slot) = self.pipeline().slot_in(&sealed) {
                self.outputs.push_back(Output::ForgetEntry { slot });
            }
        }
        self.plan_registry(now);
    }

    /// The one way in. Returns whose entry it was and where it lies, if it is news.
    fn take_entry(
        &mut self,
        sealed: &[u8],
        slot: Option<&[u8]>,
        origin: Origin,
        now: Now,
    ) -> Result<Option<(SignerKey, Key)>, Rejection> {
        self.time.now(now.unix);
        let pipeline = self.pipeline();
        if let Some(known) = self.registry.replica.known(sealed) {
            return match slot.is_some_and(|slot| slot != pipeline.slot_of(&known.entry)) {
                true => Err(Rejection::WrongSlot),
                false => Ok(None),
            };
        }
        let passed = match pipeline.arrival(sealed, slot) {
            Ok(passed) => passed,
            // Its owner may be restored: then it is there again.
            Err(Refused {
                waiting: Some(held),
                ..
            }) if origin == Origin::Disk => Passed {
                held: *held,
                equivocates: false,
            },
            Err(refused) => return Err(refused.reason),
        };
        self.put_in(passed, origin, now)
    }

    fn put_in(
        &mut self,
        passed: Passed,
        origin: Origin,
        now: Now,
    ) -> Result<Option<(SignerKey, Key)>, Rejection> {
        let Passed { held, equivocates } = passed;
        let (owner, key) = (held.owner, held.entry.key.clone());
        let is_ours = owner == self.signer.key();
        let is_foreign = match origin {
            Origin::Member(_) | Origin::Dht => !is_ours,
            Origin::Ourselves | Origin::Disk => false,
        };
        if is_foreign
            && !self
                .registry
                .allowances
                .take(held.entry.owner, 1, now.instant)
        {
            return Err(Rejection::TooMuch);
        }
        if equivocates {
            tracing::warn!(owner = %held.entry.owner, %key, seq = held.entry.seq, "a member signed two entries with one sequence number");
            self.rejections.count(&Rejection::EntryEquivocation);
        }
        if is_ours {
            self.registry.seq = self.registry.seq.max(held.entry.seq);
        }
        let slot = self.network.entry_slot(&held.entry.owner, &key);
        let sealed = held.sealed.clone();
        let put = self.registry.replica.put(held, self.time.floor());
        for (owner, key) in put.dropped {
            let slot = self.network.entry_slot(&owner.peer_id(), &key);
            self.outputs.push_back(Output::ForgetEntry { slot });
        }
        if !put.is_news {
            return Err(Rejection::RegistryFull);
        }
        self.registry.changed();
        if origin != Origin::Disk && (is_ours || !self.registry.is_client) {
            self.outputs.push_back(Output::SaveEntry { slot, sealed });
        }
        if is_ours && origin != Origin::Ourselves {
            self.write_again(&key);
        }
        Ok(Some((owner, key)))
    }

    /// Something that we signed in an earlier life has come back: what we offer now goes on top of it.
    fn write_again(&mut self, key: &Key) {
        let offers = &mut self.registry.offers;
        if let Some(offer) = key.service().and_then(|name| offers.get_mut(&name)) {
            offer.due = UnixTime(0);
        }
    }

    /// Something that the DHT had in a slot, served by anybody.
    pub fn handle_found_entry(&mut self, slot: &[u8], sealed: &[u8], now: Now) {
        match self.take_entry(sealed, Some(slot), Origin::Dht, now) {
            Ok(news) => self.pass_entries_on(news.into_iter().collect(), None),
            Err(reason) => {
                tracing::debug!(%reason, "an entry from the DHT is not taken");
                self.rejections.count(&reason);
            }
        }
        self.plan_registry(now);
    }

    /// What should lie in a slot in which this was found: the best that is known of its owner and key, which may be a
    /// tombstone. None when that is over, or this does not belong there.
    pub fn best_entry(&self, slot: &[u8], found: &[u8]) -> Option<&[u8]> {
        let (pipeline, replica) = (self.pipeline(), &self.registry.replica);
        let (owner, key) = pipeline.place_in(found)?;
        let held = replica.get(&key, &owner)?;
        let is_fit =
            held.entry.is_live(pipeline.now) && pipeline.slot_of(&held.entry).as_slice() == slot;
        is_fit.then_some(&*held.sealed)
    }

    /// Whether something that a member puts into a slot of the DHT is to be kept there, in place of `kept`. It is taken in
    /// here as well.
    pub fn judge_for_dht(
        &mut self,
        from: PeerId,
        slot: &[u8],
        sealed: &[u8],
        kept: Option<&[u8]>,
        now: Now,
    ) -> Result<DhtVerdict, Rejection> {
        let judged = self.judge_put(from, slot, sealed, kept, now);
        self.plan_registry(now);
        judged.inspect_err(|reason| {
            tracing::debug!(peer = %from, %reason, "an entry is not kept for the DHT");
            self.rejections.count(reason);
        })
    }

    fn judge_put(
        &mut self,
        from: PeerId,
        slot: &[u8],
        sealed: &[u8],
        kept: Option<&[u8]>,
        now: Now,
    ) -> Result<DhtVerdict, Rejection> {
        if self.registry.replica.known(sealed).is_none() && !self.may_work_for(from, 1, now) {
            return Err(Rejection::TooMuch);
        }
        let news = self.take_entry(sealed, Some(slot), Origin::Member(from), now)?;
        self.pass_entries_on(news.into_iter().collect(), Some(from));
        let held = self.registry.replica.known(sealed);
        let held = held.ok_or(Rejection::RegistryFull)?;
        self.pipeline().reading(held)?;
        let is_known = kept.is_some_and(|kept| {
            kept == sealed
                || self
                    .pipeline()
                    .version_in(kept)
                    .is_some_and(|kept| kept >= held.version())
        });
        Ok(match is_known {
            true => DhtVerdict::Known,
            false => DhtVerdict::News,
        })
    }

    // ---- time --------------------------------------------------------------------------------------------

    /// Does what is due.
    pub(super) fn tend_registry(&mut self, now: Now) {
        let unix = self.time.now(now.unix);
        let (forgotten, is_over) = self.registry.replica.expire(unix);
        if is_over {
            self.registry.changed();
        }
        for (owner, key) in forgotten {
            let slot = self.network.entry_slot(&owner.peer_id(), &key);
            self.outputs.push_back(Output::ForgetEntry { slot });
        }
        if self
            .registry
            .next_window
            .is_some_and(|at| now.instant >= at)
        {
            self.registry.next_window = Some(now.instant + WINDOW_PERIOD);
            self.registry.changed();
        }
        self.write_due(unix, now);
        self.tend_loads(now.instant);
        self.registry.give_up_fetches(now.instant);
        self.compare_due_registries(now);
        self.plan_registry(now);
    }

    /// Computes anew when something is due. What is due by the wall clock is another moment for timers when that has been set,
    /// or has gone on while the machine slept.
    pub(super) fn plan_registry(&mut self, now: Now) {
        let unix = self.time.floor();
        let is_member = self.is_member();
        let registry = &self.registry;
        let offers = registry.offers.values();
        let wall = offers
            .filter(|_| is_member)
            .map(|offer| offer.due)
            .chain(registry.replica.next());
        let wall = wall.map(|at| now.instant + at.since(unix));
        let compare = registry.resync.values().filter_map(|resync| resync.due);
        self.registry.next = wall
            .chain(compare)
            .chain(registry.loads.next())
            .chain(registry.next_fetch_timeout())
            .chain(registry.next_window)
            .fold(now.instant + HORIZON, Instant::min);
    }
}
