//! Packets and rules as the tests write them down.

use std::net::IpAddr;

use super::{Action, Mode, Policy, Rule};
use crate::checksum;

pub const FIN: u8 = super::content::FIN;
pub const SYN: u8 = super::content::SYN;
pub const RST: u8 = super::content::RST;
pub const ACK: u8 = super::content::ACK;

/// Address and port.
pub type End = (IpAddr, u16);

/// `allow group:dev gpu tcp/22 icmp`.
pub fn rule(text: &str) -> Rule {
    let words: Vec<_> = text.split(' ').collect();
    let [action, from, to, ports @ ..] = &words[..] else {
        panic!("{text}")
    };
    Rule {
        action: match *action {
            "allow" => Action::Allow,
            "deny" => Action::Deny,
            other => panic!("{other}"),
        },
        from: from.split(',').map(|word| word.parse().unwrap()).collect(),
        to: to.split(',').map(|word| word.parse().unwrap()).collect(),
        ports: ports.iter().map(|word| word.parse().unwrap()).collect(),
        note: None,
    }
}

pub fn policy(mode: Mode, rules: &[&str]) -> Policy {
    Policy::new(mode, rules.iter().map(|text| rule(text)), []).unwrap()
}

/// An IP packet of either family.
pub fn packet(from: IpAddr, to: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let length = payload.len() as u16;
    let mut packet = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut header = vec![0x45, 0, 0, 0, 1, 2, 0x40, 0, 64, protocol, 0, 0];
            header.extend(from.octets());
            header.extend(to.octets());
            header[2..4].copy_from_slice(&(20 + length).to_be_bytes());
            checksum::write_ipv4_header(&mut header);
            header
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let mut header = vec![0x60, 0, 0, 0, 0, 0, protocol, 64];
            header[4..6].copy_from_slice(&length.to_be_bytes());
            header.extend(from.octets());
            header.extend(to.octets());
            header
        }
        (_, _) => panic!("two families"),
    };
    packet.extend_from_slice(payload);
    packet
}

/// A TCP segment with a right length and no checksum.
pub fn tcp(from: End, to: End, flags: u8, (sequence, acknowledgment): (u32, u32)) -> Vec<u8> {
    let mut segment = Vec::new();
    segment.extend(from.1.to_be_bytes());
    segment.extend(to.1.to_be_bytes());
    segment.extend(sequence.to_be_bytes());
    segment.extend(acknowledgment.to_be_bytes());
    segment.extend([0x50, flags, 0, 0, 0, 0, 0, 0]);
    packet(from.0, to.0, 6, &segment)
}

pub fn udp(from: End, to: End, text: &[u8]) -> Vec<u8> {
    let mut datagram = Vec::new();
    datagram.extend(from.1.to_be_bytes());
    datagram.extend(to.1.to_be_bytes());
    datagram.extend((8 + text.len() as u16).to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend_from_slice(text);
    packet(from.0, to.0, 17, &datagram)
}

pub fn echo(from: IpAddr, to: IpAddr, is_request: bool, id: u16) -> Vec<u8> {
    let (protocol, kind) = match (from.is_ipv4(), is_request) {
        (true, true) => (1, 8),
        (true, false) => (1, 0),
        (false, true) => (58, 128),
        (false, false) => (58, 129),
    };
    let [high, low] = id.to_be_bytes();
    packet(from, to, protocol, &[kind, 0, 0, 0, high, low, 0, 1])
}

/// "Port unreachable" about a packet.
pub fn unreachable(from: IpAddr, to: IpAddr, about: &[u8]) -> Vec<u8> {
    let (protocol, kind, code) = match from.is_ipv4() {
        true => (1, 3, 3),
        false => (58, 1, 4),
    };
    let mut message = vec![kind, code, 0, 0, 0, 0, 0, 0];
    message.extend_from_slice(about);
    packet(from, to, protocol, &message)
}
