//! Bad input: what scripts read, and what people read when something is wrong.

use std::time::Duration;

use serde_json::Value;

use crate::lab::{Host, Lab};
use crate::node::{HIVEVPN, Network, exit};

/// Asserts that an object has fields of these JSON types: s(tring), n(umber), b(ool), a(rray), o(bject);
/// a `?` allows null.
fn has_fields(value: &Value, fields: &[(&str, &str)]) {
    for (name, kind) in fields {
        let field = value
            .get(name)
            .unwrap_or_else(|| panic!("no field {name} in {value:#}"));
        let right = match kind.trim_end_matches('?') {
            "s" => field.is_string(),
            "n" => field.is_number(),
            "b" => field.is_boolean(),
            "a" => field.is_array(),
            "o" => field.is_object(),
            other => panic!("no such type {other}"),
        };
        assert!(
            right || (kind.ends_with('?') && field.is_null()),
            "{name} should be {kind} in {value:#}"
        );
    }
}

const PEER: &[(&str, &str)] = &[
    ("name", "s"),
    ("peer_id", "s"),
    ("ipv4", "s"),
    ("ipv6", "s"),
    ("online", "b"),
    ("path", "s"),
    ("endpoint", "s?"),
    ("relay", "s?"),
    ("rtt_ms", "n?"),
    ("tx_bytes", "n"),
    ("rx_bytes", "n"),
    ("last_handshake_s", "n?"),
    ("post_quantum", "b"),
];

const NODE: &[(&str, &str)] = &[
    ("name", "s"),
    ("peer_id", "s"),
    ("ipv4", "s"),
    ("ipv6", "s"),
    ("interface", "s"),
    ("listen", "a"),
    ("reachability", "s"),
];

#[test]
fn status_shows_the_documented_fields() {
    let net = Network::start(Lab::new().public("a").public("b").build(), ["a", "b"]);
    net.wait("direct", ["a", "b"], Duration::from_secs(15));
    let (a, b) = (net.node("a"), net.node("b"));
    assert!(a.host().pings(b.ipv4()));
    let status = a.status();
    has_fields(&status, &[("network", "o"), ("node", "o"), ("peers", "a")]);
    has_fields(&status["network"], &[("name", "s"), ("id", "s")]);
    has_fields(&status["node"], NODE);
    assert!(
        ["public", "private", "unknown"]
            .contains(&status["node"]["reachability"].as_str().unwrap())
    );
    assert_eq!(
        (&status["node"]["name"], &status["node"]["interface"]),
        (&Value::from("a"), &Value::from("hive0"))
    );

    let peer = a.peer("b").unwrap();
    has_fields(&peer, PEER);
    assert_eq!(peer["peer_id"], b.node_field("peer_id").as_str());
    assert_eq!(peer["endpoint"], "203.0.113.12:7777");
    assert_eq!(
        (&peer["path"], &peer["online"], &peer["relay"]),
        (&Value::from("direct"), &Value::from(true), &Value::Null)
    );
    assert!(
        peer["rx_bytes"].as_u64().unwrap() > 0 && peer["last_handshake_s"].as_f64().unwrap() < 60.0,
        "{peer:#}"
    );
    // The same for people: the name, both addresses, the path.
    let shown = a.ask(&["status"]);
    for word in ["b", &b.ipv4().to_string(), "direct"] {
        assert!(shown.contains(word), "no {word} in {shown}");
    }
}

