# shellcheck shell=bash
# How each peer is started. Starting one ends with two nodes that reach each other, and sets overlay_a and
# overlay_b, their addresses inside the tunnel; `daemons` holds the process ids of all of the peer's nodes.
# shellcheck disable=SC2034,SC2154  # variables shared with the other parts

all_peers=raw,hivevpn,wireguard-go,wireguard-go-new,boringtun,boringtun-1,nebula,tinc

daemons=()

# --- which there are ------------------------------------------------------------------------------------------

peers_on() { # <link>
  case $1 in
    veth) echo $all_peers ;;
    lossy) echo raw,hivevpn,wireguard-go,wireguard-go-new ;;
    stream | relay) echo hivevpn ;;
  esac
}

missing() { # <peer>: prints what to do about its absence, or nothing
  local program=$1 remedy="Debian package $1"
  case $1 in
    raw) return ;;
    hivevpn) program=$hivevpn remedy='cargo build --release' ;;
    wireguard-go-new) program=$wireguard_go_new remedy='--wireguard-go BIN names a newer build to compare with' ;;
    boringtun | boringtun-1) program=boringtun-cli remedy='cargo install boringtun-cli' ;;
    tinc) program=tincd ;;
  esac
  command -v "$program" >/dev/null || { echo "$remedy"; return; }
  case $1 in
    wireguard-go* | boringtun*) command -v wg >/dev/null || echo 'Debian package wireguard-tools' ;;
  esac
}

installed_peers() {
  local peer
  for peer in ${peers//,/ }; do [ -n "$(missing "$peer")" ] || echo "$peer"; done
}

explain_missing() {
  local peer
  for peer in ${peers//,/ }; do
    [ -z "$(missing "$peer")" ] || echo "without $peer: $(missing "$peer")"
  done
}

version_of() { # <peer>: as a reader of the table should see it
  case $1 in
    raw) echo 'bare link' ;;
    hivevpn) "$hivevpn" version ;;
    wireguard-go) wireguard-go --version | sed 's/ v/ /;q' ;;
    wireguard-go-new) "$wireguard_go_new" --version | sed 's/ v/ /;q' ;;
    boringtun) boringtun-cli --version ;;
    boringtun-1) echo "$(boringtun-cli --version), one thread" ;;
    nebula) nebula -version | sed 's/Version:/nebula/' ;;
    tinc) tincd --version | sed 's/tinc version/tinc/; s/ (.*//; q' ;;
  esac
}

# --- daemons --------------------------------------------------------------------------------------------------

spawn() { # <node> <command...>: `ip netns exec` becomes the command, so that $! is the daemon itself
  ip netns exec "$@" >>"$scratch/$1.log" 2>&1 &
  daemons+=($!)
}

end() { # <process id...>: of children of this shell
  local process
  kill "$@" 2>/dev/null || true
  for process in "$@"; do
    await 3 gone "$process" || kill -KILL "$process" 2>/dev/null || true
    wait "$process" 2>/dev/null || true
  done
}
gone() { ! kill -0 "$1" 2>/dev/null; }

await() { # <seconds> <command...>: until it succeeds
  local deadline=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    ((SECONDS < deadline)) || return 1
    sleep 0.05
  done
}

stop() {
  [ ${#daemons[@]} = 0 ] || end "${daemons[@]}"
  daemons=()
}

start() { # <peer>
  rm -rf "$scratch"/{peer,*.log}
  mkdir -m 700 "$scratch/peer"
  daemons=()
  case $1 in
    raw) overlay_a=$underlay_a overlay_b=$underlay_b ;;
    hivevpn) start_hivevpn ;;
    wireguard-go) start_wireguard wireguard-go -f ;;
    wireguard-go-new) start_wireguard "$wireguard_go_new" -f ;;
    boringtun) start_wireguard boringtun-cli -f --disable-drop-privileges ;;
    boringtun-1) start_wireguard boringtun-cli -f --disable-drop-privileges --threads 1 ;;
    nebula) start_nebula ;;
    tinc) start_tinc ;;
  esac || return 1
  await 15 on a ping -c 1 -W 1 "$overlay_b"
}

# --- hivevpn: its own command line and nothing else --------------------------------------------------------------

start_hivevpn() {
  local founder=a path=direct options=()
  case $link in
    stream) path=stream ;;
    relay) # its address is a private one, so that nothing but these options makes it a relay
      founder=r path=relay options=(--relay true --external "$underlay_r")
      ;;
  esac
  ip netns exec $founder "$hivevpn" --state "$scratch/peer/$founder" up --name $founder "${options[@]}" \
    >"$scratch/peer/invite" 2>>"$scratch/$founder.log" &
  daemons+=($!)
  await 10 test -s "$scratch/peer/invite" || return 1
  join b "$(<"$scratch/peer/invite")"
  [ $founder = a ] || join a "$("$hivevpn" --state "$scratch/peer/$founder" invite)"
  await 10 answers a && await 10 answers b || return 1
  "$hivevpn" --state "$scratch/peer/a" status --wait $path --peer b --timeout 60 >/dev/null &&
    "$hivevpn" --state "$scratch/peer/b" status --wait $path --peer a --timeout 60 >/dev/null || return 1
  overlay_a=$(overlay_address a)
  overlay_b=$(overlay_address b)
}

