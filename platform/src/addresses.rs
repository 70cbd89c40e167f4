//! The addresses this machine has.

use std::io;
use std::net::IpAddr;

use ipnet::IpNet;
use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use nix::sys::socket::SockaddrStorage;

/// The addresses of all interfaces that are up, loopback included, each with the network around it: a pair of
/// interface name and e.g. `192.168.1.7/24`.
pub fn local_addresses() -> io::Result<Vec<(String, IpNet)>> {
    let entries = getifaddrs()?.filter(|entry| entry.flags.contains(InterfaceFlags::IFF_UP));
    // An entry without an IP address stands for the interface itself.
    let networks = entries.filter_map(|entry| {
        let address = ip(&entry.address?)?;
        let netmask = ip(&entry.netmask?)?;
        Some((
            entry.interface_name,
            IpNet::with_netmask(address, netmask).ok()?,
        ))
    });
    Ok(networks.collect())
}

/// Whether interfaces of this system can have IPv6 addresses.
pub fn has_ipv6() -> bool {
    // Linux has a switch for interfaces yet to come, such as ours; elsewhere, and without IPv6, it does not exist.
    match std::fs::read_to_string("/proc/sys/net/ipv6/conf/default/disable_ipv6") {
        Ok(switch) => switch.trim() == "0",
        Err(_) => !cfg!(target_os = "linux"),
    }
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|address| address.ip().into());
    v4.or_else(|| address.as_sockaddr_in6().map(|address| address.ip().into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::namespace;

    #[test]
    fn loopback_is_listed_with_its_whole_network() {
        namespace::run(|| {
            let addresses = local_addresses().unwrap();
            assert!(
                addresses.contains(&("lo".to_owned(), "127.0.0.1/8".parse().unwrap())),
                "{addresses:?}"
            );
        });
    }

    #[test]
    fn an_interface_that_is_down_is_not_listed() {
        namespace::run_isolated(|| assert_eq!(local_addresses().unwrap(), []));
    }
}
