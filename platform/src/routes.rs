//! Routes: which networks this machine reaches through which interface.
//!
//! The overlay must not take a network away that the machine already uses: [`clash`] finds out before the interface
//! exists. Giving the interface an address makes the route to the overlay's own network; [`add_route`] is for further
//! networks behind peers. Routes disappear with their interface.

use std::io;
use std::net::Ipv4Addr;

use ipnet::{IpNet, Ipv4Net};

use crate::addresses::local_addresses;

#[cfg(target_os = "linux")]
#[path = "routes/linux.rs"]
mod system;
#[cfg(not(target_os = "linux"))]
#[path = "routes/unsupported.rs"]
mod system;

/// Shortest prefix that counts as a network in use. A default route is no claim to anything in particular, and some
/// VPNs split theirs into two halves of the address space.
const SHORTEST_CLAIM: u8 = 2;

/// Part of a network that is in use already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clash {
    /// The interface that uses it.
    pub interface: String,
    /// What it uses: at least partly the same addresses.
    pub network: Ipv4Net,
}

/// Finds another interface than `except_interface` that has an address or a route inside or around `prefix`.
pub fn clash(prefix: Ipv4Net, except_interface: &str) -> io::Result<Option<Clash>> {
    let mut claims = Vec::new();
    for (interface, network) in local_addresses()? {
        if let IpNet::V4(network) = network {
            claims.push(Clash {
                interface,
                network: network.trunc(),
            });
        }
    }
    system::visit_routes(|claim| {
        if overlaps(prefix, &claim) {
            claims.push(claim);
        }
    })?;
    Ok(claims
        .into_iter()
        .find(|claim| claim.interface != except_interface && overlaps(prefix, claim)))
}

fn overlaps(prefix: Ipv4Net, claim: &Clash) -> bool {
    claim.network.prefix_len() >= SHORTEST_CLAIM
        && (prefix.contains(&claim.network) || claim.network.contains(&prefix))
}

/// The router that this machine sends IPv4 packets to which no other route is for, if there is one.
pub fn default_gateway() -> io::Result<Option<Ipv4Addr>> {
    system::default_gateway()
}

/// Why a route could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// There is a route to the same network already.
    #[error(
        "cannot route {network} to {interface}: there is another route to it (`ip route show {network}`)"
    )]
    Exists {
        /// Our interface.
        interface: String,
        /// The network.
        network: IpNet,
    },
    /// Anything else.
    #[error("cannot change the route of {network} to {interface}")]
    Io {
        /// Our interface.
        interface: String,
        /// The network.
        network: IpNet,
        /// What the system said.
        source: io::Error,
    },
}

impl RouteError {
    fn new(interface: &str, network: IpNet, source: io::Error) -> Self {
        let interface = interface.to_owned();
        if source.kind() == io::ErrorKind::AlreadyExists {
            return Self::Exists { interface, network };
        }
        Self::Io {
            interface,
            network,
            source,
        }
    }
}

/// Sends packets for `network` to `interface`.
pub fn add_route(interface: &str, network: IpNet) -> Result<(), RouteError> {
    system::add(interface, network).map_err(|source| RouteError::new(interface, network, source))
}

/// Undoes [`add_route`]. A route that has gone already, alone or with its interface, is fine.
pub fn remove_route(interface: &str, network: IpNet) -> Result<(), RouteError> {
    system::remove(interface, network).map_err(|source| RouteError::new(interface, network, source))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::namespace;
    use crate::netlink::Conversation;
    use crate::tun::{Tun, TunConfig};

    fn open(name: &str, address: [u8; 4], prefix_len: u8) -> Tun {
        let config = TunConfig {
            name: name.into(),
            ipv4: Some((address.into(), prefix_len)),
            ipv6: None,
            mtu: 1420,
            offload: true,
        };
        Tun::open(&config).unwrap()
    }

    fn net(text: &str) -> Ipv4Net {
        text.parse().unwrap()
    }

    #[test]
    fn a_network_nobody_uses_is_free() {
        namespace::run(|| assert_eq!(clash(net("10.77.0.0/16"), "hive0").unwrap(), None));
    }

    #[test]
    fn an_address_inside_around_or_equal_clashes_unless_it_is_our_own() {
        namespace::run(|| {
            let _other = open("other0", [10, 77, 3, 1], 24);
            let expected = Some(Clash {
                interface: "other0".into(),
                network: net("10.77.3.0/24"),
            });
            assert_eq!(clash(net("10.77.0.0/16"), "hive0").unwrap(), expected);
            assert_eq!(clash(net("10.77.3.128/25"), "hive0").unwrap(), expected);
            assert_eq!(clash(net("10.77.3.0/24"), "hive0").unwrap(), expected);
            assert_eq!(clash(net("10.77.4.0/24"), "hive0").unwrap(), None);
            assert_eq!(clash(net("10.77.0.0/16"), "other0").unwrap(), None);
        });
    }

    #[test]
    fn a_route_clashes_but_a_default_route_does_not_even_in_two_halves() {
        namespace::run(|| {
            let _other = open("other0", [192, 168, 9, 1], 24);
            add_route("other0", "0.0.0.0/0".parse().unwrap()).unwrap();
            add_route("other0", "0.0.0.0/1".parse().unwrap()).unwrap();
            assert_eq!(clash(net("10.77.0.0/16"), "hive0").unwrap(), None);

            add_route("other0", "10.0.0.0/8".parse().unwrap()).unwrap();
            let expected = Some(Clash {
                interface: "other0".into(),
                network: net("10.0.0.0/8"),
            });
            assert_eq!(clash(net("10.77.0.0/16"), "hive0").unwrap(), expected);
        });
    }

    #[test]
    fn the_default_gateway_is_the_one_with_the_best_metric() {
        namespace::run(|| {
            assert_eq!(default_gateway().unwrap(), None);
            let _uplink = open("uplink0", [192, 168, 9, 7], 24);
            add_route("uplink0", "0.0.0.0/0".parse().unwrap()).unwrap();
            assert_eq!(default_gateway().unwrap(), None, "a route without a router");
            for (metric, last) in [(200, 3), (100, 1), (300, 2)] {
                Conversation::open()
                    .unwrap()
                    .add_default_gateway([192, 168, 9, last].into(), metric)
                    .unwrap();
            }
            assert_eq!(default_gateway().unwrap(), Some([192, 168, 9, 1].into()));
        });
    }

    #[test]
    fn routes_of_both_families_come_and_go() {
        namespace::run(|| {
            let tun = open("hive0", [10, 77, 0, 4], 16);
            for network in ["172.20.0.0/16", "fd00:1::/64", "10.88.0.1/32"] {
                let network: IpNet = network.parse().unwrap();
                add_route("hive0", network).unwrap();
                assert!(
                    matches!(add_route("hive0", network), Err(RouteError::Exists { .. })),
                    "{network}"
                );
                remove_route("hive0", network).unwrap();
                add_route("hive0", network).unwrap();
                remove_route("hive0", network).unwrap();
                remove_route("hive0", network).unwrap();
            }
            drop(tun);
            remove_route("hive0", "172.20.0.0/16".parse().unwrap()).unwrap();
            let error = add_route("hive0", "172.20.0.0/16".parse().unwrap()).unwrap_err();
            assert_eq!(
                error.to_string(),
                "cannot change the route of 172.20.0.0/16 to hive0"
            );
        });
    }
}
