//! Wall-clock time as certificates see it.
//!
//! The core reads no clock: the shell passes the time in. What it passes should come out of a
//! [`TimeFloor`], so that a clock set back revives nothing that has expired.

use std::{fmt, time::Duration};

use minicbor::{Decode, Encode};

/// How far the clocks of honest nodes may be apart. What we sign starts this much in the past, so
/// that a node whose clock is behind ours can use it at once.
pub const CLOCK_SKEW: Duration = Duration::from_secs(10 * 60);

/// Seconds since 1970-01-01 00:00 UTC, leap seconds not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct UnixTime(#[n(0)] pub u64);

impl UnixTime {
    /// The moment `span` after this one; the end of time when there is none.
    pub fn plus(self, span: Duration) -> UnixTime {
        UnixTime(self.0.saturating_add(span.as_secs()))
    }

    /// The moment `span` before this one; 1970 when there is none.
    pub fn minus(self, span: Duration) -> UnixTime {
        UnixTime(self.0.saturating_sub(span.as_secs()))
    }

    /// How long after `earlier` this is; zero when it is before.
    pub fn since(self, earlier: UnixTime) -> Duration {
        Duration::from_secs(self.0.saturating_sub(earlier.0))
    }

    /// In milliseconds, the unit of descriptor sequence numbers.
    pub fn as_millis(self) -> u64 {
        self.0.saturating_mul(1000)
    }
}

impl fmt::Display for UnixTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "@{}", self.0)
    }
}

/// The latest moment known to have come: of the system clock, of the last run, and of the start of
/// every signed object that was found valid.
///
/// The price of never going back: a clock that once was years ahead keeps the floor up there until
/// the operator resets the persisted value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeFloor(UnixTime);

impl TimeFloor {
    /// Starts from what the last run persisted, `UnixTime(0)` on the first.
    pub fn new(persisted: UnixTime) -> TimeFloor {
        TimeFloor(persisted)
    }

    /// The time to work with, given what the system clock says.
    pub fn now(&mut self, system_clock: UnixTime) -> UnixTime {
        self.saw(system_clock);
        self.0
    }

    /// A verified object says that this moment has come: its not-before, or the time of a
    /// [`Joined`](super::join::Joined). Never feed it with what has not been verified.
    pub fn saw(&mut self, moment: UnixTime) {
        self.0 = self.0.max(moment);
    }

    /// What to persist for the next run.
    pub fn floor(&self) -> UnixTime {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_set_back_does_not_turn_time_back() {
        let mut floor = TimeFloor::new(UnixTime(1_000));
        assert_eq!(floor.now(UnixTime(2_000)), UnixTime(2_000));
        assert_eq!(floor.now(UnixTime(500)), UnixTime(2_000));
        assert_eq!(
            TimeFloor::new(floor.floor()).now(UnixTime(0)),
            UnixTime(2_000)
        );
    }

    #[test]
    fn a_machine_without_a_clock_takes_the_time_from_what_it_verified() {
        let mut floor = TimeFloor::new(UnixTime(0));
        floor.saw(UnixTime(1_700_000_000));
        assert_eq!(floor.now(UnixTime(12)), UnixTime(1_700_000_000));
    }

    #[test]
    fn arithmetic_stops_at_the_ends_of_time() {
        assert_eq!(
            UnixTime(u64::MAX).plus(Duration::from_secs(1)),
            UnixTime(u64::MAX)
        );
        assert_eq!(UnixTime(3).minus(Duration::from_secs(9)), UnixTime(0));
        assert_eq!(UnixTime(3).since(UnixTime(9)), Duration::ZERO);
    }
}
