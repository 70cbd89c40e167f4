//! Three nodes, of which two reach each other only through the third.

use super::*;
use crate::relay::Terms;

/// Whether the wire from one endpoint to another works.
pub(super) type Wires = fn(Path, Path) -> bool;

pub(super) fn endpoint(number: u8) -> Path {
    Path::Direct(([192, 0, 2, number], 7777).into())
}

/// Between the second and the third nothing passes.
pub(super) fn apart(from: Path, to: Path) -> bool {
    let between = [endpoint(2), endpoint(3)];
    !(between.contains(&from) && between.contains(&to))
}

fn settle_over(hosts: &mut [Host], wires: Wires, now: Instant) -> usize {
    let mut carried = 0;
    loop {
        let mut flying = Vec::new();
        for host in hosts.iter_mut() {
            for (to, datagram) in host.tunnels.outbox().datagrams() {
                let to = Path::Direct(to.endpoint().expect("there are no connections"));
                if wires(host.endpoint, to) {
                    flying.push((host.endpoint, to, datagram.to_vec()));
                }
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

pub(super) fn pass(hosts: &mut [Host], wires: Wires, now: &mut Instant, time: Duration) {
    let end = *now + time;
    while *now < end {
        *now += Duration::from_millis(50);
        for host in hosts.iter_mut() {
            host.tunnels.handle_timeout(*now);
        }
        settle_over(hosts, wires, *now);
    }
}

/// The first relays on these terms; the second and the third know of each other, and of the relay.
pub(super) fn apart_with_relay(terms: Terms) -> (Vec<Host>, Instant) {
    let mut now = epoch();
    let mut hosts: Vec<_> = (1..=3).map(host).collect();
    introduce(&mut hosts);
    let relay = hosts[0].keys.id;
    hosts[0].tunnels.set_relaying(Some(terms), now);
    for at in [1, 2] {
        hosts[at].tunnels.set_relays(&[relay]);
        let id = hosts[at].keys.id;
        let to = hosts[at].endpoint;
        hosts[0].tunnels.open_path(&id, to, PathKind::Direct, now);
        hosts[at]
            .tunnels
            .open_path(&relay, endpoint(1), PathKind::Direct, now);
    }
    pass(&mut hosts, apart, &mut now, Duration::from_secs(1));
    (hosts, now)
}

pub(super) fn send(hosts: &mut [Host], from: usize, to: usize, text: &[u8], now: Instant) {
    let packet = udp(address(&hosts[from]), address(&hosts[to]), text);
    hosts[from].tunnels.handle_overlay_packet(&packet, now);
    settle_over(hosts, apart, now);
}

#[test]
fn datagrams_of_two_members_pass_through_a_third_unopened() {
    let (mut hosts, mut now) = apart_with_relay(Terms::default());
    send(&mut hosts, 1, 2, b"first", now);
    pass(&mut hosts, apart, &mut now, Duration::from_secs(2));
    send(&mut hosts, 2, 1, b"and back", now);
    assert_eq!(received(&mut hosts[2]).len(), 1);
    assert_eq!(received(&mut hosts[1]).len(), 1);
    assert!(received(&mut hosts[0]).is_empty());
    let third = hosts[2].keys.id;
    let view = hosts[1].tunnels.peer(&third).unwrap().paths().view();
    let view = view.expect("there is a path");
    assert_eq!(view.kind, PathKind::Relay(hosts[0].keys.id));
    assert!(matches!(view.path, Path::Relayed { .. }) && view.proven);
    assert!(hosts[0].tunnels.passed_on() > 0);
}

#[test]
fn the_channel_is_given_up_once_a_direct_path_has_lasted() {
    let (mut hosts, mut now) = apart_with_relay(Terms::default());
    send(&mut hosts, 1, 2, b"hello", now);
    pass(&mut hosts, apart, &mut now, Duration::from_secs(2));
    let everywhere: Wires = |_, _| true;
    let (second, third) = (hosts[1].keys.id, hosts[2].keys.id);
    for (at, id, number) in [(1, third, 3), (2, second, 2)] {
        let candidate = Candidate {
            kind: CandidateKind::Host,
            endpoint: endpoint(number).endpoint().unwrap(),
        };
        hosts[at].tunnels.learn(&id, candidate, now);
    }
    pass(&mut hosts, everywhere, &mut now, Duration::from_secs(2));
    let view = |hosts: &[Host]| hosts[1].tunnels.peer(&third).unwrap().paths().view();
    assert_eq!(view(&hosts).unwrap().path, endpoint(3));
    pass(&mut hosts, everywhere, &mut now, Duration::from_secs(120));
    let paths: Vec<_> = hosts[1]
        .tunnels
        .peer(&third)
        .unwrap()
        .paths()
        .all()
        .collect();
    assert_eq!(paths, [endpoint(3)]);
}

#[test]
fn the_owner_decides_who_may_use_the_relay() {
    let terms = Terms {
        bytes_per_second: None,
        members: Some([PeerId::random()].into()),
    };
    let (mut hosts, mut now) = apart_with_relay(terms);
    send(&mut hosts, 1, 2, b"hello", now);
    pass(&mut hosts, apart, &mut now, Duration::from_secs(5));
    assert!(received(&mut hosts[2]).is_empty());
    assert_eq!(hosts[0].tunnels.passed_on(), 0);
}

/// The attack: whoever learns the number of a channel tries to send through it, or to have its datagrams sent to it.
#[test]
fn a_stranger_that_knows_a_channel_gets_nothing_passed() {
    let (mut hosts, mut now) = apart_with_relay(Terms::default());
    send(&mut hosts, 1, 2, b"hello", now);
    pass(&mut hosts, apart, &mut now, Duration::from_secs(2));
    let third = hosts[2].keys.id;
    let view = hosts[1].tunnels.peer(&third).unwrap().paths().view();
    let Some(Path::Relayed { channel, .. }) = view.map(|view| view.path) else {
        panic!("a channel is in use")
    };
    let forged = [&channel.header()[..], &[4, 0, 0, 0], &[7; 60]].concat();
    let stranger = Path::Direct("198.51.100.66:1".parse().unwrap());
    let passed = hosts[0].tunnels.passed_on();
    hosts[0].tunnels.handle_datagram(stranger, &forged, now);
    assert!(hosts[0].tunnels.outbox().is_empty());
    assert_eq!(hosts[0].tunnels.passed_on(), passed);
    assert_eq!(hosts[0].tunnels.drops().of(DropReason::Unauthentic), 1);
    // Nor does a customer take a relayed datagram that does not come from the relay.
    hosts[1].tunnels.handle_datagram(stranger, &forged, now);
    assert_eq!(hosts[1].tunnels.drops().of(DropReason::UnknownChannel), 1);
}

#[test]
fn answers_tell_a_node_how_it_is_seen_and_calls_tell_its_peers() {
    let (mut hosts, mut now) = apart_with_relay(Terms::default());
    let seen: Vec<_> = hosts[1].tunnels.observations(now).collect();
    let at = endpoint(2).endpoint().unwrap();
    assert!(
        seen.iter()
            .any(|(by, seen, _)| *by == hosts[0].keys.id && *seen == at)
    );
    // As soon as the two have a way to call each other by, each knows where the other may be reached.
    send(&mut hosts, 1, 2, b"hello", now);
    pass(&mut hosts, apart, &mut now, Duration::from_secs(4));
    let second = hosts[1].keys.id;
    let ways = hosts[2].tunnels.peer(&second).unwrap().paths().explain();
    let reflexive = ways
        .iter()
        .find(|way| way.source == Some(CandidateKind::Reflexive));
    assert_eq!(reflexive.map(|way| way.path), Some(endpoint(2)));
}
