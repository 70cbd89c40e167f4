//! Who is let in, and as whom: groups by invite, admission without an invite, keys from elsewhere, and `whois`.

use std::time::Duration;

use serde_json::{Value, json};

use crate::deadline::until;
use crate::lab::{Host, Lab, Process};
use crate::node::{Network, exit};

const SOON: Duration = Duration::from_secs(15);

/// `hivevpn` with its state in a directory of that name: what a machine does before it is a member.
fn alone(host: &Host, arguments: &[&str]) -> String {
    host.hivevpn(arguments).ok()
}

/// The mode of a file of the host's state, as `stat` shows it.
fn mode(host: &Host, file: &str) -> String {
    host.sh(&format!("stat -c %a {file}")).ok()
}

#[test]
fn groups_of_an_invite_are_the_members_as_everybody_sees() {
    let lab = Lab::new().public("a").public("b").public("c").build();
    let a = lab.host("a").up(&[]);
    let groups = ["--group", "gpu", "--group", "lab", "--name", "laptop"];
    let invite = a.ask(&[&["invite"], &groups[..]].concat());
    let b = lab.host("b").up(&["--join", &invite]);
    let c = lab.host("c").up(&["--join", &a.invite()]);
    c.wait("online", "laptop", SOON);

    let expected = json!({
        "name": "laptop",
        "peer_id": b.node_field("peer_id"),
        "groups": ["gpu", "lab"],
        "ipv4": b.ipv4(),
        "ipv6": b.ipv6(),
        "this": false,
    });
    let with_port = format!("{}:443", b.ipv4());
    for who in [
        &b.ipv4().to_string(),
        &b.ipv6().to_string(),
        &with_port,
        "laptop",
        &b.node_field("peer_id"),
    ] {
        assert_eq!(c.json(&["whois", who, "--json"]), expected, "{who}");
    }
    assert_eq!(b.json(&["whois", "laptop", "--json"])["this"], true);
    let shown = c.ask(&["whois", "laptop"]);
    assert!(shown.contains("gpu,lab"), "{shown}");
    assert!(c.ask(&["nodes"]).contains("gpu,lab"));

    for nobody in ["10.77.200.200", "fd00::1", "nobody"] {
        let why = c
            .host()
            .hivevpn(&["whois", nobody])
            .failed_with(exit::FAILED);
        assert!(why.contains(nobody) && why.contains("no member"), "{why}");
    }
}

#[test]
fn an_invite_shows_as_a_qr_code_beside_the_invite() {
    let lab = Lab::new().public("a").build();
    let a = lab.host("a").up(&[]);
    let outcome = a.host().hivevpn(&["invite", "--qr"]);
    assert!(outcome.succeeded(), "{outcome}");
    assert_eq!(outcome.stdout.lines().count(), 1, "{outcome}");
    assert!(outcome.stderr.contains("█▀"), "{outcome}");
    // Nobody asked, and nobody is there to see it.
    assert_eq!(a.host().hivevpn(&["invite"]).stderr, "");
}

/// A leaked invite, say, that twenty machines use in the same second.
#[test]
fn an_invite_that_is_used_twenty_times_at_once_admits_one() {
    const NAMES: [&str; 20] = [
        "b1", "b2", "b3", "b4", "b5", "b6", "b7", "b8", "b9", "b10", "b11", "b12", "b13", "b14",
        "b15", "b16", "b17", "b18", "b19", "b20",
    ];
    let lab = NAMES
        .iter()
        .fold(Lab::new().public("a"), |lab, name| lab.public(name))
        .build();
    let a = lab.host("a").up(&[]);
    let invite = a.invite();
    let mut tries: Vec<Process> = NAMES
        .iter()
        .map(|name| {
            let host = lab.host(name);
            host.start(&mut host.hivevpn_command(&["up", "--join", &invite]))
        })
        .collect();
    let running = |tries: &mut [Process]| {
        tries
            .iter_mut()
            .filter_map(|p| p.runs().then_some(()))
            .count()
    };
    until(Duration::from_secs(60), "nineteen are refused", || {
        running(&mut tries) <= 1
    });
    let mut refused = 0;
    for attempt in &mut tries {
        if !attempt.runs() {
            let outcome = attempt.ends(SOON);
            assert!(outcome.stderr.contains("used by another node"), "{outcome}");
            refused += 1;
        }
    }
    assert_eq!(refused, 19);
    assert_eq!(a.status()["peers"].as_array().unwrap().len(), 1);
}

