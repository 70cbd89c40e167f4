//! The gate between members and strangers.
//!
//! [`Gate`] wraps the behaviour of all protocols that only members may speak. On each connection it first
//! speaks `/hivevpn/auth/1` (see [`exchange`]) in both directions. Until the other side has been admitted, the
//! wrapped behaviour *does not know of the connection*: it has no handler there, so its protocols are neither
//! offered nor accepted, and it can neither use the connection nor keep it alive.
//!
//! One connection goes through these steps:
//!
//! 1. **open**: both sides show their credential on a stream of their own, once they have entered the network.
//! 2. **admitted**: our core accepted their credential. The wrapped behaviour is introduced to the connection,
//!    as if it had just been established, and serves the peer's streams. What it wants to open itself is held.
//! 3. **mutual**: they admitted us as well. What was held goes out; the connection is kept alive from now on.
//!
//! There is no race between 2 and 3: whoever tells a verdict has opened its own side before.
//! A connection that does not become mutual has no reason to live and idles out.

mod exchange;
mod handler;
mod members;

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    task::{Context, Poll},
};

use libp2p::{
    Multiaddr, PeerId,
    core::{ConnectedPoint, Endpoint, transport::PortUse},
    swarm::{
        AddressChange, CloseConnection, ConnectionClosed, ConnectionDenied, ConnectionId,
        FromSwarm, NetworkBehaviour, NotifyHandler, THandler, THandlerInEvent, THandlerOutEvent,
        ToSwarm,
        behaviour::{ConnectionEstablished, NewExternalAddrCandidate},
    },
};

pub use exchange::{MAX_CREDENTIAL, Membership};
#[cfg(feature = "fuzzing")]
pub use exchange::{examine, show};
pub use handler::Handler;
pub use members::Members;

/// What the gate reports.
#[derive(Debug)]
pub enum Event<E> {
    /// The peer showed a credential; [`Gate::admit`] or [`Gate::refuse`] answers.
    Credential {
        /// On this connection.
        connection: ConnectionId,
        /// Whose credential it claims to be.
        peer: PeerId,
        /// Not checked yet.
        credential: Vec<u8>,
    },
    /// Both sides accepted each other.
    Authenticated {
        /// On this connection.
        connection: ConnectionId,
        /// The member at the other end.
        peer: PeerId,
    },
    /// The peer does not accept our credential.
    Refused {
        /// On this connection.
        connection: ConnectionId,
        /// The member that refused us.
        peer: PeerId,
    },
    /// The connection goes on over another address.
    Moved {
        /// This connection.
        connection: ConnectionId,
        /// Where it leads now.
        endpoint: ConnectedPoint,
    },
    /// Of the wrapped behaviour.
    Inner(E),
}

/// Lets the wrapped behaviour meet members only.
pub struct Gate<B: NetworkBehaviour> {
    inner: B,
    membership: Option<Arc<Membership>>,
    connections: HashMap<ConnectionId, Connection>,
    members: Members,
    pending: VecDeque<ToSwarm<Event<B::ToSwarm>, THandlerInEvent<Self>>>,
}

struct Connection {
    peer: PeerId,
    endpoint: ConnectedPoint,
    /// Whether the wrapped behaviour has been introduced to it.
    admitted: bool,
}

impl<B: NetworkBehaviour> Gate<B> {
    /// A closed gate before `inner`. `members` always holds the peers that are admitted on some connection.
    pub fn new(inner: B, members: Members) -> Self {
        Self {
            inner,
            membership: None,
            connections: HashMap::new(),
            members,
            pending: VecDeque::new(),
        }
    }

    /// Tells the protocols inside, the hole puncher among them, what a member sees us as. identify would tell them
    /// what any stranger says.
    pub fn offer_candidate(&mut self, address: &Multiaddr) {
        self.inner
            .on_swarm_event(FromSwarm::NewExternalAddrCandidate(
                NewExternalAddrCandidate { addr: address },
            ));
    }

    /// The wrapped behaviour.
    pub fn inner_mut(&mut self) -> &mut B {
        &mut self.inner
    }

    /// Our membership, once we have entered the network.
    pub fn membership(&self) -> Option<&Arc<Membership>> {
        self.membership.as_ref()
    }

    /// Starts to show `membership` on every connection, or shows it again after it was renewed.
    pub fn enter(&mut self, membership: Membership) {
        let membership = Arc::new(membership);
        self.membership = Some(membership.clone());
        let connections = self.connections.iter();
        let events = connections.map(|(id, connection)| ToSwarm::NotifyHandler {
            peer_id: connection.peer,
            handler: NotifyHandler::One(*id),
            event: handler::In::Enter(membership.clone()),
        });
        self.pending.extend(events);
    }

    /// Accepts the credential that was shown on the connection, if it still exists.
    pub fn admit(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get(&id) else {
            return;
        };
        let peer = connection.peer;
        let event = if connection.admitted {
            handler::In::AdmitAgain
        } else {
            match self.introduce(id) {
                Ok(handler) => handler::In::Admit(Box::new(handler)),
                Err(denied) => {
                    tracing::warn!(%peer, "a member's connection was turned down: {denied}");
                    return self.close(id, peer);
                }
            }
        };
        self.notify(id, peer, event);
    }

    /// Rejects the credential that was shown on the connection and closes it.
    pub fn refuse(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get(&id) {
            self.notify(id, connection.peer, handler::In::Refuse);
        }
    }

