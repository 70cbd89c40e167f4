//! Stands in for libp2p: connections between hosts, what travels on them, and the ways to open them.
//!
//! A small honest model. QUIC is datagrams on the hosts' UDP sockets, one by one through the NATs ([`quic`]); TCP is a
//! stream that passes where no cut is; a circuit is a stream through a third host's connections. A connection carries
//! messages in order and repeats what was lost ([`streams`]). On it both ends show their credentials and open the
//! carrier; hosts without a public address reserve a place at relays; a circuit makes both ends punch ([`circuits`]).
//! [`dialling`] turns addresses into attempts.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddrV4,
    time::Duration,
};

use libp2p_identity::PeerId;

use crate::{
    clock::{Moment, millis, seconds},
    underlay::{HostId, SiteId},
    world::{Event, World},
};

pub mod circuits;
pub mod dialling;
pub mod questions;
pub mod quic;
mod reach;
pub mod streams;

use dialling::{Attempt, Dial};
use questions::{Asked, Request};
use streams::{Message, Stream};

/// Names a connection, at both ends alike.
pub type ConnectionNumber = u64;

/// A connection that heard nothing for this long is asked whether it lives: the shell's QUIC keep-alive.
pub const KEEP_ALIVE: Duration = seconds(8);
/// A connection that heard nothing for this long is closed: the shell's idle timeout.
const IDLE_TIMEOUT: Duration = seconds(24);
/// Each end of a connection measures its round trip this often: libp2p's ping.
const PING_INTERVAL: Duration = seconds(30);
/// A question that got no answer for this long was lost.
const REQUEST_TIMEOUT: Duration = seconds(30);
/// Somebody whom mDNS found is reported this often.
const DISCOVERY_PERIOD: Duration = seconds(300);
/// How we are seen by others: more addresses than this are not told.
const MAX_OBSERVED: usize = 4;

/// Where a member can be dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Address {
    /// Its UDP socket.
    Quic(SocketAddrV4),
    /// Its TCP socket.
    Tcp(SocketAddrV4),
    /// Through a member that relays.
    Circuit(PeerId),
}

/// How one end of a connection sees the way to the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// QUIC with this endpoint.
    Quic(SocketAddrV4),
    /// TCP with this endpoint.
    Tcp(SocketAddrV4),
    /// A circuit through this member.
    Circuit(PeerId),
}

/// What carries a connection.
#[derive(Debug, Clone)]
pub(crate) enum Carriage {
    /// Datagrams; where each end sees the other.
    Quic { seen: [SocketAddrV4; 2] },
    /// A stream that dies when one end is carried elsewhere or its gateway forgets.
    Tcp { places: [(SiteId, u32); 2] },
    /// Each end's connection to the relay.
    Circuit {
        relay: HostId,
        legs: [ConnectionNumber; 2],
    },
}

/// One end of a connection.
#[derive(Debug, Default)]
pub(crate) struct End {
    is_open: bool,
    heard: Moment,
    /// What the core said of the other's credential.
    admits: Option<bool>,
    /// What the other end said of ours.
    is_admitted: bool,
    is_authenticated: bool,
    has_carrier: bool,
    outgoing: Stream,
}

/// A connection. End 0 dialled, end 1 was dialled.
#[derive(Debug)]
pub(crate) struct Connection {
    hosts: [HostId; 2],
    carriage: Carriage,
    ends: [End; 2],
}

/// What the swarm of one host knows.
#[derive(Debug, Default)]
pub(crate) struct Member {
    record: Vec<u8>,
    relays: Vec<PeerId>,
    /// By which connection each relay keeps a place for us.
    reservations: BTreeMap<HostId, ConnectionNumber>,
    /// How others see our UDP socket, and by which connections.
    observed: BTreeMap<SocketAddrV4, BTreeSet<ConnectionNumber>>,
    told: Option<(SocketAddrV4, Vec<SocketAddrV4>, Vec<HostId>)>,
    /// Control messages sent, and their bytes.
    pub messages: u64,
    pub message_bytes: u64,
    /// What it has asked about the registry.
    asked: Asked,
    /// Times that something was dialled.
    pub dials: u64,
    /// Frames that a full carrier did not take, or that were in it when it closed.
    pub frames_lost: u64,
}

/// All swarms together.
#[derive(Debug, Default)]
pub struct Swarm {
    pub(crate) members: Vec<Member>,
    pub(crate) connections: BTreeMap<ConnectionNumber, Connection>,
    by_pair: BTreeMap<(HostId, HostId), BTreeSet<ConnectionNumber>>,
    attempts: BTreeMap<u64, Attempt>,
    dials: BTreeMap<u64, Dial>,
    requests: BTreeMap<u64, Request>,
    dht: BTreeMap<[u8; 32], Vec<u8>>,
    last_number: u64,
}

