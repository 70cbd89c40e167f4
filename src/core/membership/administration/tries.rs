//! How often somebody may try a password.
//!
//! A caller that gets it wrong waits, twice as long each time. All callers together get so many tries a minute: a few
//! of them cannot use those up, because each waits for itself, and many cannot guess a password faster.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use libp2p_identity::PeerId;

use crate::allowance::Allowances;

/// Tries that cost no time: people mistype.
const FREE: u32 = 3;
/// After these, the first pause; it doubles with each try.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
/// So that an administrator who forgot the password need not wait for a day once it is found.
const LONGEST_PAUSE: Duration = Duration::from_secs(15 * 60);
/// Tries of a caller who has not come back for so long are forgotten.
const MEMORY: Duration = Duration::from_secs(60 * 60);
/// Callers remembered at once.
const MAX_CALLERS: usize = 4096;

/// Of all callers together, at once and in the long run.
const ALL_AT_ONCE: u32 = 30;
const ALL_PERIOD: Duration = Duration::from_secs(2);

/// A caller's tries since it last succeeded.
struct Caller {
    tries: u32,
    not_before: Instant,
}

/// Counts tries.
pub(super) struct Tries {
    callers: BTreeMap<PeerId, Caller>,
    all: Allowances<()>,
}

impl Default for Tries {
    fn default() -> Self {
        Self {
            callers: BTreeMap::new(),
            all: Allowances::new(ALL_AT_ONCE, ALL_PERIOD, 1),
        }
    }
}

impl Tries {
    /// Counts a try, or says how long to wait before one.
    pub fn begin(&mut self, who: &PeerId, now: Instant) -> Result<(), Duration> {
        if let Some(caller) = self.callers.get(who)
            && caller.not_before > now
        {
            return Err(caller.not_before - now);
        }
        if self.callers.len() >= MAX_CALLERS && !self.callers.contains_key(who) {
            self.callers
                .retain(|_, caller| caller.not_before + MEMORY > now);
            if self.callers.len() >= MAX_CALLERS {
                return Err(LONGEST_PAUSE);
            }
        }
        if !self.all.take((), 1, now) {
            return Err(self.all.next(&(), 1, now).saturating_duration_since(now));
        }
        let caller = self.callers.entry(*who).or_insert(Caller {
            tries: 0,
            not_before: now,
        });
        if now >= caller.not_before + MEMORY {
            caller.tries = 0;
        }
        caller.tries = caller.tries.saturating_add(1);
        caller.not_before = now + pause(caller.tries);
        Ok(())
    }

    /// The caller's last try was right.
    pub fn succeeded(&mut self, who: &PeerId) {
        self.callers.remove(who);
    }
}

/// How long to wait after so many tries.
fn pause(tries: u32) -> Duration {
    match tries.checked_sub(FREE) {
        None => Duration::ZERO,
        Some(doublings) => {
            let factor = 1_u32.checked_shl(doublings).unwrap_or(u32::MAX);
            FIRST_PAUSE.saturating_mul(factor).min(LONGEST_PAUSE)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{membership::testing::signer, testing::epoch};

    fn peer(number: u8) -> PeerId {
        signer(number).peer_id()
    }

    #[test]
    fn who_goes_on_guessing_waits_longer_and_longer() {
        let mut tries = Tries::default();
        let mut now = epoch();
        let mut waits = Vec::new();
        for _ in 0..16 {
            if let Err(wait) = tries.begin(&peer(1), now) {
                waits.push(wait.as_secs());
                now += wait;
                assert_eq!(tries.begin(&peer(1), now), Ok(()));
            }
        }
        assert_eq!(
            waits,
            [2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900, 900, 900]
        );
    }

    #[test]
    fn others_do_not_wait_for_who_guesses_and_success_forgives() {
        let mut tries = Tries::default();
        let now = epoch();
        while tries.begin(&peer(1), now).is_ok() {}
        assert_eq!(tries.begin(&peer(2), now), Ok(()));
        tries.succeeded(&peer(1));
        assert_eq!(tries.begin(&peer(1), now), Ok(()));
    }

    #[test]
    fn many_together_get_no_more_than_so_many_a_minute() {
        let mut tries = Tries::default();
        let start = epoch();
        let mut allowed = 0;
        for second in 0..60 {
            let now = start + Duration::from_secs(second);
            let count = (0..=u8::MAX).filter(|n| tries.begin(&peer(*n), now).is_ok());
            allowed += count.count();
        }
        assert_eq!(allowed, 30 + 29);
    }

    #[test]
    fn after_an_hour_nobody_remembers() {
        let mut tries = Tries::default();
        let now = epoch();
        while tries.begin(&peer(1), now).is_ok() {}
        let later = now + FIRST_PAUSE + MEMORY;
        let free = (0..10).filter(|_| tries.begin(&peer(1), later).is_ok());
        assert_eq!(free.count(), FREE as usize);
    }
}
