# shellcheck shell=bash
# How two nodes can meet. Every link makes the namespaces a and b (relay: r too) with an interface called
# `wire` in each, which has the addresses underlay_a and underlay_b (and underlay_r). They are private ones: nodes
# with public addresses need no relay.
# shellcheck disable=SC2034,SC2154  # variables shared with the other parts

all_links=veth,stream,relay,lossy

namespaces=()
link_process=''
underlay_a=10.20.30.2 underlay_b=10.20.30.3 underlay_r=10.20.30.1

on() { local node=$1; shift; ip netns exec "$node" "$@"; } # <node> <command...>

machine() { # <node...>
  local node
  for node in "$@"; do
    ip netns add "$node"
    namespaces+=("$node")
    ip -n "$node" link set lo up
    [ -z "$congestion" ] || on "$node" sysctl -qw net.ipv4.tcp_congestion_control="$congestion"
  done
}

address() { # <node> <interface> <address/prefix>: and up
  ip -n "$1" address add "$3" dev "$2"
  ip -n "$1" link set "$2" up
}

lay_veth() {
  machine a b
  ip -n a link add wire type veth peer name wire netns b
  address a wire $underlay_a/24
  address b wire $underlay_b/24
}

lay_stream() {
  lay_veth
  local node
  for node in a b; do
    on $node nft 'add table inet bench;
      add chain inet bench input { type filter hook input priority filter; };
      add rule inet bench input iifname wire meta l4proto udp drop'
  done
}

# r is a switch that carries nothing from one isolated port to another, and a machine behind that switch.
lay_relay() {
  machine a b r
  ip -n r link add wire type bridge forward_delay 0
  local node
  for node in a b; do
    ip -n r link add to-$node type veth peer name wire netns $node
    ip -n r link set to-$node master wire up
    ip -n r link set to-$node type bridge_slave isolated on
  done
  address a wire $underlay_a/24
  address b wire $underlay_b/24
  address r wire $underlay_r/24
}

lay_lossy() {
  machine a b
  local node
  for node in a b; do ip -n $node tuntap add dev wire mode tun; done
  address a wire $underlay_a/24
  address b wire $underlay_b/24
  "$scratch/linkem" --delay-ms 20 --loss-percent 0.3 --rate-mbit 50 --queue-ms 50 a wire b wire \
    >"$scratch/link.log" 2>&1 &
  link_process=$!
}

lay() { # <link>
  namespaces=() link_process=''
  "lay_$1"
}

remove_link() {
  [ -z "$link_process" ] || end "$link_process"
  local namespace
  for namespace in "${namespaces[@]}"; do ip netns delete "$namespace"; done
}
