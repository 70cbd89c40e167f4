//! Privileges on Linux: capabilities, socket credentials, the dumpable flag.

use std::fs;
use std::io;
use std::os::fd::AsFd;

use nix::sys::prctl::set_dumpable;
use nix::sys::socket::{getsockopt, sockopt};

use super::PeerCredentials;

/// Number of CAP_NET_ADMIN in capabilities(7): make interfaces, give them addresses and routes.
const CAP_NET_ADMIN: u32 = 12;

/// Whether this process may create network interfaces and give them addresses and routes.
pub fn may_configure_interfaces() -> bool {
    let Ok(status) = fs::read_to_string("/proc/self/status") else {
        return false;
    };
    effective_capabilities(&status)
        .is_some_and(|capabilities| capabilities & (1 << CAP_NET_ADMIN) != 0)
}

/// The line `CapEff:\t000001ffffffffff` of proc_pid_status(5).
fn effective_capabilities(status: &str) -> Option<u64> {
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(mask.trim(), 16).ok()
}

/// Who is at the other end of a connected unix socket.
pub fn peer_credentials(socket: &impl AsFd) -> io::Result<PeerCredentials> {
    let credentials = getsockopt(socket, sockopt::PeerCredentials)?;
    Ok(PeerCredentials {
        uid: credentials.uid(),
        gid: credentials.gid(),
    })
}

pub(super) fn forbid_inspection() -> io::Result<()> {
    Ok(set_dumpable(false)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_effective_capabilities_are_found_among_the_others() {
        let status = "Name:\thivevpn\nCapPrm:\t0000000000000000\nCapEff:\t0000000000001000\n";
        assert_eq!(effective_capabilities(status), Some(1 << CAP_NET_ADMIN));
        assert_eq!(effective_capabilities("Name:\thivevpn\n"), None);
        assert_eq!(effective_capabilities("CapEff:\tnonsense\n"), None);
    }
}
