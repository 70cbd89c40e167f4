//! The laboratory proves itself with stock tools, so that what fails elsewhere is the product's.

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::deadline::until;
use crate::lab::{Host, Lab, Link, Nat};
use crate::services::{dns, postgresql, quic, redis, ssh};
use crate::traffic;

/// A UDP socket on a host.
fn socket(host: &Host, port: u16) -> UdpSocket {
    host.here(move || {
        let socket = UdpSocket::bind(("0.0.0.0", port)).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(1)))
            .unwrap();
        socket
    })
}

/// Sends from `socket` to `to` and returns the source that `receiver` sees, if anything arrives.
fn seen(socket: &UdpSocket, to: SocketAddr, receiver: &UdpSocket) -> Option<SocketAddr> {
    socket.send_to(b"who am I?", to).unwrap();
    receiver
        .recv_from(&mut [0; 64])
        .ok()
        .map(|(_, source)| source)
}

/// Both learn their mapping from a public host, then send to each other's at the same time.
fn punch(a: Nat, b: Nat) -> bool {
    let lab = Lab::new().public("r").behind(a, "a").behind(b, "b").build();
    let (socket_r, socket_a, socket_b) = (
        socket(lab.host("r"), 9000),
        socket(lab.host("a"), 7777),
        socket(lab.host("b"), 7777),
    );
    let r = SocketAddr::new(lab.host("r").address(), 9000);
    let mapped_a = seen(&socket_a, r, &socket_r).expect("a reaches r");
    let mapped_b = seen(&socket_b, r, &socket_r).expect("b reaches r");
    (0..3).any(|_| {
        socket_a.send_to(b"hello b", mapped_b).unwrap();
        socket_b.send_to(b"hello a", mapped_a).unwrap();
        socket_b.recv_from(&mut [0; 64]).is_ok() && socket_a.recv_from(&mut [0; 64]).is_ok()
    })
}

#[test]
fn hosts_behind_port_restricted_routers_can_punch() {
    assert!(punch(Nat::PortRestricted, Nat::PortRestricted));
}

#[test]
fn hosts_behind_a_remapping_and_a_port_restricted_router_can_punch() {
    assert!(punch(Nat::Remapping, Nat::PortRestricted));
}

#[test]
fn hosts_behind_symmetric_routers_cannot_punch() {
    assert!(!punch(Nat::Symmetric, Nat::Symmetric));
}

#[test]
fn a_symmetric_router_shows_each_destination_another_port() {
    let lab = Lab::new()
        .public("r")
        .public("s")
        .behind(Nat::Symmetric, "a")
        .build();
    let (r, s, a) = (
        socket(lab.host("r"), 9000),
        socket(lab.host("s"), 9000),
        socket(lab.host("a"), 7777),
    );
    let from_r = seen(&a, SocketAddr::new(lab.host("r").address(), 9000), &r).unwrap();
    let from_s = seen(&a, SocketAddr::new(lab.host("s").address(), 9000), &s).unwrap();
    assert_eq!(from_r.ip(), lab.router("a").wan());
    assert_ne!(from_r.port(), from_s.port());
}

#[test]
fn a_full_cone_router_lets_strangers_in() {
    let lab = Lab::new().public("r").behind(Nat::FullCone, "a").build();
    let (r, a) = (socket(lab.host("r"), 9000), socket(lab.host("a"), 7777));
    assert!(seen(&r, SocketAddr::new(lab.router("a").wan(), 7777), &a).is_some());
}

#[test]
fn a_port_restricted_router_lets_no_stranger_in() {
    let lab = Lab::new()
        .public("r")
        .behind(Nat::PortRestricted, "a")
        .build();
    let (r, a) = (socket(lab.host("r"), 9000), socket(lab.host("a"), 7777));
    assert_eq!(
        seen(&r, SocketAddr::new(lab.router("a").wan(), 7777), &a),
        None
    );
}

#[test]
fn an_address_restricted_router_lets_in_every_port_of_those_that_were_asked() {
    let lab = Lab::new()
        .public("r")
        .public("s")
        .behind(Nat::AddressRestricted, "a")
        .build();
    let (r, other, s, a) = (
        socket(lab.host("r"), 9000),
        socket(lab.host("r"), 9001),
        socket(lab.host("s"), 9000),
        socket(lab.host("a"), 7777),
    );
    let mapped = SocketAddr::new(lab.router("a").wan(), 7777);
    assert_eq!(seen(&r, mapped, &a), None, "nobody was asked");
    let to = SocketAddr::new(lab.host("r").address(), 9000);
    assert_eq!(seen(&a, to, &r), Some(mapped));
    assert!(seen(&other, mapped, &a).is_some());
    assert_eq!(seen(&s, mapped, &a), None, "a stranger");
}

