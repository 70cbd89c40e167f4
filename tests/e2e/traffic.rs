//! Plain sockets over whatever network is there: bulk transfers, echoes, streams that must survive.

mod mesh;
mod watch;

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use sha2::{Digest, Sha256};

pub use mesh::mesh;
pub use watch::{Watch, dies_within, rests_at_most};

use crate::lab::Host;

/// Stands at the beginning of every block that is sent, for a capture to be searched for.
pub const MARKER: &[u8] = b"hivevpn e2e plaintext marker";

/// A stream that brings nothing for this long has stalled.
const STALL: Duration = Duration::from_secs(10);
const BLOCK: usize = 64 * 1024;

/// Sends `bytes` bytes over TCP and asserts that both ends have the same SHA-256.
pub fn transfer(from: &Host, to: &Host, address: IpAddr, bytes: usize) {
    hashed_transfer(from, to, address, bytes, STALL, || ());
}

/// As [`transfer`], and in the middle of it `something` happens, after which the stream may rest for so long.
pub fn transfer_while(
    from: &Host,
    to: &Host,
    address: IpAddr,
    bytes: usize,
    rest: Duration,
    something: impl FnOnce() + Send + 'static,
) {
    hashed_transfer(from, to, address, bytes, rest, something);
}

fn hashed_transfer(
    from: &Host,
    to: &Host,
    address: IpAddr,
    bytes: usize,
    patience: Duration,
    half_way: impl FnOnce() + Send + 'static,
) {
    let listener =
        to.here(move || TcpListener::bind((address, 0)).expect("the address is the receiver's"));
    let server = listener
        .local_addr()
        .expect("a bound socket has an address");
    let receiver = to.thread(move || {
        let (stream, _) = accept(&listener);
        limit(&stream, patience);
        receive(stream, bytes)
    });
    let sent = from.here(move || {
        let stream = connect(server);
        limit(&stream, patience);
        send(stream, bytes, half_way)
    });
    let received = receiver
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    assert_eq!(
        sent,
        received,
        "{bytes} bytes from {} to {} arrive unchanged",
        from.name(),
        to.name()
    );
}

fn send(mut stream: TcpStream, bytes: usize, half_way: impl FnOnce()) -> [u8; 32] {
    let mut half_way = Some(half_way);
    let (mut hash, mut random, mut block) =
        (Sha256::new(), 0x9E37_79B9_7F4A_7C15_u64, vec![0; BLOCK]);
    let mut left = bytes;
    while left > 0 {
        if let Some(something) = half_way.take_if(|_| left <= bytes / 2) {
            something();
        }
        for word in block.chunks_exact_mut(8) {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            word.copy_from_slice(&random.to_le_bytes());
        }
        block[..MARKER.len()].copy_from_slice(MARKER);
        let part = &block[..left.min(BLOCK)];
        hash.update(part);
        stream
            .write_all(part)
            .unwrap_or_else(|error| panic!("{left} of {bytes} bytes were still to send: {error}"));
        left -= part.len();
    }
    stream
        .shutdown(Shutdown::Write)
        .expect("the stream is open");
    hash.finalize().into()
}

fn receive(mut stream: TcpStream, bytes: usize) -> [u8; 32] {
    let (mut hash, mut block, mut count) = (Sha256::new(), vec![0; BLOCK], 0);
    loop {
        match stream.read(&mut block) {
            Ok(0) => break,
            Ok(n) => {
                hash.update(&block[..n]);
                count += n;
            }
            Err(error) => panic!("{count} of {bytes} bytes had arrived: {error}"),
        }
    }
    assert_eq!(count, bytes, "the stream ended early");
    hash.finalize().into()
}

/// Accepts one connection, or panics when none comes.
fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    listener
        .set_nonblocking(true)
        .expect("sockets have this mode");
    let (stream, peer) = crate::deadline::eventually(STALL * 2, "a connection to accept", || {
        match listener.accept() {
            Ok(accepted) => Some(accepted),
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) => panic!("accept: {error}"),
        }
    });
    stream
        .set_nonblocking(false)
        .expect("sockets have this mode");
    limit(&stream, STALL);
    (stream, peer)
}

/// Connects, or panics.
fn connect(server: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&server, STALL)
        .unwrap_or_else(|error| panic!("connect {server}: {error}"));
    limit(&stream, STALL);
    stream
}

fn limit(stream: &TcpStream, patience: Duration) {
    stream
        .set_read_timeout(Some(patience))
        .expect("the timeout is not zero");
    stream
        .set_write_timeout(Some(patience))
        .expect("the timeout is not zero");
    stream
        .set_nodelay(true)
        .expect("a TCP socket has this option");
}

/// A TCP stream that stays open while the world under it changes.
pub struct LongStream {
    stream: TcpStream,
}

impl LongStream {
    /// Opens a stream to an echo server on `to`.
    pub fn open(from: &Host, to: &Host, address: IpAddr) -> Self {
        let listener = to
            .here(move || TcpListener::bind((address, 0)).expect("the address is the receiver's"));
        let server = listener
            .local_addr()
            .expect("a bound socket has an address");
        // The thread ends with the stream, whose reading end it holds.
        to.thread(move || {
            let (mut stream, _) = accept(&listener);
            stream
                .set_read_timeout(None)
                .expect("streams can wait for ever");
            let mut back = stream.try_clone().expect("descriptors are plenty");
            let _ = std::io::copy(&mut stream, &mut back);
        });
        let stream = from.here(move || connect(server));
        Self { stream }
    }

