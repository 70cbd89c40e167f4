//! Who may key a tunnel with whom, and what somebody who may not can do about it.

use super::*;
use crate::{
    key_exchange::{PART, Part},
    path::candidate::CandidateKind,
    session::sealed_length,
    tunnel_key::{ACCEPTANCE, SUITE},
};

const SECOND: Duration = Duration::from_secs(1);

/// Two hosts that have a path to each other, and have said nothing yet. The first one makes the offer.
fn strangers() -> Vec<Host> {
    let mut hosts = vec![host(1), host(2)];
    if !offers(&hosts[0], &hosts[1]) {
        hosts.swap(0, 1);
    }
    introduce(&mut hosts);
    hosts
}

fn offers(host: &Host, to: &Host) -> bool {
    host.tunnels.sealing.keyring.offers_to(&to.keys.key)
}

fn open(hosts: &mut [Host], here: usize, there: usize, now: Instant) {
    let (id, path) = (hosts[there].keys.id, hosts[there].endpoint);
    hosts[here]
        .tunnels
        .open_path(&id, path, PathKind::Direct, now);
}

fn pair() -> (Vec<Host>, Instant) {
    let (mut hosts, now) = (strangers(), epoch());
    open(&mut hosts, 0, 1, now);
    open(&mut hosts, 1, 0, now);
    settle(&mut hosts, now);
    (hosts, now)
}

fn peer(hosts: &mut [Host], here: usize) -> &mut Peer {
    let id = hosts[1 - here].keys.id;
    let tunnels = &mut hosts[here].tunnels;
    let index = tunnels.peers.index_of(&id).unwrap();
    tunnels.peers.get_mut(index).unwrap()
}

/// What all that was sent did to the outboxes, one flight at a time. `passes` says what arrives.
fn flight(hosts: &mut [Host], now: Instant, mut passes: impl FnMut(usize, &[u8]) -> bool) -> usize {
    let mut flying = Vec::new();
    for (at, host) in hosts.iter_mut().enumerate() {
        for (to, datagram) in host.tunnels.outbox().datagrams() {
            flying.push((at, host.endpoint, to, datagram.to_vec()));
        }
        host.tunnels.outbox().clear();
    }
    let count = flying.len();
    for (at, from, to, datagram) in flying {
        if passes(at, &datagram)
            && let Some(host) = hosts.iter_mut().find(|host| host.endpoint == to)
        {
            host.tunnels.handle_datagram(from, &datagram, now);
        }
    }
    count
}

/// Lets time pass where not everything arrives.
fn live(
    hosts: &mut [Host],
    from: Instant,
    span: Duration,
    mut passes: impl FnMut(usize, &[u8]) -> bool,
) {
    let mut now = from;
    while now < from + span {
        for host in hosts.iter_mut() {
            host.tunnels.handle_timeout(now);
        }
        while flight(hosts, now, &mut passes) > 0 {}
        now += GRAIN;
    }
}

/// What `here` could send in this session, whatever its own rules are.
fn sealed(hosts: &mut [Host], here: usize, session: Slot, packet: &[u8]) -> Vec<u8> {
    let session = peer(hosts, here).sessions_mut().get_mut(session).unwrap();
    let mut datagram = vec![0; sealed_length(packet.len())];
    let length = session
        .seal(packet, 1420, &mut Vec::new(), &mut datagram)
        .unwrap();
    datagram.truncate(length);
    datagram
}

fn say(hosts: &mut [Host], here: usize, signal: &Signal, now: Instant) {
    let datagram = sealed(hosts, here, Slot::GREETING, &signal.packet(0));
    let from = hosts[here].endpoint;
    hosts[1 - here]
        .tunnels
        .handle_datagram(from, &datagram, now);
}

fn is_exchanged(hosts: &mut [Host], now: Instant) -> bool {
    let (one, other) = (address(&hosts[0]), address(&hosts[1]));
    for (here, from, to) in [(0, one, other), (1, other, one)] {
        let packet = udp(from, to, b"hello");
        hosts[here].tunnels.handle_overlay_packet(&packet, now);
    }
    settle(hosts, now);
    let came = [0, 1].map(|at| received(&mut hosts[at]).len());
    came == [1, 1]
}

