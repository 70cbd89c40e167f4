//! A checked view of an IP packet: the lengths are verified once, the accessors cannot fail.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Smallest IPv4 header (RFC 791 §3.1).
const IPV4_HEADER: usize = 20;
/// The IPv6 header (RFC 8200 §3).
const IPV6_HEADER: usize = 40;

/// An IPv4 or IPv6 packet whose header is complete and whose length field agrees with the buffer.
#[derive(Debug, Clone, Copy)]
pub struct IpPacket<'a> {
    bytes: &'a [u8],
}

impl<'a> IpPacket<'a> {
    /// Checks the header of `bytes`. Bytes behind the packet's own length (WireGuard padding) are cut off.
    ///
    /// Returns `None` for anything that is not one whole IP packet.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let length = match bytes.first()? >> 4 {
            4 if bytes.len() >= IPV4_HEADER => {
                let header = usize::from(bytes[0] & 0x0f) * 4;
                let total = usize::from(u16::from_be_bytes([bytes[2], bytes[3]]));
                if header < IPV4_HEADER || total < header {
                    return None;
                }
                total
            }
            6 if bytes.len() >= IPV6_HEADER => {
                IPV6_HEADER + usize::from(u16::from_be_bytes([bytes[4], bytes[5]]))
            }
            _ => return None,
        };
        Some(Self {
            bytes: bytes.get(..length)?,
        })
    }

    /// The packet, without padding.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Where the packet says it comes from.
    pub fn source(&self) -> IpAddr {
        if self.is_ipv4() {
            Ipv4Addr::from(self.octets::<4>(12)).into()
        } else {
            Ipv6Addr::from(self.octets::<16>(8)).into()
        }
    }

    /// Where the packet wants to go.
    pub fn destination(&self) -> IpAddr {
        if self.is_ipv4() {
            Ipv4Addr::from(self.octets::<4>(16)).into()
        } else {
            Ipv6Addr::from(self.octets::<16>(24)).into()
        }
    }

    /// The IPv4 protocol or the IPv6 next header.
    pub fn protocol(&self) -> u8 {
        self.bytes[if self.is_ipv4() { 9 } else { 6 }]
    }

    /// What follows the IPv4 header with its options, or the fixed IPv6 header.
    pub fn payload(&self) -> &'a [u8] {
        let header = if self.is_ipv4() {
            usize::from(self.bytes[0] & 0x0f) * 4
        } else {
            IPV6_HEADER
        };
        &self.bytes[header..]
    }

    /// Whether it is IPv4; otherwise it is IPv6.
    pub fn is_ipv4(&self) -> bool {
        self.bytes[0] >> 4 == 4
    }

    fn octets<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut octets = [0; N];
        octets.copy_from_slice(&self.bytes[at..at + N]);
        octets
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ipv4(total: u16) -> Vec<u8> {
        let mut packet = vec![0; usize::from(total)];
        packet[0] = 0x45;
        packet[2..4].copy_from_slice(&total.to_be_bytes());
        packet[12..16].copy_from_slice(&[10, 77, 0, 4]);
        packet[16..20].copy_from_slice(&[10, 77, 0, 5]);
        packet
    }

    #[test]
    fn padding_behind_the_packet_is_cut_off() {
        let mut padded = ipv4(30);
        padded.extend([0; 2]);
        let packet = IpPacket::parse(&padded).expect("valid");
        assert_eq!(packet.bytes().len(), 30);
        assert_eq!(packet.source(), IpAddr::from([10, 77, 0, 4]));
        assert_eq!(packet.destination(), IpAddr::from([10, 77, 0, 5]));
    }

    #[test]
    fn a_length_field_that_lies_is_refused() {
        let mut short = ipv4(40);
        short.truncate(39);
        assert!(IpPacket::parse(&short).is_none());
        let mut shorter_than_its_header = ipv4(40);
        shorter_than_its_header[2..4].copy_from_slice(&10u16.to_be_bytes());
        assert!(IpPacket::parse(&shorter_than_its_header).is_none());
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_or_refused_without_panic(bytes: Vec<u8>) {
            if let Some(packet) = IpPacket::parse(&bytes) {
                let _ = (packet.source(), packet.destination(), packet.protocol(), packet.payload());
            }
        }
    }
}
