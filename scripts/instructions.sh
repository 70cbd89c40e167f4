#!/usr/bin/env bash
# Counts the instructions that the core spends on a packet: numbers that do not depend on the machine's mood, so that
# two commits can be compared. Needs valgrind.
#
#   scripts/instructions.sh             all cases (src/core/benches/cases.rs)
#   scripts/instructions.sh seal open   those with one of the words in their names
set -euo pipefail
cd "$(dirname "$0")/.."

runs=100
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

cargo bench --quiet -p hivevpn-core --bench instructions --no-run --message-format=json >"$scratch/build"
bench=$(sed -n 's/.*"executable":"\([^"]*instructions[^"]*\)".*/\1/p' "$scratch/build")
pattern=$(IFS='|'; echo "$*")

printf '%-28s %14s\n' 'case' 'instructions'
"$bench" list | while read -r name per_run; do
  [[ $name =~ $pattern ]] || continue
  valgrind --tool=callgrind --callgrind-out-file=/dev/null --toggle-collect='*::measured' \
    "$bench" run "$name" "$runs" >/dev/null 2>"$scratch/log" || { cat "$scratch/log" >&2; exit 1; }
  total=$(sed -n 's/.*Collected *: *\([0-9]*\).*/\1/p' "$scratch/log")
  printf '%-28s %14d\n' "$name" $((total / (runs * per_run)))
done
