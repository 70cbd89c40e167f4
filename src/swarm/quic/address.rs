//! Between `/ip4/203.0.113.7/udp/51820/quic-v1` and a socket address.

use std::net::{IpAddr, SocketAddr};

use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};

/// What a QUIC multiaddress says: where, and who is expected there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct QuicAddress {
    pub(super) socket: SocketAddr,
    pub(super) peer: Option<PeerId>,
}

impl QuicAddress {
    /// `None` unless `address` is exactly `/ip{4,6}/…/udp/…/quic-v1[/p2p/…]`.
    ///
    /// Anything longer, a circuit through that endpoint for one, belongs to another transport.
    pub(super) fn parse(address: &Multiaddr) -> Option<Self> {
        let mut parts = address.iter();
        let first = parts.next()?;
        let ip = if let Protocol::Ip4(ip) = first {
            IpAddr::from(ip)
        } else if let Protocol::Ip6(ip) = first {
            IpAddr::from(ip)
        } else {
            return None;
        };
        let Protocol::Udp(port) = parts.next()? else {
            return None;
        };
        let Protocol::QuicV1 = parts.next()? else {
            return None;
        };
        let peer = match parts.next() {
            None => None,
            Some(Protocol::P2p(peer)) => Some(peer),
            Some(_) => return None,
        };
        parts.next().is_none().then_some(Self {
            socket: SocketAddr::new(ip, port),
            peer,
        })
    }
}

/// `/ip…/udp/…/quic-v1` for an endpoint.
pub(super) fn multiaddr(endpoint: SocketAddr) -> Multiaddr {
    Multiaddr::from(endpoint.ip())
        .with(Protocol::Udp(endpoint.port()))
        .with(Protocol::QuicV1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Option<QuicAddress> {
        QuicAddress::parse(&text.parse().unwrap())
    }

    #[test]
    fn an_endpoint_survives_the_way_to_a_multiaddress_and_back() {
        for endpoint in ["192.0.2.1:51820", "[2001:db8::1]:1"] {
            let endpoint: SocketAddr = endpoint.parse().unwrap();
            let parsed = QuicAddress::parse(&multiaddr(endpoint)).unwrap();
            assert_eq!((parsed.socket, parsed.peer), (endpoint, None));
        }
    }

    #[test]
    fn a_peer_id_at_the_end_is_whom_we_expect() {
        let peer = PeerId::random();
        let address = parse(&format!("/ip4/192.0.2.1/udp/7/quic-v1/p2p/{peer}")).unwrap();
        assert_eq!(address.peer, Some(peer));
    }

    #[test]
    fn addresses_of_other_transports_are_left_to_them() {
        let relay = PeerId::random();
        for other in [
            "/ip4/192.0.2.1/tcp/7".to_owned(),
            "/ip4/192.0.2.1/udp/7".to_owned(),
            "/ip4/192.0.2.1/udp/7/quic".to_owned(),
            "/dns4/example.org/udp/7/quic-v1".to_owned(),
            "/ip4/192.0.2.1/udp/7/quic-v1/webtransport".to_owned(),
            format!("/ip4/192.0.2.1/udp/7/quic-v1/p2p/{relay}/p2p-circuit"),
        ] {
            assert_eq!(parse(&other), None, "{other}");
        }
    }
}
