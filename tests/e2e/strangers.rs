//! Hostile strangers and members: thousands of connections that say nothing, and a member that sends all it can. Others
//! keep their throughput, the target's memory stays within bounds, and members still come in.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, socket};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::rustls::{self, RootCertStore};

use crate::deadline::until;
use crate::lab::{Host, Lab, Link};
use crate::node::{Network, Node};
use crate::traffic::{Flood, transfer};

/// Half-open connections, of either kind.
const CONNECTIONS: usize = 5000;
/// Different first datagrams of QUIC; each is sent from many ports.
const INITIALS: usize = 500;
/// New ones in a second, once all have been made.
const RENEWED: usize = 500;
/// Addresses beside the first, of those who have several.
const ADDRESSES: u8 = 40;

/// What the target may hold more than before: 256 handshakes and 64 strangers that say nothing.
const GROWTH: u64 = 64 << 10;
/// All that the target may hold, in KiB.
const MEMORY: u64 = 192 << 10;

/// What is transferred to measure, over a link of this many megabits a second.
const BYTES: usize = 6_000_000;
const MEGABITS: u32 = 20;

fn narrow() -> Link {
    Link::delay(2).rate(MEGABITS, Duration::from_millis(100))
}

/// How long `from` takes to send to `to`.
fn measured(from: &Node, to: &Node) -> Duration {
    let began = Instant::now();
    transfer(from.host(), to.host(), to.ipv4().into(), BYTES);
    began.elapsed()
}

/// Asserts that what took `idle` took no more than a quarter longer: four fifths of the throughput are left.
fn is_unharmed(idle: Duration, loaded: Duration) {
    assert!(
        loaded.as_secs_f64() * 0.8 <= idle.as_secs_f64(),
        "{idle:?} idle, {loaded:?} under attack"
    );
}

/// A host that opens connections to a target and says nothing on them, until it is dropped.
struct Silence {
    enough: Arc<AtomicBool>,
    made: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Silence {
    fn begin(from: &Host, sources: Vec<Ipv4Addr>, target: SocketAddrV4) -> Self {
        let mut silence = Self {
            enough: Arc::default(),
            made: Arc::default(),
            threads: Vec::new(),
        };
        let (enough, made) = (Arc::clone(&silence.enough), Arc::clone(&silence.made));
        let of_tcp = sources.clone();
        silence.threads.push(from.thread(move || {
            let mut open = std::collections::VecDeque::new();
            for source in of_tcp.iter().cycle() {
                if enough.load(Ordering::Relaxed) {
                    return;
                }
                if open.len() == CONNECTIONS {
                    open.pop_front();
                    std::thread::sleep(Duration::from_secs(1) / RENEWED as u32);
                }
                // Refused, or no port left: another will do.
                open.extend(connected(*source, target));
                made.fetch_add(1, Ordering::Relaxed);
            }
        }));
        let initials = initials();
        let enough = Arc::clone(&silence.enough);
        silence.threads.push(from.thread(move || {
            for (at, source) in sources.iter().cycle().enumerate() {
                if enough.load(Ordering::Relaxed) {
                    return;
                }
                if at > CONNECTIONS {
                    std::thread::sleep(Duration::from_secs(1) / RENEWED as u32);
                }
                // A port of its own each time; nobody listens to the answer.
                if let Ok(socket) = UdpSocket::bind((*source, 0)) {
                    let _ = socket.send_to(&initials[at % INITIALS], target);
                }
            }
        }));
        silence
    }

    /// Waits until all have been made once.
    fn is_complete(&self) {
        until(Duration::from_secs(60), "the connections are made", || {
            self.made.load(Ordering::Relaxed) >= CONNECTIONS as u64
        });
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        self.enough.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn connected(source: Ipv4Addr, target: SocketAddrV4) -> Option<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let stream = socket(AddressFamily::Inet, SockType::Stream, flags, None).ok()?;
    let source = SockaddrIn::from(SocketAddrV4::new(source, 0));
    bind(stream.as_raw_fd(), &source).ok()?;
    connect(stream.as_raw_fd(), &SockaddrIn::from(target)).ok()?;
    Some(stream)
}

/// First datagrams of QUIC clients that a node of this program would talk to.
fn initials() -> Vec<Vec<u8>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"libp2p".to_vec()];
    let client = QuicClientConfig::try_from(tls).unwrap();
    let client = quinn::ClientConfig::new(Arc::new(client));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let trap = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        let (mut found, mut seen) = (Vec::new(), BTreeSet::new());
        let mut datagram = [0; 2048];
        while found.len() < INITIALS {
            let target = trap.local_addr().unwrap();
            let attempt = endpoint.connect_with(client.clone(), target, "peer.invalid");
            let length = trap.recv(&mut datagram).await.unwrap();
            drop(attempt);
            // The goodbye of an attempt bears the same connection id as its beginning.
            let id = datagram[6..][..usize::from(datagram[5])].to_vec();
            if seen.insert(id) {
                found.push(datagram[..length].to_vec());
            }
        }
        found
    })
}

