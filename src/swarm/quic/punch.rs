//! Punching holes: the listener's half.
//!
//! Both peers sit behind NATs and have learned each other's outside address (DCUtR). One dials. The other, by
//! agreement the listener, would never see that dial: its own NAT drops datagrams from an address that it has
//! not sent to. So the listener sends something, anything, to that address until the dial comes through.
//!
//! What it sends must mean nothing to whoever gets it. The first byte is [`NOTHING`]: no WireGuard message type,
//! and without the bit that every QUIC datagram has, so that the peer's data loop hands it to quinn and quinn
//! drops it unread. (With that bit set, quinn could take it for a lost connection and answer with a reset.) The
//! rest is random, so that no middlebox finds a pattern to object to.
//!
//! The peer's dial arrives at the listener as any other. [`Punches`] recognises it by the address it comes from
//! and hands it to the attempt that waits for it. Source addresses can be forged, so a wrong one ends nothing:
//! an attempt goes on until the peer it is for has proved its identity, or time is up.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt, stream::FuturesUnordered};
use libp2p::PeerId;
use quinn::{AsyncUdpSocket, udp::Transmit};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use super::{error::Error, handshake, muxer::Muxer, socket::SharedSocket};

/// First byte of a datagram that nobody should understand.
const NOTHING: u8 = 0x00;

/// Bytes of such a datagram: too short for a QUIC Initial (1200), of no fixed length.
const LENGTH: std::ops::RangeInclusive<usize> = 32..=64;

/// Milliseconds between two of them. The NAT's mapping needs one; the more of them around the moment the dial
/// arrives, the sooner it gets in. At random, so that two punching peers do not stay out of step.
const INTERVAL: std::ops::RangeInclusive<u64> = 10..=200;

/// Handshakes that one attempt follows at a time. One is real, the others are forged or retries.
const CANDIDATES: usize = 4;

/// What identifies a remote endpoint. IPv6 socket addresses also carry a scope and a flow label, which differ
/// between what is dialed and what is received.
type Remote = (IpAddr, u16);

fn key(remote: SocketAddr) -> Remote {
    (remote.ip(), remote.port())
}

/// The attempts under way, by the address they punch to.
#[derive(Debug, Default)]
pub(super) struct Punches(BTreeMap<Remote, mpsc::Sender<quinn::Connecting>>);

impl Punches {
    /// Begins an attempt, which ends when the receiver is dropped.
    pub(super) fn begin(
        &mut self,
        remote: SocketAddr,
    ) -> Result<mpsc::Receiver<quinn::Connecting>, Error> {
        self.0.retain(|_, attempt| !attempt.is_closed());
        if self.0.contains_key(&key(remote)) {
            return Err(Error::PunchUnderWay(remote));
        }
        let (sender, inbound) = mpsc::channel(CANDIDATES);
        self.0.insert(key(remote), sender);
        Ok(inbound)
    }

    /// The attempt that waits for a connection from `remote` and has room for one.
    pub(super) fn expecting(
        &mut self,
        remote: SocketAddr,
    ) -> Option<mpsc::OwnedPermit<quinn::Connecting>> {
        let attempt = self.0.get(&key(remote))?;
        attempt.clone().try_reserve_owned().ok()
    }
}

/// One attempt: what it sends, whom it waits for.
pub(super) struct Punch {
    pub(super) socket: Arc<SharedSocket>,
    pub(super) remote: SocketAddr,
    pub(super) expected: PeerId,
    /// From [`Punches::begin`].
    pub(super) inbound: mpsc::Receiver<quinn::Connecting>,
    pub(super) handshake_timeout: Duration,
}

impl Punch {
    /// Punches until the peer is connected.
    ///
    /// A handshake that has begun in time may take its own time.
    pub(super) async fn run(mut self) -> Result<(PeerId, Muxer), Error> {
        let deadline = Instant::now() + self.handshake_timeout;
        let mut next = Instant::now();
        let mut handshakes = FuturesUnordered::new();
        loop {
            let late = Instant::now() >= deadline;
            if late && handshakes.is_empty() {
                return Err(Error::HandshakeTimedOut(self.remote));
            }
            tokio::select! {
                Some(outcome) = handshakes.next() => {
                    let remote = self.remote;
                    match outcome {
                        Ok((peer, muxer)) if peer == self.expected => return Ok((peer, muxer)),
                        Ok((peer, _)) => tracing::debug!(%remote, %peer, "a stranger in the hole"),
                        Err(error) => tracing::debug!(%remote, %error, "nobody in the hole"),
                    }
                }
                inbound = self.inbound.recv(), if !late && handshakes.len() < CANDIDATES => {
                    let Some(connecting) = inbound else {
                        return Err(Error::EndpointStopped(self.remote));
                    };
                    handshakes.push(handshake::complete(connecting, self.handshake_timeout));
                }
                () = sleep_until(next.min(deadline)), if !late => {
                    self.send_nothing();
                    next = Instant::now() + Duration::from_millis(rand::random_range(INTERVAL));
                }
            }
        }
    }

    fn send_nothing(&self) {
        let mut contents = rand::random::<[u8; *LENGTH.end()]>();
        contents[0] = NOTHING;
        let transmit = Transmit {
            destination: self.remote,
            ecn: None,
            contents: &contents[..rand::random_range(LENGTH)],
            segment_size: None,
            src_ip: None,
        };
        if let Err(error) = self.socket.try_send(&transmit) {
            tracing::trace!(remote = %self.remote, %error, "punching datagram not sent");
        }
    }
}
