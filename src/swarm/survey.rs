//! What the swarm knows of the underlay, for commands that explain it.

use hivevpn_core::connection::Link;
use libp2p::{Multiaddr, multiaddr::Protocol};
use std::net::SocketAddr;
use tokio::sync::oneshot;

use super::{Swarm, addresses};
use crate::control::{self, Observation, Reply, Transport, Underlay};

impl Swarm {
    /// Completes what the data loop has begun.
    pub(super) fn survey(&self, mut underlay: Underlay, answer: oneshot::Sender<Reply>) {
        for connection in self.connections.values().filter(|c| c.authenticated) {
            let (transport, endpoint) = match connection.link {
                Link::Quic(endpoint) => (Transport::Quic, Some(endpoint)),
                Link::Tcp(endpoint) => (Transport::Tcp, Some(endpoint)),
                Link::Relayed { .. } => (Transport::Relay, None),
            };
            let peer_id = connection.peer.to_string();
            if let (Link::Quic(from), Some(identified)) = (connection.link, &connection.identified)
                && let Some(endpoint) = udp_endpoint(&identified.observed_addr)
            {
                underlay.observations.push(Observation {
                    peer_id: peer_id.clone(),
                    from,
                    endpoint,
                });
            }
            underlay.connections.push(control::Connection {
                peer_id,
                transport,
                endpoint,
            });
        }
        let reserved = self.reservations.held();
        underlay.reservations = reserved.map(|relay| relay.to_string()).collect();
        // Whoever asked may have gone.
        let _ = answer.send(Reply::of(&underlay));
    }
}

fn udp_endpoint(address: &Multiaddr) -> Option<SocketAddr> {
    let ip = addresses::ip(address)?;
    match address.iter().nth(1)? {
        Protocol::Udp(port) => Some(SocketAddr::new(ip, port)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_udp_tell_of_its_mappings() {
        let endpoint = |text: &str| udp_endpoint(&text.parse().unwrap());
        assert_eq!(
            endpoint("/ip4/203.0.113.9/udp/1234/quic-v1"),
            Some("203.0.113.9:1234".parse().unwrap())
        );
        assert_eq!(endpoint("/ip4/203.0.113.9/tcp/1234"), None);
        assert_eq!(endpoint("/dns4/example.org/udp/1/quic-v1"), None);
    }
}
