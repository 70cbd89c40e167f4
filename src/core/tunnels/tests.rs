//! Two or three nodes whose datagrams are carried by hand.

use zeroize::Zeroizing;

use super::*;
use crate::path::candidate::CandidateKind;
use crate::session::{Identity, WireGuardKey};
use crate::testing::epoch;

mod hostile_relay;
mod keys;
mod mtu;
mod policy;
mod relaying;

struct Host {
    tunnels: Tunnels,
    keys: PeerKeys,
    endpoint: Path,
}

fn keyring(identity: Identity, number: u8) -> Keyring {
    let (secret, seed) = (Zeroizing::new([77; 32]), Zeroizing::new([number; 32]));
    Keyring::new(identity, [7; 32], secret, seed)
}

fn host(number: u8) -> Host {
    host_with_mtu(number, 1420)
}

fn host_with_mtu(number: u8, mtu: u16) -> Host {
    let identity = Identity::new([number; 32]);
    let keys = PeerKeys {
        id: libp2p_identity::Keypair::ed25519_from_bytes([number; 32])
            .unwrap()
            .public()
            .to_peer_id(),
        key: identity.public(),
        ipv4: Some([10, 77, 0, number].into()),
        ipv6: Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, number.into()),
    };
    let us = OverlayAddresses {
        ipv4: keys.ipv4,
        ipv6: keys.ipv6,
    };
    Host {
        tunnels: Tunnels::new(us, keyring(identity, number), mtu, number.into(), epoch()),
        keys,
        endpoint: Path::Direct(([192, 0, 2, number], 7777).into()),
    }
}

fn introduce(hosts: &mut [Host]) {
    let known: Vec<_> = hosts
        .iter()
        .map(|host| (host.keys, host.endpoint))
        .collect();
    for host in hosts {
        for (keys, _) in &known {
            if keys.id != host.keys.id {
                host.tunnels.upsert(*keys);
            }
        }
    }
}

/// Carries datagrams between all hosts until none is left; returns how many were carried.
fn settle(hosts: &mut [Host], now: Instant) -> usize {
    let mut carried = 0;
    loop {
        let mut flying = Vec::new();
        for host in hosts.iter_mut() {
            for (to, datagram) in host.tunnels.outbox().datagrams() {
                flying.push((host.endpoint, to, datagram.to_vec()));
            }
            host.tunnels.outbox().clear();
        }
        if flying.is_empty() {
            return carried;
        }
        for (from, to, datagram) in flying {
            carried += 1;
            if let Some(host) = hosts.iter_mut().find(|host| host.endpoint == to) {
                host.tunnels.handle_datagram(from, &datagram, now);
            }
        }
    }
}

fn connected(count: u8) -> (Vec<Host>, Instant) {
    let now = epoch();
    let mut hosts: Vec<_> = (1..=count).map(host).collect();
    introduce(&mut hosts);
    let known: Vec<_> = hosts
        .iter()
        .map(|host| (host.keys.id, host.endpoint))
        .collect();
    for host in &mut hosts {
        for (id, endpoint) in &known {
            if *id != host.keys.id {
                host.tunnels.open_path(id, *endpoint, PathKind::Direct, now);
            }
        }
    }
    settle(&mut hosts, now);
    (hosts, now)
}

fn udp(from: IpAddr, to: IpAddr, text: &[u8]) -> Vec<u8> {
    let (IpAddr::V4(from), IpAddr::V4(to)) = (from, to) else {
        unreachable!()
    };
    let mut packet = vec![0; 28];
    packet.extend_from_slice(text);
    packet[0] = 0x45;
    let length = u16::try_from(packet.len()).unwrap();
    packet[2..4].copy_from_slice(&length.to_be_bytes());
    packet[9] = 17;
    packet[12..16].copy_from_slice(&from.octets());
    packet[16..20].copy_from_slice(&to.octets());
    packet
}

fn address(host: &Host) -> IpAddr {
    host.keys.ipv4.unwrap().into()
}

fn received(host: &mut Host) -> Vec<Vec<u8>> {
    let packets = host.tunnels.inbox().iter().map(<[u8]>::to_vec).collect();
    host.tunnels.inbox().clear();
    packets
}

