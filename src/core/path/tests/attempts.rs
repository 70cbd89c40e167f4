//! When candidates are tried, how often, and what becomes of those that do not answer.

use super::*;
use crate::path::{attempts::CALL_INTERVAL, view::State};

const CANDIDATE: &str = "203.0.113.9:7777";

fn candidate(endpoint: &str) -> Candidate {
    Candidate {
        kind: CandidateKind::Reflexive,
        endpoint: endpoint.parse().unwrap(),
    }
}

/// A peer that is reached through a relay.
fn relayed() -> Story {
    let mut story = Story::new();
    story.open_relay();
    story.pass(1, &[RELAY_CARRIER]);
    story
}

impl Story {
    /// Lets time pass; returns how many attempts were made and how many probes went to candidates.
    fn attempts(&mut self, seconds: u64, working: &[Path]) -> (usize, usize) {
        let (mut attempts, mut probes) = (0, 0);
        for _ in 0..seconds * 4 {
            self.now += Duration::from_millis(250);
            attempts += usize::from(self.paths.due_attempt(self.now));
            for probe in self.probes() {
                probes += usize::from(matches!(probe.path, Path::Direct(_)));
                if working.contains(&probe.path) {
                    self.paths.pong(probe.number, self.now);
                }
            }
        }
        (attempts, probes)
    }

    fn state_of(&self, path: Path) -> State {
        let views = self.paths.explain();
        let view = views.iter().find(|view| view.path == path);
        view.expect("the path is known").state
    }
}

#[test]
fn a_candidate_that_answers_becomes_the_path_within_a_second() {
    let mut story = relayed();
    story.paths.learn(candidate(CANDIDATE), story.now);
    let direct = Path::Direct(CANDIDATE.parse().unwrap());
    assert_eq!(story.state_of(direct), State::Untried);
    story.attempts(1, &[RELAY_CARRIER, direct]);
    assert_eq!(story.paths.current(), Some(direct));
    assert_eq!(story.state_of(direct), State::InUse);
    assert_eq!(story.state_of(RELAY_CARRIER), State::Standby);
    let (attempts, _) = story.attempts(600, &[RELAY_CARRIER, direct]);
    assert_eq!(attempts, 0, "there is nothing better to be had");
}

#[test]
fn an_endpoint_that_has_not_answered_is_never_used_while_another_way_works() {
    let mut story = relayed();
    for port in 1..10 {
        let endpoint = format!("203.0.113.9:{port}");
        story.paths.learn(candidate(&endpoint), story.now);
    }
    for _ in 0..100 {
        story.attempts(1, &[RELAY_CARRIER]);
        assert_eq!(story.paths.current(), Some(RELAY_CARRIER));
    }
}

#[test]
fn attempts_in_vain_become_rare_and_never_storm_a_router() {
    let mut story = relayed();
    for port in 1..=16 {
        let endpoint = format!("203.0.113.9:{port}");
        story.paths.learn(candidate(&endpoint), story.now);
    }
    let (first, probes) = story.attempts(60, &[RELAY_CARRIER]);
    assert!((3..=6).contains(&first), "{first} attempts in a minute");
    assert!(probes <= 16 * 4 * first, "{probes} probes in a minute");
    let (hour, probes) = story.attempts(3600, &[RELAY_CARRIER]);
    assert!(hour <= 13, "{hour} attempts in an idle hour");
    assert!(probes <= 16 * 4 * hour, "{probes} probes in an idle hour");
    let failed = Path::Direct("203.0.113.9:1".parse().unwrap());
    assert_eq!(story.state_of(failed), State::Failed);
}

#[test]
fn news_are_a_reason_to_try_again_at_once() {
    let mut story = relayed();
    story.paths.learn(candidate(CANDIDATE), story.now);
    story.attempts(600, &[RELAY_CARRIER]);
    let (quiet, _) = story.attempts(60, &[RELAY_CARRIER]);
    assert_eq!(quiet, 0);
    story.paths.learn(candidate("203.0.113.9:8888"), story.now);
    let (anew, _) = story.attempts(1, &[RELAY_CARRIER]);
    assert_eq!(anew, 1);
}

