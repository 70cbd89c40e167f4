//! The probe that proves a path: a packet inside the WireGuard session, so that only the peer can answer it and no
//! relay on the way can tell it from data. A question may be as long as the packets that the path shall carry; the
//! answer is always short.
//!
//! It is an IPv6 packet between the two nodes' self-certifying addresses with the next header that RFC 3692 sets
//! aside for experiments. The answer goes back by the path the question came by. A stock WireGuard peer is never
//! probed.
//!
//! ```text
//! IPv6 header (40) │ "hvp1" │ 0 ask, 1 answer │ 3 zero │ number (8, big endian) │ zeros (an ask only)
//! ```

use std::net::{IpAddr, Ipv6Addr};

use crate::ip_packet::IpPacket;

/// "Use for experimentation and testing" (RFC 3692 §2.1).
const NEXT_HEADER: u8 = 253;
const MAGIC: [u8; 4] = *b"hvp1";
const HEADER: usize = 40;
const BODY: usize = 16;

/// Length of the shortest probe packet in bytes.
pub const LENGTH: u16 = (HEADER + BODY) as u16;

/// A question or its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    /// "Do you hear me by this path?"
    Ask(u64),
    /// "Yes, I heard this number."
    Answer(u64),
}

impl Probe {
    /// The probe as an overlay packet of `length` bytes, at least [`LENGTH`]; an answer has no more.
    pub fn packet(self, source: Ipv6Addr, destination: Ipv6Addr, length: u16) -> Vec<u8> {
        let (kind, number, length) = match self {
            Self::Ask(number) => (0, number, length.max(LENGTH)),
            Self::Answer(number) => (1, number, LENGTH),
        };
        let mut packet = vec![0; length.into()];
        packet[0] = 0x60;
        packet[4..6].copy_from_slice(&(length - HEADER as u16).to_be_bytes());
        packet[6] = NEXT_HEADER;
        packet[7] = 1; // hop limit: it never leaves the tunnel
        packet[8..24].copy_from_slice(&source.octets());
        packet[24..40].copy_from_slice(&destination.octets());
        packet[40..44].copy_from_slice(&MAGIC);
        packet[44] = kind;
        packet[48..56].copy_from_slice(&number.to_be_bytes());
        packet
    }

    /// Reads a probe from `peer` to `us`; anything else is an ordinary packet.
    pub fn parse(packet: &IpPacket<'_>, peer: Ipv6Addr, us: Ipv6Addr) -> Option<Self> {
        let (body, padding) = packet.payload().split_first_chunk::<BODY>()?;
        if packet.protocol() != NEXT_HEADER
            || packet.source() != IpAddr::V6(peer)
            || packet.destination() != IpAddr::V6(us)
            || body[..4] != MAGIC
        {
            return None;
        }
        let number = u64::from_be_bytes(body[8..].try_into().ok()?);
        match body[4] {
            0 if padding.iter().all(|byte| *byte == 0) => Some(Self::Ask(number)),
            1 if padding.is_empty() => Some(Self::Answer(number)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const A: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
    const B: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);

    fn parse(packet: &[u8]) -> Option<Probe> {
        Probe::parse(&IpPacket::parse(packet)?, A, B)
    }

    #[test]
    fn a_probe_is_read_back_as_it_was_written() {
        for probe in [Probe::Ask(7), Probe::Answer(u64::MAX)] {
            let packet = probe.packet(A, B, LENGTH);
            assert_eq!(parse(&packet), Some(probe));
            let packet = IpPacket::parse(&packet).unwrap();
            assert_eq!(
                Probe::parse(&packet, B, A),
                None,
                "only between the two named ends"
            );
        }
    }

    #[test]
    fn an_ordinary_packet_is_no_probe() {
        let mut packet = Probe::Ask(1).packet(A, B, LENGTH);
        packet[6] = 17;
        assert_eq!(parse(&packet), None);
    }

    #[test]
    fn an_answer_is_short_whatever_the_question() {
        assert_eq!(Probe::Answer(1).packet(A, B, 1280).len(), LENGTH.into());
    }

    #[test]
    fn padding_is_nothing_but_zeros() {
        let mut packet = Probe::Ask(1).packet(A, B, 1280);
        packet[1279] = 1;
        assert_eq!(parse(&packet), None);
    }

    proptest! {
        #[test]
        fn a_question_of_any_length_is_understood(number: u64, length: u16) {
            let packet = Probe::Ask(number).packet(A, B, length);
            prop_assert_eq!(packet.len(), usize::from(length.max(LENGTH)));
            prop_assert_eq!(parse(&packet), Some(Probe::Ask(number)));
        }

        #[test]
        fn any_payload_is_a_probe_or_not_without_panic(payload: Vec<u8>, is_magic: bool) {
            let mut packet = Probe::Ask(0).packet(A, B, LENGTH)[..HEADER].to_vec();
            packet[4..6].copy_from_slice(&(payload.len() as u16).to_be_bytes());
            packet.extend(payload);
            if let (true, Some(magic)) = (is_magic, packet.get_mut(HEADER..HEADER + 4)) {
                magic.copy_from_slice(&MAGIC);
            }
            let _ = parse(&packet);
        }
    }
}
