//! What was used, by whom, and how busy the backend is.
//!
//! Memory is bounded whatever members ask for: so many members have accounts of their own, and so many models each.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use hivevpn_core::{membership::Name, registry::Load};
use libp2p::PeerId;

use super::{
    caller::Caller,
    limits::{Bucket, Share, TooMuch},
};

/// Members with an account of their own. Networks are smaller; further members would share one.
const MEMBERS: usize = 4096;
/// Models in an account. What is asked for beyond them is counted as [`OTHERS`].
const MODELS: usize = 64;
/// What models beyond the bound are called.
const OTHERS: &str = "(others)";
/// Over so many requests the typical time to the first byte is taken.
const LATEST: usize = 64;
/// How long tokens count for the rate.
const LATELY: Duration = Duration::from_secs(10);

/// What the time is.
pub(super) type Clock = Box<dyn Fn() -> Instant + Send + Sync>;

/// What a member used of a model since the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// What commands call the member.
    pub member: Name,
    /// The member; none for all those together that have no account of their own.
    pub peer: Option<PeerId>,
    /// The model, as it was asked for; empty where a request named none.
    pub model: String,
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
    /// Half of the latest answers began after no more than so many milliseconds.
    pub first_byte_ms: Option<u32>,
}

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

/// The books of one service.
pub(super) struct Meter {
    books: Mutex<Books>,
    clock: Clock,
}

#[derive(Default)]
struct Books {
    accounts: BTreeMap<Option<PeerId>, Account>,
    /// Requests that are under way.
    working: u32,
    first_bytes: Latest,
    /// Tokens written lately, by second.
    written: VecDeque<(Instant, u64)>,
}

struct Account {
    member: Name,
    requests: Bucket,
    tokens: Bucket,
    open: u32,
    models: BTreeMap<String, Row>,
}

#[derive(Default)]
struct Row {
    requests: u64,
    errors: u64,
    prompt_tokens: u64,
    completion_tokens: u64,
    estimated_tokens: u64,
    first_bytes: Latest,
}

/// The latest durations in milliseconds.
#[derive(Default)]
struct Latest(VecDeque<u32>);

impl Latest {
    fn add(&mut self, duration: Duration) {
        if self.0.len() == LATEST {
            self.0.pop_front();
        }
        self.0
            .push_back(u32::try_from(duration.as_millis()).unwrap_or(u32::MAX));
    }

    fn median(&self) -> Option<u32> {
        let mut sorted: Vec<_> = self.0.iter().copied().collect();
        sorted.sort_unstable();
        sorted.get(sorted.len().checked_sub(1)? / 2).copied()
    }
}

impl Meter {
    pub fn new(clock: Clock) -> Self {
        Self {
            books: Mutex::default(),
            clock,
        }
    }

    pub fn now(&self) -> Instant {
        (self.clock)()
    }

    /// Takes a request in, unless it would be too much. Every request taken in is to be [let go](Self::leave).
    pub fn enter(&self, caller: &Caller, share: Share, tokens_matter: bool) -> Result<(), TooMuch> {
        let now = self.now();
        let mut books = self.books();
        let account = books.account(caller, share, now);
        if caller.this {
            account.open += 1;
            return Ok(());
        }
        let per_minute = f64::from(share.requests_per_minute);
        account.requests.refill(per_minute, now);
        if let Some(wait) = account.requests.wait_for(1.0, per_minute) {
            return Err(TooMuch::Requests(share.requests_per_minute, wait));
        }
        account.tokens.refill(share.tokens_per_minute as f64, now);
        let wait = account.tokens.wait_for(1.0, share.tokens_per_minute as f64);
        if let (true, Some(wait)) = (tokens_matter, wait) {
            return Err(TooMuch::Tokens(share.tokens_per_minute, wait));
        }
        if account.open >= share.concurrent {
            return Err(TooMuch::Concurrent(share.concurrent));
        }
        account.requests.take(1.0);
        account.open += 1;
        Ok(())
    }

    /// A request that was taken in is over.
    pub fn leave(&self, peer: PeerId) {
        if let Some(account) = self.books().existing(peer) {
            account.open = account.open.saturating_sub(1);
        }
    }

