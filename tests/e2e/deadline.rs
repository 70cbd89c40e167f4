//! Waiting for something to become true, never longer than agreed.

use std::fs;
use std::time::{Duration, Instant};

/// How often a condition is looked at. Shorter makes tests no faster and takes CPU from the nodes.
const POLL: Duration = Duration::from_millis(50);
/// How many times as long as agreed is waited at most.
const STRETCH: u32 = 4;

/// A limit that holds on a machine with processors to spare: while programs wait for one, its clock stands still, so
/// that what else the machine does fails no test. A busy node cannot hide behind that for long: [`STRETCH`].
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    within: Duration,
    began: Instant,
    starved: Duration,
}

impl Limit {
    /// The clock runs from now on.
    pub fn new(within: Duration) -> Self {
        Self {
            within,
            began: Instant::now(),
            starved: starved(),
        }
    }

    /// How long is waited altogether, as far as is known now.
    pub fn granted(&self) -> Duration {
        let lost = starved().saturating_sub(self.starved);
        self.within + lost.min(self.within * (STRETCH - 1))
    }

    /// Whether time is up.
    pub fn is_over(&self) -> bool {
        let elapsed = self.began.elapsed();
        // Nothing is asked of the kernel before the time that was agreed.
        elapsed >= self.within && elapsed >= self.granted()
    }
}

/// The time since the machine's start in which a program that could run waited for a processor; zero where the kernel
/// does not keep it.
fn starved() -> Duration {
    let Ok(pressure) = fs::read_to_string("/proc/pressure/cpu") else {
        return Duration::ZERO;
    };
    let some = pressure.lines().find(|line| line.starts_with("some"));
    let total = some.and_then(|line| line.split_once("total=")?.1.trim().parse().ok());
    Duration::from_micros(total.unwrap_or_default())
}

/// Asks until the answer is `Some`, or panics with what was waited for.
pub fn eventually<T>(within: Duration, what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let limit = Limit::new(within);
    loop {
        // Looked at before the question, so that the last question comes after the limit.
        let is_last = limit.is_over();
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(
            !is_last,
            "within {:?} this did not happen: {what}",
            limit.granted()
        );
        std::thread::park_timeout(POLL);
    }
}

/// As [`eventually`], for a condition without a value.
pub fn until(within: Duration, what: &str, mut ask: impl FnMut() -> bool) {
    eventually(within, what, || ask().then_some(()));
}

/// Lets time pass, where that is what happens in a story.
pub fn passes(time: Duration) {
    let since = Instant::now();
    until(time * 2, "time passes", || since.elapsed() >= time);
}
