//! A search over a path that loses what is longer than it carries, and some of the rest.

use proptest::prelude::*;

use super::*;
use crate::testing::epoch;

const PATIENCE: Duration = Duration::from_secs(1);
const STEP: Duration = Duration::from_millis(250);

struct Story {
    mtu: PathMtu,
    now: Instant,
    /// What the route really carries.
    route: u16,
    probes: u64,
}

impl Story {
    fn new(limit: u16, route: u16) -> Self {
        Self {
            mtu: PathMtu::new(limit),
            now: epoch(),
            route,
            probes: 0,
        }
    }

    /// One step of time; `loses` decides about probes that would fit.
    fn step(&mut self, mut loses: impl FnMut() -> bool) {
        self.now += STEP;
        self.mtu.expire(self.now, PATIENCE);
        while let Some(length) = self.mtu.due(self.now, true) {
            self.probes += 1;
            self.mtu.asked(Ask {
                number: self.probes,
                sent: self.now,
                length,
            });
            if length <= self.route && !loses() {
                self.mtu.answered(self.probes).expect("ours");
            }
        }
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.step(|| false);
        }
    }

    /// The search ended next to the truth.
    fn has_settled(&self) -> bool {
        let truth = self.route.min(self.mtu.limit);
        (truth.saturating_sub(GRANULARITY)..=truth).contains(&self.mtu.get())
    }
}

#[test]
fn an_ordinary_path_is_known_after_one_probe() {
    let mut story = Story::new(1420, 1500);
    assert_eq!(story.mtu.get(), 1420, "trusted from the beginning");
    story.pass(Duration::from_secs(3600));
    assert_eq!((story.mtu.proven(), story.probes), (1420, 1));
}

#[test]
fn the_first_lost_full_size_probe_ends_the_trust() {
    let mut story = Story::new(1420, 1380);
    story.step(|| false);
    assert_eq!(story.mtu.get(), 1420);
    story.pass(PATIENCE);
    assert_eq!(story.mtu.get(), MIN_PACKET);
    story.pass(Duration::from_secs(15));
    assert!(story.has_settled(), "{:?}", story.mtu);
}

#[test]
fn a_route_that_shrinks_is_noticed_by_its_heartbeats() {
    let mut story = Story::new(1420, 1500);
    story.pass(Duration::from_secs(1));
    story.route = 1300;
    story.mtu.doubt(1420);
    assert_eq!(story.mtu.get(), 1420, "one lost heartbeat may be chance");
    story.pass(PATIENCE * 2);
    assert!(story.mtu.get() <= 1300);
    story.pass(Duration::from_secs(15));
    assert!(story.has_settled(), "{:?}", story.mtu);
}

#[test]
fn a_doubt_without_reason_changes_nothing() {
    let mut story = Story::new(1420, 1500);
    story.pass(Duration::from_secs(1));
    story.mtu.doubt(1420);
    story.pass(Duration::from_secs(10));
    assert_eq!((story.mtu.get(), story.probes), (1420, 2));
}

#[test]
fn a_route_that_widens_is_noticed_in_time() {
    let mut story = Story::new(1420, 1300);
    story.pass(Duration::from_secs(20));
    let probes = story.probes;
    story.route = 1500;
    story.pass(Duration::from_secs(500));
    assert!(story.mtu.get() <= 1300 && story.probes == probes);
    story.pass(Duration::from_secs(200));
    assert_eq!(story.mtu.get(), 1420);
}

#[test]
fn a_narrow_path_without_packets_is_not_tried_again() {
    let mut story = Story::new(1420, 1300);
    story.pass(Duration::from_secs(20));
    story.now += RAISE_AFTER * 2;
    assert_eq!(story.mtu.due(story.now, false), None);
    assert_eq!(story.mtu.due(story.now, true), Some(1420));
}

#[test]
fn an_interface_below_the_minimum_needs_no_search() {
    let mut story = Story::new(576, 1500);
    assert_eq!(story.mtu.minimum(), 576);
    story.pass(Duration::from_secs(3600));
    assert_eq!((story.mtu.get(), story.probes), (576, 0));
}

#[test]
fn an_answer_that_comes_late_is_worth_as_much() {
    let mut mtu = PathMtu::new(1420);
    let mut now = epoch();
    for number in [1, 2] {
        let length = mtu.due(now, true).unwrap();
        mtu.asked(Ask {
            number,
            sent: now,
            length,
        });
        now += PATIENCE;
        mtu.expire(now, PATIENCE);
    }
    assert_eq!(mtu.get(), MIN_PACKET);
    assert!(mtu.answered(2).is_some());
    assert_eq!(mtu.get(), 1420);
    assert_eq!(mtu.answered(2), None, "an answer counts once");
}

#[test]
fn a_path_that_died_is_trusted_again_only_if_it_carried_everything() {
    for (route, trusted) in [(1500, 1420), (1380, MIN_PACKET)] {
        let mut story = Story::new(1420, route);
        story.pass(Duration::from_secs(30));
        story.mtu.forget();
        assert_eq!(story.mtu.get(), trusted);
        story.pass(Duration::from_secs(30));
        assert!(story.has_settled());
    }
}

proptest! {
    #[test]
    fn every_search_ends_next_to_the_truth_and_with_few_probes(
        limit in 576..9001_u16, route in 1280..9001_u16,
    ) {
        let mut story = Story::new(limit, route);
        story.pass(Duration::from_secs(40));
        prop_assert!(story.has_settled(), "{:?}", story.mtu);
        prop_assert!(story.probes <= 26, "{} probes", story.probes);
    }

    #[test]
    fn chance_never_leads_above_the_truth_and_time_heals(
        limit in 1280..9001_u16, route in 1280..9001_u16, seed: u64,
    ) {
        let mut story = Story::new(limit, route);
        let mut rng = fastrand::Rng::with_seed(seed);
        for _ in 0..4000 {
            story.step(|| rng.u8(..100) < 20);
            prop_assert!(story.mtu.proven() <= route.max(MIN_PACKET));
            prop_assert!((story.mtu.minimum()..=limit).contains(&story.mtu.proven()));
        }
        story.pass(RAISE_AFTER * 2);
        prop_assert!(story.has_settled(), "{:?}", story.mtu);
    }

    #[test]
    fn no_order_of_events_breaks_it(
        limit: u16, events in proptest::collection::vec((0..6_u8, any::<u16>()), 0..200),
    ) {
        let mut mtu = PathMtu::new(limit);
        let mut now = epoch();
        for (event, number) in events {
            match event {
                0 => if let Some(length) = mtu.due(now, number % 2 == 0) {
                    mtu.asked(Ask { number: u64::from(number % 8), sent: now, length });
                },
                1 => drop(mtu.answered(u64::from(number % 8))),
                2 => mtu.passed(number.min(mtu.limit)),
                3 => mtu.expire(now, PATIENCE),
                4 => mtu.doubt(mtu.proven()),
                _ => mtu.forget(),
            }
            now += Duration::from_millis(u64::from(number));
            prop_assert!((mtu.minimum()..=mtu.limit).contains(&mtu.get()));
        }
    }
}
