//! How much members use at the moment, and how busy the backend is.
//!
//! Memory is bounded: so many members are told apart.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use hivevpn_core::registry::Load;
use libp2p::PeerId;

use super::{
    caller::Caller,
    ledger::Latest,
    limits::{Bucket, Share, TooMuch},
};

/// Members that are told apart. Networks are smaller; what further members may have they would share.
const MEMBERS: usize = 4096;
/// How long tokens count for the rate.
const LATELY: Duration = Duration::from_secs(10);

/// What the time is.
pub(super) type Clock = Box<dyn Fn() -> Instant + Send + Sync>;

/// The meter of one service.
pub(super) struct Meter {
    gauges: Mutex<Gauges>,
    clock: Clock,
}

#[derive(Default)]
struct Gauges {
    /// What each member has left; what those beyond the bound have together, under none.
    accounts: BTreeMap<Option<PeerId>, Account>,
    /// Requests that are under way.
    working: u32,
    first_bytes: Latest,
    /// Tokens written lately, by second.
    written: VecDeque<(Instant, u64)>,
}

struct Account {
    requests: Bucket,
    tokens: Bucket,
    open: u32,
}

impl Meter {
    pub fn new(clock: Clock) -> Self {
        Self {
            gauges: Mutex::default(),
            clock,
        }
    }

    pub fn now(&self) -> Instant {
        (self.clock)()
    }

    /// Takes a request in, unless it would be too much. Every request taken in is to be [let go](Self::leave).
    pub fn enter(&self, caller: &Caller, share: Share, tokens_matter: bool) -> Result<(), TooMuch> {
        let now = self.now();
        let mut gauges = self.gauges();
        let account = gauges.account(caller, share, now);
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
        if let Some(account) = self.gauges().existing(peer) {
            account.open = account.open.saturating_sub(1);
        }
    }

    /// The backend has something to do.
    pub fn begin_work(&self) {
        self.gauges().working += 1;
    }

    /// It is done with it.
    pub fn end_work(&self, first_byte: Option<Duration>) {
        let mut gauges = self.gauges();
        gauges.working = gauges.working.saturating_sub(1);
        if let Some(first_byte) = first_byte {
            gauges.first_bytes.add(first_byte);
        }
    }

    /// So many tokens were written just now.
    pub fn wrote(&self, tokens: u64) {
        if tokens == 0 {
            return;
        }
        let now = self.now();
        let mut gauges = self.gauges();
        gauges.forget_written(now);
        match gauges.written.back_mut() {
            Some((since, sum)) if now.saturating_duration_since(*since) < LATELY / 10 => {
                *sum = sum.saturating_add(tokens);
            }
            _ => gauges.written.push_back((now, tokens)),
        }
    }

    /// A member has used so many tokens.
    pub fn took(&self, peer: PeerId, tokens: u64) {
        if let Some(account) = self.gauges().existing(peer) {
            account.tokens.take(tokens as f64);
        }
    }

    /// How busy the backend is, if it works on so many requests at once (0: unknown).
    pub fn load(&self, slots: u32) -> Load {
        let now = self.now();
        let mut gauges = self.gauges();
        gauges.forget_written(now);
        let written: u64 = gauges.written.iter().map(|(_, tokens)| tokens).sum();
        let queued = match slots {
            0 => 0,
            slots => gauges.working.saturating_sub(slots),
        };
        Load {
            active: gauges.working - queued,
            queued,
            slots,
            p50_ms: gauges.first_bytes.median().unwrap_or(0),
            tokens_per_10s: u32::try_from(written).unwrap_or(u32::MAX),
        }
    }

    fn gauges(&self) -> MutexGuard<'_, Gauges> {
        self.gauges.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gauges {
    fn account(&mut self, caller: &Caller, share: Share, now: Instant) -> &mut Account {
        let has_own =
            self.accounts.contains_key(&Some(caller.peer)) || self.accounts.len() < MEMBERS;
        self.accounts
            .entry(has_own.then_some(caller.peer))
            .or_insert_with(|| Account {
                requests: Bucket::full(f64::from(share.requests_per_minute), now),
                tokens: Bucket::full(share.tokens_per_minute as f64, now),
                open: 0,
            })
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
