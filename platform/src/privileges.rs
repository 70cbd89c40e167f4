//! What this process may do, who is at the other end of a local socket, and keeping secrets out of core dumps.

use std::io;

use nix::sys::resource::{Resource, setrlimit};

#[cfg(target_os = "linux")]
#[path = "privileges/linux.rs"]
mod system;
#[cfg(not(target_os = "linux"))]
#[path = "privileges/unsupported.rs"]
mod system;

pub use system::{may_configure_interfaces, peer_credentials};

/// User at the other end of a unix socket, as the kernel vouches for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerCredentials {
    /// User id at the time of the connection.
    pub uid: u32,
    /// Primary group id at the time of the connection.
    pub gid: u32,
}

/// The user this process acts as; 0 is root.
pub fn effective_uid() -> u32 {
    nix::unistd::geteuid().as_raw()
}

/// Keeps the secrets in this process's memory out of core dumps and away from debuggers of the same user.
pub fn disable_core_dumps() -> io::Result<()> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    system::forbid_inspection()
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use nix::sys::resource::getrlimit;

    use super::*;

    #[test]
    fn the_other_end_of_a_socket_pair_is_ourselves() {
        let (here, _there) = UnixStream::pair().unwrap();
        let credentials = peer_credentials(&here).unwrap();
        assert_eq!(
            credentials,
            PeerCredentials {
                uid: effective_uid(),
                gid: nix::unistd::getegid().as_raw()
            }
        );
    }

    #[test]
    fn a_core_dump_is_impossible_afterwards() {
        disable_core_dumps().unwrap();
        assert_eq!(getrlimit(Resource::RLIMIT_CORE).unwrap(), (0, 0));
        #[cfg(target_os = "linux")]
        assert!(!nix::sys::prctl::get_dumpable().unwrap());
    }
}
