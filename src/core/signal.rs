//! What the cores of two nodes say to each other inside their WireGuard session, beside the packets that they carry.
//!
//! A signal is authentic because the session is, reaches the peer by whichever path works, and cannot be told from data
//! on the way. It is an IPv4 packet between two dummy addresses (RFC 7600) with the protocol number that RFC 3692 sets
//! aside for experiments: the shortest thing that WireGuard carries, because an idle pair exchanges little else. A stock
//! WireGuard peer is never sent one.
//!
//! ```text
//! IPv4 header (20) │ "hv1" │ kind │ body
//!
//! 0 ask     number (8)                            │ zeros, as many as the path shall carry
//! 1 answer  number (8)  │ endpoint (18)           │ what the ask came from, zeros if by a carrier
//! 2 call    wants answer (1) │ up to 16 candidates: kind (1), endpoint (18)
//! 3 open    member (16)                           │ please pass datagrams between us and this member
//! 4 opened  member (16) │ channel (4)
//! 5 closed  member (16)                           │ no, or not any more
//! 6 want    suite (1)
//! 7 offer   suite (1) │ exchange (8) │ session (4) │ part (1) │ up to 400 bytes
//! 8 accept  suite (1) │ exchange (8) │ session (4) │ part (1) │ up to 400 bytes
//!
//! endpoint = IPv6 or IPv4-mapped address (16) │ port (2); numbers are big endian; members go by their IPv6 address
//! ```
//!
//! An *ask* and its *answer* are a probe: they prove a path both ways and tell the asker how it is seen from outside. A
//! *call* names the endpoints at which its sender may be reached, and asks the peer to try them while its sender tries
//! the peer's: that is what opens NATs. Then three are about [relaying](crate::relay), and three about [keys](crate::key_exchange).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::{
    ip_packet::IpPacket,
    key_exchange::{PART, Part},
    path::candidate::{Candidate, CandidateKind},
    relay::Channel,
};

/// "Use for experimentation and testing" (RFC 3692 §2.1).
const PROTOCOL: u8 = 253;
/// An address that is nobody's (RFC 7600 §6): both ends know whom the session is with.
const NOBODY: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 8);
const MAGIC: [u8; 3] = *b"hv1";
const HEADER: usize = 20;
const PREFIX: usize = 4;
const ENDPOINT: usize = 18;

/// Length of the shortest ask in bytes.
pub const ASK_LENGTH: u16 = (HEADER + PREFIX + 8) as u16;
/// Candidates beyond are not told.
pub const MAX_CANDIDATES: usize = 16;

/// One signal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signal {
    /// "Do you hear me by this path?"
    Ask(u64),
    /// "Yes, I heard this number."
    Answer {
        /// The ask's.
        number: u64,
        /// Where the ask came from, as its receiver saw it; none if it came by a carrier.
        seen: Option<SocketAddr>,
    },
    /// "Try me there, as I try you."
    Call {
        /// The receiver's candidates are wanted in return.
        wants_answer: bool,
        /// Where the sender may be reached.
        candidates: Vec<Candidate>,
    },
    /// "Pass datagrams between me and this member."
    Open(Ipv6Addr),
    /// "Datagrams between you and this member pass through me under this number."
    Opened {
        /// The member at the other end.
        member: Ipv6Addr,
        /// The number.
        channel: Channel,
    },
    /// "Nothing passes through me between you and this member."
    Closed(Ipv6Addr),
    /// "Offer me keys, of this suite."
    Want(u8),
    /// "Here is a part of what you need to agree on a secret with me."
    Offer(Part),
    /// "And of what you need in return."
    Accept(Part),
}

impl Signal {
    /// The signal as an overlay packet; an ask is made at least `length` bytes long.
    pub fn packet(&self, length: u16) -> Vec<u8> {
        let mut packet = vec![0; HEADER];
        packet[0] = 0x45;
        packet[8] = 1; // time to live: it never leaves the tunnel
        packet[9] = PROTOCOL;
        packet[12..16].copy_from_slice(&NOBODY.octets());
        packet[16..20].copy_from_slice(&NOBODY.octets());
        packet.extend(MAGIC);
        packet.push(self.kind());
        match self {
            Self::Ask(number) => {
                packet.extend(number.to_be_bytes());
                packet.resize(packet.len().max(length.into()), 0);
            }
            Self::Answer { number, seen } => {
                packet.extend(number.to_be_bytes());
                packet.extend(seen.map_or([0; ENDPOINT], written));
            }
            Self::Call {
                wants_answer,
                candidates,
            } => {
                packet.push((*wants_answer).into());
                for candidate in candidates.iter().take(MAX_CANDIDATES) {
                    packet.push(candidate.kind.code());
                    packet.extend(written(candidate.endpoint));
                }
            }
            Self::Open(member) | Self::Closed(member) => packet.extend(member.octets()),
            Self::Opened { member, channel } => {
                packet.extend(member.octets());
                packet.extend(channel.0.to_be_bytes());
            }
            Self::Want(suite) => packet.push(*suite),
            Self::Offer(part) | Self::Accept(part) => {
                packet.push(part.suite);
                packet.extend(part.exchange.to_be_bytes());
                packet.extend(part.session.to_be_bytes());
                packet.push(part.number);
                packet.extend(&part.bytes);
            }
        }
        let total = packet.len() as u16;
        packet[2..4].copy_from_slice(&total.to_be_bytes());
        packet
    }

