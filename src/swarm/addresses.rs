//! What a multiaddress tells: who can reach it, which kind of link it makes, whether to tell others.
//!
//! An address is one of three kinds: *public* (any node can dial it), *local* (nodes of the same site can), or
//! a *circuit* through a relay. Addresses on the overlay itself are never dialed, announced or accepted: they
//! would send the tunnel through the tunnel.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4},
    sync::{Arc, PoisonError, RwLock},
};

use hivevpn_core::connection::Link;
use ipnet::IpNet;
use libp2p::{Multiaddr, PeerId, core::ConnectedPoint, multiaddr::Protocol};

/// The IP address that `address` begins with; none for names and for circuits seen from their far end.
pub fn ip(address: &Multiaddr) -> Option<IpAddr> {
    let first = address.iter().next()?;
    if let Protocol::Ip4(ip) = first {
        Some(ip.into())
    } else if let Protocol::Ip6(ip) = first {
        Some(ip.into())
    } else {
        None
    }
}

/// Whether any node of the internet can send to `ip`.
///
/// Documentation ranges count as public: test networks stand in for the internet with them. The benchmarking
/// range does not, because proxies hand it out as make-believe addresses.
pub fn is_public_ip(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
            Some(ip) => is_public_v4(ip),
            None => is_public_v6(ip),
        },
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, ..] = ip.octets();
    let this_network = a == 0;
    let carrier_grade_nat = a == 100 && (64..128).contains(&b);
    let benchmarking = a == 198 && (18..20).contains(&b);
    let multicast_or_reserved = a >= 224;
    !(this_network
        || ip.is_private()
        || ip.is_loopback()
        || ip.is_link_local()
        || carrier_grade_nat
        || benchmarking
        || multicast_or_reserved)
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    !(ip.is_unspecified()
        || ip.is_loopback()
        || ip.is_unicast_link_local()
        || ip.is_unique_local()
        || ip.is_multicast())
}

/// Whether any node of the internet can dial `address` directly.
pub fn is_public(address: &Multiaddr) -> bool {
    !is_circuit(address) && ip(address).is_some_and(is_public_ip)
}

/// Whether `address` leads through a relay.
pub fn is_circuit(address: &Multiaddr) -> bool {
    address.iter().any(|part| part == Protocol::P2pCircuit)
}

/// Whether `address` leads through a relay to a relay, which none passes on.
fn is_nested(address: &Multiaddr) -> bool {
    address
        .iter()
        .filter(|part| *part == Protocol::P2pCircuit)
        .count()
        > 1
}

/// QUIC at this endpoint.
pub fn quic(endpoint: SocketAddrV4) -> Multiaddr {
    Multiaddr::from(*endpoint.ip())
        .with(Protocol::Udp(endpoint.port()))
        .with(Protocol::QuicV1)
}

/// Whether `address` is one of QUIC, so that a hole punched for it serves raw datagrams too.
pub fn is_quic(address: &Multiaddr) -> bool {
    address.iter().any(|part| part == Protocol::QuicV1) && !is_circuit(address)
}

/// The relay that a circuit address leads through.
pub fn relay(address: &Multiaddr) -> Option<PeerId> {
    let mut relay = None;
    for part in address.iter() {
        if let Protocol::P2p(peer) = part {
            relay = Some(peer);
        } else if part == Protocol::P2pCircuit {
            return relay;
        }
    }
    None
}

/// `address` without the peer ids and whatever else follows the transport.
pub fn transport(address: &Multiaddr) -> Multiaddr {
    address
        .iter()
        .take_while(|part| !matches!(part, Protocol::P2p(_) | Protocol::P2pCircuit))
        .collect()
}

/// The circuit address under which `relay`, itself reached by `address`, passes connections on.
pub fn circuit(address: &Multiaddr, relay: PeerId) -> Multiaddr {
    transport(address)
        .with(Protocol::P2p(relay))
        .with(Protocol::P2pCircuit)
}

/// How a connection gets to its peer; none for a transport we do not speak.
pub fn link(endpoint: &ConnectedPoint) -> Option<Link> {
    let (remote, relayed) = match endpoint {
        ConnectedPoint::Dialer { address, .. } => (address, address),
        // The far end of a circuit is named by its peer id only; the relay stands in our own address.
        ConnectedPoint::Listener {
            local_addr,
            send_back_addr,
        } => (send_back_addr, local_addr),
    };
    if let Some(relay) = relay(relayed) {
        return Some(Link::Relayed { relay });
    }
    let ip = ip(remote)?;
    let mut parts = remote.iter().skip(1);
    match (parts.next()?, parts.next()) {
        (Protocol::Udp(port), Some(Protocol::QuicV1)) => {
            Some(Link::Quic(SocketAddr::new(ip, port)))
        }
        (Protocol::Tcp(port), _) => Some(Link::Tcp(SocketAddr::new(ip, port))),
        _ => None,
    }
}

