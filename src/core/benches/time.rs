//! How long the core takes for a packet.
//!
//! ```text
//! cargo bench -p hivevpn-core --bench time                 # all cases
//! cargo bench -p hivevpn-core --bench time -- seal         # those with "seal" in their names
//! ```
//!
//! What depends on the machine's mood is better compared in instructions: `scripts/instructions.sh`.

use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};

use cases::CASES;

mod cases;

#[expect(clippy::disallowed_methods, reason = "this is the stop-watch")]
fn now() -> Instant {
    Instant::now()
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    for entry in CASES {
        let mut group = criterion.benchmark_group("core");
        group.throughput(Throughput::Elements(entry.per_run as u64));
        group.bench_function(entry.name, |bencher| {
            let mut case = (entry.case)();
            bencher.iter_custom(|runs| {
                let mut taken = Duration::ZERO;
                for _ in 0..runs {
                    case.prepare();
                    let begin = now();
                    case.run();
                    taken += now() - begin;
                }
                taken
            });
        });
        group.finish();
    }
    criterion.final_summary();
}