#[test]
fn a_path_is_enough_for_a_session_and_a_proven_direct_path() {
    let (hosts, _) = connected(2);
    let peer = hosts[0].tunnels.peer(&hosts[1].keys.id).unwrap();
    assert!(peer.can_carry());
    assert!(peer.paths().view().unwrap().proven);
}

#[test]
fn packets_sent_before_the_handshake_arrive_after_it_in_order() {
    let now = epoch();
    let mut hosts = vec![host(1), host(2)];
    introduce(&mut hosts);
    let (from, to) = (address(&hosts[0]), address(&hosts[1]));
    let sent: Vec<_> = (0..5_u8).map(|n| udp(from, to, &[n])).collect();
    for packet in &sent {
        let wanted = hosts[0].tunnels.handle_overlay_packet(packet, now);
        assert_eq!(
            wanted,
            Some(hosts[1].keys.id),
            "the caller is asked to find a path"
        );
    }
    let (id, endpoint) = (hosts[1].keys.id, hosts[1].endpoint);
    hosts[0]
        .tunnels
        .open_path(&id, endpoint, PathKind::Direct, now);
    settle(&mut hosts, now);
    assert_eq!(received(&mut hosts[1]), sent);
}

#[test]
fn waiting_packets_are_few_and_the_rest_is_counted() {
    let mut hosts = vec![host(1), host(2)];
    introduce(&mut hosts);
    let packet = udp(address(&hosts[0]), address(&hosts[1]), b"hello");
    for _ in 0..1000 {
        hosts[0].tunnels.handle_overlay_packet(&packet, epoch());
    }
    assert_eq!(
        hosts[0].tunnels.drops().of(DropReason::QueueFull),
        1000 - 16
    );
}

/// A member with valid keys writes another member's address into its packets. "Is the source inside the
/// network" would let it pass; only the exact owner may.
#[test]
fn a_member_that_forges_the_source_of_another_is_dropped_and_counted() {
    let (mut hosts, now) = connected(3);
    let forged = udp(address(&hosts[1]), address(&hosts[0]), b"I am two");
    let liar = hosts[2].keys;
    let us = OverlayAddresses {
        ipv4: hosts[1].keys.ipv4,
        ipv6: liar.ipv6,
    };
    hosts[2].tunnels.set_addresses(us);
    hosts[2].tunnels.handle_overlay_packet(&forged, now);
    settle(&mut hosts, now);
    assert_eq!(received(&mut hosts[0]), Vec::<Vec<u8>>::new());
    assert_eq!(hosts[0].tunnels.drops().of(DropReason::ForgedSource), 1);
}

#[test]
fn a_packet_for_somebody_else_does_not_pass_through_us() {
    let (mut hosts, now) = connected(2);
    let elsewhere = udp(address(&hosts[1]), [10, 77, 9, 9].into(), b"route me");
    // The sender believes that we own 10.77.9.9.
    let owner = hosts[0].keys.id;
    let index = hosts[1].tunnels.peers.index_of(&owner).unwrap();
    hosts[1]
        .tunnels
        .allowed_ips
        .insert("10.77.9.9/32".parse().unwrap(), index);
    hosts[1].tunnels.handle_overlay_packet(&elsewhere, now);
    settle(&mut hosts, now);
    assert_eq!(hosts[0].tunnels.drops().of(DropReason::NotForUs), 1);
}

#[test]
fn packets_to_nobody_and_from_foreign_sources_are_counted_apart() {
    let (mut hosts, now) = connected(2);
    let us = address(&hosts[0]);
    hosts[0]
        .tunnels
        .handle_overlay_packet(&udp(us, [10, 77, 200, 1].into(), b""), now);
    hosts[0]
        .tunnels
        .handle_overlay_packet(&udp([192, 168, 0, 1].into(), us, b""), now);
    hosts[0]
        .tunnels
        .handle_overlay_packet(&udp(us, [224, 0, 0, 251].into(), b""), now);
    hosts[0].tunnels.handle_overlay_packet(b"noise", now);
    let drops = hosts[0].tunnels.drops();
    assert_eq!(drops.of(DropReason::NoOwner), 1);
    assert_eq!(drops.of(DropReason::ForeignSource), 1);
    assert_eq!(drops.of(DropReason::Multicast), 1);
    assert_eq!(drops.of(DropReason::NotIp), 1);
}

