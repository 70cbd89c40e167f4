//! Messages about the registry: answering those of others, and fetching what they have and we lack.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use libp2p_identity::PeerId;

use super::{Node, Now, Origin, Registry};
use crate::{
    membership::{Rejection, SignerKey},
    node::{
        ANTI_ENTROPY_PERIOD, RESYNC_DELAY,
        members::FAN_OUT,
        restraint::{DIGEST_WORK, work_to_read},
    },
    output::{Output, RequestId},
    registry::{
        Key,
        replica::Version,
        sync::{OwnerVersions, Records, RegistryMessage, Versions, want},
    },
};

/// Entries wanted of one member that are remembered.
const MAX_LACKING: usize = 32 * 1024;
/// Messages of one fetch: as many as it takes to fetch all that a replica can hold, and some.
const MAX_STEPS: u32 = 1024;
/// A fetch that nothing is heard of for so long is given up.
const FETCH_TIMEOUT: Duration = Duration::from_secs(60);
/// News of one fetch's entries that others have told of meanwhile, and that are remembered.
const MAX_TOLD: usize = 256;
/// Wanted entries that cost as much to look up as a signature to check.
const WANTED_OF_WORK: u32 = 32;

/// What we are fetching from one member.
#[derive(Debug)]
pub(super) struct Fetch {
    /// What we have asked for or will.
    lacking: BTreeSet<(SignerKey, Key)>,
    /// What was asked for by the message under way.
    asked: Vec<(SignerKey, Key)>,
    /// Where the next page begins, if there is one.
    next_page: Option<SignerKey>,
    /// Where the page under way began.
    page: Option<SignerKey>,
    /// All that the other has is looked through, not some news alone.
    compares: bool,
    /// We have so little that what we lack is no news to the others.
    catches_up: bool,
    /// Something was refused that may be taken later.
    is_incomplete: bool,
    /// What others have told of that we are fetching here.
    told: Vec<Told>,
    steps: u32,
    moved_at: Instant,
}

/// News that were not asked for, because another was bringing them.
#[derive(Debug)]
struct Told {
    by: PeerId,
    entry: (SignerKey, Key),
    version: Version,
}

impl Fetch {
    fn new(compares: bool, now: Instant) -> Self {
        Self {
            lacking: BTreeSet::new(),
            asked: Vec::new(),
            next_page: None,
            page: None,
            compares,
            catches_up: false,
            is_incomplete: false,
            told: Vec::new(),
            steps: 0,
            moved_at: now,
        }
    }
}

impl Registry {
    /// Compares replicas with a member in a while; later, if it has come to nothing lately.
    pub fn compare_later(&mut self, peer: PeerId, now: Instant) {
        let resync = self.resync.entry(peer).or_default();
        if resync.due.is_some() {
            return;
        }
        resync.pause = (resync.pause * 2).clamp(RESYNC_DELAY, ANTI_ENTROPY_PERIOD);
        let due = now + resync.pause;
        resync.due = Some(due);
        self.next = self.next.min(due);
    }

    /// Whoever does not answer any more brings nothing.
    pub fn give_up_fetches(&mut self, now: Instant) {
        let given_up = |fetch: &mut Fetch| now >= fetch.moved_at + FETCH_TIMEOUT;
        let over = self.fetches.extract_if(.., |_, fetch| given_up(fetch));
        let told: Vec<_> = over.flat_map(|(_, fetch)| fetch.told).collect();
        self.turn_to_others(told, now);
    }

    /// When that is due.
    pub fn next_fetch_timeout(&self) -> Option<Instant> {
        let fetches = self.fetches.values();
        fetches.map(|fetch| fetch.moved_at + FETCH_TIMEOUT).min()
    }

    /// A member has brought all that it will.
    pub fn end_fetch(&mut self, peer: &PeerId, now: Instant) {
        if let Some(fetch) = self.fetches.remove(peer) {
            self.turn_to_others(fetch.told, now);
        }
    }

    /// The fetch that is to bring this.
    fn fetch_of(&mut self, entry: &(SignerKey, Key)) -> Option<(&PeerId, &mut Fetch)> {
        let mut fetches = self.fetches.iter_mut();
        fetches.find(|(_, fetch)| fetch.lacking.contains(entry) || fetch.asked.contains(entry))
    }

    /// Replicas are compared with those who told of something that was not brought.
    fn turn_to_others(&mut self, told: Vec<Told>, now: Instant) {
        for Told { by, entry, version } in told {
            let (owner, key) = &entry;
            let known = self.replica.get(key, owner);
            if known.is_none_or(|known| known.version() < version) {
                self.compare_later(by, now);
            }
        }
    }
}

