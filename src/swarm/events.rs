//! From libp2p to the data loop.

use std::{collections::BTreeMap, time::Instant};

use hivevpn_core::{
    connection::{ConnectionId, Link},
    membership::{JoinAnswer, JoinRefusal},
};
use hivevpn_platform::addresses::local_addresses;
use libp2p::{
    Multiaddr, PeerId,
    core::ConnectedPoint,
    identify, mdns, ping, relay, request_response,
    swarm::{self, DialError, ExternalAddrExpired, FromSwarm, NetworkBehaviour, SwarmEvent},
};

use super::{
    BehaviourEvent, Connection, Event, Protocol, Swarm, addresses, behaviour::MemberProtocolsEvent,
    gate, numbers,
};

/// Addresses of one peer that the DHT learns at once; more than any honest node has.
const MAX_ADDRESSES: usize = 32;

pub(super) type Requested = request_response::Event<Vec<u8>, Vec<u8>>;

impl Swarm {
    pub(super) fn on_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(event) => self.on_behaviour(event),
            SwarmEvent::ConnectionEstablished {
                peer_id,
                connection_id,
                endpoint,
                ..
            } => self.on_opened(connection_id, peer_id, &endpoint),
            SwarmEvent::ConnectionClosed {
                peer_id,
                connection_id,
                cause,
                ..
            } => self.on_closed(connection_id, peer_id, cause),
            SwarmEvent::OutgoingConnectionError {
                connection_id,
                peer_id,
                error,
            } => self.on_dial_failed(connection_id, peer_id, &error),
            SwarmEvent::NewListenAddr { address, .. } => {
                if addresses::is_public(&address) {
                    self.inner.add_external_address(address);
                }
                self.addresses_changed = true;
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => self.on_expired(&[address]),
            SwarmEvent::ListenerClosed {
                listener_id,
                addresses,
                reason,
            } => {
                if let Err(error) = reason {
                    tracing::debug!(?addresses, "a listener closed: {error}");
                }
                self.reservations
                    .on_listener_closed(listener_id, Instant::now());
                self.on_expired(&addresses);
            }
            SwarmEvent::ListenerError { error, .. } => {
                tracing::warn!("a listener has a problem: {error}");
            }
            SwarmEvent::ExternalAddrConfirmed { address } => {
                if addresses::is_circuit(&address) {
                    self.keep_from_relaying(&address);
                }
                self.addresses_changed = true;
            }
            SwarmEvent::ExternalAddrExpired { .. }
            | SwarmEvent::NewExternalAddrCandidate { .. } => self.addresses_changed = true,
            SwarmEvent::IncomingConnectionError {
                send_back_addr,
                error,
                ..
            } => tracing::debug!(from = %send_back_addr, "an incoming connection failed: {error}"),
            SwarmEvent::Dialing {
                peer_id: Some(peer),
                ..
            } => self.reachability.on_call(peer, Instant::now()),
            SwarmEvent::IncomingConnection { .. }
            | SwarmEvent::Dialing { peer_id: None, .. }
            | SwarmEvent::NewExternalAddrOfPeer { .. } => {}
            _ => {}
        }
    }

    /// A reservation of ours is none that a relay could give on to those who reserve with us.
    fn keep_from_relaying(&mut self, circuit: &Multiaddr) {
        let expired = FromSwarm::ExternalAddrExpired(ExternalAddrExpired { addr: circuit });
        let server = &mut self.inner.behaviour_mut().relay_server;
        server.on_swarm_event(expired);
    }

    fn on_behaviour(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Gate(event) => self.on_gate(event),
            BehaviourEvent::Join(event) => self.on_request(Protocol::Join, event),
            BehaviourEvent::Identify(event) => self.on_identify(event),
            BehaviourEvent::Mdns(mdns::Event::Discovered(found)) => self.on_discovered(found),
            BehaviourEvent::Mdns(mdns::Event::Expired(_)) => {}
            BehaviourEvent::RelayClient(event) => {
                if let relay::client::Event::ReservationReqAccepted { relay_peer_id, .. } = event {
                    self.reservations.on_reserved(relay_peer_id);
                }
            }
            BehaviourEvent::RelayServer(event) => tracing::trace!(?event, "relay"),
            BehaviourEvent::Ping(event) => self.on_ping(event),
            BehaviourEvent::Limits(never) | BehaviourEvent::Strangers(never) => {
                libp2p::core::util::unreachable(never)
            }
        }
    }

    fn on_ping(&mut self, event: ping::Event) {
        match event.result {
            Ok(rtt) => {
                if let Some(known) = self.connections.get_mut(&numbers::ours(event.connection)) {
                    known.rtt = Some(rtt);
                }
            }
            Err(ping::Failure::Unsupported) => {}
            // The second in a row. QUIC would notice by itself; TCP repeats what it has sent for a quarter of an hour, and
            // a reservation on it is held to be one for as long.
            Err(ping::Failure::Timeout | ping::Failure::Other { .. }) => {
                tracing::debug!(peer = %event.peer, "a connection that answers no ping is closed");
                self.inner.close_connection(event.connection);
            }
        }
    }

    fn on_opened(&mut self, id: swarm::ConnectionId, peer: PeerId, endpoint: &ConnectedPoint) {
        self.dials.remove(&id);
        let Some(link) = addresses::link(endpoint) else {
            tracing::warn!(%peer, ?endpoint, "a connection over an unknown transport is closed");
            self.inner.close_connection(id);
            return;
        };
        self.discoveries.on_settled(&peer);
        let connection = numbers::ours(id);
        let known = Connection {
            peer,
            link,
            authenticated: false,
            identified: None,
            rtt: None,
            would_prove: endpoint.is_listener() && self.would_prove(&peer, link),
        };
        self.connections.insert(connection, known);
        self.tell(Event::ConnectionOpened {
            connection,
            peer,
            link,
            dialed: endpoint.is_dialer(),
        });
    }

    /// Whether a connection that was opened to us shows that anybody could, if its peer is a member.
    fn would_prove(&self, peer: &PeerId, link: Link) -> bool {
        let Some(remote) = link.endpoint() else {
            return false;
        };
        if self.connections_to(peer).next().is_some() {
            return false;
        }
        let Ok(own) = local_addresses() else {
            return false;
        };
        let own: Vec<_> = own.into_iter().map(|(_, network)| network).collect();
        let now = Instant::now();
        self.reachability.would_prove(peer, remote.ip(), &own, now)
    }

    fn on_closed(
        &mut self,
        id: swarm::ConnectionId,
        peer: PeerId,
        cause: Option<swarm::ConnectionError>,
    ) {
        if let Some(cause) = cause {
            tracing::debug!(%peer, "a connection closed: {cause}");
        }
        let connection = numbers::ours(id);
        self.addresses_changed = true; // What the peer saw us as is gone as well.
        if self.connections.remove(&connection).is_some() {
            self.reachability.on_call(peer, Instant::now());
            self.tell(Event::ConnectionClosed { connection, peer });
        }
    }

    fn on_dial_failed(&mut self, id: swarm::ConnectionId, peer: Option<PeerId>, error: &DialError) {
        self.reservations.on_dial_failed(id, Instant::now());
        if let Some(peer) = &peer {
            self.discoveries.on_settled(peer);
        }
        if self.dials.remove(&id)
            && let Some(peer) = peer
        {
            let error = error.to_string();
            self.tell(Event::DialFailed { peer, error });
        }
    }

    fn on_expired(&mut self, addresses: &[Multiaddr]) {
        for address in addresses
            .iter()
            .filter(|address| addresses::is_public(address))
        {
            self.inner.remove_external_address(address);
        }
        self.addresses_changed = true;
    }

    fn on_gate(&mut self, event: gate::Event<MemberProtocolsEvent>) {
        match event {
            gate::Event::Credential {
                connection,
                peer,
                credential,
            } => self.tell(Event::Credential {
                connection: numbers::ours(connection),
                peer,
                credential,
            }),
            gate::Event::Authenticated { connection, peer } => {
                let connection = numbers::ours(connection);
                if let Some(known) = self.connections.get_mut(&connection) {
                    known.authenticated = true;
                    if known.would_prove {
                        self.reachability.on_proof();
                    }
                }
                self.tell(Event::Authenticated { connection, peer });
                self.learn_from(connection);
            }
            gate::Event::Refused { connection, peer } => self.tell(Event::RefusedByPeer {
                connection: numbers::ours(connection),
                peer,
            }),
            gate::Event::Moved {
                connection,
                endpoint,
            } => self.on_moved(numbers::ours(connection), &endpoint),
            gate::Event::Inner(MemberProtocolsEvent::Kad(event)) => self.on_kad(event),
            gate::Event::Inner(MemberProtocolsEvent::Sync(event)) => {
                self.on_request(Protocol::Sync, event);
            }
            gate::Event::Inner(MemberProtocolsEvent::Registry(event)) => {
                self.on_request(Protocol::Registry, event);
            }
            gate::Event::Inner(MemberProtocolsEvent::Bench(event)) => self.on_bench(event),
            gate::Event::Inner(MemberProtocolsEvent::Reflect(event)) => self.on_reflect(event),
            gate::Event::Inner(MemberProtocolsEvent::Admin(event)) => self.on_admin(event),
            gate::Event::Inner(MemberProtocolsEvent::Dcutr(event)) => match event.result {
                Ok(_) => tracing::debug!(peer = %event.remote_peer_id, "punched a hole"),
                Err(error) => tracing::debug!(peer = %event.remote_peer_id, "{error}"),
            },
            gate::Event::Inner(MemberProtocolsEvent::Carrier(never)) => {
                libp2p::core::util::unreachable(never)
            }
        }
    }

    fn on_moved(&mut self, connection: ConnectionId, endpoint: &ConnectedPoint) {
        let Some(link) = addresses::link(endpoint) else {
            return;
        };
        let Some(known) = self.connections.get_mut(&connection) else {
            return;
        };
        known.link = link;
        self.tell(Event::ConnectionMoved { connection, link });
    }

    fn on_identify(&mut self, event: identify::Event) {
        match event {
            identify::Event::Received {
                connection_id,
                info,
                ..
            } => {
                let connection = numbers::ours(connection_id);
                if let Some(known) = self.connections.get_mut(&connection) {
                    known.identified = Some(info);
                    self.learn_from(connection);
                }
            }
            identify::Event::Error { peer_id, error, .. } => {
                tracing::debug!(peer = %peer_id, "the peer did not identify itself: {error}");
            }
            // What is pushed is ours: it tells the peer's address, not what the peer sees us as.
            identify::Event::Sent { .. } | identify::Event::Pushed { .. } => {}
        }
    }

    /// Uses what a member says: where it listens, for the DHT, and what it sees us as, for hole punching. A
    /// stranger is not believed.
    fn learn_from(&mut self, connection: ConnectionId) {
        let Some(Connection {
            peer,
            link,
            authenticated: true,
            identified: Some(info),
            ..
        }) = self.connections.get(&connection)
        else {
            return;
        };
        let gate = &mut self.inner.behaviour_mut().gate;
        if link.is_direct() && !self.overlay.contains(&info.observed_addr) {
            // As it was seen: identify itself replaces a port that is none of our listen ports by one that is, and
            // behind a NAT that maps ports that leads nowhere.
            gate.offer_candidate(&info.observed_addr);
        }
        if let Some(kad) = gate.inner_mut().kad.as_mut()
            // Whoever keeps nothing for others has no place among those who are asked.
            && kad.protocol_names().iter().any(|ours| info.protocols.contains(ours))
        {
            let known = info.listen_addrs.iter();
            let usable = known.filter(|address| {
                addresses::worth_dialing(address, link) && !self.overlay.contains(address)
            });
            for address in usable.take(MAX_ADDRESSES) {
                kad.add_address(peer, address.clone());
            }
        }
        self.addresses_changed = true;
    }

    pub(super) fn on_request(&mut self, protocol: Protocol, event: Requested) {
        use request_response::{Event as Happened, Message};
        match event {
            Happened::Message {
                peer,
                connection_id,
                message:
                    Message::Request {
                        request_id,
                        request: body,
                        channel,
                    },
            } => {
                if protocol == Protocol::Join && !self.may_join(connection_id) {
                    let refusal = JoinAnswer::Refused(JoinRefusal::RateLimited).encode();
                    // Nobody waits for it any more, perhaps.
                    let join = &mut self.inner.behaviour_mut().join;
                    let _ = join.send_response(channel, refusal.to_vec());
                    return;
                }
                let request = self.requests.received(protocol, request_id, channel);
                self.tell(Event::Request {
                    request,
                    peer,
                    protocol,
                    body,
                });
            }
            Happened::Message {
                peer,
                message:
                    Message::Response {
                        request_id,
                        response,
                    },
                ..
            } => self.on_response(protocol, peer, request_id, Ok(response)),
            Happened::OutboundFailure {
                peer,
                request_id,
                error,
                ..
            } => self.on_response(protocol, peer, request_id, Err(error.to_string())),
            Happened::InboundFailure {
                peer,
                connection_id,
                request_id,
                error,
            } => {
                tracing::debug!(%peer, ?protocol, "a request was not answered: {error}");
                self.finished(protocol, request_id, connection_id);
            }
            Happened::ResponseSent {
                request_id,
                connection_id,
                ..
            } => self.finished(protocol, request_id, connection_id),
        }
    }

    /// Whether a request to join is looked at: one source has only so many.
    fn may_join(&mut self, connection: swarm::ConnectionId) -> bool {
        let strangers = &mut self.inner.behaviour_mut().strangers;
        strangers.joining(connection, Instant::now())
    }

    fn finished(
        &mut self,
        protocol: Protocol,
        request: request_response::InboundRequestId,
        connection: swarm::ConnectionId,
    ) {
        let was_open = self.requests.finished(protocol, request);
        if was_open && protocol == Protocol::Join {
            let strangers = &mut self.inner.behaviour_mut().strangers;
            strangers.joined(connection, Instant::now());
        }
    }

    fn on_response(
        &mut self,
        protocol: Protocol,
        peer: PeerId,
        id: request_response::OutboundRequestId,
        outcome: Result<Vec<u8>, String>,
    ) {
        if let Some(token) = self.requests.resolved(protocol, id) {
            self.tell(Event::Response {
                token,
                peer,
                outcome,
            });
        }
    }

    fn on_discovered(&mut self, found: Vec<(PeerId, Multiaddr)>) {
        let mut peers: BTreeMap<PeerId, Vec<Multiaddr>> = BTreeMap::new();
        for (peer, address) in found {
            peers.entry(peer).or_default().push(address);
        }
        for (peer, addresses) in peers {
            self.discoveries.add(peer, addresses);
        }
    }
}
