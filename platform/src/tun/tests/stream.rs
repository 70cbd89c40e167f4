//! TCP between two networks joined by nothing but their TUN devices.

use std::hash::{DefaultHasher, Hasher};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;

use super::*;

/// Bytes in one chunk of a stream.
const CHUNK: usize = 64 * 1024;

/// The chunk at `index` of a stream that does not repeat itself.
fn chunk(index: u32) -> Vec<u8> {
    let numbers = index * CHUNK as u32..(index + 1) * CHUNK as u32;
    numbers
        .map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect()
}

/// Sends `count` chunks over TCP between two networks joined by nothing but their TUN devices, which `open` opens, and a
/// thread that carries packets between them. Returns how many frames brought them.
fn carry_a_stream(to: impl Into<IpAddr>, count: u32, open: fn(&TunConfig) -> Tun) -> Option<usize> {
    let to = to.into();
    let done = AtomicBool::new(false);
    let (tun_of_client, tuns) = mpsc::channel();
    let (tun_of_server, (port_of_server, port)) = (tun_of_client.clone(), mpsc::channel());

    let serve = move || {
        let config = TunConfig {
            ipv4: Some((PEER, 16)),
            ipv6: Some((PEER_V6, 64)),
            ..config("hive0")
        };
        tun_of_server.send(open(&config)).unwrap();
        let listener = TcpListener::bind((to, 0)).unwrap();
        socket2::SockRef::from(&listener)
            .set_read_timeout(PATIENCE)
            .unwrap();
        port_of_server
            .send(listener.local_addr().unwrap().port())
            .unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(PATIENCE).unwrap();
        let (mut hash, mut received) = (DefaultHasher::new(), vec![0; CHUNK]);
        for index in 0..count {
            stream
                .read_exact(&mut received)
                .unwrap_or_else(|error| panic!("chunk {index}: {error}"));
            hash.write(&received);
        }
        assert_eq!(
            stream.read(&mut received).unwrap(),
            0,
            "more came than was sent"
        );
        (hash.finish(), frames_received())
    };
    let call = move |port: mpsc::Receiver<u16>| {
        tun_of_client.send(open(&config("hive0"))).unwrap();
        let mut stream = TcpStream::connect((to, port.recv().unwrap())).unwrap();
        stream.set_write_timeout(PATIENCE).unwrap();
        let mut hash = DefaultHasher::new();
        for chunk in (0..count).map(chunk) {
            hash.write(&chunk);
            stream.write_all(&chunk).unwrap();
        }
        hash.finish()
    };
    let carry = |tuns: mpsc::Receiver<Tun>| {
        let (Ok(mut one), Ok(mut other)) = (tuns.recv(), tuns.recv()) else {
            return;
        };
        while !done.load(Ordering::Relaxed) {
            let sources = [one.as_fd(), other.as_fd()];
            poll::wait(&sources, Some(Duration::from_millis(100))).unwrap();
            pass_on(&mut one, &mut other);
            pass_on(&mut other, &mut one);
        }
    };

    thread::scope(|scope| {
        let server = scope.spawn(|| namespace::run(serve));
        let client = scope.spawn(move || namespace::run(move || call(port)));
        scope.spawn(move || carry(tuns));
        let (received, sent) = (server.join(), client.join());
        done.store(true, Ordering::Relaxed);
        let (received, frames) = received.unwrap()?;
        assert_eq!(
            Some(received),
            sent.unwrap(),
            "other bytes came than were sent"
        );
        Some(frames)
    })
}

/// Frames that have been written into the interface of this namespace.
fn frames_received() -> usize {
    let interfaces = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    let ours = |line: &str| Some(line.trim().strip_prefix("hive0:")?.to_owned());
    let counters = interfaces
        .lines()
        .find_map(ours)
        .expect("the interface is there");
    // Bytes, packets, errors and so on.
    counters.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Carries what has come out of one device into the other, a few frames at a time so that they are merged anew.
fn pass_on(from: &mut Tun, to: &mut Tun) {
    let mut packets = vec![];
    match from.recv_each(16, usize::MAX, |packet| packets.push(packet.to_vec())) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
        Err(error) => panic!("{error}"),
    }
    assert!(packets.iter().all(|packet| packet.len() <= 1420));
    let taken = to.send_packets(packets.iter().map(Vec::as_slice)).unwrap();
    assert_eq!(taken, packets.len(), "the kernel refused packets");
}

/// Packets that a stream of so many chunks takes at least.
fn packets_of(chunks: u32) -> usize {
    chunks as usize * CHUNK / 1420
}

#[test]
fn a_stream_over_ipv4_arrives_byte_for_byte_cut_and_merged_on_the_way() {
    let frames = carry_a_stream(PEER, 1024, open);
    assert!(
        frames.is_none_or(|frames| frames < packets_of(1024) / 2),
        "{frames:?}: nothing was merged"
    );
}

#[test]
fn a_stream_over_ipv6_arrives_byte_for_byte_cut_and_merged_on_the_way() {
    let frames = carry_a_stream(PEER_V6, 1024, open);
    assert!(
        frames.is_none_or(|frames| frames < packets_of(1024) / 2),
        "{frames:?}: nothing was merged"
    );
}

#[test]
fn a_stream_arrives_byte_for_byte_without_offloads() {
    let frames = carry_a_stream(PEER, 1024, open_without_offloads);
    assert!(
        frames.is_none_or(|frames| frames > packets_of(1024)),
        "{frames:?}: something was merged"
    );
}

/// Each side must cope with what the other makes of its packets.
#[test]
fn a_stream_arrives_byte_for_byte_when_only_one_side_has_offloads() {
    carry_a_stream(PEER, 1024, |config| match config.ipv4 {
        Some((US, _)) => open_without_offloads(config),
        Some(_) | None => open(config),
    });
}
