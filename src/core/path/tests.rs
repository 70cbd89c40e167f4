//! Which path is used, told as stories with a hand-driven clock.

use super::tracked::{CARRIER_PATIENCE as PATIENCE, IDLE_HEARTBEAT, RETRY};
use super::*;
use crate::{signal::ASK_LENGTH, testing::epoch};

const RELAY_CARRIER: Path = Path::Carrier(ConnectionId(1));

struct Story {
    paths: Paths,
    now: Instant,
    next_id: u64,
}

impl Story {
    fn new() -> Self {
        Self {
            paths: Paths::new(1420),
            now: epoch(),
            next_id: 0,
        }
    }

    fn open_relay(&mut self) {
        let relay = PathKind::Relay(PeerId::random());
        self.paths.open(RELAY_CARRIER, relay, self.now);
    }

    fn open_direct(&mut self, address: &str) -> Path {
        let path = Path::Direct(address.parse().unwrap());
        self.paths.open(path, PathKind::Direct, self.now);
        path
    }

    fn probes(&mut self) -> Vec<DueProbe> {
        let mut sent = Vec::new();
        while let Some(probe) = self.paths.due_probe(self.now, || {
            self.next_id += 1;
            self.next_id
        }) {
            sent.push(probe);
        }
        sent
    }

    /// Lets time pass; probes on the paths in `working` come back after 20 ms.
    fn pass(&mut self, seconds: u64, working: &[Path]) {
        let carried: Vec<_> = working.iter().map(|path| (*path, u16::MAX)).collect();
        self.pass_carrying(seconds, &carried);
    }

    /// The same, but of each path only probes of at most so many bytes. Returns the lengths that were sent.
    fn pass_carrying(&mut self, seconds: u64, working: &[(Path, u16)]) -> Vec<u16> {
        let mut lengths = Vec::new();
        for _ in 0..seconds * 4 {
            self.now += Duration::from_millis(250);
            for probe in self.probes() {
                lengths.push(probe.length);
                if working
                    .iter()
                    .any(|(path, mtu)| *path == probe.path && probe.length <= *mtu)
                {
                    let then = self.now + Duration::from_millis(20);
                    self.paths.pong(probe.number, then);
                }
            }
        }
        lengths
    }

    /// The same for a second while packets flow.
    fn flow_carrying(&mut self, working: &[(Path, u16)]) -> Vec<u16> {
        self.paths.active(self.now);
        self.pass_carrying(1, working)
    }
}

#[test]
fn the_only_path_is_used_before_it_is_proven() {
    let mut story = Story::new();
    story.open_relay();
    assert_eq!(story.paths.current(), Some(RELAY_CARRIER));
}

#[test]
fn a_direct_path_takes_over_only_once_it_is_proven() {
    let mut story = Story::new();
    story.open_relay();
    story.pass(1, &[RELAY_CARRIER]);
    let direct = story.open_direct("192.0.2.1:7777");
    assert_eq!(story.paths.current(), Some(RELAY_CARRIER));
    story.pass(1, &[RELAY_CARRIER, direct]);
    assert_eq!(story.paths.current(), Some(direct));
    assert!(story.paths.view().unwrap().proven);
}

#[test]
fn a_direct_path_that_never_answers_is_never_used_while_the_relay_works() {
    let mut story = Story::new();
    story.open_relay();
    story.pass(1, &[RELAY_CARRIER]);
    story.open_direct("192.0.2.1:7777");
    for _ in 0..120 {
        story.pass(1, &[RELAY_CARRIER]);
        assert_eq!(story.paths.current(), Some(RELAY_CARRIER));
    }
}

#[test]
fn a_path_slower_than_our_patience_is_proven_all_the_same() {
    let mut story = Story::new();
    story.open_relay();
    let [DueProbe { number, .. }] = story.probes()[..] else {
        panic!("one probe")
    };
    story.now += PATIENCE * 2;
    story.probes();
    assert_eq!(
        story.paths.pong(number, story.now),
        Some((RELAY_CARRIER, PATIENCE * 2))
    );
    let view = story.paths.view().unwrap();
    assert!(view.proven && view.rtt == Some(PATIENCE * 2));
}