    fn notify(&mut self, id: ConnectionId, peer_id: PeerId, event: THandlerInEvent<Self>) {
        self.pending.push_back(ToSwarm::NotifyHandler {
            peer_id,
            handler: NotifyHandler::One(id),
            event,
        });
    }

    fn close(&mut self, id: ConnectionId, peer_id: PeerId) {
        self.pending.push_back(ToSwarm::CloseConnection {
            peer_id,
            connection: CloseConnection::One(id),
        });
    }

    /// Tells the wrapped behaviour of the connection, in the order in which the swarm would have.
    fn introduce(&mut self, id: ConnectionId) -> Result<THandler<B>, ConnectionDenied> {
        let connection = self.connections.get_mut(&id).expect("the caller found it");
        let peer = connection.peer;
        let handler = match &connection.endpoint {
            ConnectedPoint::Dialer {
                address,
                role_override,
                port_use,
            } => self.inner.handle_established_outbound_connection(
                id,
                peer,
                address,
                *role_override,
                *port_use,
            )?,
            ConnectedPoint::Listener {
                local_addr,
                send_back_addr,
            } => self.inner.handle_established_inbound_connection(
                id,
                peer,
                local_addr,
                send_back_addr,
            )?,
        };
        connection.admitted = true;
        let endpoint = connection.endpoint.clone();
        let others = self.members.insert(peer);
        self.inner
            .on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
                peer_id: peer,
                connection_id: id,
                endpoint: &endpoint,
                failed_addresses: &[],
                other_established: others,
            }));
        Ok(handler)
    }

    fn on_closed(&mut self, closed: ConnectionClosed<'_>) {
        let Some(connection) = self.connections.remove(&closed.connection_id) else {
            return;
        };
        if connection.admitted {
            let remaining_established = self.members.remove(closed.peer_id);
            self.inner
                .on_swarm_event(FromSwarm::ConnectionClosed(ConnectionClosed {
                    remaining_established,
                    endpoint: &connection.endpoint,
                    ..closed
                }));
        }
    }

    fn on_moved(&mut self, change: AddressChange<'_>) {
        let Some(connection) = self.connections.get_mut(&change.connection_id) else {
            return;
        };
        connection.endpoint = change.new.clone();
        self.pending.push_back(ToSwarm::GenerateEvent(Event::Moved {
            connection: change.connection_id,
            endpoint: change.new.clone(),
        }));
        if connection.admitted {
            self.inner.on_swarm_event(FromSwarm::AddressChange(change));
        }
    }

    /// Hands an event of the wrapped behaviour on. "Any connection of the peer" must not be one that the
    /// behaviour has not met.
    fn outward(
        &self,
        event: ToSwarm<B::ToSwarm, THandlerInEvent<B>>,
    ) -> Option<ToSwarm<Event<B::ToSwarm>, THandlerInEvent<Self>>> {
        let ToSwarm::NotifyHandler {
            peer_id,
            handler,
            event,
        } = event
        else {
            return Some(event.map_out(Event::Inner).map_in(handler::In::Inner));
        };
        let id = match handler {
            NotifyHandler::One(id) => id,
            NotifyHandler::Any => {
                let mut known = self.connections.iter();
                *known.find(|(_, c)| c.peer == peer_id && c.admitted)?.0
            }
        };
        Some(ToSwarm::NotifyHandler {
            peer_id,
            handler: NotifyHandler::One(id),
            event: handler::In::Inner(event),
        })
    }
}

impl<B: NetworkBehaviour> NetworkBehaviour for Gate<B> {
    type ConnectionHandler = Handler<THandler<B>>;
    type ToSwarm = Event<B::ToSwarm>;

    fn handle_pending_inbound_connection(
        &mut self,
        id: ConnectionId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        self.inner
            .handle_pending_inbound_connection(id, local, remote)
    }

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler::new(peer, self.membership.clone()))
    }

    fn handle_pending_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
        role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        self.inner
            .handle_pending_outbound_connection(id, peer, addresses, role)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler::new(peer, self.membership.clone()))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        if let FromSwarm::ConnectionEstablished(established) = event {
            let connection = Connection {
                peer: established.peer_id,
                endpoint: established.endpoint.clone(),
                admitted: false,
            };
            self.connections
                .insert(established.connection_id, connection);
        } else if let FromSwarm::ConnectionClosed(closed) = event {
            self.on_closed(closed);
        } else if let FromSwarm::AddressChange(change) = event {
            self.on_moved(change);
        } else if !matches!(event, FromSwarm::NewExternalAddrCandidate(_)) {
            // All that concerns no established connection; candidates come by `offer_candidate` alone.
            self.inner.on_swarm_event(event);
        }
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        let event = match event {
            handler::Out::Credential(credential) => Event::Credential {
                connection,
                peer,
                credential,
            },
            handler::Out::Authenticated => Event::Authenticated { connection, peer },
            handler::Out::Refused => Event::Refused { connection, peer },
            handler::Out::Close => return self.close(connection, peer),
            handler::Out::Inner(event) => {
                return self
                    .inner
                    .on_connection_handler_event(peer, connection, event);
            }
        };
        self.pending.push_back(ToSwarm::GenerateEvent(event));
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        // Ours first: a handler must have arrived before the events for it.
        if let Some(event) = self.pending.pop_front() {
            return Poll::Ready(event);
        }
        while let Poll::Ready(event) = self.inner.poll(cx) {
            if let Some(event) = self.outward(event) {
                return Poll::Ready(event);
            }
        }
        Poll::Pending
    }
}
