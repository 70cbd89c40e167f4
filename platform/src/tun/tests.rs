use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::net::if_::if_nametoindex;

use super::*;
use crate::addresses::local_addresses;
use crate::namespace;
use crate::netlink::Conversation;
use crate::poll;
use crate::udp::{RecvBatch, Transmit};

const PATIENCE: Option<Duration> = Some(Duration::from_secs(10));
const US: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 4);
const PEER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 9);
const US_V6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 4);
const PEER_V6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 9);

fn config(name: &str) -> TunConfig {
    TunConfig {
        name: name.into(),
        ipv4: Some((US, 16)),
        ipv6: Some((US_V6, 64)),
        mtu: 1420,
    }
}

/// Waits until the kernel has packets and returns the UDP ones.
fn receive_udp(tun: &mut Tun, batch: &mut PacketBatch) -> Vec<Vec<u8>> {
    loop {
        assert!(
            poll::wait(&[tun.as_fd()], PATIENCE).unwrap().contains(0),
            "the kernel sent nothing"
        );
        match tun.recv(batch) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => panic!("{error}"),
        }
        let udp: Vec<_> = batch
            .iter()
            .filter(|packet| protocol(packet) == UDP)
            .map(<[u8]>::to_vec)
            .collect();
        if !udp.is_empty() {
            return udp;
        }
    }
}

const UDP: u8 = 17;

fn protocol(packet: &[u8]) -> u8 {
    if packet[0] >> 4 == 4 {
        packet[9]
    } else {
        packet[6]
    }
}