#[test]
fn calls_that_come_too_fast_are_not_followed() {
    let mut story = relayed();
    assert!(story.paths.called(&[candidate(CANDIDATE)], story.now));
    for port in 1..100 {
        story.now += Duration::from_millis(5);
        let named = candidate(&format!("203.0.113.66:{port}"));
        assert!(!story.paths.called(&[named], story.now));
    }
    assert_eq!(story.paths.explain().len(), 2, "the relay and the first");
    story.now += CALL_INTERVAL;
    assert!(story.paths.called(&[], story.now));
}

#[test]
fn a_lost_direct_path_is_sought_again_until_it_returns() {
    let mut story = relayed();
    story.paths.learn(candidate(CANDIDATE), story.now);
    let direct = Path::Direct(CANDIDATE.parse().unwrap());
    story.attempts(2, &[RELAY_CARRIER, direct]);
    story.paths.active(story.now);
    story.attempts(30, &[RELAY_CARRIER]);
    assert_eq!(story.paths.current(), Some(RELAY_CARRIER));
    story.paths.active(story.now);
    story.attempts(61, &[RELAY_CARRIER, direct]);
    assert_eq!(story.paths.current(), Some(direct));
}

#[test]
fn the_clearly_faster_of_two_direct_paths_wins_and_a_little_faster_one_does_not() {
    let mut story = Story::new();
    let paths = ["192.0.2.1:7777", "192.168.1.2:7777", "192.168.1.3:7777"];
    let [far, near, other] = paths.map(|endpoint| story.open_direct(endpoint));
    let mut pass = |seconds: u64| {
        for _ in 0..seconds * 4 {
            story.now += Duration::from_millis(250);
            for probe in story.probes() {
                let rtt = match probe.path {
                    path if path == far => 20,
                    path if path == near => 6,
                    _ => 5,
                };
                let then = story.now + Duration::from_millis(rtt);
                story.paths.pong(probe.number, then);
            }
        }
        story.paths.current().unwrap()
    };
    let chosen = pass(60);
    assert!(chosen == near || chosen == other);
    for _ in 0..60 {
        assert_eq!(pass(10), chosen, "no flapping");
    }
}

#[test]
fn after_a_change_of_the_network_the_first_way_that_answers_is_used() {
    let mut story = Story::new();
    story.open_relay();
    let direct = story.open_direct("192.0.2.1:7777");
    story.pass(2, &[RELAY_CARRIER, direct]);
    assert_eq!(story.paths.current(), Some(direct));
    story.paths.suspect(story.now);
    assert_eq!(
        story.paths.current(),
        Some(direct),
        "perhaps it still works"
    );
    story.pass(1, &[RELAY_CARRIER]);
    assert_eq!(story.paths.current(), Some(RELAY_CARRIER));
}

#[test]
fn a_stream_over_the_hole_that_closed_is_not_trusted() {
    let mut story = Story::new();
    let direct = story.open_direct("192.0.2.1:7777");
    let stream = Path::Carrier(ConnectionId(2));
    story.paths.open(stream, PathKind::Stream, story.now);
    story.open_relay();
    story.pass(2, &[RELAY_CARRIER, direct, stream]);
    let mut used = std::collections::BTreeSet::new();
    for _ in 0..8 {
        story.paths.active(story.now);
        story.pass(1, &[RELAY_CARRIER]);
        used.insert(story.paths.view().unwrap().kind.name());
    }
    assert_eq!(story.paths.current(), Some(RELAY_CARRIER));
    assert!(!used.contains("stream"), "{used:?}");
}

/// Nobody tries hard for a pair that is silent; who begins to talk deserves the best path soon.
#[test]
fn the_first_packet_after_a_silence_is_followed_by_an_attempt() {
    let mut story = relayed();
    story.paths.learn(candidate(CANDIDATE), story.now);
    story.attempts(1000, &[RELAY_CARRIER]);
    assert_eq!(story.attempts(10, &[RELAY_CARRIER]).0, 0);
    story.paths.active(story.now);
    assert_eq!(story.attempts(1, &[RELAY_CARRIER]).0, 1);
}