#[test]
fn nodes_ping_id_and_version_have_json_too() {
    let net = Network::start(Lab::new().public("a").public("b").build(), ["a", "b"]);
    net.wait("direct", ["a", "b"], Duration::from_secs(15));
    let (a, b) = (net.node("a"), net.node("b"));

    let nodes = a.json(&["nodes", "--json"]);
    let list = nodes.as_array().expect("a list of nodes");
    let names: Vec<&str> = list
        .iter()
        .map(|node| node["name"].as_str().unwrap())
        .collect();
    assert!(names.contains(&"b"), "{nodes:#}");
    for node in list {
        has_fields(
            node,
            &[
                ("name", "s"),
                ("peer_id", "s"),
                ("ipv4", "s"),
                ("ipv6", "s"),
                ("online", "b"),
            ],
        );
    }

    for target in ["b".to_owned(), b.ipv4().to_string(), b.ipv6().to_string()] {
        let text = a.ask(&["ping", &target, "--count", "2", "--json"]);
        let answers: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(answers.len(), 2, "{text}");
        for answer in answers {
            has_fields(&answer, &[("path", "s"), ("rtt_ms", "n")]);
            assert_eq!(answer["path"], "direct");
        }
    }
    assert!(a.ask(&["ping", "b", "--count", "1"]).contains("direct"));

    let id = a.ask(&["id"]);
    assert_eq!(id, a.node_field("peer_id"));
    has_fields(
        &a.json(&["id", "--json"]),
        &[("id", "s"), ("addresses", "a")],
    );
    assert!(a.ask(&["id", "--base64"]).len() > 40);
    has_fields(
        &a.json(&["invite", "--json"]),
        &[("invite", "s"), ("expires_at", "n")],
    );
    has_fields(
        &a.json(&["version", "--json"]),
        &[("name", "s"), ("version", "s")],
    );
    assert!(a.ask(&["version"]).contains(env!("CARGO_PKG_VERSION")));
}

#[test]
fn id_is_the_same_with_and_without_a_running_node() {
    let lab = Lab::new().public("a").build();
    let host = lab.host("a");
    let why = host.hivevpn(&["id"]).failed_with(exit::FAILED);
    assert!(why.contains("hivevpn up"), "{why}");
    let a = host.up(&[]);
    let running = a.ask(&["id"]);
    assert!(
        running.starts_with("12D3Koo"),
        "an ed25519 peer id: {running}"
    );
    a.interrupt();
    assert_eq!(host.hivevpn(&["id"]).ok(), running);
}

#[test]
fn without_a_daemon_the_exit_code_is_three() {
    let lab = Lab::new().public("a").build();
    for command in [
        &["status"][..],
        &["status", "--json"],
        &["nodes"],
        &["ping", "b"],
        &["invite"],
        &["whois", "10.77.0.4"],
        &["nodes", "--revoked"],
        &[
            "admit",
            "12D3KooWBrVzpfetjgEdZjPxzQfb5oLKK2ZtFYYSpZ4vAAWkRCCN",
        ],
        &["revoke", "b"],
        &["restore", "b"],
        &["delegate", "list"],
        &["rotate", "wg"],
        &["down"],
    ] {
        let why = lab.host("a").hivevpn(command).failed_with(exit::NO_DAEMON);
        assert!(
            why.contains("hivevpn up"),
            "{command:?} says what to do: {why}"
        );
    }
}

#[test]
fn waiting_in_vain_ends_with_four() {
    let lab = Lab::new().public("a").build();
    let a = lab.host("a").up(&[]);
    for path in ["direct", "stream", "relay", "online"] {
        let wait = [
            "status",
            "--wait",
            path,
            "--peer",
            "nobody",
            "--timeout",
            "1",
        ];
        let why = a.host().hivevpn(&wait).failed_with(exit::TIMED_OUT);
        assert!(why.contains("nobody"), "{why}");
    }
}

#[test]
fn wrong_arguments_end_with_two() {
    let lab = Lab::new().public("a").build();
    for wrong in [
        &["fly"][..],
        &["up", "--fly"],
        &["status", "--wait", "teleport"],
        &["up", "--address", "10.77"],
        &["up", "no-such.toml"],
        &["up", "--address", "192.168.1.1"],
        &["invite", "--group", "a b"],
        &["admit", "laptop"],
        &["delegate", "add", "b"],
        &["delegate", "add", "b", "--power", "everything"],
        &["keygen", "--type", "rsa"],
        &["up", "--join", "admit1cutshort"],
    ] {
        let why = lab.host("a").hivevpn(wrong).failed_with(exit::USAGE);
        assert!(!why.is_empty(), "{wrong:?}");
    }
}

