//! Entries of the registry, between the core, the DHT and whoever asks.
//!
//! What is known here answers at once while it is young. Else it is searched for in the DHT: everything that members serve
//! goes to the core, which believes what it can check; and who served less than the best, or nothing, is given that.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use hivevpn_core::{
    membership::DhtVerdict,
    node::Now,
    registry::{self, Key, service},
};
use libp2p::PeerId;
use tokio::sync::oneshot;

use super::EventLoop;
use crate::{
    control::{
        Reply,
        registry::{Ask, Entry, Leaf, Value, Written},
    },
    swarm::Command,
};

/// Where an entry lies in the DHT.
type Slot = [u8; 32];

/// Who reads waits for the DHT so long, then gets what has come. Less than commands wait for an answer.
const READ_LIMIT: Duration = Duration::from_secs(4);
/// A search that has not ended by then was lost on its way. Longer than any question to the DHT takes.
const SEARCH_LIMIT: Duration = Duration::from_secs(90);
/// Members whose entries are searched for when nobody says whose is wanted.
const MAX_OWNERS: usize = 64;
/// Answers of one search that are compared in the end: as many as members keep an entry.
const MAX_SERVED: usize = 20;

/// What is searched for in the DHT, and who waits for it.
#[derive(Default)]
pub(super) struct Searches {
    open: BTreeMap<Slot, Search>,
    readers: Vec<Reader>,
}

struct Search {
    began: Instant,
    /// Who served what.
    served: Vec<(PeerId, Vec<u8>)>,
}

/// A command that waits.
struct Reader {
    key: Key,
    owner: Option<PeerId>,
    missing: BTreeSet<Slot>,
    until: Instant,
    answer: oneshot::Sender<Reply>,
}

impl Searches {
    /// When somebody has waited long enough.
    pub(super) fn next(&self) -> Option<Instant> {
        self.readers.iter().map(|reader| reader.until).min()
    }
}

impl EventLoop {
    pub(super) fn registry(&mut self, ask: Ask, answer: oneshot::Sender<Reply>, now: Now) {
        let reply = match ask {
            Ask::Put {
                key,
                value,
                lifetime_s,
            } => self.put_entry(key, &value, lifetime_s, now),
            Ask::Delete { key } => self.delete_entry(key, now),
            Ask::Walk { prefix } => self.walk(prefix.as_deref(), now),
            Ask::Get {
                key,
                owner,
                network,
            } => match self.wanted(&key, owner.as_deref()) {
                Ok((key, owner)) => return self.read(key, owner, network, answer, now),
                Err(why) => Err(why),
            },
            Ask::Routes => {
                let members = self.node.members().into_iter();
                let names = members.map(|member| (member.peer_id, member.name.to_string()));
                let names = names.collect();
                return self.command(Command::Routes { names, answer });
            }
        };
        // Whoever asked may have gone.
        let _ = answer.send(reply.unwrap_or_else(Reply::Error));
    }

    fn put_entry(
        &mut self,
        key: String,
        value: &Value,
        lifetime_s: Option<u64>,
        now: Now,
    ) -> Result<Reply, String> {
        let lifetime = lifetime_s.map_or(service::LIFETIME, Duration::from_secs);
        let put = self
            .node
            .put_entry(&parsed(&key)?, value.bytes()?, lifetime, now);
        let seq = put.map_err(|reason| format!("'{key}' is not put: {reason}"))?;
        Ok(Reply::of(&Written { key, seq }))
    }

    fn delete_entry(&mut self, key: String, now: Now) -> Result<Reply, String> {
        let deleted = self.node.delete_entry(&parsed(&key)?, now);
        let seq = deleted.map_err(|reason| format!("'{key}' is not deleted: {reason}"))?;
        Ok(Reply::of(&Written { key, seq }))
    }

    fn walk(&self, prefix: Option<&str>, now: Now) -> Result<Reply, String> {
        let prefix = prefix.map(parsed).transpose()?;
        let entries = self.node.entries(prefix.as_ref()).into_iter();
        let leaf = |entry: &registry::Entry| Leaf {
            key: entry.key.to_string(),
            owner: self.node.name_of(&entry.owner).to_string(),
            owner_id: entry.owner.to_string(),
            seq: entry.seq,
            age_s: age(entry, now).as_secs(),
            left_s: left(entry, now).as_secs(),
            bytes: entry.value.as_ref().map_or(0, Vec::len),
        };
        let mut leaves: Vec<_> = entries.map(leaf).collect();
        // Part by part, so that what lies below a key follows it.
        leaves.sort_by(|a, b| {
            let by_key = a.key.split('/').cmp(b.key.split('/'));
            by_key.then_with(|| a.owner.cmp(&b.owner))
        });
        Ok(Reply::of(&leaves))
    }

    // ---- reading -----------------------------------------------------------------------------------------

    fn wanted(&self, key: &str, owner: Option<&str>) -> Result<(Key, Option<PeerId>), String> {
        let key = parsed(key)?;
        let resolve = |owner: &str| {
            let known = self.node.resolve(owner).or_else(|| owner.parse().ok());
            known.ok_or_else(|| super::answers::unknown(owner))
        };
        Ok((key, owner.map(resolve).transpose()?))
    }

