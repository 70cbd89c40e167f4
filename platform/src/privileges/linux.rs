//! Privileges on Linux: capabilities, socket credentials, the dumpable flag.

use std::fs;
use std::io;
use std::os::fd::AsFd;

use nix::sys::prctl::set_dumpable;
use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, CapabilitySets, capabilities,
    clear_ambient_capability_set, remove_capability_from_bounding_set, set_capabilities,
    set_capabilities_secure_bits, set_keep_capabilities, set_no_new_privs,
};

use super::{PeerCredentials, ServiceUser};

/// What running takes: interfaces, addresses and routes; and ports below 1024 of the overlay, for what is exposed there.
const FOR_RUNNING: CapabilitySet = CapabilitySet::NET_ADMIN.union(CapabilitySet::NET_BIND_SERVICE);

/// What set-up needs that running does not: a real-time priority, and giving up all this.
const FOR_SET_UP: CapabilitySet = FOR_RUNNING
    .union(CapabilitySet::SYS_NICE)
    .union(CapabilitySet::SYS_RESOURCE)
    .union(CapabilitySet::SETPCAP);

/// Being root, or becoming it again, means nothing to the kernel's capabilities any more; and nobody can undo this.
const ROOT_IS_NOBODY: CapabilitiesSecureBits = CapabilitiesSecureBits::NO_ROOT
    .union(CapabilitiesSecureBits::NO_ROOT_LOCKED)
    .union(CapabilitiesSecureBits::NO_SETUID_FIXUP)
    .union(CapabilitiesSecureBits::NO_SETUID_FIXUP_LOCKED)
    .union(CapabilitiesSecureBits::KEEP_CAPS_LOCKED)
    .union(CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE)
    .union(CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE_LOCKED);

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

/// Makes root another user who keeps what the rest of the set-up needs. There is no way back. Call it while there is one
/// thread.
pub fn become_user(user: &ServiceUser) -> io::Result<()> {
    let permitted = capabilities(None)?.permitted.intersection(FOR_SET_UP);
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    set_keep_capabilities(true)?;
    setgroups(&[gid])?;
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)?;
    set_keep_capabilities(false)?;
    // The change of user has put the effective ones away.
    set_capabilities(None, exactly(permitted))?;
    Ok(())
}

/// Gives up every capability but CAP_NET_ADMIN and CAP_NET_BIND_SERVICE, for this thread and those it makes, and all of
/// them for every program they execute. Call it while there is one thread. Who does not hold the second goes on without.
pub fn keep_only_network() -> io::Result<()> {
    let held = capabilities(None)?;
    // Who holds the capability of a file alone may not do this, and need not: such a thread can gain nothing by
    // executing a program once no_new_privs is set.
    if held.effective.contains(CapabilitySet::SETPCAP) {
        for (_, capability) in CapabilitySet::all().iter_names() {
            remove_capability_from_bounding_set(capability)?;
        }
        set_capabilities_secure_bits(ROOT_IS_NOBODY)?;
    }
    clear_ambient_capability_set()?;
    set_no_new_privs(true)?;
    // Without the first there is nothing to do here: that is an error.
    let kept = held.permitted.intersection(FOR_RUNNING);
    set_capabilities(None, exactly(kept.union(CapabilitySet::NET_ADMIN)))?;
    Ok(())
}

fn exactly(capabilities: CapabilitySet) -> CapabilitySets {
    CapabilitySets {
        effective: capabilities,
        permitted: capabilities,
        inheritable: CapabilitySet::empty(),
    }
}

/// Whether an id exists in our user namespace, by `uid_map` or `gid_map` (user_namespaces(7)).
pub(super) fn is_mapped(map: &str, id: u32) -> bool {
    fs::read_to_string(map).is_ok_and(|map| maps(&map, id))
}

fn maps(map: &str, id: u32) -> bool {
    map.lines().any(|line| {
        let mut numbers = line.split_whitespace().map(str::parse::<u64>);
        let (Some(Ok(first)), _, Some(Ok(count))) =
            (numbers.next(), numbers.next(), numbers.next())
        else {
            return false;
        };
        (first..first.saturating_add(count)).contains(&id.into())
    })
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

    #[test]
    fn a_user_namespace_of_one_user_has_no_other() {
        assert!(maps("         0       1000          1\n", 0));
        assert!(!maps("         0       1000          1\n", 1000));
        assert!(maps("0 0 4294967295\n", 65_534));
        assert!(!maps("nonsense\n", 0));
    }

    /// Capabilities belong to a thread: this one of the test is given up for it.
    #[test]
    fn a_thread_that_gave_up_the_rest_keeps_two_capabilities_and_can_gain_none() {
        if !may_configure_interfaces() {
            println!("skipped: needs CAP_NET_ADMIN");
            return;
        }
        let status = std::thread::spawn(|| {
            keep_only_network().unwrap();
            keep_only_network().expect("twice is fine");
            fs::read_to_string("/proc/thread-self/status").unwrap()
        });
        let status = status.join().unwrap();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap().trim_matches([':', '\t', ' ']).to_owned()
        };
        assert_eq!(field("CapEff"), "0000000000001400");
        assert_eq!(field("CapPrm"), "0000000000001400");
        assert_eq!(field("CapInh"), "0000000000000000");
        assert_eq!(field("CapAmb"), "0000000000000000");
        assert_eq!(field("CapBnd"), "0000000000000000");
        assert_eq!(field("NoNewPrivs"), "1");
    }
}