/// Whether to tell others about our address `address`: not when it only makes sense on this machine or this wire.
pub fn worth_announcing(address: &Multiaddr) -> bool {
    match ip(address) {
        Some(IpAddr::V4(ip)) => !(ip.is_loopback() || ip.is_link_local() || ip.is_unspecified()),
        Some(IpAddr::V6(ip)) => {
            !(ip.is_loopback() || ip.is_unicast_link_local() || ip.is_unspecified())
        }
        None => false,
    }
}

/// Whether to believe that `address`, announced by a peer whom we reach at `seen_at`, leads to that peer:
/// everybody has a loopback address, so it means something only between nodes of one machine.
pub fn worth_dialing(address: &Multiaddr, seen_at: &Link) -> bool {
    let same_machine = seen_at
        .endpoint()
        .is_some_and(|endpoint| endpoint.ip().is_loopback());
    worth_announcing(address) || (same_machine && ip(address).is_some_and(|ip| ip.is_loopback()))
}

/// The addresses of this node, by what they are good for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Addresses {
    /// Of our interfaces: for nodes of the same site, or for everybody if public.
    pub listen: Vec<Multiaddr>,
    /// Known to reach us from anywhere: configured, or a public listen address.
    pub external: Vec<Multiaddr>,
    /// What members and relays see us as: good for a hole punch, and for NATs that filter nothing.
    pub observed: Vec<Multiaddr>,
    /// What our router forwards to us, as it says: it may be right.
    pub mapped: Vec<Multiaddr>,
    /// Circuits through relays that hold a reservation for us.
    pub relayed: Vec<Multiaddr>,
}

impl Addresses {
    /// Sorts what the swarm listens on and what it believes to be external.
    pub fn new<'a>(
        listen: impl Iterator<Item = &'a Multiaddr>,
        external: impl Iterator<Item = &'a Multiaddr>,
        observed: impl Iterator<Item = &'a Multiaddr>,
        mapped: Option<SocketAddrV4>,
    ) -> Self {
        // Sets: an address may be reported twice, and an order that jumps about would look like a change.
        let (relayed, listen): (BTreeSet<_>, BTreeSet<_>) = listen
            .filter(|address| !is_nested(address))
            .cloned()
            .partition(is_circuit);
        let external: BTreeSet<_> = external.filter(|a| !is_circuit(a)).cloned().collect();
        let observed: BTreeSet<_> = observed
            .filter(|address| !listen.contains(address) && !external.contains(address))
            .cloned()
            .collect();
        Self {
            listen: listen.into_iter().filter(worth_announcing).collect(),
            external: external.into_iter().collect(),
            observed: observed.into_iter().collect(),
            mapped: mapped.map(quic).into_iter().collect(),
            relayed: relayed.into_iter().collect(),
        }
    }

    /// Whether any node of the internet can dial us without help, as far as our own interfaces and the configuration
    /// tell.
    pub fn has_public(&self) -> bool {
        !self.external.is_empty() || self.listen.iter().any(is_public)
    }
}

/// The address ranges of the overlay, known once the network is. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Overlay(Arc<RwLock<Vec<IpNet>>>);

impl Overlay {
    /// Replaces the ranges.
    pub fn set(&self, ranges: Vec<IpNet>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = ranges;
    }

    /// Adds what is not among the ranges yet.
    pub fn add(&self, ranges: impl IntoIterator<Item = IpNet>) {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for range in ranges {
            if !known.contains(&range) {
                known.push(range);
            }
        }
    }