#[test]
fn a_silent_death_of_the_direct_path_leads_back_to_the_relay_and_its_return_is_noticed() {
    let mut story = Story::new();
    story.open_relay();
    let direct = story.open_direct("192.0.2.1:7777");
    story.pass(2, &[RELAY_CARRIER, direct]);
    assert_eq!(story.paths.current(), Some(direct));
    let mut seconds = 0;
    while story.paths.current() == Some(direct) {
        story.paths.active(story.now);
        story.pass(1, &[RELAY_CARRIER]);
        seconds += 1;
        assert!(seconds <= 8, "still on a dead path");
    }
    assert_eq!(story.paths.current(), Some(RELAY_CARRIER));
    story.pass(RETRY.as_secs() + 1, &[RELAY_CARRIER, direct]);
    assert_eq!(story.paths.current(), Some(direct));
}

#[test]
fn a_peer_that_roams_is_followed_once_its_new_address_answers() {
    let mut story = Story::new();
    let home = story.open_direct("192.0.2.1:7777");
    story.pass(1, &[home]);
    let cafe = Path::Direct("198.51.100.9:40000".parse().unwrap());
    story.paths.heard(cafe, story.now);
    assert_eq!(
        story.paths.current(),
        Some(home),
        "an address alone proves nothing"
    );
    story.paths.close(home, story.now);
    story.pass(5, &[cafe]);
    assert_eq!(story.paths.current(), Some(cafe));
    assert_eq!(story.paths.all().count(), 1, "the old address is forgotten");
}

#[test]
fn a_flood_of_new_addresses_is_bounded_and_does_not_push_out_the_path_in_use() {
    let mut story = Story::new();
    let home = story.open_direct("192.0.2.1:7777");
    story.pass(1, &[home]);
    for port in 1..1000 {
        story
            .paths
            .heard(Path::Direct(([203, 0, 113, 9], port).into()), story.now);
    }
    assert!(story.paths.all().count() <= MAX_PATHS);
    assert_eq!(story.paths.current(), Some(home));
}

#[test]
fn two_equal_paths_do_not_flap() {
    let mut story = Story::new();
    let first = story.open_direct("192.0.2.1:7777");
    story.pass(1, &[first]);
    let second = story.open_direct("192.0.2.2:7777");
    for _ in 0..60 {
        story.pass(1, &[first, second]);
        assert_eq!(story.paths.current(), Some(first));
    }
}

#[test]
fn an_idle_pair_stays_quiet() {
    let mut story = Story::new();
    let path = story.open_direct("192.0.2.1:7777");
    story.pass(10, &[path]);
    let before = story.next_id;
    story.pass(600, &[path]);
    let probes = story.next_id - before;
    assert!(
        probes <= 600 / IDLE_HEARTBEAT.as_secs() + 1,
        "{probes} probes in ten minutes"
    );
}

#[test]
fn an_answer_nobody_asked_for_changes_nothing() {
    let mut story = Story::new();
    story.open_direct("192.0.2.1:7777");
    assert_eq!(story.paths.pong(42, story.now), None);
    assert!(!story.paths.view().unwrap().proven);
}

#[test]
fn a_direct_path_that_only_carries_short_packets_never_takes_over_from_a_carrier() {
    let mut story = Story::new();
    story.open_relay();
    story.pass(1, &[RELAY_CARRIER]);
    let direct = story.open_direct("192.0.2.1:7777");
    for _ in 0..120 {
        story.flow_carrying(&[(RELAY_CARRIER, u16::MAX), (direct, 1279)]);
        assert_eq!(story.paths.current(), Some(RELAY_CARRIER));
    }
    story.flow_carrying(&[(RELAY_CARRIER, u16::MAX), (direct, 1280)]);
    story.pass_carrying(RETRY.as_secs(), &[(direct, 1280)]);
    assert_eq!(story.paths.current(), Some(direct));
}

#[test]
fn a_path_that_narrows_under_a_flow_stays_and_carries_less() {
    let mut story = Story::new();
    story.open_relay();
    let direct = story.open_direct("192.0.2.1:7777");
    let wide = [(RELAY_CARRIER, u16::MAX), (direct, u16::MAX)];
    story.pass_carrying(2, &wide);
    assert_eq!(story.paths.mtu(), 1420);
    let mut seconds = 0;
    while story.paths.mtu() > 1350 {
        story.flow_carrying(&[(RELAY_CARRIER, u16::MAX), (direct, 1350)]);
        assert_eq!(story.paths.current(), Some(direct));
        seconds += 1;
        assert!(seconds <= 7, "packets are still lost");
    }
    for _ in 0..20 {
        story.flow_carrying(&[(RELAY_CARRIER, u16::MAX), (direct, 1350)]);
        assert_eq!(story.paths.current(), Some(direct));
    }
    assert!((1342..=1350).contains(&story.paths.mtu()));
}

