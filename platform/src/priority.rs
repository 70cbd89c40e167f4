//! How soon the data loop gets a processor that others want too.
//!
//! A packet that has arrived waits until the loop runs. Scheduled like everything else, the loop may come after whatever
//! computes on the machine, some milliseconds later, and that is most of what people feel as latency under load. So it
//! runs with the lowest real-time priority: it gets a processor as soon as something has arrived. This suits a thread
//! that works in short bursts. One that never sleeps would keep everybody else from running, so a thread that has been
//! awake for [`LONGEST_BURST`] is scheduled like everything else until it has slept again.

use std::time::{Duration, Instant};

use thread_priority::{
    NormalThreadSchedulePolicy, RealtimeThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy,
    set_thread_priority_and_policy, thread_native_id,
};

/// Longer than any burst that is worked off faster than it arrives; far below the 950 ms in a second after which Linux
/// stops real-time threads altogether.
const LONGEST_BURST: Duration = Duration::from_millis(20);

/// The urgency of one thread, which alone may hold it.
#[derive(Debug)]
pub struct Urgency {
    state: State,
    awake_since: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Not wanted, or this process may not.
    Off,
    Urgent,
    /// Awake for too long.
    Ordinary,
}

impl Urgency {
    /// Makes the calling thread urgent, where this process may (Linux: CAP_SYS_NICE, or an `rtprio` limit).
    pub fn of_this_thread(now: Instant) -> Self {
        let state = match make_urgent() {
            Ok(()) => State::Urgent,
            Err(error) => {
                tracing::info!(
                    "no real-time priority ({error}): expect more latency while this machine is busy; grant \
                     CAP_SYS_NICE to avoid it"
                );
                State::Off
            }
        };
        Self {
            state,
            awake_since: now,
        }
    }

    /// Leaves the thread as it is.
    pub fn off(now: Instant) -> Self {
        Self {
            state: State::Off,
            awake_since: now,
        }
    }

    /// Call once in each of the thread's turns: whether it has slept since the last one.
    pub fn turn(&mut self, slept: bool, now: Instant) {
        if slept {
            self.awake_since = now;
        }
        let state = match self.state {
            State::Off => return,
            State::Urgent if now >= self.awake_since + LONGEST_BURST => {
                change(make_ordinary(), State::Ordinary)
            }
            State::Ordinary if slept => change(make_urgent(), State::Urgent),
            State::Urgent | State::Ordinary => return,
        };
        self.state = state;
    }
}

fn change(result: Result<(), thread_priority::Error>, to: State) -> State {
    match result {
        Ok(()) => to,
        Err(error) => {
            tracing::debug!(%error, "the thread's priority stays as it is");
            State::Off
        }
    }
}

fn make_urgent() -> Result<(), thread_priority::Error> {
    let policy = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::RoundRobin);
    set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, policy)
}

fn make_ordinary() -> Result<(), thread_priority::Error> {
    let policy = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Other);
    // Halfway: neither before nor behind other programs.
    let priority = ThreadPriority::Crossplatform(
        50_u8
            .try_into()
            .map_err(|_| thread_priority::Error::Priority("50 is between 0 and 100"))?,
    );
    set_thread_priority_and_policy(thread_native_id(), priority, policy)
}

#[cfg(test)]
mod tests {
    use thread_priority::thread_schedule_policy;

    use super::*;

    fn is_urgent() -> bool {
        matches!(
            thread_schedule_policy().unwrap(),
            ThreadSchedulePolicy::Realtime(_)
        )
    }

    #[test]
    fn a_thread_that_does_not_sleep_loses_its_urgency_until_it_does() {
        let start = Instant::now();
        let mut urgency = Urgency::of_this_thread(start);
        // Without privileges there is nothing to lose.
        let may = urgency.state == State::Urgent;
        assert_eq!(is_urgent(), may);
        urgency.turn(false, start + LONGEST_BURST / 2);
        assert_eq!(is_urgent(), may);
        urgency.turn(false, start + LONGEST_BURST);
        assert!(!is_urgent());
        urgency.turn(false, start + LONGEST_BURST * 2);
        assert!(!is_urgent());
        urgency.turn(true, start + LONGEST_BURST * 3);
        assert_eq!(is_urgent(), may);
    }

    #[test]
    fn a_thread_that_sleeps_now_and_then_stays_urgent() {
        let start = Instant::now();
        let mut urgency = Urgency::of_this_thread(start);
        let may = urgency.state == State::Urgent;
        for turn in 1..10 {
            urgency.turn(true, start + LONGEST_BURST * turn);
        }
        assert_eq!(is_urgent(), may);
    }
}
