//! One WireGuard tunnel to one peer: the only file that knows boringtun.
//!
//! boringtun keeps the handshake, the rotating transport keys, the replay window, cookies and the protocol's
//! timers. It has edges that a caller on the open internet must not touch, and this file keeps them inside:
//!
//! - it panics when an output buffer is too small, even for a datagram that would fail authentication, so
//!   lengths are checked before it is called;
//! - after it answered a datagram it wants to be called again with an empty one until it is done;
//! - without a session it queues up to 256 packets of any size by itself: it is never given a packet before
//!   [`Session::can_seal`], the short bounded queue of the [peer](crate::peer) is the only one;
//! - its notion of "now" moves only when its timers are updated: a tunnel that was not ticked for long takes a
//!   fresh handshake for an expired one, so the caller [ticks](Session::tick) before it opens a handshake message;
//! - what it opened may be shorter than an IP header, so packets are [parsed](crate::ip_packet) again;
//! - it does not pad to 16 bytes (whitepaper §5.4.6), so sealing does;
//! - its `Debug` would print the pre-shared key, so a session has none.

mod courtesy;

use std::{net::IpAddr, sync::Arc, time::Duration};

use boringtun::{
    noise::{
        Packet, Tunn, TunnResult, errors::WireGuardError, handshake::parse_handshake_anon,
        rate_limiter::RateLimiter,
    },
    x25519::{PublicKey, StaticSecret},
};
use zeroize::Zeroize;

pub use self::courtesy::Courtesy;
use crate::{
    datagram::{INITIATION, MAX_DATAGRAM, RESPONSE, TRANSPORT_DATA},
    drop_reason::DropReason,
    tunnel_key::Psk,
};

/// What sealing adds to a packet: type, receiver, counter and tag (whitepaper §5.4.6).
pub const OVERHEAD: usize = 32;

/// Smallest output buffer that every boringtun call accepts: a handshake initiation.
pub const MIN_BUFFER: usize = 148;

/// Transport data is padded to a multiple of this (whitepaper §5.4.6).
const PADDING: usize = 16;

/// Handshakes a second, over all peers, after which strangers must first return a cookie: two for each of 200 peers, the
/// greeting and the session. Each costs about 0.1 ms; counted twice because a datagram is checked before the peer is known
/// and again by its session.
const HANDSHAKES_PER_SECOND: u64 = 2 * 2 * 200;

/// A WireGuard static public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WireGuardKey(pub [u8; 32]);

/// Our WireGuard static key, with the limiter that all tunnels of this key share.
pub struct Identity {
    secret: StaticSecret,
    public: PublicKey,
    limiter: Arc<RateLimiter>,
}

impl Identity {
    /// Takes the 32 secret bytes and wipes the caller's copy.
    pub fn new(mut secret: [u8; 32]) -> Self {
        let key = StaticSecret::from(secret);
        secret.zeroize();
        let public = PublicKey::from(&key);
        Self {
            limiter: Arc::new(RateLimiter::new(&public, HANDSHAKES_PER_SECOND)),
            secret: key,
            public,
        }
    }

    /// The public half.
    pub fn public(&self) -> WireGuardKey {
        WireGuardKey(self.public.to_bytes())
    }

    /// Forgets the handshakes of the second that passed. Call about once a second.
    pub fn reset_limiter(&self) {
        self.limiter.reset_count();
    }

    /// Who sent this handshake initiation, and its index (24 bits) of the session that it is for. Under load, an address that has not proven itself gets a cookie
    /// reply, given to `reply`, instead of our Diffie-Hellman.
    pub fn initiator(
        &self,
        from: Option<IpAddr>,
        datagram: &[u8],
        reply: impl FnOnce(&[u8]),
    ) -> Result<(WireGuardKey, u32), DropReason> {
        let mut cookie = [0; 64];
        let packet = match self.limiter.verify_packet(from, datagram, &mut cookie) {
            Ok(packet) => packet,
            Err(TunnResult::WriteToNetwork(cookie)) => {
                reply(cookie);
                return Err(DropReason::UnderLoad);
            }
            Err(TunnResult::Err(error)) => return Err(reason(&error)),
            Err(_) => return Err(DropReason::Malformed),
        };
        let Packet::HandshakeInit(initiation) = packet else {
            return Err(DropReason::Malformed);
        };
        parse_handshake_anon(&self.secret, &self.public, &initiation)
            .map(|half| (WireGuardKey(half.peer_static_public), half.peer_index >> 8))
            .map_err(|error| reason(&error))
    }
}