/// RFC 1071 over data and, for UDP, the pseudo header before it.
fn checksum(parts: &[&[u8]]) -> u16 {
    let bytes: Vec<u8> = parts.concat();
    let words = bytes
        .chunks(2)
        .map(|word| u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn pseudo_header(source: Ipv4Addr, destination: Ipv4Addr, length: u16) -> Vec<u8> {
    [
        &source.octets()[..],
        &destination.octets(),
        &[0, UDP],
        &length.to_be_bytes(),
    ]
    .concat()
}

/// An IPv4 packet from the peer to us with a UDP datagram in it.
fn udp_packet(to_port: u16, payload: &[u8]) -> Vec<u8> {
    let udp_length = 8 + payload.len() as u16;
    let mut udp = [
        &5000_u16.to_be_bytes()[..],
        &to_port.to_be_bytes(),
        &udp_length.to_be_bytes(),
        &[0, 0],
    ]
    .concat();
    let udp_checksum = checksum(&[&pseudo_header(PEER, US, udp_length), &udp, payload]);
    udp[6..8].copy_from_slice(&udp_checksum.to_be_bytes());

    let total_length = (20 + udp_length).to_be_bytes();
    let mut ip = [
        &[0x45, 0][..],
        &total_length,
        &[0, 0, 0x40, 0, 64, UDP, 0, 0],
        &PEER.octets(),
        &US.octets(),
    ]
    .concat();
    let ip_checksum = checksum(&[&ip]);
    ip[10..12].copy_from_slice(&ip_checksum.to_be_bytes());
    [ip.as_slice(), &udp, payload].concat()
}

fn socket(address: impl Into<IpAddr>) -> UdpSocket {
    let socket = UdpSocket::bind((address.into(), 0)).unwrap();
    socket.set_read_timeout(PATIENCE).unwrap();
    socket
}

fn receive(socket: &UdpSocket) -> Vec<u8> {
    let mut buffer = vec![0; 65_536];
    let length = socket
        .recv(&mut buffer)
        .expect("the datagram did not arrive");
    buffer.truncate(length);
    buffer
}

#[test]
fn addresses_are_changed_without_touching_those_that_stay() {
    namespace::run(|| {
        let mut tun = Tun::open(&TunConfig {
            ipv4: None,
            ipv6: None,
            ..config("hive0")
        })
        .unwrap();
        let addresses = || -> Vec<IpAddr> {
            let all = local_addresses().unwrap().into_iter();
            all.filter(|(name, _)| name == "hive0")
                .map(|(_, network)| network.addr())
                .collect()
        };
        assert_eq!(addresses(), [] as [IpAddr; 0]);
        tun.set_addresses(Some((US, 16)), Some((US_V6, 64)))
            .unwrap();
        assert_eq!(addresses(), [IpAddr::from(US), US_V6.into()]);
        tun.set_addresses(Some((PEER, 16)), Some((US_V6, 64)))
            .unwrap();
        let mut now = addresses();
        now.sort();
        assert_eq!(now, [IpAddr::from(PEER), US_V6.into()]);
        tun.set_addresses(None, Some((US_V6, 64))).unwrap();
        assert_eq!(addresses(), [IpAddr::from(US_V6)]);
    });
}

#[test]
fn what_programs_send_comes_out_as_packets() {
    namespace::run(|| {
        let mut tun = Tun::open(&config("hive0")).unwrap();
        assert_eq!(tun.name(), "hive0");
        let mut batch = PacketBatch::new();
        socket(US).send_to(b"hello", (PEER, 5000)).unwrap();
        let packets = receive_udp(&mut tun, &mut batch);
        assert_eq!(packets.len(), 1);
        assert_eq!(packets[0][12..20], [US.octets(), PEER.octets()].concat());
        assert_eq!(&packets[0][28..], b"hello");
        assert_eq!(
            tun.recv(&mut batch).unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
        assert!(batch.is_empty());
    });
}

#[test]
fn the_ipv6_address_is_usable_at_once_and_the_interface_is_quiet() {
    namespace::run(|| {
        let mut tun = Tun::open(&config("hive0")).unwrap();
        let addresses = local_addresses().unwrap();
        let ours: Vec<_> = addresses
            .iter()
            .filter(|(name, _)| name == "hive0")
            .map(|(_, net)| net.to_string())
            .collect();
        assert_eq!(
            ours,
            ["10.77.0.4/16", "fd77::4/64"],
            "a link-local address would be one too many"
        );

        socket(US_V6).send_to(b"hello", (PEER_V6, 5000)).unwrap();
        let packets = receive_udp(&mut tun, &mut PacketBatch::new());
        assert_eq!(
            packets[0][8..40],
            [US_V6.octets(), PEER_V6.octets()].concat()
        );
        assert_eq!(&packets[0][48..], b"hello");
    });
}

#[test]
fn packets_we_write_reach_programs() {
    namespace::run(|| {
        let mut tun = Tun::open(&config("hive0")).unwrap();
        let socket = socket(US);
        let port = socket.local_addr().unwrap().port();
        let mut batch = PacketBatch::new();
        batch.push(&udp_packet(port, b"hello")).unwrap();
        assert_eq!(tun.send(&mut batch).unwrap(), 1);
        assert!(batch.is_empty());
        assert_eq!(receive(&socket), b"hello");
    });
}

#[test]
fn a_burst_comes_out_as_single_packets_with_correct_checksums() {
    namespace::run(|| {
        let mut tun = Tun::open(&config("hive0")).unwrap();
        let socket = crate::udp::UdpSocket::bind((US, 0).into()).unwrap();
        let contents: Vec<u8> = (0..40_u8)
            .flat_map(|number| [number; 1000])
            .chain([40; 300])
            .collect();
        let destination = (PEER, 5000).into();
        let burst = Transmit {
            destination,
            ecn: None,
            contents: &contents,
            segment_size: Some(1000),
            src_ip: None,
        };
        socket.send(&burst).unwrap();

        let (mut batch, mut packets) = (PacketBatch::new(), Vec::new());
        while packets.len() < 41 {
            packets.extend(receive_udp(&mut tun, &mut batch));
        }
        for (number, packet) in (0_u8..).zip(&packets) {
            let expected = vec![number; if number < 40 { 1000 } else { 300 }];
            assert_eq!(packet[28..], expected);
            assert_eq!(
                checksum(&[&packet[..20]]),
                0,
                "IP header of packet {number}"
            );
            let pseudo = pseudo_header(US, PEER, packet.len() as u16 - 20);
            assert_eq!(
                checksum(&[&pseudo, &packet[20..]]),
                0,
                "UDP of packet {number}"
            );
        }
    });
}

#[test]
fn a_full_batch_of_one_flow_arrives_complete_and_in_order() {
    namespace::run(|| {
        let mut tun = Tun::open(&config("hive0")).unwrap();
        let socket = crate::udp::UdpSocket::bind((US, 0).into()).unwrap();
        let port = socket.local_addr().unwrap().port();
        let mut batch = PacketBatch::new();
        for number in 0..PacketBatch::CAPACITY {
            batch
                .push(&udp_packet(port, &[number as u8; 1000]))
                .unwrap();
        }
        assert_eq!(tun.send(&mut batch).unwrap(), PacketBatch::CAPACITY);

        let (mut arrivals, mut seen) = (RecvBatch::new(), Vec::new());
        while seen.len() < PacketBatch::CAPACITY {
            assert!(
                poll::wait(&[socket.as_fd()], PATIENCE).unwrap().contains(0),
                "lost after {seen:?}"
            );
            socket.recv(&mut arrivals).unwrap();
            for datagram in arrivals.iter().flat_map(|received| received.datagrams()) {
                assert!(datagram.len() == 1000 && datagram.iter().all(|byte| *byte == datagram[0]));
                seen.push(usize::from(datagram[0]));
            }
        }
        assert!(seen.into_iter().eq(0..PacketBatch::CAPACITY));
    });
}

#[test]
fn one_bad_packet_does_not_take_its_batch_with_it() {
    namespace::run(|| {
        let mut tun = Tun::open(&config("hive0")).unwrap();
        let socket = socket(US);
        let port = socket.local_addr().unwrap().port();
        let mut batch = PacketBatch::new();
        for packet in [
            &udp_packet(port, b"before")[..],
            &[0xff; 60],
            &[0x60; 45],
            &[0x45],
            &udp_packet(port, b"after"),
        ] {
            batch.push(packet).unwrap();
        }
        tun.send(&mut batch).unwrap();
        assert_eq!(receive(&socket), b"before");
        assert_eq!(receive(&socket), b"after");
    });
}

#[test]
fn the_largest_packet_passes_both_ways() {
    namespace::run(|| {
        let mut tun = Tun::open(&TunConfig {
            mtu: u16::MAX,
            ..config("hive0")
        })
        .unwrap();
        let socket = socket(US);
        let payload = vec![7; 65_507];
        socket.send_to(&payload, (PEER, 5000)).unwrap();
        let mut batch = PacketBatch::new();
        let packets = receive_udp(&mut tun, &mut batch);
        assert_eq!(packets[0].len(), 65_535);
        assert_eq!(packets[0][28..], payload);

        batch.clear();
        batch
            .push(&udp_packet(socket.local_addr().unwrap().port(), &payload))
            .unwrap();
        assert_eq!(tun.send(&mut batch).unwrap(), 1);
        assert_eq!(receive(&socket), payload);
    });
}

/// Two networks joined by nothing but their TUN devices, and a thread that carries packets between them.
#[test]
fn a_tcp_connection_through_two_devices_delivers_every_byte() {
    let sent: Vec<u8> = (0..20_000_000_u32)
        .map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let done = AtomicBool::new(false);
    let (tun_of_client, tuns) = mpsc::channel();
    let (tun_of_server, (port_of_server, port)) = (tun_of_client.clone(), mpsc::channel());

    let serve = move || {
        let config = TunConfig {
            ipv4: Some((PEER, 16)),
            ipv6: None,
            ..config("hive0")
        };
        tun_of_server.send(Tun::open(&config).unwrap()).unwrap();
        let listener = TcpListener::bind((PEER, 0)).unwrap();
        socket2::SockRef::from(&listener)
            .set_read_timeout(PATIENCE)
            .unwrap();
        port_of_server
            .send(listener.local_addr().unwrap().port())
            .unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(PATIENCE).unwrap();
        let mut received = Vec::new();
        stream.read_to_end(&mut received).unwrap();
        received
    };
    let bytes = &sent;
    let call = move |port: mpsc::Receiver<u16>| {
        tun_of_client
            .send(Tun::open(&config("hive0")).unwrap())
            .unwrap();
        let mut stream = TcpStream::connect((PEER, port.recv().unwrap())).unwrap();
        stream.set_write_timeout(PATIENCE).unwrap();
        stream.write_all(bytes).unwrap();
    };
    let carry = |tuns: mpsc::Receiver<Tun>| {
        let (Ok(mut one), Ok(mut other)) = (tuns.recv(), tuns.recv()) else {
            return;
        };
        let mut batch = PacketBatch::new();
        while !done.load(Ordering::Relaxed) {
            let ready = poll::wait(
                &[one.as_fd(), other.as_fd()],
                Some(Duration::from_millis(100)),
            )
            .unwrap();
            if ready.contains(0) && one.recv(&mut batch).is_ok() {
                assert!(batch.iter().all(|packet| packet.len() <= 1420));
                other.send(&mut batch).unwrap();
            }
            if ready.contains(1) && other.recv(&mut batch).is_ok() {
                one.send(&mut batch).unwrap();
            }
        }
    };

    thread::scope(|scope| {
        let server = scope.spawn(|| namespace::run(serve));
        scope.spawn(move || namespace::run(move || call(port)));
        scope.spawn(move || carry(tuns));
        let received = server.join();
        done.store(true, Ordering::Relaxed);
        let Some(received) = received.unwrap() else {
            return;
        };
        assert!(
            received == sent,
            "{} of {} bytes, or other ones",
            received.len(),
            sent.len()
        );
    });
}

#[test]
fn the_interface_goes_away_with_its_owner() {
    namespace::run(|| {
        drop(Tun::open(&config("hive0")).unwrap());
        assert!(if_nametoindex("hive0").is_err());
        Tun::open(&config("hive0")).unwrap();
    });
}

#[test]
fn a_removed_interface_is_told_as_such() {
    namespace::run(|| {
        let mut tun = Tun::open(&config("hive0")).unwrap();
        Conversation::open()
            .unwrap()
            .remove_link(if_nametoindex("hive0").unwrap())
            .unwrap();
        assert!(
            poll::wait(&[tun.as_fd()], PATIENCE).unwrap().contains(0),
            "the loop would sleep for ever"
        );
        let mut batch = PacketBatch::new();
        let error = tun.recv(&mut batch).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotConnected);
        assert_eq!(
            error.to_string(),
            "interface hive0 was removed by someone else: restart hivevpn"
        );
        batch.push(&udp_packet(1, b"x")).unwrap();
        assert_eq!(
            tun.send(&mut batch).unwrap_err().kind(),
            io::ErrorKind::NotConnected
        );
    });
}

#[test]
fn an_interface_taken_down_is_told_as_such() {
    namespace::run(|| {
        let mut tun = Tun::open(&config("hive0")).unwrap();
        Conversation::open()
            .unwrap()
            .set_link_down(if_nametoindex("hive0").unwrap())
            .unwrap();
        let mut batch = PacketBatch::new();
        assert_eq!(
            tun.recv(&mut batch).unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
        batch.push(&udp_packet(1, b"x")).unwrap();
        let error = tun.send(&mut batch).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NetworkDown);
        assert_eq!(
            error.to_string(),
            "interface hive0 is down: run `ip link set hive0 up`"
        );
    });
}

#[test]
fn a_taken_name_is_refused_whoever_has_it() {
    namespace::run(|| {
        let _tun = Tun::open(&config("hive0")).unwrap();
        for name in ["hive0", "lo"] {
            let config = TunConfig {
                ipv4: None,
                ..config(name)
            };
            let error = Tun::open(&config).map(drop).unwrap_err();
            assert!(
                matches!(&error, TunError::NameTaken(taken) if taken == name),
                "{error}"
            );
        }
    });
}

#[test]
fn a_system_without_ipv6_is_told_as_such_and_leaves_no_interface_behind() {
    namespace::run(|| {
        std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").unwrap();
        let error = Tun::open(&config("hive0")).map(drop).unwrap_err();
        assert!(matches!(error, TunError::NoIpv6(_)), "{error}");
        assert!(if_nametoindex("hive0").is_err());
        Tun::open(&TunConfig {
            ipv6: None,
            ..config("hive0")
        })
        .unwrap();
    });
}

#[test]
fn an_overlay_that_would_hide_another_network_is_refused() {
    namespace::run(|| {
        let _other = Tun::open(&config("other0")).unwrap();
        let error = Tun::open(&TunConfig {
            ipv4: Some((PEER, 24)),
            ..config("hive0")
        })
        .map(drop)
        .unwrap_err();
        assert!(
            error.to_string().starts_with(
                "the overlay's network 10.77.0.0/24 overlaps with 10.77.0.0/16 on interface other0"
            ),
            "{error}"
        );
        assert!(if_nametoindex("hive0").is_err());
    });
}

#[test]
fn impossible_settings_are_refused_before_anything_is_touched() {
    for name in [
        "",
        "a-very-long-name",
        "a/b",
        "a b",
        "..",
        "hive%d",
        "hive:0",
    ] {
        let error = Tun::open(&config(name)).map(drop).unwrap_err();
        assert!(
            matches!(error, TunError::InvalidName(_)),
            "{name:?}: {error}"
        );
    }
    let error = Tun::open(&TunConfig {
        mtu: 1000,
        ..config("hive0")
    })
    .map(drop)
    .unwrap_err();
    assert!(
        matches!(
            error,
            TunError::MtuTooSmall {
                mtu: 1000,
                least: 1280
            }
        ),
        "{error}"
    );
    let error = Tun::open(&TunConfig {
        ipv4: Some((US, 33)),
        ..config("hive0")
    })
    .map(drop)
    .unwrap_err();
    assert!(matches!(error, TunError::InvalidPrefix(33)), "{error}");
}

#[test]
fn a_user_without_the_privilege_learns_what_to_grant() {
    if crate::privileges::may_configure_interfaces() {
        println!("skipped: we have CAP_NET_ADMIN, and one thread cannot give it up");
        return;
    }
    let error = Tun::open(&config("hive0")).map(drop).unwrap_err();
    assert!(matches!(error, TunError::NotPermitted), "{error}");
}
