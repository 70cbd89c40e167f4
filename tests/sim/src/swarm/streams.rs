//! Messages on a connection: in order, and again until they have arrived or the connection is closed.
//!
//! The simulation sees at once when a datagram is lost, so nobody acknowledges anything: the sender is told after about
//! the time in which it would have noticed. What is in line behind a lost message waits for it.

use std::{collections::BTreeSet, collections::VecDeque, net::SocketAddrV4, time::Duration};

use super::{
    Carriage, ConnectionNumber,
    questions::Topic,
    quic::{QuicDatagram, QuicKind},
};
use crate::{
    clock::millis,
    world::{Event, World},
};

/// Frames that a carrier keeps; the next one is dropped.
const MAX_FRAMES: u64 = 64;
/// A lost message is sent again after this and a round trip, which doubles.
const RETRANSMISSION: Duration = millis(50);
const MAX_RETRANSMISSION: Duration = millis(2000);

/// What members say to each other.
#[derive(Debug, Clone)]
pub(crate) enum Message {
    /// "This is who I am."
    Credential(Vec<u8>),
    /// "You are a member."
    Admitted,
    /// "Here is a stream for datagrams."
    Carrier,
    /// "This is where I see you."
    Observed(SocketAddrV4),
    /// Something that wants an answer.
    Question(Topic, u64, Vec<u8>),
    /// Its answer.
    Answer(Topic, u64, Vec<u8>),
    /// A WireGuard datagram on the carrier.
    Frame(Vec<u8>),
    /// "May I be reached through you?"
    Reserve,
    /// "You may."
    Reserved,
    /// "A circuit to the one whom this attempt is for, please."
    Connect(u64),
    /// "Somebody wants a circuit to you, by this leg."
    Stop(u64, ConnectionNumber),
    /// "There is no way to it."
    Refused(u64),
    /// "Here it is."
    Opened(u64, ConnectionNumber),
    /// "This connection is over."
    Closed,
    /// "How long does it take to you?"
    Ping,
    /// "So long."
    Pong,
    /// A message of a circuit, on one of its legs.
    Circuit(ConnectionNumber, Box<Message>),
}

impl Message {
    /// Bytes on the wire, about.
    fn len(&self) -> usize {
        let body = match self {
            Self::Credential(body)
            | Self::Question(_, _, body)
            | Self::Answer(_, _, body)
            | Self::Frame(body) => body.len(),
            Self::Circuit(_, message) => message.len(),
            Self::Admitted
            | Self::Carrier
            | Self::Observed(_)
            | Self::Reserve
            | Self::Reserved
            | Self::Ping
            | Self::Pong
            | Self::Connect(_)
            | Self::Stop(..)
            | Self::Refused(_)
            | Self::Opened(..)
            | Self::Closed => 16,
        };
        body + 16
    }

    fn is_frame(&self) -> bool {
        match self {
            Self::Frame(_) => true,
            Self::Circuit(_, message) => message.is_frame(),
            Self::Credential(_)
            | Self::Question(..)
            | Self::Answer(..)
            | Self::Admitted
            | Self::Carrier
            | Self::Observed(_)
            | Self::Reserve
            | Self::Reserved
            | Self::Ping
            | Self::Pong
            | Self::Connect(_)
            | Self::Stop(..)
            | Self::Refused(_)
            | Self::Opened(..)
            | Self::Closed => false,
        }
    }

    fn is_sync(&self) -> bool {
        matches!(
            self,
            Self::Question(Topic::Members, ..) | Self::Answer(Topic::Members, ..)
        )
    }
}

/// One direction of a connection.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    /// Number of the first message that has not been delivered.
    first: u64,
    waiting: VecDeque<Message>,
    arrived: BTreeSet<u64>,
}

impl Stream {
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// How many frames wait.
    pub(crate) fn frames(&self) -> u64 {
        self.waiting.iter().filter(|m| m.is_frame()).count() as u64
    }

    /// Message `number` is at the other end; returns the next one in order that can be delivered.
    fn arrives(&mut self, number: u64) {
        if number >= self.first {
            self.arrived.insert(number);
        }
    }

