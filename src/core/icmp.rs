//! Telling the sender of a packet that it is too big for the path, or forbidden, as a router on the way would.
//!
//! Of a packet that is too big the local kernel is told, through the overlay interface, so that it lowers its path MTU and
//! the connection goes on with smaller packets. The answer speaks for the place where the packet got stuck, so its source is the packet's destination:
//! an answer from one of our own addresses would arrive *from outside* with a source that is local, and kernels refuse
//! such packets as forged.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use crate::{
    checksum::{self, Sum},
    ip_packet::IpPacket,
};

const ICMPV4: u8 = 1;
const ICMPV6: u8 = 58;
/// Type and code of "fragmentation needed and DF set" (RFC 792, next-hop MTU in RFC 1191 §4).
const FRAGMENTATION_NEEDED: [u8; 2] = [3, 4];
/// Type and code of "packet too big" (RFC 4443 §3.2).
const PACKET_TOO_BIG: [u8; 2] = [2, 0];
/// Type and code of "communication administratively prohibited" (RFC 1812 §5.2.7.1).
const COMMUNICATION_PROHIBITED: [u8; 2] = [3, 13];
/// Type and code of "communication with destination administratively prohibited" (RFC 4443 §3.1).
const COMMUNICATION_PROHIBITED_BY_POLICY: [u8; 2] = [1, 1];
/// An answer never exceeds what everybody can receive: RFC 1812 §4.3.2.3 and RFC 4443 §2.4 (c).
const MAX_IPV4_ANSWER: usize = 576;
const MAX_IPV6_ANSWER: usize = 1280;
const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
const ICMP_HEADER: usize = 8;
const HOP_LIMIT: u8 = 64;

/// Replaces what is in `answer` by the message that packets like `packet` must not exceed `mtu` bytes.
///
/// Returns whether there is such an answer: errors are not answered with errors, nor is what no single node sent, nor
/// a fragment but the first (RFC 1122 §3.2.2, RFC 4443 §2.4 (e)).
pub fn packet_too_big(packet: &IpPacket<'_>, mtu: u16, answer: &mut Vec<u8>) -> bool {
    let kinds = [FRAGMENTATION_NEEDED, PACKET_TOO_BIG];
    write_error(packet, kinds, mtu, answer)
}

/// Replaces what is in `answer` by the message that somebody's policy forbids `packet`. Returns whether there is such an
/// answer, as [`packet_too_big`] does.
pub fn prohibited(packet: &IpPacket<'_>, answer: &mut Vec<u8>) -> bool {
    let kinds = [COMMUNICATION_PROHIBITED, COMMUNICATION_PROHIBITED_BY_POLICY];
    write_error(packet, kinds, 0, answer)
}

/// An error about `packet`, of the first kind over IPv4, of the second over IPv6.
fn write_error(
    packet: &IpPacket<'_>,
    kinds: [[u8; 2]; 2],
    parameter: u16,
    answer: &mut Vec<u8>,
) -> bool {
    if !may_be_answered(packet) {
        return false;
    }
    answer.clear();
    match (packet.destination(), packet.source()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let room = MAX_IPV4_ANSWER - IPV4_HEADER - ICMP_HEADER;
            let quoted = &packet.bytes()[..packet.bytes().len().min(room)];
            let total = (IPV4_HEADER + ICMP_HEADER + quoted.len()) as u16;
            answer.extend([0x45, 0]);
            answer.extend(total.to_be_bytes());
            answer.extend([0, 0, 0x40, 0, HOP_LIMIT, ICMPV4, 0, 0]);
            answer.extend(from.octets());
            answer.extend(to.octets());
            checksum::write_ipv4_header(answer);
            push_message(kinds[0], parameter, quoted, Sum::default(), answer);
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let room = MAX_IPV6_ANSWER - IPV6_HEADER - ICMP_HEADER;
            let quoted = &packet.bytes()[..packet.bytes().len().min(room)];
            let length = (ICMP_HEADER + quoted.len()) as u16;
            answer.extend([0x60, 0, 0, 0]);
            answer.extend(length.to_be_bytes());
            answer.extend([ICMPV6, HOP_LIMIT]);
            answer.extend(from.octets());
            answer.extend(to.octets());
            let pseudo_header = Sum::default()
                .add_bytes(&from.octets())
                .add_bytes(&to.octets())
                .add_word(length)
                .add_word(ICMPV6.into());
            push_message(kinds[1], parameter, quoted, pseudo_header, answer);
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return false,
    }
    true
}

