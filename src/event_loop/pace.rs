//! When to let work pile up for a moment.
//!
//! Waking up costs some microseconds whatever there is to do then. A flood of small packets that finds the loop asleep
//! every time costs a wake-up for each packet, and takes the processor away from whoever sends them. So while wake-ups
//! follow each other closely and each finds little to do, the loop rests before it looks again, as network cards do with
//! their interrupts; it stops resting as soon as that gathers nothing.

use std::time::{Duration, Instant};

/// Long enough to gather dozens of packets of a flood, a fraction of what any path takes.
const REST: Duration = Duration::from_micros(60);
/// Turns are counted over this time.
const WINDOW: Duration = Duration::from_millis(1);
/// So many turns with little to do in a window make the loop rest. A request and its answer over a short path stay below.
const THIN: u32 = 24;
/// Fewer frames and messages than this are little, and a rest should gather as many.
const GATHERED: usize = 4;

/// How the loop's last turns went.
#[derive(Debug)]
pub(super) struct Pace {
    window: Instant,
    thin: u32,
    resting: bool,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            window: now,
            thin: 0,
            resting: false,
        }
    }

    /// How long to let work pile up before looking for it.
    pub(super) fn rest(&self) -> Option<Duration> {
        self.resting.then_some(REST)
    }

    /// A turn is over: how many frames and messages it found.
    pub(super) fn turn(&mut self, found: usize, now: Instant) {
        if self.resting {
            self.resting = found >= GATHERED;
            (self.window, self.thin) = (now, 0);
            return;
        }
        if now >= self.window + WINDOW {
            (self.window, self.thin) = (now, 0);
        }
        self.thin += u32::from((1..GATHERED).contains(&found));
        self.resting = self.thin >= THIN;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_micros(20);

    /// In how many of a thousand turns the loop rested, when each finds one frame, or `rested` after a rest.
    fn rests(rested: usize) -> u32 {
        let mut now = Instant::now();
        let mut pace = Pace::new(now);
        let mut rests = 0;
        for _ in 0..1000 {
            let rests_now = pace.rest().is_some();
            rests += u32::from(rests_now);
            now += STEP;
            pace.turn(if rests_now { rested } else { 1 }, now);
        }
        rests
    }

    #[test]
    fn a_flood_is_gathered() {
        assert!(rests(40) > 950);
    }

    #[test]
    fn resting_that_gathers_nothing_is_rare() {
        assert!((1..50).contains(&rests(1)));
    }

    #[test]
    fn turns_with_much_to_do_need_no_rest() {
        let mut now = Instant::now();
        let mut pace = Pace::new(now);
        for _ in 0..1000 {
            now += STEP;
            pace.turn(GATHERED, now);
            assert_eq!(pace.rest(), None);
        }
    }

    #[test]
    fn a_quiet_loop_never_rests() {
        let mut now = Instant::now();
        let mut pace = Pace::new(now);
        for _ in 0..1000 {
            now += WINDOW / THIN + STEP;
            pace.turn(1, now);
            assert_eq!(pace.rest(), None);
        }
    }
}