impl Node {
    // ---- telling -----------------------------------------------------------------------------------------

    /// Tells everybody we are connected with of an entry of ours.
    pub(super) fn announce_own(&mut self, sealed: &[u8]) {
        let (records, _) = Records::pick([sealed]);
        let body = RegistryMessage::Announce(records).encode();
        let connected: Vec<_> = self.connections.connected().collect();
        self.outputs
            .extend(connected.into_iter().map(|peer| Output::Registry {
                peer,
                body: body.clone(),
            }));
    }

    /// Tells a member of all that is ours, in as many messages as it takes. Whoever serves nobody is not asked for it.
    fn announce_all_own_to(&mut self, peer: PeerId) {
        if !self.is_member() {
            return;
        }
        let us = self.signer.key();
        let unix = self.time.floor();
        let own = self.registry.replica.of_owner(&us);
        let own = own.filter(|held| held.entry.is_live(unix));
        let own: Vec<_> = own.map(|held| held.sealed.as_slice()).collect();
        let mut rest = own.as_slice();
        while !rest.is_empty() {
            // At least one of any length fits.
            let (records, _) = Records::pick(rest.iter().copied());
            rest = &rest[records.len()..];
            let body = RegistryMessage::Announce(records).encode();
            self.outputs.push_back(Output::Registry { peer, body });
        }
    }

    /// Tells a few others of what is new here. Whoever serves nobody tells nothing.
    pub(super) fn pass_entries_on(&mut self, news: Vec<(SignerKey, Key)>, from: Option<PeerId>) {
        if news.is_empty() || self.registry.is_client || !self.is_member() {
            return;
        }
        let connected = self.connections.connected();
        let mut others: Vec<_> = connected.filter(|peer| Some(*peer) != from).collect();
        self.tunnels.choose_some(&mut others, FAN_OUT);
        if others.is_empty() {
            return;
        }
        let versions = self.registry.replica.versions_at(&news);
        let body = RegistryMessage::Have(versions).encode();
        self.outputs
            .extend(others.into_iter().map(|peer| Output::Registry {
                peer,
                body: body.clone(),
            }));
    }

    /// A member is newly connected.
    pub(in crate::node) fn greet_for_registry(&mut self, peer: PeerId, now: Instant) {
        self.compare_registry_with(peer, now);
        self.tell_loads_to(peer);
    }

    /// Asks a member whether it has the same. A node that serves nobody makes nobody fetch from it: it says what is its own.
    fn compare_registry_with(&mut self, peer: PeerId, now: Instant) {
        if !self.is_member() {
            return;
        }
        let message = match self.registry.is_client {
            true => {
                self.announce_all_own_to(peer);
                return self.begin_fetch(peer, now);
            }
            false => RegistryMessage::Summary(self.registry_summary()),
        };
        self.ask(peer, &message);
    }

    fn registry_summary(&mut self) -> [u8; 32] {
        let directory = &self.directory;
        let is_member = |owner: &SignerKey| directory.get(&owner.peer_id()).is_some();
        self.registry.replica.summary(is_member)
    }

    /// Compares replicas with some connected member.
    pub(in crate::node) fn compare_registries(&mut self, now: Instant) {
        let connected: Vec<_> = self.connections.connected().collect();
        if let Some(peer) = self.tunnels.choose(&connected) {
            self.compare_registry_with(peer, now);
        }
    }

    /// Compares replicas with those with whom something went wrong.
    pub(super) fn compare_due_registries(&mut self, now: Now) {
        let is_due = |due: &Instant| now.instant >= *due;
        let resync = self.registry.resync.iter_mut();
        let due: Vec<_> = resync
            .filter_map(|(peer, resync)| resync.due.take_if(|due| is_due(due)).map(|_| *peer))
            .collect();
        for peer in due {
            if self.connections.of(&peer).next().is_some() {
                self.compare_registry_with(peer, now.instant);
            }
        }
    }

    fn ask(&mut self, peer: PeerId, message: &RegistryMessage) {
        let body = message.encode();
        self.outputs.push_back(Output::Registry { peer, body });
    }

    // ---- answering ---------------------------------------------------------------------------------------

    /// A message about the registry from an authenticated member. It always gets an answer.
    pub fn handle_registry_request(
        &mut self,
        request: RequestId,
        peer: PeerId,
        body: &[u8],
        now: Now,
    ) {
        self.time.now(now.unix);
        let answer = self.registry_answer(peer, body, now);
        let body = answer.encode();
        self.outputs.push_back(Output::Respond { request, body });
        self.plan_registry(now);
    }

