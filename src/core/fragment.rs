//! Cutting an IPv4 packet that is longer than a path carries, as every router does when the sender allows it
//! (RFC 791 §3.2).

use crate::{checksum, ip_packet::IpPacket};

/// A header without options.
const HEADER: usize = 20;
/// Offsets count in units of this many bytes.
const UNIT: usize = 8;
const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;
const MAX_OFFSET: u16 = 0x1fff;
/// Options (RFC 791 §3.1): these two have no length; with this bit an option goes into every fragment.
const END_OF_OPTIONS: u8 = 0;
const NO_OPERATION: u8 = 1;
const COPIED: u8 = 0x80;

/// The fragments of one packet, written one by one into memory of the caller.
#[derive(Debug)]
pub struct Fragments<'a> {
    header: &'a [u8],
    payload: &'a [u8],
    /// The packet's own offset in units, and whether it is itself followed by more.
    offset: u16,
    more: bool,
    mtu: usize,
    written: usize,
}

impl<'a> Fragments<'a> {
    /// Cuts `packet` into fragments of at most `mtu` bytes.
    ///
    /// `None` if it must not be cut (IPv6, the don't-fragment bit), if no fragment fits, or if its end would lie beyond
    /// what an offset can say.
    pub fn of(packet: &IpPacket<'a>, mtu: u16) -> Option<Self> {
        let payload = packet.payload();
        let (header, _) = packet
            .bytes()
            .split_at(packet.bytes().len() - payload.len());
        if !packet.is_ipv4() {
            return None;
        }
        let flags = u16::from_be_bytes([header[6], header[7]]);
        let offset = flags & MAX_OFFSET;
        let end = usize::from(offset) + payload.len().div_ceil(UNIT);
        if flags & DONT_FRAGMENT != 0
            || usize::from(mtu) < header.len() + UNIT
            || end > usize::from(MAX_OFFSET)
        {
            return None;
        }
        Some(Self {
            header,
            payload,
            offset,
            more: flags & MORE_FRAGMENTS != 0,
            mtu: mtu.into(),
            written: 0,
        })
    }

    /// Replaces what is in `fragment` by the next one; returns whether there was one.
    pub fn write_next(&mut self, fragment: &mut Vec<u8>) -> bool {
        let rest = &self.payload[self.written..];
        if rest.is_empty() {
            return false;
        }
        fragment.clear();
        fragment.extend_from_slice(&self.header[..HEADER]);
        if self.written == 0 {
            fragment.extend_from_slice(&self.header[HEADER..]);
        } else {
            copy_options(&self.header[HEADER..], fragment);
        }
        let header = fragment.len();
        let room = self.mtu - header;
        let length = if rest.len() <= room {
            rest.len()
        } else {
            room / UNIT * UNIT
        };
        fragment.extend_from_slice(&rest[..length]);
        let more = self.more || length < rest.len();
        let mut flags = self.offset + (self.written / UNIT) as u16;
        if more {
            flags |= MORE_FRAGMENTS;
        }
        let total = fragment.len() as u16;
        fragment[0] = 0x40 | (header / 4) as u8;
        fragment[2..4].copy_from_slice(&total.to_be_bytes());
        fragment[6..8].copy_from_slice(&flags.to_be_bytes());
        checksum::write_ipv4_header(&mut fragment[..header]);
        self.written += length;
        true
    }
}

