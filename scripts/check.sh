#!/usr/bin/env bash
# Everything CI checks, in the order in which it fails fastest. Stops at the first failure.
#
#   scripts/check.sh            all steps
#   scripts/check.sh fast       without the end-to-end tests
#
# The end-to-end tests need root or user namespaces, and the programs that .ci/run installs.
set -euo pipefail
cd "$(dirname "$0")/.."

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

step() { # <name> <command...>
  local name=$1 begin=$SECONDS
  shift
  printf '\n── %s\n' "$name"
  "$@" || { printf '\n── %s: FAILED after %d s\n' "$name" $((SECONDS - begin)) >&2; exit 1; }
  printf '── %s: %d s\n' "$name" $((SECONDS - begin))
}

tests() { # <cargo test arguments...>: keeps cargo's closing lines for the end
  local output
  output=$(mktemp -p "$scratch")
  cargo test --quiet "$@" 2>&1 | tee "$output" || return 1
  { grep '^test result:' "$output" | grep -v ' 0 passed; 0 failed'; } >>"$scratch/results" || true
}

side_by_side() { # <step> <step>: each of them leaves a core idle for minutes
  local beside outcome=0
  set -m # a process group, to end all of it
  "$1" >"$scratch/beside" 2>&1 &
  beside=$!
  set +m
  "$2" || { kill -- "-$beside" 2>/dev/null; return 1; }
  wait "$beside" || outcome=1
  cat "$scratch/beside"
  return "$outcome"
}

core_is_pure() { # no runtime, no sockets; that it reads no clock is clippy's part (src/core/clippy.toml)
  local tree impure='^(tokio|async-io|mio|socket2|quinn|tun-rs|rtnetlink|libp2p) v'
  tree=$(cargo tree -p hivevpn-core -e normal --prefix none) || return 1
  if grep -E "$impure" <<<"$tree" >&2; then
    echo 'hivevpn-core must do no I/O, but depends on the above' >&2
    return 1
  fi
}

# Internal documentation too: the code is read more often than the API is used.
docs() {
  RUSTDOCFLAGS='-D warnings -A rustdoc::private-intra-doc-links' \
    cargo doc --workspace --no-deps --document-private-items --quiet
}

dependencies() {
  cargo deny --version >/dev/null 2>&1 || cargo install --locked --quiet cargo-deny
  local checks=(bans licenses sources)
  if timeout 60 cargo deny --log-level off fetch db; then
    checks+=(advisories)
  else
    echo "the advisory database cannot be fetched here: advisories are not checked"
  fi
  cargo deny --log-level error check "${checks[@]}"
}

simulation() { # a workspace of its own, for a feature that would stop the real binary's clock
  (
    cd tests/sim &&
      cargo fmt --check &&
      cargo clippy --all-targets --quiet --locked -- -D warnings &&
      tests --locked
  )
}

corpora() { # what fuzzers have kept, replayed; scripts/fuzz.sh looks for more
  (
    # Most of what it is made of has been built.
    export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}
    cd tests/fuzz &&
      cargo fmt --check &&
      cargo clippy --all-targets --quiet --locked -- -D warnings &&
      tests --locked
  )
}

step 'format' cargo fmt --all --check
step 'lints' cargo clippy --workspace --all-targets --quiet -- -D warnings
step 'lints without post-quantum keys' cargo clippy -p hivevpn-core --all-targets --no-default-features --quiet -- -D warnings
step 'the core is pure' core_is_pure
step 'documentation' docs
step 'dependencies' dependencies
# Always the whole workspace: with other packages come other features, and everything is built again.
step 'unit and property tests' tests --workspace --lib --bins
step 'examples in the documentation' tests --workspace --doc
step 'simulation and corpora of the fuzzers' side_by_side simulation corpora
[ "${1:-}" = fast ] || {
  # Two at a time: the tests wait more than they work. Those about time have the machine for themselves.
  measuring=(bench:: fairness:: nat_matrix:: strangers::)
  step 'end-to-end tests' tests --workspace --test '*' -- --test-threads 2 "${measuring[@]/#/--skip=}"
  step 'end-to-end tests about time' tests --workspace --test e2e -- --test-threads 1 "${measuring[@]}"
}

printf '\nall checks passed in %d s\n' "$SECONDS"
cat "$scratch/results"
