#!/usr/bin/env bash
# hivevpn beside its peers: on one machine, in one run, over the same link.
#
#   scripts/bench.sh                     everything that is installed, in 40 minutes
#   scripts/bench.sh --quick             one short round with two peers, in 90 seconds: does it all work?
#   scripts/bench.sh -o DIR --bars       keeps samples.tsv, table.md and plot.svg, and judges
#
#   -r, --rounds N           rounds (5); each starts every peer once, afresh, one after the other, so that a
#                            mood of the machine hits all of them alike
#   -t, --seconds N          length of one measurement (5); three times that on the lossy link
#   -p, --peers LIST         raw,hivevpn,wireguard-go,wireguard-go-new,boringtun,boringtun-1,nebula,tinc
#   -l, --links LIST         veth     two namespaces and a cable between them
#                            stream   the same, and no UDP gets through          (hivevpn only)
#                            relay    a and b each reach r, but not each other   (hivevpn only)
#                            lossy    round trip 40 ms, 50 Mbit/s, 0.3 % loss    (WireGuards and raw only)
#   -m, --measures LIST      tcp1,tcp8,bidi,u64,ping,pingload,idle,tcp4 as far as the link has them
#       --idle SECONDS       how long an idle node is watched (10); hivevpn's in every round, the others' in one
#       --congestion NAME    TCP's congestion control at both ends (the machine's)
#       --hivevpn BIN        default target/release/hivevpn, which is built if it is not there
#       --wireguard-go BIN   a second build of wireguard-go, called wireguard-go-new above
#   -o, --output DIR         where to leave samples.tsv, table.md, plot.svg
#       --bars               print which of the project's bars hold; the exit status does not depend on it
#
# Needs root or user namespaces, and /dev/net/tun. Runs in namespaces of its own (network, mounts, processes),
# which take everything with them, however it ends. scripts/bench/report.py DIR/samples.tsv prints a table again.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
parts=$root/scripts/bench

die() { echo "bench.sh: $*" >&2; exit 1; }
usage() { sed -n '2,/^set/{/^set/!s/^# \{0,1\}//p}' "$0"; }
has() { [[ ",$2," == *",$1,"* ]]; } # <word> <comma list>

# --- options ----------------------------------------------------------------------------------------------

rounds='' seconds='' peers='' links=veth,stream,relay,lossy measures='' idle_seconds='' congestion=''
hivevpn='' wireguard_go_new='' output='' quick=no
report_options=() arguments=("$@")
options=$(getopt --name bench.sh --options r:t:p:l:m:o:h \
  --longoptions rounds:,seconds:,peers:,links:,measures:,idle:,congestion:,hivevpn:,wireguard-go:,output:,bars,quick,help \
  -- "$@") || exit 2
eval set -- "$options"
while [ "$1" != -- ]; do
  case $1 in
    -r | --rounds) rounds=$2; shift ;;
    -t | --seconds) seconds=$2; shift ;;
    -p | --peers) peers=$2; shift ;;
    -l | --links) links=$2; shift ;;
    -m | --measures) measures=$2; shift ;;
    --idle) idle_seconds=$2; shift ;;
    --congestion) congestion=$2; shift ;;
    --hivevpn) hivevpn=$2; shift ;;
    --wireguard-go) wireguard_go_new=$2; shift ;;
    -o | --output) output=$2; shift ;;
    --bars) report_options+=(--bars) ;;
    --quick) quick=yes ;;
    -h | --help) usage; exit ;;
  esac
  shift
