//! `hivevpn bench`: figures of the tunnel itself, and ports that are open to nobody else and not for long.

use std::io::{ErrorKind, Read};
use std::net::{Ipv6Addr, TcpStream};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::deadline::{eventually, until};
use crate::lab::{Host, Lab, Nat, Process};
use crate::node::{Network, exit};

/// How long a measurement may take besides its two directions.
const AROUND: Duration = Duration::from_secs(30);

/// Two nodes on one switch, directly connected, and a third.
fn neighbours() -> Network {
    let lab = Lab::new().public("a").public("b").public("c").build();
    let net = Network::start(lab, ["a", "b", "c"]);
    net.wait("direct", ["a", "b"], Duration::from_secs(15));
    net
}

/// Starts a measurement from this host.
fn start(host: &Host, arguments: &[&str]) -> Process {
    host.start(&mut host.hivevpn_command(&[&["bench"], arguments].concat()))
}

/// The ports that measurements have opened on a node's overlay address, TCP and UDP: the low ones serve names and models.
fn ports(host: &Host, address: Ipv6Addr) -> Vec<u16> {
    let shown = host.sh(&format!("ss -Hltun 'src [{address}]'")).ok();
    let port = |line: &str| {
        let local = line.split_whitespace().nth(4)?;
        local.rsplit(':').next()?.parse().ok()
    };
    shown
        .lines()
        .map(|line| port(line).unwrap_or_else(|| panic!("no port in {line}")))
        .filter(|port| *port >= 1024)
        .collect()
}

/// Asserts that figures of one direction are there and plausible.
fn is_plausible(report: &Value, direction: &str) {
    let load = &report[direction];
    let number = |field: &str| {
        let number = load[field].as_f64();
        number.unwrap_or_else(|| panic!("no {direction}.{field} in {report:#}"))
    };
    let (rate, bytes, seconds) = (number("mbit_s"), number("bytes"), number("seconds"));
    assert!(rate > 1.0 && (1.0..3.0).contains(&seconds), "{report:#}");
    let computed = bytes * 8.0 / 1e6 / seconds;
    assert!((rate / computed - 1.0).abs() < 0.01, "{report:#}");
    has_echoes(report, load);
}

/// Asserts that most echoes came back.
fn has_echoes(report: &Value, echoes: &Value) {
    let latency = |field| echoes["latency_ms"][field].as_f64().unwrap();
    assert!(
        latency("p50") > 0.0 && latency("p50") <= latency("p99"),
        "{report:#}"
    );
    assert!(
        (0.0..50.0).contains(&echoes["loss_percent"].as_f64().unwrap()),
        "{report:#}"
    );
}

#[test]
fn the_tunnel_to_a_neighbour_is_measured_both_ways() {
    let net = neighbours();
    let (a, b) = (net.node("a"), net.node("b"));
    let line = ["bench", "b", "--seconds", "1", "--streams", "2", "--json"];
    let report = a.json(&line);
    assert_eq!(
        (&report["peer"], &report["path"], &report["endpoint"]),
        (
            &Value::from("b"),
            &Value::from("direct"),
            &Value::from("203.0.113.12:7777")
        )
    );
    for absent in ["relay", "changed_to", "error"] {
        assert!(report[absent].is_null(), "{absent} in {report:#}");
    }
    has_echoes(&report, &report["idle"]);
    is_plausible(&report, "up");
    is_plausible(&report, "down");
    let carried = a.peer("b").unwrap();
    for (counter, direction) in [("tx_bytes", "up"), ("rx_bytes", "down")] {
        let (carried, measured) = (&carried[counter], &report[direction]["bytes"]);
        assert!(
            carried.as_u64() > measured.as_u64(),
            "what was measured went through the tunnel: {carried} {measured}"
        );
    }

    // The same for people, by address, and without a progress bar where nobody watches.
    let address = b.ipv6().to_string();
    let outcome = a.host().hivevpn(&["bench", &address, "--seconds", "1"]);
    assert_eq!(outcome.stderr, "");
    let shown = outcome.ok();
    for word in ["b: direct", "idle", "upload", "download", "Mbit/s", "ms"] {
        assert!(shown.contains(word), "no {word} in {shown}");
    }
    assert!(!shown.contains('\u{1b}'), "{shown}");
}

#[test]
fn a_relayed_tunnel_is_measured_as_it_is() {
    let lab = Lab::new()
        .public("r")
        .behind(Nat::Symmetric, "a")
        .behind(Nat::Symmetric, "b")
        .build();
    let net = Network::start(lab, ["r", "a", "b"]);
    net.wait("relay", ["a", "b"], Duration::from_secs(15));
    let report = net
        .node("a")
        .json(&["bench", "b", "--seconds", "1", "--json"]);
    assert_eq!(
        (&report["path"], &report["relay"], &report["endpoint"]),
        (&Value::from("relay"), &Value::from("r"), &Value::Null)
    );
    assert!(report["changed_to"].is_null(), "{report:#}");
    is_plausible(&report, "up");
    is_plausible(&report, "down");
}