/// What a datagram turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opened {
    /// Transport data: the first `usize` bytes of the output are the inner packet, unparsed.
    Packet(usize),
    /// Transport data without a packet.
    Keepalive,
    /// A handshake message or a cookie.
    Handshake,
}

/// What the protocol's timers may have to do while nothing is sent or received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timers {
    /// Nothing: no handshake was ever begun, or all is long over and wiped.
    Stopped,
    /// Keys grow old: they are replaced after two minutes, useless after three, and wiped after nine.
    Aging,
    /// Our handshake waits for its answer: it is repeated every five seconds, for a minute and a half.
    Handshake,
}

/// A tunnel to one peer.
pub struct Session {
    tunnel: Tunn,
    can_seal: bool,
    timers: Timers,
    courtesy: Courtesy,
}

impl Session {
    /// A tunnel between our key and the peer's, and a key that both share already. `index` (24 bits) names it in the
    /// datagrams we receive.
    pub fn new(identity: &Identity, peer: WireGuardKey, psk: &Psk, index: u32) -> Self {
        debug_assert!(index < 1 << 24, "boringtun keeps 8 bits for itself");
        Self {
            tunnel: Tunn::new(
                identity.secret.clone(),
                PublicKey::from(peer.0),
                Some(**psk),
                None,
                index,
                Some(identity.limiter.clone()),
            ),
            can_seal: false,
            timers: Timers::Stopped,
            courtesy: Courtesy::default(),
        }
    }

    /// Whose turn it is to begin a handshake.
    pub fn courtesy(&self) -> &Courtesy {
        &self.courtesy
    }

    /// Whose turn it is to begin a handshake, to report one.
    pub fn courtesy_mut(&mut self) -> &mut Courtesy {
        &mut self.courtesy
    }

    /// Whether it came to its end: nobody answered for a minute and a half, or its keys are wiped.
    pub fn is_over(&self) -> bool {
        self.tunnel.is_expired()
    }

    /// What [ticks](Self::tick) are needed for now.
    pub fn timers(&self) -> Timers {
        self.timers
    }

    /// Whether transport keys are established.
    pub fn can_seal(&self) -> bool {
        self.can_seal
    }

    /// Seals `packet` into `output` (at least [`sealed_length`] long) and returns the datagram's length.
    ///
    /// Pads to a multiple of 16 bytes but never beyond `mtu`; `scratch` is reused memory for that.
    pub fn seal(
        &mut self,
        packet: &[u8],
        mtu: usize,
        scratch: &mut Vec<u8>,
        output: &mut [u8],
    ) -> Result<usize, DropReason> {
        if !self.can_seal {
            return Err(DropReason::QueueFull);
        }
        if output.len() < sealed_length(packet.len())
            || packet.len() + OVERHEAD + PADDING > MAX_DATAGRAM
        {
            return Err(DropReason::TooLong);
        }
        let padded = packet
            .len()
            .next_multiple_of(PADDING)
            .min(mtu)
            .max(packet.len());
        let packet = if padded == packet.len() {
            packet
        } else {
            scratch.clear();
            scratch.extend_from_slice(packet);
            scratch.resize(padded, 0);
            scratch
        };
        match self.tunnel.encapsulate(packet, output) {
            TunnResult::WriteToNetwork(datagram) => Ok(datagram.len()),
            TunnResult::Done
            | TunnResult::Err(_)
            | TunnResult::WriteToTunnelV4(..)
            | TunnResult::WriteToTunnelV6(..) => Err(DropReason::QueueFull),
        }
    }