/// The index by which packets from the first host are named at the second.
fn in_use(hosts: &mut [Host]) -> [u8; 3] {
    let (from, to) = (address(&hosts[0]), address(&hosts[1]));
    let carrying = peer(hosts, 0).sessions_mut().carrying_mut().unwrap();
    let packet = udp(from, to, b"?");
    let mut datagram = vec![0; sealed_length(packet.len())];
    carrying
        .seal(&packet, 1420, &mut Vec::new(), &mut datagram)
        .unwrap();
    [datagram[5], datagram[6], datagram[7]]
}

#[test]
fn a_pair_agrees_on_a_key_at_once_and_one_session_is_left() {
    let (mut hosts, now) = pair();
    for here in [0, 1] {
        let peer = peer(&mut hosts, here);
        assert!(peer.can_carry());
        assert!(peer.sessions().greeting().is_some());
    }
    live(&mut hosts, now, 15 * SECOND, |_, _| true);
    for here in [0, 1] {
        assert_eq!(peer(&mut hosts, here).sessions().iter().count(), 1);
    }
    assert!(is_exchanged(&mut hosts, now + 15 * SECOND));
}

#[test]
fn either_side_may_begin() {
    for here in [0, 1] {
        let (mut hosts, now) = (strangers(), epoch());
        open(&mut hosts, here, 1 - here, now);
        settle(&mut hosts, now);
        assert!(is_exchanged(&mut hosts, now), "host {here} began");
    }
}

/// Somebody in the middle has stolen the WireGuard key of a member, but was never told the network's secret.
#[test]
fn who_lacks_the_networks_secret_completes_no_handshake() {
    for begins in [0, 1] {
        let (mut hosts, now) = (strangers(), epoch());
        let secret = Zeroizing::new([66; 32]);
        let identity = Identity::new(
            [if hosts[1].keys.id == host(1).keys.id {
                1
            } else {
                2
            }; 32],
        );
        assert_eq!(identity.public(), hosts[1].keys.key);
        hosts[1].tunnels.sealing.keyring =
            Keyring::new(identity, [7; 32], secret, Zeroizing::new([1; 32]));
        open(&mut hosts, begins, 1 - begins, now);
        live(&mut hosts, now, 20 * SECOND, |_, _| true);
        for here in [0, 1] {
            assert!(!peer(&mut hosts, here).can_signal(), "host {here}");
        }
        assert!(!is_exchanged(&mut hosts, now + 20 * SECOND));
    }
}

/// Somebody knows the network's secret, and has broken X25519: the greeting is open to them, the session is not.
#[test]
fn a_session_whose_ends_hold_two_keys_never_stands() {
    let (a, b) = (Identity::new([1; 32]), Identity::new([2; 32]));
    let [one, other] = [[1; 32], [2; 32]].map(Zeroizing::new);
    let mut a_session = crate::session::Session::new(&a, b.public(), &one, 1);
    let mut b_session = crate::session::Session::new(&b, a.public(), &other, 2);
    let (mut there, mut back) = (Vec::new(), Vec::new());
    let buffer = &mut [0; MIN_BUFFER];
    a_session.initiate(false, buffer, |datagram| there.extend_from_slice(datagram));
    b_session
        .open(None, &there, buffer, |reply| back.extend_from_slice(reply))
        .unwrap();
    let opened = a_session.open(None, &back, buffer, |_| panic!("no confirmation"));
    assert_eq!(opened, Err(DropReason::Unauthentic));
    assert!(!a_session.can_seal() && !b_session.can_seal());
}

#[test]
fn a_packet_in_the_greeting_is_dropped_and_counted() {
    let (mut hosts, now) = pair();
    let packet = udp(address(&hosts[0]), address(&hosts[1]), b"downgraded");
    let datagram = sealed(&mut hosts, 0, Slot::GREETING, &packet);
    let from = hosts[0].endpoint;
    hosts[1].tunnels.handle_datagram(from, &datagram, now);
    assert!(received(&mut hosts[1]).is_empty());
    assert_eq!(hosts[1].tunnels.drops().of(DropReason::Downgraded), 1);
}