    /// Answers with what is known here if all of it is young, else with that and what the DHT has.
    fn read(
        &mut self,
        key: Key,
        owner: Option<PeerId>,
        network: bool,
        answer: oneshot::Sender<Reply>,
        now: Now,
    ) {
        let is_young = |entry: &registry::Entry| age(entry, now) < left(entry, now);
        let known = self.node.entries_at(&key).into_iter();
        let known = known.filter(|entry| owner.is_none_or(|owner| owner == entry.owner));
        let (young, old): (Vec<_>, Vec<_>) = known.partition(|entry| is_young(entry));
        let us = self.node.peer_id();
        let owners: Vec<PeerId> = match owner {
            Some(owner) if network || young.is_empty() => vec![owner],
            Some(_) => Vec::new(),
            None if network || young.is_empty() && old.is_empty() => {
                let members = self.node.members().into_iter();
                let others = members.map(|member| member.peer_id).filter(|id| *id != us);
                others.take(MAX_OWNERS).collect()
            }
            None => old.iter().map(|entry| entry.owner).collect(),
        };
        let slots = owners.iter().filter(|owner| **owner != us);
        let missing: BTreeSet<Slot> = slots
            .map(|owner| self.node.entry_slot(owner, &key))
            .collect();
        for slot in &missing {
            self.search(*slot, now);
        }
        self.searches.readers.push(Reader {
            key,
            owner,
            missing,
            until: now.instant + READ_LIMIT,
            answer,
        });
        self.answer_readers(now);
    }

    /// Answers those whose searches have ended, or who have waited long enough.
    pub(super) fn answer_readers(&mut self, now: Now) {
        let is_due = |reader: &mut Reader| {
            reader.missing.is_empty() || reader.until <= now.instant || reader.answer.is_closed()
        };
        let due: Vec<_> = self.searches.readers.extract_if(.., is_due).collect();
        for reader in due {
            let entries = self.node.entries_at(&reader.key).into_iter();
            let wanted =
                entries.filter(|entry| reader.owner.is_none_or(|owner| owner == entry.owner));
            let mut entries: Vec<_> = wanted
                .filter_map(|entry| {
                    Some(Entry {
                        key: entry.key.to_string(),
                        owner: self.node.name_of(&entry.owner).to_string(),
                        owner_id: entry.owner.to_string(),
                        seq: entry.seq,
                        age_s: age(entry, now).as_secs(),
                        left_s: left(entry, now).as_secs(),
                        value: Value::of(entry.value.as_deref()?),
                    })
                })
                .collect();
            entries.sort_by(|a, b| a.owner.cmp(&b.owner));
            // Whoever asked may have gone.
            let _ = reader.answer.send(Reply::of(&entries));
        }
    }

    /// Searches the DHT for an entry, unless that is being done.
    pub(super) fn search(&mut self, slot: Slot, now: Now) {
        let open = &mut self.searches.open;
        open.retain(|_, search| now.instant < search.began + SEARCH_LIMIT);
        if open.contains_key(&slot) {
            return;
        }
        let search = Search {
            began: now.instant,
            served: Vec::new(),
        };
        open.insert(slot, search);
        self.command(Command::Lookup { key: slot.to_vec() });
    }

    /// A member, or our own part of the DHT, has something in this slot.
    pub(super) fn on_entry_found(
        &mut self,
        slot: &[u8],
        sealed: Vec<u8>,
        from: Option<PeerId>,
        now: Now,
    ) {
        self.node.handle_found_entry(slot, &sealed, now);
        let search = Slot::try_from(slot).ok();
        let search = search.and_then(|slot| self.searches.open.get_mut(&slot));
        if let (Some(search), Some(from)) = (search, from)
            && search.served.len() < MAX_SERVED
        {
            search.served.push((from, sealed));
        }
    }

    /// A search has found all that it will: whoever served less than the best gets that.
    pub(super) fn on_looked_up(&mut self, key: &[u8], without: Vec<PeerId>, now: Now) {
        let Ok(slot) = Slot::try_from(key) else {
            return;
        };
        let Some(search) = self.searches.open.remove(&slot) else {
            return; // A member's record.
        };
        let mut served = search.served.iter();
        let best = served.find_map(|(_, served)| self.node.best_entry(&slot, served));
        if let Some(best) = best.map(<[u8]>::to_vec) {
            let served = search.served.into_iter();
            let worse = served.filter(|(_, served)| *served != best);
            let to: Vec<_> = worse.map(|(from, _)| from).chain(without).collect();
            if !to.is_empty() {
                self.command(Command::WriteBack {
                    slot: slot.to_vec(),
                    sealed: best,
                    to,
                });
            }
        }
        for reader in &mut self.searches.readers {
            reader.missing.remove(&slot);
        }
        self.answer_readers(now);
    }

    // ---- keeping for others ------------------------------------------------------------------------------

    /// A member wants us to keep an entry in our part of the DHT.
    pub(super) fn on_entry_offered(
        &mut self,
        from: PeerId,
        slot: Vec<u8>,
        sealed: Vec<u8>,
        kept: Option<Vec<u8>>,
        now: Now,
    ) {
        let judged = self
            .node
            .judge_for_dht(from, &slot, &sealed, kept.as_deref(), now);
        match judged {
            Ok(DhtVerdict::News) => self.command(Command::KeepEntry {
                from,
                slot,
                sealed,
                kept,
            }),
            Ok(DhtVerdict::Known) => {}
            // The core has counted it.
            Err(reason) => tracing::debug!(%from, %reason, "an entry for the DHT is not kept"),
        }
    }
}

fn parsed(key: &str) -> Result<Key, String> {
    Key::parse(key).map_err(|error| error.to_string())
}

fn age(entry: &registry::Entry, now: Now) -> Duration {
    Duration::from_secs(now.unix.0.saturating_sub(entry.issued.0))
}

fn left(entry: &registry::Entry, now: Now) -> Duration {
    Duration::from_secs(entry.expires.0.saturating_sub(now.unix.0))
}