/// The parameter, an MTU, is in the lower half of the second word; the upper is zero.
fn push_message(kind: [u8; 2], parameter: u16, quoted: &[u8], sum: Sum, answer: &mut Vec<u8>) {
    let sum = sum
        .add_bytes(&kind)
        .add_word(parameter)
        .add_bytes(quoted)
        .checksum();
    answer.extend(kind);
    answer.extend(sum.to_be_bytes());
    answer.extend([0, 0]);
    answer.extend(parameter.to_be_bytes());
    answer.extend_from_slice(quoted);
}

fn may_be_answered(packet: &IpPacket<'_>) -> bool {
    let source = packet.source();
    if source.is_multicast()
        || source.is_unspecified()
        || source.is_loopback()
        || source == IpAddr::from([255; 4])
    {
        return false;
    }
    let Some(upper) = packet.upper_layer().filter(|upper| upper.offset == 0) else {
        return false;
    };
    let kind = upper.bytes.first();
    let is_error = match (packet.is_ipv4(), upper.protocol) {
        // RFC 1122 §3.2.2: unreachable, source quench, redirect, time exceeded, parameter problem.
        (true, ICMPV4) => matches!(kind, None | Some(3 | 4 | 5 | 11 | 12)),
        // Errors have a type below 128 (RFC 4443 §2.1), and a redirect (137) counts as one.
        (false, ICMPV6) => kind.is_none_or(|&kind| kind < 128 || kind == 137),
        (_, _) => false,
    };
    !is_error
}

/// Bounds how many answers leave (RFC 4443 §2.4 (f)): a hundred a second, and as many at once.
#[derive(Debug)]
pub struct Budget {
    credit: Duration,
    counted: Instant,
}

impl Budget {
    const MAX_CREDIT: Duration = Duration::from_secs(1);
    const PRICE: Duration = Duration::from_millis(10);

    /// A full one.
    pub fn new(now: Instant) -> Self {
        Self {
            credit: Self::MAX_CREDIT,
            counted: now,
        }
    }

    /// Pays for one answer, if there is enough left.
    pub fn pay(&mut self, now: Instant) -> bool {
        let earned = now.saturating_duration_since(self.counted);
        self.counted = self.counted.max(now);
        self.credit = (self.credit + earned).min(Self::MAX_CREDIT);
        let left = self.credit.checked_sub(Self::PRICE);
        self.credit = left.unwrap_or(self.credit);
        left.is_some()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::epoch;

    fn ipv4(protocol: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, protocol, 0, 0];
        packet.extend([10, 77, 0, 4, 10, 77, 0, 5]);
        packet.extend_from_slice(payload);
        let total = packet.len() as u16;
        packet[2..4].copy_from_slice(&total.to_be_bytes());
        packet
    }