/// Adds those options that belong into every fragment, up to the first that makes no sense.
fn copy_options(mut options: &[u8], fragment: &mut Vec<u8>) {
    while let Some((&kind, rest)) = options.split_first() {
        let length = match kind {
            END_OF_OPTIONS => break,
            NO_OPERATION => 1,
            _ => rest.first().map_or(0, |length| usize::from(*length)),
        };
        if kind != NO_OPERATION && length < 2 || length > options.len() {
            break;
        }
        let (option, rest) = options.split_at(length);
        if kind & COPIED != 0 {
            fragment.extend_from_slice(option);
        }
        options = rest;
    }
    fragment.resize(fragment.len().next_multiple_of(4), END_OF_OPTIONS);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::checksum::Sum;

    fn packet(flags: u16, options: &[u8], payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 0, 0xca, 0xfe, 0, 0, 64, 17, 0, 0];
        packet.extend([10, 77, 0, 4, 10, 77, 0, 5]);
        packet.extend_from_slice(options);
        packet.resize(packet.len().next_multiple_of(4), END_OF_OPTIONS);
        let header = packet.len();
        packet[0] = 0x40 | (header / 4) as u8;
        packet.extend_from_slice(payload);
        let total = packet.len() as u16;
        packet[2..4].copy_from_slice(&total.to_be_bytes());
        packet[6..8].copy_from_slice(&flags.to_be_bytes());
        checksum::write_ipv4_header(&mut packet[..header]);
        packet
    }

    fn cut(packet: &[u8], mtu: u16) -> Option<Vec<Vec<u8>>> {
        let mut fragments = Fragments::of(&IpPacket::parse(packet)?, mtu)?;
        let (mut all, mut one) = (Vec::new(), Vec::new());
        while fragments.write_next(&mut one) {
            all.push(one.clone());
        }
        Some(all)
    }

    /// Puts fragments together as the receiver does: header of the first, payloads at their offsets.
    fn reassembled(fragments: &[Vec<u8>]) -> Vec<u8> {
        let first = IpPacket::parse(&fragments[0]).unwrap();
        let header = first.bytes().len() - first.payload().len();
        let mut whole = first.bytes()[..header].to_vec();
        let flags_of = |fragment: &[u8]| u16::from_be_bytes([fragment[6], fragment[7]]);
        let start = flags_of(&fragments[0]) & MAX_OFFSET;
        for fragment in fragments {
            let offset = usize::from((flags_of(fragment) & MAX_OFFSET) - start) * UNIT;
            assert_eq!(whole.len() - header, offset, "no gap and no overlap");
            whole.extend(IpPacket::parse(fragment).unwrap().payload());
        }
        let last = flags_of(&fragments[fragments.len() - 1]) & MORE_FRAGMENTS;
        let total = whole.len() as u16;
        whole[2..4].copy_from_slice(&total.to_be_bytes());
        whole[6..8].copy_from_slice(&(start | last).to_be_bytes());
        checksum::write_ipv4_header(&mut whole[..header]);
        whole
    }

    #[test]
    fn the_senders_word_against_it_is_respected() {
        assert!(cut(&packet(DONT_FRAGMENT, &[], &[7; 1400]), 1280).is_none());
        let mut ipv6 = vec![0x60, 0, 0, 60, 0, 0, 17, 64];
        ipv6.resize(100, 0);
        assert!(cut(&ipv6, 80).is_none());
    }

    #[test]
    fn only_options_that_say_so_go_into_every_fragment() {
        let strict_route = [0x89, 7, 4, 10, 0, 0, 1];
        let record_route = [7, 7, 4, 0, 0, 0, 0];
        let mut options = record_route.to_vec();
        options.push(NO_OPERATION);
        options.extend(strict_route);
        let whole = packet(0, &options, &[7; 200]);
        let fragments = cut(&whole, 100).unwrap();
        assert_eq!(fragments[0][20..36], whole[20..36]);
        for later in &fragments[1..] {
            assert_eq!(later[0], 0x47, "one option of seven bytes, padded");
            assert_eq!(later[20..27], strict_route);
        }
        assert_eq!(reassembled(&fragments), whole);
    }

    #[test]
    fn a_fragment_beyond_the_last_offset_is_not_cut() {
        assert!(cut(&packet(MAX_OFFSET, &[], &[7; 1400]), 1280).is_none());
    }

    proptest! {
        #[test]
        fn put_together_the_fragments_are_the_packet(
            payload in proptest::collection::vec(any::<u8>(), 1..9000),
            options in proptest::collection::vec(any::<u8>(), 0..=40),
            offset in 0..7000_u16, more: bool, mtu in 68..1500_u16,
        ) {
            // A packet with more behind it ends at a whole unit.
            let end = if more { (payload.len() / UNIT * UNIT).max(UNIT) } else { payload.len() };
            prop_assume!(payload.len() >= end);
            let flags = offset | if more { MORE_FRAGMENTS } else { 0 };
            let whole = packet(flags, &options, &payload[..end]);
            let fragments = cut(&whole, mtu).unwrap();
            let (_, before_last) = fragments.split_last().unwrap();
            for fragment in &fragments {
                let header = usize::from(fragment[0] & 0x0f) * 4;
                prop_assert!(fragment.len() <= mtu.into());
                prop_assert_eq!(Sum::default().add_bytes(&fragment[..header]).checksum(), 0);
            }
            for fragment in before_last {
                prop_assert_eq!(IpPacket::parse(fragment).unwrap().payload().len() % UNIT, 0);
            }
            prop_assert_eq!(reassembled(&fragments), whole);
        }

        #[test]
        fn any_packet_is_cut_or_refused_without_panic(mut bytes: Vec<u8>, mtu: u16) {
            if let Some(first) = bytes.first_mut() { *first = 0x40 | *first & 0x0f; }
            if let Some(fragments) = cut(&bytes, mtu) {
                prop_assert!(fragments.iter().all(|fragment| fragment.len() <= mtu.into()));
            }
        }
    }
}
