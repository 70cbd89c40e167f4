//! Which of several servers is asked first.
//!
//! Each is judged by how long we would wait for a first token there: by its round trip, by how soon its latest requests had
//! theirs, by what it works on already, and by whether the model is in its memory. How busy members are is told with some
//! delay, so what we have sent there since counts on top; and a little chance keeps many clients with the same view from all
//! going to the same place. A server that has just failed is asked last, one that is degraded after all that are not.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use hivevpn_core::{
    membership::Name,
    registry::{Load, service::State},
};
use libp2p::PeerId;

use super::catalog::Offer;

/// A server that has failed is asked last for so long, unless it answers before.
const DISTRUST: Duration = Duration::from_secs(10);
/// How long a request takes where nothing else is known: what waiting behind one costs.
const USUAL_REQUEST: Duration = Duration::from_secs(2);
/// How much slower a first token comes from a server all of whose slots are in use.
const SHARING: Duration = Duration::from_millis(200);
/// Reading a model into memory.
const COLD_START: Duration = Duration::from_secs(5);
/// A median beyond this says no more.
const MAX_MEDIAN: Duration = Duration::from_secs(10);
/// What chance adds at most: so much, and this part of the rest.
const CHANCE: (Duration, f64) = (Duration::from_millis(20), 0.2);
/// Services that are remembered although nothing is under way there.
const MAX_IDLE: usize = 1024;

type Key = (PeerId, Name);

/// What we have under way where, and who has failed lately.
#[derive(Debug, Clone, Default)]
pub(super) struct Balance(Arc<Mutex<BTreeMap<Key, Standing>>>);

#[derive(Debug, Default)]
struct Standing {
    /// Our requests under way.
    ours: u32,
    /// What its node told of it last.
    told: Option<Load>,
    /// Our requests under way when it told so, which are counted in there.
    ours_then: u32,
    failed: Option<Instant>,
}

impl Standing {
    /// Takes note of what the node tells now.
    fn hear(&mut self, load: Option<Load>) {
        if self.told != load {
            self.told = load;
            self.ours_then = self.ours;
        }
    }

    /// Requests that are under way there, ours and others'.
    fn busy(&self) -> u32 {
        let told = self.told.unwrap_or_default();
        let told = told.active.saturating_add(told.queued);
        let since = i64::from(self.ours) - i64::from(self.ours_then);
        let estimate = (i64::from(told) + since).max(i64::from(self.ours));
        u32::try_from(estimate).unwrap_or(u32::MAX)
    }

    /// How long a first token will take from there.
    fn wait(&self, offer: &Offer) -> Duration {
        let load = self.told.unwrap_or_default();
        let median = Duration::from_millis(load.p50_ms.into()).min(MAX_MEDIAN);
        let cold = match offer.loaded {
            Some(false) => COLD_START,
            Some(true) | None => Duration::ZERO,
        };
        // With ours on top.
        let level = f64::from(self.busy().saturating_add(1)) / f64::from(load.slots.max(1));
        let queue = USUAL_REQUEST.mul_f64((level - 1.0).clamp(0.0, 1000.0));
        let sharing = SHARING.mul_f64(level.min(1.0));
        offer.rtt.unwrap_or_default() + median + cold + queue + sharing
    }
}

/// Best first: the order of the fields is the policy.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    has_failed: bool,
    is_degraded: bool,
    wait: Duration,
}

impl Balance {
    /// The order to ask them in. `chance` gives numbers from 0 to 1.
    pub fn order(
        &self,
        offers: Vec<Offer>,
        now: Instant,
        mut chance: impl FnMut() -> f64,
    ) -> Vec<Offer> {
        let mut standings = self.standings();
        let mut ranked: Vec<_> = offers
            .into_iter()
            .map(|offer| {
                let standing = standings.entry(key(&offer)).or_default();
                standing.hear(offer.load);
                let wait = standing.wait(&offer);
                let failed = standing.failed;
                let rank = Rank {
                    has_failed: failed.is_some_and(|at| now < at + DISTRUST),
                    is_degraded: offer.state != State::Up,
                    wait: wait.mul_f64(1.0 + CHANCE.1 * chance()) + CHANCE.0.mul_f64(chance()),
                };
                (rank, offer)
            })
            .collect();
        forget_idle(&mut standings, now);
        ranked.sort_by(|(a, _), (b, _)| a.cmp(b));
        ranked.into_iter().map(|(_, offer)| offer).collect()
    }

    /// A request is under way there until what comes back is dropped.
    pub fn begin(&self, offer: &Offer) -> UnderWay {
        let key = key(offer);
        self.standings().entry(key.clone()).or_default().ours += 1;
        UnderWay {
            balance: self.clone(),
            key,
        }
    }

    fn standings(&self) -> MutexGuard<'_, BTreeMap<Key, Standing>> {
        // Whoever panicked with the lock held has miscounted by one at worst.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(offer: &Offer) -> Key {
    (offer.peer, offer.service.clone())
}

fn forget_idle(standings: &mut BTreeMap<Key, Standing>, now: Instant) {
    if standings.len() > MAX_IDLE {
        standings.retain(|_, standing| {
            standing.ours > 0 || standing.failed.is_some_and(|at| now < at + DISTRUST)
        });
    }
}

/// A request that is under way.
#[derive(Debug)]
pub(super) struct UnderWay {
    balance: Balance,
    key: Key,
}

impl UnderWay {
    /// Its server did not do what it should.
    pub fn failed(&self, now: Instant) {
        self.note(Some(now));
    }

    /// Its server does what it should.
    pub fn answered(&self) {
        self.note(None);
    }

    fn note(&self, failed: Option<Instant>) {
        if let Some(standing) = self.balance.standings().get_mut(&self.key) {
            standing.failed = failed;
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if let Some(standing) = self.balance.standings().get_mut(&self.key) {
            standing.ours = standing.ours.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests;
