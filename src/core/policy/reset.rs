//! The answer to a TCP segment that may not pass: a reset, so that its sender need not wait for nothing.

use std::net::IpAddr;

use super::content::{ACK, FIN, FLAGS, RST, SYN, TCP, TCP_HEADER};
use crate::{
    checksum::{self, Sum},
    ip_packet::IpPacket,
};

const HOP_LIMIT: u8 = 64;

/// A TCP segment, as far as its reset depends on it.
struct Segment {
    source: IpAddr,
    destination: IpAddr,
    source_port: u16,
    destination_port: u16,
    sequence: u32,
    acknowledgment: u32,
    flags: u8,
    /// Of its text, SYN and FIN included.
    length: u32,
}

impl Segment {
    fn parse(packet: &IpPacket<'_>) -> Option<Self> {
        let upper = packet.upper_layer()?;
        let bytes = upper.bytes.get(..TCP_HEADER)?;
        if upper.protocol != TCP || upper.offset > 0 {
            return None;
        }
        let word = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let long = |at: usize| {
            u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let header = usize::from(bytes[12] >> 4) * 4;
        let flags = bytes[FLAGS];
        let text = upper.bytes.len().checked_sub(header)?;
        let control = u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
        Some(Self {
            source: packet.source(),
            destination: packet.destination(),
            source_port: word(0),
            destination_port: word(2),
            sequence: long(4),
            acknowledgment: long(8),
            flags,
            length: text as u32 + control,
        })
    }
}

/// Replaces what is in `answer` by the reset that `packet`'s sender gets, as if nobody listened (RFC 9293 §3.10.7.1).
/// Returns whether there is one: what is no TCP segment gets none, nor does a reset.
pub fn refusing(packet: &IpPacket<'_>, answer: &mut Vec<u8>) -> bool {
    let Some(segment) = Segment::parse(packet).filter(|segment| segment.flags & RST == 0) else {
        return false;
    };
    let (sequence, acknowledgment, flags) = if segment.flags & ACK != 0 {
        (segment.acknowledgment, 0, RST)
    } else {
        (0, segment.sequence.wrapping_add(segment.length), RST | ACK)
    };
    let from = (segment.destination, segment.destination_port);
    let to = (segment.source, segment.source_port);
    write(from, to, (sequence, acknowledgment, flags), answer)
}

/// Replaces what is in `answer` by a reset that goes on in place of `packet`: so the other end learns as well that the
/// connection is cut. Returns whether there is one.
pub fn replacing(packet: &IpPacket<'_>, answer: &mut Vec<u8>) -> bool {
    let Some(segment) = Segment::parse(packet).filter(|segment| segment.flags & ACK != 0) else {
        return false;
    };
    let from = (segment.source, segment.source_port);
    let to = (segment.destination, segment.destination_port);
    let numbers = (segment.sequence, segment.acknowledgment, RST | ACK);
    write(from, to, numbers, answer)
}

fn write(
    from: (IpAddr, u16),
    to: (IpAddr, u16),
    (sequence, acknowledgment, flags): (u32, u32, u8),
    answer: &mut Vec<u8>,
) -> bool {
    answer.clear();
    let addresses = match (from.0, to.0) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            answer.extend([0x45, 0, 0, 40, 0, 0, 0x40, 0, HOP_LIMIT, TCP, 0, 0]);
            answer.extend(from.octets());
            answer.extend(to.octets());
            checksum::write_ipv4_header(answer);
            12
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            answer.extend([0x60, 0, 0, 0, 0, TCP_HEADER as u8, TCP, HOP_LIMIT]);
            answer.extend(from.octets());
            answer.extend(to.octets());
            8
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return false,
    };
    let header = answer.len();
    answer.extend(from.1.to_be_bytes());
    answer.extend(to.1.to_be_bytes());
    answer.extend(sequence.to_be_bytes());
    answer.extend(acknowledgment.to_be_bytes());
    // Five words of header, no window, no urgent pointer.
    answer.extend([0x50, flags, 0, 0, 0, 0, 0, 0]);
    let sum = Sum::default()
        .add_bytes(&answer[addresses..])
        .add_word(TCP.into())
        .add_word(TCP_HEADER as u16)
        .checksum();
    answer[header + 16..header + 18].copy_from_slice(&sum.to_be_bytes());
    true
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::policy::testing::{packet, tcp};

    fn ends(is_ipv4: bool) -> ((IpAddr, u16), (IpAddr, u16)) {
        match is_ipv4 {
            true => (([10, 77, 0, 4].into(), 50_000), ([10, 77, 0, 5].into(), 22)),
            false => (
                ("fd00::4".parse().unwrap(), 50_000),
                ("fd00::5".parse().unwrap(), 22),
            ),
        }
    }

    #[test]
    fn both_resets_have_right_ends_and_checksums() {
        for is_ipv4 in [true, false] {
            let (a, b) = ends(is_ipv4);
            let packet = tcp(a, b, ACK, (7, 9));
            let packet = IpPacket::parse(&packet).unwrap();
            for (write, from, to) in [
                (refusing as fn(&IpPacket<'_>, &mut Vec<u8>) -> bool, b, a),
                (replacing, a, b),
            ] {
                let mut answer = Vec::new();
                assert!(write(&packet, &mut answer));
                let answer = IpPacket::parse(&answer).unwrap();
                assert_eq!((answer.source(), answer.destination()), (from.0, to.0));
                let segment = answer.payload();
                assert_eq!(segment[..2], from.1.to_be_bytes());
                assert_eq!(segment[2..4], to.1.to_be_bytes());
                let addresses = if is_ipv4 { 12..20 } else { 8..40 };
                let sum = Sum::default()
                    .add_bytes(&answer.bytes()[addresses])
                    .add_word(TCP.into())
                    .add_word(20)
                    .add_bytes(segment);
                assert_eq!(sum.checksum(), 0);
                let header = Sum::default().add_bytes(&answer.bytes()[..20]).checksum();
                assert!(!is_ipv4 || header == 0);
            }
        }
    }

    #[test]
    fn a_refused_segment_is_acknowledged_with_all_its_text() {
        let (a, b) = ends(true);
        let mut segment = tcp(a, b, SYN | FIN, (u32::MAX, 0));
        segment.extend([7; 10]);
        segment[3] = 50;
        let mut answer = Vec::new();
        assert!(refusing(&IpPacket::parse(&segment).unwrap(), &mut answer));
        assert_eq!(answer[24..28], [0; 4]);
        assert_eq!(answer[28..32], 11_u32.to_be_bytes());
    }

    proptest! {
        #[test]
        fn any_segment_is_answered_with_a_whole_packet_or_not_at_all(payload: Vec<u8>, is_ipv4: bool) {
            let (a, b) = ends(is_ipv4);
            let packet = packet(a.0, b.0, TCP, &payload);
            let packet = IpPacket::parse(&packet).unwrap();
            let mut answer = Vec::new();
            for write in [refusing, replacing] {
                if write(&packet, &mut answer) {
                    prop_assert!(IpPacket::parse(&answer).is_some());
                }
            }
        }
    }
}
