//! Nodes on the loopback interface: a socket, the part of the data loop that matters here, a transport.

use std::{
    future::poll_fn,
    io,
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::{
        Arc, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::{AsyncReadExt, AsyncWriteExt};
use hivevpn_platform::udp::{Received, RecvBatch, Transmit, UdpSocket};
use libp2p::core::{
    Endpoint,
    muxing::StreamMuxerExt,
    transport::{DialOpts, PortUse},
};
use tokio::{io::Interest, sync::mpsc, task::AbortHandle};

use super::super::*;

/// Longer than anything takes that works.
const PATIENCE: Duration = Duration::from_secs(30);

/// Fails the test instead of hanging.
pub async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("it never happened")
}

/// How a node is to be made.
#[derive(Clone)]
pub struct Setup {
    pub keypair: Keypair,
    pub config: Config,
    pub inbox: usize,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            keypair: Keypair::generate_ed25519(),
            config: Config::default(),
            inbox: 1024,
        }
    }
}

/// A transport, and everything beside it that the transport needs to live.
pub struct Node {
    pub transport: QuicTransport,
    pub side: Side,
}

/// What remains of a node whose transport went into a swarm.
pub struct Side {
    pub peer: PeerId,
    pub address: SocketAddr,
    pub udp: UdpSocket,
    pub inbox: QuicInbox,
    /// WireGuard's datagrams, as the loop saw them.
    pub wireguard: mpsc::UnboundedReceiver<Vec<u8>>,
    pub counts: Arc<Counts>,
    pub socket: Weak<SharedSocket>,
    receiving: AbortHandle,
}

/// What the receive loop has seen.
#[derive(Default)]
pub struct Counts {
    /// QUIC datagrams of which nobody could be WireGuard's.
    pub quic: AtomicUsize,
    /// Batches that found the inbox full.
    pub lost: AtomicUsize,
    /// Retry packets.
    pub retries: AtomicUsize,
}

impl Node {
    pub fn new() -> Self {
        Self::with(Setup::default())
    }

    pub fn with(setup: Setup) -> Self {
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        Self::on(udp, setup)
    }

    pub fn on(udp: UdpSocket, setup: Setup) -> Self {
        let (socket, inbox) = SharedSocket::with_inbox(udp.try_clone().unwrap(), setup.inbox);
        let transport =
            QuicTransport::with_config(&setup.keypair, vec![socket], setup.config).unwrap();
        let (sender, wireguard) = mpsc::unbounded_channel();
        let counts = Arc::new(Counts::default());
        let receiving = tokio::spawn(receive(
            udp.try_clone().unwrap(),
            inbox.clone(),
            sender,
            Arc::clone(&counts),
        ));
        let side = Side {
            peer: setup.keypair.public().to_peer_id(),
            address: udp.local_addr().unwrap(),
            socket: Arc::downgrade(&transport.families[0].socket),
            udp,
            inbox,
            wireguard,
            counts,
            receiving: receiving.abort_handle(),
        };
        Self { transport, side }
    }

    /// A node that listens already.
    pub async fn listening(setup: Setup) -> Self {
        let mut node = Self::with(setup);
        node.listen().await;
        node
    }

    pub async fn listen(&mut self) -> ListenerId {
        let id = ListenerId::next();
        self.transport
            .listen_on(id, address::multiaddr(self.side.address))
            .unwrap();
        let Event::NewAddress { listen_addr, .. } = self.event().await else {
            panic!("not the address");
        };
        assert_eq!(listen_addr, self.address());
        id
    }

    /// Without a peer id.
    pub fn address(&self) -> Multiaddr {
        address::multiaddr(self.side.address)
    }

    pub fn dial(&mut self, address: Multiaddr) -> Upgrade {
        self.dial_as(Endpoint::Dialer, address).unwrap()
    }

    pub fn dial_as(
        &mut self,
        role: Endpoint,
        address: Multiaddr,
    ) -> Result<Upgrade, TransportError<Error>> {
        let port_use = PortUse::Reuse;
        self.transport.dial(address, DialOpts { role, port_use })
    }

    pub async fn event(&mut self) -> Event {
        soon(poll_fn(|cx| Pin::new(&mut self.transport).poll(cx))).await
    }

    /// The next connection to arrive, not established yet.
    pub async fn incoming(&mut self) -> Upgrade {
        let Event::Incoming { upgrade, .. } = self.event().await else {
            panic!("not a connection");
        };
        upgrade
    }
}

impl Side {
    pub fn send(&self, to: SocketAddr, contents: &[u8]) {
        let transmit = Transmit {
            destination: to,
            ecn: None,
            contents,
            segment_size: None,
            src_ip: None,
        };
        self.udp.send(&transmit).unwrap();
    }