/// An attacker on the underlay replays a member's datagram from its own address, hoping to draw the
/// member's traffic to itself.
#[test]
fn a_replayed_datagram_moves_no_endpoint() {
    let (mut hosts, now) = connected(2);
    let packet = udp(address(&hosts[0]), address(&hosts[1]), b"hello");
    hosts[0].tunnels.handle_overlay_packet(&packet, now);
    let datagram = hosts[0]
        .tunnels
        .outbox()
        .datagrams()
        .next()
        .unwrap()
        .1
        .to_vec();
    settle(&mut hosts, now);
    let attacker = Path::Direct("203.0.113.66:1".parse().unwrap());
    let before = hosts[1]
        .tunnels
        .peer(&hosts[0].keys.id)
        .unwrap()
        .paths()
        .all()
        .count();
    hosts[1].tunnels.handle_datagram(attacker, &datagram, now);
    let after = hosts[1]
        .tunnels
        .peer(&hosts[0].keys.id)
        .unwrap()
        .paths()
        .all()
        .count();
    assert_eq!(before, after);
    assert_eq!(hosts[1].tunnels.drops().of(DropReason::Replayed), 1);
}

#[test]
fn a_carrier_delivers_only_for_the_peer_it_ends_at() {
    let (mut hosts, now) = connected(3);
    let packet = udp(address(&hosts[1]), address(&hosts[0]), b"hello");
    hosts[1].tunnels.handle_overlay_packet(&packet, now);
    let datagram = hosts[1]
        .tunnels
        .outbox()
        .datagrams()
        .next()
        .unwrap()
        .1
        .to_vec();
    let carrier = Path::Carrier(ConnectionId(5));
    let third = hosts[2].keys.id;
    hosts[0]
        .tunnels
        .open_path(&third, carrier, PathKind::Stream, now);
    hosts[0].tunnels.handle_datagram(carrier, &datagram, now);
    assert!(hosts[0].tunnels.inbox().is_empty());
    assert_eq!(hosts[0].tunnels.drops().of(DropReason::Unauthentic), 1);
}

#[test]
fn a_removed_peer_can_neither_send_nor_be_reached() {
    let (mut hosts, now) = connected(2);
    let gone = hosts[1].keys.id;
    hosts[0].tunnels.remove(&gone);
    let (here, there) = (address(&hosts[0]), address(&hosts[1]));
    hosts[1]
        .tunnels
        .handle_overlay_packet(&udp(there, here, b"hello"), now);
    settle(&mut hosts, now);
    assert!(received(&mut hosts[0]).is_empty());
    hosts[0]
        .tunnels
        .handle_overlay_packet(&udp(here, there, b"hello"), now);
    assert_eq!(hosts[0].tunnels.drops().of(DropReason::NoOwner), 1);
}

#[test]
fn a_ping_is_answered_with_the_path_it_took() {
    let (mut hosts, now) = connected(2);
    let (id, path) = (hosts[1].keys.id, hosts[1].endpoint);
    assert!(hosts[0].tunnels.ping(&id, 42, now));
    settle(&mut hosts, now + Duration::from_millis(3));
    let answer = hosts[0].tunnels.poll_ping().expect("an answer");
    assert_eq!(
        (answer.token, answer.peer, answer.path.path),
        (42, id, path)
    );
    assert!(!hosts[0].tunnels.ping(&PeerId::random(), 43, now));
}

#[test]
fn a_new_wireguard_key_starts_a_new_tunnel_and_the_old_key_is_a_stranger() {
    let (mut hosts, now) = connected(2);
    let mut rotated = hosts[1].keys;
    rotated.key = WireGuardKey([9; 32]);
    hosts[0].tunnels.upsert(rotated);
    assert!(!hosts[0].tunnels.peer(&rotated.id).unwrap().can_carry());
    let (here, there) = (address(&hosts[0]), address(&hosts[1]));
    hosts[1]
        .tunnels
        .handle_overlay_packet(&udp(there, here, b"old key"), now);
    settle(&mut hosts, now);
    assert!(received(&mut hosts[0]).is_empty());
}

