//! Attempts at a direct path: when both ends call each other and try each other's candidates.

use std::time::{Duration, Instant};

use super::{Path, PathKind, Paths, candidate::Candidate};

/// How long after news an attempt is made, and how long after each attempt in vain the next one is. A router sees a
/// dozen datagrams a candidate in the first minute, and four a minute after.
const ATTEMPTS: [Duration; 7] = [
    Duration::from_millis(100),
    Duration::from_millis(1500),
    Duration::from_secs(3),
    Duration::from_secs(6),
    Duration::from_secs(12),
    Duration::from_secs(30),
    Duration::from_secs(60),
];
/// The same for a pair that has had no packets for [a while](super::IDLE_AFTER).
const IDLE_ATTEMPT: Duration = Duration::from_secs(300);
/// Calls of the peer that come faster are answered by nothing.
pub(super) const CALL_INTERVAL: Duration = Duration::from_secs(1);

/// When the next attempt at a direct path is due, and how many were made since the last news.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    pub(super) due: Option<Instant>,
    made: usize,
    /// When the peer last called.
    called: Option<Instant>,
}

impl Paths {
    /// The peer may be reached there. Something new is a reason for an attempt, unless there is something new all the time.
    pub fn learn(&mut self, candidate: Candidate, now: Instant) {
        let is_new = self.candidates.learn(candidate, now);
        let is_reached = !self.list.is_empty();
        let is_reason = is_new && is_reached && !self.knows(Path::Direct(candidate.endpoint));
        if is_reason && self.news.may_follow(now) {
            self.restart_attempts(now);
        }
    }

    /// A packet found no way: an attempt is due soon, unless one is to come anyway, or there is nothing to try.
    pub fn seek(&mut self, now: Instant) {
        if self.attempts.due.is_none() && self.candidates.iter().next().is_some() {
            self.restart_attempts(now);
        }
    }

    /// An attempt is due soon, and after it the pauses begin anew: the peer has been heard of, or we have news for it.
    pub fn restart_attempts(&mut self, now: Instant) {
        let due = now + ATTEMPTS[0];
        self.attempts.made = 0;
        self.attempts.due = Some(self.attempts.due.map_or(due, |at| at.min(due)));
    }

    /// Packets flow again to a peer that was tried rarely, because none did: the next attempt is due soon.
    pub(super) fn hasten_attempt(&mut self, now: Instant) {
        if let Some(due) = &mut self.attempts.due {
            *due = (*due).min(now + ATTEMPTS[0]);
        }
    }

    /// When [`due_attempt`](Self::due_attempt) has something to do next, as things stand now.
    pub fn next_attempt(&self) -> Option<Instant> {
        self.attempts.due
    }

    /// Whether an attempt is to be made now: the peer is called, and its candidates are probed.
    pub fn due_attempt(&mut self, now: Instant) -> bool {
        if self.attempts.due.is_none_or(|due| now < due) {
            return false;
        }
        self.attempt(now);
        true
    }

    /// The peer called: it tries us now, and may be reached at its `candidates`. Returns whether it is tried and may be
    /// answered: one that calls too often is not listened to, lest it has us probe whatever it names.
    pub fn called(&mut self, candidates: &[Candidate], now: Instant) -> bool {
        let is_too_soon = |at: Instant| now < at + CALL_INTERVAL;
        if self.attempts.called.is_some_and(is_too_soon) {
            return false;
        }
        self.attempts.called = Some(now);
        self.candidates.forget_unnamed(candidates);
        for candidate in candidates {
            self.learn(*candidate, now);
        }
        self.attempt(now);
        true
    }

    /// Begins to probe all candidates that lead nowhere yet, and says when to do so again.
    fn attempt(&mut self, now: Instant) {
        self.attempts.made += 1;
        let pause = if self.is_active(now) || self.attempts.made < ATTEMPTS.len() {
            ATTEMPTS[self.attempts.made.min(ATTEMPTS.len() - 1)]
        } else {
            IDLE_ATTEMPT
        };
        // A peer that nothing leads to, and nobody talks to, is tried once.
        let is_wanted = !self.list.is_empty() || self.is_active(now);
        self.attempts.due = (is_wanted && !self.is_direct()).then_some(now + pause);
        let endpoints: Vec<_> = self
            .candidates
            .iter()
            .map(|known| known.candidate.endpoint)
            .collect();
        for endpoint in endpoints {
            self.track(Path::Direct(endpoint), PathKind::Direct, false);
        }
        self.choose(now);
    }
}
