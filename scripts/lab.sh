#!/usr/bin/env bash
# A network to play with: two nodes behind NAT and a public one, with the real binary.
#
#   scripts/lab.sh up             r is public and founds the network; a and b sit behind routers and join
#   scripts/lab.sh shell a|b|r    a shell on one of them: hivevpn status, hivevpn ping b, ssh, iperf3 …
#   scripts/lab.sh down           undoes everything
#
#      r 203.0.113.11                          Works as any user where user namespaces are allowed.
#   =====+==========+============+=====        NAT: both routers masquerade, as at home. With
#                 router       router          NAT=symmetric no direct path exists and r relays.
#                   |            |
#            a 10.0.1.10    b 10.0.2.10
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
lab=${HIVEVPN_LAB:-${TMPDIR:-/tmp}/hivevpn-lab-$(id -un)}
binary=${CARGO_TARGET_DIR:-$root/target}/release/hivevpn
nodes=(r a b)

die() { echo "lab.sh: $*" >&2; exit 1; }
usage() { sed -n '2,/^set/{/^set/!s/^# \{0,1\}//p}' "$0" >&2; exit 2; }
ns() { local host=$1; shift; ip netns exec "hvlab-$host" "$@"; }

on() { # <host> <command...>: under the host's name, with its state
  local host=$1
  shift
  ns "$host" env HIVEVPN_STATE="$lab/$host" PATH="$(dirname "$binary"):$PATH" \
    unshare --uts sh -c 'hostname "$0" && exec "$@"' "$host" "$@"
}

machine() { ip netns add "hvlab-$1"; ip -n "hvlab-$1" link set lo up; }

cable() { # <host> <interface> <switch's host> <bridge>
  ip -n "hvlab-$3" link add name "to-$1" type veth peer name "$2" netns "hvlab-$1"
  ip -n "hvlab-$3" link set dev "to-$1" master "$4" up
  ip -n "hvlab-$1" link set "$2" up
}

address() { # <host> <interface> <address/prefix> <gateway>
  ip -n "hvlab-$1" addr add "$3" dev "$2"
  [ -z "$4" ] || ip -n "hvlab-$1" route add default via "$4"
}

router() { # <number> <masquerade options>
  local name=router$1
  machine "$name"
  cable "$name" wan net internet
  address "$name" wan "203.0.113.10$1/24" 203.0.113.1
  ip -n "hvlab-$name" link add lan type bridge forward_delay 0
  ip -n "hvlab-$name" link set lan up
  address "$name" lan "10.0.$1.1/24" ''
  ns "$name" sysctl -qw net.ipv4.ip_forward=1
  ns "$name" nft -f - <<NFT
table inet lab {
  chain forwarding {
    type filter hook forward priority filter; policy drop;
    iifname lan accept
    ct state established,related accept
  }
  chain local {
    type filter hook input priority filter; policy drop;
    iifname { lan, lo } accept
    ct state established,related accept
  }
  chain translation {
    type nat hook postrouting priority srcnat;
    oifname wan masquerade $2
  }
}
NFT
}

lay_cables() {
  local options=''
  case ${NAT:-home} in home) ;; symmetric) options=fully-random ;; *) die "NAT is home or symmetric, not $NAT" ;; esac
  machine net
  ip -n hvlab-net link add internet type bridge forward_delay 0
  ip -n hvlab-net link set internet up
  address net internet 203.0.113.1/24 ''
  machine r
  cable r eth0 net internet
  address r eth0 203.0.113.11/24 203.0.113.1
  local number=0 host
  for host in a b; do
    number=$((number + 1))
    router $number "$options"
    machine $host
    cable $host eth0 router$number lan
    address $host eth0 "10.0.$number.10/24" "10.0.$number.1"
  done
}

start() { # <host> <arguments of up...>: returns when the node answers
  local host=$1
  shift
  mkdir -p -m 700 "$lab/$host"
  on "$host" setsid hivevpn up "$@" </dev/null >"$lab/$host.log" 2>&1 &
  local node=$! tries
  for ((tries = 0; tries < 100; tries++)); do
    on "$host" hivevpn status >/dev/null 2>&1 && return
    kill -0 $node 2>/dev/null || break
    sleep 0.1
  done
  cat "$lab/$host.log" >&2
  die "the node on $host does not come up"
}

prepare() {
  [ ! -e "$lab" ] || die "it is up already, or was not taken down: scripts/lab.sh down"
  [ -x "$binary" ] || (cd "$root" && cargo build --release)
  mkdir -m 700 "$lab"
}

up() {
  lay_cables
  start r
  start a --join "$(on r hivevpn invite)"
  start b --join "$(on r hivevpn invite)"
  on a hivevpn status --wait online --peer b --timeout 20 >/dev/null || true
  local host
  for host in "${nodes[@]}"; do echo "scripts/lab.sh shell $host    # log: $lab/$host.log"; done
  on a hivevpn status
}

down() {
  local name pid
  for name in $(ip netns list | awk '{ print $1 }' | grep '^hvlab-' || true); do
    for pid in $(ip netns pids "$name"); do kill -KILL "$pid" 2>/dev/null || true; done
    ip netns delete "$name"
  done
  [ ! -e "$lab/holder" ] || kill "$(cat "$lab/holder")" 2>/dev/null || true
  rm -rf "$lab"
}

# Without root, a process holds a user namespace in which we are root.
hold_user_namespace() {
  local prepare='mount -t tmpfs tmpfs /run && mkdir /run/netns && echo $$ >"$0" && exec sleep infinity' tries
  unshare --user --map-root-user --net --mount sh -c "$prepare" "$lab/holder" </dev/null >/dev/null 2>&1 &
  for ((tries = 0; tries < 50; tries++)); do
    [ ! -s "$lab/holder" ] || return 0
    sleep 0.1
  done
  rm -rf "$lab"
  die "user namespaces are not allowed here: run as root"
}

case ${1:-} in
  up) [ -n "${HIVEVPN_LAB:-}" ] || prepare ;;
  down) ;;
  shell) [[ " ${nodes[*]} " == *" ${2:-} "* ]] || usage ;;
  *) usage ;;
esac
[ -e "$lab" ] || die "it is not up: scripts/lab.sh up"
if [ "$(id -u)" != 0 ]; then
  [ "$1" != up ] || hold_user_namespace
  exec nsenter --target "$(cat "$lab/holder")" --user --net --mount --preserve-credentials \
    env HIVEVPN_LAB="$lab" "$0" "$@"
fi
case $1 in
  up) up ;;
  down) down ;;
  shell) on "$2" env PS1="$2 \w \$ " bash --norc -i ;;
esac
