//! QUIC as far as a NAT can tell: its datagrams, and what each end believes about the other's endpoint.
//!
//! A handshake is an initial, an acceptance and a confirmation. The server believes the newest endpoint that a client's
//! datagram came from (migration); a client drops what comes from elsewhere. An end that has closed a connection
//! answers its datagrams by saying so, as a stateless reset does.

use std::{net::SocketAddrV4, time::Duration};

use libp2p_identity::PeerId;

use super::{Carriage, ConnectionNumber, KEEP_ALIVE, streams::Message};
use crate::{
    clock::millis,
    underlay::{HEADERS, HostId, Payload},
    world::{Event, World},
};

/// An initial is padded to this (RFC 9000 §14.1).
const INITIAL: usize = 1200;
/// A datagram with next to nothing in it: header, a frame, tag.
const SHORT: usize = 36;
/// What the datagrams of a stream carry each.
const SEGMENT: usize = 1200;
/// A server pings only when the client has not done so for this much longer than it should.
const SERVER_PATIENCE: Duration = millis(500);

/// After so much silence this end of a connection asks whether the other lives.
pub(super) fn patience(end: usize) -> Duration {
    if end == 1 {
        KEEP_ALIVE + SERVER_PATIENCE
    } else {
        KEEP_ALIVE
    }
}

/// One datagram, or those of one message of a stream that share their fate.
#[derive(Debug, Clone, Copy)]
pub struct QuicDatagram {
    /// Bytes of UDP payload of the longest one.
    pub length: usize,
    /// What it says.
    pub(crate) kind: QuicKind,
}

/// What a QUIC datagram says.
#[derive(Debug, Clone, Copy)]
pub(crate) enum QuicKind {
    /// "Are you `peer`?"
    Initial { attempt: u64, peer: PeerId },
    /// "I am."
    Accept {
        attempt: u64,
        connection: ConnectionNumber,
    },
    /// "I am not."
    Reject { attempt: u64 },
    /// The client has accepted the server; or either wants to know whether the other lives.
    Ping {
        connection: ConnectionNumber,
        end: usize,
    },
    /// "I do."
    Pong {
        connection: ConnectionNumber,
        end: usize,
    },
    /// A part of a stream.
    Segment {
        connection: ConnectionNumber,
        end: usize,
        at: u64,
        tries: u32,
    },
    /// This end has closed the connection, or never heard of it.
    Close {
        connection: ConnectionNumber,
        end: usize,
    },
    /// Opens a NAT, means nothing.
    Punch,
}

impl QuicDatagram {
    pub(crate) fn new(kind: QuicKind) -> Self {
        let length = match kind {
            QuicKind::Initial { .. } | QuicKind::Accept { .. } => INITIAL,
            QuicKind::Reject { .. }
            | QuicKind::Ping { .. }
            | QuicKind::Pong { .. }
            | QuicKind::Segment { .. }
            | QuicKind::Close { .. }
            | QuicKind::Punch => SHORT,
        };
        Self { length, kind }
    }

    pub(crate) fn stream(kind: QuicKind, bytes: usize) -> Self {
        let length = (bytes + SHORT).min(SEGMENT);
        Self { length, kind }
    }
}

impl World {
    pub(crate) fn send_quic(&mut self, from: HostId, to: SocketAddrV4, datagram: QuicDatagram) {
        debug_assert!(datagram.length + HEADERS <= 1280, "fits every link");
        self.send_datagram(from, to, Payload::Quic(datagram));
    }

    /// A datagram was lost. Only streams care.
    pub(crate) fn quic_lost(&mut self, datagram: QuicDatagram) {
        if let QuicKind::Segment {
            connection,
            end,
            at,
            tries,
        } = datagram.kind
        {
            self.retransmit(connection, end, at, tries);
        }
    }

    /// Keeps a connection and its NAT mappings alive.
    pub(super) fn ping(&mut self, number: ConnectionNumber, end: usize) {
        let Some(connection) = self.swarm.connections.get(&number) else {
            return;
        };
        let here = connection.hosts[end];
        match &connection.carriage {
            Carriage::Quic { seen } => {
                let ping = QuicKind::Ping {
                    connection: number,
                    end,
                };
                self.send_quic(here, seen[end], QuicDatagram::new(ping));
            }
            Carriage::Tcp { places } => {
                if self.passes(*places, connection.hosts) {
                    self.heard(number, end);
                }
            }
            Carriage::Circuit { .. } => {}
        }
    }

