//! Real swarms that talk over TCP on the loopback. Every step waits for an event.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "each step waits for one kind of event"
)]

mod carrier;
mod dht;
mod gate;
mod observed;
mod registry;
mod relays;
mod strangers;

use std::{collections::BTreeSet, time::Duration};

use hivevpn_core::{
    connection::{ConnectionId, Link},
    membership::{Founded, Founding, Name, Network, Signer, UnixTime},
};
use hivevpn_platform::poll::Waker;
use libp2p::{
    Multiaddr, PeerId, identify, identity::Keypair, noise, swarm::NetworkBehaviour, tcp, yamux,
};
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};
use zeroize::Zeroizing;

use super::*;
use crate::mailbox;

/// Only ends a test that has failed already.
const PATIENCE: Duration = Duration::from_secs(60);

/// A network; different numbers are different networks.
pub(super) fn network(number: u8) -> Network {
    founded_at(number, UnixTime(1_700_000_000)).network
}

/// The network of this number, with its first member.
fn founded_at(number: u8, now: UnixTime) -> Founded {
    let (authority, founder) = (Signer::from_seed(&[number; 32]), founder());
    let founding = Founding {
        name: Name::parse("test").unwrap(),
        ipv4_prefix: "10.77.0.0/16".parse().unwrap(),
        certificate_lifetime: Duration::from_secs(24 * 60 * 60),
        founder_name: Name::parse("founder").unwrap(),
        founder_ipv4: None,
        policy_mode: None,
    };
    let secret = Zeroizing::new([number; 32]);
    Network::found(founding, &authority, &founder, [0; 16], secret, now).unwrap()
}

fn founder() -> Signer {
    Signer::from_seed(&[101; 32])
}

/// A running swarm, and the test in the place of the data loop.
struct Node {
    peer: PeerId,
    commands: mpsc::Sender<Command>,
    events: mailbox::Receiver<Event>,
    /// Seen and not asked for yet.
    seen: Vec<Event>,
    task: JoinHandle<()>,
}

impl Node {
    fn start(configure: impl FnOnce(&mut Config)) -> Self {
        Self::start_with_mailbox(64, configure)
    }

