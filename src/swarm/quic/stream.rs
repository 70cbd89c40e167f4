//! One stream of a connection, as libp2p's protocols see it.
//!
//! The two directions end separately: closing finishes ours, and what the peer sends can still be read. The end
//! is a statement. A stream that is dropped without having been closed is reset, so the peer never takes half a
//! message for a whole one; unless the peer's direction was read to its end: then both have said what they had to
//! say. Kademlia leaves its streams like that as soon as it has answered, and a reset would take the answer back.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use futures::{AsyncRead, AsyncWrite};
use quinn::{RecvStream, SendStream, VarInt};

/// Application error code of a stream whose owner has gone. libp2p gives codes no meaning.
const ABANDONED: VarInt = VarInt::from_u32(0);

/// A bidirectional QUIC stream.
///
/// Flushing does nothing: quinn sends what it has as soon as the network takes it. That is no promise of
/// delivery, closing is.
#[derive(Debug)]
pub struct Substream {
    send: SendStream,
    recv: RecvStream,
    /// Our direction has been finished.
    closed: bool,
    /// The peer's direction has been read to its end.
    ended: bool,
}

impl Substream {
    pub(super) fn new((send, recv): (SendStream, RecvStream)) -> Self {
        Self {
            send,
            recv,
            closed: false,
            ended: false,
        }
    }
}

impl AsyncRead for Substream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let read = std::task::ready!(self.recv.poll_read(cx, buffer))?;
        self.ended |= read == 0 && !buffer.is_empty();
        Poll::Ready(Ok(read))
    }
}

impl AsyncWrite for Substream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.send)
            .poll_write(cx, bytes)
            .map_err(io::Error::from)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.closed = true;
        // Fails only on a stream that has ended already, which is what was asked for.
        let _ = self.send.finish();
        Poll::Ready(Ok(()))
    }
}

impl Drop for Substream {
    fn drop(&mut self) {
        // Resetting a finished stream would take back what is still under way.
        if !self.closed && !self.ended {
            // Fails only on a stream that has ended already.
            let _ = self.send.reset(ABANDONED);
        }
        // quinn finishes our half if nobody has.
        // quinn asks the peer to stop sending when the receiving half goes.
    }
}
