//! Programs that know nothing of an overlay, at a peer's address.

use std::net::IpAddr;
use std::time::Duration;

use crate::lab::{Host, Lab, Nat};
use crate::node::Network;

pub mod dns;
pub mod postgresql;
pub mod quic;
pub mod redis;
pub mod ssh;

/// Two nodes on one switch, directly connected.
fn neighbours() -> Network {
    let net = Network::start(Lab::new().public("a").public("b").build(), ["a", "b"]);
    net.wait("direct", ["a", "b"], Duration::from_secs(15));
    net
}

/// Lets host `a` use something on host `b` at b's IPv4 address on the overlay.
fn use_over(net: &Network, works: fn(&Host, &Host, IpAddr)) {
    let (a, b) = (net.node("a"), net.node("b"));
    works(a.host(), b.host(), b.ipv4().into());
}

#[test]
fn ssh_scp_and_sftp_work_on_a_direct_path() {
    use_over(&neighbours(), ssh::works);
}

/// Two nodes that only a relay connects.
fn relayed() -> Network {
    let lab = Lab::new()
        .public("r")
        .behind(Nat::Symmetric, "a")
        .behind(Nat::Symmetric, "b")
        .build();
    let net = Network::start(lab, ["r", "a", "b"]);
    net.wait("relay", ["a", "b"], Duration::from_secs(15));
    net
}

#[test]
fn ssh_scp_and_sftp_work_over_a_relay() {
    let net = relayed();
    use_over(&net, ssh::works);
    assert_eq!(net.node("a").peer("b").unwrap()["path"], "relay");
}

#[test]
#[ignore = "takes ten minutes: cargo test --test e2e -- --ignored"]
fn an_ssh_session_over_a_relay_lives_ten_minutes() {
    let net = relayed();
    use_over(&net, |client, server, address| {
        ssh::lives(client, server, address, Duration::from_secs(600));
    });
    assert_eq!(net.node("a").peer("b").unwrap()["path"], "relay");
}

#[test]
fn postgresql_answers_with_and_without_tls() {
    use_over(&neighbours(), postgresql::works);
}

#[test]
fn redis_answers() {
    use_over(&neighbours(), redis::works);
}

#[test]
fn dns_is_answered_over_udp() {
    let lab = Lab::new().public("a").public("b").build();
    // It takes the port that ours would have.
    let net = Network::configured(lab, &["a", "b"], |_| {
        "[names]\nresolver = false\n".to_owned()
    });
    net.wait("direct", ["a", "b"], Duration::from_secs(15));
    use_over(&net, dns::works);
}

#[test]
fn quic_echoes_over_ipv4_and_ipv6() {
    let net = neighbours();
    for address in net.node("b").addresses() {
        quic::works(net.node("a").host(), net.node("b").host(), address);
    }
}

#[test]
fn traceroute_shows_one_hop() {
    let net = neighbours();
    let (a, b) = (net.node("a").host(), net.node("b"));
    for (mode, address) in [
        ("-U", b.ipv4().to_string()),
        ("-I", b.ipv4().to_string()),
        ("-6", b.ipv6().to_string()),
    ] {
        let trace = a
            .sh(&format!("traceroute {mode} -n -q1 -w2 -m3 {address}"))
            .ok();
        let hops: Vec<&str> = trace.lines().skip(1).collect();
        assert!(hops.len() == 1 && hops[0].contains(&address), "{trace}");
    }
}
