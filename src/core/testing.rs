//! Where the stories of the tests begin.

use std::time::Instant;

/// Some moment. There is no other way to make one; from here on the tests drive their own clocks.
#[expect(clippy::disallowed_methods, reason = "an Instant has no other origin")]
pub fn epoch() -> Instant {
    Instant::now()
}
