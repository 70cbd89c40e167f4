//! Where the headers of a TCP or UDP packet lie, and the fields that change when it is cut or merged.

use super::checksum::Sum;

/// Room for the headers of any packet that is cut: IPv4 and TCP with all options take 120 bytes, IPv6 and TCP 100 and
/// whatever the extension headers take.
pub(super) const MAX_HEADERS: usize = 256;

const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
const TCP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;

/// In the seventh byte of the IPv4 header: "don't fragment" (RFC 791, section 3.1).
pub(super) const DONT_FRAGMENT: u8 = 0x40;

/// Offsets in the TCP header (RFC 9293, section 3.1).
pub(super) const TCP_SEQUENCE: usize = 4;
/// The flags' second byte, which has all but one of them.
pub(super) const TCP_FLAGS: usize = 13;

/// TCP flags.
pub(super) const FIN: u8 = 0x01;
pub(super) const PSH: u8 = 0x08;
pub(super) const ACK: u8 = 0x10;
pub(super) const CWR: u8 = 0x80;

/// The version of IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    V4,
    V6,
}

/// The protocol above it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    Tcp,
    Udp,
}

/// A TCP or UDP packet's headers. They lie within the packet they were located in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Headers {
    pub(super) version: Version,
    pub(super) transport: Transport,
    /// Length of the IP header with everything before the transport header.
    pub(super) ip: usize,
    /// Length of all headers: where the payload starts. At most [`MAX_HEADERS`].
    pub(super) all: usize,
}

/// Why a packet's headers are none that can be cut or merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeadersError {
    #[error("not an IP packet")]
    NotIp,
    #[error("a header does not end within the packet")]
    Truncated,
    #[error("a fragment")]
    Fragment,
    #[error("neither TCP nor UDP but protocol {0}")]
    Protocol(u8),
    #[error("headers of more than {MAX_HEADERS} bytes")]
    TooLong,
}

impl Headers {
    /// Finds the headers of `packet`. What they say about its length is not looked at.
    pub(super) fn locate(packet: &[u8]) -> Result<Self, HeadersError> {
        let (version, ip, protocol) = match packet.first().map(|byte| byte >> 4) {
            Some(4) => ipv4(packet)?,
            Some(6) => ipv6(packet)?,
            Some(_) | None => return Err(HeadersError::NotIp),
        };
        let (transport, length) = match protocol {
            TCP => {
                let words = packet.get(ip + 12).ok_or(HeadersError::Truncated)? >> 4;
                (Transport::Tcp, usize::from(words) * 4)
            }
            UDP => (Transport::Udp, UDP_HEADER),
            other => return Err(HeadersError::Protocol(other)),
        };
        let all = ip + length;
        if packet.len() < all || transport == Transport::Tcp && length < TCP_HEADER {
            return Err(HeadersError::Truncated);
        }
        if all > MAX_HEADERS {
            return Err(HeadersError::TooLong);
        }
        Ok(Self {
            version,
            transport,
            ip,
            all,
        })
    }