    /// Opens `datagram` into `output`, which must be as long as the datagram and at least [`MIN_BUFFER`].
    /// Answers that must go back (handshake response, keepalive, cookie) are given to `reply`.
    pub fn open(
        &mut self,
        from: Option<IpAddr>,
        datagram: &[u8],
        output: &mut [u8],
        mut reply: impl FnMut(&[u8]),
    ) -> Result<Opened, DropReason> {
        if datagram.is_empty() || output.len() < datagram.len().max(MIN_BUFFER) {
            return Err(DropReason::TooLong);
        }
        let is_transport_data = datagram[0] == TRANSPORT_DATA;
        let opened = match self.tunnel.decapsulate(from, datagram, output) {
            TunnResult::WriteToTunnelV4(packet, _) | TunnResult::WriteToTunnelV6(packet, _) => {
                Opened::Packet(packet.len())
            }
            TunnResult::WriteToNetwork(answer) => {
                let is_cookie = answer.first() == Some(&3);
                reply(answer);
                if is_cookie {
                    return Err(DropReason::UnderLoad);
                }
                while let TunnResult::WriteToNetwork(answer) =
                    self.tunnel.decapsulate(None, &[], output)
                {
                    reply(answer);
                }
                Opened::Handshake
            }
            TunnResult::Done if is_transport_data => Opened::Keepalive,
            TunnResult::Done => Opened::Handshake,
            TunnResult::Err(error) => return Err(reason(&error)),
        };
        if !self.can_seal {
            self.can_seal = self.since_handshake().is_some();
        }
        if matches!(datagram[0], INITIATION | RESPONSE) {
            self.timers = Timers::Aging;
        }
        Ok(opened)
    }

    /// Starts a handshake, `anew` even if one is in progress. `output` must be at least [`MIN_BUFFER`] long.
    pub fn initiate(&mut self, anew: bool, output: &mut [u8], mut send: impl FnMut(&[u8])) {
        self.tick(output, &mut send);
        if let TunnResult::WriteToNetwork(initiation) =
            self.tunnel.format_handshake_initiation(output, anew)
        {
            self.timers = Timers::Handshake;
            send(initiation);
        }
    }

    /// Lets the protocol's timers act: retransmissions, rekeys, keepalives. Call about every 250 ms while datagrams
    /// flow, and otherwise as [`timers`](Self::timers) demands; the caller jitters the calls, because boringtun does
    /// not jitter its retransmissions (whitepaper §6.1).
    pub fn tick(&mut self, output: &mut [u8], mut send: impl FnMut(&[u8])) {
        if output.len() < MIN_BUFFER {
            return;
        }
        if let TunnResult::WriteToNetwork(datagram) = self.tunnel.update_timers(output) {
            if datagram.first() == Some(&INITIATION) {
                self.timers = Timers::Handshake;
            }
            send(datagram);
        }
        if self.tunnel.is_expired() {
            self.timers = Timers::Stopped;
        }
        self.can_seal = self.since_handshake().is_some();
    }

    /// Age of the transport keys in use, `None` without any.
    pub fn since_handshake(&self) -> Option<Duration> {
        self.tunnel.time_since_last_handshake()
    }
}

/// Output length that sealing a packet of `length` bytes needs.
pub fn sealed_length(length: usize) -> usize {
    (length + PADDING + OVERHEAD).max(MIN_BUFFER)
}

fn reason(error: &WireGuardError) -> DropReason {
    match error {
        WireGuardError::DuplicateCounter
        | WireGuardError::InvalidCounter
        | WireGuardError::WrongTai64nTimestamp
        | WireGuardError::InvalidTai64nTimestamp => DropReason::Replayed,
        WireGuardError::InvalidMac
        | WireGuardError::InvalidAeadTag
        | WireGuardError::WrongKey
        | WireGuardError::UnexpectedPacket => DropReason::Unauthentic,
        WireGuardError::WrongIndex
        | WireGuardError::NoCurrentSession
        | WireGuardError::ConnectionExpired => DropReason::UnknownSession,
        WireGuardError::UnderLoad => DropReason::UnderLoad,
        WireGuardError::InvalidPacket => DropReason::InnerNotIp,
        WireGuardError::DestinationBufferTooSmall
        | WireGuardError::IncorrectPacketLength
        | WireGuardError::WrongPacketType
        | WireGuardError::LockFailed => DropReason::Malformed,
    }
}

#[cfg(test)]
mod tests;
