//! When the core is told that the network below may have changed.

use std::{
    os::fd::{AsFd, BorrowedFd},
    time::{Duration, Instant},
};

use hivevpn_platform::{boot_time::boot_time, network_change::NetworkChanges};

/// News come in bursts: a link, its addresses, its routes. Paths are tried anew this long after the first of them.
const DELAY: Duration = Duration::from_millis(100);
/// A gap of this length between the two clocks is a suspend, less is rounding.
const GAP: Duration = Duration::from_secs(2);

/// Notices of the system, and a watch for suspends, which no notice tells.
pub struct Changes {
    notices: Option<NetworkChanges>,
    due: Option<Instant>,
    began: Instant,
    /// By how much the clock that counts sleep is ahead of the one that does not.
    ahead: Option<Duration>,
}

impl Changes {
    /// Watches from now on. Where the system gives no notices, changes are noticed by the paths that fail.
    pub fn watch(notices: Option<NetworkChanges>, now: Instant) -> Self {
        let mut changes = Self {
            notices,
            due: None,
            began: now,
            ahead: None,
        };
        changes.ahead = changes.measure(now);
        changes
    }

    /// What to wait for.
    pub fn source(&self) -> Option<BorrowedFd<'_>> {
        self.notices.as_ref().map(AsFd::as_fd)
    }

    /// When [`is_due`](Self::is_due) is to be asked next.
    pub fn next(&self) -> Option<Instant> {
        self.due
    }

    /// The source has something to say.
    pub fn hear(&mut self, now: Instant) {
        if self.notices.as_mut().is_some_and(NetworkChanges::drain) {
            self.due.get_or_insert(now + DELAY);
        }
    }

    /// Whether paths are to be tried anew now. Ask after every sleep.
    pub fn is_due(&mut self, now: Instant) -> bool {
        let ahead = self.measure(now);
        let before = std::mem::replace(&mut self.ahead, ahead);
        let has_slept =
            matches!((before, ahead), (Some(before), Some(ahead)) if ahead > before + GAP);
        let has_changed = self.due.take_if(|due| now >= *due).is_some();
        has_slept || has_changed
    }

    fn measure(&self, now: Instant) -> Option<Duration> {
        boot_time()
            .ok()?
            .checked_sub(now.saturating_duration_since(self.began))
    }
}
