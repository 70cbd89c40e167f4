//! Noticing that the machine's network changed, so that paths are tried anew at once instead of when they fail.
//!
//! [`NetworkChanges`] keeps a picture of what datagrams can leave by: the addresses of interfaces that are up. A notice
//! of the system counts when it changes that picture or a route. Most notices do not: statistics, wireless scans,
//! lifetimes that router advertisements renew, interfaces without an address of their own such as those of containers.
//! What happens to the overlay's own interface is our doing and never counts.
//!
//! A change is worth a look, no more: who hears of one finds out what it means.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

#[cfg(target_os = "linux")]
#[path = "network_change/linux.rs"]
mod system;
#[cfg(not(target_os = "linux"))]
#[path = "network_change/unsupported.rs"]
mod system;

/// Hears of changes to interfaces, addresses and routes. [`poll::wait`](crate::poll::wait) for it as for a socket.
pub struct NetworkChanges(system::Notices);

impl NetworkChanges {
    /// Listens from now on, in the network namespace of this thread. What happens to the interface named `overlay`,
    /// whether it exists already or not, is left out.
    pub fn open(overlay: &str) -> io::Result<Self> {
        system::Notices::open(overlay).map(Self)
    }

    /// Whether since the last call something changed that may move paths. Never blocks.
    pub fn drain(&mut self) -> bool {
        self.0.drain()
    }
}

impl AsFd for NetworkChanges {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests;