    fn start_with_mailbox(capacity: usize, configure: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::new(Keypair::generate_ed25519());
        config.listen = vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()];
        config.relay = RelayMode::Never;
        configure(&mut config);
        let peer = config.keypair.public().to_peer_id();
        let (mailbox, events) = mailbox::channel(capacity, Waker::new().unwrap());
        let (commands, receiver) = mpsc::channel(64);
        let swarm = Swarm::new(config, mailbox).unwrap();
        Self {
            peer,
            commands,
            events,
            seen: Vec::new(),
            task: tokio::spawn(swarm.run(receiver)),
        }
    }

    /// A member of network 1, listening at the returned address.
    async fn listening() -> (Self, Multiaddr) {
        let address = free_address();
        let node = Self::start(|config| config.listen = vec![address.clone()]);
        (node, address)
    }

    async fn send(&self, command: Command) {
        assert!(
            self.commands.send(command).await.is_ok(),
            "the swarm has ended"
        );
    }

    async fn enter(&self, number: u8, credential: &[u8]) {
        self.send(Command::EnterNetwork {
            network: network(number),
            credential: credential.to_vec(),
        })
        .await;
    }

    async fn dial(&self, peer: PeerId, address: &Multiaddr) {
        self.send(Command::Dial {
            peer,
            addresses: vec![address.clone()],
            even_if_connected: false,
        })
        .await;
    }

    /// Waits for the first event, of those not asked for yet, of which `pick` makes something.
    async fn wait<T>(&mut self, what: &str, mut pick: impl FnMut(&Event) -> Option<T>) -> T {
        let mut next = 0;
        loop {
            while let Some(event) = self.seen.get(next) {
                if let Some(picked) = pick(event) {
                    self.seen.remove(next);
                    return picked;
                }
                next += 1;
            }
            let event = timeout(PATIENCE, self.events.recv()).await;
            let Ok(event) = event else {
                panic!("{what} did not come; but {:?}", self.seen)
            };
            self.seen.push(event.expect("the swarm has ended"));
        }
    }

    async fn opened(&mut self, with: PeerId) -> (ConnectionId, Link) {
        self.wait("a connection", |event| match event {
            Event::ConnectionOpened {
                connection,
                peer,
                link,
                ..
            } if *peer == with => Some((*connection, *link)),
            _ => None,
        })
        .await
    }

    async fn closed(&mut self, which: ConnectionId) {
        self.wait("the end of the connection", |event| match event {
            Event::ConnectionClosed { connection, .. } => (*connection == which).then_some(()),
            _ => None,
        })
        .await;
    }

    async fn credential(&mut self, from: PeerId) -> (ConnectionId, Vec<u8>) {
        self.wait("a credential", |event| match event {
            Event::Credential {
                connection,
                peer,
                credential,
            } if *peer == from => Some((*connection, credential.clone())),
            _ => None,
        })
        .await
    }

    /// Admits whatever `peer` shows next.
    async fn admit(&mut self, peer: PeerId) -> ConnectionId {
        let (connection, _) = self.credential(peer).await;
        self.send(Command::Admit { connection }).await;
        connection
    }

    async fn authenticated(&mut self, with: PeerId) -> ConnectionId {
        self.wait("authentication", |event| match event {
            Event::Authenticated { connection, peer } if *peer == with => Some(*connection),
            _ => None,
        })
        .await
    }

    async fn carrier(&mut self, with: PeerId) -> Carrier {
        self.wait("a carrier", |event| match event {
            Event::CarrierOpened { peer, carrier, .. } if *peer == with => Some(carrier.clone()),
            _ => None,
        })
        .await
    }

    async fn request(&self, peer: PeerId, protocol: Protocol, token: u64, body: &[u8]) {
        self.send(Command::Request {
            peer,
            protocol,
            token,
            body: body.to_vec(),
        })
        .await;
    }

    async fn requested(&mut self) -> (RequestId, Protocol, Vec<u8>) {
        self.wait("a request", |event| match event {
            Event::Request {
                request,
                protocol,
                body,
                ..
            } => Some((*request, *protocol, body.clone())),
            _ => None,
        })
        .await
    }

    async fn response(&mut self, to: u64) -> Result<Vec<u8>, String> {
        self.wait("a response", |event| match event {
            Event::Response { token, outcome, .. } if *token == to => Some(outcome.clone()),
            _ => None,
        })
        .await
    }

    /// Ends the swarm and waits until its sockets are closed.
    async fn stop(self) {
        drop(self.commands);
        self.task.await.unwrap();
    }

    /// Whether an event of which `pick` is true has come so far.
    fn has_seen(&mut self, pick: impl Fn(&Event) -> bool) -> bool {
        while let Some(event) = self.events.try_recv() {
            self.seen.push(event);
        }
        self.seen.iter().any(pick)
    }
}

fn is_credential(event: &Event) -> bool {
    matches!(event, Event::Credential { .. })
}

/// An address on which nobody listens, and nobody else will: the kernel gives out others for a while.
fn free_address() -> Multiaddr {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap()
}

/// Two members of network 1, connected and authenticated.
async fn members() -> (Node, Node) {
    let (mut a, address) = Node::listening().await;
    let mut b = Node::start(|_| {});
    a.enter(1, b"credential of a").await;
    b.enter(1, b"credential of b").await;
    b.dial(a.peer, &address).await;
    authenticate(&mut a, &mut b).await;
    (a, b)
}

/// Lets two nodes admit each other.
async fn authenticate(a: &mut Node, b: &mut Node) -> (ConnectionId, ConnectionId) {
    let (a_peer, b_peer) = (a.peer, b.peer);
    a.admit(b_peer).await;
    b.admit(a_peer).await;
    (a.authenticated(b_peer).await, b.authenticated(a_peer).await)
}

/// A libp2p node of nobody's network that only wants to know.
#[derive(NetworkBehaviour)]
struct Curious {
    identify: identify::Behaviour,
}

/// Connects to a node as a stranger; what protocols it sees.
async fn protocols_seen_by_a_stranger(address: &Multiaddr) -> BTreeSet<String> {
    let mut stranger = libp2p::SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(
            tcp::Config::new(),
            noise::Config::new,
            yamux::Config::default,
        )
        .unwrap()
        .with_behaviour(|key| Curious {
            identify: identify::Behaviour::new(identify::Config::new(
                "/curious/1".to_owned(),
                key.public(),
            )),
        })
        .unwrap()
        .build();
    stranger.dial(address.clone()).unwrap();
    let look = async {
        loop {
            let event = stranger.select_next_some().await;
            if let swarm::SwarmEvent::Behaviour(CuriousEvent::Identify(
                identify::Event::Received { info, .. },
            )) = event
            {
                return info.protocols.iter().map(ToString::to_string).collect();
            }
        }
    };
    timeout(PATIENCE, look).await.unwrap()
}
