//! How much of a model server each member may have.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use hivevpn_core::membership::Name;
use serde::{Deserialize, Serialize};

/// How much of a service each member may have, and what it has to work with. Members are limited at model servers only, and
/// this machine nowhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Requests of a member in a minute.
    pub requests_per_minute: u32,
    /// Tokens of a member in a minute, read and written.
    pub tokens_per_minute: u64,
    /// Requests of a member at the same time.
    pub concurrent: u32,
    /// For members of these groups. The most generous of a member's groups counts.
    pub groups: BTreeMap<String, Allowance>,
    /// Seconds from the end of a request to the head of its answer. A stream may then last as long as it likes.
    pub head_timeout_s: u64,
    /// Requests that the server works on at once, if it does not say so itself.
    pub slots: Option<u32>,
}

/// What members of a group may have; the same as others, where it says nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Allowance {
    /// Requests in a minute.
    pub requests_per_minute: Option<u32>,
    /// Tokens in a minute, read and written.
    pub tokens_per_minute: Option<u64>,
    /// Requests at the same time.
    pub concurrent: Option<u32>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            requests_per_minute: 6000,
            tokens_per_minute: 10_000_000,
            concurrent: 256,
            groups: BTreeMap::new(),
            head_timeout_s: 600,
            slots: None,
        }
    }
}

/// What one member may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Share {
    pub requests_per_minute: u32,
    pub tokens_per_minute: u64,
    pub concurrent: u32,
}

impl Limits {
    pub(super) fn head_timeout(&self) -> Duration {
        Duration::from_secs(self.head_timeout_s)
    }

    /// What a member of these groups may have.
    pub(super) fn share(&self, groups: &BTreeSet<Name>) -> Share {
        let names: BTreeSet<_> = groups.iter().map(Name::to_string).collect();
        let special = self.groups.iter().filter(|(name, _)| names.contains(*name));
        let mut best = Allowance::default();
        for (_, allowance) in special {
            // Nothing is less than something.
            best.requests_per_minute = best.requests_per_minute.max(allowance.requests_per_minute);
            best.tokens_per_minute = best.tokens_per_minute.max(allowance.tokens_per_minute);
            best.concurrent = best.concurrent.max(allowance.concurrent);
        }
        Share {
            requests_per_minute: best.requests_per_minute.unwrap_or(self.requests_per_minute),
            tokens_per_minute: best.tokens_per_minute.unwrap_or(self.tokens_per_minute),
            concurrent: best.concurrent.unwrap_or(self.concurrent),
        }
    }
}

/// Too much was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum TooMuch {
    #[error("no more than {0} requests in a minute are for you here")]
    Requests(u32, Duration),
    #[error("no more than {0} tokens in a minute are for you here")]
    Tokens(u64, Duration),
    #[error("no more than {0} requests at the same time are for you here")]
    Concurrent(u32),
}

impl TooMuch {
    /// When there may be room again.
    pub fn retry_after(self) -> Duration {
        match self {
            TooMuch::Requests(_, wait) | TooMuch::Tokens(_, wait) => wait,
            TooMuch::Concurrent(_) => Duration::from_secs(1),
        }
    }
}

/// What is left of so much a minute. It fills up evenly, to a minute's worth. More may be taken than is left, because an
/// answer's tokens are known when they are written; what is owed is paid off first.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bucket {
    left: f64,
    at: Instant,
}

impl Bucket {
    pub fn full(per_minute: f64, now: Instant) -> Self {
        Self {
            left: per_minute,
            at: now,
        }
    }

    pub fn refill(&mut self, per_minute: f64, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.left = (self.left + passed * per_minute / 60.0).min(per_minute);
        self.at = self.at.max(now);
    }

    /// How long until this much is left; none, if it is.
    pub fn wait_for(&self, amount: f64, per_minute: f64) -> Option<Duration> {
        const LONGEST: f64 = 3600.0;
        let missing = amount - self.left;
        if missing <= 0.0 {
            return None;
        }
        let seconds = match per_minute > 0.0 {
            true => (missing * 60.0 / per_minute).min(LONGEST),
            false => LONGEST,
        };
        Some(Duration::from_secs_f64(seconds))
    }

    pub fn take(&mut self, amount: f64) {
        self.left -= amount;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(names: &[&str]) -> BTreeSet<Name> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    #[test]
    fn limits_are_written_as_few_lines_and_unknown_ones_are_refused() {
        let limits: Limits = toml::from_str(
            "tokens_per_minute = 5000\n[groups.gpu]\nconcurrent = 200\n[groups.guests]\nconcurrent = 0",
        )
        .unwrap();
        assert_eq!(limits.tokens_per_minute, 5000);
        assert_eq!(limits.concurrent, Limits::default().concurrent);
        assert_eq!(limits.share(&groups(&["gpu"])).concurrent, 200);
        assert_eq!(limits.share(&groups(&["guests"])).concurrent, 0);
        assert!(toml::from_str::<Limits>("token_per_minute = 5").is_err());
    }

    #[test]
    fn the_most_generous_group_counts_and_says_only_what_it_says() {
        let limits: Limits =
            toml::from_str("[groups.a]\nconcurrent = 1\n[groups.b]\nconcurrent = 9").unwrap();
        let share = limits.share(&groups(&["a", "b", "c"]));
        assert_eq!(share.concurrent, 9);
        assert_eq!(share.tokens_per_minute, limits.tokens_per_minute);
    }

    #[test]
    fn a_bucket_fills_evenly_and_no_further_than_a_minute() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut bucket = Bucket::full(60.0, start);
        bucket.take(90.0);
        assert_eq!(bucket.wait_for(1.0, 60.0), Some(Duration::from_secs(31)));
        bucket.refill(60.0, after(31));
        assert_eq!(bucket.wait_for(1.0, 60.0), None);
        bucket.refill(60.0, after(100_000));
        assert_eq!(bucket.wait_for(61.0, 60.0), Some(Duration::from_secs(1)));
        // A clock that goes back gives nothing and takes nothing.
        bucket.refill(60.0, start);
        assert_eq!(bucket.wait_for(60.0, 60.0), None);
    }

    #[test]
    fn who_may_have_nothing_is_told_to_come_back_late() {
        let bucket = Bucket::full(0.0, Instant::now());
        assert_eq!(bucket.wait_for(1.0, 0.0), Some(Duration::from_secs(3600)));
    }
}
