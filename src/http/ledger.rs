//! The books: what members used of the model servers of this node.
//!
//! They outlive services, and with somebody who writes them down this process: a row is kept until it is
//! [reset](Ledger::reset). Nothing here waits for a disk; what is to be written down is what [changed](Ledger::take_changes)
//! since that was last asked.
//!
//! Memory is bounded whatever members ask for: so many members have accounts of their own, and so many models each.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt,
    str::FromStr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use hivevpn_core::membership::{Name, UnixTime};
use libp2p::PeerId;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::scan::model_id;

/// Services that are remembered, more than are offered at once. Beyond them the one that nobody used for longest is forgotten.
const SERVICES: usize = 256;
/// Members of a service with an account of their own. Networks are smaller; further members would share one.
const MEMBERS: usize = 4096;
/// Models in an account. What is asked for beyond them is counted as [`OTHERS`].
const MODELS: usize = 64;
/// What models and members beyond the bounds are called.
const OTHERS: &str = "(others)";
/// Over so many requests the typical time to the first byte is taken.
const LATEST: usize = 64;

/// What the time is.
type Clock = Box<dyn Fn() -> UnixTime + Send + Sync>;

/// Where something is written down. As text `<service> <peer id> <model>`, with `-` for no peer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// What this node calls the service.
    pub service: Name,
    /// The member; none for all those together that have no account of their own.
    pub peer: Option<PeerId>,
    /// The model, as it was asked for; empty where a request named none.
    pub model: String,
}

/// What a member used of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// What commands called the member when it last asked.
    pub member: String,
    /// When its first request was counted, in seconds since 1970.
    pub since: u64,
    /// When its last one was.
    pub until: u64,
    /// Requests that went to the server.
    pub requests: u64,
    /// Those of them that failed there.
    pub errors: u64,
    /// Tokens read.
    pub prompt_tokens: u64,
    /// Tokens written.
    pub completion_tokens: u64,
    /// How many of the tokens written are an estimate: the server did not say, so the pieces of its streams were counted.
    pub estimated_tokens: u64,
    /// How soon the latest answers began.
    pub first_bytes: Latest,
}

/// The latest durations, in milliseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Latest(VecDeque<u32>);

/// A request that is done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Done {
    pub model: String,
    pub failed: bool,
    pub prompt_tokens: u64,
    pub completion_tokens: u64,
    /// The tokens written are an estimate.
    pub estimated: bool,
    pub first_byte: Option<Duration>,
}

/// Where a member's requests to a service are counted.
pub(super) struct Page {
    pub ledger: Ledger,
    pub service: Name,
    /// What commands call the member.
    pub member: Name,
}

impl Page {
    pub fn count(&self, peer: PeerId, done: &Done) {
        self.ledger.count(&self.service, peer, &self.member, done);
    }
}

/// A row of the books cannot be taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// Its key is none.
    #[error("its key is not '<service> <peer id> <model>'")]
    Key,
    /// It has a name that nobody has.
    #[error("the member's name is none")]
    Member,
    /// There are too many.
    #[error("there are more than are ever kept")]
    TooMany,
}

/// All books. Clones are the same ones.
#[derive(Clone)]
pub struct Ledger(Arc<Inner>);

struct Inner {
    books: Mutex<Books>,
    changed: Notify,
    clock: Clock,
}

#[derive(Default)]
struct Books {
    services: BTreeMap<Name, Accounts>,
    /// What is to be written down.
    changes: BTreeSet<Key>,
}

/// Those of a service, by member and model.
type Accounts = BTreeMap<Option<PeerId>, BTreeMap<String, Row>>;

impl Default for Ledger {
    fn default() -> Self {
        Self::by(Box::new(|| crate::event_loop::now().unix))
    }
}

impl Ledger {
    /// Empty books, with times from this clock.
    fn by(clock: Clock) -> Self {
        Self(Arc::new(Inner {
            books: Mutex::default(),
            changed: Notify::new(),
            clock,
        }))
    }

