//! Circuits: places at relays, messages through them, and the hole punching that a new circuit begins.

use std::{net::SocketAddrV4, time::Duration};

use super::{
    Carriage, ConnectionNumber,
    dialling::{Reason, Target},
    quic::{QuicDatagram, QuicKind},
    streams::Message,
};
use crate::{
    clock::millis,
    underlay::HostId,
    world::{Event, World},
};

/// Relays that keep a place for a host without a public address.
const RESERVATIONS: usize = 2;
/// DCUtR tries so often, then never again on this circuit.
const ROUNDS: u32 = 3;
/// Punches of one round, and the time between two of them.
const PUNCHES: u32 = 40;
const PUNCH_PERIOD: Duration = millis(100);

impl World {
    /// Asks a relay that we are connected to for a place, if we need one.
    pub(super) fn reserve_with(&mut self, here: HostId, there: HostId, number: ConnectionNumber) {
        let relay = self.peer_id(there);
        let is_public = self.underlay.is_public(here);
        let member = &self.swarm.members[here];
        let has_enough = member.reservations.len() >= RESERVATIONS;
        let has_this = member.reservations.contains_key(&there);
        if is_public || has_enough || has_this || !member.relays.contains(&relay) {
            return;
        }
        let end = self.swarm.connections[&number].end_of(here);
        self.tell(number, end, Message::Reserve);
    }

    /// Makes up for places that were lost, or that are known only now.
    pub(crate) fn look_for_relays(&mut self, here: HostId) {
        for relay in self.swarm.members[here].relays.clone() {
            let there = self.host_of(&relay);
            let best = self.swarm.proven(here, there);
            let direct = best.filter(|number| {
                let carriage = &self.swarm.connections[number].carriage;
                !matches!(carriage, Carriage::Circuit { .. })
            });
            if let Some(number) = direct {
                self.reserve_with(here, there, number);
            }
        }
    }

    pub(super) fn reserved(&mut self, here: HostId, relay: HostId, number: ConnectionNumber) {
        let member = &mut self.swarm.members[here];
        if member.reservations.len() < RESERVATIONS {
            member.reservations.insert(relay, number);
            self.tell_reach(here);
        }
    }

    // ---- opening ----------------------------------------------------------------------------------------

    /// The relay is asked for a circuit by this leg: it asks the other end by the leg of its reservation.
    pub(super) fn asked_for_circuit(
        &mut self,
        first: ConnectionNumber,
        relay: HostId,
        attempt: u64,
    ) {
        let Some(peer) = self
            .swarm
            .attempts
            .get(&attempt)
            .map(|attempt| attempt.peer)
        else {
            return;
        };
        let there = &self.swarm.members[self.host_of(&peer)];
        let second = there.reservations.get(&relay).copied().filter(|leg| {
            let connection = self.swarm.connections.get(leg);
            connection.is_some_and(|leg| leg.ends[leg.end_of(relay)].is_open)
        });
        let (leg, message) = match second {
            Some(second) => (second, Message::Stop(attempt, first)),
            None => (first, Message::Refused(attempt)),
        };
        if let Some(end) = self
            .swarm
            .connections
            .get(&leg)
            .map(|leg| leg.end_of(relay))
        {
            self.tell(leg, end, message);
        }
    }

    /// The relay says that somebody wants a circuit to us.
    pub(super) fn asked_to_stop(
        &mut self,
        second: ConnectionNumber,
        here: HostId,
        attempt: u64,
        first: ConnectionNumber,
    ) {
        let Some(host) = self
            .swarm
            .attempts
            .get(&attempt)
            .map(|attempt| attempt.host)
        else {
            return;
        };
        let connection = &self.swarm.connections[&second];
        let end = connection.end_of(here);
        let carriage = Carriage::Circuit {
            relay: connection.hosts[1 - end],
            legs: [first, second],
        };
        let circuit = self.add_connection([host, here], carriage);
        self.tell(second, end, Message::Opened(attempt, circuit));
        self.open_end(circuit, 1);
    }

    /// The other end has accepted: the relay passes that on, and whoever wanted the circuit has it.
    pub(super) fn circuit_opened(&mut self, here: HostId, attempt: u64, number: ConnectionNumber) {
        let Some(circuit) = self.swarm.connections.get(&number) else {
            return;
        };
        let Carriage::Circuit { legs, .. } = circuit.carriage else {
            return;
        };
        let is_dialler = circuit.hosts[0] == here;
        if is_dialler && self.swarm.attempts.contains_key(&attempt) {
            self.attempt_succeeded(attempt);
            return self.open_end(number, 0);
        }
        let message = if is_dialler {
            // It came too late.
            Message::Circuit(number, Box::new(Message::Closed))
        } else {
            Message::Opened(attempt, number)
        };
        if let Some(end) = self
            .swarm
            .connections
            .get(&legs[0])
            .map(|leg| leg.end_of(here))
        {
            self.tell(legs[0], end, message);
        }
    }