impl Swarm {
    pub(crate) fn fresh_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    /// Open at this end, newest last.
    fn open_at(&self, here: HostId, there: HostId) -> impl Iterator<Item = ConnectionNumber> + '_ {
        let pair = (here.min(there), here.max(there));
        let numbers = self.by_pair.get(&pair).into_iter().flatten().copied();
        numbers.filter(move |number| {
            let connection = &self.connections[number];
            connection.ends[connection.end_of(here)].is_open
        })
    }

    /// The best connection on which both ends have proven themselves.
    fn proven(&self, here: HostId, there: HostId) -> Option<ConnectionNumber> {
        self.open_at(here, there)
            .filter(|number| {
                let connection = &self.connections[number];
                connection.ends[connection.end_of(here)].is_authenticated
            })
            .min_by_key(|number| self.connections[number].carriage.rank())
    }

    /// How many messages wait for their turn or for an answer, at the most on one connection.
    pub fn longest_queue(&self) -> usize {
        let ends = self.connections.values().flat_map(|c| &c.ends);
        ends.map(|end| end.outgoing.len()).max().unwrap_or(0)
    }

    /// Control messages, their bytes, and dials of a host.
    pub fn control_of(&self, host: HostId) -> (u64, u64, u64) {
        let member = &self.members[host];
        (member.messages, member.message_bytes, member.dials)
    }

    /// What a host has asked about the registry.
    pub fn asked_by(&self, host: HostId) -> Asked {
        self.members[host].asked
    }

    /// Whether a host has any open connection.
    pub(crate) fn is_connected(&self, here: HostId) -> bool {
        self.ends_of(here).next().is_some()
    }

    /// The open ends of a host's connections.
    pub(crate) fn ends_of(
        &self,
        here: HostId,
    ) -> impl Iterator<Item = (ConnectionNumber, usize)> + '_ {
        let connections = self.connections.iter();
        let ends = connections.map(move |(number, known)| (*number, known, known.end_of(here)));
        ends.filter(move |(_, known, end)| known.hosts[*end] == here && known.ends[*end].is_open)
            .map(|(number, _, end)| (number, end))
    }

    /// A host has started again: what it knew and was about to do is forgotten, what it had sent is counted.
    pub(crate) fn begin_anew(&mut self, here: HostId) {
        self.requests.retain(|_, request| request.from != here);
        self.dials.retain(|_, dial| dial.host() != here);
        self.attempts.retain(|_, attempt| attempt.host != here);
        self.members[here].begin_anew();
    }

    /// Frames that carriers took and lost, or did not take, over all hosts.
    pub fn frames_lost(&self) -> u64 {
        self.members.iter().map(|member| member.frames_lost).sum()
    }
}

impl Member {
    /// What this host shows to whoever connects.
    pub(crate) fn introduce(&mut self, record: Vec<u8>) {
        self.record = record;
    }

    /// Who relays.
    pub(crate) fn set_relays(&mut self, relays: Vec<PeerId>) {
        self.relays = relays;
    }

    /// How others see us, as far as it holds for more than one of them: not the ports of a NAT that gives every
    /// destination another.
    fn stable_observed(&self) -> Vec<SocketAddrV4> {
        let seen = || self.observed.keys().copied();
        let is_alone =
            |one: &SocketAddrV4| seen().filter(|other| other.ip() == one.ip()).count() == 1;
        seen().filter(is_alone).collect()
    }

    fn begin_anew(&mut self) {
        *self = Self {
            messages: self.messages,
            message_bytes: self.message_bytes,
            asked: self.asked,
            dials: self.dials,
            frames_lost: self.frames_lost,
            ..Self::default()
        };
    }

    /// We are elsewhere now: how others saw us is of no use.
    pub(crate) fn forget_observed(&mut self) {
        self.observed.clear();
    }
}

impl Carriage {
    fn rank(&self) -> u8 {
        match self {
            Self::Quic { .. } => 0,
            Self::Tcp { .. } => 1,
            Self::Circuit { .. } => 2,
        }
    }
}

impl Connection {
    pub(crate) fn end_of(&self, host: HostId) -> usize {
        usize::from(self.hosts[1] == host)
    }
}

impl World {
    // ---- opening and closing -----------------------------------------------------------------------------