    /// Sends some bytes and reads them back; panics when the stream has died.
    pub fn echoes(&mut self) {
        let mut back = [0; MARKER.len()];
        self.stream
            .write_all(MARKER)
            .unwrap_or_else(|error| panic!("the open stream takes no more: {error}"));
        self.stream
            .read_exact(&mut back)
            .unwrap_or_else(|error| panic!("the open stream echoes no more: {error}"));
        assert_eq!(back, MARKER, "the stream brings other bytes");
    }
}

/// Sends `count` datagrams of `size` bytes to an echo server and returns how many come back.
pub fn udp_echo(from: &Host, to: &Host, address: IpAddr, count: u32, size: usize) -> u32 {
    let server =
        to.here(move || UdpSocket::bind((address, 0)).expect("the address is the receiver's"));
    server
        .set_read_timeout(Some(STALL / 4))
        .expect("the timeout is not zero");
    let target = server.local_addr().expect("a bound socket has an address");
    let echo = to.thread(move || {
        let mut datagram = vec![0; 65536];
        while let Ok((n, peer)) = server.recv_from(&mut datagram) {
            if n == 0 {
                return; // the client says that it is done
            }
            let _ = server.send_to(&datagram[..n], peer); // a lost answer shows in the count
        }
    });
    let answered = from.here(move || {
        let socket = UdpSocket::bind(any_port(target)).expect("any port will do");
        socket.connect(target).expect("there is a route");
        socket
            .set_read_timeout(Some(Duration::from_secs(1)))
            .expect("the timeout is not zero");
        let mut payload = vec![0_u8; size];
        let answered = (0..count)
            .filter(|number| {
                payload[..4].copy_from_slice(&number.to_le_bytes());
                socket.send(&payload).is_ok() && comes_back(&socket, &payload)
            })
            .count();
        let _ = socket.send(&[]); // if this is lost, the server ends by its timeout
        answered
    });
    echo.join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    u32::try_from(answered).expect("no more than were sent")
}

/// Where to bind a socket that is to send there.
fn any_port(target: SocketAddr) -> SocketAddr {
    let any: IpAddr = if target.is_ipv4() {
        [0, 0, 0, 0].into()
    } else {
        [0_u16; 8].into()
    };
    SocketAddr::new(any, 0)
}

/// Whether `payload` arrives before the socket's timeout; late echoes of earlier ones are skipped.
fn comes_back(socket: &UdpSocket, payload: &[u8]) -> bool {
    let mut back = vec![0; 65536];
    while let Ok(n) = socket.recv(&mut back) {
        if back[..n] == *payload {
            return true;
        }
    }
    false
}

/// The round trip of a ping that is not answered.
pub const LOST: Duration = Duration::MAX;

/// The round trips of so many pings, one after every `gap`, in their order.
pub fn pings(from: &Host, address: IpAddr, count: u16, gap: Duration) -> Vec<Duration> {
    let line = format!("ping -n -c{count} -i{} -W2 {address}", gap.as_secs_f64());
    let outcome = from.sh(&line);
    let mut round_trips = vec![LOST; count.into()];
    let mut seen = 0;
    for line in outcome.stdout.lines() {
        let value = |name: &str| {
            line.split_whitespace()
                .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
        };
        if let (Some(number), Some(time)) = (value("icmp_seq"), value("time")) {
            let number: usize = number.parse().expect("ping counts");
            let milliseconds: f64 = time.parse().expect("ping measures");
            round_trips[number - 1] = Duration::from_secs_f64(milliseconds / 1e3);
            seen += 1;
        }
    }
    assert!(seen > 0, "no ping was answered: {outcome}");
    round_trips
}

/// The TCP port that something is to listen on soon, waited for on its host.
pub fn wait_for_listener(host: &Host, port: u16) {
    let what = format!("something listens on TCP port {port} of {}", host.name());
    crate::deadline::until(Duration::from_secs(20), &what, || {
        !host
            .sh(&format!("ss -Hltn 'sport = :{port}'"))
            .ok()
            .is_empty()
    });
}

/// Bytes that flow over TCP from one host to another, as many as can, until it is dropped.
pub struct Flood {
    enough: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
}

impl Flood {
    /// Begins.
    pub fn start(from: &Host, to: &Host, address: IpAddr) -> Self {
        let listener = to
            .here(move || TcpListener::bind((address, 0)).expect("the address is the receiver's"));
        let server = listener
            .local_addr()
            .expect("a bound socket has an address");
        let flood = Self {
            enough: Arc::default(),
            sent: Arc::default(),
        };
        to.thread(move || {
            let (mut stream, _) = accept(&listener);
            let _ = std::io::copy(&mut stream, &mut std::io::sink()); // the sender says what is wrong
        });
        let (enough, sent) = (Arc::clone(&flood.enough), Arc::clone(&flood.sent));
        from.thread(move || {
            let (mut stream, block) = (connect(server), vec![0x5a; BLOCK]);
            while !enough.load(Ordering::Relaxed) {
                stream
                    .write_all(&block)
                    .unwrap_or_else(|error| panic!("the flood has dried up: {error}"));
                sent.fetch_add(BLOCK as u64, Ordering::Relaxed);
            }
        });
        flood
    }

    /// How many bytes the sender's kernel has taken so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.enough.store(true, Ordering::Relaxed);
    }
}
