#!/bin/sh
# Fuzzes everything that is read from the network or from files, one target after the other, with the stable compiler.
#
#   scripts/fuzz.sh                  all targets, 600 seconds each
#   scripts/fuzz.sh packets 60       one target for a minute
#   scripts/fuzz.sh all 60           all targets for a minute each
#   scripts/fuzz.sh --keep packets   adds what was found to the corpus that `cargo test` replays, a few dozen files of it
#
# Needs cargo-fuzz (cargo install cargo-fuzz) and a C++ compiler. What is found grows in $FUZZ_DIR/<target>, the log is
# $FUZZ_DIR/<target>.log, what breaks something lies in tests/fuzz/artifacts/<target>.
set -eu
cd "$(dirname "$0")/../tests/fuzz"
FUZZ_DIR=${FUZZ_DIR:-${TMPDIR:-/tmp}/hivevpn-fuzz}
KEEP=48
mkdir -p "$FUZZ_DIR"
# libFuzzer's instrumentation is an unstable flag of the stable compiler. No sanitizer: our code is safe Rust, and a
# panic, a hang or growing memory is what we look for. cfg(fuzzing) would change what some dependencies do.
export RUSTC_BOOTSTRAP=1
OPTIONS="--fuzz-dir . --sanitizer none --no-cfg-fuzzing --features fuzzer"

targets() {
    sed -n 's/^name = "\([a-z]*\)"$/\1/p' Cargo.toml
}

fuzz() {
    mkdir -p "$FUZZ_DIR/$1"
    # shellcheck disable=SC2086
    cargo fuzz run $OPTIONS "$1" "$FUZZ_DIR/$1" "corpus/$1" -- \
        -max_total_time="$2" -timeout=10 -rss_limit_mb=1024 -max_len=8192 -print_final_stats=1 \
        >"$FUZZ_DIR/$1.log" 2>&1
}

keep() {
    smallest=$(mktemp -d)
    # shellcheck disable=SC2086
    cargo fuzz run $OPTIONS "$1" "$smallest" "corpus/$1" "$FUZZ_DIR/$1" -- -merge=1 -max_len=8192 \
        >"$FUZZ_DIR/$1.merge.log" 2>&1
    # The shortest first: they say most in least.
    find "$smallest" -type f -size -5k -printf '%s %p\n' | sort -n | head -n "$KEEP" | while read -r _ file; do
        cp "$file" "corpus/$1/"
    done
    rm -r "$smallest"
}

if [ "${1:-}" = --keep ]; then
    keep "$2"
    exit
fi
which=${1:-all}
[ "$which" = all ] && which=$(targets)
failed=
for target in $which; do
    fuzz "$target" "${2:-600}" || failed="$failed $target"
done
if [ -n "$failed" ]; then
    echo "something was found:$failed; see $FUZZ_DIR" >&2
    exit 1
fi
