//! Virtual time. A moment is how long the world has existed.
//!
//! boringtun reads a clock of its own, which its `mock-instant` feature replaces by one per thread that stands still
//! until it is set. So there is one world per thread at a time, and any number of threads.

use std::time::Duration;

use mock_instant::MockClock;

/// How long the world has existed.
pub type Moment = Duration;

/// Some seconds.
pub const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// Some milliseconds.
pub const fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// The only clock. It never goes back.
#[derive(Debug)]
pub struct Clock {
    now: Moment,
}

impl Default for Clock {
    fn default() -> Self {
        MockClock::set_time(Duration::ZERO);
        Self {
            now: Duration::ZERO,
        }
    }
}

impl Clock {
    /// The moment.
    pub fn now(&self) -> Moment {
        self.now
    }

    /// Moves on to `moment`, for boringtun too.
    pub fn advance_to(&mut self, moment: Moment) {
        assert!(moment >= self.now, "time went back");
        if moment > self.now {
            self.now = moment;
            MockClock::set_time(moment);
        }
    }
}