    /// The backend has something to do.
    pub fn begin_work(&self) {
        self.books().working += 1;
    }

    /// It is done with it.
    pub fn end_work(&self, first_byte: Option<Duration>) {
        let mut books = self.books();
        books.working = books.working.saturating_sub(1);
        if let Some(first_byte) = first_byte {
            books.first_bytes.add(first_byte);
        }
    }

    /// So many tokens were written just now.
    pub fn wrote(&self, tokens: u64) {
        if tokens == 0 {
            return;
        }
        let now = self.now();
        let mut books = self.books();
        books.forget_written(now);
        match books.written.back_mut() {
            Some((since, sum)) if now.saturating_duration_since(*since) < LATELY / 10 => {
                *sum = sum.saturating_add(tokens);
            }
            _ => books.written.push_back((now, tokens)),
        }
    }

    /// Writes a request down.
    pub fn book(&self, peer: PeerId, done: Done) {
        let mut books = self.books();
        let Some(account) = books.existing(peer) else {
            return;
        };
        let tokens = done.prompt_tokens.saturating_add(done.completion_tokens);
        account.tokens.take(tokens as f64);
        let is_known = account.models.contains_key(&done.model);
        let model = match is_known || account.models.len() < MODELS {
            true => done.model,
            false => OTHERS.to_owned(),
        };
        let row = account.models.entry(model).or_default();
        row.requests += 1;
        row.errors += u64::from(done.failed);
        row.prompt_tokens = row.prompt_tokens.saturating_add(done.prompt_tokens);
        row.completion_tokens = row.completion_tokens.saturating_add(done.completion_tokens);
        if done.estimated {
            row.estimated_tokens = row.estimated_tokens.saturating_add(done.completion_tokens);
        }
        if let Some(first_byte) = done.first_byte {
            row.first_bytes.add(first_byte);
        }
    }

    /// How busy the backend is, if it works on so many requests at once (0: unknown).
    pub fn load(&self, slots: u32) -> Load {
        let now = self.now();
        let mut books = self.books();
        books.forget_written(now);
        let written: u64 = books.written.iter().map(|(_, tokens)| tokens).sum();
        let queued = match slots {
            0 => 0,
            slots => books.working.saturating_sub(slots),
        };
        Load {
            active: books.working - queued,
            queued,
            slots,
            p50_ms: books.first_bytes.median().unwrap_or(0),
            tokens_per_10s: u32::try_from(written).unwrap_or(u32::MAX),
        }
    }

    /// Usage by member and model.
    pub fn usage(&self) -> Vec<Usage> {
        let books = self.books();
        let accounts = books.accounts.iter();
        let rows = accounts.flat_map(|(peer, account)| {
            account.models.iter().map(|(model, row)| Usage {
                member: account.member.clone(),
                peer: *peer,
                model: model.clone(),
                requests: row.requests,
                errors: row.errors,
                prompt_tokens: row.prompt_tokens,
                completion_tokens: row.completion_tokens,
                estimated_tokens: row.estimated_tokens,
                first_byte_ms: row.first_bytes.median(),
            })
        });
        rows.collect()
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Books {
    fn account(&mut self, caller: &Caller, share: Share, now: Instant) -> &mut Account {
        let has_own =
            self.accounts.contains_key(&Some(caller.peer)) || self.accounts.len() < MEMBERS;
        let account = self
            .accounts
            .entry(has_own.then_some(caller.peer))
            .or_insert_with(|| Account {
                member: caller.name.clone(),
                requests: Bucket::full(f64::from(share.requests_per_minute), now),
                tokens: Bucket::full(share.tokens_per_minute as f64, now),
                open: 0,
                models: BTreeMap::new(),
            });
        account.member.clone_from(&caller.name);
        account
    }

    fn existing(&mut self, peer: PeerId) -> Option<&mut Account> {
        let key = Some(peer).filter(|_| self.accounts.contains_key(&Some(peer)));
        self.accounts.get_mut(&key)
    }

    fn forget_written(&mut self, now: Instant) {
        while let Some((at, _)) = self.written.front()
            && now.saturating_duration_since(*at) >= LATELY
        {
            self.written.pop_front();
        }
    }
}
