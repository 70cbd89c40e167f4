//! Runs one case a number of times, for valgrind to count the instructions of [`measured`].
//!
//! `scripts/instructions.sh` does that for all cases and prints a table; by hand:
//!
//! ```text
//! cargo bench -p hivevpn-core --bench instructions -- list
//! valgrind --tool=callgrind --toggle-collect='*measured*' <binary> run seal-1420 100
//! ```

use cases::{CASES, Case};

mod cases;

/// Nothing else is counted.
#[inline(never)]
fn measured(case: &mut dyn Case) {
    case.run();
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["run", name, runs] => {
            let entry = CASES.iter().find(|entry| entry.name == name);
            let entry = entry.unwrap_or_else(|| panic!("no case is called '{name}'"));
            let runs: usize = runs.parse().expect("how many runs: a number");
            let mut case = (entry.case)();
            for _ in 0..runs {
                case.prepare();
                measured(case.as_mut());
            }
        }
        // Each case with what one run handles. Cargo asks for nothing, or adds `--bench`.
        _ => {
            for entry in CASES {
                println!("{} {}", entry.name, entry.per_run);
            }
        }
    }
}
