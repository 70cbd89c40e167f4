//! A home router that forwards ports when it is asked to.

use std::net::Ipv4Addr;
use std::time::Duration;

use crate::deadline::until;
use crate::lab::{Host, Lab, Nat, Process, Router};
use crate::node::Network;

/// The router's address on the internet: it refuses to work with one that is reserved for documentation, as all others
/// of the laboratory are.
const WAN: Ipv4Addr = Ipv4Addr::new(198, 51, 7, 1);

/// A port that leads to the node.
const MAPPED: &str = "/ip4/198.51.7.1/udp/7777/quic-v1";

/// A running miniupnpd on the router in front of `host`, which speaks `protocols`.
fn mapping_router(lab: &Lab, host: &Host, protocols: &str) -> Process {
    let router = lab.router(host.name());
    on(router, &format!("ip addr add {WAN}/32 dev wan"));
    let wan = router.wan();
    on(
        router,
        "nft -f - <<'END'
table inet miniupnpd {
  chain miniupnpd { }
  chain prerouting_miniupnpd { }
  chain postrouting_miniupnpd { }
  chain prerouting { type nat hook prerouting priority dstnat - 1; iifname wan jump prerouting_miniupnpd; }
}
END",
    );
    for other in ["r", "b"] {
        let route = format!("ip route add {WAN} via {wan}");
        if other == "r" {
            lab.host(other).sh(&route).ok();
        } else {
            on(lab.router(other), &route);
        }
    }
    let configuration = host.directory().join("miniupnpd.conf");
    let text = format!(
        "ext_ifname=wan\next_ip={WAN}\nlistening_ip=lan\n{protocols}\nsecure_mode=yes\nmin_lifetime=120\n\
         uuid=5d6a6bb0-2b3e-4c8f-9a3f-2f6c1c3c7f11\nupnp_table_name=miniupnpd\nupnp_nat_table_name=miniupnpd\n\
         upnp_forward_chain=miniupnpd\nupnp_nat_chain=prerouting_miniupnpd\n\
         upnp_nat_postrouting_chain=postrouting_miniupnpd\nallow 1024-65535 10.0.0.0/8 1024-65535\n\
         deny 0-65535 0.0.0.0/0 0-65535\n"
    );
    std::fs::write(&configuration, text).unwrap();
    let mut command = router.command("miniupnpd");
    command
        .args(["-d", "-P"])
        .arg(host.directory().join("miniupnpd.pid"))
        .arg("-f")
        .arg(configuration);
    host.start(&mut command)
}

/// Runs a shell line on a router; its output.
fn on(router: &Router, line: &str) -> String {
    let output = router.command("sh").args(["-c", line]).output().unwrap();
    assert!(output.status.success(), "{line}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Whether the router forwards anything.
fn forwards(router: &Router) -> bool {
    on(router, "nft list chain inet miniupnpd prerouting_miniupnpd").contains("dnat")
}

fn listens_on(network: &Network, name: &str, address: &str) -> bool {
    let status = network.node(name).status();
    let listen = status["node"]["listen"].as_array().unwrap();
    listen.iter().any(|shown| shown == address)
}

/// A symmetric and a port-restricted router cannot be punched: what goes directly goes by the mapped port.
fn a_port_is_mapped_used_and_given_back(protocols: &str) {
    let lab = Lab::new()
        .public("r")
        .behind(Nat::PortRestricted, "a")
        .behind(Nat::Symmetric, "b")
        .build();
    let _router = mapping_router(&lab, &lab.host("a").clone(), protocols);
    let mut network = Network::start(lab, ["r", "a", "b"]);
    until(
        Duration::from_secs(15),
        "the mapped port is announced",
        || listens_on(&network, "a", MAPPED),
    );
    assert!(forwards(network.lab().router("a")));
    assert_eq!(network.node("a").node_field("reachability"), "private");
    network.wait("direct", ["a", "b"], Duration::from_secs(30));

    network.take("a").interrupt();
    assert!(!forwards(network.lab().router("a")));
}

#[test]
fn a_port_is_mapped_by_pcp_used_and_given_back() {
    a_port_is_mapped_used_and_given_back("enable_natpmp=yes\nenable_upnp=no");
}

#[test]
fn a_port_is_mapped_by_upnp_used_and_given_back() {
    a_port_is_mapped_used_and_given_back("enable_natpmp=no\nenable_upnp=yes");
}

#[test]
fn a_node_that_must_not_ask_the_router_does_not() {
    let lab = Lab::new()
        .public("r")
        .behind(Nat::PortRestricted, "a")
        .behind(Nat::Symmetric, "b")
        .build();
    let _router = mapping_router(
        &lab,
        &lab.host("a").clone(),
        "enable_natpmp=yes\nenable_upnp=yes",
    );
    let network = Network::configured(lab, &["r", "a", "b"], |_| {
        "[underlay]\nport_mapping = false\n".to_owned()
    });
    network.wait("relay", ["a", "b"], Duration::from_secs(15));
    assert!(!forwards(network.lab().router("a")));
    assert!(!listens_on(&network, "a", MAPPED));
}