    /// Whether `address` begins with an address of the overlay.
    pub fn contains(&self, address: &Multiaddr) -> bool {
        let Some(ip) = ip(address) else { return false };
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .any(|range| range.contains(&ip))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RELAY: &str = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";

    fn address(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    fn dialed(text: &str) -> ConnectedPoint {
        ConnectedPoint::Dialer {
            address: address(text),
            role_override: libp2p::core::Endpoint::Dialer,
            port_use: libp2p::core::transport::PortUse::Reuse,
        }
    }

    #[test]
    fn addresses_behind_a_nat_are_not_public() {
        for ip in [
            "10.0.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "100.64.0.1",
            "127.0.0.1",
            "169.254.1.1",
            "0.0.0.0",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "fd00::1",
            "ff02::1",
            "::ffff:192.168.1.1",
        ] {
            assert!(!is_public_ip(ip.parse().unwrap()), "{ip}");
        }
    }

    #[test]
    fn the_internet_and_its_stand_ins_are_public() {
        for ip in [
            "1.1.1.1",
            "100.63.0.1",
            "100.128.0.1",
            "172.32.0.1",
            "203.0.113.7",
            "198.51.100.1",
            "192.0.2.1",
            "2001:db8::1",
            "2606:4700::1111",
            "::ffff:1.1.1.1",
        ] {
            assert!(is_public_ip(ip.parse().unwrap()), "{ip}");
        }
    }

    #[test]
    fn a_link_is_named_after_its_transport() {
        let quic = dialed("/ip4/1.2.3.4/udp/5/quic-v1");
        assert_eq!(link(&quic), Some(Link::Quic("1.2.3.4:5".parse().unwrap())));
        let tcp = dialed(&format!("/ip6/2001:db8::1/tcp/5/p2p/{RELAY}"));
        assert_eq!(
            link(&tcp),
            Some(Link::Tcp("[2001:db8::1]:5".parse().unwrap()))
        );
        assert_eq!(link(&dialed("/ip4/1.2.3.4/udp/5")), None);
        assert_eq!(link(&dialed("/dns4/example.org/tcp/1")), None);
    }

    #[test]
    fn both_ends_of_a_circuit_name_the_relay() {
        let relay: PeerId = RELAY.parse().unwrap();
        let circuit = format!("/ip4/1.2.3.4/tcp/5/p2p/{RELAY}/p2p-circuit");
        let far = PeerId::random();
        let inbound = ConnectedPoint::Listener {
            local_addr: address(&circuit),
            send_back_addr: Multiaddr::empty().with(Protocol::P2p(far)),
        };
        assert_eq!(link(&inbound), Some(Link::Relayed { relay }));
        let outbound = dialed(&format!("{circuit}/p2p/{far}"));
        assert_eq!(link(&outbound), Some(Link::Relayed { relay }));
    }

    #[test]
    fn a_circuit_without_its_relay_is_no_link() {
        assert_eq!(link(&dialed("/p2p-circuit")), None);
    }

    #[test]
    fn a_circuit_address_replaces_whatever_followed_the_transport() {
        let relay: PeerId = RELAY.parse().unwrap();
        let known = address(&format!("/ip4/1.2.3.4/tcp/5/p2p/{RELAY}"));
        let expected = address(&format!("/ip4/1.2.3.4/tcp/5/p2p/{RELAY}/p2p-circuit"));
        assert_eq!(circuit(&known, relay), expected);
        assert_eq!(circuit(&expected, relay), expected);
    }

    #[test]
    fn loopback_means_something_only_on_the_same_machine() {
        let loopback = address("/ip4/127.0.0.1/tcp/1");
        assert!(worth_dialing(
            &loopback,
            &Link::Tcp("127.0.0.1:9".parse().unwrap())
        ));
        assert!(!worth_dialing(
            &loopback,
            &Link::Tcp("192.168.1.9:9".parse().unwrap())
        ));
    }

    #[test]
    fn our_addresses_are_sorted_by_what_they_are_good_for() {
        let listen = [
            address("/ip4/127.0.0.1/tcp/1"),
            address("/ip4/192.168.1.2/tcp/1"),
            address(&format!("/ip4/203.0.113.1/tcp/1/p2p/{RELAY}/p2p-circuit")),
        ];
        let observed = [address("/ip4/203.0.113.9/tcp/77"), listen[1].clone()];
        let ours = Addresses::new(listen.iter(), [].iter(), observed.iter(), None);
        assert_eq!(ours.listen, [listen[1].clone()]);
        assert_eq!(ours.relayed, [listen[2].clone()]);
        assert_eq!(ours.observed, [observed[0].clone()]);
        assert!(!ours.has_public(), "a relay's address is not ours");
    }

    #[test]
    fn a_circuit_to_a_relay_is_no_way_to_us() {
        let circuit = format!("/ip4/203.0.113.1/tcp/1/p2p/{RELAY}/p2p-circuit");
        let nested = format!("{circuit}/p2p/{}/p2p-circuit", PeerId::random());
        let listen = [address(&circuit), address(&nested)];
        let ours = Addresses::new(listen.iter(), [].iter(), [].iter(), None);
        assert_eq!(ours.relayed, listen[..1]);
    }

    #[test]
    fn what_a_router_says_makes_nobody_public() {
        let external = "203.0.113.9:7777".parse().unwrap();
        let none = || [].iter();
        let ours = Addresses::new(none(), none(), none(), Some(external));
        assert_eq!(ours.mapped, [address("/ip4/203.0.113.9/udp/7777/quic-v1")]);
        assert!(!ours.has_public());
    }

    #[test]
    fn overlay_addresses_are_recognised_once_the_network_is_known() {
        let overlay = Overlay::default();
        let inside = address("/ip4/10.77.0.4/tcp/1");
        assert!(!overlay.contains(&inside));
        overlay.set(vec!["10.77.0.0/16".parse().unwrap()]);
        assert!(overlay.contains(&inside));
        assert!(!overlay.contains(&address("/ip4/10.78.0.4/tcp/1")));
    }
}
