//! Being a relay: libp2p's, with our rules about whom it serves, and how much.

use std::{
    collections::HashMap,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    relay,
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
        THandlerOutEvent, ToSwarm,
    },
};

use super::Guests;
use crate::swarm::{gate::Members, source::Source};

/// Circuits a stranger may open within [`STRANGER_INTERVAL`]: enough to redeem an invite with some retries.
const STRANGER_CIRCUITS: u32 = 6;
const STRANGER_INTERVAL: Duration = Duration::from_secs(60);

/// Circuits that strangers from one source may open within [`STRANGER_INTERVAL`].
const SOURCE_CIRCUITS: u32 = 15;

/// Circuits that all strangers together may open within [`STRANGER_INTERVAL`]; peer ids are free to make.
const ALL_STRANGERS_CIRCUITS: u32 = 60;

/// What a relay carries at once. For members these are only a bound on memory: a network of a thousand nodes
/// behind NATs fits on one relay.
const MAX_RESERVATIONS: usize = 2048;
const MAX_CIRCUITS: usize = 4096;
const MAX_CIRCUITS_PER_PEER: usize = 256;

/// libp2p's relay, within our bounds.
///
/// Connections over circuits are kept from it: it has nothing to do with them, and version 0.22 tells a changed status to
/// each connection it knows, those over circuits included, whose handler takes no events and panics.
pub struct Server(relay::Behaviour);

impl Server {
    /// The relaying half of node `local`. It starts disabled.
    ///
    /// Whoever is no guest gets no reservation. Circuits need no check of their own: they end at who has one.
    pub fn new(local: PeerId, members: Members, guests: Guests, reservation: Duration) -> Self {
        let mut server = relay::Behaviour::new(local, config(members, guests, reservation));
        server.set_status(Some(relay::Status::Disable));
        Self(server)
    }

    /// Offers to relay, or stops to.
    pub fn set_relaying(&mut self, relaying: bool) {
        let status = if relaying {
            relay::Status::Enable
        } else {
            relay::Status::Disable
        };
        self.0.set_status(Some(status));
    }
}

impl NetworkBehaviour for Server {
    type ConnectionHandler = THandler<relay::Behaviour>;
    type ToSwarm = relay::Event;

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.0
            .handle_established_inbound_connection(id, peer, local, remote)
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port_use: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.0
            .handle_established_outbound_connection(id, peer, address, role, port_use)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        let is_over_a_circuit = if let FromSwarm::ConnectionEstablished(opened) = event {
            opened.endpoint.is_relayed()
        } else if let FromSwarm::ConnectionClosed(closed) = event {
            closed.endpoint.is_relayed()
        } else {
            false
        };
        if !is_over_a_circuit {
            self.0.on_swarm_event(event);
        }
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        self.0.on_connection_handler_event(peer, connection, event);
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        self.0.poll(cx)
    }
}

fn config(members: Members, guests: Guests, reservation: Duration) -> relay::Config {
    let mut strangers = Strangers::default();
    let reserving = members.clone();
    relay::Config {
        max_reservations: MAX_RESERVATIONS,
        max_reservations_per_peer: 4,
        reservation_duration: reservation,
        reservation_rate_limiters: vec![Box::new(
            move |peer: PeerId, _: &Multiaddr, _: Instant| {
                reserving.contains(&peer) && guests.contains(&peer)
            },
        )],
        max_circuits: MAX_CIRCUITS,
        max_circuits_per_peer: MAX_CIRCUITS_PER_PEER,
        // A tunnel lives as long as its nodes. Zero bytes means no limit; the duration cannot be zero.
        max_circuit_duration: Duration::from_secs(u32::MAX.into()),
        max_circuit_bytes: 0,
        circuit_src_rate_limiters: vec![Box::new(
            move |peer: PeerId, address: &Multiaddr, now: Instant| {
                members.contains(&peer)
                    || strangers.admit(peer, Source::new(&Multiaddr::empty(), address), now)
            },
        )],
    }
}

/// How many circuits strangers opened in the current interval.
#[derive(Default)]
struct Strangers {
    since: Option<Instant>,
    total: u32,
    each: HashMap<PeerId, u32>,
    of_source: HashMap<Source, u32>,
}