/// A configuration that is refused, and the words that its message must contain.
const BROKEN: &[(&str, &[&str])] = &[
    (
        "[underlay]\nport = \"many\"\n",
        &["network.toml", "2", "port"],
    ),
    ("[underlay]\nport = 70000\n", &["network.toml", "2", "port"]),
    (
        "[underlay]\n\nprot = 7777\n",
        &["network.toml", "3", "prot"],
    ),
    ("[node\nname = 1\n", &["network.toml", "1"]),
    (
        "[node]\naddress = \"10.77.0\"\n",
        &["network.toml", "2", "address"],
    ),
    ("[node]\nname = \"a b\"\n", &["network.toml", "2", "name"]),
    ("[interface]\nmtu = 100\n", &["network.toml", "2", "mtu"]),
    (
        "[interface]\nname = \"an-interface-with-a-long-name\"\n",
        &["network.toml", "2", "name"],
    ),
    (
        "[underlay]\nrelay = \"perhaps\"\n",
        &["network.toml", "2", "relay"],
    ),
    (
        "[underlay]\nbootstrap = [\"203.0.113.11\"]\n",
        &["network.toml", "2", "bootstrap"],
    ),
    (
        "[network]\ninvite = \"letmein\"\n",
        &["network.toml", "2", "invite"],
    ),
    ("[market]\n", &["network.toml", "1", "market"]),
];

#[test]
fn a_broken_configuration_is_refused_with_file_line_and_option() {
    let lab = Lab::new().public("a").build();
    let host = lab.host("a");
    let before = host.network_state();
    for (toml, words) in BROKEN {
        let why = host
            .hivevpn(&["up", host.configure(toml)])
            .failed_with(exit::USAGE);
        for word in *words {
            assert!(
                why.contains(word),
                "no {word:?} in the message about {toml:?}: {why}"
            );
        }
    }
    assert_eq!(host.network_state(), before);
}

#[test]
fn a_configuration_without_any_option_is_the_same_as_none() {
    let lab = Lab::new().public("a").build();
    let host = lab.host("a");
    let a = host.up(&[host.configure("")]);
    assert_eq!(a.node_field("interface"), "hive0");
    a.interrupt();
    let everything = concat!(env!("CARGO_MANIFEST_DIR"), "/config/network.toml");
    let a = host.up(&[everything]);
    assert_eq!(a.node_field("interface"), "hive0");
}

/// Asserts that `up` fails in this environment with these words, and leaves nothing on the host.
fn fails_to_start(host: &Host, prepare: &str, words: &[&str]) {
    let before = host.network_state();
    let why = host
        .hivevpn_after(prepare, &["up"])
        .failed_with(exit::FAILED);
    for word in words {
        assert!(
            why.contains(word),
            "no {word:?} in the message after {prepare:?}: {why}"
        );
    }
    assert_eq!(host.network_state(), before, "{prepare}");
    assert!(!host.directory().join("hivevpn.sock").exists(), "{prepare}");
}

#[test]
fn a_port_that_is_taken_is_named() {
    let lab = Lab::new().public("a").build();
    let host = lab.host("a");
    for kind in ["UDP-RECV", "TCP-LISTEN"] {
        let mut other = host.spawn(&[
            "socat",
            "-ddd",
            "-u",
            &format!("{kind}:7777"),
            "OPEN:/dev/null",
        ]);
        crate::deadline::until(Duration::from_secs(10), "socat has the port", || {
            assert!(other.runs(), "{}", other.stderr());
            !host.sh("ss -Hlntu 'sport = :7777'").ok().is_empty()
        });
        fails_to_start(host, "exec \"$@\"", &["7777", "in use"]);
    }
}

#[test]
fn without_a_tun_device_the_message_says_what_to_load() {
    let lab = Lab::new().public("a").build();
    fails_to_start(
        lab.host("a"),
        "mount -t tmpfs -o ro tmpfs /dev/net && exec \"$@\"",
        &["/dev/net/tun", "modprobe tun"],
    );
}

#[test]
fn without_privilege_the_message_says_which() {
    let lab = Lab::new().public("a").build();
    fails_to_start(
        lab.host("a"),
        "exec unshare --user --map-user=1000 --map-group=1000 -- \"$@\"",
        &["root", "cap_net_admin"],
    );
}