    pub(crate) fn add_connection(
        &mut self,
        hosts: [HostId; 2],
        carriage: Carriage,
    ) -> ConnectionNumber {
        let number = self.swarm.fresh_number();
        let is_circuit = matches!(carriage, Carriage::Circuit { .. });
        let pair = (hosts[0].min(hosts[1]), hosts[0].max(hosts[1]));
        self.swarm.by_pair.entry(pair).or_default().insert(number);
        let connection = Connection {
            hosts,
            carriage,
            ends: Default::default(),
        };
        self.swarm.connections.insert(number, connection);
        if !is_circuit {
            self.after(KEEP_ALIVE, Event::KeepAlive(number));
        }
        self.after(PING_INTERVAL, Event::Measure(number));
        number
    }

    /// How this end sees the connection.
    fn way(&self, number: ConnectionNumber, end: usize) -> Way {
        let connection = &self.swarm.connections[&number];
        let other = connection.hosts[1 - end];
        match &connection.carriage {
            Carriage::Quic { seen } => Way::Quic(seen[end]),
            Carriage::Tcp { .. } => Way::Tcp(self.underlay.address_of(other)),
            Carriage::Circuit { relay, .. } => Way::Circuit(self.peer_id(*relay)),
        }
    }

    /// The handshake is over for this end: it shows its credential and says how it sees the other.
    pub(crate) fn open_end(&mut self, number: ConnectionNumber, end: usize) {
        let now = self.now();
        let Some(connection) = self.swarm.connections.get_mut(&number) else {
            return;
        };
        let [here, there] = [connection.hosts[end], connection.hosts[1 - end]];
        let Some(host) = self.hosts[here].as_mut() else {
            return;
        };
        let state = &mut connection.ends[end];
        state.is_open = true;
        state.heard = host.local(now);
        let way = self.way(number, end);
        self.note(format_args!(
            "{here} connected to {there} by {way:?} ({number})"
        ));
        let peer = self.peer_id(there);
        self.host(here).opened(number, peer, way, now);
        if let Way::Quic(endpoint) = way {
            self.tell(number, end, Message::Observed(endpoint));
        }
        let record = self.swarm.members[here].record.clone();
        self.tell(number, end, Message::Credential(record));
        self.drain(here);
    }

    /// Closes this end, and tells the other if it can be told.
    pub(crate) fn close_end(&mut self, number: ConnectionNumber, end: usize) {
        let now = self.now();
        let Some(connection) = self.swarm.connections.get_mut(&number) else {
            return;
        };
        if !std::mem::take(&mut connection.ends[end].is_open) {
            return;
        }
        let unsent = std::mem::take(&mut connection.ends[end].outgoing);
        let [here, there] = [connection.hosts[end], connection.hosts[1 - end]];
        self.note(format_args!("{here} closed connection {number} to {there}"));
        self.swarm.members[here].frames_lost += unsent.frames();
        self.tell_closed(number, end);
        self.forget_requests(number, here);
        self.forget_observations(number, here);
        self.close_circuits_over(number, end);
        if self.hosts[here].is_some() {
            self.host(here).closed(number, now);
            self.look_for_relays(here);
            self.tell_reach(here);
            self.drain(here);
            self.circuits_failed(number, here);
        }
        if !self.is_left(number) {
            self.forget_connection(number);
        }
    }

    fn forget_observations(&mut self, number: ConnectionNumber, here: HostId) {
        let member = &mut self.swarm.members[here];
        member.observed.retain(|_, by| {
            by.remove(&number);
            !by.is_empty()
        });
        member.reservations.retain(|_, by| *by != number);
    }

    /// Looks whether a connection lives, and keeps its NATs open.
    pub(crate) fn keep_alive(&mut self, number: ConnectionNumber) {
        let mut next = KEEP_ALIVE;
        for end in [0, 1] {
            let Some(silence) = self.silence(number, end) else {
                continue;
            };
            let patience = quic::patience(end);
            if silence >= IDLE_TIMEOUT {
                self.close_end(number, end);
            } else if silence >= patience {
                self.ping(number, end);
                next = next.min(IDLE_TIMEOUT - silence);
            } else {
                next = next.min(patience - silence);
            }
        }
        if self.is_left(number) {
            self.after(next.max(millis(1)), Event::KeepAlive(number));
        } else {
            self.forget_connection(number);
        }
    }

    /// For how long this end has heard nothing, by its own clock; `None` when it is closed or asleep.
    fn silence(&self, number: ConnectionNumber, end: usize) -> Option<Duration> {
        let connection = self.swarm.connections.get(&number)?;
        let (here, state) = (connection.hosts[end], &connection.ends[end]);
        let host = self.hosts[here].as_ref()?;
        let listens = state.is_open && self.underlay.is_awake(here);
        listens.then(|| host.local(self.now()).saturating_sub(state.heard))
    }

