//! The door to the network below: every connection we dial or accept goes through this transport.
//!
//! It joins QUIC, TCP and circuits, and keeps the overlay out: our own overlay address is never announced as a
//! listen address, a peer's is never dialed, and nobody reaches us through it.

use std::{
    collections::HashSet,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures::future::Either;
use libp2p::{
    Multiaddr, PeerId, Transport,
    core::{
        muxing::StreamMuxerBox,
        transport::{
            Boxed, DialOpts, ListenerId, OrTransport, PortUse, TransportError, TransportEvent,
            timeout::TransportTimeout,
        },
        upgrade::Version,
    },
    identity::Keypair,
    multiaddr::Protocol,
    noise, relay, tcp, yamux,
};

use super::{
    addresses::{self, Overlay},
    source::Source,
};
use doorway::Doorway;
use turns::Turns;

pub mod doorway;
mod turns;

/// What a transport yields for us: who is at the other end, and streams to it.
pub type Output = (PeerId, StreamMuxerBox);

/// The streams that one peer may have open on one TCP connection or circuit; each circuit through a relay is one. Each
/// may buffer a receive window of 256 KiB: this bounds what a peer makes us remember, strangers on few connections.
const MAX_STREAMS: usize = 256;

/// Ports below are for privileged processes.
const FIRST_UNPRIVILEGED: u16 = 1024;

/// How long a TCP connection or a circuit may take to be set up, encryption included. The kernel alone would try an
/// address behind a silent firewall for two minutes. (QUIC has a limit of its own.)
const SET_UP_LIMIT: Duration = Duration::from_secs(10);

/// Joins the transports behind the door.
pub fn transport(
    keypair: &Keypair,
    quic: Option<Boxed<Output>>,
    circuits: relay::client::Transport,
    overlay: Overlay,
) -> Result<Underlay, noise::Error> {
    let tcp = tcp::tokio::Transport::new(tcp::Config::new().nodelay(true))
        .upgrade(Version::V1Lazy)
        .authenticate(noise::Config::new(keypair)?)
        .multiplex(streams())
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));
    // Circuits come first: their addresses begin like those of the relay.
    let joined = circuits
        .upgrade(Version::V1Lazy)
        .authenticate(noise::Config::new(keypair)?)
        .multiplex(streams())
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)))
        .or_transport(tcp)
        .map(|output, _| either(output));
    let joined = TransportTimeout::new(joined, SET_UP_LIMIT).boxed();
    let inner = match quic {
        Some(quic) => OrTransport::new(joined, quic)
            .map(|output, _| either(output))
            .boxed(),
        None => joined,
    };
    Ok(Underlay {
        inner,
        overlay,
        port_is_low: false,
        hidden: HashSet::new(),
        doorway: Doorway::new(),
        turns: Turns::default(),
    })
}

fn streams() -> yamux::Config {
    let mut config = yamux::Config::default();
    config.set_max_num_streams(MAX_STREAMS);
    config
}

fn either(output: Either<Output, Output>) -> Output {
    match output {
        Either::Left(output) | Either::Right(output) => output,
    }
}

/// The joined transports, with the overlay kept out.
pub struct Underlay {
    inner: Boxed<Output>,
    overlay: Overlay,
    /// We listen on a port that takes a privilege, which is given up by the time we dial.
    port_is_low: bool,
    /// Listen addresses that were not announced, so that their end is not announced either.
    hidden: HashSet<(ListenerId, Multiaddr)>,
    doorway: Doorway,
    turns: Turns,
}

impl Transport for Underlay {
    type Output = Output;
    type Error = io::Error;
    type ListenerUpgrade = <Boxed<Output> as Transport>::ListenerUpgrade;
    type Dial = <Boxed<Output> as Transport>::Dial;

    fn listen_on(
        &mut self,
        id: ListenerId,
        address: Multiaddr,
    ) -> Result<(), TransportError<io::Error>> {
        self.port_is_low |= address.iter().any(|part| match part {
            Protocol::Tcp(port) => (1..FIRST_UNPRIVILEGED).contains(&port),
            _ => false,
        });
        self.inner.listen_on(id, address)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.inner.remove_listener(id)
    }

