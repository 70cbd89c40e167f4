# shellcheck shell=bash
# What is measured between two nodes that reach each other. Each measure records one or more samples; report.py
# knows their names and units.
# shellcheck disable=SC2034,SC2154  # variables shared with the other parts

all_measures=idle,ping,tcp1,tcp8,bidi,u64,pingload,tcp4

measures_on() { # <link> <peer>
  local measure candidates=()
  case $1 in
    veth)
      [ "$2" = hivevpn ] || { [ "$2" != raw ] && [ "$round" = 1 ]; } && candidates=(idle)
      candidates+=(ping tcp1 tcp8 bidi u64 pingload)
      ;;
    stream | relay) candidates=(ping tcp1 tcp8 pingload) ;;
    lossy) candidates=(ping tcp4) ;;
  esac
  for measure in "${candidates[@]}"; do
    if has "$measure" "${measures:-$all_measures}"; then echo "$measure"; fi
  done
}

calculate() { # <awk expression> <name=value...>
  local expression=$1 variable variables=()
  shift
  for variable; do variables+=(-v "$variable"); done
  awk "${variables[@]}" "BEGIN { printf \"%.4g\n\", $expression }"
}

# --- what the daemons use -----------------------------------------------------------------------------------------

# Processor time of all daemons so far, in seconds. The kernel's clocks of a process count nanoseconds and the
# threads that have ended, which /proc does not.
processor_seconds() {
  python3 -c '
import sys, time
CPUCLOCK_SCHED = 2
print(sum(time.clock_gettime(~int(process) << 3 | CPUCLOCK_SCHED) for process in sys.argv[1:]))
' "${daemons[@]}"
}

memory() { # <VmRSS|VmHWM>: of the largest daemon, in MB
  local daemon
  for daemon in "${daemons[@]}"; do
    awk -v field="$1:" '$1 == field { print $2 * 1024 / 1e6 }' "/proc/$daemon/status"
  done | sort -n | tail -n 1
}

measure_idle() { # per node, once what belongs to starting is over
  sleep $((idle_seconds / 2))
  local before after
  before=$(processor_seconds)
  sleep "$idle_seconds"
  after=$(processor_seconds)
  record idle_cpu "$(calculate '100 * (after - before) / seconds / nodes' \
    before="$before" after="$after" seconds="$idle_seconds" nodes=${#daemons[@]})"
  record idle_rss "$(memory VmRSS)"
}

measure_peak() {
  [ ${#daemons[@]} = 0 ] || record peak_rss "$(memory VmHWM)"
}

# --- iperf3 ---------------------------------------------------------------------------------------------------------

iperf() { # <arguments of the client...>: leaves its JSON in $scratch/iperf.json
  # A server for each test, because one whose test got lost stays busy.
  ip netns exec b iperf3 --server --one-off --bind "$overlay_b" >/dev/null 2>&1 &
  local server=$! status=0
  await 3 listening &&
    on a timeout $((seconds * 3 + 15)) iperf3 --client "$overlay_b" --json "$@" >"$scratch/iperf.json" 2>/dev/null ||
    status=1
  end $server
  return $status
}
listening() { on b ss -Hltn 'sport = :5201' | grep -q .; }

result() { jq -er "$1" "$scratch/iperf.json"; } # <jq filter>

gigabits() { calculate 'bits / 1e9' bits="$(result '.end.sum_received.bits_per_second')"; }

measure_tcp() { # <name> <streams>: throughput, and the daemons' processor seconds per gigabyte that arrived
  local before after bytes
  before=$(processor_seconds)
  iperf --time "$seconds" --parallel "$2" || return 1
  after=$(processor_seconds)
  bytes=$(result '.end.sum_received.bytes') || return 1
  record "$1" "$(gigabits)"
  [ ${#daemons[@]} = 0 ] || record "$1_cpu" "$(calculate '(after - before) / (bytes / 1e9)' \
    before="$before" after="$after" bytes="$bytes")"
}
measure_tcp1() { measure_tcp tcp1 1; }
measure_tcp8() { measure_tcp tcp8 8; }

measure_bidi() { # one stream each way at once: the sum
  local bits
  iperf --time "$seconds" --bidir || return 1
  bits=$(result '.end | .sum_received.bits_per_second + .sum_received_bidir_reverse.bits_per_second') || return 1
  record bidi "$(calculate 'bits / 1e9' bits="$bits")"
}

measure_u64() { # as many small packets as the sender can make: how many arrive
  # The window keeps iperf3's own socket from being what overflows.
  iperf --time "$seconds" --udp --bitrate 0 --length 64 --window 2M --udp-counters-64bit || return 1
  local packets
  packets=$(result '.end.sum_received | .bytes / 64 / .seconds') || return 1
  record u64 "$(calculate 'packets / 1e3' packets="$packets")"
}

# --- ping -------------------------------------------------------------------------------------------------------------

ping_times() { # <count>: round trips in microseconds, sorted
  on a ping -n -i 0.004 -c "$1" -W 2 "$overlay_b" |
    sed -n 's/.*time=\([0-9.]*\) ms.*/\1/p' | sort -n | awk '{ print $1 * 1000 }' >"$scratch/ping"
  [ -s "$scratch/ping" ]
}

percentile() { # <of 100>
  awk -v rank="$1" '{ sorted[NR] = $1 } END { at = int(NR * rank / 100 + 0.999); print sorted[at < 1 ? 1 : at] }' \
    "$scratch/ping"
}

measure_ping() {
  ping_times 400 || return 1
  record ping_p50 "$(percentile 50)"
}

ping_under_load() { # <seconds> <streams>: the load's result stays in iperf.json
  local load status=0
  iperf --time "$1" --parallel "$2" &
  load=$!
  sleep 1
  ping_times $((($1 - 1) * 200)) || status=1
  wait $load || status=1
  return $status
}

record_ping_under_load() {
  record load_p50 "$(percentile 50)"
  record load_p99 "$(percentile 99)"
}

measure_pingload() {
  ping_under_load $((seconds + 1)) 1 || return 1
  record_ping_under_load
}

measure_tcp4() { # on a link that loses packets: longer, because what is lost when is chance
  ping_under_load $((seconds * 3)) 4 || return 1
  record tcp4 "$(gigabits)"
  record_ping_under_load
}
