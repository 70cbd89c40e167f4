//! From addresses to connections. All addresses of a dial are tried at once; the first that answers wins, and the dial
//! has failed when all have.

use std::{collections::BTreeSet, net::SocketAddrV4, time::Duration};

use libp2p_identity::PeerId;

use super::{
    Address, Carriage, ConnectionNumber,
    quic::{QuicDatagram, QuicKind},
    streams::Message,
};
use crate::{
    clock::{millis, seconds},
    underlay::HostId,
    world::{Event, World},
};

/// When an initial is sent, counted from the beginning of the attempt.
const INITIALS: [Duration; 3] = [millis(0), millis(1000), millis(3000)];
/// The handshake timeout.
const PATIENCE: Duration = seconds(5);
/// The same for a circuit: the shell's limit for setting up a connection.
const CIRCUIT_PATIENCE: Duration = seconds(10);

/// Everything that one order to dial has begun.
#[derive(Debug)]
pub(crate) struct Dial {
    host: HostId,
    peer: PeerId,
    attempts: BTreeSet<u64>,
}

/// Why an attempt is made, so that somebody hears when it fails.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Reason {
    /// The core wants it.
    Dial(u64),
    /// The two ends of a circuit punch, for the so-manieth time.
    Punch(ConnectionNumber, u32),
}

#[derive(Debug, Clone)]
pub(crate) enum Target {
    Quic(Vec<SocketAddrV4>),
    Tcp(SocketAddrV4),
    Circuit(PeerId),
}

/// One way that is being tried.
#[derive(Debug, Clone)]
pub(crate) struct Attempt {
    pub(super) host: HostId,
    pub(super) peer: PeerId,
    target: Target,
    reason: Reason,
    /// By which connection the relay was asked.
    leg: Option<ConnectionNumber>,
    /// What the server has made of our first initial.
    accepted: Option<ConnectionNumber>,
}

impl Dial {
    pub(super) fn host(&self) -> HostId {
        self.host
    }
}

impl World {
    pub(crate) fn dial(
        &mut self,
        here: HostId,
        peer: PeerId,
        addresses: Vec<Address>,
        even_if_connected: bool,
    ) {
        let there = self.host_of(&peer);
        let is_dialling = |dial: &Dial| dial.host == here && dial.peer == peer;
        let refrains = self.swarm.open_at(here, there).next().is_some()
            || self.swarm.dials.values().any(is_dialling);
        if refrains && !even_if_connected {
            return;
        }
        self.swarm.members[here].dials += 1;
        self.note(format_args!("{here} dials {there} at {addresses:?}"));
        let number = self.swarm.fresh_number();
        let host = here;
        let attempts = BTreeSet::new();
        let dial = Dial {
            host,
            peer,
            attempts,
        };
        self.swarm.dials.insert(number, dial);
        if addresses.is_empty() {
            return self.dial_failed(number);
        }
        for address in addresses {
            let target = match address {
                Address::Quic(endpoint) => Target::Quic(vec![endpoint]),
                Address::Tcp(endpoint) => Target::Tcp(endpoint),
                Address::Circuit(relay) => Target::Circuit(relay),
            };
            let attempt = self.attempt(here, peer, target, Reason::Dial(number));
            if let Some(dial) = self.swarm.dials.get_mut(&number) {
                dial.attempts.insert(attempt);
            }
        }
    }

    pub(crate) fn attempt(
        &mut self,
        host: HostId,
        peer: PeerId,
        target: Target,
        reason: Reason,
    ) -> u64 {
        let number = self.swarm.fresh_number();
        let mut asked = None;
        match &target {
            Target::Quic(_) => {
                for pause in INITIALS {
                    self.after(pause, Event::Initial(number));
                }
                self.after(PATIENCE, Event::AttemptFailed(number));
            }
            Target::Tcp(endpoint) => {
                let answers = self.tcp_listener(host, *endpoint);
                // A round trip for TCP and three for encryption and multiplexing.
                let (pause, event) = match answers {
                    Some(there) => (
                        self.underlay.latency(host, there) * 8,
                        Event::TcpConnected(number),
                    ),
                    None => (PATIENCE, Event::AttemptFailed(number)),
                };
                self.after(pause, event);
            }
            Target::Circuit(relay) => {
                let leg = self.swarm.proven(host, self.host_of(relay));
                let patience = if leg.is_some() {
                    CIRCUIT_PATIENCE
                } else {
                    Duration::ZERO
                };
                self.after(patience, Event::AttemptFailed(number));
                if let Some(leg) = leg {
                    let end = self.swarm.connections[&leg].end_of(host);
                    self.tell(leg, end, Message::Connect(number));
                }
                asked = leg;
            }
        }
        let attempt = Attempt {
            host,
            peer,
            target,
            reason,
            leg: asked,
            accepted: None,
        };
        self.swarm.attempts.insert(number, attempt);
        number
    }

    fn tcp_listener(&self, here: HostId, endpoint: SocketAddrV4) -> Option<HostId> {
        let there = self.underlay.host_seen_at(here, endpoint)?;
        let is_up = self.hosts[there].is_some();
        (is_up && self.underlay.accepts_tcp(here, there)).then_some(there)
    }

