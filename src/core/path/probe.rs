//! The probe that proves a path: a tiny packet inside the WireGuard session, so that only the peer can answer
//! it and no relay on the way can tell it from data.
//!
//! It is an IPv6 packet between the two nodes' self-certifying addresses with the next header that RFC 3692 sets
//! aside for experiments. The answer goes back by the path the question came by. A stock WireGuard peer is never
//! probed.
//!
//! ```text
//! IPv6 header (40) │ "hvp1" │ 0 ask, 1 answer │ 3 zero │ number (8, big endian)
//! ```

use std::net::{IpAddr, Ipv6Addr};

use crate::ip_packet::IpPacket;

/// "Use for experimentation and testing" (RFC 3692 §2.1).
const NEXT_HEADER: u8 = 253;
const MAGIC: [u8; 4] = *b"hvp1";
const HEADER: usize = 40;
const BODY: usize = 16;

/// Length of a probe packet in bytes.
pub const LENGTH: usize = HEADER + BODY;

/// A question or its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    /// "Do you hear me by this path?"
    Ask(u64),
    /// "Yes, I heard this number."
    Answer(u64),
}

impl Probe {
    /// The probe as an overlay packet.
    pub fn packet(self, source: Ipv6Addr, destination: Ipv6Addr) -> [u8; LENGTH] {
        let (kind, number) = match self {
            Self::Ask(number) => (0, number),
            Self::Answer(number) => (1, number),
        };
        let mut packet = [0; LENGTH];
        packet[0] = 0x60;
        packet[5] = BODY as u8;
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
        let body: &[u8; BODY] = packet.payload().try_into().ok()?;
        if packet.protocol() != NEXT_HEADER
            || packet.source() != IpAddr::V6(peer)
            || packet.destination() != IpAddr::V6(us)
            || body[..4] != MAGIC
        {
            return None;
        }
        let number = u64::from_be_bytes(body[8..].try_into().ok()?);
        match body[4] {
            0 => Some(Self::Ask(number)),
            1 => Some(Self::Answer(number)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
    const B: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);

    #[test]
    fn a_probe_is_read_back_as_it_was_written() {
        for probe in [Probe::Ask(7), Probe::Answer(u64::MAX)] {
            let packet = probe.packet(A, B);
            let packet = IpPacket::parse(&packet).unwrap();
            assert_eq!(Probe::parse(&packet, A, B), Some(probe));
            assert_eq!(
                Probe::parse(&packet, B, A),
                None,
                "only between the two named ends"
            );
        }
    }

    #[test]
    fn an_ordinary_packet_is_no_probe() {
        let mut packet = Probe::Ask(1).packet(A, B);
        packet[6] = 17;
        assert_eq!(Probe::parse(&IpPacket::parse(&packet).unwrap(), A, B), None);
    }
}
