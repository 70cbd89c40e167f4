//! What a packet is about: which conversation it belongs to, and whether it begins one.

use std::net::IpAddr;

use super::traffic::{Protocol, Traffic};
use crate::ip_packet::{IpPacket, UpperLayer, ipv6_upper_layer};

/// Protocol numbers (IANA).
pub(super) const ICMPV4: u8 = 1;
pub(super) const TCP: u8 = 6;
const UDP: u8 = 17;
pub(super) const ICMPV6: u8 = 58;

/// Headers without options: RFC 9293 §3.1, RFC 768, RFC 792.
pub(super) const TCP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;
const ICMP_HEADER: usize = 8;
/// A TCP header takes as many units of fragmentation.
const TCP_HEADER_UNITS: u16 = 3;

/// Where a TCP header keeps its flags, and these (RFC 9293 §3.1).
pub(super) const FLAGS: usize = 13;
pub(super) const FIN: u8 = 0x01;
pub(super) const SYN: u8 = 0x02;
pub(super) const RST: u8 = 0x04;
pub(super) const ACK: u8 = 0x10;

/// What a packet is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content<'a> {
    /// A part of a conversation.
    Message(Message),
    /// An ICMP error about a packet of this conversation, as its sender sent it.
    Error(Conversation),
    /// The rest of a packet whose first fragment was looked at: without it, it is nothing.
    LaterFragment,
    /// An ICMP message that is neither an error nor an echo: routers' and neighbours' affairs.
    OtherIcmp,
    /// Something that nobody could make sense of, or whose sense fragments hide.
    Obscure(&'a [u8]),
}

/// A part of a conversation, as far as the filter looks at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message {
    /// Between whom.
    pub conversation: Conversation,
    /// What it does to it.
    pub step: Step,
}

/// Two ends and a protocol, seen by the sender of one packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conversation {
    /// Protocol number.
    pub protocol: u8,
    /// The sender.
    pub source: IpAddr,
    /// The receiver.
    pub destination: IpAddr,
    /// The sender's port. Of an echo, its identifier at the end that asks and 0 at the other; 0 where there are none.
    pub source_port: u16,
    /// The receiver's.
    pub destination_port: u16,
}

/// What a message does to its conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Only who begins a conversation sends this: a first SYN, an echo request.
    Begin,
    /// Nobody begins with this: an echo reply, or TCP in the middle.
    Continue,
    /// TCP: the sender has nothing more to say.
    Finish,
    /// TCP: it is over.
    Reset,
    /// Nobody can tell: protocols without connections.
    Either,
}

impl Conversation {
    /// What its receiver is asked for, if the packet begins it.
    pub fn traffic(&self) -> Traffic {
        Traffic::new(self.kind(), self.destination_port)
    }

    /// What its sender was asked for, if the packet is part of the answer.
    pub fn traffic_back(&self) -> Traffic {
        Traffic::new(self.kind(), self.source_port)
    }

    /// The protocol, as rules see it.
    pub fn kind(&self) -> Protocol {
        match (self.source.is_ipv4(), self.protocol) {
            (_, TCP) => Protocol::Tcp,
            (_, UDP) => Protocol::Udp,
            (true, ICMPV4) | (false, ICMPV6) => Protocol::Icmp,
            (_, _) => Protocol::Other,
        }
    }
}

impl<'a> Content<'a> {
    /// What `packet` is about.
    pub fn of(packet: &IpPacket<'a>) -> Self {
        let obscure = Self::Obscure(packet.bytes());
        let Some(upper) = packet.upper_layer() else {
            return obscure;
        };
        if upper.offset > 0 {
            // One that could replace parts of the header that was looked at is an attack (RFC 1858 §3).
            let hides_header = upper.protocol == TCP && upper.offset < TCP_HEADER_UNITS;
            return if hides_header {
                obscure
            } else {
                Self::LaterFragment
            };
        }
        let ends = (packet.source(), packet.destination());
        Self::of_upper(ends, &upper).unwrap_or(obscure)
    }

    fn of_upper(ends: (IpAddr, IpAddr), upper: &UpperLayer<'a>) -> Option<Self> {
        let bytes = upper.bytes;
        let is_ipv4 = ends.0.is_ipv4();
        let step = match upper.protocol {
            TCP => tcp_step(*bytes.get(..TCP_HEADER)?.get(FLAGS)?),
            UDP => {
                bytes.get(..UDP_HEADER)?;
                Step::Either
            }
            ICMPV4 if is_ipv4 => match (*bytes.get(..ICMP_HEADER)?)[0] {
                0 => Step::Continue,
                8 => Step::Begin,
                // RFC 1122 §3.2.2: unreachable, time exceeded, parameter problem.
                3 | 11 | 12 => return Some(Self::Error(quoted_ipv4(&bytes[ICMP_HEADER..])?)),
                _ => return Some(Self::OtherIcmp),
            },
            ICMPV6 if !is_ipv4 => match (*bytes.get(..ICMP_HEADER)?)[0] {
                129 => Step::Continue,
                128 => Step::Begin,
                // RFC 4443 §2.1: unreachable, too big, time exceeded, parameter problem.
                1..=4 => return Some(Self::Error(quoted_ipv6(&bytes[ICMP_HEADER..])?)),
                _ => return Some(Self::OtherIcmp),
            },
            _ => Step::Either,
        };
        let conversation = conversation(ends, upper)?;
        Some(Self::Message(Message { conversation, step }))
    }
}