/// A member answers the greeting and then says nothing about keys, for whatever reason.
#[test]
fn a_peer_that_never_ends_the_exchange_gets_no_packet_and_grows_nothing() {
    let (mut hosts, now) = (strangers(), epoch());
    let is_data = |datagram: &[u8]| datagram[0] == TRANSPORT_DATA;
    // Its handshakes and keepalives pass, and nothing that is longer.
    let passes = |at: usize, datagram: &[u8]| at == 0 || !is_data(datagram) || datagram.len() == 32;
    open(&mut hosts, 0, 1, now);
    let packet = udp(address(&hosts[0]), address(&hosts[1]), b"wait");
    for second in 0..300 {
        let now = now + SECOND * second;
        for _ in 0..5 {
            hosts[0].tunnels.handle_overlay_packet(&packet, now);
        }
        live(&mut hosts, now, SECOND, passes);
        assert!(peer(&mut hosts, 0).sessions().iter().count() <= 1);
        assert!(!peer(&mut hosts, 0).can_carry());
        assert!(received(&mut hosts[1]).is_empty());
    }
    let full = hosts[0].tunnels.drops().of(DropReason::QueueFull);
    assert_eq!(full, 5 * 300 - 16);
    open(&mut hosts, 1, 0, now + 300 * SECOND);
    live(&mut hosts, now + 300 * SECOND, 10 * SECOND, |_, _| true);
    assert_eq!(received(&mut hosts[1]).len(), 16);
}

#[test]
fn an_exchange_ends_though_every_other_datagram_is_lost() {
    for keep in [0, 1] {
        let (mut hosts, now) = (strangers(), epoch());
        open(&mut hosts, 0, 1, now);
        let mut count = 0;
        live(&mut hosts, now, 40 * SECOND, |_, _| {
            count += 1;
            count % 2 == keep
        });
        assert!(is_exchanged(&mut hosts, now + 40 * SECOND));
    }
}

/// A member that knows the greeting says what it likes in it.
#[test]
fn signals_that_are_flipped_inflated_or_of_another_exchange_change_nothing() {
    let (mut hosts, now) = pair();
    let before = in_use(&mut hosts);
    let now = now + 2 * SECOND;
    let part = |number: u8, length: usize| Part {
        suite: SUITE,
        exchange: 7,
        session: 9,
        number,
        bytes: vec![0xff; length],
    };
    for here in [0, 1] {
        for (number, length) in [(0, PART), (1, PART), (2, 384), (2, 288), (200, 1), (0, 0)] {
            say(&mut hosts, here, &Signal::Offer(part(number, length)), now);
            say(&mut hosts, here, &Signal::Accept(part(number, length)), now);
        }
        let longer = Signal::Offer(part(0, PART + 1));
        say(&mut hosts, here, &longer, now);
        let drops = hosts[1 - here].tunnels.drops();
        assert_eq!(drops.of(DropReason::UnknownSignal), 1);
        let greeted = peer(&mut hosts, here).sessions();
        assert!(!greeted.is_exchanging());
    }
    settle(&mut hosts, now);
    assert_eq!(in_use(&mut hosts), before);
    assert!(is_exchanged(&mut hosts, now));
}

/// A member accepts an offer with a ciphertext that was damaged. Nobody can tell but by the session that never stands.
#[test]
fn a_false_acceptance_replaces_no_session() {
    let (mut hosts, now) = pair();
    let before = in_use(&mut hosts);
    let now = now + 2 * SECOND;
    say(&mut hosts, 1, &Signal::Want(SUITE), now);
    let exchange = peer(&mut hosts, 0).sessions_mut().exchange.take();
    let Some(crate::key_exchange::Stage::Offered { number, .. }) =
        exchange.as_ref().map(|exchange| &exchange.stage)
    else {
        panic!("whoever is asked makes an offer");
    };
    let number = *number;
    peer(&mut hosts, 0).sessions_mut().exchange = exchange;
    hosts[0].tunnels.outbox().clear();
    for part in crate::key_exchange::parts(SUITE, number, 9, &[0x55; ACCEPTANCE]) {
        say(&mut hosts, 1, &Signal::Accept(part), now);
    }
    assert!(peer(&mut hosts, 0).sessions().is_exchanging());
    assert_eq!(in_use(&mut hosts), before);
    assert!(is_exchanged(&mut hosts, now));
    live(&mut hosts, now, 40 * SECOND, |_, _| true);
    assert!(!peer(&mut hosts, 0).sessions().is_exchanging());
    assert!(is_exchanged(&mut hosts, now + 40 * SECOND));
}

#[test]
fn an_exchange_that_is_replayed_changes_nothing() {
    let (mut hosts, now) = (strangers(), epoch());
    open(&mut hosts, 0, 1, now);
    let mut recorded = Vec::new();
    while flight(&mut hosts, now, |at, datagram| {
        recorded.push((at, datagram.to_vec()));
        true
    }) > 0
    {}
    let before = in_use(&mut hosts);
    for later in [2, 60] {
        let now = now + later * SECOND;
        live(&mut hosts, now, SECOND, |_, _| true);
        for (at, datagram) in &recorded {
            let from = hosts[*at].endpoint;
            hosts[1 - at].tunnels.handle_datagram(from, datagram, now);
        }
        settle(&mut hosts, now);
        assert_eq!(in_use(&mut hosts), before);
        assert!(is_exchanged(&mut hosts, now));
    }
}