fn ipv4(host: &Host) -> Ipv4Addr {
    let IpAddr::V4(address) = host.address() else {
        panic!("the underlay is IPv4")
    };
    address
}

/// The host's address, and others beside it.
fn several(host: &Host) -> Vec<Ipv4Addr> {
    let own = ipv4(host);
    let [a, b, c, _] = own.octets();
    let others = (100..100 + ADDRESSES).map(|last| Ipv4Addr::new(a, b, c, last));
    let others: Vec<_> = others.collect();
    for address in &others {
        let line = format!("ip addr add {address}/24 dev eth0");
        assert!(host.sh(&line).succeeded(), "{line}");
    }
    std::iter::once(own).chain(others).collect()
}

/// `x` attacks `a` while `b` sends to `a`; then a member returns, and somebody joins.
fn silence_harms_nobody(sources: fn(&Host) -> Vec<Ipv4Addr>) {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most.min(65_536), most).unwrap();
    let lab = Lab::new()
        .public("a")
        .public("b")
        .over(narrow())
        .public("c")
        .public("d")
        .public("x")
        .build();
    let mut net = Network::start(lab, ["a", "b", "c"]);
    net.wait("direct", ["a", "b"], Duration::from_secs(30));
    net.wait("direct", ["a", "c"], Duration::from_secs(30));
    let idle = measured(net.node("b"), net.node("a"));
    let before = net.node("a").memory();
    net.take("c").kill9();
    let invite = net.node("a").invite();

    let attacker = net.lab().host("x");
    let target = SocketAddrV4::new(ipv4(net.node("a").host()), 7777);
    let silence = Silence::begin(attacker, sources(attacker), target);
    silence.is_complete();
    let loaded = measured(net.node("b"), net.node("a"));
    is_unharmed(idle, loaded);

    let c = net.lab().host("c").up(&[]);
    c.wait("direct", "a", Duration::from_secs(30));
    let d = net.lab().host("d").up(&["--join", &invite]);
    d.wait("direct", "a", Duration::from_secs(30));

    let a = net.node("a");
    let memory = a.memory();
    assert!(
        memory <= before + GROWTH && memory <= MEMORY,
        "{before} KiB before, {memory} KiB under attack"
    );
    a.has_not_panicked();
    drop(silence);
    net.put(c);
    net.put(d);
}

#[test]
fn five_thousand_silent_connections_from_one_address_harm_nobody() {
    silence_harms_nobody(|host| vec![ipv4(host)]);
}

#[test]
fn five_thousand_silent_connections_from_forty_addresses_harm_nobody() {
    silence_harms_nobody(several);
}

/// One member sends to another all that its link carries: a third keeps what it had, and no memory grows.
#[test]
fn a_member_that_floods_leaves_the_others_their_throughput() {
    let lab = Lab::new()
        .public("a")
        .public("b")
        .over(narrow())
        .public("h")
        .over(Link::delay(2).rate(3 * MEGABITS, Duration::from_millis(100)))
        .build();
    let net = Network::start(lab, ["a", "b", "h"]);
    for pair in [["a", "b"], ["a", "h"]] {
        net.wait("direct", pair, Duration::from_secs(30));
    }
    let (a, b, h) = (net.node("a"), net.node("b"), net.node("h"));
    let idle = measured(b, a);
    let before = a.memory();
    let stream = Flood::start(h.host(), a.host(), a.ipv4().into());
    let enough = Arc::<AtomicBool>::default();
    let datagrams = datagram_flood(h.host(), a.ipv4(), &enough);
    until(Duration::from_secs(30), "the flood flows", || {
        stream.sent() > 2_000_000
    });
    let loaded = measured(b, a);
    enough.store(true, Ordering::Relaxed);
    datagrams.join().unwrap();
    is_unharmed(idle, loaded);
    let memory = a.memory();
    assert!(
        memory <= before + GROWTH && memory <= MEMORY,
        "{before} KiB before, {memory} KiB under the flood"
    );
    a.has_not_panicked();
}

/// UDP without any restraint, to a port that nobody listens on.
fn datagram_flood(from: &Host, to: Ipv4Addr, enough: &Arc<AtomicBool>) -> JoinHandle<()> {
    let enough = Arc::clone(enough);
    from.thread(move || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        let target = SocketAddr::from((to, 9));
        while !enough.load(Ordering::Relaxed) {
            for _ in 0..16 {
                // A full queue is what it is about.
                let _ = socket.send_to(&[0x5a; 1300], target);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    })
}
