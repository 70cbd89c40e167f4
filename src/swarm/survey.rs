//! What the swarm knows of the underlay, for commands that explain it.

use hivevpn_core::connection::{Link, quic_endpoint};
use tokio::sync::oneshot;

use super::Swarm;
use crate::control::{self, Observation, Reply, Transport, Underlay};

impl Swarm {
    /// Completes what the data loop has begun.
    pub(super) fn survey(&self, mut underlay: Underlay, answer: oneshot::Sender<Reply>) {
        let mut connected = Vec::new();
        for connection in self.connections.values().filter(|c| c.authenticated) {
            let transport = match connection.link {
                Link::Quic(_) => Transport::Quic,
                Link::Tcp(_) => Transport::Tcp,
                Link::Relayed { .. } => Transport::Relay,
            };
            let peer_id = connection.peer.to_string();
            if let (Link::Quic(from), Some(identified)) = (connection.link, &connection.identified)
                && let Some(endpoint) = quic_endpoint(&identified.observed_addr)
            {
                let peer_id = peer_id.clone();
                connected.push(Observation {
                    peer_id,
                    from,
                    endpoint,
                });
            }
            underlay.connections.push(control::Connection {
                peer_id,
                transport,
                endpoint: connection.link.endpoint(),
            });
        }
        // What tunnels tell is of now; what a connection tells is of when it began.
        let told = std::mem::take(&mut underlay.observations);
        let is_told = |seen: &Observation| {
            let mut told = told.iter();
            told.any(|told| {
                told.peer_id == seen.peer_id && told.endpoint.is_ipv4() == seen.endpoint.is_ipv4()
            })
        };
        connected.retain(|seen| !is_told(seen));
        underlay.observations = [connected, told].concat();
        let reserved = self.reservations.held();
        underlay.reservations = reserved.map(|relay| relay.to_string()).collect();
        // Whoever asked may have gone.
        let _ = answer.send(Reply::of(&underlay));
    }
}