    fn registry_answer(&mut self, peer: PeerId, body: &[u8], now: Now) -> RegistryMessage {
        if self.directory.get(&peer).is_none() {
            // Its connection outlived its certificate.
            self.rejections.count(&Rejection::Expired);
            return RegistryMessage::Nothing;
        }
        if !self.works_for_fetch(peer, work_to_read(body), now) {
            return RegistryMessage::Later;
        }
        let message = match RegistryMessage::decode(body) {
            Ok(message) => message,
            Err(reason) => {
                tracing::debug!(%peer, %reason, "a message about the registry is not taken");
                self.rejections.count(&reason);
                return RegistryMessage::Nothing;
            }
        };
        match message {
            RegistryMessage::Announce(records) => {
                let (news, is_complete) = self.take_records(&records, peer, now);
                if !is_complete {
                    self.registry.compare_later(peer, now.instant);
                }
                self.pass_entries_on(news, Some(peer));
                RegistryMessage::Taken
            }
            RegistryMessage::Have(versions) => {
                self.fetch_news(peer, &versions, now);
                RegistryMessage::Taken
            }
            RegistryMessage::Loads(loads) => {
                self.hear_loads(peer, loads, now.instant);
                RegistryMessage::Taken
            }
            RegistryMessage::Summary(theirs) => self.answer_summary(peer, theirs, now),
            RegistryMessage::Digest(_) | RegistryMessage::Want(_) | RegistryMessage::Get(_)
                if self.registry.is_client =>
            {
                RegistryMessage::Nothing
            }
            RegistryMessage::Digest(theirs) => {
                if !self.works_for_fetch(peer, DIGEST_WORK, now) {
                    return RegistryMessage::Later;
                }
                let directory = &self.directory;
                let is_member = |owner: &SignerKey| directory.get(&owner.peer_id()).is_some();
                RegistryMessage::Versions(self.registry.replica.versions(&theirs, is_member))
            }
            RegistryMessage::Want(wanted) => {
                let count: usize = wanted.iter().map(|wanted| wanted.keys.len()).sum();
                if !self.works_for_fetch(peer, count as u32 / WANTED_OF_WORK, now) {
                    return RegistryMessage::Later;
                }
                let (records, looked_at) = self.registry.replica.records(&wanted);
                RegistryMessage::Records(records, looked_at)
            }
            RegistryMessage::Get(key) => {
                let held = self.registry.replica.at(&key);
                let (records, _) = Records::pick(held.map(|held| held.sealed.as_slice()));
                let count = records.len() as u32;
                match self.works_for_fetch(peer, count / WANTED_OF_WORK, now) {
                    true => RegistryMessage::Records(records, count),
                    false => RegistryMessage::Later,
                }
            }
            RegistryMessage::Taken
            | RegistryMessage::Later
            | RegistryMessage::Nothing
            | RegistryMessage::Same
            | RegistryMessage::Versions(_)
            | RegistryMessage::Records(..) => {
                tracing::debug!(%peer, "an answer to no question");
                RegistryMessage::Nothing
            }
        }
    }

    fn answer_summary(&mut self, peer: PeerId, theirs: [u8; 32], now: Now) -> RegistryMessage {
        let ours = self.registry_summary();
        if ours == theirs {
            self.registry.resync.remove(&peer);
            return RegistryMessage::Same;
        }
        self.begin_fetch(peer, now.instant);
        match self.registry.is_client {
            true => RegistryMessage::Nothing,
            false => RegistryMessage::Summary(ours),
        }
    }

    fn works_for_fetch(&mut self, peer: PeerId, work: u32, now: Now) -> bool {
        let is_allowed = self.may_work_for(peer, work, now);
        if !is_allowed {
            self.registry.compare_later(peer, now.instant);
        }
        is_allowed
    }

    // ---- fetching ----------------------------------------------------------------------------------------

    /// Begins to fetch everything that a member has and we lack, unless we are at it. If we are fetching some news of it, the
    /// rest comes later.
    fn begin_fetch(&mut self, peer: PeerId, now: Instant) {
        self.registry.give_up_fetches(now);
        if let Some(fetch) = self.registry.fetches.get_mut(&peer) {
            fetch.is_incomplete |= !fetch.compares;
            return;
        }
        self.registry.fetches.insert(peer, Fetch::new(true, now));
        self.ask_for_page(peer, None);
    }

    fn ask_for_page(&mut self, peer: PeerId, after: Option<SignerKey>) {
        let directory = &self.directory;
        let is_member = |owner: &SignerKey| directory.get(&owner.peer_id()).is_some();
        let digest = self.registry.replica.digest(after, is_member);
        self.ask(peer, &RegistryMessage::Digest(digest));
    }