/// Another member sees that a peer is being measured and tries to be served as well, or at least to leave the
/// port open behind it.
#[test]
fn a_port_is_open_for_the_asker_alone_and_closes_behind_it() {
    let net = neighbours();
    let (a, b, c) = (net.node("a"), net.node("b"), net.node("c"));
    let address = b.ipv6();
    assert!(ports(b.host(), address).is_empty());
    let mut measurement = start(a.host(), &["b", "--seconds", "5", "--json"]);
    let open = eventually(AROUND, "the peer opens ports", || {
        assert!(measurement.runs(), "it has ended: {}", measurement.stderr());
        Some(ports(b.host(), address)).filter(|ports| !ports.is_empty())
    });
    c.wait("online", "b", Duration::from_secs(15));
    let connected = c.host().here(move || {
        let connect = |port| TcpStream::connect_timeout(&(address, port).into(), AROUND);
        open.into_iter()
            .filter_map(|port| connect(port).ok())
            .map(is_served)
            .collect::<Vec<_>>()
    });
    assert!(!connected.is_empty(), "the port can be knocked at");
    assert!(connected.iter().all(|served| !served), "{connected:?}");

    // With the asker, however it ends, the ports go.
    measurement.signal(Signal::SIGKILL);
    until(Duration::from_secs(10), "the ports close", || {
        ports(b.host(), address).is_empty()
    });
    a.json(&["bench", "b", "--seconds", "1", "--json"]);
    until(Duration::from_secs(10), "the ports close again", || {
        ports(b.host(), address).is_empty()
    });
}

/// Whether a stream brings anything before it is closed.
fn is_served(mut stream: TcpStream) -> bool {
    stream.set_read_timeout(Some(AROUND)).unwrap();
    match stream.read(&mut [0; 1]) {
        Ok(count) => count > 0,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
            false
        }
    }
}

#[test]
fn a_third_measurement_has_to_wait_and_ctrl_c_shows_what_was_measured() {
    let net = neighbours();
    let (a, b, c) = (net.node("a"), net.node("b"), net.node("c"));
    c.wait("online", "b", Duration::from_secs(15));
    let mut first = start(a.host(), &["b", "--seconds", "20", "--json"]);
    let _second = start(c.host(), &["b", "--seconds", "20"]);
    until(AROUND, "both are served", || {
        assert!(first.runs(), "it has ended: {}", first.stderr());
        ports(b.host(), b.ipv6()).len() == 4
    });
    let why = a.host().hivevpn(&["bench", "b"]).failed_with(exit::FAILED);
    assert!(why.contains("busy"), "{why}");

    // The first streams come after the idle phase.
    until(AROUND, "the upload has begun", || {
        let streams = format!("ss -Htn state established 'src [{}]'", a.ipv6());
        a.host().sh(&streams).ok().lines().count() > 1
    });
    first.signal(Signal::SIGINT);
    let outcome = first.ends(AROUND);
    let report: Value = serde_json::from_str(&outcome.stdout).unwrap();
    has_echoes(&report, &report["idle"]);
    assert!(report["down"].is_null(), "{report:#}");
    let why = outcome.failed_with(exit::FAILED);
    assert!(why.contains("stopped"), "{why}");
    assert!(report["error"].as_str().unwrap().contains("stopped"));
    until(AROUND, "there is room again", || {
        let line = ["bench", "b", "--seconds", "1"];
        a.host().hivevpn(&line).succeeded()
    });
}

#[test]
fn a_peer_that_goes_away_leaves_what_was_measured() {
    let mut net = neighbours();
    let mut measurement = start(net.node("a").host(), &["b", "--seconds", "20", "--json"]);
    let a = net.node("a");
    until(AROUND, "the upload has begun", || {
        assert!(measurement.runs(), "it has ended: {}", measurement.stderr());
        a.peer("b").unwrap()["tx_bytes"].as_u64().unwrap() > 1_000_000
    });
    net.take("b").kill9();
    let outcome = measurement.ends(AROUND);
    let report: Value = serde_json::from_str(&outcome.stdout).unwrap();
    has_echoes(&report, &report["idle"]);
    assert!(report["down"].is_null(), "{report:#}");
    let why = outcome.failed_with(exit::FAILED);
    assert!(why.contains("broke off"), "{why}");
}

#[test]
fn wrong_arguments_and_peers_are_told_apart() {
    let mut net = neighbours();
    net.node("a").wait("online", "c", Duration::from_secs(15));
    net.take("c").interrupt();
    let a = net.node("a");
    until(AROUND, "c is offline", || {
        a.peer("c").unwrap()["online"] == false
    });
    for (peer, part) in [
        ("nobody", "no member is called nobody"),
        ("a", "this node"),
        (&a.ipv4().to_string(), "this node"),
        ("c", "offline"),
    ] {
        let why = a.host().hivevpn(&["bench", peer]).failed_with(exit::FAILED);
        assert!(why.contains(part), "{why}");
    }
    for wrong in [
        &["bench"][..],
        &["bench", "b", "--seconds", "0"],
        &["bench", "b", "--seconds", "31"],
        &["bench", "b", "--streams", "0"],
        &["bench", "b", "--streams", "9"],
        &["bench", "b", "--seconds", "soon"],
    ] {
        a.host().hivevpn(wrong).failed_with(exit::USAGE);
    }
    let host = net.take("a").host().clone();
    host.hivevpn(&["bench", "b"]).failed_with(exit::NO_DAEMON);
}