    fn kind(&self) -> u8 {
        match self {
            Self::Ask(_) => 0,
            Self::Answer { .. } => 1,
            Self::Call { .. } => 2,
            Self::Open(_) => 3,
            Self::Opened { .. } => 4,
            Self::Closed(_) => 5,
            Self::Want(_) => 6,
            Self::Offer(_) => 7,
            Self::Accept(_) => 8,
        }
    }

    /// Whether `packet`, which a session opened, is from the peer's core, and what it says: `Some(None)` is a signal of a
    /// later version, or a damaged one; `None` is an ordinary packet.
    pub fn parse(packet: &IpPacket<'_>) -> Option<Option<Self>> {
        if packet.protocol() != PROTOCOL || packet.source() != IpAddr::V4(NOBODY) {
            return None;
        }
        let (prefix, body) = packet.payload().split_first_chunk::<PREFIX>()?;
        let (magic, [kind]) = prefix.split_first_chunk()? else {
            return None;
        };
        (*magic == MAGIC).then(|| Self::body(*kind, body))
    }

    fn body(kind: u8, body: &[u8]) -> Option<Self> {
        match kind {
            0 => {
                let (number, padding) = body.split_first_chunk()?;
                let is_padding = padding.iter().all(|byte| *byte == 0);
                is_padding.then_some(Self::Ask(u64::from_be_bytes(*number)))
            }
            1 => {
                let (number, seen) = body.split_first_chunk()?;
                Some(Self::Answer {
                    number: u64::from_be_bytes(*number),
                    seen: read(seen.try_into().ok()?),
                })
            }
            2 => {
                let (wants_answer, candidates) = body.split_first()?;
                let (candidates, rest) = candidates.as_chunks::<{ ENDPOINT + 1 }>();
                if !rest.is_empty() || candidates.len() > MAX_CANDIDATES {
                    return None;
                }
                let candidate = |bytes: &[u8; ENDPOINT + 1]| {
                    let (kind, endpoint) = bytes.split_first()?;
                    Some(Candidate {
                        kind: CandidateKind::of_code(*kind),
                        endpoint: read(endpoint.try_into().ok()?)?,
                    })
                };
                Some(Self::Call {
                    wants_answer: *wants_answer != 0,
                    candidates: candidates.iter().filter_map(candidate).collect(),
                })
            }
            3 => Some(Self::Open(member(body)?)),
            4 => {
                let (whom, channel) = body.split_at_checked(16)?;
                Some(Self::Opened {
                    member: member(whom)?,
                    channel: Channel(u32::from_be_bytes(channel.try_into().ok()?)),
                })
            }
            5 => Some(Self::Closed(member(body)?)),
            6 => {
                let [suite] = body.try_into().ok()?;
                Some(Self::Want(suite))
            }
            7 => part(body).map(Self::Offer),
            8 => part(body).map(Self::Accept),
            _ => None,
        }
    }
}

fn member(bytes: &[u8]) -> Option<Ipv6Addr> {
    let octets: [u8; 16] = bytes.try_into().ok()?;
    Some(octets.into())
}

fn part(body: &[u8]) -> Option<Part> {
    let (suite, body) = body.split_first()?;
    let (exchange, body) = body.split_first_chunk()?;
    let (session, body) = body.split_first_chunk()?;
    let (number, bytes) = body.split_first()?;
    (bytes.len() <= PART).then(|| Part {
        suite: *suite,
        exchange: u64::from_be_bytes(*exchange),
        session: u32::from_be_bytes(*session),
        number: *number,
        bytes: bytes.to_vec(),
    })
}

fn written(endpoint: SocketAddr) -> [u8; ENDPOINT] {
    let ip = match endpoint.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    let mut bytes = [0; ENDPOINT];
    bytes[..16].copy_from_slice(&ip.octets());
    bytes[16..].copy_from_slice(&endpoint.port().to_be_bytes());
    bytes
}

