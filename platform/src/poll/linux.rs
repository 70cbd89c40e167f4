//! [`Waker`] on Linux: an eventfd.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use nix::sys::eventfd::{EfdFlags, EventFd};

/// Interrupts a [`wait`](super::wait) from another thread. Clones wake the same waiter.
#[derive(Clone, Debug)]
pub struct Waker(Arc<EventFd>);

impl Waker {
    /// A waker that nobody has called yet.
    pub fn new() -> io::Result<Self> {
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        Ok(Self(Arc::new(event)))
    }

    /// Makes the waker readable until it is drained.
    pub fn wake(&self) {
        // Fails only when the counter is full, and then the waiter is awake already.
        let _ = self.0.write(1);
    }

    /// Makes the waker quiet again. Call it before looking at what the wake was about, so that none is missed.
    pub fn drain(&self) {
        // Fails only when nobody has called.
        let _ = self.0.read();
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