    fn next(&mut self) -> Option<Message> {
        if !self.arrived.remove(&self.first) {
            return None;
        }
        self.first += 1;
        self.waiting.pop_front()
    }
}

impl World {
    /// Sends a message from this end of a connection to the other.
    pub(crate) fn tell(&mut self, number: ConnectionNumber, end: usize, message: Message) {
        let Some(connection) = self.swarm.connections.get_mut(&number) else {
            return;
        };
        if !connection.ends[end].is_open {
            return;
        }
        let here = connection.hosts[end];
        if message.is_sync() {
            let member = &mut self.swarm.members[here];
            member.messages += 1;
            member.message_bytes += message.len() as u64;
        }
        if let Carriage::Circuit { legs, .. } = connection.carriage {
            let leg = legs[end];
            if let Some(leg_end) = self.swarm.connections.get(&leg).map(|leg| leg.end_of(here)) {
                let inner = Message::Circuit(number, Box::new(message));
                self.tell(leg, leg_end, inner);
            }
            return;
        }
        let outgoing = &mut connection.ends[end].outgoing;
        if message.is_frame() && outgoing.frames() >= MAX_FRAMES {
            self.swarm.members[here].frames_lost += 1;
            return;
        }
        let at = outgoing.first + outgoing.waiting.len() as u64;
        outgoing.waiting.push_back(message);
        self.transmit(number, end, at, 0);
    }

    /// Sends message `at` for the `tries`-th time again.
    pub(crate) fn transmit(&mut self, number: ConnectionNumber, end: usize, at: u64, tries: u32) {
        let Some(connection) = self.swarm.connections.get(&number) else {
            return;
        };
        let [here, there] = [connection.hosts[end], connection.hosts[1 - end]];
        let outgoing = &connection.ends[end].outgoing;
        let place = at.checked_sub(outgoing.first);
        let message = place.and_then(|place| outgoing.waiting.get(usize::try_from(place).ok()?));
        let Some(message) = message.filter(|_| connection.ends[end].is_open) else {
            return;
        };
        let length = message.len();
        match &connection.carriage {
            Carriage::Quic { seen } => {
                let to = seen[end];
                let kind = QuicKind::Segment {
                    connection: number,
                    end,
                    at,
                    tries,
                };
                self.send_quic(here, to, QuicDatagram::stream(kind, length));
            }
            Carriage::Tcp { places } => {
                if self.passes(*places, connection.hosts) {
                    let latency = self.underlay.latency(here, there);
                    self.after(latency, Event::Segment(number, end, at));
                } else {
                    self.retransmit(number, end, at, tries);
                }
            }
            Carriage::Circuit { .. } => {}
        }
    }

    /// A message was lost on the way: its sender notices after a while.
    pub(crate) fn retransmit(&mut self, number: ConnectionNumber, end: usize, at: u64, tries: u32) {
        let Some(connection) = self.swarm.connections.get(&number) else {
            return;
        };
        let [here, there] = connection.hosts;
        let pause = RETRANSMISSION + self.underlay.latency(here, there) * 2;
        let pause = (pause * 2_u32.pow(tries.min(6))).min(MAX_RETRANSMISSION.max(pause));
        self.after(pause, Event::Retransmit(number, end, at, tries + 1));
    }

    /// Message `at` of `sender` has arrived; those that waited behind it are delivered with it.
    pub(crate) fn segment(&mut self, number: ConnectionNumber, sender: usize, at: u64) {
        let Some(connection) = self.swarm.connections.get_mut(&number) else {
            return;
        };
        connection.ends[sender].outgoing.arrives(at);
        self.heard(number, 1 - sender);
        while let Some(message) = self
            .swarm
            .connections
            .get_mut(&number)
            .and_then(|connection| connection.ends[sender].outgoing.next())
        {
            self.hear(number, 1 - sender, message);
        }
    }

    /// Something authentic came: the connection lives.
    pub(crate) fn heard(&mut self, number: ConnectionNumber, end: usize) {
        let now = self.now();
        if let Some(connection) = self.swarm.connections.get_mut(&number)
            && let Some(host) = self.hosts[connection.hosts[end]].as_ref()
        {
            connection.ends[end].heard = host.local(now);
        }
    }
}