    /// Source and destination address, back to back.
    pub(super) fn addresses<'a>(&self, packet: &'a [u8]) -> &'a [u8] {
        match self.version {
            Version::V4 => &packet[12..20],
            Version::V6 => &packet[8..40],
        }
    }

    /// Source and destination port, back to back.
    pub(super) fn ports<'a>(&self, packet: &'a [u8]) -> &'a [u8] {
        &packet[self.ip..self.ip + 4]
    }

    /// Distance of the checksum from the transport header.
    pub(super) fn checksum_offset(&self) -> usize {
        match self.transport {
            Transport::Tcp => 16,
            Transport::Udp => 6,
        }
    }

    /// The transport header's checksum field.
    pub(super) fn checksum<'a>(&self, packet: &'a [u8]) -> &'a [u8] {
        &packet[self.ip + self.checksum_offset()..][..2]
    }

    /// Whether all length fields agree with the length of `packet`.
    pub(super) fn lengths_agree(&self, packet: &[u8]) -> bool {
        let says = |at: usize, length: usize| usize::from(number(packet, at)) == length;
        let ip = match self.version {
            Version::V4 => says(2, packet.len()),
            Version::V6 => says(4, packet.len() - IPV6_HEADER),
        };
        ip && (self.transport == Transport::Tcp || says(self.ip + 4, packet.len() - self.ip))
    }

    /// Makes all length fields tell `length`, the whole packet's, which must fit into 16 bits. `packet` may be its
    /// headers only.
    pub(super) fn set_lengths(&self, packet: &mut [u8], length: usize) {
        match self.version {
            Version::V4 => set_number(packet, 2, length as u16),
            Version::V6 => set_number(packet, 4, (length - IPV6_HEADER) as u16),
        }
        if self.transport == Transport::Udp {
            set_number(packet, self.ip + 4, (length - self.ip) as u16);
        }
    }

    /// Corrects the checksum of the IPv4 header. IPv6 has none.
    pub(super) fn set_ip_checksum(&self, packet: &mut [u8]) {
        if self.version == Version::V4 {
            packet[10..12].fill(0);
            let checksum = Sum::default().add(&packet[..self.ip]).checksum();
            packet[10..12].copy_from_slice(&checksum);
        }
    }

    /// Corrects the checksum of the transport header and everything behind it.
    pub(super) fn set_transport_checksum(&self, packet: &mut [u8]) {
        let field = self.ip + self.checksum_offset();
        packet[field..field + 2].fill(0);
        let sum = self
            .pseudo_header(packet, packet.len())
            .add(&packet[self.ip..]);
        let mut checksum = sum.checksum();
        if self.transport == Transport::Udp && checksum == [0, 0] {
            // Zero would mean that there is no checksum (RFC 768).
            checksum = [0xff, 0xff];
        }
        packet[field..field + 2].copy_from_slice(&checksum);
    }

    /// Leaves the sum of the pseudo header in the checksum field: whoever gets the packet adds the rest.
    pub(super) fn set_unsummed(&self, packet: &mut [u8], length: usize) {
        let sum = self.pseudo_header(packet, length).folded();
        let field = self.ip + self.checksum_offset();
        packet[field..field + 2].copy_from_slice(&sum);
    }

    /// Whether all checksums are correct.
    pub(super) fn checksums_hold(&self, packet: &[u8]) -> bool {
        let ip = match self.version {
            Version::V4 => Sum::default().add(&packet[..self.ip]).is_correct(),
            Version::V6 => true,
        };
        ip && self
            .pseudo_header(packet, packet.len())
            .add(&packet[self.ip..])
            .is_correct()
    }

    /// The sum of what the checksum covers without it being sent there (RFC 9293, section 3.1; RFC 8200, section 8.1),
    /// for a packet of `length` bytes in all.
    fn pseudo_header(&self, packet: &[u8], length: usize) -> Sum {
        let protocol = match self.transport {
            Transport::Tcp => TCP,
            Transport::Udp => UDP,
        };
        Sum::default()
            .add(self.addresses(packet))
            .add_number(protocol.into())
            .add_number((length - self.ip) as u16)
    }
}

const TCP: u8 = 6;
const UDP: u8 = 17;

/// Length of the header with its options, and the protocol above.
fn ipv4(packet: &[u8]) -> Result<(Version, usize, u8), HeadersError> {
    let length = usize::from(packet[0] & 0x0f) * 4;
    if length < IPV4_HEADER || packet.len() < length {
        return Err(HeadersError::Truncated);
    }
    // More to come, or an offset.
    if number(packet, 6) & 0x3fff != 0 {
        return Err(HeadersError::Fragment);
    }
    Ok((Version::V4, length, packet[9]))
}

/// Extension headers that say the same in every packet of a burst (RFC 8200, sections 4.3 and 4.6). Others do not: a
/// routing header would even change the pseudo header.
const HOP_BY_HOP: u8 = 0;
const DESTINATION_OPTIONS: u8 = 60;
const FRAGMENT: u8 = 44;

/// Length of the header with its extensions, and the protocol above.
fn ipv6(packet: &[u8]) -> Result<(Version, usize, u8), HeadersError> {
    let (mut length, mut next) = (IPV6_HEADER, *packet.get(6).ok_or(HeadersError::Truncated)?);
    loop {
        if packet.len() < length {
            return Err(HeadersError::Truncated);
        }
        match (next, &packet[length..]) {
            (HOP_BY_HOP | DESTINATION_OPTIONS, [after, words, ..]) => {
                (length, next) = (length + 8 * (usize::from(*words) + 1), *after);
            }
            (HOP_BY_HOP | DESTINATION_OPTIONS, _) => return Err(HeadersError::Truncated),
            (FRAGMENT, _) => return Err(HeadersError::Fragment),
            (protocol, _) => return Ok((Version::V6, length, protocol)),
        }
    }
}

/// The number in the two bytes at `at`.
pub(super) fn number(packet: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([packet[at], packet[at + 1]])
}

/// Writes a number into the two bytes at `at`.
pub(super) fn set_number(packet: &mut [u8], at: usize, number: u16) {
    packet[at..at + 2].copy_from_slice(&number.to_be_bytes());
}

/// The number in the four bytes at `at`.
pub(super) fn long_number(packet: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([packet[at], packet[at + 1], packet[at + 2], packet[at + 3]])
}

/// Writes a number into the four bytes at `at`.
pub(super) fn set_long_number(packet: &mut [u8], at: usize, number: u32) {
    packet[at..at + 4].copy_from_slice(&number.to_be_bytes());
}
