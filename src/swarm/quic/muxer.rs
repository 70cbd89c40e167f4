//! A QUIC connection, as libp2p's swarm sees it: a source of streams that may move.
//!
//! A connection lives exactly as long as its [`Muxer`]. Dropping the muxer closes it, whatever streams are left,
//! so one that the swarm or the membership gate has refused is gone for the peer too. Nothing else may keep a
//! [`quinn::Connection`]: every clone would keep the connection open.
//!
//! When the peer's NAT gives it another address, QUIC follows (RFC 9000, section 9) and the muxer reports
//! [`StreamMuxerEvent::AddressChange`]. That address is an observation: it may be reported before the peer has
//! proved that it is there, and taken back by another report.

use std::{
    fmt,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures::{
    StreamExt, ready,
    stream::{self, BoxStream},
};
use libp2p::core::muxing::{StreamMuxer, StreamMuxerEvent};
use quinn::{ConnectionError, RecvStream, SendStream, VarInt};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use super::{address::multiaddr, error::Error, stream::Substream};

/// How often to look whether the peer has moved: quinn tells nobody.
///
/// A peer that moved is noticed by its next datagram, a keep-alive at the latest, so looking more often than
/// that by much finds nothing new.
const ADDRESS_CHECK: Duration = Duration::from_secs(1);

/// Application error code of a connection that ended because it is not needed any more.
pub(super) const CLOSED: VarInt = VarInt::from_u32(0);

type Streams = BoxStream<'static, Result<(SendStream, RecvStream), ConnectionError>>;

/// An established connection with a peer whose identity is proved.
pub struct Muxer {
    connection: quinn::Connection,
    inbound: Streams,
    outbound: Streams,
    /// The peer's address as last reported.
    pub(super) remote: SocketAddr,
    address_check: Interval,
}

impl Muxer {
    pub(super) fn new(connection: quinn::Connection) -> Self {
        let inbound = stream::unfold(connection.clone(), async |connection| {
            Some((connection.accept_bi().await, connection))
        });
        let outbound = stream::unfold(connection.clone(), async |connection| {
            Some((connection.open_bi().await, connection))
        });
        let mut address_check = interval_at(Instant::now() + ADDRESS_CHECK, ADDRESS_CHECK);
        address_check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            inbound: inbound.boxed(),
            outbound: outbound.boxed(),
            remote: connection.remote_address(),
            address_check,
            connection,
        }
    }
}

fn poll_stream(streams: &mut Streams, cx: &mut Context<'_>) -> Poll<Result<Substream, Error>> {
    let stream = ready!(streams.poll_next_unpin(cx)).expect("the stream of streams has no end");
    Poll::Ready(stream.map(Substream::new).map_err(Error::from))
}

impl StreamMuxer for Muxer {
    type Substream = Substream;
    type Error = Error;

    fn poll_inbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Substream, Error>> {
        poll_stream(&mut self.inbound, cx)
    }

    fn poll_outbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Substream, Error>> {
        poll_stream(&mut self.outbound, cx)
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        // The goodbye goes out with the connection's driver, there is nothing to wait for.
        self.connection.close(CLOSED, b"");
        Poll::Ready(Ok(()))
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<StreamMuxerEvent, Error>> {
        // Until it is pending, so that it wakes us for the next look.
        while self.address_check.poll_tick(cx).is_ready() {}
        let remote = self.connection.remote_address();
        if remote == self.remote {
            return Poll::Pending;
        }
        tracing::debug!(from = %self.remote, to = %remote, "peer has moved");
        self.remote = remote;
        Poll::Ready(Ok(StreamMuxerEvent::AddressChange(multiaddr(remote))))
    }
}

impl Drop for Muxer {
    fn drop(&mut self) {
        self.connection.close(CLOSED, b"");
    }
}

impl fmt::Debug for Muxer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Muxer")
            .field("remote", &self.remote)
            .finish_non_exhaustive()
    }
}