    fn ipv6(next_header: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0, 0, 0, next_header, 64];
        packet[4..6].copy_from_slice(&(payload.len() as u16).to_be_bytes());
        for end in [4, 5] {
            packet.extend([0xfd; 15]);
            packet.push(end);
        }
        packet.extend_from_slice(payload);
        packet
    }

    fn answer(packet: &[u8], mtu: u16) -> Option<Vec<u8>> {
        let mut answer = vec![0xee; 3];
        packet_too_big(&IpPacket::parse(packet)?, mtu, &mut answer).then_some(answer)
    }

    #[test]
    fn the_sender_of_an_ipv4_packet_learns_the_mtu() {
        let packet = ipv4(6, &[0xab; 1400]);
        let answer = answer(&packet, 1280).unwrap();
        let parsed = IpPacket::parse(&answer).unwrap();
        assert_eq!(parsed.source(), IpAddr::from([10, 77, 0, 5]));
        assert_eq!(parsed.destination(), IpAddr::from([10, 77, 0, 4]));
        assert_eq!(answer.len(), MAX_IPV4_ANSWER);
        assert_eq!(Sum::default().add_bytes(&answer[..20]).checksum(), 0);
        let message = parsed.payload();
        assert_eq!(Sum::default().add_bytes(message).checksum(), 0);
        assert_eq!(message[..2], FRAGMENTATION_NEEDED);
        assert_eq!(message[4..8], [0, 0, 0x05, 0x00]);
        assert_eq!(message[8..], packet[..548]);
    }

    #[test]
    fn the_sender_of_an_ipv6_packet_learns_the_mtu() {
        let packet = ipv6(17, &[0xab; 1361]);
        let answer = answer(&packet, 1300).unwrap();
        assert_eq!(answer.len(), MAX_IPV6_ANSWER);
        let parsed = IpPacket::parse(&answer).unwrap();
        assert_eq!(parsed.protocol(), ICMPV6);
        let message = parsed.payload();
        let sum = Sum::default()
            .add_bytes(&answer[8..40])
            .add_word(message.len() as u16)
            .add_word(ICMPV6.into())
            .add_bytes(message);
        assert_eq!(sum.checksum(), 0);
        assert_eq!(message[..2], PACKET_TOO_BIG);
        assert_eq!(message[4..8], 1300_u32.to_be_bytes());
        assert_eq!(message[8..], packet[..1232]);
    }

    #[test]
    fn who_is_forbidden_a_packet_learns_it() {
        for (packet, kind) in [(ipv4(17, &[7; 30]), [3, 13]), (ipv6(17, &[7; 30]), [1, 1])] {
            let mut answer = Vec::new();
            let packet = IpPacket::parse(&packet).unwrap();
            assert!(prohibited(&packet, &mut answer));
            let answer = IpPacket::parse(&answer).unwrap();
            assert_eq!(answer.source(), packet.destination());
            assert_eq!(answer.payload()[..2], kind);
            assert_eq!(answer.payload()[4..8], [0; 4]);
            assert_eq!(&answer.payload()[8..], packet.bytes());
        }
    }

    #[test]
    fn errors_are_not_answered_with_errors_but_echoes_are() {
        for (kind, is_answered) in [(3, false), (11, false), (12, false), (8, true), (0, true)] {
            assert_eq!(answer(&ipv4(1, &[kind; 9]), 1280).is_some(), is_answered);
        }
        for (kind, is_answered) in [(1, false), (2, false), (137, false), (128, true)] {
            assert_eq!(answer(&ipv6(58, &[kind; 9]), 1280).is_some(), is_answered);
            // The same behind destination options of eight bytes.
            let mut hidden = vec![ICMPV6, 0, 1, 4, 0, 0, 0, 0];
            hidden.push(kind);
            assert_eq!(answer(&ipv6(60, &hidden), 1280).is_some(), is_answered);
        }
    }

    #[test]
    fn of_a_fragmented_packet_only_the_first_part_is_answered() {
        let mut packet = ipv4(17, &[0; 100]);
        packet[6] = 0x20;
        assert!(answer(&packet, 1280).is_some());
        packet[7] = 1;
        assert!(answer(&packet, 1280).is_none());
        let mut packet = ipv6(44, &[17, 0, 0, 1, 0, 0, 0, 0, 9]);
        assert!(answer(&packet, 1280).is_some());
        packet[43] = 8;
        assert!(answer(&packet, 1280).is_none());
    }

    #[test]
    fn nobody_in_particular_is_not_answered() {
        for source in [[0, 0, 0, 0], [224, 0, 0, 1], [255, 255, 255, 255]] {
            let mut packet = ipv4(17, &[0; 100]);
            packet[12..16].copy_from_slice(&source);
            assert!(answer(&packet, 1280).is_none(), "{source:?}");
        }
    }

    #[test]
    fn answers_are_bounded_and_come_back_with_time() {
        let start = epoch();
        let mut budget = Budget::new(start);
        let paid = |budget: &mut Budget, now| (0..1000).filter(|_| budget.pay(now)).count();
        assert_eq!(paid(&mut budget, start), 100);
        assert_eq!(paid(&mut budget, start + Duration::from_millis(500)), 50);
        assert_eq!(paid(&mut budget, start + Duration::from_secs(3600)), 100);
    }

    proptest! {
        #[test]
        fn any_packet_is_answered_with_a_whole_packet_or_not_at_all(
            mut bytes: Vec<u8>, is_ipv4: bool, mtu: u16,
        ) {
            if let Some(first) = bytes.first_mut() { *first = if is_ipv4 { 0x45 } else { 0x60 }; }
            if let Some(answer) = answer(&bytes, mtu) {
                prop_assert_eq!(IpPacket::parse(&answer).unwrap().bytes().len(), answer.len());
            }
        }

        #[test]
        fn any_chain_of_extension_headers_comes_to_an_end(next_header: u8, payload: Vec<u8>) {
            let _ = answer(&ipv6(next_header, &payload), 1280);
        }
    }
}
