//! Where a connection comes from, as far as a stranger cannot choose it freely.
//!
//! Peer ids cost nothing and ports neither. Whoever comes directly is counted by the address that he shows to
//! receive at, whoever comes over a circuit by the relay that let him in.

use std::net::{IpAddr, Ipv4Addr};

use libp2p::{Multiaddr, PeerId};

use super::addresses;

/// Customers get an IPv6 prefix of this length, so they choose the rest of their addresses.
const IPV6_PREFIX: u32 = 56;

/// Who is held liable for a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// An address; several machines behind one NAT share it.
    Ipv4(Ipv4Addr),
    /// The first 56 bits of an address.
    Ipv6(u64),
    /// A relay.
    Relay(PeerId),
    /// A transport that we do not speak.
    Unknown,
}

impl Source {
    /// Of a connection that came to `local` from `remote`.
    pub fn new(local: &Multiaddr, remote: &Multiaddr) -> Self {
        if let Some(relay) = addresses::relay(local) {
            return Source::Relay(relay);
        }
        addresses::ip(remote).map_or(Source::Unknown, Source::from)
    }
}

impl From<IpAddr> for Source {
    fn from(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(ip) => Source::Ipv4(ip),
            IpAddr::V6(ip) => Source::Ipv6((ip.to_bits() >> (128 - IPV6_PREFIX)) as u64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(local: &str, remote: &str) -> Source {
        Source::new(&local.parse().unwrap(), &remote.parse().unwrap())
    }

    #[test]
    fn neither_ports_nor_the_rest_of_a_prefix_make_another_source() {
        let local = "/ip4/203.0.113.1/tcp/7777";
        assert_eq!(
            source(local, "/ip4/198.51.100.1/tcp/1"),
            source(local, "/ip4/198.51.100.1/udp/2/quic-v1")
        );
        assert_ne!(
            source(local, "/ip4/198.51.100.1/tcp/1"),
            source(local, "/ip4/198.51.100.2/tcp/1")
        );
        let six = "/ip6/2001:db8::1/tcp/7777";
        assert_eq!(
            source(six, "/ip6/2001:db8:1:1ff::1/tcp/1"),
            source(six, "/ip6/2001:db8:1:100:ffff::2/tcp/2")
        );
        assert_ne!(
            source(six, "/ip6/2001:db8:1:1ff::1/tcp/1"),
            source(six, "/ip6/2001:db8:1:200::1/tcp/1")
        );
        assert_eq!(
            source(six, "/ip6/::ffff:198.51.100.1/tcp/1"),
            source(local, "/ip4/198.51.100.1/tcp/1")
        );
    }

    #[test]
    fn whoever_comes_over_a_circuit_comes_from_its_relay() {
        let (relay, one, other) = (PeerId::random(), PeerId::random(), PeerId::random());
        let local = format!("/ip4/203.0.113.1/udp/1/quic-v1/p2p/{relay}/p2p-circuit");
        for peer in [one, other] {
            let came = source(&local, &format!("/p2p/{peer}"));
            assert_eq!(came, Source::Relay(relay));
        }
    }
}
