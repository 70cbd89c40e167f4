//! Who is to be looked at when: each has at most one appointment, and only those whose time has come cost anything.
//!
//! Appointments can be [rounded up](Schedule::coarse) to a common grid. So a thousand of them wake the node as often
//! as the grid has lines, not a thousand times.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

/// The appointments.
#[derive(Debug)]
pub struct Schedule<K> {
    origin: Instant,
    grain: Duration,
    queue: BTreeSet<(Instant, K)>,
    appointments: BTreeMap<K, Instant>,
}

impl<K: Ord + Copy> Schedule<K> {
    /// Nobody has an appointment. The grid begins at `origin` and has a line every `grain`, which is not zero.
    pub fn new(origin: Instant, grain: Duration) -> Self {
        Self {
            origin,
            grain,
            queue: BTreeSet::new(),
            appointments: BTreeMap::new(),
        }
    }

    /// The first line of the grid that is not before `at`.
    pub fn coarse(&self, at: Instant) -> Instant {
        let since = at.saturating_duration_since(self.origin).as_nanos();
        let past = since % self.grain.as_nanos();
        match u64::try_from(past) {
            Ok(0) | Err(_) => at,
            Ok(past) => at + (self.grain - Duration::from_nanos(past)),
        }
    }

    /// In place of any earlier appointment.
    pub fn set(&mut self, who: K, at: Option<Instant>) {
        if let Some(before) = self.appointments.remove(&who) {
            self.queue.remove(&(before, who));
        }
        if let Some(at) = at {
            self.appointments.insert(who, at);
            self.queue.insert((at, who));
        }
    }

    /// Not later than `at`: an earlier appointment stays.
    pub fn hasten(&mut self, who: K, at: Instant) {
        if self.appointments.get(&who).is_none_or(|due| at < *due) {
            self.set(who, Some(at));
        }
    }

    /// Whose time has come; the appointment is over.
    pub fn pop(&mut self, now: Instant) -> Option<K> {
        let (at, who) = *self.queue.first()?;
        if now < at {
            return None;
        }
        self.set(who, None);
        Some(who)
    }

    /// When the next appointment is.
    pub fn next(&self) -> Option<Instant> {
        self.queue.first().map(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::epoch;

    const GRAIN: Duration = Duration::from_millis(250);

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn everybody_is_called_once_in_the_order_of_time() {
        let start = epoch();
        let mut schedule = Schedule::new(start, GRAIN);
        for (who, at) in [('c', 30), ('a', 10), ('b', 20)] {
            schedule.set(who, Some(start + ms(at)));
        }
        assert_eq!(schedule.next(), Some(start + ms(10)));
        let mut called = Vec::new();
        while let Some(who) = schedule.pop(start + ms(20)) {
            called.push(who);
        }
        assert_eq!(called, ['a', 'b']);
        assert_eq!(schedule.next(), Some(start + ms(30)));
    }

    #[test]
    fn an_appointment_can_be_moved_hastened_and_cancelled_but_not_doubled() {
        let start = epoch();
        let mut schedule = Schedule::new(start, GRAIN);
        schedule.set('a', Some(start + ms(10)));
        schedule.set('a', Some(start + ms(50)));
        schedule.hasten('a', start + ms(90));
        assert_eq!(schedule.next(), Some(start + ms(50)));
        schedule.hasten('a', start + ms(20));
        assert_eq!(schedule.pop(start + ms(20)), Some('a'));
        assert_eq!(schedule.pop(start + ms(99)), None);
        schedule.hasten('a', start);
        schedule.set('a', None);
        assert_eq!(schedule.next(), None);
    }

    #[test]
    fn the_grid_is_never_early_and_less_than_a_grain_late() {
        let start = epoch();
        let schedule = Schedule::<u8>::new(start, GRAIN);
        for (at, line) in [(0, 0), (1, 250), (250, 250), (251, 500)] {
            assert_eq!(schedule.coarse(start + ms(at)), start + ms(line));
        }
    }
}