#[test]
fn an_office_lets_its_hosts_use_the_web_alone() {
    let lab = Lab::new().public("r").behind(Nat::WebOnly, "a").build();
    let (r, a) = (lab.host("r"), lab.host("a"));
    let address = r.address();
    assert_eq!(traffic::udp_echo(a, r, address, 1, 100), 0);
    let connects = |port: u16| {
        let listener = r.here(move || TcpListener::bind((address, port)).unwrap());
        let to = listener.local_addr().unwrap();
        a.here(move || TcpStream::connect_timeout(&to, Duration::from_secs(1)).is_ok())
    };
    assert!(connects(443) && connects(80) && !connects(7777));
}

#[test]
fn without_udp_only_tcp_gets_through() {
    let lab = Lab::new().public("r").behind(Nat::NoUdp, "a").build();
    let (r, a) = (lab.host("r"), lab.host("a"));
    assert_eq!(traffic::udp_echo(a, r, r.address(), 1, 100), 0);
    traffic::transfer(a, r, r.address(), 1_000_000);
}

#[test]
fn udp_can_be_blocked_and_unblocked_and_mappings_forgotten() {
    let lab = Lab::new().public("r").behind(Nat::Symmetric, "a").build();
    let (r, a) = (socket(lab.host("r"), 9000), socket(lab.host("a"), 7777));
    let to = SocketAddr::new(lab.host("r").address(), 9000);
    let before = seen(&a, to, &r).expect("UDP passes");
    assert_eq!(seen(&a, to, &r), Some(before), "a mapping lasts");
    lab.router("a").flush_conntrack();
    assert_ne!(
        seen(&a, to, &r).expect("UDP still passes"),
        before,
        "a forgotten mapping is made anew"
    );
    lab.router("a").block_udp(true);
    assert_eq!(seen(&a, to, &r), None);
    lab.router("a").block_udp(false);
    assert!(seen(&a, to, &r).is_some());
}

#[test]
fn udp_can_be_blocked_between_two_routers_alone() {
    let lab = Lab::new()
        .public("r")
        .behind(Nat::PortRestricted, "a")
        .behind(Nat::Open, "b")
        .build();
    let (r, a, b) = (lab.host("r"), lab.host("a"), lab.host("b"));
    let [router_a, router_b] = ["a", "b"].map(|name| lab.router(name));
    for (blocked, answered) in [(Some(router_b), 0), (None, 3)] {
        router_a.block_udp_with(blocked);
        assert_eq!(traffic::udp_echo(a, b, b.address(), 3, 100), answered);
        assert_eq!(traffic::udp_echo(a, r, r.address(), 3, 100), 3);
        assert!(a.pings(b.address()));
    }
}

#[test]
fn a_firewall_on_an_ipv6_underlay_lets_only_answers_in() {
    let lab = Lab::new()
        .ipv6_only()
        .public("r")
        .behind(Nat::Firewall, "a")
        .behind(Nat::Open, "b")
        .build();
    let (r, a, b) = (lab.host("r"), lab.host("a"), lab.host("b"));
    assert!([r, a, b].iter().all(|host| host.address().is_ipv6()));
    assert!(a.pings(r.address()) && a.pings(b.address()) && r.pings(b.address()));
    assert!(!r.pings(a.address()));
    assert_eq!(r.sh("ip -4 route").ok(), "");
    traffic::transfer(a, b, b.address(), 1_000_000);
}

#[test]
fn an_isolated_lan_leads_nowhere() {
    let lab = Lab::new().isolated("a").isolated("b").build();
    let (a, b) = (lab.host("a"), lab.host("b"));
    assert!(a.pings(b.address()));
    assert!(!a.sh("ip route").ok().contains("default"));
    assert!(!a.pings(IpAddr::from([203, 0, 113, 1])));
}

#[test]
fn neighbours_share_a_router() {
    let lab = Lab::new()
        .public("r")
        .behind(Nat::PortRestricted, "a")
        .beside("a", "b")
        .build();
    let (r, a, b) = (lab.host("r"), lab.host("a"), lab.host("b"));
    assert!(a.pings(b.address()) && b.pings(r.address()));
    assert_eq!(lab.router("a").wan(), lab.router("b").wan());
}

#[test]
fn a_host_has_its_own_name_files_and_can_move() {
    let lab = Lab::new()
        .public("r")
        .behind(Nat::PortRestricted, "a")
        .build();
    let a = lab.host("a");
    assert_eq!(a.sh("hostname").ok(), "a");
    assert_eq!(a.sh("pwd").ok(), a.directory().display().to_string());
    a.set_address("10.0.1.77/24", Some("10.0.1.1"));
    assert_eq!(a.address(), IpAddr::from([10, 0, 1, 77]));
    assert!(a.pings(lab.host("r").address()));
}

#[test]
fn a_cable_can_be_pulled_and_plugged_in_elsewhere() {
    let lab = Lab::new()
        .public("r")
        .behind(Nat::PortRestricted, "a")
        .behind(Nat::Open, "b")
        .build();
    let (r, a) = (lab.host("r"), lab.host("a"));
    let before = a.address();
    a.cable().set_carrier(false);
    assert!(!a.pings(r.address()));
    a.cable().set_carrier(true);
    // The bridge hears of its port's carrier within a second or two.
    let answers = |host: &Host| {
        let what = format!("{} answers", host.name());
        until(Duration::from_secs(10), &what, || a.pings(host.address()));
    };
    answers(r);
    assert_eq!(a.address(), before, "a host keeps its address");
    lab.move_beside("b", "a");
    assert_ne!(a.address(), before);
    for host in ["r", "b"] {
        answers(lab.host(host));
    }
}

