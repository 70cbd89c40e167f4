//! [`Waker`] where nobody has written one yet.

use std::convert::Infallible;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// Interrupts a [`wait`](super::wait) from another thread. Not supported yet on this system.
#[derive(Clone, Debug)]
pub struct Waker(Infallible);

impl Waker {
    /// Always fails on this system.
    pub fn new() -> io::Result<Self> {
        Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "hivevpn cannot wake its loop on this system yet",
        ))
    }

    /// Makes the waker readable until it is drained.
    pub fn wake(&self) {
        match self.0 {}
    }

    /// Makes the waker quiet again.
    pub fn drain(&self) {
        match self.0 {}
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self.0 {}
    }
}
