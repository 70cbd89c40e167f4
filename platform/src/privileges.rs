//! What this process may do and gives up, who is at the other end of a local socket, and keeping secrets out of core dumps.
//!
//! A daemon starts with more than it needs: to open the TUN driver, to bind a low port, to hand its files to another
//! user. It gives up the rest in two steps, both while it has one thread, because privileges belong to threads and are
//! inherited: [`become_user`] after what only root may do, [`keep_only_network`] after what ports and priorities take.

use std::ffi::CString;
use std::io;

use nix::sys::resource::{Resource, setrlimit};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Group, Uid, User, getgrouplist};

#[cfg(target_os = "linux")]
#[path = "privileges/linux.rs"]
mod system;
#[cfg(not(target_os = "linux"))]
#[path = "privileges/unsupported.rs"]
mod system;

pub use system::{become_user, keep_only_network, may_configure_interfaces, peer_credentials};

/// The user that a daemon started by root becomes, and the group that may ask it, where they exist.
pub const SERVICE: &str = "hivevpn";

/// User at the other end of a unix socket, as the kernel vouches for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerCredentials {
    /// User id at the time of the connection.
    pub uid: u32,
    /// Primary group id at the time of the connection.
    pub gid: u32,
}

/// A user of this system that a daemon may become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceUser {
    /// Its name.
    pub name: String,
    /// Its user id.
    pub uid: u32,
    /// Its primary group.
    pub gid: u32,
}

impl ServiceUser {
    /// The user of this name, if there is one whose ids mean something here: in a user namespace most do not.
    pub fn named(name: &str) -> io::Result<Option<Self>> {
        let user = User::from_name(name)?.filter(|user| {
            system::is_mapped("/proc/self/uid_map", user.uid.as_raw())
                && system::is_mapped("/proc/self/gid_map", user.gid.as_raw())
        });
        Ok(user.map(|user| Self {
            name: user.name,
            uid: user.uid.as_raw(),
            gid: user.gid.as_raw(),
        }))
    }
}

/// The id of the group of this name, if there is one.
pub fn group_named(name: &str) -> Option<u32> {
    let group = Group::from_name(name).ok()??;
    Some(group.gid.as_raw())
}

/// Whether the user database says that the user is in the group.
pub fn is_in_group(uid: u32, gid: u32) -> bool {
    let Ok(Some(user)) = User::from_uid(Uid::from_raw(uid)) else {
        return false;
    };
    let Ok(name) = CString::new(user.name) else {
        return false;
    };
    getgrouplist(&name, user.gid).is_ok_and(|groups| groups.contains(&Gid::from_raw(gid)))
}

/// From now on files that this process makes are its user's alone, unless it says otherwise.
pub fn make_files_private() {
    umask(Mode::from_bits_truncate(0o077));
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