    /// Fetches what of this news we lack, and nobody else is bringing.
    fn fetch_news(&mut self, peer: PeerId, versions: &[OwnerVersions], now: Now) {
        self.registry.give_up_fetches(now.instant);
        let mut lacking = self.lacking(versions);
        for of_owner in versions {
            for (key, version) in of_owner.iter() {
                let entry = (of_owner.owner, key.clone());
                if !lacking.contains(&entry) {
                    continue;
                }
                let Some((bringer, fetch)) = self.registry.fetch_of(&entry) else {
                    continue;
                };
                lacking.remove(&entry);
                if *bringer != peer && fetch.told.len() < MAX_TOLD {
                    let by = peer;
                    fetch.told.push(Told { by, entry, version });
                }
            }
        }
        if lacking.is_empty() {
            return;
        }
        if let Some(fetch) = self.registry.fetches.get_mut(&peer) {
            let room = MAX_LACKING.saturating_sub(fetch.lacking.len());
            fetch.lacking.extend(lacking.into_iter().take(room));
            return;
        }
        let mut fetch = Fetch::new(false, now.instant);
        fetch.lacking = lacking;
        self.registry.fetches.insert(peer, fetch);
        self.fetch_on(peer, now);
    }

    /// What of this we lack and may be taken: of members.
    fn lacking(&mut self, versions: &[OwnerVersions]) -> BTreeSet<(SignerKey, Key)> {
        let mut lacking = self.registry.replica.lacking(versions);
        lacking.retain(|(owner, _)| self.directory.get(&owner.peer_id()).is_some());
        lacking
    }

    /// The next step of a fetch: what is lacking, then the next page, then it is over.
    fn fetch_on(&mut self, peer: PeerId, now: Now) {
        let Some(fetch) = self.registry.fetches.get_mut(&peer) else {
            return;
        };
        fetch.steps += 1;
        fetch.moved_at = now.instant;
        let is_too_long = fetch.steps > MAX_STEPS;
        if !fetch.lacking.is_empty() && !is_too_long {
            let wanted = want(&fetch.lacking);
            fetch.asked.clear();
            for of_owner in &wanted {
                let owner = of_owner.owner;
                let keys = of_owner.keys.iter().map(|key| (owner, key.clone()));
                fetch.asked.extend(keys);
            }
            return self.ask(peer, &RegistryMessage::Want(wanted));
        }
        if let Some(after) = fetch.next_page.take().filter(|_| !is_too_long) {
            fetch.page = Some(after);
            return self.ask_for_page(peer, Some(after));
        }
        let is_incomplete = fetch.is_incomplete || is_too_long;
        self.registry.end_fetch(&peer, now.instant);
        match is_incomplete {
            true => self.registry.compare_later(peer, now.instant),
            false => drop(self.registry.resync.remove(&peer)),
        }
    }

    /// A member's answer to a message of ours.
    pub fn handle_registry_answer(&mut self, peer: PeerId, body: &[u8], now: Now) {
        self.time.now(now.unix);
        match RegistryMessage::decode(body) {
            Ok(RegistryMessage::Taken) => {}
            Ok(RegistryMessage::Same) => drop(self.registry.resync.remove(&peer)),
            Ok(RegistryMessage::Summary(theirs)) => {
                if theirs != self.registry_summary() {
                    self.begin_fetch(peer, now.instant);
                }
            }
            Ok(RegistryMessage::Versions(versions)) => self.on_versions(peer, versions, now),
            Ok(RegistryMessage::Records(records, looked_at)) => {
                self.on_records(peer, &records, looked_at, now);
            }
            Ok(RegistryMessage::Later) => self.handle_registry_failed(peer, now),
            Ok(RegistryMessage::Nothing) => self.registry.end_fetch(&peer, now.instant),
            Ok(
                RegistryMessage::Announce(_)
                | RegistryMessage::Have(_)
                | RegistryMessage::Digest(_)
                | RegistryMessage::Want(_)
                | RegistryMessage::Loads(_)
                | RegistryMessage::Get(_),
            ) => tracing::debug!(%peer, "a question for an answer"),
            Err(reason) => {
                self.rejections.count(&reason);
                self.registry.end_fetch(&peer, now.instant);
                tracing::debug!(%peer, %reason, "an answer about the registry is not taken");
            }
        }
        self.plan_registry(now);
    }

