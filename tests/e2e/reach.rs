//! Plain IP between two nodes, over IPv4 and IPv6 alike.

use std::net::IpAddr;
use std::time::Duration;

use serde_json::Value;

use crate::lab::{Host, Lab};
use crate::node::{Network, Node};
use crate::traffic::{transfer, udp_echo, wait_for_listener};

/// Reachable by everything that speaks IP. Other topologies send `bulk` bytes through it.
pub fn reaches(from: &Node, to: &Node, address: IpAddr, bulk: usize) {
    let (from, to) = (from.host(), to.host());
    assert!(from.pings(address), "{address} answers a ping");
    unfragmented_ping(from, address);
    // One datagram may be lost on the way to a path's first packet; more is a fault.
    for size in [4, 512, 1200, 1372] {
        let answered = udp_echo(from, to, address, 50, size);
        assert!(
            answered >= 49,
            "{answered} of 50 datagrams of {size} bytes were answered by {address}"
        );
    }
    transfer(from, to, address, bulk);
    transfer(to, from, from_address(from, address), bulk / 10);
}

/// The address of the same family that `host` uses towards `peer`.
fn from_address(host: &Host, peer: IpAddr) -> IpAddr {
    let route = host.sh(&format!("ip -o route get {peer}")).ok();
    let source = route
        .split_whitespace()
        .skip_while(|word| *word != "src")
        .nth(1);
    source
        .and_then(|source| source.parse().ok())
        .unwrap_or_else(|| panic!("no source address in {route}"))
}

/// An IP packet of 1400 bytes, with the order not to fragment it.
fn unfragmented_ping(from: &Host, address: IpAddr) {
    let headers = if address.is_ipv4() { 20 + 8 } else { 40 + 8 };
    from.sh(&format!(
        "ping -n -c2 -W2 -M do -s {} {address}",
        1400 - headers
    ))
    .ok();
}

#[test]
fn a_gigabyte_and_everything_smaller_arrives_over_ipv4() {
    let net = Network::start(Lab::new().public("a").public("b").build(), ["a", "b"]);
    net.wait("direct", ["a", "b"], Duration::from_secs(15));
    reaches(
        net.node("a"),
        net.node("b"),
        net.node("b").ipv4().into(),
        1 << 30,
    );
}

#[test]
fn a_gigabyte_and_everything_smaller_arrives_over_ipv6() {
    let net = Network::start(Lab::new().public("a").public("b").build(), ["a", "b"]);
    net.wait("direct", ["a", "b"], Duration::from_secs(15));
    assert_eq!(net.node("b").ipv6().octets()[0], 0xfd);
    reaches(
        net.node("a"),
        net.node("b"),
        net.node("b").ipv6().into(),
        1 << 30,
    );
}

#[test]
fn three_nodes_on_one_switch_reach_each_other() {
    let names = ["a", "b", "c"];
    let net = Network::start(
        Lab::new().public("a").public("b").public("c").build(),
        names,
    );
    for from in names {
        for to in names {
            if from != to {
                net.node(from).wait("direct", to, Duration::from_secs(15));
                assert!(
                    net.node(to)
                        .addresses()
                        .iter()
                        .all(|address| net.node(from).host().pings(*address))
                );
            }
        }
    }
}

#[test]
fn iperf3_runs_both_ways_over_tcp_and_udp() {
    let net = Network::start(Lab::new().public("a").public("b").build(), ["a", "b"]);
    net.wait("direct", ["a", "b"], Duration::from_secs(15));
    let (a, b) = (net.node("a"), net.node("b"));
    let _server = b
        .host()
        .spawn(&["iperf3", "-s", "-B", &b.ipv4().to_string()]);
    wait_for_listener(b.host(), 5201);
    let iperf = |arguments: &str| -> Value {
        let text = a
            .host()
            .sh(&format!("iperf3 -J -t 3 -c {} {arguments}", b.ipv4()))
            .ok();
        serde_json::from_str(&text).unwrap()
    };
    for direction in ["", "-R"] {
        assert!(
            iperf(direction)["end"]["sum_received"]["bytes"]
                .as_f64()
                .unwrap()
                > 1e6
        );
    }
    let before = lost_by_the_receiver(b);
    let udp = &iperf("-u -b 20M -l 1300")["end"]["sum"];
    // On a machine with more to do than it can, iperf3 does not read in time: not the overlay's loss.
    let lost = udp["lost_packets"].as_f64().unwrap() - (lost_by_the_receiver(b) - before);
    let interface = |node: &Node| node.host().sh("ip -s link show hive0").ok();
    assert!(
        lost < 0.05 * udp["packets"].as_f64().unwrap(),
        "{lost} lost: {udp:#}\n{}\n{}\n{:#}\n{:#}",
        interface(a),
        interface(b),
        a.status(),
        b.status()
    );
}

/// UDP packets that came and found the receiving program's buffer full.
fn lost_by_the_receiver(node: &Node) -> f64 {
    let full = "awk '/^Udp:/ && $6 ~ /^[0-9]+$/ { print $6 }' /proc/net/snmp";
    node.host().sh(full).ok().trim().parse().unwrap()
}
