//! How long something stands: until a moment by the system clock, so that a restart or a sleep of the machine prolongs
//! nothing.

use std::time::Duration;

use crate::event_loop::now;

/// The system clock may be set, and no timer counts while the machine sleeps: so it is looked at this often.
const LOOK: Duration = Duration::from_secs(2);

/// The end of a lifetime that begins now, in seconds since 1970. The second that has begun does not count.
pub fn end(lifetime_s: u64) -> u64 {
    now().unix.0.saturating_add(lifetime_s).saturating_add(1)
}

/// Seconds until then.
pub fn left(end: Option<u64>) -> Option<u64> {
    end.map(|end| end.saturating_sub(now().unix.0))
}

/// Whether it is over.
pub fn is_over(end: Option<u64>) -> bool {
    left(end) == Some(0)
}

/// Returns when it is over.
pub async fn over(end: Option<u64>) {
    if end.is_none() {
        return std::future::pending().await;
    }
    while let Some(left @ 1..) = left(end) {
        tokio::time::sleep(LOOK.min(Duration::from_secs(left))).await;
    }
}