#[test]
fn a_link_delays_both_directions_and_carries_no_more_than_its_rate() {
    let delay = Duration::from_millis(20);
    let link = Link::delay(20).rate(40, Duration::from_millis(50));
    let lab = Lab::new()
        .public("r")
        .behind(Nat::PortRestricted, "a")
        .over(link)
        .build();
    let (r, a) = (lab.host("r"), lab.host("a"));
    let echoes = traffic::pings(a, r.address(), 10, Duration::from_millis(10));
    assert!(echoes.iter().all(|rtt| *rtt >= 2 * delay), "{echoes:?}");
    let began = Instant::now();
    traffic::transfer(a, r, r.address(), 5_000_000);
    assert!(
        began.elapsed() >= Duration::from_secs(1),
        "40 Mbit at 40 Mbit/s"
    );
}

#[test]
fn a_link_loses_as_much_as_it_should() {
    let lab = Lab::new()
        .public("r")
        .public("a")
        .over(Link::delay(1).loss(250))
        .build();
    let (r, a) = (lab.host("r"), lab.host("a"));
    let echoes = traffic::pings(a, r.address(), 200, Duration::from_millis(10));
    let lost = echoes.iter().filter(|rtt| **rtt == traffic::LOST).count();
    assert!(
        (60..120).contains(&lost),
        "{lost} of 200, both ways: 44 % are 88"
    );
}

#[test]
fn a_narrow_way_tells_unless_it_is_mute() {
    let lab = Lab::new()
        .behind(Nat::Open, "r")
        .behind(Nat::PortRestricted, "a")
        .build();
    let (r, a) = (lab.host("r"), lab.host("a"));
    lab.router("a").narrow(lab.router("r"), 1000);
    let ping = |order: &str| {
        let line = format!("ping -n -c1 -W1 -M {order} -s 1372 {}", r.address());
        a.sh(&line)
    };
    assert!(ping("dont").succeeded(), "routers cut what may be cut");
    lab.router("a").mute();
    let silence = ping("do");
    assert!(!silence.stdout.contains("mtu"), "{silence}");
    let lab = Lab::new().public("r").public("a").build();
    let (r, a) = (lab.host("r"), lab.host("a"));
    a.cable().set_mtu(1000);
    let silence = r.sh(&format!("ping -n -c1 -W1 -s 1372 {}", a.address()));
    assert!(!silence.succeeded(), "a switch neither cuts nor tells");
}

#[test]
fn a_capture_shows_what_is_not_encrypted_and_counters_count_it() {
    let lab = Lab::new().public("r").public("s").build();
    let (r, s) = (lab.host("r"), lab.host("s"));
    let (capture, before) = (r.capture(traffic::MARKER), r.bytes_through("eth0"));
    traffic::transfer(s, r, r.address(), 1_000_000);
    let seen = capture.stop();
    assert!(
        seen.packets > seen.matching && seen.matching > 5,
        "{seen:?}"
    );
    assert!(r.bytes_through("eth0") - before > 1_000_000);
}

#[test]
fn udp_echoes_come_back_and_a_long_stream_echoes() {
    let lab = Lab::new().public("r").public("s").build();
    let (r, s) = (lab.host("r"), lab.host("s"));
    assert_eq!(traffic::udp_echo(s, r, r.address(), 20, 1200), 20);
    let mut stream = traffic::LongStream::open(s, r, r.address());
    stream.echoes();
    stream.echoes();
}

#[test]
fn a_dropped_laboratory_leaves_nothing() {
    let lab = Lab::new().public("r").build();
    let (directory, sleeper) = (
        lab.directory().to_owned(),
        lab.host("r").spawn(&["sleep", "1000"]),
    );
    let name = directory.file_name().unwrap().to_str().unwrap().to_owned();
    let namespaces = || {
        String::from_utf8(
            Command::new("ip")
                .args(["netns", "list"])
                .output()
                .unwrap()
                .stdout,
        )
        .unwrap()
    };
    assert!(namespaces().contains(&name));
    drop(lab);
    assert!(!namespaces().contains(&format!("{name}-")));
    assert!(!directory.exists());
    let mut sleeper = sleeper;
    assert_eq!(
        sleeper.ends(Duration::from_secs(1)).code,
        None,
        "a signal ended it"
    );
}

/// Every program of the services' tests, on the underlay.
#[test]
fn services_work_without_an_overlay() {
    for works in [
        ssh::works,
        postgresql::works,
        redis::works,
        dns::works,
        quic::works,
    ] {
        let lab = Lab::new().public("a").public("b").build();
        works(lab.host("a"), lab.host("b"), lab.host("b").address());
    }
}
