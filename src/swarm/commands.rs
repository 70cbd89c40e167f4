//! From the data loop to libp2p.

use std::{num::NonZeroU8, time::Instant};

use hivevpn_core::membership::{Network, address::ipv6_prefix};
use libp2p::{
    Multiaddr, PeerId,
    swarm::{
        DialError,
        dial_opts::{DialOpts, PeerCondition},
    },
};

use super::{
    Command, Connection, Event, Protocol, RequestId, Swarm, behaviour, gate::Membership, numbers,
};

/// Addresses of one peer that are dialed at once: all that a member may announce, so that a circuit does not
/// wait until a dozen dead addresses have timed out.
const DIALS_AT_ONCE: NonZeroU8 = NonZeroU8::new(32).expect("not zero");

impl Swarm {
    pub(super) fn carry_out(&mut self, command: Command) {
        match command {
            Command::EnterNetwork {
                network,
                credential,
            } => self.enter(network, credential),
            Command::Admit { connection } => {
                let behaviour = self.inner.behaviour_mut();
                behaviour.gate.admit(numbers::libp2ps(connection));
                behaviour.strangers.admitted(numbers::libp2ps(connection));
            }
            Command::Refuse { connection, reason } => {
                let gate = &mut self.inner.behaviour_mut().gate;
                gate.refuse(numbers::libp2ps(connection));
                if let Some(known) = self.connections.get(&connection) {
                    tracing::info!(peer = %known.peer, "not admitted: {reason}");
                    // If it was a member once, the DHT need not look for it any more.
                    if let Some(kad) = gate.inner_mut().kad.as_mut() {
                        kad.remove_peer(&known.peer);
                    }
                }
            }
            Command::Expect { peer } => self.inner.behaviour_mut().strangers.expect(peer),
            Command::Unexpect { peer } => self.inner.behaviour_mut().strangers.unexpect(&peer),
            Command::Dial {
                peer,
                addresses,
                even_if_connected,
            } => self.dial(peer, addresses, even_if_connected),
            Command::Close { connection } => {
                self.inner.close_connection(numbers::libp2ps(connection));
            }
            Command::Request {
                peer,
                protocol,
                token,
                body,
            } => self.request(peer, protocol, token, body),
            Command::Respond { request, body } => self.respond(request, body),
            Command::AskBench { peer, asking } => self.ask_bench(peer, asking),
            Command::AskAdmin { peer, asking } => self.ask_admin(peer, asking),
            Command::AskReflection { peer, asking } => self.ask_reflection(peer, asking),
            Command::Survey { underlay, answer } => self.survey(*underlay, answer),
            Command::Publish { key, value } => self.publish(key, value),
            Command::Lookup { key } => self.look_up(key),
            Command::KeepEntry {
                from,
                slot,
                sealed,
                kept,
            } => self.keep_entry(from, slot, sealed, kept),
            Command::WriteBack { slot, sealed, to } => self.write_back(&slot, sealed, to),
            Command::Unpublish { key } => self.unpublish(&key),
            Command::Routes { names, answer } => self.routes(&names, answer),
            Command::Relays(relays) => self.reservations.offer(relays),
            Command::RelayFor(guests) => self.guests.set(Some(guests)),
        }
    }

    fn enter(&mut self, network: Network, credential: Vec<u8>) {
        let local = *self.inner.local_peer_id();
        let gate = &mut self.inner.behaviour_mut().gate;
        match gate.membership() {
            Some(entered) if *entered.network() != network => {
                tracing::error!(
                    "this node is in a network already and stays there until it is restarted"
                );
                return;
            }
            Some(_) => {}
            None => {
                let kad = behaviour::kad(local, &network.kad_protocol_suffix(), self.dht_mode);
                gate.inner_mut().kad = Some(kad).into();
                self.overlay.add([
                    network.genesis().ipv4_prefix().into(),
                    ipv6_prefix(&network.id()).into(),
                ]);
            }
        }
        gate.enter(Membership::new(local, network, credential));
        let strangers = &mut self.inner.behaviour_mut().strangers;
        strangers.entered(Instant::now());
    }

    fn dial(&mut self, peer: PeerId, addresses: Vec<Multiaddr>, even_if_connected: bool) {
        let condition = if even_if_connected {
            PeerCondition::Always
        } else {
            PeerCondition::DisconnectedAndNotDialing
        };
        let dial = DialOpts::peer_id(peer)
            .condition(condition)
            .override_dial_concurrency_factor(DIALS_AT_ONCE)
            .addresses(addresses)
            .build();
        let id = dial.connection_id();
        self.reachability.on_call(peer, Instant::now());
        match self.inner.dial(dial) {
            Ok(()) => {
                self.dials.insert(id);
            }
            Err(DialError::DialPeerConditionFalse(_)) => {}
            Err(error) => {
                let error = error.to_string();
                self.tell(Event::DialFailed { peer, error });
            }
        }
    }

    fn request(&mut self, peer: PeerId, protocol: Protocol, token: u64, body: Vec<u8>) {
        // The behaviours would dial by themselves. Whom to dial and where is not theirs to decide.
        let may_ask = match protocol {
            Protocol::Join => self.connections_to(&peer).next().is_some(),
            Protocol::Sync | Protocol::Registry | Protocol::Admin => self.may_ask(&peer),
        };
        if !may_ask {
            let outcome = Err("the peer is not connected".to_owned());
            return self.tell(Event::Response {
                token,
                peer,
                outcome,
            });
        }
        let behaviour = self.inner.behaviour_mut();
        let id = match protocol {
            Protocol::Join => behaviour.join.send_request(&peer, body),
            Protocol::Sync => behaviour.gate.inner_mut().sync.send_request(&peer, body),
            Protocol::Registry => {
                let protocols = behaviour.gate.inner_mut();
                protocols.registry.send_request(&peer, body)
            }
            Protocol::Admin => behaviour.gate.inner_mut().admin.send_request(&peer, body),
        };
        self.requests.sent(protocol, id, token);
    }

    /// Whether there is a connection to this peer on which members' protocols can be used.
    pub(super) fn may_ask(&self, peer: &PeerId) -> bool {
        self.connections_to(peer)
            .any(|connection| connection.authenticated)
    }

    pub(super) fn connections_to(&self, peer: &PeerId) -> impl Iterator<Item = &Connection> {
        let connections = self.connections.values();
        connections.filter(move |connection| connection.peer == *peer)
    }

    fn respond(&mut self, request: RequestId, body: Vec<u8>) {
        let Some((protocol, channel)) = self.requests.answer(request) else {
            return tracing::debug!(?request, "the answer comes too late");
        };
        let behaviour = self.inner.behaviour_mut();
        let sent = match protocol {
            Protocol::Join => behaviour.join.send_response(channel, body),
            Protocol::Sync => behaviour.gate.inner_mut().sync.send_response(channel, body),
            Protocol::Registry => {
                let protocols = behaviour.gate.inner_mut();
                protocols.registry.send_response(channel, body)
            }
            Protocol::Admin => behaviour
                .gate
                .inner_mut()
                .admin
                .send_response(channel, body),
        };
        if sent.is_err() {
            tracing::debug!(?request, "nobody waits for the answer any more");
        }
    }
}
