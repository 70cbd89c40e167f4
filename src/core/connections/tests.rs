//! Dialling and closing, told with a hand-driven clock.

use super::*;
use crate::testing::epoch;

struct Story {
    connections: Connections,
    peer: PeerId,
    now: Instant,
}

fn ordered_peers() -> (PeerId, PeerId) {
    let (a, b) = (PeerId::random(), PeerId::random());
    if a < b { (a, b) } else { (b, a) }
}

impl Story {
    /// We lead: our identity is the lower one.
    fn new() -> Self {
        let (us, peer) = ordered_peers();
        Self::between(us, peer)
    }

    fn between(us: PeerId, peer: PeerId) -> Self {
        let now = epoch();
        let mut connections = Connections::new(us, now);
        let addresses = [
            "/ip4/10.0.0.2/udp/7777/quic-v1",
            "/ip4/203.0.113.9/udp/7777/quic-v1/p2p-circuit",
        ];
        connections.want(
            peer,
            addresses.iter().map(|a| a.parse().unwrap()).collect(),
            now,
        );
        Self {
            connections,
            peer,
            now,
        }
    }

    fn open(&mut self, id: u64, link: Link) {
        self.connections
            .opened(ConnectionId(id), self.peer, link, self.now);
        self.connections.authenticated(ConnectionId(id), self.now);
    }

    fn pass(&mut self, seconds: u64) -> Vec<Output> {
        let mut outputs = Vec::new();
        for _ in 0..seconds * 2 {
            self.now += TICK;
            outputs.extend(self.connections.handle_timeout(self.now));
        }
        outputs
    }
}

fn quic() -> Link {
    Link::Quic("192.0.2.1:7777".parse().unwrap())
}

fn relayed() -> Link {
    Link::Relayed {
        relay: PeerId::random(),
    }
}

fn dials(outputs: &[Output]) -> usize {
    outputs
        .iter()
        .filter(|output| matches!(output, Output::Dial { .. }))
        .count()
}

fn closes(outputs: &[Output]) -> Vec<u64> {
    outputs
        .iter()
        .filter_map(|output| {
            if let Output::Close(id) = output {
                Some(id.0)
            } else {
                None
            }
        })
        .collect()
}

#[test]
fn a_member_that_is_away_is_dialled_ever_more_rarely() {
    let mut story = Story::new();
    let mut count = 0;
    for _ in 0..600 {
        let outputs = story.pass(1);
        count += dials(&outputs);
        for _ in 0..dials(&outputs) {
            story
                .connections
                .dial_failed(&story.peer.clone(), story.now);
        }
    }
    assert!((10..=18).contains(&count), "{count} dials in ten minutes");
}

#[test]
fn news_of_its_addresses_and_waiting_packets_are_reasons_to_try_at_once() {
    let mut story = Story::new();
    story.pass(1);
    let peer = story.peer;
    for _ in 0..6 {
        story.connections.dial_failed(&peer, story.now);
    }
    assert_eq!(dials(&story.pass(5)), 0);
    story.connections.hurry(&peer, story.now);
    assert_eq!(dials(&story.pass(1)), 1);
    story.connections.dial_failed(&peer, story.now);
    story.connections.want(
        peer,
        vec!["/ip4/10.0.0.3/tcp/7777".parse().unwrap()],
        story.now,
    );
    assert_eq!(dials(&story.pass(1)), 1);
}

#[test]
fn a_connected_member_is_not_dialled() {
    let mut story = Story::new();
    story.open(1, quic());
    assert_eq!(dials(&story.pass(600)), 0);
}

#[test]
fn a_relayed_member_is_tried_directly_and_with_fresh_circuits_but_no_storm() {
    let mut story = Story::new();
    story.open(1, relayed());
    let early = story.pass(3);
    assert_eq!(dials(&early), 1, "its own addresses, at once: {early:?}");
    let later = story.pass(10);
    assert_eq!(
        dials(&later),
        2,
        "its own addresses and a fresh circuit: {later:?}"
    );
    assert!(dials(&story.pass(3600)) <= 30);
}

#[test]
fn quic_gets_a_head_start_and_tcp_its_turn() {
    let mut story = Story::new();
    let peer = story.peer;
    let (quic, tcp): (Multiaddr, Multiaddr) = (
        "/ip4/192.0.2.9/udp/7777/quic-v1".parse().unwrap(),
        "/ip4/192.0.2.9/tcp/7777".parse().unwrap(),
    );
    story
        .connections
        .want(peer, vec![tcp.clone(), quic.clone()], story.now);
    let first = story.connections.handle_timeout(story.now);
    let [Output::Dial { addresses, .. }] = first.as_slice() else {
        panic!("{first:?}")
    };
    assert_eq!(*addresses, [quic]);
    story.now = story.connections.poll_timeout().unwrap();
    let second = story.connections.handle_timeout(story.now);
    let [
        Output::Dial {
            addresses,
            even_if_connected: true,
            ..
        },
    ] = second.as_slice()
    else {
        panic!("{second:?}")
    };
    assert_eq!(*addresses, [tcp]);
}

