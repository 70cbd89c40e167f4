//! Privileges where nobody has looked into them yet.

use std::io;
use std::os::fd::AsFd;

use super::{PeerCredentials, effective_uid};

/// Whether this process may create network interfaces: elsewhere than on Linux, root may.
pub fn may_configure_interfaces() -> bool {
    effective_uid() == 0
}

/// Who is at the other end of a connected unix socket. Not supported yet on this system.
pub fn peer_credentials(_socket: &impl AsFd) -> io::Result<PeerCredentials> {
    Err(io::Error::new(
        io::ErrorKind::Unsupported,
        "hivevpn cannot tell who connects to a local socket on this system yet",
    ))
}

/// The limit on core dumps has to do.
pub(super) fn forbid_inspection() -> io::Result<()> {
    Ok(())
}