    /// Takes over a row that was written down earlier, unless there is no place for it.
    pub fn restore(&self, key: Key, mut row: Row) -> Result<(), Misfit> {
        if row.member != OTHERS && Name::parse(&row.member).is_err() {
            return Err(Misfit::Member);
        }
        while row.first_bytes.0.len() > LATEST {
            row.first_bytes.0.pop_front();
        }
        let mut books = self.books();
        let services = &mut books.services;
        if !services.contains_key(&key.service) && services.len() >= SERVICES {
            return Err(Misfit::TooMany);
        }
        let accounts = services.entry(key.service.clone()).or_default();
        if key.clone().within_bounds(accounts) != key {
            return Err(Misfit::TooMany);
        }
        let models = accounts.entry(key.peer).or_default();
        models.insert(key.model, row);
        Ok(())
    }

    fn count(&self, service: &Name, peer: PeerId, member: &Name, done: &Done) {
        let now = (self.0.clock)().0;
        let mut books = self.books();
        books.make_room_for(service);
        let accounts = books.services.entry(service.clone()).or_default();
        let key = Key {
            service: service.clone(),
            peer: Some(peer),
            model: done.model.clone(),
        };
        let key = key.within_bounds(accounts);
        let models = accounts.entry(key.peer).or_default();
        let row = models
            .entry(key.model.clone())
            .or_insert_with(|| Row::begun(now));
        row.member = match key.peer {
            Some(_) => member.to_string(),
            None => OTHERS.to_owned(),
        };
        row.until = now;
        row.add(done);
        books.changes.insert(key);
        drop(books);
        self.0.changed.notify_one();
    }

    /// What was used, of one service or of all.
    pub fn usage(&self, service: Option<&Name>) -> Vec<(Key, Row)> {
        let books = self.books();
        let asked = |(name, _): &(&Name, &Accounts)| service.is_none_or(|service| service == *name);
        listed(books.services.iter().filter(asked))
    }

    /// Begins anew, with one service or with all. Returns what was used so far.
    pub fn reset(&self, service: Option<&Name>) -> Vec<(Key, Row)> {
        let mut books = self.books();
        let removed: BTreeMap<_, _> = match service {
            Some(service) => books.services.remove_entry(service).into_iter().collect(),
            None => std::mem::take(&mut books.services),
        };
        let removed = listed(removed.iter());
        let keys = removed.iter().map(|(key, _)| key.clone());
        books.changes.extend(keys);
        drop(books);
        self.0.changed.notify_one();
        removed
    }

    /// Returns once something has changed.
    pub async fn changed(&self) {
        self.0.changed.notified().await;
    }

    /// What has changed since this was last asked: rows as they are now, or none where there is none any more.
    pub fn take_changes(&self) -> Vec<(Key, Option<Row>)> {
        let mut books = self.books();
        let keys = std::mem::take(&mut books.changes);
        let changes = keys.into_iter().map(|key| {
            let row = books.row(&key).cloned();
            (key, row)
        });
        changes.collect()
    }