fn tcp_step(flags: u8) -> Step {
    if flags & RST != 0 {
        Step::Reset
    } else if flags & (SYN | ACK) == SYN {
        Step::Begin
    } else if flags & FIN != 0 {
        Step::Finish
    } else {
        Step::Continue
    }
}

/// The ends of a conversation, for which the first eight bytes are enough.
fn conversation(
    (source, destination): (IpAddr, IpAddr),
    upper: &UpperLayer<'_>,
) -> Option<Conversation> {
    let word = |at: usize| {
        Some(u16::from_be_bytes([
            *upper.bytes.get(at)?,
            *upper.bytes.get(at + 1)?,
        ]))
    };
    let is_ipv4 = source.is_ipv4();
    let (source_port, destination_port) = match upper.protocol {
        TCP | UDP => (word(0)?, word(2)?),
        ICMPV4 if is_ipv4 => match upper.bytes.first()? {
            8 => (word(4)?, 0),
            0 => (0, word(4)?),
            _ => return None,
        },
        ICMPV6 if !is_ipv4 => match upper.bytes.first()? {
            128 => (word(4)?, 0),
            129 => (0, word(4)?),
            _ => return None,
        },
        _ => (0, 0),
    };
    Some(Conversation {
        protocol: upper.protocol,
        source,
        destination,
        source_port,
        destination_port,
    })
}

/// An error quotes the beginning of a packet, so its length field tells nothing.
fn quoted_ipv4(quoted: &[u8]) -> Option<Conversation> {
    let header = quoted.get(..20)?;
    if header[0] >> 4 != 4 {
        return None;
    }
    let address =
        |at: usize| IpAddr::from([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let upper = UpperLayer {
        protocol: header[9],
        offset: u16::from_be_bytes([header[6], header[7]]) & 0x1fff,
        bytes: quoted.get(usize::from(header[0] & 0x0f) * 4..)?,
    };
    let ends = (address(12), address(16));
    conversation(ends, &upper).filter(|_| upper.offset == 0)
}

fn quoted_ipv6(quoted: &[u8]) -> Option<Conversation> {
    let (header, rest) = quoted.split_first_chunk::<40>()?;
    if header[0] >> 4 != 6 {
        return None;
    }
    let address = |at: usize| {
        let octets = std::array::from_fn::<u8, 16, _>(|byte| header[at + byte]);
        IpAddr::from(octets)
    };
    let upper = ipv6_upper_layer(header[6], rest)?;
    conversation((address(8), address(24)), &upper).filter(|_| upper.offset == 0)
}

/// Whether this is a TCP segment with SYN, FIN or RST, after a few compares: what a connection lives by. Extension headers
/// are not looked behind.
pub fn turns_tcp(packet: &IpPacket<'_>) -> bool {
    let bytes = packet.payload();
    packet.protocol() == TCP
        && bytes
            .get(FLAGS)
            .is_some_and(|flags| flags & (SYN | FIN | RST) != 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::policy::testing::packet;

    proptest! {
        #[test]
        fn any_packet_has_a_content(
            protocol in prop_oneof![Just(1_u8), Just(6), Just(17), Just(44), Just(58), Just(60), any::<u8>()],
            payload: Vec<u8>, is_ipv4: bool,
        ) {
            let (a, b): (IpAddr, IpAddr) = match is_ipv4 {
                true => ([10, 77, 0, 4].into(), [10, 77, 0, 5].into()),
                false => ("fd00::4".parse().unwrap(), "fd00::5".parse().unwrap()),
            };
            let packet = packet(a, b, protocol, &payload);
            let _ = Content::of(&IpPacket::parse(&packet).unwrap());
        }

        #[test]
        fn any_error_quotes_something_or_nothing(mut quoted: Vec<u8>, is_ipv4: bool, kind in 0..13_u8) {
            if let Some(first) = quoted.first_mut() {
                *first = if is_ipv4 { 0x40 | *first & 0xf } else { 0x60 };
            }
            let mut payload = vec![kind; 8];
            payload.extend(quoted);
            let (a, b): (IpAddr, IpAddr) = match is_ipv4 {
                true => ([10, 77, 0, 4].into(), [10, 77, 0, 5].into()),
                false => ("fd00::4".parse().unwrap(), "fd00::5".parse().unwrap()),
            };
            let packet = packet(a, b, if is_ipv4 { ICMPV4 } else { ICMPV6 }, &payload);
            let _ = Content::of(&IpPacket::parse(&packet).unwrap());
        }
    }
}