    /// Waits until no task holds the transport's socket.
    pub async fn socket_released(&self) {
        soon(async {
            while self.socket.strong_count() > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        self.receiving.abort();
    }
}

/// Connects `from` to `to`: the dialer's and the listener's end.
pub async fn connect(from: &mut Node, to: &mut Node) -> (Muxer, Muxer) {
    let address = to.address();
    connect_by(from, address, to).await
}

/// The same by another address, one that leads there.
pub async fn connect_by(from: &mut Node, address: Multiaddr, to: &mut Node) -> (Muxer, Muxer) {
    let dial = from.dial(address);
    // The last datagrams of an attempt given up earlier may come first, and look like one more.
    let answer = async {
        loop {
            if let Ok(accepted) = to.incoming().await.await {
                break accepted;
            }
        }
    };
    let (dialed, (caller, accepted)) = soon(async { tokio::join!(dial, answer) }).await;
    let (peer, dialed) = dialed.unwrap();
    assert_eq!(peer, to.side.peer);
    assert_eq!(caller, from.side.peer);
    (dialed, accepted)
}

/// A stream between two ends of a connection. The first byte is spent on making it known.
pub async fn stream(opener: &mut Muxer, acceptor: &mut Muxer) -> (Substream, Substream) {
    soon(async {
        let mut near = poll_fn(|cx| opener.poll_outbound_unpin(cx)).await.unwrap();
        near.write_all(b"!").await.unwrap();
        let mut far = poll_fn(|cx| acceptor.poll_inbound_unpin(cx)).await.unwrap();
        far.read_exact(&mut [0]).await.unwrap();
        (near, far)
    })
    .await
}

/// Sends a mebibyte each way at once, checks it, and closes.
pub async fn exchange(near: Substream, far: Substream) {
    soon(async { tokio::join!(talk(near, 1), talk(far, 2)) }).await;
}

async fn talk(stream: Substream, seed: u8) {
    let message = |seed: u8| -> Vec<u8> {
        let mut byte = seed;
        let mut next = || {
            byte = byte.wrapping_mul(5).wrapping_add(seed);
            byte
        };
        (0..1 << 20).map(|_| next()).collect()
    };
    let (mut reader, mut writer) = stream.split();
    let send = async {
        writer.write_all(&message(seed)).await.unwrap();
        writer.close().await.unwrap();
    };
    let mut received = Vec::new();
    let receive = async { reader.read_to_end(&mut received).await.unwrap() };
    tokio::join!(send, receive);
    assert!(received == message(3 - seed), "the message was garbled");
}

/// The connection's end, as one side learns of it.
pub async fn lost(muxer: &mut Muxer) -> Error {
    soon(poll_fn(|cx| muxer.poll_inbound_unpin(cx)))
        .await
        .expect_err("the connection lives")
}

/// WireGuard's four message types, with three zero bytes behind.
pub fn is_wireguard(datagram: &[u8]) -> bool {
    matches!(datagram, [1..=4, 0, 0, 0, ..])
}

/// The data loop, reduced to its rule.
async fn receive(
    udp: UdpSocket,
    inbox: QuicInbox,
    wireguard: mpsc::UnboundedSender<Vec<u8>>,
    counts: Arc<Counts>,
) {
    let mut batch = RecvBatch::new();
    loop {
        readable(&udp, &mut batch).await.unwrap();
        for received in batch.iter() {
            for bytes in received.datagrams() {
                if is_wireguard(bytes) {
                    // A test that does not look at them has dropped the receiver.
                    let _ = wireguard.send(bytes.to_vec());
                    continue;
                }
                counts.quic.fetch_add(1, Ordering::Relaxed);
                counts
                    .retries
                    .fetch_add(usize::from(bytes[0] & 0xf0 == 0xf0), Ordering::Relaxed);
                if !inbox.push(quic_datagram(&received, bytes)) {
                    counts.lost.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }
}

async fn readable(udp: &UdpSocket, batch: &mut RecvBatch) -> io::Result<()> {
    use std::os::fd::AsFd;

    let fd = udp.as_fd().try_clone_to_owned()?;
    let ready = tokio::net::UdpSocket::from_std(fd.into())?;
    ready
        .async_io(Interest::READABLE, || udp.recv(batch))
        .await?;
    Ok(())
}

fn quic_datagram(received: &Received<'_>, bytes: &[u8]) -> QuicDatagram {
    QuicDatagram {
        from: received.from,
        local_ip: received.local_ip,
        ecn: received.ecn,
        stride: bytes.len(),
        bytes: bytes.to_vec(),
    }
}

/// A NAT: one client in front, its mapped port behind.
pub struct Nat {
    /// Where the client sends to.
    pub inside: SocketAddr,
    changes: mpsc::UnboundedSender<Change>,
    forwarding: AbortHandle,
}

enum Change {
    Mapping,
    Target(SocketAddr),
}

impl Nat {
    pub async fn to(target: SocketAddr) -> Self {
        let front = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let (changes, receiver) = mpsc::unbounded_channel();
        Self {
            inside: front.local_addr().unwrap(),
            changes,
            forwarding: tokio::spawn(forward(front, target, receiver)).abort_handle(),
        }
    }

    /// Forgets the mapping: from now on the client appears under another port.
    pub fn reboot(&self) {
        self.changes.send(Change::Mapping).unwrap();
    }

    /// Leads elsewhere.
    pub fn retarget(&self, target: SocketAddr) {
        self.changes.send(Change::Target(target)).unwrap();
    }
}

impl Drop for Nat {
    fn drop(&mut self) {
        self.forwarding.abort();
    }
}

async fn forward(
    front: tokio::net::UdpSocket,
    mut target: SocketAddr,
    mut changes: mpsc::UnboundedReceiver<Change>,
) {
    let outside = async || tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut back = outside().await;
    let mut client = None;
    let (mut out, mut home) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        tokio::select! {
            Some(change) = changes.recv() => match change {
                Change::Mapping => back = outside().await,
                Change::Target(other) => target = other,
            },
            Ok((length, from)) = front.recv_from(&mut out) => {
                client = Some(from);
                // As on any network, a datagram may be lost.
                let _ = back.send_to(&out[..length], target).await;
            }
            Ok((length, _)) = back.recv_from(&mut home) => {
                if let Some(client) = client {
                    let _ = front.send_to(&home[..length], client).await;
                }
            }
        }
    }
}
