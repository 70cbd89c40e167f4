//! Telling WireGuard datagrams apart, and from everything else that arrives on the shared UDP port.
//!
//! WireGuard's first four bytes are the message type as a little-endian integer (whitepaper §5.4), so bytes
//! 1 to 3 are zero. A QUIC packet has bit 0x40 of its first byte set as long as nobody greases it
//! (RFC 9000 §17.2, RFC 9287), which our endpoints never do.

use crate::relay;

/// Largest UDP payload over IPv4.
pub const MAX_DATAGRAM: usize = 65_507;

/// First byte of a handshake initiation (whitepaper §5.4.2).
pub const INITIATION: u8 = 1;
/// First byte of a handshake response (whitepaper §5.4.3).
pub const RESPONSE: u8 = 2;
/// First byte of transport data (whitepaper §5.4.6).
pub const TRANSPORT_DATA: u8 = 4;

/// The WireGuard message types (whitepaper §5.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WireGuardDatagram {
    /// Handshake initiation: names no session, the static key inside names the peer.
    Initiation,
    /// Handshake response to the session with this local index.
    Response {
        /// The local session index it answers.
        receiver: u32,
    },
    /// Cookie reply for the session with this local index.
    CookieReply {
        /// The local session index it answers.
        receiver: u32,
    },
    /// Transport data for the session with this local index.
    TransportData {
        /// The local session index it is sealed for.
        receiver: u32,
    },
}

/// Whether a UDP payload is for the core rather than for QUIC: WireGuard, by itself or behind a relay's channel.
pub fn is_for_the_core(datagram: &[u8]) -> bool {
    is_wireguard(datagram) || relay::split(datagram).is_some()
}

/// Whether a UDP payload is a WireGuard datagram.
pub fn is_wireguard(datagram: &[u8]) -> bool {
    matches!(datagram, [1..=4, 0, 0, 0, ..])
}

impl WireGuardDatagram {
    /// Reads type and receiver index; checks the exact length that the type demands.
    pub fn parse(datagram: &[u8]) -> Option<Self> {
        if !is_wireguard(datagram) {
            return None;
        }
        let receiver = |at: usize| {
            let bytes = datagram.get(at..at + 4)?.try_into().ok()?;
            Some(u32::from_le_bytes(bytes))
        };
        match (datagram[0], datagram.len()) {
            (1, 148) => Some(Self::Initiation),
            (2, 92) => Some(Self::Response {
                receiver: receiver(8)?,
            }),
            (3, 64) => Some(Self::CookieReply {
                receiver: receiver(4)?,
            }),
            (4, 32..=MAX_DATAGRAM) => Some(Self::TransportData {
                receiver: receiver(4)?,
            }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quic_is_never_taken_for_wireguard() {
        for first in 0x40..=0xff_u8 {
            assert!(!is_wireguard(&[first, 0, 0, 0, 0]));
        }
    }

    #[test]
    fn every_type_has_its_length() {
        let of = |kind: u8, length: usize| {
            let mut datagram = vec![0; length];
            datagram[0] = kind;
            WireGuardDatagram::parse(&datagram)
        };
        assert_eq!(of(1, 148), Some(WireGuardDatagram::Initiation));
        assert_eq!(of(1, 147), None);
        assert_eq!(of(2, 92), Some(WireGuardDatagram::Response { receiver: 0 }));
        assert_eq!(
            of(3, 64),
            Some(WireGuardDatagram::CookieReply { receiver: 0 })
        );
        assert_eq!(of(4, 31), None);
        assert_eq!(
            of(4, 32),
            Some(WireGuardDatagram::TransportData { receiver: 0 })
        );
        assert_eq!(of(5, 148), None);
    }
}
