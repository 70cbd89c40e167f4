//! Privileges where nobody has looked into them yet.

use std::io;
use std::os::fd::AsFd;

use super::{PeerCredentials, ServiceUser, effective_uid};

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

/// Users have no ids of their own here.
pub(super) fn is_mapped(_map: &str, _id: u32) -> bool {
    true
}

/// Not supported yet on this system.
pub fn become_user(user: &ServiceUser) -> io::Result<()> {
    Err(io::Error::new(
        io::ErrorKind::Unsupported,
        format!(
            "hivevpn cannot become the user {} on this system yet",
            user.name
        ),
    ))
}

/// There is nothing finer than root here: it stays.
pub fn keep_only_network() -> io::Result<()> {
    Ok(())
}
