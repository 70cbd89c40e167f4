//! A checked view of an IP packet: the lengths are verified once, the accessors cannot fail.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Smallest IPv4 header (RFC 791 §3.1).
const IPV4_HEADER: usize = 20;
/// The IPv6 header (RFC 8200 §3).
const IPV6_HEADER: usize = 40;
/// Of the 16 bits that IPv4 keeps flags and fragment offset in.
const IPV4_MAX_OFFSET: u16 = 0x1fff;

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

    /// What the packet carries, behind IPv4 options or IPv6 extension headers. `None` when the extension headers make no
    /// sense.
    pub fn upper_layer(&self) -> Option<UpperLayer<'a>> {
        if !self.is_ipv4() {
            return ipv6_upper_layer(self.protocol(), self.payload());
        }
        Some(UpperLayer {
            protocol: self.protocol(),
            offset: u16::from_be_bytes(self.octets(6)) & IPV4_MAX_OFFSET,
            bytes: self.payload(),
        })
    }

    fn octets<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut octets = [0; N];
        octets.copy_from_slice(&self.bytes[at..at + N]);
        octets
    }
}

/// What an IP packet carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UpperLayer<'a> {
    /// Its protocol number.
    pub protocol: u8,
    /// Where in the whole it begins, in units of 8 bytes; above 0 in all fragments but the first.
    pub offset: u16,
    /// Its bytes; of a fragmented packet, only those that are in this fragment.
    pub bytes: &'a [u8],
}

/// Walks the extension headers (RFC 8200 §4). `None` when one of them is cut off.
pub fn ipv6_upper_layer(mut next_header: u8, mut rest: &[u8]) -> Option<UpperLayer<'_>> {
    const HOP_BY_HOP: u8 = 0;
    const ROUTING: u8 = 43;
    const FRAGMENT: u8 = 44;
    const AUTHENTICATION: u8 = 51;
    const DESTINATION_OPTIONS: u8 = 60;
    loop {
        let mut offset = 0;
        let length = match next_header {
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS => (usize::from(*rest.get(1)?) + 1) * 8,
            AUTHENTICATION => (usize::from(*rest.get(1)?) + 2) * 4,
            FRAGMENT => {
                offset = u16::from_be_bytes([*rest.get(2)?, *rest.get(3)?]) >> 3;
                8
            }
            _ => {
                return Some(UpperLayer {
                    protocol: next_header,
                    offset,
                    bytes: rest,
                });
            }
        };
        next_header = *rest.first()?;
        rest = rest.get(length..)?;
        if offset > 0 {
            // What follows is the middle of something, whatever it is.
            return Some(UpperLayer {
                protocol: next_header,
                offset,
                bytes: rest,
            });
        }
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

    fn ipv6(next_header: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0, 0, payload.len() as u8, next_header, 64];
        packet.extend([0xfd; 32]);
        packet.extend_from_slice(payload);
        packet
    }

    #[test]
    fn extension_headers_are_walked_to_what_they_precede() {
        // Destination options of 16 bytes, then the second fragment of a UDP datagram.
        let mut payload = vec![44, 1];
        payload.extend([0; 14]);
        payload.extend([17, 0, 0, 9, 0, 0, 0, 7]);
        payload.extend(b"middle");
        let packet = ipv6(60, &payload);
        let upper = IpPacket::parse(&packet).and_then(|packet| packet.upper_layer());
        let expected = UpperLayer {
            protocol: 17,
            offset: 1,
            bytes: b"middle",
        };
        assert_eq!(upper, Some(expected));
        let cut_off = ipv6(60, &payload[..15]);
        let cut_off = IpPacket::parse(&cut_off).expect("a packet");
        assert_eq!(cut_off.upper_layer(), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_or_refused_without_panic(bytes: Vec<u8>) {
            if let Some(packet) = IpPacket::parse(&bytes) {
                let _ = (packet.source(), packet.destination(), packet.protocol(), packet.payload());
                let _ = packet.upper_layer();
            }
        }
    }
}
