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
    set_thread_priority_and_policy, thread_native_id, thread_schedule_policy,
};

/// The least of the real-time priorities.
#[cfg(target_os = "linux")]
const LOWEST: u64 = 1;

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
    /// Makes the calling thread urgent, where this process may (Linux: CAP_SYS_NICE, or an `rtprio` limit, see
    /// [`provide`]).
    pub fn of_this_thread(now: Instant) -> Self {
        let state = match make_urgent() {
            Ok(()) => State::Urgent,
            Err(error) => {
                tracing::info!(
                    "no real-time priority ({error}): expect more latency while this machine is busy; start with \
                     CAP_SYS_NICE and CAP_SYS_RESOURCE, or a limit of 1 (systemd: LimitRTPRIO=1), to avoid it"
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

/// Provides for [`Urgency::of_this_thread`] after privileges are given up. Call it on the thread that makes the urgent ones.
///
/// A limit allows it to the whole process. Where that cannot be raised, this thread becomes urgent now, and those that it
/// makes inherit it; those that should not be must say so ([`be_ordinary`]).
pub fn provide() {
    if raise_limit().is_err() {
        // Whoever asks for urgency later learns whether there is any.
        let _ = make_urgent();
    }
}

#[cfg(target_os = "linux")]
fn raise_limit() -> nix::Result<()> {
    use nix::sys::resource::{Resource, setrlimit};
    setrlimit(Resource::RLIMIT_RTPRIO, LOWEST, LOWEST)
}

/// There is no such limit.
#[cfg(not(target_os = "linux"))]
fn raise_limit() -> nix::Result<()> {
    Err(nix::errno::Errno::ENOTSUP)
}

/// Takes back what the calling thread has inherited from an urgent one.
pub fn be_ordinary() {
    if is_urgent() {
        change(make_ordinary(), State::Ordinary);
    }
}

fn is_urgent() -> bool {
    matches!(
        thread_schedule_policy(),
        Ok(ThreadSchedulePolicy::Realtime(_))
    )
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
    use super::*;

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
