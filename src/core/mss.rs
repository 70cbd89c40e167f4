//! Keeps TCP from ever sending a segment that the path cannot carry: the maximum segment size that the two ends
//! announce in their SYNs is lowered to what fits (RFC 9293 §3.7.1), so that neither has to learn it by losing packets.
//!
//! It is a courtesy, not a must: what nobody could read is left alone, and
//! ["packet too big"](crate::icmp) remains for everything else. IPv6 packets with extension headers are not looked into.

use crate::checksum;

/// The protocol number of TCP.
const TCP: u8 = 6;
/// A TCP header without options (RFC 9293 §3.1).
const TCP_HEADER: usize = 20;
/// Where the TCP header keeps its flags, and among them SYN.
const FLAGS: usize = 13;
const SYN: u8 = 0x02;
/// Where the TCP header keeps its checksum.
const CHECKSUM: usize = 16;
/// TCP options (RFC 9293 §3.2).
const END_OF_OPTIONS: u8 = 0;
const NO_OPERATION: u8 = 1;
const MAXIMUM_SEGMENT_SIZE: u8 = 2;

/// Where the TCP header of a SYN or SYN-ACK begins; `None` for every other packet, after a few compares.
fn syn(packet: &[u8]) -> Option<usize> {
    let header = match packet.first()? >> 4 {
        4 => {
            let is_fragment = *packet.get(6)? & 0x1f != 0 || *packet.get(7)? != 0;
            if is_fragment || *packet.get(9)? != TCP {
                return None;
            }
            usize::from(packet[0] & 0x0f) * 4
        }
        6 if *packet.get(6)? == TCP => 40,
        _ => return None,
    };
    (*packet.get(header + FLAGS)? & SYN != 0).then_some(header)
}

/// `packet`, or if it is a SYN a copy in `scratch` that asks for no more than packets of `mtu` bytes.
pub fn clamped<'a>(packet: &'a [u8], mtu: u16, scratch: &'a mut Vec<u8>) -> &'a [u8] {
    if syn(packet).is_none() {
        return packet;
    }
    scratch.clear();
    scratch.extend_from_slice(packet);
    clamp(scratch, mtu);
    scratch
}

/// Lowers the maximum segment size of a SYN to what fits packets of `mtu` bytes; never raises it.
///
/// Every other packet stays as it is, and so does a SYN without the option or with options that make no sense.
pub fn clamp(packet: &mut [u8], mtu: u16) {
    if let Some(header) = syn(packet) {
        let room = usize::from(mtu).saturating_sub(if packet[0] >> 4 == 4 { 40 } else { 60 });
        clamp_segment(&mut packet[header..], room as u16);
    }
}

fn clamp_segment(segment: &mut [u8], room: u16) {
    let Some(place) = mss_place(segment).filter(|_| room > 0) else {
        return;
    };
    let old = u16::from_be_bytes([segment[place], segment[place + 1]]);
    if old <= room {
        return;
    }
    segment[place..place + 2].copy_from_slice(&room.to_be_bytes());
    // An option may begin anywhere: at an odd place its bytes are the other halves of two summed words.
    let (old, new) = if place % 2 == 0 {
        (old, room)
    } else {
        (old.swap_bytes(), room.swap_bytes())
    };
    let sum = u16::from_be_bytes([segment[CHECKSUM], segment[CHECKSUM + 1]]);
    let sum = checksum::updated(sum, old, new);
    segment[CHECKSUM..CHECKSUM + 2].copy_from_slice(&sum.to_be_bytes());
}

