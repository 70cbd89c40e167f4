//! Waiting for connections on a socket that is bound already.
//!
//! A listener reports the addresses under which the socket can be reached, and the connections that arrive. Until
//! they have proved who they are, those come from strangers: a listener spends a bounded number of handshakes on
//! them, and most of these only on strangers who have shown that they receive what is sent to their address.

use std::{
    net::SocketAddr,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use futures::{
    FutureExt, StreamExt,
    future::BoxFuture,
    stream::{self, BoxStream},
};
use hivevpn_core::allowance::Allowances;
use if_watch::{IfEvent, tokio::IfWatcher};
use libp2p::{
    PeerId,
    core::transport::{ListenerId, TransportEvent},
};
use quinn::Incoming;
use tokio::sync::Semaphore;

use super::{address::multiaddr, error::Error, handshake, muxer::Muxer, punch::Punches};
use crate::swarm::{source::Source, underlay::doorway};

/// Inbound handshakes at a time, more than the [`doorway`] has room for. Beyond, nobody is
/// answered; clients repeat themselves.
const HANDSHAKES: usize = 2 * doorway::MOST;

/// Of these, how many to begin for a mere source address. It can be forged, so further clients are sent a token to
/// come back with (Retry: one more round trip, RFC 9000, section 8.1.2).
const UNPROVED_HANDSHAKES: usize = 32;

/// A connection that is not established yet.
pub(super) type Upgrade = BoxFuture<'static, Result<(PeerId, Muxer), Error>>;

/// What a listener has to say.
pub(super) type Event = TransportEvent<Upgrade, Error>;

pub(super) struct Listener {
    pub(super) id: ListenerId,
    bound: SocketAddr,
    reachable: Reachable,
    incoming: BoxStream<'static, Incoming>,
    /// One permit for each inbound handshake.
    handshakes: Arc<Semaphore>,
    handshake_timeout: Duration,
    /// What each address may begin. Without proof it can be forged, and must not use up what its owner needs.
    unproved: Allowances<Source>,
    proved: Allowances<Source>,
}

/// The addresses to report.
enum Reachable {
    /// The one the socket is bound to, not reported yet.
    At(SocketAddr),
    /// All of this machine's.
    Watched(Box<IfWatcher>),
    /// What has been reported.
    Settled,
}

impl Listener {
    /// Takes the connections of `endpoint`, whose socket is bound to `bound`.
    pub(super) fn new(
        id: ListenerId,
        bound: SocketAddr,
        endpoint: quinn::Endpoint,
        handshake_timeout: Duration,
    ) -> Result<Self, Error> {
        let reachable = if bound.ip().is_unspecified() {
            Reachable::Watched(Box::new(IfWatcher::new()?))
        } else {
            Reachable::At(bound)
        };
        let incoming = stream::unfold(endpoint, async |endpoint| {
            let incoming = endpoint.accept().await?;
            Some((incoming, endpoint))
        });
        Ok(Self {
            id,
            bound,
            reachable,
            incoming: incoming.boxed(),
            handshakes: Arc::new(Semaphore::new(HANDSHAKES)),
            handshake_timeout,
            unproved: allowances(),
            proved: allowances(),
        })
    }

    /// Connections that a hole is being punched for go to `punches`, all others are events.
    pub(super) fn poll(&mut self, punches: &mut Punches, cx: &mut Context<'_>) -> Poll<Event> {
        if let Poll::Ready(event) = self.poll_addresses(cx) {
            return Poll::Ready(event);
        }
        while let Some(incoming) = ready!(self.incoming.poll_next_unpin(cx)) {
            if let Some(event) = self.admit(incoming, punches) {
                return Poll::Ready(event);
            }
        }
        Poll::Ready(Event::ListenerClosed {
            listener_id: self.id,
            reason: Err(Error::EndpointStopped(self.bound)),
        })
    }

    fn poll_addresses(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        let listener_id = self.id;
        let watcher = match &mut self.reachable {
            Reachable::Settled => return Poll::Pending,
            Reachable::At(address) => {
                let listen_addr = multiaddr(*address);
                self.reachable = Reachable::Settled;
                return Poll::Ready(Event::NewAddress {
                    listener_id,
                    listen_addr,
                });
            }
            Reachable::Watched(watcher) => watcher,
        };
        loop {
            let (net, up) = match ready!(watcher.poll_if_event(cx)) {
                Ok(IfEvent::Up(net)) => (net, true),
                Ok(IfEvent::Down(net)) => (net, false),
                Err(error) => {
                    // It does not recover. We go on with the addresses that we know.
                    self.reachable = Reachable::Settled;
                    let error = Error::Io(error);
                    return Poll::Ready(Event::ListenerError { listener_id, error });
                }
            };
            if net.addr().is_ipv4() != self.bound.is_ipv4() {
                continue;
            }
            let listen_addr = multiaddr(SocketAddr::new(net.addr(), self.bound.port()));
            return Poll::Ready(if up {
                Event::NewAddress {
                    listener_id,
                    listen_addr,
                }
            } else {
                Event::AddressExpired {
                    listener_id,
                    listen_addr,
                }
            });
        }
    }

    fn admit(&mut self, incoming: Incoming, punches: &mut Punches) -> Option<Event> {
        let remote = incoming.remote_address();
        let local_ip = incoming.local_ip().unwrap_or(self.bound.ip());
        if let Some(attempt) = punches.expecting(remote) {
            attempt.send(accept(incoming)?);
            return None;
        }
        let (source, now) = (Source::from(remote.ip()), Instant::now());
        if !incoming.remote_address_validated() {
            let under_way = HANDSHAKES - self.handshakes.available_permits();
            if under_way >= UNPROVED_HANDSHAKES || !self.unproved.take(source, 1, now) {
                // Fails only for an address that is proved.
                let _ = incoming.retry();
                return None;
            }
        } else if !self.proved.take(source, 1, now) {
            incoming.ignore();
            return None;
        }
        let Ok(permit) = Arc::clone(&self.handshakes).try_acquire_owned() else {
            incoming.ignore();
            return None;
        };
        let handshake = handshake::complete(accept(incoming)?, self.handshake_timeout);
        Some(Event::Incoming {
            listener_id: self.id,
            upgrade: async move {
                let outcome = handshake.await;
                drop(permit);
                outcome
            }
            .boxed(),
            local_addr: multiaddr(SocketAddr::new(local_ip, self.bound.port())),
            send_back_addr: multiaddr(remote),
        })
    }
}

fn allowances() -> Allowances<Source> {
    Allowances::new(doorway::BURST, doorway::PRICE, doorway::SOURCES)
}

/// A first datagram that is no proper beginning is a stranger's mistake and no event of ours.
fn accept(incoming: Incoming) -> Option<quinn::Connecting> {
    let remote = incoming.remote_address();
    incoming
        .accept()
        .inspect_err(|error| tracing::debug!(%remote, %error, "connection attempt refused"))
        .ok()
}