    /// A QUIC datagram has arrived at a host.
    pub(crate) fn quic_arrives(
        &mut self,
        here: HostId,
        from: SocketAddrV4,
        datagram: QuicDatagram,
    ) {
        match datagram.kind {
            QuicKind::Initial { attempt, peer } => self.initial(here, from, attempt, peer),
            QuicKind::Accept {
                attempt,
                connection,
            } => self.accepted(here, from, attempt, connection),
            QuicKind::Reject { attempt } => self.attempt_failed(attempt),
            QuicKind::Ping { connection, end } => {
                if self.comes_from_peer(here, from, connection, end) {
                    let pong = QuicKind::Pong {
                        connection,
                        end: 1 - end,
                    };
                    self.send_quic(here, from, QuicDatagram::new(pong));
                }
            }
            QuicKind::Pong { connection, end } => {
                self.comes_from_peer(here, from, connection, end);
            }
            QuicKind::Segment {
                connection,
                end,
                at,
                tries,
            } => {
                if self.comes_from_peer(here, from, connection, end) {
                    self.segment(connection, end, at);
                } else {
                    self.retransmit(connection, end, at, tries);
                }
            }
            QuicKind::Close { connection, end } => {
                let knows = self
                    .swarm
                    .connections
                    .get(&connection)
                    .is_some_and(|known| {
                        known.hosts[1 - end] == here && known.ends[1 - end].is_open
                    });
                if knows {
                    self.close_end(connection, 1 - end);
                }
            }
            QuicKind::Punch => {}
        }
    }

    /// Whether a datagram belongs to a connection that is open here. Opens the server's end, and lets it follow a
    /// client that has moved.
    fn comes_from_peer(
        &mut self,
        here: HostId,
        from: SocketAddrV4,
        number: ConnectionNumber,
        sender: usize,
    ) -> bool {
        let now = self.now();
        let end = 1 - sender;
        let gone = QuicKind::Close {
            connection: number,
            end,
        };
        let Some(connection) = self.swarm.connections.get_mut(&number) else {
            self.send_quic(here, from, QuicDatagram::new(gone));
            return false;
        };
        if connection.hosts[end] != here {
            return false;
        }
        let Carriage::Quic { seen } = &mut connection.carriage else {
            return false;
        };
        if end == 0 && seen[end] != from {
            return false;
        }
        let has_moved = std::mem::replace(&mut seen[end], from) != from;
        let was_heard = connection.ends[end].heard > Duration::ZERO;
        if !connection.ends[end].is_open {
            if end == 0 || was_heard {
                self.send_quic(here, from, QuicDatagram::new(gone));
                return false;
            }
            self.open_end(number, end);
        } else if has_moved {
            self.note(format_args!("{here} follows connection {number} to {from}"));
            let way = self.way(number, end);
            self.host(here).moved(number, way, now);
            self.tell(number, end, Message::Observed(from));
            self.drain(here);
        }
        self.heard(number, end);
        true
    }

    /// Says once, by an unreliable datagram or through the relay, that this end is closed.
    pub(super) fn tell_closed(&mut self, number: ConnectionNumber, end: usize) {
        let Some(connection) = self.swarm.connections.get(&number) else {
            return;
        };
        let [here, there] = [connection.hosts[end], connection.hosts[1 - end]];
        match &connection.carriage {
            Carriage::Quic { seen } => {
                let close = QuicKind::Close {
                    connection: number,
                    end,
                };
                self.send_quic(here, seen[end], QuicDatagram::new(close));
            }
            Carriage::Tcp { places } => {
                if self.passes(*places, connection.hosts) {
                    let latency = self.underlay.latency(here, there);
                    self.after(latency, Event::Reset(number, 1 - end));
                }
            }
            Carriage::Circuit { legs, .. } => {
                let leg = legs[end];
                if let Some(leg_end) = self.swarm.connections.get(&leg).map(|c| c.end_of(here)) {
                    let closed = Message::Closed;
                    let inner = Message::Circuit(number, Box::new(closed));
                    self.tell(leg, leg_end, inner);
                }
            }
        }
    }
}