/// Where the value of the maximum segment size is, if all options are well formed and it is among them once.
fn mss_place(segment: &[u8]) -> Option<usize> {
    let header = usize::from(segment.get(12)? >> 4) * 4;
    let options = segment.get(TCP_HEADER..header)?;
    let (mut at, mut place) = (0, None);
    while at < options.len() {
        let length = match options[at] {
            END_OF_OPTIONS => break,
            NO_OPERATION => 1,
            kind => {
                let length = usize::from(*options.get(at + 1)?);
                if length < 2 || at + length > options.len() {
                    return None;
                }
                if kind == MAXIMUM_SEGMENT_SIZE {
                    if length != 4 || place.is_some() {
                        return None;
                    }
                    place = Some(TCP_HEADER + at + 2);
                }
                length
            }
        };
        at += length;
    }
    place
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{checksum::Sum, ip_packet::IpPacket};

    /// A TCP packet with these flags and options (padded with no-operations) and a valid checksum.
    fn tcp(is_ipv4: bool, flags: u8, options: &[u8], text: &[u8]) -> Vec<u8> {
        let mut segment = vec![0x17; TCP_HEADER];
        segment.extend_from_slice(options);
        segment.resize(segment.len().next_multiple_of(4), NO_OPERATION);
        segment[12] = (segment.len() / 4 * 16) as u8;
        segment[FLAGS] = flags;
        segment.extend_from_slice(text);
        let length = segment.len() as u16;
        let mut packet = if is_ipv4 {
            let mut header = vec![0x45, 0, 0, 0, 1, 2, 0x40, 0, 64, TCP, 0, 0];
            header.extend([10, 77, 0, 4, 10, 77, 0, 5]);
            header[2..4].copy_from_slice(&(20 + length).to_be_bytes());
            checksum::write_ipv4_header(&mut header);
            header
        } else {
            let mut header = vec![0x60, 0, 0, 0, 0, 0, TCP, 64];
            header[4..6].copy_from_slice(&length.to_be_bytes());
            header.extend([0xfd; 32]);
            header
        };
        segment[CHECKSUM..CHECKSUM + 2].fill(0);
        let header = packet.len();
        packet.extend(segment);
        let sum = transport_sum(&packet, header).checksum();
        packet[header + CHECKSUM..][..2].copy_from_slice(&sum.to_be_bytes());
        packet
    }

    fn transport_sum(packet: &[u8], header: usize) -> Sum {
        let addresses = if header == 40 {
            &packet[8..40]
        } else {
            &packet[12..20]
        };
        Sum::default()
            .add_bytes(addresses)
            .add_word(TCP.into())
            .add_word((packet.len() - header) as u16)
            .add_bytes(&packet[header..])
    }

    fn is_sound(packet: &[u8]) -> bool {
        let header = if packet[0] >> 4 == 4 { 20 } else { 40 };
        IpPacket::parse(packet).is_some() && transport_sum(packet, header).checksum() == 0
    }

    fn mss_of(packet: &[u8]) -> Option<u16> {
        let header = syn(packet)?;
        let place = header + mss_place(&packet[header..])?;
        Some(u16::from_be_bytes([packet[place], packet[place + 1]]))
    }

    const MSS_8960: [u8; 4] = [2, 4, 0x23, 0x00];

    #[test]
    fn a_syn_and_its_answer_are_lowered_to_what_fits() {
        for (is_ipv4, fitting) in [(true, 1340), (false, 1320)] {
            for flags in [SYN, SYN | 0x10] {
                let mut packet = tcp(is_ipv4, flags, &MSS_8960, b"");
                clamp(&mut packet, 1380);
                assert_eq!(mss_of(&packet), Some(fitting));
                assert!(is_sound(&packet));
            }
        }
    }

    #[test]
    fn nothing_is_ever_raised() {
        let mut packet = tcp(true, SYN, &[2, 4, 0x02, 0x18], b"");
        let before = packet.clone();
        clamp(&mut packet, 1380);
        assert_eq!(packet, before);
    }

    #[test]
    fn an_option_at_an_odd_place_keeps_its_checksum_right() {
        for shift in 0..4 {
            let mut options = vec![NO_OPERATION; shift];
            options.extend(MSS_8960);
            let mut packet = tcp(true, SYN, &options, b"odd");
            clamp(&mut packet, 1380);
            assert_eq!(mss_of(&packet), Some(1340));
            assert!(is_sound(&packet));
        }
    }

    #[test]
    fn what_makes_no_sense_is_left_alone() {
        let odd: [&[u8]; 6] = [
            &[],
            &[2, 3, 0x23, 0],
            &[2, 0, 0x23, 0],
            &[8, 200, 0, 0],
            &[2, 4, 0x23, 0, 2, 4, 0x23, 0],
            &[2, 4, 0x23, 0, 1, 1, 1, 5],
        ];
        for options in odd {
            let mut packet = tcp(true, SYN, options, b"");
            let before = packet.clone();
            clamp(&mut packet, 1380);
            assert_eq!(packet, before, "{options:?}");
        }
        let mut fragment = tcp(true, SYN, &MSS_8960, b"");
        fragment[7] = 1;
        let before = fragment.clone();
        clamp(&mut fragment, 1380);
        assert_eq!(fragment, before);
    }

    #[test]
    fn only_a_syn_is_copied() {
        let mut scratch = Vec::new();
        let data = tcp(true, 0x10, &MSS_8960, b"hello");
        assert_eq!(clamped(&data, 1380, &mut scratch).as_ptr(), data.as_ptr());
        let opening = tcp(true, SYN, &MSS_8960, b"");
        assert_eq!(mss_of(clamped(&opening, 1380, &mut scratch)), Some(1340));
        assert_eq!(mss_of(&opening), Some(0x2300));
    }

    proptest! {
        #[test]
        fn any_bytes_are_clamped_without_panic_and_keep_their_length(
            mut bytes: Vec<u8>, first in 0x40..0x70_u8, mtu: u16,
        ) {
            if let Some(byte) = bytes.first_mut() { *byte = first; }
            if let Some(byte) = bytes.get_mut(if first < 0x60 { 9 } else { 6 }) { *byte = TCP; }
            let mut scratch = Vec::new();
            prop_assert_eq!(clamped(&bytes, mtu, &mut scratch).len(), bytes.len());
        }

        #[test]
        fn nothing_but_the_option_and_the_checksum_changes(
            is_ipv4: bool, flags: u8, options in proptest::collection::vec(0..5_u8, 0..40),
            text: Vec<u8>, mtu in 60..9000_u16,
        ) {
            let before = tcp(is_ipv4, flags, &options, &text);
            let mut after = before.clone();
            clamp(&mut after, mtu);
            prop_assert!(is_sound(&after));
            if flags & SYN == 0 {
                prop_assert_eq!(&after, &before);
            }
            let changed = (0..before.len()).filter(|&at| after[at] != before[at]).count();
            prop_assert!(changed <= 4);
            prop_assert!(mss_of(&after) <= mss_of(&before));
        }
    }
}
