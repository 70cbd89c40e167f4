#!/usr/bin/env bash
# Lives through random networks in random misfortune: virtual time, simulated NATs, the core that ships (tests/sim).
#
#   scripts/sim.sh [count] [first seed]     10 000 scenarios from seed 0, on all cores
#   scripts/sim.sh 1 4711                   replays one seed; with SIM_TRACE=1 it tells the whole story
#   scripts/sim.sh entries ...              the same of the registry: writers in misfortune, from seeds of their own
#
# Prints each seed that broke an invariant, and fails if there was one.
set -euo pipefail
cd "$(dirname "$0")/../tests/sim"
cargo run --release --quiet --locked -- "${@:-10000}"