    fn is_left(&self, number: ConnectionNumber) -> bool {
        let connection = self.swarm.connections.get(&number);
        connection.is_some_and(|known| known.ends.iter().any(|end| end.is_open))
    }

    fn forget_connection(&mut self, number: ConnectionNumber) {
        let Some(Connection { hosts: [a, b], .. }) = self.swarm.connections.remove(&number) else {
            return;
        };
        if let Some(numbers) = self.swarm.by_pair.get_mut(&(a.min(b), a.max(b))) {
            numbers.remove(&number);
        }
    }

    /// libp2p's ping, for as long as there is a connection.
    pub(crate) fn measure(&mut self, number: ConnectionNumber) {
        if !self.is_left(number) {
            return;
        }
        for end in [0, 1] {
            if self.silence(number, end).is_some() {
                self.tell(number, end, Message::Ping);
            }
        }
        self.after(PING_INTERVAL, Event::Measure(number));
    }

    // ---- what members say to each other ------------------------------------------------------------------

    /// A message has arrived at this end of a connection.
    pub(crate) fn hear(&mut self, number: ConnectionNumber, end: usize, message: Message) {
        let now = self.now();
        let Some(connection) = self.swarm.connections.get_mut(&number) else {
            return;
        };
        let state = &mut connection.ends[end];
        let [here, there] = [connection.hosts[end], connection.hosts[1 - end]];
        if !state.is_open || self.hosts[here].is_none() {
            return;
        }
        let peer = self.peers[there];
        match message {
            Message::Credential(record) => {
                self.host(here).credential(number, peer, &record, now);
            }
            Message::Admitted => {
                state.is_admitted = true;
                self.authenticate(number, end);
            }
            Message::Carrier => {
                let is_new = !std::mem::replace(&mut state.has_carrier, true);
                if is_new && state.is_authenticated {
                    if end == 1 {
                        self.tell(number, end, Message::Carrier);
                    }
                    self.host(here).carrier_opened(number, now);
                }
            }
            Message::Observed(endpoint) => self.is_seen_at(here, endpoint, number),
            Message::Question(topic, token, body) => self.asked(here, peer, topic, token, &body),
            Message::Answer(_, token, body) => self.answered(here, peer, token, &body),
            Message::Frame(datagram) => {
                if state.has_carrier {
                    let length = datagram.len();
                    self.note(format_args!("connection {number} -> {here} {length} bytes"));
                    self.host(here).frame(number, &datagram, now);
                }
            }
            Message::Reserve => self.tell(number, end, Message::Reserved),
            Message::Reserved => self.reserved(here, there, number),
            Message::Connect(attempt) => self.asked_for_circuit(number, here, attempt),
            Message::Stop(attempt, first) => self.asked_to_stop(number, here, attempt, first),
            Message::Refused(attempt) => self.attempt_failed(attempt),
            Message::Opened(attempt, circuit) => self.circuit_opened(here, attempt, circuit),
            Message::Closed => self.close_end(number, end),
            Message::Ping => self.tell(number, end, Message::Pong),
            Message::Pong => {}
            Message::Circuit(circuit, message) => self.relay(number, here, circuit, *message),
        }
        self.drain(here);
    }

    pub(crate) fn judge(&mut self, here: HostId, number: ConnectionNumber, admits: bool) {
        let Some(connection) = self.swarm.connections.get_mut(&number) else {
            return;
        };
        let end = connection.end_of(here);
        connection.ends[end].admits = Some(admits);
        if admits {
            self.tell(number, end, Message::Admitted);
            self.authenticate(number, end);
        } else {
            self.close_end(number, end);
        }
    }

    fn authenticate(&mut self, number: ConnectionNumber, end: usize) {
        let now = self.now();
        let Some(connection) = self.swarm.connections.get_mut(&number) else {
            return;
        };
        let [here, there] = [connection.hosts[end], connection.hosts[1 - end]];
        let state = &mut connection.ends[end];
        if state.admits != Some(true) || !state.is_admitted || state.is_authenticated {
            return;
        }
        state.is_authenticated = true;
        self.swarm.members[here].asked.greetings += 1;
        let is_circuit = matches!(connection.carriage, Carriage::Circuit { .. });
        self.host(here).authenticated(number, now);
        if end == 0 {
            self.tell(number, end, Message::Carrier);
        }
        if is_circuit && end == 1 {
            self.begin_punching(number);
        }
        if !is_circuit {
            self.reserve_with(here, there, number);
        }
    }
}
