//! What others see us as, told to the hole puncher as it is.
//!
//! identify tells that, but replaces a port that is none of our listen ports by one that is. Behind a NAT that
//! maps ports, which is most of them, the hole puncher then offers an address that leads nowhere. So the raw
//! observation is offered as well.

use std::{
    collections::{HashMap, VecDeque},
    convert::Infallible,
    task::{Context, Poll},
};

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandlerInEvent,
        THandlerOutEvent, ToSwarm, dummy,
    },
};

/// Offers observations as candidates for our external addresses.
#[derive(Default)]
pub struct Candidates {
    observed: HashMap<ConnectionId, Multiaddr>,
    pending: VecDeque<Multiaddr>,
}

impl Candidates {
    /// The trusted peer on `connection`, a direct one, sees us as `address`.
    pub fn observe(&mut self, connection: ConnectionId, address: &Multiaddr) {
        let before = self.observed.insert(connection, address.clone());
        if before.as_ref() != Some(address) {
            self.pending.push_back(address.clone());
        }
    }

    /// What we are seen as on the connections that are open.
    pub fn observed(&self) -> impl Iterator<Item = &Multiaddr> {
        self.observed.values()
    }
}

impl NetworkBehaviour for Candidates {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<dummy::ConnectionHandler, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<dummy::ConnectionHandler, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        if let FromSwarm::ConnectionClosed(closed) = event {
            self.observed.remove(&closed.connection_id);
        }
    }

    fn on_connection_handler_event(
        &mut self,
        _: PeerId,
        _: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        match self.pending.pop_front() {
            Some(address) => Poll::Ready(ToSwarm::NewExternalAddrCandidate(address)),
            None => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_observation_is_offered_once() {
        let mut candidates = Candidates::default();
        let address: Multiaddr = "/ip4/203.0.113.1/udp/4321/quic-v1".parse().unwrap();
        let connection = ConnectionId::new_unchecked(1);
        candidates.observe(connection, &address);
        candidates.observe(connection, &address);
        assert_eq!(candidates.pending, std::slice::from_ref(&address));
        assert_eq!(candidates.observed().collect::<Vec<_>>(), [&address]);
    }
}