    /// These have not been written down after all.
    pub fn keep_changes(&self, keys: impl IntoIterator<Item = Key>) {
        self.books().changes.extend(keys);
        self.0.changed.notify_one();
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.0.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Books {
    /// So that this service can be among them.
    fn make_room_for(&mut self, service: &Name) {
        if self.services.contains_key(service) || self.services.len() < SERVICES {
            return;
        }
        let last_use = |accounts: &Accounts| {
            let rows = accounts.values().flat_map(BTreeMap::values);
            rows.map(|row| row.until).max()
        };
        let longest_ago = self.services.iter().min_by_key(|(_, it)| last_use(it));
        let Some((name, accounts)) = longest_ago else {
            return;
        };
        tracing::info!(service = %name, "what was used of it is forgotten: further services are in use");
        let name = name.clone();
        let keys = listed([(&name, accounts)].into_iter()).into_iter();
        self.changes.extend(keys.map(|(key, _)| key));
        self.services.remove(&name);
    }

    fn row(&self, key: &Key) -> Option<&Row> {
        let models = self.services.get(&key.service)?.get(&key.peer)?;
        models.get(&key.model)
    }
}

fn listed<'a>(services: impl Iterator<Item = (&'a Name, &'a Accounts)>) -> Vec<(Key, Row)> {
    let mut listed = Vec::new();
    for (service, accounts) in services {
        for (peer, models) in accounts {
            // What it is called by now.
            let latest = models.values().max_by_key(|row| row.until);
            for (model, row) in models {
                let key = Key {
                    service: service.clone(),
                    peer: *peer,
                    model: model.clone(),
                };
                let mut row = row.clone();
                if let Some(latest) = latest {
                    row.member.clone_from(&latest.member);
                }
                listed.push((key, row));
            }
        }
    }
    listed
}

impl Key {
    /// Where this is counted, where others are counted already.
    fn within_bounds(mut self, accounts: &Accounts) -> Self {
        let others = usize::from(accounts.contains_key(&None));
        if !accounts.contains_key(&self.peer) && accounts.len() - others >= MEMBERS {
            self.peer = None;
        }
        let Some(models) = accounts.get(&self.peer) else {
            return self;
        };
        let others = usize::from(models.contains_key(OTHERS));
        if !models.contains_key(&self.model) && models.len() - others >= MODELS {
            self.model = OTHERS.to_owned();
        }
        self
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.service)?;
        match &self.peer {
            Some(peer) => write!(f, "{peer} ")?,
            None => f.write_str("- ")?,
        }
        f.write_str(&self.model)
    }
}

impl FromStr for Key {
    type Err = Misfit;

    fn from_str(text: &str) -> Result<Self, Misfit> {
        let mut parts = text.splitn(3, ' ');
        let (Some(service), Some(peer), Some(model)) = (parts.next(), parts.next(), parts.next())
        else {
            return Err(Misfit::Key);
        };
        let is_model = model.is_empty() || model_id(model).as_deref() == Some(model);
        if !is_model {
            return Err(Misfit::Key);
        }
        Ok(Self {
            service: service.parse().map_err(|_| Misfit::Key)?,
            peer: match peer {
                "-" => None,
                peer => Some(peer.parse().map_err(|_| Misfit::Key)?),
            },
            model: model.to_owned(),
        })
    }
}

impl Row {
    fn begun(now: u64) -> Self {
        Self {
            member: String::new(),
            since: now,
            until: now,
            requests: 0,
            errors: 0,
            prompt_tokens: 0,
            completion_tokens: 0,
            estimated_tokens: 0,
            first_bytes: Latest::default(),
        }
    }

    fn add(&mut self, done: &Done) {
        let add = |sum: &mut u64, more| *sum = sum.saturating_add(more);
        add(&mut self.requests, 1);
        add(&mut self.errors, u64::from(done.failed));
        add(&mut self.prompt_tokens, done.prompt_tokens);
        add(&mut self.completion_tokens, done.completion_tokens);
        if done.estimated {
            add(&mut self.estimated_tokens, done.completion_tokens);
        }
        if let Some(first_byte) = done.first_byte {
            self.first_bytes.add(first_byte);
        }
    }
}

impl Latest {
    pub(super) fn add(&mut self, duration: Duration) {
        if self.0.len() == LATEST {
            self.0.pop_front();
        }
        self.0
            .push_back(u32::try_from(duration.as_millis()).unwrap_or(u32::MAX));
    }

    /// Half of them were no longer.
    pub fn median(&self) -> Option<u32> {
        let mut sorted: Vec<_> = self.0.iter().copied().collect();
        sorted.sort_unstable();
        sorted.get(sorted.len().checked_sub(1)? / 2).copied()
    }
}

#[cfg(test)]
mod tests;
