//! What fuzzers feed: the parts that read what peers send, without the network around them.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use futures::{AsyncRead, AsyncWrite, FutureExt, io::Cursor};
use hivevpn_core::membership::Network;
use libp2p::{
    Multiaddr, PeerId, StreamProtocol, core::ConnectedPoint, request_response::Codec as _,
};

use super::{addresses, carrier::Decoder, codec::Codec, gate, source::Source};

/// A peer that says what it has to say, whatever it hears.
struct Script(Cursor<Vec<u8>>);

impl AsyncRead for Script {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Script {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, b: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(b.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// `bytes` as what the other side says on a stream of the gate, in either role.
pub fn exchange(network: &Network, bytes: &[u8]) {
    let us = gate::Membership::new(PeerId::random(), network.clone(), vec![7; 100]);
    let peer = PeerId::random();
    let script = || Script(Cursor::new(bytes.to_vec()));
    let shown = gate::show(script(), &us, peer).now_or_never();
    assert!(shown.is_some_and(|shown| shown.is_err()), "it has no tag");
    if let Some(Ok((credential, _))) = gate::examine(script(), &us, peer).now_or_never() {
        assert!(credential.len() <= gate::MAX_CREDENTIAL);
    }
}

/// `bytes` as what comes on a carrier, in reads whose lengths the first of them say.
pub fn carrier(bytes: &[u8]) {
    let [step, rest @ ..] = bytes else { return };
    let step = (usize::from(*step) + 1) * 64;
    let mut decoder = Decoder::new();
    for read in rest.chunks(step) {
        let mut read = read;
        while !read.is_empty() {
            let room = decoder.room();
            let length = room.len().min(read.len());
            room[..length].copy_from_slice(&read[..length]);
            read = &read[length..];
            let Ok(frames) = decoder.advance(length) else {
                return;
            };
            for frame in frames.unwrap_or_default().iter() {
                assert!(!frame.is_empty());
            }
        }
    }
}

/// `bytes` as a request and as a response.
pub fn message(bytes: &[u8]) {
    const LIMIT: usize = 1 << 10;
    let protocol = StreamProtocol::new("/test");
    let mut codec = Codec::new(LIMIT, LIMIT);
    let mut request = Cursor::new(bytes.to_vec());
    let mut response = Cursor::new(bytes.to_vec());
    let read = codec.read_request(&protocol, &mut request).now_or_never();
    if let Some(Ok(body)) = read {
        assert!(body.len() <= LIMIT);
    }
    codec.read_response(&protocol, &mut response).now_or_never();
}

/// `address` as one that a peer says it has, or is seen at.
pub fn address(address: &Multiaddr) {
    let _ = addresses::link(&ConnectedPoint::Listener {
        local_addr: address.clone(),
        send_back_addr: address.clone(),
    });
    let _ = Source::new(address, address);
    let _ = addresses::is_public(address);
    let _ = addresses::is_quic(address);
    let _ = addresses::transport(address);
    let _ = addresses::worth_announcing(address);
    let _ = hivevpn_core::connection::quic_endpoint(address);
}