/// An endpoint that datagrams can be sent to.
fn read(bytes: &[u8; ENDPOINT]) -> Option<SocketAddr> {
    let (ip, port) = bytes.split_first_chunk::<16>()?;
    let ip = Ipv6Addr::from(*ip).to_canonical();
    let port = u16::from_be_bytes(port.try_into().ok()?);
    (port != 0 && !ip.is_unspecified()).then_some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(packet: &[u8]) -> Option<Option<Signal>> {
        Signal::parse(&IpPacket::parse(packet)?)
    }

    fn endpoint() -> impl Strategy<Value = SocketAddr> {
        let address = prop_oneof![
            any::<u32>().prop_map(|bits| IpAddr::from(bits.to_be_bytes())),
            any::<u128>().prop_map(|bits| Ipv6Addr::from_bits(bits).to_canonical()),
        ];
        (address, 1..u16::MAX)
            .prop_filter("an address", |(ip, _)| !ip.is_unspecified())
            .prop_map(SocketAddr::from)
    }

    fn candidate() -> impl Strategy<Value = Candidate> {
        (0_u8..8, endpoint()).prop_map(|(kind, endpoint)| Candidate {
            kind: CandidateKind::of_code(kind),
            endpoint,
        })
    }

    fn signal() -> impl Strategy<Value = Signal> {
        let member = any::<u128>().prop_map(Ipv6Addr::from_bits);
        let bytes = proptest::collection::vec(any::<u8>(), 0..=PART);
        let part = (any::<[u8; 2]>(), any::<u64>(), any::<u32>(), bytes).prop_map(
            |([suite, number], exchange, session, bytes)| Part {
                suite,
                exchange,
                session,
                number,
                bytes,
            },
        );
        prop_oneof![
            any::<u8>().prop_map(Signal::Want),
            part.clone().prop_map(Signal::Offer),
            part.prop_map(Signal::Accept),
            any::<u64>().prop_map(Signal::Ask),
            (any::<u64>(), proptest::option::of(endpoint()))
                .prop_map(|(number, seen)| Signal::Answer { number, seen }),
            (
                any::<bool>(),
                proptest::collection::vec(candidate(), 0..=MAX_CANDIDATES)
            )
                .prop_map(|(wants_answer, candidates)| Signal::Call {
                    wants_answer,
                    candidates
                }),
            member.clone().prop_map(Signal::Open),
            member.clone().prop_map(Signal::Closed),
            (member, any::<u32>()).prop_map(|(member, channel)| Signal::Opened {
                member,
                channel: Channel(channel)
            }),
        ]
    }

    #[test]
    fn an_ordinary_packet_is_no_signal() {
        let mut packet = Signal::Ask(1).packet(ASK_LENGTH);
        packet[9] = 17;
        assert_eq!(parse(&packet), None);
    }

    #[test]
    fn what_a_later_version_says_is_not_taken_for_a_packet() {
        let mut packet = Signal::Ask(1).packet(ASK_LENGTH);
        packet[HEADER + 3] = 200;
        assert_eq!(parse(&packet), Some(None));
    }

    #[test]
    fn an_answer_is_short_whatever_the_question() {
        let answer = Signal::Answer {
            number: 1,
            seen: None,
        };
        assert!(answer.packet(1280).len() < 80);
    }

    #[test]
    fn a_part_of_an_exchange_passes_where_576_bytes_do_through_a_relay_too() {
        let part = Part {
            suite: 1,
            exchange: 1,
            session: 1,
            number: 0,
            bytes: vec![0; PART],
        };
        let packet = Signal::Offer(part).packet(0).len().next_multiple_of(16);
        let datagram = packet + crate::session::OVERHEAD + crate::relay::HEADER;
        assert!(20 + 8 + datagram <= 576);
    }

    #[test]
    fn padding_is_nothing_but_zeros() {
        let mut packet = Signal::Ask(1).packet(1280);
        packet[1279] = 1;
        assert_eq!(parse(&packet), Some(None));
    }

    #[test]
    fn more_candidates_than_allowed_are_not_told() {
        let candidate = Candidate {
            kind: CandidateKind::Host,
            endpoint: "192.0.2.1:7777".parse().unwrap(),
        };
        let call = Signal::Call {
            wants_answer: true,
            candidates: vec![candidate; MAX_CANDIDATES + 9],
        };
        let Some(Some(Signal::Call { candidates, .. })) = parse(&call.packet(0)) else {
            panic!("a call")
        };
        assert_eq!(candidates.len(), MAX_CANDIDATES);
    }

    proptest! {
        #[test]
        fn a_signal_is_read_back_as_it_was_written(signal in signal(), length in 0..2000_u16) {
            prop_assert_eq!(parse(&signal.packet(length)), Some(Some(signal)));
        }

        #[test]
        fn an_ask_is_as_long_as_the_path_shall_carry(number: u64, length: u16) {
            let packet = Signal::Ask(number).packet(length);
            prop_assert_eq!(packet.len(), usize::from(length.max(ASK_LENGTH)));
        }

        #[test]
        fn any_payload_is_a_signal_or_not_without_panic(kind: u8, payload: Vec<u8>, is_magic: bool) {
            let mut packet = Signal::Ask(0).packet(ASK_LENGTH)[..HEADER].to_vec();
            let mut body = if is_magic { [&MAGIC[..], &[kind]].concat() } else { Vec::new() };
            body.extend(payload);
            packet.extend(body);
            let total = packet.len() as u16;
            packet[2..4].copy_from_slice(&total.to_be_bytes());
            let _ = parse(&packet);
        }
    }
}