    pub(crate) fn attempt_failed(&mut self, number: u64) {
        let Some(attempt) = self.swarm.attempts.remove(&number) else {
            return;
        };
        match attempt.reason {
            Reason::Dial(dial) => {
                if let Some(dial) = self.swarm.dials.get_mut(&dial) {
                    dial.attempts.remove(&number);
                }
                let is_over = |dial: &Dial| dial.attempts.is_empty();
                if self.swarm.dials.get(&dial).is_some_and(is_over) {
                    self.dial_failed(dial);
                }
            }
            Reason::Punch(circuit, round) => self.punch(circuit, round + 1),
        }
    }

    /// A connection has closed at this host: so have the questions for circuits on it.
    pub(super) fn circuits_failed(&mut self, leg: ConnectionNumber, here: HostId) {
        let attempts = self.swarm.attempts.iter();
        let failed: Vec<_> = attempts
            .filter(|(_, attempt)| attempt.host == here && attempt.leg == Some(leg))
            .map(|(number, _)| *number)
            .collect();
        for number in failed {
            self.attempt_failed(number);
        }
    }

    fn dial_failed(&mut self, number: u64) {
        let now = self.now();
        if let Some(dial) = self.swarm.dials.remove(&number)
            && self.hosts[dial.host].is_some()
        {
            self.host(dial.host).dial_failed(&dial.peer, now);
            self.drain(dial.host);
        }
    }

    pub(super) fn attempt_succeeded(&mut self, number: u64) {
        let Some(attempt) = self.swarm.attempts.remove(&number) else {
            return;
        };
        if let Reason::Dial(dial) = attempt.reason
            && let Some(dial) = self.swarm.dials.remove(&dial)
        {
            for other in dial.attempts {
                self.swarm.attempts.remove(&other);
            }
        }
    }

    // ---- QUIC --------------------------------------------------------------------------------------------

    pub(crate) fn send_initial(&mut self, number: u64) {
        let Some(attempt) = self.swarm.attempts.get(&number).cloned() else {
            return;
        };
        if !self.underlay.is_awake(attempt.host) {
            return;
        }
        if let Target::Quic(endpoints) = attempt.target {
            for endpoint in endpoints {
                let initial = QuicKind::Initial {
                    attempt: number,
                    peer: attempt.peer,
                };
                self.send_quic(attempt.host, endpoint, QuicDatagram::new(initial));
            }
        }
    }

    /// Somebody wants to connect to this host.
    pub(super) fn initial(&mut self, here: HostId, from: SocketAddrV4, number: u64, peer: PeerId) {
        let Some(attempt) = self.swarm.attempts.get(&number).cloned() else {
            return;
        };
        if self.host_of(&peer) != here || self.hosts[here].is_none() {
            let reject = QuicDatagram::new(QuicKind::Reject { attempt: number });
            return self.send_quic(here, from, reject);
        }
        let connection = match attempt.accepted {
            Some(connection) => connection,
            None => {
                let seen = [from; 2];
                let connection = self.add_connection([attempt.host, here], Carriage::Quic { seen });
                if let Some(attempt) = self.swarm.attempts.get_mut(&number) {
                    attempt.accepted = Some(connection);
                }
                connection
            }
        };
        let accept = QuicKind::Accept {
            attempt: number,
            connection,
        };
        self.send_quic(here, from, QuicDatagram::new(accept));
    }

    /// The server has accepted. A client believes that only from where it has sent its initial to.
    pub(super) fn accepted(
        &mut self,
        here: HostId,
        from: SocketAddrV4,
        attempt: u64,
        number: ConnectionNumber,
    ) {
        let is_there =
            self.swarm
                .attempts
                .get(&attempt)
                .is_some_and(|attempt| match &attempt.target {
                    Target::Quic(endpoints) => endpoints.contains(&from),
                    Target::Tcp(_) | Target::Circuit(_) => false,
                });
        if !is_there {
            return;
        }
        let Some(connection) = self.swarm.connections.get_mut(&number) else {
            return;
        };
        if let Carriage::Quic { seen } = &mut connection.carriage {
            seen[0] = from;
        }
        self.attempt_succeeded(attempt);
        let confirmation = QuicKind::Ping {
            connection: number,
            end: 0,
        };
        self.send_quic(here, from, QuicDatagram::new(confirmation));
        self.open_end(number, 0);
    }

    // ---- TCP and circuits --------------------------------------------------------------------------------

    pub(crate) fn tcp_connected(&mut self, number: u64) {
        let Some(attempt) = self.swarm.attempts.get(&number).cloned() else {
            return;
        };
        let Target::Tcp(endpoint) = attempt.target else {
            return;
        };
        let there = self
            .tcp_listener(attempt.host, endpoint)
            .filter(|there| self.host_of(&attempt.peer) == *there);
        let Some(there) = there else {
            return self.attempt_failed(number);
        };
        self.attempt_succeeded(number);
        let hosts = [attempt.host, there];
        let places = hosts.map(|host| self.place_of(host));
        let connection = self.add_connection(hosts, Carriage::Tcp { places });
        self.open_end(connection, 0);
        self.open_end(connection, 1);
    }

    fn place_of(&self, host: HostId) -> (usize, u32) {
        let site = self.underlay.site_of(host);
        (site, self.underlay.reboots_of(site))
    }

    /// Whether segments pass between the ends of a TCP connection that was opened at these places.
    pub(crate) fn passes(&self, places: [(usize, u32); 2], hosts: [HostId; 2]) -> bool {
        hosts.map(|host| self.place_of(host)) == places
            && self.underlay.passes_tcp(hosts[0], hosts[1])
    }
}