#[test]
fn an_endpoint_that_was_tried_in_vain_is_forgotten() {
    let (mut hosts, start) = connected(2);
    let id = hosts[1].keys.id;
    let candidate = Candidate {
        kind: CandidateKind::Announced,
        endpoint: "203.0.113.7:1".parse().unwrap(),
    };
    hosts[0].tunnels.learn(&id, candidate, start);
    hosts[0]
        .tunnels
        .handle_timeout(start + Duration::from_millis(500));
    assert_eq!(hosts[0].tunnels.peer(&id).unwrap().paths().all().count(), 2);
    for step in 3..=40 {
        let now = start + Duration::from_millis(250 * step);
        for host in &mut hosts {
            host.tunnels.handle_timeout(now);
        }
        settle(&mut hosts, now);
    }
    let left: Vec<_> = hosts[0].tunnels.peer(&id).unwrap().paths().all().collect();
    assert_eq!(left, [hosts[1].endpoint]);
}

#[test]
fn idle_tunnels_send_next_to_nothing() {
    let (mut hosts, start) = connected(2);
    let mut carried = 0;
    for step in 1..=400 {
        let now = start + Duration::from_millis(250 * step);
        for host in &mut hosts {
            host.tunnels.handle_timeout(now);
        }
        carried += settle(&mut hosts, now);
    }
    assert!(carried <= 24, "{carried} datagrams in 100 s");
}

/// Lets time pass for a host that is woken only when it asked to be; returns how often it was.
fn wake_as_asked(hosts: &mut [Host], from: Instant, span: Duration) -> usize {
    let mut wakeups = 0;
    loop {
        let due = |host: &Host| host.tunnels.poll_timeout();
        let Some(now) = hosts.iter().filter_map(due).min().map(|due| due.max(from)) else {
            return wakeups;
        };
        if now > from + span {
            return wakeups;
        }
        for host in hosts.iter_mut().filter(|host| due(host) <= Some(now)) {
            wakeups += usize::from(due(host).is_some());
            host.tunnels.handle_timeout(now);
        }
        settle(hosts, now);
    }
}

#[test]
fn peers_that_nobody_talks_to_want_no_time() {
    let mut hosts = vec![host(1), host(2)];
    introduce(&mut hosts);
    assert_eq!(hosts[0].tunnels.poll_timeout(), None);
    let packet = udp(address(&hosts[0]), address(&hosts[1]), b"no path yet");
    hosts[0].tunnels.handle_overlay_packet(&packet, epoch());
    assert_eq!(hosts[0].tunnels.poll_timeout(), None);
}

#[test]
fn an_idle_tunnel_wakes_up_a_few_times_a_minute_and_lives() {
    let (mut hosts, start) = connected(2);
    let minute = Duration::from_secs(60);
    wake_as_asked(&mut hosts, start, minute);
    let wakeups = wake_as_asked(&mut hosts, start + minute, 10 * minute);
    assert!(wakeups <= 2 * 40, "{wakeups} wakeups of two nodes");
    let peer = hosts[0].tunnels.peer(&hosts[1].keys.id).unwrap();
    assert!(peer.paths().view().unwrap().proven);
}

/// The tunnel slept for long when a packet is sent; the other end has just gone silent.
#[test]
fn a_packet_rouses_a_sleeping_tunnel_and_a_silent_death_is_noticed_in_time() {
    let (mut hosts, start) = connected(2);
    let hour = Duration::from_secs(3600);
    wake_as_asked(&mut hosts, start, hour);
    let id = hosts[1].keys.id;
    let packet = udp(address(&hosts[0]), address(&hosts[1]), b"hello?");
    let (alone, _) = hosts.split_at_mut(1);
    alone[0]
        .tunnels
        .handle_overlay_packet(&packet, start + hour);
    wake_as_asked(alone, start + hour, Duration::from_secs(8));
    let peer = alone[0].tunnels.peer(&id).unwrap();
    assert!(!peer.paths().view().unwrap().proven);
}

