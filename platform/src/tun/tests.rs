use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use nix::net::if_::if_nametoindex;

use super::*;
use crate::addresses::local_addresses;
use crate::namespace;
use crate::netlink::Conversation;
use crate::poll;
use crate::udp::{RecvBatch, Transmit};

#[path = "tests/stream.rs"]
mod stream;

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
        offload: true,
    }
}

/// Waits until the kernel has a frame with UDP packets and returns them.
fn receive_udp(tun: &mut Tun) -> Vec<Vec<u8>> {
    loop {
        assert!(
            poll::wait(&[tun.as_fd()], PATIENCE).unwrap().contains(0),
            "the kernel sent nothing"
        );
        let mut packets = vec![];
        match tun.recv_each(1, usize::MAX, |packet| packets.push(packet.to_vec())) {
            Ok(frames) => assert_eq!(frames, 1),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => panic!("{error}"),
        }
        packets.retain(|packet| protocol(packet) == UDP);
        if !packets.is_empty() {
            return packets;
        }
    }
}

/// What receiving fails with.
fn receive_error(tun: &mut Tun) -> io::Error {
    tun.recv_each(1, usize::MAX, |packet| panic!("received {packet:?}"))
        .unwrap_err()
}

fn open(config: &TunConfig) -> Tun {
    Tun::open(config).unwrap()
}

/// An interface as a kernel without offloads has it.
fn open_without_offloads(config: &TunConfig) -> Tun {
    open(&TunConfig {
        offload: false,
        ..config.clone()
    })
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
        socket(US).send_to(b"hello", (PEER, 5000)).unwrap();
        let packets = receive_udp(&mut tun);
        assert_eq!(packets.len(), 1);
        assert_eq!(packets[0][12..20], [US.octets(), PEER.octets()].concat());
        assert_eq!(&packets[0][28..], b"hello");
        assert_eq!(receive_error(&mut tun).kind(), io::ErrorKind::WouldBlock);
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
        let packets = receive_udp(&mut tun);
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
        assert_eq!(
            tun.send_packets([&udp_packet(port, b"hello")[..]]).unwrap(),
            1
        );
        assert_eq!(receive(&socket), b"hello");
    });
}

/// Sends 41 datagrams to the peer in one call and returns the packets they become, frame by frame.
fn frames_of_a_burst(tun: &mut Tun, payload: impl Fn(u8) -> Vec<u8>) -> Vec<Vec<Vec<u8>>> {
    let socket = crate::udp::UdpSocket::bind((US, 0).into()).unwrap();
    let contents: Vec<u8> = (0..41).flat_map(payload).collect();
    let burst = Transmit {
        destination: (PEER, 5000).into(),
        ecn: None,
        contents: &contents,
        segment_size: Some(1000),
        src_ip: None,
    };
    socket.send(&burst).unwrap();
    let mut frames = vec![];
    while frames.iter().map(Vec::len).sum::<usize>() < 41 {
        frames.push(receive_udp(tun));
    }
    frames
}

#[test]
fn a_burst_comes_out_as_single_packets_with_correct_checksums() {
    let payload = |number: u8| vec![number; if number < 40 { 1000 } else { 300 }];
    for open in [open, open_without_offloads] {
        namespace::run(|| {
            let packets = frames_of_a_burst(&mut open(&config("hive0")), payload).concat();
            for (number, packet) in (0_u8..).zip(&packets) {
                assert_eq!(packet[28..], payload(number));
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
}

#[test]
fn a_burst_is_one_frame_unless_the_kernel_has_no_offloads() {
    let payload = |number| vec![number; 1000];
    namespace::run(|| {
        let mut tun = Tun::open(&config("hive0")).unwrap();
        assert_eq!(frames_of_a_burst(&mut tun, payload).len(), 1);
        drop(tun);
        let mut tun = open_without_offloads(&config("hive0"));
        assert_eq!(frames_of_a_burst(&mut tun, payload).len(), 41);
    });
}

/// Writes a hundred packets of one flow at once. Returns in how many messages a socket that takes bursts got them.
fn messages_of_a_flow(tun: &mut Tun) -> usize {
    let socket = crate::udp::UdpSocket::bind((US, 0).into()).unwrap();
    let port = socket.local_addr().unwrap().port();
    let packets: Vec<_> = (0..100)
        .map(|number| udp_packet(port, &[number; 500]))
        .collect();
    assert_eq!(
        tun.send_packets(packets.iter().map(Vec::as_slice)).unwrap(),
        100
    );

    let (mut arrivals, mut seen, mut messages) = (RecvBatch::new(), Vec::new(), 0);
    while seen.len() < 100 {
        assert!(
            poll::wait(&[socket.as_fd()], PATIENCE).unwrap().contains(0),
            "lost after {seen:?}"
        );
        messages += socket.recv(&mut arrivals).unwrap();
        for datagram in arrivals.iter().flat_map(|received| received.datagrams()) {
            assert!(datagram.len() == 500 && datagram.iter().all(|byte| *byte == datagram[0]));
            seen.push(datagram[0]);
        }
    }
    assert!(seen.into_iter().eq(0..100));
    messages
}

#[test]
fn a_flow_arrives_complete_and_in_order_and_as_bursts_unless_the_kernel_has_no_offloads() {
    namespace::run(|| {
        let mut tun = Tun::open(&config("hive0")).unwrap();
        assert_eq!(messages_of_a_flow(&mut tun), 2, "64 packets and the rest");
        drop(tun);
        assert_eq!(
            messages_of_a_flow(&mut open_without_offloads(&config("hive0"))),
            100
        );
    });
}

#[test]
fn one_bad_packet_does_not_take_its_batch_with_it() {
    namespace::run(|| {
        let mut tun = Tun::open(&config("hive0")).unwrap();
        let socket = socket(US);
        let port = socket.local_addr().unwrap().port();
        let packets = [
            &udp_packet(port, b"before")[..],
            &[0xff; 60],
            &[0x60; 45],
            &[0x45],
            &[],
            &udp_packet(port, b"after"),
        ];
        let taken = tun.send_packets(packets).unwrap();
        assert!((2..6).contains(&taken), "{taken} packets taken");
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
        let packets = receive_udp(&mut tun);
        assert_eq!(packets[0].len(), 65_535);
        assert_eq!(packets[0][28..], payload);

        let packet = udp_packet(socket.local_addr().unwrap().port(), &payload);
        assert_eq!(tun.send_packets([&packet[..]]).unwrap(), 1);
        assert_eq!(receive(&socket), payload);
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
        let error = receive_error(&mut tun);
        assert_eq!(error.kind(), io::ErrorKind::NotConnected);
        assert_eq!(
            error.to_string(),
            "interface hive0 was removed by someone else: restart hivevpn"
        );
        let error = tun.send_packets([&udp_packet(1, b"x")[..]]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotConnected);
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
        assert_eq!(receive_error(&mut tun).kind(), io::ErrorKind::WouldBlock);
        let error = tun.send_packets([&udp_packet(1, b"x")[..]]).unwrap_err();
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