done
shift
[ $# = 0 ] || die "what is '$1'? See --help"

if [ $quick = yes ]; then
  : "${rounds:=1}" "${seconds:=2}" "${idle_seconds:=2}" "${peers:=hivevpn,wireguard-go}"
fi
: "${rounds:=5}" "${seconds:=5}" "${idle_seconds:=10}"
: "${peers:=raw,hivevpn,wireguard-go,wireguard-go-new,boringtun,boringtun-1,nebula,tinc}"
for number in "$rounds" "$seconds" "$idle_seconds"; do
  [[ $number =~ ^[1-9][0-9]*$ ]] || die "'$number' should be a whole number, at least 1"
done

# shellcheck source=scripts/bench/links.sh
. "$parts/links.sh"
# shellcheck source=scripts/bench/peers.sh
. "$parts/peers.sh"
# shellcheck source=scripts/bench/measures.sh
. "$parts/measures.sh"

for link in ${links//,/ }; do has "$link" "$all_links" || die "no link is called '$link': $all_links"; done
for peer in ${peers//,/ }; do has "$peer" "$all_peers" || die "no peer is called '$peer': $all_peers"; done
for measure in ${measures//,/ }; do
  has "$measure" "$all_measures" || die "no measure is called '$measure': $all_measures"
done

# --- outside: prepare, then go on in namespaces that end with this process -----------------------------------

check_programs() {
  local program
  for program in ip nft unshare setpriv iperf3 ping jq python3; do
    command -v "$program" >/dev/null || die "needs $program (see .ci/run for the packages)"
  done
  [ -w /dev/net/tun ] || die "/dev/net/tun is not there, or not ours to write: run as root"
}

prepare() {
  check_programs
  if [ -z "$hivevpn" ]; then
    hivevpn=${CARGO_TARGET_DIR:-$root/target}/release/hivevpn
    [ -x "$hivevpn" ] || (cd "$root" && cargo build --release)
  fi
  if has lossy "$links" && ! rustc --edition 2024 -O -o "$scratch/linkem" "$parts/linkem.rs"; then
    echo 'bench.sh: no lossy link, because rustc cannot compile its emulator' >&2
  fi
  [ -z "$output" ] || mkdir -p "$output"
}

clean_up() {
  trap - EXIT
  if [ -n "${inside:-}" ]; then
    kill -KILL "$inside" || true
    wait "$inside" || true
  fi 2>/dev/null
  rm -rf "$scratch" 2>/dev/null || { sleep 1; rm -rf "$scratch"; } # the last processes may still be writing
}

# The shell inside is process 1 of its namespace: with it, the kernel ends all the others.
run_inside() { # <arguments...>
  local as_root=()
  [ "$(id -u)" = 0 ] || as_root=(--map-root-user)
  HIVEVPN_BENCH=$scratch setpriv --pdeathsig KILL \
    unshare "${as_root[@]}" --net --mount --pid --fork --kill-child --mount-proc \
    "$BASH" "$0" --hivevpn "$hivevpn" "$@" &
  inside=$!
  wait "$inside" || die 'the benchmark ended before its time'
}

if [ -z "${HIVEVPN_BENCH:-}" ]; then
  scratch=$(mktemp -d "${TMPDIR:-/tmp}/hivevpn-bench.XXXXXX")
  trap clean_up EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP
  prepare
  run_inside "${arguments[@]}"
  [ -z "$output" ] || cp "$scratch/samples.tsv" "$output/"
  "$parts/report.py" "$scratch/samples.tsv" "${report_options[@]}" ${output:+--output "$output"}
  exit
fi

# --- inside ---------------------------------------------------------------------------------------------------

scratch=$HIVEVPN_BENCH
samples=$scratch/samples.tsv

about_this_run() { # what a reader must know to judge the samples
  printf '# date\t%s\n# kernel\t%s\n# cores\t%s\n' "$(date -u +%F)" "$(uname -r)" "$(nproc)"
  printf '# processor\t%s\n' "$(sed -n 's/^model name[[:space:]]*: //p;T;q' /proc/cpuinfo)"
  printf '# congestion\t%s\n' "${congestion:-$(sysctl -n net.ipv4.tcp_congestion_control)}"
  printf '# iperf3\t%s\n' "$(iperf3 --version | sed 's/ (.*//;q')"
  printf '# load before\t%s\n# rounds\t%s\n# seconds\t%s\n' "$(cut -d' ' -f1-3 /proc/loadavg)" "$rounds" "$seconds"
  local peer
  for peer in $(installed_peers); do printf '# peer %s\t%s\n' "$peer" "$(version_of "$peer")"; done
}

plan() { # prints what one round consists of: lines of link and peer
  local link peer
  for link in ${links//,/ }; do
    [ "$link" != lossy ] || [ -x "$scratch/linkem" ] || continue
    for peer in $(installed_peers); do
      if has "$peer" "$(peers_on "$link")"; then echo "$link $peer"; fi
    done
  done
}

record() { # <measure> <value>
  printf '%s\t%s\t%s\t%s\t%s\n' "$round" "$link" "$peer" "$1" "$2" >>"$samples"
  printf '  %s %s' "$1" "$2" >&2
}

measure_one() { # <link> <peer>
  link=$1 peer=$2
  printf '%s/%s  %-7s%-17s' "$round" "$rounds" "$link" "$peer" >&2
  if lay "$link" && start "$peer"; then
    local measure
    for measure in $(measures_on "$link" "$peer"); do
      "measure_$measure" || record "failed_$measure" 1
    done
    measure_peak
  else
    record failed 1
    tail -n 5 "$scratch"/*.log >&2 || true
  fi
  echo >&2
  stop
  remove_link
}

# Nothing of the machine's is touched: an empty /run gives `ip netns` and `wg` places of their own.
mount -t tmpfs tmpfs /run
mkdir /run/netns /run/wireguard
about_this_run >"$samples"
explain_missing >&2
plan >"$scratch/plan"
[ -s "$scratch/plan" ] || die 'nothing is left to measure'
for ((round = 1; round <= rounds; round++)); do
  while read -r link peer <&3; do measure_one "$link" "$peer"; done 3<"$scratch/plan"
done