#[test]
fn a_path_that_narrows_below_the_minimum_is_left_for_the_relay() {
    let mut story = Story::new();
    story.open_relay();
    let direct = story.open_direct("192.0.2.1:7777");
    story.pass_carrying(2, &[(RELAY_CARRIER, u16::MAX), (direct, u16::MAX)]);
    for _ in 0..8 {
        story.flow_carrying(&[(RELAY_CARRIER, u16::MAX), (direct, 600)]);
    }
    for _ in 0..60 {
        assert_eq!(story.paths.current(), Some(RELAY_CARRIER));
        story.flow_carrying(&[(RELAY_CARRIER, u16::MAX), (direct, 600)]);
    }
}

#[test]
fn only_heartbeats_that_guard_packets_are_long() {
    let mut story = Story::new();
    let path = story.open_direct("192.0.2.1:7777");
    let standby = story.open_direct("192.0.2.2:7777");
    let working = [(path, u16::MAX), (standby, u16::MAX)];
    story.pass_carrying(2, &working);
    assert_eq!(story.pass_carrying(60, &working), [ASK_LENGTH; 4]);
    let lengths: Vec<_> = (0..9).flat_map(|_| story.flow_carrying(&working)).collect();
    assert!(lengths.iter().filter(|length| **length == 1420).count() >= 3);
    assert!(
        lengths
            .iter()
            .all(|length| [1420, ASK_LENGTH].contains(length))
    );
}

#[test]
fn an_answer_to_a_short_probe_shows_life_but_is_no_proof() {
    let mut story = Story::new();
    let path = story.open_direct("192.0.2.1:7777");
    story.pass_carrying(2, &[(path, u16::MAX)]);
    // The heartbeats of an idle pair are short; the answer to the last one before the path's death comes after it.
    let mut last = None;
    while story.paths.view().is_some_and(|view| view.proven) {
        story.now += Duration::from_millis(250);
        last = story.probes().pop().or(last);
    }
    let last = last.expect("three heartbeats were missed");
    assert_eq!(last.length, ASK_LENGTH);
    assert!(story.paths.pong(last.number, story.now).is_some());
    assert!(!story.paths.view().unwrap().proven);
    assert_eq!(story.probes()[0].length, mtu::MIN_PACKET);
}

#[test]
fn between_two_due_times_there_is_nothing_to_do() {
    let mut story = Story::new();
    story.open_relay();
    let direct = story.open_direct("192.0.2.1:7777");
    let dead = story.open_direct("192.0.2.2:7777");
    let mut rng = fastrand::Rng::with_seed(7);
    for round in 0..4_000 {
        let route = if round % 2_000 < 1_000 { 1500 } else { 1350 };
        if rng.u8(..100) == 0 {
            story.paths.active(story.now);
        }
        let was_active = story.paths.is_active(story.now);
        let next = story.paths.next_probe(story.now).expect("there are paths");
        let almost = next - Duration::from_nanos(1);
        if almost > story.now {
            story.now = almost;
            assert_eq!(story.probes(), []);
        }
        story.now = story.now.max(next);
        let was = format!("{:?}", story.paths);
        let probes = story.probes();
        // A flow that ended meanwhile is the one thing that puts off what was due.
        let has_ended = was_active && !story.paths.is_active(story.now);
        assert!(
            has_ended || !probes.is_empty() || was != format!("{:?}", story.paths),
            "woken for nothing"
        );
        for probe in probes {
            if probe.path != dead && probe.length <= route && rng.u8(..100) < 90 {
                story.now += Duration::from_millis(20);
                story.paths.pong(probe.number, story.now);
            }
        }
        let is_direct = story.paths.current() == Some(direct);
        assert!(is_direct || story.paths.current() == Some(RELAY_CARRIER));
    }
}

mod attempts;