#[test]
fn a_node_is_admitted_by_its_key_alone() {
    let lab = Lab::new().public("a").public("b").public("c").build();
    let a = lab.host("a").up(&["--network", "office"]);
    let b = lab.host("b");
    let id = alone(b, &["keygen"]);
    assert_eq!(alone(b, &["id"]), id, "before it ever ran");
    assert_eq!(mode(b, "state/identity.key"), "600");

    let wanted = [
        "--name",
        "printer",
        "--group",
        "lab",
        "--address",
        "10.77.0.9",
    ];
    let admitted = a.host().hivevpn(&[&["admit", &id], &wanted[..]].concat());
    assert!(admitted.stderr.contains("discovery secret"), "{admitted}");
    let bundle = admitted.ok();
    assert!(
        bundle.starts_with("admit1") && !bundle.contains(char::is_whitespace),
        "{bundle}"
    );

    // Of no use to whoever finds it.
    let c = lab.host("c");
    let why = c
        .hivevpn(&["up", "--join", &bundle])
        .failed_with(exit::FAILED);
    assert!(why.contains(&id) && why.contains("hivevpn id"), "{why}");

    let b = b.up(&["--join", &bundle]);
    a.wait("online", "printer", SOON);
    assert_eq!(b.ipv4().to_string(), "10.77.0.9");
    assert!(a.host().pings(b.ipv4()) && b.host().pings(a.ipv4()));
    let whois = a.json(&["whois", "10.77.0.9", "--json"]);
    assert_eq!(
        (&whois["peer_id"], &whois["groups"]),
        (&Value::from(id), &json!(["lab"]))
    );

    // It is a member like any other: the next start needs nothing.
    b.interrupt();
    let b = lab.host("b").up(&[]);
    assert_eq!(b.status()["network"]["name"], "office");
}

/// Offline means that the delegate need not be there either.
#[test]
fn an_admission_needs_nobody_but_some_member_that_is_there() {
    let mut net = Network::start(
        Lab::new().public("a").public("r").public("b").build(),
        ["a", "r"],
    );
    net.wait_ping("a", "r", SOON);
    let host = net.lab().host("b").clone();
    let id = alone(&host, &["keygen"]);
    // A public node relays; such members come along in the bundle.
    until(SOON, "a knows that r relays", || {
        net.node("a")
            .json(&["nodes", "--json"])
            .as_array()
            .unwrap()
            .iter()
            .any(|node| node["name"] == "r" && node["relays"] == true)
    });
    let bundle = net.node("a").ask(&["admit", &id, "--name", "b"]);
    net.take("a").interrupt();
    let b = host.up(&["--join", &bundle]);
    b.wait("online", "r", SOON);
    assert!(host.pings(net.node("r").ipv4()));
}

#[test]
fn a_key_from_elsewhere_is_the_nodes_identity() {
    let lab = Lab::new().public("a").build();
    let host = lab.host("a");
    host.sh("openssl genpkey -algorithm ed25519 -out key.pem && chmod 600 key.pem")
        .ok();
    let id = alone(host, &["keygen", "--import", "key.pem"]);
    let a = host.up(&[]);
    assert_eq!(a.node_field("peer_id"), id);
    // The same one again, in either encoding, and not over what is there.
    let again = ["keygen", "--import", "key.pem", "--out", "copy.key"];
    assert_eq!(alone(host, &again), id);
    assert_eq!(mode(host, "copy.key"), "600");
    assert_eq!(
        alone(
            host,
            &[
                "keygen", "--import", "copy.key", "--out", "copy.pem", "--format", "pem"
            ]
        ),
        id
    );
    host.sh("cmp key.pem copy.pem").ok();
    host.hivevpn(&again).failed_with(exit::FAILED);
    let why = host.hivevpn(&["keygen"]).failed_with(exit::FAILED);
    assert!(why.contains("rotate identity"), "{why}");

    host.sh("openssl genpkey -algorithm rsa -out rsa.pem 2>/dev/null && chmod 600 rsa.pem")
        .ok();
    let rsa = ["keygen", "--import", "rsa.pem", "--out", "rsa.key"];
    let why = host.hivevpn(&rsa).failed_with(exit::FAILED);
    assert!(why.contains("RSA") && why.contains("ed25519"), "{why}");
}