#[test]
fn a_peer_of_another_suite_is_refused_and_told_so() {
    let (mut hosts, now) = pair();
    let before = in_use(&mut hosts);
    let now = now + 2 * SECOND;
    let part = Part {
        suite: SUITE ^ 1,
        exchange: 7,
        session: 9,
        number: 0,
        bytes: vec![0; 32],
    };
    say(&mut hosts, 0, &Signal::Offer(part.clone()), now);
    assert_eq!(hosts[1].tunnels.outbox().datagrams().count(), 1);
    assert!(!peer(&mut hosts, 1).sessions().is_exchanging());
    say(&mut hosts, 1, &Signal::Want(SUITE ^ 1), now);
    say(&mut hosts, 1, &Signal::Accept(part), now);
    assert!(!peer(&mut hosts, 0).sessions().is_exchanging());
    assert_eq!(in_use(&mut hosts), before);
}

/// Killed and started again, a node has lost its keys, and the other has not noticed.
#[test]
fn a_peer_that_was_restarted_is_reached_again_without_a_timeout() {
    for restarted in [0, 1] {
        for begins in [0, 1] {
            let (mut hosts, now) = pair();
            let now = now + 2 * SECOND;
            let number = if hosts[restarted].keys.id == host(1).keys.id {
                1
            } else {
                2
            };
            hosts[restarted] = host(number);
            let other = hosts[1 - restarted].keys;
            hosts[restarted].tunnels.upsert(other);
            hosts[restarted].tunnels.rng = fastrand::Rng::with_seed(99);
            if begins == restarted {
                open(&mut hosts, restarted, 1 - restarted, now);
            } else {
                peer(&mut hosts, begins).paths_mut().active(now);
                hosts[begins].tunnels.suspect_all(now);
            }
            settle(&mut hosts, now);
            assert!(
                is_exchanged(&mut hosts, now),
                "host {restarted} was restarted, host {begins} begins"
            );
        }
    }
}

/// After a day the pair agrees on another key, while packets go both ways all the time.
#[test]
fn a_change_of_keys_loses_no_packet() {
    let (mut hosts, start) = pair();
    let before = in_use(&mut hosts);
    let now = start + Duration::from_secs(24 * 60 * 60) + SECOND;
    let (one, other) = (address(&hosts[0]), address(&hosts[1]));
    let (there, back) = (udp(one, other, b"there"), udp(other, one, b"back"));
    let mut sent = 0;
    let mut came = [0, 0];
    for step in 0..80_u32 {
        let now = now + GRAIN / 4 * step;
        for host in &mut hosts {
            host.tunnels.handle_timeout(now);
        }
        for _ in 0..3 {
            hosts[0].tunnels.handle_overlay_packet(&there, now);
            hosts[1].tunnels.handle_overlay_packet(&back, now);
            sent += 1;
            // Only one flight: what it brings about is answered by the next one.
            flight(&mut hosts, now, |_, _| true);
            for at in [0, 1] {
                came[at] += received(&mut hosts[at]).len();
            }
        }
    }
    settle(&mut hosts, now + 20 * SECOND);
    for at in [0, 1] {
        came[at] += received(&mut hosts[at]).len();
    }
    assert_ne!(in_use(&mut hosts), before, "there is another session");
    assert_eq!(came, [sent, sent]);
}

#[test]
fn an_unknown_candidate_learns_nothing_of_the_exchange() {
    let (mut hosts, now) = (strangers(), epoch());
    open(&mut hosts, 0, 1, now);
    let (id, stranger) = (hosts[1].keys.id, "203.0.113.66:1".parse().unwrap());
    let candidate = Candidate {
        kind: CandidateKind::Announced,
        endpoint: stranger,
    };
    hosts[0].tunnels.learn(&id, candidate, now);
    let mut told = 0;
    for _ in 0..10 {
        let outbox = hosts[0].tunnels.outbox();
        let long = outbox
            .datagrams()
            .filter(|(to, datagram)| *to == Path::Direct(stranger) && datagram.len() > 400);
        told += long.count();
        flight(&mut hosts, now, |_, _| true);
    }
    assert_eq!(told, 0);
    assert!(is_exchanged(&mut hosts, now));
}