    fn dial(
        &mut self,
        address: Multiaddr,
        mut options: DialOpts,
    ) -> Result<Self::Dial, TransportError<io::Error>> {
        if self.overlay.contains(&address) {
            return Err(TransportError::Other(io::Error::new(
                io::ErrorKind::AddrNotAvailable,
                "the address is on the overlay itself: dial one of the underlay",
            )));
        }
        if self.port_is_low {
            options.port_use = PortUse::New;
        }
        let relay = addresses::relay(&address);
        let dial = self.inner.dial(address, options)?;
        Ok(match relay {
            Some(relay) => self.turns.wait(relay, dial),
            None => dial,
        })
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, io::Error>> {
        loop {
            let Poll::Ready(event) = Pin::new(&mut self.inner).poll(cx) else {
                return Poll::Pending;
            };
            if !self.hides(&event)
                && let Some(event) = self.let_in(event)
            {
                return Poll::Ready(event);
            }
        }
    }
}

type Happened = TransportEvent<<Underlay as Transport>::ListenerUpgrade, io::Error>;

impl Underlay {
    /// Bounds the handshakes of others; none if this one must not begin.
    fn let_in(&self, event: Happened) -> Option<Happened> {
        let TransportEvent::Incoming {
            listener_id,
            upgrade,
            local_addr,
            send_back_addr,
        } = event
        else {
            return Some(event);
        };
        let source = Source::new(&local_addr, &send_back_addr);
        let upgrade = self.doorway.enter(source, upgrade, Instant::now())?;
        Some(TransportEvent::Incoming {
            listener_id,
            upgrade,
            local_addr,
            send_back_addr,
        })
    }

    fn hides(
        &mut self,
        event: &TransportEvent<<Self as Transport>::ListenerUpgrade, io::Error>,
    ) -> bool {
        match event {
            TransportEvent::NewAddress {
                listener_id,
                listen_addr,
            } => {
                let hide = self.overlay.contains(listen_addr);
                if hide {
                    self.hidden.insert((*listener_id, listen_addr.clone()));
                }
                hide
            }
            TransportEvent::AddressExpired {
                listener_id,
                listen_addr,
            } => self.hidden.remove(&(*listener_id, listen_addr.clone())),
            TransportEvent::Incoming { local_addr, .. } => self.overlay.contains(local_addr),
            TransportEvent::ListenerClosed { listener_id, .. } => {
                self.hidden.retain(|(id, _)| id != listener_id);
                false
            }
            TransportEvent::ListenerError { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    fn underlay(overlay: &Overlay) -> Underlay {
        let keypair = Keypair::generate_ed25519();
        let (circuits, _) = relay::client::new(keypair.public().to_peer_id());
        transport(&keypair, None, circuits, overlay.clone()).unwrap()
    }

    fn overlay_of_loopback() -> Overlay {
        let overlay = Overlay::default();
        overlay.set(vec!["127.77.0.0/16".parse().unwrap()]);
        overlay
    }

    #[tokio::test]
    async fn the_tunnel_is_not_dialed_through_the_tunnel() {
        let mut underlay = underlay(&overlay_of_loopback());
        let options = DialOpts {
            role: libp2p::core::Endpoint::Dialer,
            port_use: libp2p::core::transport::PortUse::New,
        };
        let inside = "/ip4/127.77.0.4/tcp/9".parse().unwrap();
        assert!(matches!(
            underlay.dial(inside, options),
            Err(TransportError::Other(_))
        ));
        let outside = "/ip4/127.0.0.1/tcp/9".parse().unwrap();
        assert!(underlay.dial(outside, options).is_ok());
    }

    #[tokio::test]
    async fn an_overlay_address_is_not_announced() {
        let mut underlay = underlay(&overlay_of_loopback());
        for listen in ["/ip4/127.77.0.4/tcp/0", "/ip4/127.0.0.1/tcp/0"] {
            underlay
                .listen_on(ListenerId::next(), listen.parse().unwrap())
                .unwrap();
        }
        let announced = poll_fn(|cx| Pin::new(&mut underlay).poll(cx))
            .await
            .into_new_address()
            .unwrap();
        assert!(announced.to_string().starts_with("/ip4/127.0.0.1/tcp/"));
        // The other listener started first: by now it has had its turn.
        assert_eq!(underlay.hidden.len(), 1);
    }
}
