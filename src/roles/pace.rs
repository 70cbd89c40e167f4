//! How often a caller may ask.
//!
//! A bucket for each caller, which fills at a steady rate and holds a burst.

use std::{collections::BTreeMap, time::Instant};

use super::Caller;

/// Local programs may ask in a loop.
const LOCAL: Limit = Limit {
    burst: 500.0,
    per_second: 200.0,
};
/// Members ask for people, and cost both ends cryptography.
const MEMBER: Limit = Limit {
    burst: 20.0,
    per_second: 2.0,
};
/// Callers that are remembered. Whoever has been quiet for longest is forgotten first, with a full bucket.
const CALLERS: usize = 1024;

struct Limit {
    burst: f64,
    per_second: f64,
}

/// The buckets.
#[derive(Default)]
pub(super) struct Pace {
    buckets: BTreeMap<Vec<u8>, Bucket>,
}

struct Bucket {
    requests: f64,
    filled: Instant,
    is_over: bool,
}

/// A request too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooMany {
    first: bool,
}

impl TooMany {
    /// Whether the one before it was answered.
    pub(super) fn is_first(self) -> bool {
        self.first
    }
}

impl Pace {
    /// Takes one request out of the caller's bucket.
    pub(super) fn admit(&mut self, caller: &Caller, now: Instant) -> Result<(), TooMany> {
        let (key, limit) = match caller {
            Caller::Local(uid) => (uid.to_be_bytes().to_vec(), LOCAL),
            Caller::Member(peer, _) => (peer.to_bytes(), MEMBER),
        };
        if !self.buckets.contains_key(&key) && self.buckets.len() >= CALLERS {
            let quietest = self.buckets.iter().min_by_key(|(_, bucket)| bucket.filled);
            if let Some(quietest) = quietest.map(|(key, _)| key.clone()) {
                self.buckets.remove(&quietest);
            }
        }
        let bucket = self.buckets.entry(key).or_insert(Bucket {
            requests: limit.burst,
            filled: now,
            is_over: false,
        });
        let since = now.saturating_duration_since(bucket.filled).as_secs_f64();
        bucket.requests = (bucket.requests + since * limit.per_second).min(limit.burst);
        bucket.filled = now;
        if bucket.requests < 1.0 {
            let first = !std::mem::replace(&mut bucket.is_over, true);
            return Err(TooMany { first });
        }
        bucket.requests -= 1.0;
        bucket.is_over = false;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use libp2p::PeerId;

    use super::*;
    use hivevpn_core::membership::Roles;

    #[test]
    fn a_burst_is_answered_and_then_as_many_as_flow_in() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        let member = Caller::Member(PeerId::random(), Roles::NONE);
        let answered = (0..30).filter(|_| pace.admit(&member, start).is_ok());
        assert_eq!(answered.count(), 20);
        let later = start + Duration::from_secs(3);
        let answered = (0..30).filter(|_| pace.admit(&member, later).is_ok());
        assert_eq!(answered.count(), 6);
        let other = Caller::Member(PeerId::random(), Roles::NONE);
        assert!(pace.admit(&other, later).is_ok(), "another one's bucket");
    }

    #[test]
    fn of_a_row_of_refusals_the_first_is_known() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        let caller = Caller::Local(1000);
        let firsts = |pace: &mut Pace, now| {
            let refused = (0..1000).filter_map(|_| pace.admit(&caller, now).err());
            refused.filter(|too_many| too_many.is_first()).count()
        };
        assert_eq!(firsts(&mut pace, start), 1);
        assert_eq!(firsts(&mut pace, start), 0);
        assert_eq!(firsts(&mut pace, start + Duration::from_secs(1)), 1);
    }

    #[test]
    fn any_number_of_callers_takes_bounded_memory() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        for uid in 0..2000 {
            pace.admit(&Caller::Local(uid), now).unwrap();
        }
        assert_eq!(pace.buckets.len(), CALLERS);
    }
}
