//! The clock that goes on while the machine is suspended.

use std::io;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// Linux's `Instant` stands still during a suspend; this clock does not.
#[cfg(any(target_os = "linux", target_os = "android"))]
const CLOCK: ClockId = ClockId::CLOCK_BOOTTIME;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const CLOCK: ClockId = ClockId::CLOCK_MONOTONIC;

/// The time since the machine was started, suspends included. Where it has gained on [`Instant`](std::time::Instant)
/// between two looks, the machine slept in between.
pub fn boot_time() -> io::Result<Duration> {
    Ok(clock_gettime(CLOCK)?.into())
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn it_never_falls_behind_the_clock_that_stands_still_during_a_suspend() {
        let boot_before = boot_time().unwrap();
        let began = Instant::now();
        let mut elapsed = Duration::ZERO;
        while elapsed < Duration::from_micros(100) {
            elapsed = began.elapsed();
        }
        assert!(boot_time().unwrap() - boot_before >= elapsed);
    }
}
