//! One connection's carrier: opens or accepts the stream, and moves frames both ways while it lasts.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, FutureExt,
    future::{self, BoxFuture},
};
use hivevpn_core::connection::ConnectionId;
use libp2p::{
    PeerId, Stream, StreamProtocol,
    core::upgrade::ReadyUpgrade,
    swarm::{
        ConnectionHandler, ConnectionHandlerEvent, SubstreamProtocol,
        handler::{ConnectionEvent, FullyNegotiatedInbound, FullyNegotiatedOutbound},
    },
};
use tokio::time::{Instant, Sleep, sleep};

use super::{
    frames::Decoder,
    queue::{self, Waiting},
};
use crate::{mailbox, swarm::Event};

/// The protocol of the stream.
pub const PROTOCOL: StreamProtocol = StreamProtocol::new("/hivevpn/carrier/1");

/// The pause before a broken stream is opened again: doubled each time, and short again once a stream has
/// lasted. So a peer that cannot carry costs one small stream every half minute.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(32);

/// A stream that comes this soon after the one before is not an honest peer's (see [`FIRST_PAUSE`]): it is
/// dropped, so that nobody fills the mailbox with openings.
const SHORTEST_PAUSE: Duration = Duration::from_millis(500);

/// The carrier of one connection.
pub struct Handler {
    connection: ConnectionId,
    peer: PeerId,
    opening: Opening,
    mailbox: mailbox::Sender<Event>,
    stream: Option<BoxFuture<'static, ()>>,
    started: Option<Instant>,
}

enum Opening {
    /// The peer opens.
    Theirs,
    /// We do, when this is over.
    Pause(Pin<Box<Sleep>>, Duration),
    /// We asked for a stream, or have one.
    Done(Duration),
}

impl Handler {
    pub(super) fn new(
        connection: ConnectionId,
        peer: PeerId,
        opens: bool,
        mailbox: mailbox::Sender<Event>,
    ) -> Self {
        let opening = if opens {
            Opening::Pause(Box::pin(sleep(Duration::ZERO)), FIRST_PAUSE)
        } else {
            Opening::Theirs
        };
        Self {
            connection,
            peer,
            opening,
            mailbox,
            stream: None,
            started: None,
        }
    }

    fn start(&mut self, stream: Stream) {
        let (connection, peer) = (self.connection, self.peer);
        self.started = Some(Instant::now());
        self.stream = Some(carry(stream, connection, peer, self.mailbox.clone()).boxed());
    }

    fn accept(&mut self, stream: Stream) {
        let expected = matches!(self.opening, Opening::Theirs);
        let hasty = self
            .started
            .is_some_and(|started| started.elapsed() < SHORTEST_PAUSE);
        if expected && !hasty {
            self.start(stream);
        }
    }

    /// The stream broke, or could not be opened.
    fn pause(&mut self) {
        let Opening::Done(pause) = self.opening else {
            return;
        };
        let lasted = self.started.take().map(|started| started.elapsed());
        let pause = match lasted {
            Some(lasted) if lasted >= LONGEST_PAUSE => FIRST_PAUSE,
            Some(_) | None => pause,
        };
        let next = (pause * 2).min(LONGEST_PAUSE);
        self.opening = Opening::Pause(Box::pin(sleep(pause)), next);
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Infallible;
    type ToBehaviour = Infallible;
    type InboundProtocol = ReadyUpgrade<StreamProtocol>;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(ReadyUpgrade::new(PROTOCOL), ())
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, (), Infallible>> {
        if let Some(stream) = &mut self.stream
            && stream.poll_unpin(cx).is_ready()
        {
            self.stream = None;
            self.pause();
        }
        if let Opening::Pause(pause, next) = &mut self.opening
            && pause.poll_unpin(cx).is_ready()
        {
            self.opening = Opening::Done(*next);
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest {
                protocol: SubstreamProtocol::new(ReadyUpgrade::new(PROTOCOL), ()),
            });
        }
        Poll::Pending
    }

    fn on_behaviour_event(&mut self, event: Infallible) {
        match event {}
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol>,
    ) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol, ..
            }) => {
                self.accept(protocol);
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol, ..
            }) => {
                self.start(protocol);
            }
            ConnectionEvent::DialUpgradeError(error) => {
                tracing::debug!(peer = %self.peer, "no carrier: {}", error.error);
                self.pause();
            }
            // Listening with a protocol that is ready cannot fail; the rest is not for us.
            ConnectionEvent::ListenUpgradeError(_)
            | ConnectionEvent::AddressChange(_)
            | ConnectionEvent::LocalProtocolsChange(_)
            | ConnectionEvent::RemoteProtocolsChange(_)
            | _ => {}
        }
    }
}

/// Moves frames until the stream or the data loop ends.
async fn carry(
    stream: impl AsyncRead + AsyncWrite + Send + 'static,
    connection: ConnectionId,
    peer: PeerId,
    mailbox: mailbox::Sender<Event>,
) {
    let (carrier, waiting) = queue::queue();
    let opened = Event::CarrierOpened {
        connection,
        peer,
        carrier,
    };
    if mailbox.send(opened).await.is_err() {
        return;
    }
    let (reader, writer) = stream.split();
    tokio::select! {
        () = receive(reader, connection, peer, &mailbox) => {}
        () = send(writer, waiting) => {}
    }
    // If nobody reads the mailbox any more, nobody misses this.
    mailbox.send(Event::CarrierClosed { connection }).await.ok();
}

async fn receive(
    mut stream: impl AsyncRead + Unpin,
    connection: ConnectionId,
    peer: PeerId,
    mailbox: &mailbox::Sender<Event>,
) {
    let mut decoder = Decoder::new();
    loop {
        let read = match stream.read(decoder.room()).await {
            Ok(0) => return,
            Ok(read) => read,
            Err(error) => return tracing::debug!(%peer, "the carrier broke: {error}"),
        };
        let frames = match decoder.advance(read) {
            Ok(None) => continue,
            Ok(Some(frames)) => frames,
            Err(error) => return tracing::warn!(%peer, "the carrier is closed: {error}"),
        };
        let arrived = Event::Frames { connection, frames };
        if mailbox.send(arrived).await.is_err() {
            return;
        }
    }
}

async fn send(mut stream: impl AsyncWrite + Unpin, mut waiting: Waiting) {
    let mut buffer = Vec::new();
    while waiting.take(&mut buffer).await {
        let written = match stream.write_all(&buffer).await {
            Ok(()) => stream.flush().await,
            error => error,
        };
        if let Err(error) = written {
            return tracing::debug!("the carrier broke: {error}");
        }
        waiting.written(buffer.len());
        buffer.clear();
    }
    // Nobody wants to send any more; what the peer sends is still welcome.
    future::pending().await
}
