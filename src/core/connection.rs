//! What the core knows of a libp2p connection: a number, who is at the other end, and how it gets there.
//!
//! Connections carry control messages and, on their carrier stream, datagrams of peers that raw UDP
//! does not reach. The shell opens and closes them; the core decides which are wanted.

use std::net::{IpAddr, SocketAddr};

use libp2p_core::{Multiaddr, multiaddr::Protocol};
use libp2p_identity::PeerId;

/// Names one libp2p connection for as long as this process lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// How a connection reaches its peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// QUIC on the shared UDP socket: raw WireGuard datagrams to the same endpoint go through the same hole.
    Quic(SocketAddr),
    /// A direct TCP connection.
    Tcp(SocketAddr),
    /// A circuit through another member.
    Relayed {
        /// The member that carries it.
        relay: PeerId,
    },
}

impl Link {
    /// Whether no third node carries the bytes.
    pub fn is_direct(&self) -> bool {
        self.endpoint().is_some()
    }

    /// The underlay address at the other end; none through a relay.
    pub fn endpoint(&self) -> Option<SocketAddr> {
        match self {
            Link::Quic(endpoint) | Link::Tcp(endpoint) => Some(*endpoint),
            Link::Relayed { .. } => None,
        }
    }
}

/// The UDP endpoint of a QUIC address that leads through no relay.
pub fn quic_endpoint(address: &Multiaddr) -> Option<SocketAddr> {
    let mut parts = address.iter();
    let host = parts.next()?;
    let ip = if let Protocol::Ip4(ip) = host {
        IpAddr::from(ip)
    } else if let Protocol::Ip6(ip) = host {
        IpAddr::from(ip)
    } else {
        return None;
    };
    let (Protocol::Udp(port), Protocol::QuicV1) = (parts.next()?, parts.next()?) else {
        return None;
    };
    let is_direct = !parts.any(|part| part == Protocol::P2pCircuit);
    is_direct.then_some(SocketAddr::new(ip, port))
}
