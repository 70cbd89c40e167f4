//! The TUN device where nobody has written it yet.

use std::convert::Infallible;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use super::{TunConfig, TunError};

pub(super) struct Device(Infallible);

pub(super) fn probe_driver() -> Result<(), TunError> {
    Err(unsupported("of any name"))
}

fn unsupported(name: &str) -> TunError {
    TunError::Io {
        action: "create",
        name: name.to_owned(),
        source: io::Error::new(
            io::ErrorKind::Unsupported,
            "hivevpn has no TUN device on this system yet",
        ),
    }
}

impl Device {
    pub(super) fn open(config: &TunConfig) -> Result<Self, TunError> {
        Err(unsupported(&config.name))
    }

    pub(super) fn change_addresses(
        &self,
        _before: &TunConfig,
        _after: &TunConfig,
    ) -> Result<(), TunError> {
        match self.0 {}
    }

    pub(super) fn recv_each(
        &mut self,
        _frames: usize,
        _bytes: usize,
        _each: impl FnMut(&[u8]),
    ) -> io::Result<usize> {
        match self.0 {}
    }

    pub(super) fn send_packets<'a>(
        &mut self,
        _packets: impl IntoIterator<Item = &'a [u8]>,
    ) -> io::Result<usize> {
        match self.0 {}
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self.0 {}
    }
}