    // ---- messages ----------------------------------------------------------------------------------------

    /// A message of a circuit has come by this leg: it is for us, or for the other end.
    pub(super) fn relay(
        &mut self,
        leg: ConnectionNumber,
        here: HostId,
        number: ConnectionNumber,
        message: Message,
    ) {
        let Some(circuit) = self.swarm.connections.get(&number) else {
            return;
        };
        if circuit.hosts.contains(&here) {
            let end = circuit.end_of(here);
            return self.hear(number, end, message);
        }
        let Carriage::Circuit { legs, .. } = circuit.carriage else {
            return;
        };
        let [next, back] = if legs[0] == leg {
            [legs[1], legs[0]]
        } else {
            legs
        };
        let is_open = self
            .swarm
            .connections
            .get(&next)
            .is_some_and(|connection| connection.ends[connection.end_of(here)].is_open);
        let (way, message) = if is_open {
            (next, message)
        } else {
            (back, Message::Closed)
        };
        if let Some(end) = self.swarm.connections.get(&way).map(|c| c.end_of(here)) {
            self.tell(way, end, Message::Circuit(number, Box::new(message)));
        }
    }

    /// A leg has closed at this end: so have the circuits over it, and the relay tells their other ends.
    pub(super) fn close_circuits_over(&mut self, leg: ConnectionNumber, end: usize) {
        let here = self.swarm.connections[&leg].hosts[end];
        let over: Vec<_> = self
            .swarm
            .connections
            .iter()
            .filter_map(|(number, circuit)| match circuit.carriage {
                Carriage::Circuit { legs, .. } if legs.contains(&leg) => {
                    Some((*number, circuit.hosts, legs))
                }
                Carriage::Circuit { .. } | Carriage::Quic { .. } | Carriage::Tcp { .. } => None,
            })
            .collect();
        for (number, hosts, legs) in over {
            if let Some(own) = hosts.iter().position(|host| *host == here) {
                self.close_end(number, own);
                continue;
            }
            let other = if legs[0] == leg { legs[1] } else { legs[0] };
            if let Some(end) = self.swarm.connections.get(&other).map(|c| c.end_of(here)) {
                let closed = Message::Circuit(number, Box::new(Message::Closed));
                self.tell(other, end, closed);
            }
        }
    }

    // ---- hole punching -----------------------------------------------------------------------------------

    /// The end that was dialled measures the round trip, then both begin.
    pub(super) fn begin_punching(&mut self, number: ConnectionNumber) {
        let [a, b] = self.swarm.connections[&number].hosts;
        let Carriage::Circuit { relay, .. } = self.swarm.connections[&number].carriage else {
            return;
        };
        let way = self.underlay.latency(a, relay) + self.underlay.latency(relay, b);
        self.after(way * 3, Event::Punch(number));
    }

    /// One round: the end that dialled the circuit sends initials, the other opens its NAT for them.
    pub(crate) fn punch(&mut self, number: ConnectionNumber, round: u32) {
        let Some(circuit) = self.swarm.connections.get(&number) else {
            return;
        };
        let [client, server] = circuit.hosts;
        let is_open = circuit.ends.iter().all(|end| end.is_open);
        if round >= ROUNDS || !is_open {
            return;
        }
        let (to_server, to_client) = (self.seen_as(server), self.seen_as(client));
        if to_server.is_empty() || to_client.is_empty() {
            return;
        }
        let peer = self.peer_id(server);
        let reason = Reason::Punch(number, round);
        self.attempt(client, peer, Target::Quic(to_server), reason);
        self.burst(server, to_client, PUNCHES);
    }

    fn seen_as(&self, host: HostId) -> Vec<SocketAddrV4> {
        let observed = &self.swarm.members[host].observed;
        observed.keys().copied().collect()
    }

    /// Opens our NAT for these endpoints, and keeps it open for a while.
    pub(crate) fn burst(&mut self, here: HostId, to: Vec<SocketAddrV4>, left: u32) {
        if self.underlay.is_awake(here) {
            for endpoint in &to {
                self.send_quic(here, *endpoint, QuicDatagram::new(QuicKind::Punch));
            }
        }
        if left > 0 {
            self.after(PUNCH_PERIOD, Event::Burst(here, to, left - 1));
        }
    }
}