#[test]
fn an_interface_name_that_is_taken_is_named() {
    let lab = Lab::new().public("a").build();
    let host = lab.host("a");
    host.sh("ip link add hive0 type bridge").ok();
    let before = host.network_state();
    let why = host
        .hivevpn(&["up", "--interface", "hive0"])
        .failed_with(exit::FAILED);
    assert!(why.contains("hive0"), "{why}");
    assert_eq!(host.network_state(), before);
    // Who names none takes the next.
    assert_eq!(host.up(&[]).node_field("interface"), "hive1");
}

#[test]
fn a_state_directory_that_cannot_be_used_is_named() {
    let lab = Lab::new().public("a").public("b").public("c").build();
    fails_to_start(lab.host("a"), "touch state && exec \"$@\"", &["/a/state"]);
    let full =
        "mkdir -p -m 700 state && mount -t tmpfs -o size=8k,mode=700 tmpfs state && exec \"$@\"";
    fails_to_start(lab.host("b"), full, &["/b/state"]);
    let readonly =
        "mkdir -p -m 700 state && mount -t tmpfs -o ro,mode=700 tmpfs state && exec \"$@\"";
    fails_to_start(lab.host("c"), readonly, &["/c/state"]);
}

#[test]
fn secrets_that_others_can_read_are_refused() {
    let lab = Lab::new().public("a").build();
    let host = lab.host("a");
    host.up(&[]).interrupt();
    for (secret, loose, mend) in [
        ("identity.key", 644, "chmod 600"),
        ("wg.key", 640, "chmod 600"),
        ("authority.key", 604, "chmod 600"),
        ("db", 755, "chmod 700"),
        (".", 711, "chmod 700"),
    ] {
        let loosen = format!("chmod {loose} state/{secret}");
        fails_to_start(
            host,
            &format!("{loosen} && exec \"$@\""),
            &[secret.trim_matches('.'), mend],
        );
        // What the message says mends it.
        let doctor = host.hivevpn(&["doctor", "--json"]);
        assert!(doctor.stdout.contains(mend), "{doctor}");
        host.sh(&format!("{mend} state/{secret}")).ok();
    }
    host.up(&[]).interrupt();
}

#[test]
fn a_file_with_an_invite_that_everybody_can_read_is_refused() {
    let lab = Lab::new().public("a").public("b").build();
    let invite = lab.host("a").up(&[]).invite();
    let host = lab.host("b");
    let config = host.configure(&format!("[network]\ninvite = \"{invite}\"\n"));
    host.sh("chmod 644 network.toml").ok();
    let why = host.hivevpn(&["up", config]).failed_with(exit::USAGE);
    for word in ["network.toml", "an invite", "0644", "chmod 600"] {
        assert!(why.contains(word), "no {word:?} in {why}");
    }
    assert!(!why.contains(&invite), "{why}");
}

/// Two networks with the same prefix cannot share a host's routes: the second says so instead of taking
/// the first one's traffic.
#[test]
fn a_second_network_with_the_same_prefix_is_refused() {
    let lab = Lab::new().public("a").build();
    let host = lab.host("a");
    let first = host.up(&[]);
    let before = host.network_state();
    let places = ["--state", "second", "--socket", "second.sock"];
    let options = ["up", "--port", "7778", "--interface", "hive1"];
    let outcome = host.run(&[&[HIVEVPN], &options[..], &places[..]].concat());
    let why = outcome.failed_with(exit::FAILED);
    assert!(
        why.contains("hive0") && why.contains("10.77.0.0/16"),
        "{why}"
    );
    assert_eq!(host.network_state(), before);
    first.interrupt();
}

#[test]
fn state_and_socket_can_be_given_as_options() {
    let lab = Lab::new().public("a").build();
    let host = lab.host("a");
    let places = ["--state", "elsewhere", "--socket", "elsewhere.sock"];
    let hivevpn = |command| [HIVEVPN, command, places[0], places[1], places[2], places[3]];
    let mut node = host.spawn(&hivevpn("up"));
    crate::deadline::until(Duration::from_secs(20), "the node answers there", || {
        assert!(node.runs(), "{}", node.stderr());
        host.run(&hivevpn("status")).succeeded()
    });
    host.hivevpn(&["status"]).failed_with(exit::NO_DAEMON);
    host.run(&hivevpn("down")).ok();
    node.ends(Duration::from_secs(10)).ok();
    assert!(host.directory().join("elsewhere").is_dir());
}
