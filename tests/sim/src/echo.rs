//! The applications: one host asks another by an overlay packet, and the other answers.
//!
//! A packet says from whom to whom it goes and carries a number; every packet that a host receives must be one that was
//! sent to it, unharmed and not seen before.

use std::{collections::BTreeMap, net::Ipv4Addr};

use crate::{clock::Moment, founding, underlay::HostId};

const HEADER: usize = 20;
/// Shortest packet: a header, a number, and what kind it is.
pub const SHORTEST: usize = HEADER + 9;
const ASK: u8 = 1;
const ANSWER: u8 = 2;

/// A packet that was sent, and what became of it.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    /// Who asked.
    pub from: HostId,
    /// Whom.
    pub to: HostId,
    /// When.
    pub at: Moment,
    /// When the question arrived.
    pub arrived: Option<Moment>,
    /// When the answer was back.
    pub answered: Option<Moment>,
}

/// Every question of the world.
#[derive(Debug, Default)]
pub struct Echo {
    asked: BTreeMap<u64, Asked>,
    /// Packets given to nodes, and taken from them.
    pub offered: u64,
    /// Packets that nodes have delivered.
    pub delivered: u64,
}

/// What a packet that arrived asks of its receiver.
#[derive(Debug, PartialEq, Eq)]
pub enum Reaction {
    /// Send this back.
    Answer(Vec<u8>),
    /// Nothing.
    Nothing,
}

impl Echo {
    /// Makes the next question, as a packet of `length` bytes.
    pub fn ask(&mut self, from: HostId, to: HostId, length: usize, at: Moment) -> (u64, Vec<u8>) {
        let number = self.asked.len() as u64;
        let asked = Asked {
            from,
            to,
            at,
            arrived: None,
            answered: None,
        };
        self.asked.insert(number, asked);
        (number, packet(from, to, ASK, number, length))
    }

    /// What became of a question.
    pub fn get(&self, number: u64) -> &Asked {
        &self.asked[&number]
    }

    /// All questions.
    pub fn all(&self) -> impl Iterator<Item = &Asked> {
        self.asked.values()
    }

    /// A packet has arrived at a host. An error says which rule it breaks.
    pub fn arrived(
        &mut self,
        at: HostId,
        bytes: &[u8],
        now: Moment,
    ) -> Result<Reaction, &'static str> {
        if bytes.len() >= HEADER && bytes[9] == 1 {
            // The core tells a sender by ICMP that a packet is too long.
            return Ok(Reaction::Nothing);
        }
        self.delivered += 1;
        if bytes.len() < SHORTEST {
            return Err("a packet that nobody sent");
        }
        let number = u64::from_be_bytes(bytes[21..29].try_into().expect("eight bytes"));
        let asked = self.asked.get_mut(&number);
        let asked = asked.ok_or("a packet that nobody sent")?;
        let is_question = bytes[20] == ASK;
        let (from, to) = if is_question {
            (asked.from, asked.to)
        } else {
            (asked.to, asked.from)
        };
        if to != at {
            return Err("a packet for somebody else");
        }
        if bytes != packet(from, to, bytes[20], number, bytes.len()) {
            return Err("a packet that was changed on the way");
        }
        let arrived = if is_question {
            &mut asked.arrived
        } else {
            &mut asked.answered
        };
        if arrived.replace(now).is_some() {
            return Err("a packet that had arrived already");
        }
        Ok(if is_question {
            Reaction::Answer(packet(to, from, ANSWER, number, bytes.len()))
        } else {
            Reaction::Nothing
        })
    }
}

fn packet(from: HostId, to: HostId, kind: u8, number: u64, length: usize) -> Vec<u8> {
    let length = length.max(SHORTEST);
    let mut packet = vec![0xab; length];
    packet[..HEADER].fill(0);
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&(length as u16).to_be_bytes());
    packet[6] = 0x40; // don't fragment
    packet[8] = 64;
    packet[9] = 17;
    let (source, destination): (Ipv4Addr, Ipv4Addr) = (founding::ipv4(from), founding::ipv4(to));
    packet[12..16].copy_from_slice(&source.octets());
    packet[16..20].copy_from_slice(&destination.octets());
    packet[20] = kind;
    packet[21..29].copy_from_slice(&number.to_be_bytes());
    packet
}
