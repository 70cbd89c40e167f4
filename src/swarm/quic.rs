//! libp2p over QUIC, on a UDP port that it shares with WireGuard.
//!
//! One socket per address family carries everything this node says. The data loop reads it and hands what is QUIC
//! to a [`QuicInbox`]; [`SharedSocket`] is the other end, where quinn takes it up. All connections of a family,
//! dialed or accepted, run over one endpoint on that one socket: so the NAT in front of us keeps one mapping, and a
//! hole that libp2p has punched for QUIC (DCUtR) is a hole for WireGuard.
//!
//! To libp2p this is an ordinary [`Transport`] for `/ip…/udp/…/quic-v1`, compatible with every other
//! implementation of libp2p's QUIC. What is different from a transport with sockets of its own:
//!
//! - Listening binds nothing. It attaches to the socket of the family, and `listen_on` fails for an address that
//!   the socket is not bound to. Before that, and after the listener is removed, nobody can connect to us; we can
//!   dial, and established connections stay.
//! - Dialing always goes out from the shared socket, also with [`PortUse::New`](libp2p::core::transport::PortUse):
//!   there is no other port. AutoNAT's dial-back would need one; this node cannot answer for others with it.
//! - The address of a peer that dialed us may change, see [`Muxer`].
//!
//! Dialing in the role of the listener punches a hole, see [`punch`].

mod address;
mod config;
mod error;
mod handshake;
mod listener;
mod muxer;
mod punch;
mod socket;
mod stream;
#[cfg(test)]
mod tests;
mod tls;