    /// A message about the registry was lost, or the other has no time: replicas are compared again later.
    pub fn handle_registry_failed(&mut self, peer: PeerId, now: Now) {
        self.registry.end_fetch(&peer, now.instant);
        self.registry.compare_later(peer, now.instant);
        self.plan_registry(now);
    }

    fn on_versions(&mut self, peer: PeerId, versions: Versions, now: Now) {
        let lacking = self.lacking(&versions.owners);
        let is_unknown = |of: &OwnerVersions| self.directory.get(&of.owner.peer_id()).is_none();
        let has_unknown = versions.owners.iter().any(is_unknown);
        let held = self.registry.replica.len();
        let Some(fetch) = self.registry.fetches.get_mut(&peer) else {
            return;
        };
        fetch.is_incomplete |= has_unknown;
        // Pages lead onwards, or somebody leads us round in circles.
        fetch.next_page = versions.until.filter(|until| Some(*until) > fetch.page);
        fetch.catches_up |= lacking.len() > held / 2;
        let room = MAX_LACKING.saturating_sub(fetch.lacking.len());
        fetch.lacking.extend(lacking.into_iter().take(room));
        self.fetch_on(peer, now);
    }

    fn on_records(&mut self, peer: PeerId, records: &Records, looked_at: u32, now: Now) {
        let (news, is_complete) = self.take_records(records, peer, now);
        let fetch = self.registry.fetches.get_mut(&peer);
        let Some(fetch) = fetch.filter(|fetch| !fetch.asked.is_empty()) else {
            // What lies under a key that we have asked for, or the end of a fetch that was given up.
            return self.pass_entries_on(news, Some(peer));
        };
        fetch.is_incomplete |= !is_complete;
        let catches_up = fetch.catches_up;
        let looked_at = (looked_at as usize).min(fetch.asked.len());
        if looked_at == 0 {
            fetch.lacking.clear();
        }
        for entry in fetch.asked.drain(..).take(looked_at) {
            fetch.lacking.remove(&entry);
        }
        let Fetch { told, lacking, .. } = fetch;
        let is_over = |told: &mut Told| !lacking.contains(&told.entry);
        let told: Vec<_> = told.extract_if(.., is_over).collect();
        self.registry.turn_to_others(told, now.instant);
        if !catches_up {
            self.pass_entries_on(news, Some(peer));
        }
        self.fetch_on(peer, now);
    }

    /// Takes in what a member sent. Returns what was news, and whether the rest is not worth asking for again. What is news
    /// costs it nothing if we asked for it: there is only so much.
    fn take_records(
        &mut self,
        records: &Records,
        from: PeerId,
        now: Now,
    ) -> (Vec<(SignerKey, Key)>, bool) {
        let is_fetched = self.registry.fetches.contains_key(&from);
        let mut news = Vec::new();
        let mut is_complete = true;
        for sealed in records.iter() {
            if self.registry.replica.known(sealed).is_some() {
                continue;
            }
            if !is_fetched && !self.works_for_fetch(from, 1, now) {
                return (news, false);
            }
            match self.take_entry(sealed, None, Origin::Member(from), now) {
                Ok(taken) => news.extend(taken),
                Err(reason) => {
                    tracing::debug!(peer = %from, %reason, "an entry is not taken");
                    self.rejections.count(&reason);
                    // Of what came with it, something may have made room.
                    let may_be_taken_later = matches!(
                        reason,
                        Rejection::UnknownOwner | Rejection::TooMuch | Rejection::OwnerFull
                    );
                    is_complete &= !may_be_taken_later;
                    if is_fetched && !self.works_for_fetch(from, 1, now) {
                        return (news, false);
                    }
                }
            }
        }
        (news, is_complete)
    }

    /// Asks for what lies under a key: a few members for what all have there, and the DHT for what of it we have not heard
    /// of for so long that there may be news, and for that of this owner.
    pub fn seek_entries(&mut self, key: &Key, owner: Option<&PeerId>, now: Now) {
        self.time.now(now.unix);
        let mut asked: Vec<_> = self.connections.connected().collect();
        self.tunnels.choose_some(&mut asked, 3);
        for peer in asked {
            self.ask(peer, &RegistryMessage::Get(key.clone()));
        }
        let unix = self.time.floor();
        let held = self.registry.replica.at(key);
        let stale = held.filter(|held| held.entry.is_stale(unix));
        let owners: BTreeSet<PeerId> = stale
            .map(|held| held.entry.owner)
            .chain(owner.copied())
            .collect();
        for owner in owners {
            let slot = self.network.entry_slot(&owner, key);
            self.outputs.push_back(Output::LookupEntry { slot });
        }
    }
}
