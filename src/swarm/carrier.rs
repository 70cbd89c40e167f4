//! The fallback for datagrams: a framed stream on a connection between members, direct or relayed.
//!
//! Of the two nodes, the one with the lower peer id opens `/hivevpn/carrier/1`, as soon as the gate lets it,
//! and opens it again when it breaks while the connection lives. (Not "the dialer": after a hole punch either
//! side may think it is.) The newest stream counts.
//!
//! Datagrams take the short way. The data loop puts them into the [`Carrier`]'s queue, and the task of the
//! connection writes all that wait as one piece. What arrives goes from that task straight into the loop's
//! mailbox, past the swarm, so that a storm of discovery delays nothing. While the mailbox is full, the stream
//! is not read, and the peer's queue fills instead.
//!
//! Hence the order of events: [`Event::CarrierOpened`] comes after [`Event::ConnectionOpened`] and before the
//! first [`Event::Frames`], but possibly before [`Event::Authenticated`].

mod frames;
mod handler;
mod queue;

use std::{
    convert::Infallible,
    task::{Context, Poll},
};

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandlerInEvent,
        THandlerOutEvent, ToSwarm,
    },
};

use super::{Event, numbers};
use crate::mailbox;
#[cfg(feature = "fuzzing")]
pub use frames::Decoder;
pub use frames::Frames;
use handler::Handler;
pub use queue::{Carrier, Dropped};

/// Opens carriers on the connections it is told of.
pub struct Behaviour {
    local: PeerId,
    mailbox: mailbox::Sender<Event>,
}

impl Behaviour {
    /// Of node `local`, delivering to `mailbox`.
    pub fn new(local: PeerId, mailbox: mailbox::Sender<Event>) -> Self {
        Self { local, mailbox }
    }

    fn handler(&self, id: ConnectionId, peer: PeerId) -> Handler {
        let opens = self.local < peer;
        Handler::new(numbers::ours(id), peer, opens, self.mailbox.clone())
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<Handler, ConnectionDenied> {
        Ok(self.handler(id, peer))
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<Handler, ConnectionDenied> {
        Ok(self.handler(id, peer))
    }

    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}

    fn on_connection_handler_event(
        &mut self,
        _: PeerId,
        _: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}
