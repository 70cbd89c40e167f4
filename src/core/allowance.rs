//! How much of something each may have: a token bucket for each key, in bounded memory.
//!
//! A bucket is a single moment, the one at which it would be full again if nothing more were taken. Buckets that
//! are full are not kept, so that only those are remembered who took something lately.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// One bucket for each key.
#[derive(Debug)]
pub struct Allowances<K> {
    burst: u32,
    /// In which one token comes back.
    price: Duration,
    /// Buckets that may be remembered at once.
    most: usize,
    full_at: BTreeMap<K, Instant>,
    /// No full bucket is looked for before.
    next_sweep: Option<Instant>,
}

/// The buckets of so many are looked through for full ones this often at most.
const SWEEP_PERIOD: Duration = Duration::from_secs(1);

impl<K: Ord> Allowances<K> {
    /// Each may take `burst` at once and one more every `price`. Of those who took something lately, `most` are
    /// remembered; a newcomer beyond gets nothing until one of them is whole again.
    pub fn new(burst: u32, price: Duration, most: usize) -> Self {
        Self {
            burst,
            price,
            most,
            full_at: BTreeMap::new(),
            next_sweep: None,
        }
    }

    /// Takes `count` for `key`, or nothing and says no. More than a burst is never there.
    pub fn take(&mut self, key: K, count: u32, now: Instant) -> bool {
        let known = self.full_at.get(&key).copied();
        if known.is_none() && !self.has_room(now) {
            return false;
        }
        let full_at = known.map_or(now, |at| at.max(now)) + self.price * count;
        if full_at > now + self.price * self.burst {
            return false;
        }
        self.full_at.insert(key, full_at);
        true
    }

    /// When `count` will be there for `key`; now, if they are.
    pub fn next(&self, key: &K, count: u32, now: Instant) -> Instant {
        let full_at = self.full_at.get(key).map_or(now, |at| *at);
        let missing = self.price * self.burst.saturating_sub(count);
        full_at.checked_sub(missing).map_or(now, |at| at.max(now))
    }

    /// The key is no more: nothing is remembered of it.
    pub fn forget(&mut self, key: &K) {
        self.full_at.remove(key);
    }

    fn has_room(&mut self, now: Instant) -> bool {
        if self.full_at.len() < self.most {
            return true;
        }
        if self.next_sweep.is_none_or(|at| now >= at) {
            self.next_sweep = Some(now + SWEEP_PERIOD);
            self.full_at.retain(|_, full_at| *full_at > now);
        }
        self.full_at.len() < self.most
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::epoch;

    const PRICE: Duration = Duration::from_millis(100);

    #[test]
    fn each_has_a_burst_and_then_a_rate() {
        let mut allowances = Allowances::new(10, PRICE, 8);
        let start = epoch();
        let mut taken = |who, at| (0..100).filter(|_| allowances.take(who, 1, at)).count();
        assert_eq!(taken("greedy", start), 10);
        assert_eq!(taken("modest", start), 10, "others are not held liable");
        assert_eq!(taken("greedy", start + PRICE * 3), 3);
        assert_eq!(taken("greedy", start + PRICE * 1000), 10);
    }

    #[test]
    fn what_is_dear_takes_more_and_more_than_a_burst_is_never_there() {
        let mut allowances = Allowances::new(10, PRICE, 8);
        let start = epoch();
        assert!(allowances.take(1, 8, start));
        assert!(!allowances.take(1, 8, start));
        assert_eq!(allowances.next(&1, 8, start), start + PRICE * 6);
        assert!(allowances.take(1, 8, start + PRICE * 6));
        assert!(!allowances.take(2, 11, start));
        assert_eq!(allowances.next(&3, 8, start), start);
    }

    #[test]
    fn any_number_of_keys_take_bounded_memory() {
        let mut allowances = Allowances::new(2, PRICE, 8);
        let start = epoch();
        let admitted = (0..1000).filter(|key| allowances.take(*key, 1, start));
        assert_eq!(admitted.count(), 8);
        assert_eq!(allowances.full_at.len(), 8);
        assert!(allowances.take(0, 1, start), "who is known goes on");
        let later = start + Duration::from_secs(2);
        assert!(allowances.take(5000, 1, later));
        assert_eq!(allowances.full_at.len(), 1);
    }
}