use std::{
    collections::VecDeque,
    fmt, io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use futures::{FutureExt, future::BoxFuture};
use libp2p::{
    Multiaddr, PeerId, Transport,
    core::{
        Endpoint,
        transport::{DialOpts, ListenerId, TransportError, TransportEvent},
    },
    identity::Keypair,
};
use quinn::{AsyncUdpSocket, TokioRuntime};

use self::{
    address::QuicAddress,
    config::{SERVER_NAME, Settings},
    listener::{Event, Listener, Upgrade},
    punch::{Punch, Punches},
};
pub use self::{
    config::Config,
    error::Error,
    muxer::Muxer,
    socket::{QuicDatagram, QuicInbox, SharedSocket},
    stream::Substream,
};

/// The transport. Dropping it closes all its connections.
///
/// The goodbyes are sent by tasks of the runtime: let it live for a moment more, or the peers will notice by their
/// timeouts only.
pub struct QuicTransport {
    settings: Arc<Settings>,
    families: Vec<Family>,
    punches: Punches,
    /// To report before anything that a listener may say.
    events: VecDeque<Event>,
    /// Whom to wake when a listener appears or goes.
    waker: Option<Waker>,
}

/// IPv4 or IPv6: a socket and all its connections.
struct Family {
    bound: SocketAddr,
    socket: Arc<SharedSocket>,
    endpoint: quinn::Endpoint,
    listener: Option<Listener>,
}

impl QuicTransport {
    /// A transport over the node's bound sockets, at most one for each address family.
    ///
    /// Must be called within a tokio runtime, which then drives the connections.
    pub fn new(keypair: &Keypair, sockets: Vec<SharedSocket>) -> Result<Self, Error> {
        Self::with_config(keypair, sockets, Config::default())
    }

    /// The same with other clocks.
    pub fn with_config(
        keypair: &Keypair,
        sockets: Vec<SharedSocket>,
        config: Config,
    ) -> Result<Self, Error> {
        tokio::runtime::Handle::try_current().map_err(io::Error::other)?;
        let settings = Arc::new(Settings::new(keypair, config)?);
        let mut families: Vec<Family> = Vec::new();
        for socket in sockets {
            let family = Family::new(socket, &settings)?;
            if let Some(first) = families.iter().find(|first| first.reaches(family.bound)) {
                return Err(Error::FamilyTwice(first.bound, family.bound));
            }
            families.push(family);
        }
        Ok(Self {
            settings,
            families,
            punches: Punches::default(),
            events: VecDeque::new(),
            waker: None,
        })
    }

    fn family(&mut self, address: SocketAddr) -> Result<&mut Family, Error> {
        self.families
            .iter_mut()
            .find(|family| family.reaches(address))
            .ok_or(Error::NoSocket(address))
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn connect(&mut self, address: QuicAddress) -> Result<Upgrade, Error> {
        let remote = address.socket;
        let endpoint = self.family(remote)?.endpoint.clone();
        let settings = Arc::clone(&self.settings);
        let dial = async move {
            let client = settings.client(address.peer)?;
            let connecting = endpoint
                .connect_with(client, remote, SERVER_NAME)
                .map_err(|source| Error::Connect { remote, source })?;
            drop(endpoint);
            handshake::complete(connecting, settings.handshake_timeout).await
        };
        Ok(dial.boxed())
    }

    fn punch(&mut self, address: QuicAddress) -> Result<Upgrade, Error> {
        let remote = address.socket;
        let expected = address.peer.ok_or(Error::PunchForNobody(remote))?;
        let family = self.family(remote)?;
        if family.listener.is_none() {
            return Err(Error::NotListening(remote));
        }
        let socket = Arc::clone(&family.socket);
        let punch = Punch {
            socket,
            remote,
            expected,
            inbound: self.punches.begin(remote)?,
            handshake_timeout: self.settings.handshake_timeout,
        };
        Ok(punch.run().boxed())
    }
}

impl Family {
    fn new(socket: SharedSocket, settings: &Settings) -> Result<Self, Error> {
        let bound = socket.local_addr()?;
        let socket = Arc::new(socket);
        let name = if bound.is_ipv4() { "ip4" } else { "ip6" };
        let endpoint = quinn::Endpoint::new_with_abstract_socket(
            settings.endpoint(name),
            None,
            Arc::clone(&socket) as Arc<dyn AsyncUdpSocket>,
            Arc::new(TokioRuntime),
        )?;
        Ok(Self {
            bound,
            socket,
            endpoint,
            listener: None,
        })
    }

    fn reaches(&self, address: SocketAddr) -> bool {
        self.bound.is_ipv4() == address.is_ipv4()
    }

    fn listen(
        &mut self,
        id: ListenerId,
        asked: SocketAddr,
        settings: &Settings,
    ) -> Result<(), Error> {
        let bound = self.bound;
        let same_ip = asked.ip().is_unspecified() || asked.ip() == bound.ip();
        let same_port = asked.port() == 0 || asked.port() == bound.port();
        if !(same_ip && same_port) {
            return Err(Error::NotBoundThere { asked, bound });
        }
        if self.listener.is_some() {
            return Err(Error::AlreadyListening(bound));
        }
        let endpoint = self.endpoint.clone();
        self.listener = Some(Listener::new(
            id,
            bound,
            endpoint,
            settings.handshake_timeout,
        )?);
        self.endpoint
            .set_server_config(Some((*settings.server).clone()));
        Ok(())
    }

    /// Established connections stay, attempts that nobody has looked at yet are refused.
    fn stop_listening(&mut self) {
        self.listener = None;
        self.endpoint.set_server_config(None);
        while let Some(Some(incoming)) = self.endpoint.accept().now_or_never() {
            incoming.refuse();
        }
    }
}

impl Transport for QuicTransport {
    type Output = (PeerId, Muxer);
    type Error = Error;
    type ListenerUpgrade = BoxFuture<'static, Result<Self::Output, Error>>;
    type Dial = BoxFuture<'static, Result<Self::Output, Error>>;

    fn listen_on(
        &mut self,
        id: ListenerId,
        address: Multiaddr,
    ) -> Result<(), TransportError<Error>> {
        let Some(QuicAddress { socket, peer: None }) = QuicAddress::parse(&address) else {
            return Err(TransportError::MultiaddrNotSupported(address));
        };
        let settings = Arc::clone(&self.settings);
        self.family(socket)
            .and_then(|family| family.listen(id, socket, &settings))
            .map_err(TransportError::Other)?;
        self.wake();
        Ok(())
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        let listens = |family: &&mut Family| family.listener.as_ref().is_some_and(|l| l.id == id);
        let Some(family) = self.families.iter_mut().find(listens) else {
            return false;
        };
        family.stop_listening();
        self.events.push_back(Event::ListenerClosed {
            listener_id: id,
            reason: Ok(()),
        });
        self.wake();
        true
    }

    fn dial(
        &mut self,
        address: Multiaddr,
        options: DialOpts,
    ) -> Result<Self::Dial, TransportError<Error>> {
        let parsed = QuicAddress::parse(&address)
            .filter(|parsed| parsed.socket.port() != 0 && !parsed.socket.ip().is_unspecified());
        let Some(parsed) = parsed else {
            return Err(TransportError::MultiaddrNotSupported(address));
        };
        match options.role {
            Endpoint::Dialer => self.connect(parsed),
            Endpoint::Listener => self.punch(parsed),
        }
        .map_err(TransportError::Other)
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, Error>> {
        let this = &mut *self;
        if let Some(event) = this.events.pop_front() {
            return Poll::Ready(event);
        }
        for turn in 0..this.families.len() {
            let family = &mut this.families[turn];
            let Some(listener) = &mut family.listener else {
                continue;
            };
            let Poll::Ready(event) = listener.poll(&mut this.punches, cx) else {
                continue;
            };
            if matches!(event, Event::ListenerClosed { .. }) {
                family.stop_listening();
            }
            // The other family first next time: neither can starve the other.
            this.families.rotate_left(turn + 1);
            return Poll::Ready(event);
        }
        this.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for QuicTransport {
    fn drop(&mut self) {
        for family in &self.families {
            family.endpoint.close(muxer::CLOSED, b"");
        }
    }
}

impl fmt::Debug for QuicTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuicTransport")
            .field(
                "bound",
                &self
                    .families
                    .iter()
                    .map(|family| family.bound)
                    .collect::<Vec<_>>(),
            )
            .finish_non_exhaustive()
    }
}
