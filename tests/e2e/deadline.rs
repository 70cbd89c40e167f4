//! Waiting for something to become true, never longer than agreed.

use std::time::{Duration, Instant};

/// How often a condition is looked at. Shorter makes tests no faster and takes CPU from the nodes.
const POLL: Duration = Duration::from_millis(50);

/// Asks until the answer is `Some`, or panics with what was waited for.
pub fn eventually<T>(within: Duration, what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + within;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(
            Instant::now() < deadline,
            "within {within:?} this did not happen: {what}"
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