#[test]
fn a_circuit_waits_until_we_know_how_we_are_seen_but_not_for_ever() {
    let mut story = Story::new();
    let now = story.now;
    assert_eq!(dials(&story.connections.handle_timeout(now)), 0);
    story.connections.seen(now);
    assert_eq!(dials(&story.connections.handle_timeout(now)), 1);
    assert_eq!(dials(&Story::new().pass(2)), 1);
}

#[test]
fn new_addresses_are_tried_although_the_old_ones_are_still_being_dialled() {
    let mut story = Story::new();
    assert_eq!(dials(&story.pass(2)), 1);
    let peer = story.peer;
    let elsewhere = vec!["/ip4/10.0.0.3/tcp/7777".parse().unwrap()];
    story.connections.want(peer, elsewhere.clone(), story.now);
    let outputs = story.pass(2);
    let [
        Output::Dial {
            addresses,
            even_if_connected: true,
            ..
        },
    ] = outputs.as_slice()
    else {
        panic!("one dial, whatever else is under way: {outputs:?}");
    };
    assert_eq!(*addresses, elsewhere);
}

#[test]
fn a_member_connected_over_tcp_is_tried_over_quic() {
    let mut story = Story::new();
    story.open(1, Link::Tcp("192.0.2.1:7777".parse().unwrap()));
    let early = story.pass(3);
    let [
        Output::Dial {
            addresses,
            even_if_connected: true,
            ..
        },
    ] = early.as_slice()
    else {
        panic!("{early:?}")
    };
    assert_eq!(addresses.len(), 1);
    story.open(2, quic());
    assert_eq!(dials(&story.pass(600)), 0);
}

#[test]
fn the_relayed_connection_goes_once_a_direct_one_has_settled() {
    let mut story = Story::new();
    story.open(1, relayed());
    story.pass(5);
    story.open(2, quic());
    assert_eq!(closes(&story.pass(9)), [] as [u64; 0]);
    let closed = closes(&story.pass(2));
    assert!(
        !closed.is_empty() && closed.iter().all(|id| *id == 1),
        "{closed:?}"
    );
}

#[test]
fn only_the_lower_identity_closes_so_that_both_ends_keep_the_same_one() {
    let (low, high) = ordered_peers();
    let mut story = Story::between(high, low);
    story.open(1, relayed());
    story.open(2, quic());
    assert_eq!(closes(&story.pass(60)), [] as [u64; 0]);
}

#[test]
fn of_two_equal_connections_the_newer_stays() {
    let mut story = Story::new();
    story.open(1, quic());
    story.open(2, quic());
    let closed = closes(&story.pass(11));
    assert!(
        !closed.is_empty() && closed.iter().all(|id| *id == 1),
        "{closed:?}"
    );
}

#[test]
fn a_lost_connection_is_replaced_at_once() {
    let mut story = Story::new();
    story.open(1, quic());
    story.pass(60);
    story.connections.closed(ConnectionId(1), story.now);
    assert_eq!(dials(&story.pass(1)), 1);
}

/// What the router forgot looks alive for as long as QUIC is patient.
#[test]
fn a_lost_member_is_searched_for_beside_its_connection_until_a_new_one_replaces_it() {
    let mut story = Story::new();
    story.open(1, quic());
    story.pass(60);
    story.connections.lost(&story.peer, story.now);
    let tried = dials(&story.pass(20));
    assert!((3..=6).contains(&tried), "{tried} dials in 20 s");
    story.open(2, quic());
    let outputs = story.pass(1);
    assert_eq!((dials(&outputs), closes(&outputs)[0]), (0, 1));
    story.connections.found(&story.peer);
    assert_eq!(dials(&story.pass(60)), 0);
}

#[test]
fn a_member_that_is_well_connected_or_has_no_address_wants_no_time() {
    let mut story = Story::new();
    story.open(1, quic());
    story.pass(1);
    assert_eq!(story.connections.poll_timeout(), None);
    story
        .connections
        .want(PeerId::random(), Vec::new(), story.now);
    story.pass(1);
    assert_eq!(story.connections.poll_timeout(), None);
}

/// Each wish is looked at when its own time comes, and all together no more often than the grid allows.
#[test]
fn a_thousand_members_that_are_away_wake_us_no_more_than_twice_a_second() {
    let mut story = Story::new();
    let address: Multiaddr = "/ip4/10.0.0.9/udp/7777/quic-v1".parse().unwrap();
    for number in 0..1000 {
        story.now += Duration::from_millis(number % 7);
        story
            .connections
            .want(PeerId::random(), vec![address.clone()], story.now);
    }
    let (mut wakeups, mut dialled) = (0, 0);
    let end = story.now + Duration::from_secs(600);
    while let Some(due) = story.connections.poll_timeout().filter(|due| *due < end) {
        story.now = story.now.max(due);
        wakeups += 1;
        for output in story.connections.handle_timeout(story.now) {
            if let Output::Dial { peer, .. } = output {
                dialled += 1;
                story.connections.dial_failed(&peer, story.now);
            }
        }
    }
    assert!(wakeups <= 1200, "{wakeups} wakeups in ten minutes");
    assert!((10_000..=18_000).contains(&dialled), "{dialled} dials");
}