/// Who is woken long after it asked to be was asleep: nobody must ask for the past.
#[test]
fn what_a_packet_makes_due_after_a_long_silence_is_due_now() {
    let (mut hosts, start) = connected(2);
    let minute = Duration::from_secs(60);
    wake_as_asked(&mut hosts, start, 2 * minute);
    let packet = udp(address(&hosts[0]), address(&hosts[1]), b"hello?");
    // Somewhen between two heartbeats of an idle pair.
    let now = start + 2 * minute + Duration::from_secs(17);
    wake_as_asked(&mut hosts, start + 2 * minute, Duration::from_secs(17));
    hosts[0].tunnels.handle_overlay_packet(&packet, now);
    assert!(hosts[0].tunnels.poll_timeout() >= Some(now));
}

#[test]
fn a_handshake_under_way_is_watched_until_it_ends() {
    let now = epoch();
    let mut hosts = vec![host(1), host(2)];
    introduce(&mut hosts);
    let (id, endpoint) = (hosts[1].keys.id, hosts[1].endpoint);
    hosts[0]
        .tunnels
        .open_path(&id, endpoint, PathKind::Direct, now);
    let is_watched = |host: &Host, now| {
        let due = host.tunnels.poll_timeout();
        due.is_some_and(|due| due <= now + Duration::from_secs(2))
    };
    assert!(is_watched(&hosts[0], now));
    for second in 1..60 {
        let now = now + Duration::from_secs(second);
        hosts[0].tunnels.handle_timeout(now);
        assert!(is_watched(&hosts[0], now));
    }
    let minute = Duration::from_secs(60);
    settle(&mut hosts, now + minute);
    wake_as_asked(&mut hosts, now + minute, minute);
    assert!(!is_watched(&hosts[0], now + 2 * minute));
}

#[test]
fn the_handshake_limiter_wants_time_only_after_a_handshake_message() {
    let mut tunnels = host(1).tunnels;
    let stranger = host(2).endpoint;
    tunnels.handle_datagram(stranger, b"\x04\0\0\0 no session", epoch());
    assert_eq!(tunnels.poll_timeout(), None);
    let mut initiation = [0; 148];
    initiation[0] = 1;
    tunnels.handle_datagram(stranger, &initiation, epoch());
    let due = tunnels.poll_timeout().expect("a reset");
    tunnels.handle_timeout(due);
    assert_eq!(tunnels.poll_timeout(), None);
}

/// A node that slept finds all that its peer tried meanwhile. To answer each would cost it the keys that still hold.
#[test]
fn of_a_backlog_of_handshakes_one_is_answered_and_then_overtaken() {
    let now = epoch();
    let mut hosts = vec![host(1), host(2)];
    introduce(&mut hosts);
    let (first, second) = (hosts[0].keys.id, hosts[1].keys.id);
    let endpoint = hosts[1].endpoint;
    let mut backlog = Vec::new();
    for step in 0..10 {
        let then = now + Duration::from_secs(6 * step);
        let tunnels = &mut hosts[0].tunnels;
        tunnels.open_path(&second, endpoint, PathKind::Direct, then);
        tunnels.handle_timeout(then);
        let outbox = tunnels.outbox();
        backlog.extend(outbox.datagrams().map(|(_, datagram)| datagram.to_vec()));
        outbox.clear();
    }
    assert!(backlog.len() > 1, "it was tried again and again");
    let mut now = now + Duration::from_secs(60);
    let from = hosts[0].endpoint;
    for initiation in backlog.iter().flat_map(|one| [one, one]) {
        hosts[1].tunnels.handle_datagram(from, initiation, now);
    }
    assert_eq!(hosts[1].tunnels.outbox().datagrams().count(), 1);
    for _ in 0..4 {
        now += Duration::from_millis(250);
        hosts[1].tunnels.handle_timeout(now);
        settle(&mut hosts, now);
    }
    let peer = hosts[1].tunnels.peer(&first).unwrap();
    assert!(peer.can_carry());
}