impl Strangers {
    fn admit(&mut self, peer: PeerId, source: Source, now: Instant) -> bool {
        let over = self
            .since
            .is_none_or(|since| now.saturating_duration_since(since) >= STRANGER_INTERVAL);
        if over {
            self.since = Some(now);
            self.total = 0;
            self.each.clear();
            self.of_source.clear();
        }
        let is_greedy = self.each.get(&peer) == Some(&STRANGER_CIRCUITS)
            || self.of_source.get(&source) == Some(&SOURCE_CIRCUITS);
        if is_greedy || self.total == ALL_STRANGERS_CIRCUITS {
            return false;
        }
        *self.each.entry(peer).or_default() += 1;
        *self.of_source.entry(source).or_default() += 1;
        self.total += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use futures::task::noop_waker;
    use libp2p::{core::ConnectedPoint, swarm::behaviour::ConnectionEstablished};

    use super::*;

    fn opened(server: &mut Server, address: &str, number: usize) {
        let endpoint = ConnectedPoint::Dialer {
            address: address.parse().unwrap(),
            role_override: Endpoint::Dialer,
            port_use: PortUse::Reuse,
        };
        server.on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
            peer_id: PeerId::random(),
            connection_id: ConnectionId::new_unchecked(number),
            endpoint: &endpoint,
            failed_addresses: &[],
            other_established: 0,
        }));
    }

    fn notified(server: &mut Server) -> usize {
        let waker = noop_waker();
        let mut cx = Context::from_waker(&waker);
        std::iter::from_fn(|| match server.poll(&mut cx) {
            Poll::Ready(event) => Some(event),
            Poll::Pending => None,
        })
        .filter(|event| matches!(event, ToSwarm::NotifyHandler { .. }))
        .count()
    }

    /// Whoever holds a circuit to a relay whose addresses change would end its swarm.
    #[test]
    fn a_changed_mind_is_told_to_direct_connections_alone() {
        let hour = Duration::from_secs(3600);
        let (members, guests) = (Members::default(), Guests::default());
        let mut server = Server::new(PeerId::random(), members, guests, hour);
        let relay = PeerId::random();
        opened(&mut server, "/ip4/203.0.113.1/udp/1/quic-v1", 1);
        let circuit = format!("/ip4/203.0.113.1/udp/1/quic-v1/p2p/{relay}/p2p-circuit");
        opened(&mut server, &circuit, 2);
        server.set_relaying(true);
        assert_eq!(notified(&mut server), 1);
    }

    fn source(number: u32) -> Source {
        Source::Ipv4(number.into())
    }

    #[test]
    fn a_stranger_gets_a_few_circuits_and_then_waits() {
        let mut strangers = Strangers::default();
        let (peer, start) = (PeerId::random(), Instant::now());
        for _ in 0..STRANGER_CIRCUITS {
            assert!(strangers.admit(peer, source(1), start));
        }
        assert!(!strangers.admit(peer, source(1), start));
        assert!(
            strangers.admit(PeerId::random(), source(1), start),
            "others are not held liable"
        );
        assert!(strangers.admit(peer, source(1), start + STRANGER_INTERVAL));
    }

    #[test]
    fn a_stranger_of_many_names_does_not_take_what_others_get() {
        let mut strangers = Strangers::default();
        let start = Instant::now();
        let admitted = (0..1000).filter(|_| strangers.admit(PeerId::random(), source(1), start));
        assert_eq!(admitted.count() as u32, SOURCE_CIRCUITS);
        assert!(strangers.admit(PeerId::random(), source(2), start));
    }

    #[test]
    fn many_strangers_together_do_not_take_more() {
        let mut strangers = Strangers::default();
        let start = Instant::now();
        let admitted = (0..1000).filter(|n| strangers.admit(PeerId::random(), source(*n), start));
        assert_eq!(admitted.count() as u32, ALL_STRANGERS_CIRCUITS);
        assert!(strangers.each.len() as u32 <= ALL_STRANGERS_CIRCUITS);
    }
}
