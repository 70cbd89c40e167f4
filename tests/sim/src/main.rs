//! Lives through many random scenarios: `hivevpn-sim [entries] [count] [first seed]`, with `entries` those of the registry.
//! Prints every seed that broke an invariant, with how to replay it, and fails if there was one.

use std::{
    panic,
    process::ExitCode,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Instant,
};

use hivevpn_sim::scenario::{self, Outcome, entries};

/// How a kind of scenario is lived through, and how again.
type Kind = (fn(u64) -> Outcome, fn(u64) -> String);

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1).peekable();
    let (live_through, replay): Kind = match arguments.next_if(|word| word == "entries") {
        Some(_) => (entries::run, entries::replay),
        None => (scenario::run, scenario::replay),
    };
    let mut number = |default: u64| {
        let text = arguments.next();
        text.map_or(Some(default), |text| text.parse().ok())
    };
    let (Some(count), Some(first)) = (number(10_000), number(0)) else {
        eprintln!("usage: hivevpn-sim [entries] [count] [first seed]");
        return ExitCode::from(2);
    };
    let begin = Instant::now();
    let (next, failures, lines) = (AtomicU64::new(first), AtomicU64::new(0), AtomicU64::new(0));
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + count {
                return;
            }
            match panic::catch_unwind(|| live_through(seed)) {
                Ok(outcome) => {
                    lines.fetch_add(outcome.lines, Ordering::Relaxed);
                    if !outcome.broken.is_empty() {
                        failures.fetch_add(1, Ordering::Relaxed);
                        println!("{outcome}");
                    }
                }
                Err(_) => {
                    failures.fetch_add(1, Ordering::Relaxed);
                    println!("seed {seed}: panicked\n  replay: {}", replay(seed));
                }
            }
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let failures = failures.into_inner();
    println!(
        "{count} scenarios from seed {first}, {} events, {:.0} s: {failures} broke an invariant",
        lines.into_inner(),
        begin.elapsed().as_secs_f64()
    );
    if failures == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