join() { spawn "$1" "$hivevpn" --state "$scratch/peer/$1" up --name "$1" --join "$2"; } # <node> <invite>
answers() { "$hivevpn" --state "$scratch/peer/$1" status; }
overlay_address() { "$hivevpn" --state "$scratch/peer/$1" status --json | jq -er .node.ipv4; }

# --- WireGuards ---------------------------------------------------------------------------------------------------

start_wireguard() { # <command...>
  overlay_a=10.66.0.2 overlay_b=10.66.0.3
  local node
  for node in a b; do # named apart, because both control sockets lie in /run/wireguard
    spawn $node env WG_PROCESS_FOREGROUND=1 WG_LOG_FILE="$scratch/$node.log" "$@" wg-$node
    (umask 077 && wg genkey >"$scratch/peer/$node.key")
  done
  for node in a b; do await 5 on $node wg show wg-$node || return 1; done
  peer_up a $overlay_a b $overlay_b "$underlay_b"
  peer_up b $overlay_b a $overlay_a "$underlay_a"
}

peer_up() { # <node> <overlay address> <other node> <its overlay address> <its underlay address>
  on "$1" wg set "wg-$1" private-key "$scratch/peer/$1.key" listen-port 51820 \
    peer "$(wg pubkey <"$scratch/peer/$3.key")" allowed-ips "$4/32" endpoint "$5:51820"
  # What wg-quick sets on a path of 1500 bytes. Some daemons leave the kernel's 1500, which fragments.
  ip -n "$1" link set "wg-$1" mtu 1420
  address "$1" "wg-$1" "$2/24"
}

# --- nebula -------------------------------------------------------------------------------------------------------

start_nebula() {
  overlay_a=10.66.0.2 overlay_b=10.66.0.3
  (
    cd "$scratch/peer"
    nebula-cert ca -name bench
    nebula-cert sign -name a -ip $overlay_a/24
    nebula-cert sign -name b -ip $overlay_b/24
  ) >>"$scratch/a.log" 2>&1 || return 1
  nebula_configuration a $overlay_b "$underlay_b" >"$scratch/peer/a.yml"
  nebula_configuration b $overlay_a "$underlay_a" >"$scratch/peer/b.yml"
  local node
  for node in a b; do spawn $node nebula -config "$scratch/peer/$node.yml"; done
}

nebula_configuration() { # <node> <the other's overlay address> <its underlay address>
  cat <<YAML
pki: {ca: $scratch/peer/ca.crt, cert: $scratch/peer/$1.crt, key: $scratch/peer/$1.key}
static_host_map: {"$2": ["$3:4242"]}
lighthouse: {am_lighthouse: false, hosts: []}
listen: {host: 0.0.0.0, port: 4242}
tun: {dev: nebula}
logging: {level: error}
firewall:
  outbound: [{port: any, proto: any, host: any}]
  inbound: [{port: any, proto: any, host: any}]
YAML
}

# --- tinc ---------------------------------------------------------------------------------------------------------

start_tinc() {
  overlay_a=10.66.0.2 overlay_b=10.66.0.3
  tinc_configuration a $overlay_a "$underlay_a"
  tinc_configuration b $overlay_b "$underlay_b"
  echo 'ConnectTo = b' >>"$scratch/peer/a/tinc.conf"
  cp "$scratch/peer/a/hosts/a" "$scratch/peer/b/hosts/"
  cp "$scratch/peer/b/hosts/b" "$scratch/peer/a/hosts/"
  local node
  for node in b a; do
    spawn $node tincd --no-detach --config="$scratch/peer/$node" --pidfile="$scratch/peer/$node.pid"
  done
}

tinc_configuration() { # <node> <overlay address> <underlay address>
  local directory=$scratch/peer/$1
  mkdir -p "$directory/hosts"
  printf 'Name = %s\nInterface = tinc\nAddressFamily = ipv4\n' "$1" >"$directory/tinc.conf"
  printf 'Address = %s\nSubnet = %s/32\n' "$3" "$2" >"$directory/hosts/$1"
  printf '#!/bin/sh\nip address add %s/24 dev tinc\nip link set tinc up\n' "$2" >"$directory/tinc-up"
  chmod +x "$directory/tinc-up"
  # It asks where to write the keys; empty answers take what it proposes.
  printf '\n\n' | tincd --config="$directory" --generate-keys=2048 >>"$scratch/$1.log" 2>&1
}
