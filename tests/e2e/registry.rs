//! Values that members keep under keys, and the DHT beneath them.

use std::time::Duration;

use serde_json::Value;

use crate::deadline::{eventually, until};
use crate::lab::{Host, Lab};
use crate::node::{Network, Node, exit};

/// News reaches everybody connected within this.
const SOON: Duration = Duration::from_secs(5);
/// What was missed is made up for within this.
const REPAIRED: Duration = Duration::from_secs(60);

/// Who keeps what under a key, as one node sees it.
fn read(node: &Node, key: &str) -> Vec<(String, String)> {
    let entries = node.json(&["dht", "get", key, "--json"]);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let entries = entries.as_array().expect("a list").iter();
    entries
        .map(|entry| (text(&entry["owner"]), text(&entry["value"]["text"])))
        .collect()
}

fn reads(node: &Node, key: &str, owner: &str, value: &str, within: Duration) {
    let wanted = vec![(owner.to_owned(), value.to_owned())];
    let what = format!("{} reads {key}: {value}", node.host().name());
    until(within, &what, || read(node, key) == wanted);
}

fn three() -> Network {
    let lab = Lab::new().public("a").public("b").public("c").build();
    let net = Network::start(lab, ["a", "b", "c"]);
    for pair in [["a", "b"], ["a", "c"], ["b", "c"]] {
        net.wait("online", pair, Duration::from_secs(15));
    }
    net
}

fn rejections(node: &Node, rule: &str) -> u64 {
    node.status()["rejections"][rule].as_u64().unwrap_or(0)
}

#[test]
fn what_one_member_puts_all_read_and_what_it_deletes_is_gone() {
    let net = three();
    let (a, b, c) = (net.node("a"), net.node("b"), net.node("c"));
    let put = a.json(&["dht", "put", "weather/berlin", "12 °C", "--json"]);
    reads(b, "weather/berlin", "a", "12 °C", SOON);
    reads(c, "weather/berlin", "a", "12 °C", SOON);
    let entry = b.json(&[
        "dht",
        "get",
        "weather/berlin",
        "--owner",
        "a",
        "--network",
        "--json",
    ]);
    assert_eq!(entry[0]["seq"], put["seq"]);
    assert_eq!(entry[0]["owner_id"], a.node_field("peer_id"));
    assert!(entry[0]["left_s"].as_u64() > Some(5300), "{entry:#}");

    // From a file and from a pipe, bytes that are no text included.
    let host = b.host();
    host.sh("printf '\\000\\377' > bytes").ok();
    b.ask(&["dht", "put", "weather/berlin/raw", "--file", "bytes"]);
    let raw = eventually(SOON, "the bytes arrive", || {
        let entries = a.json(&["dht", "get", "weather/berlin/raw", "--json"]);
        entries.get(0).cloned()
    });
    assert_eq!(raw["value"]["hex"], "00ff");
    b.ask(&["dht", "put", "weather/berlin", "13 °C"]);
    until(SOON, "both owners are there", || {
        read(c, "weather/berlin").len() == 2
    });
    until(SOON, "the tree is complete", || {
        c.ask(&["dht", "walk", "weather"]) == "weather/\n  berlin  a, b\n    raw  b"
    });

    a.ask(&["dht", "delete", "weather/berlin"]);
    for node in [a, b, c] {
        reads(node, "weather/berlin", "b", "13 °C", SOON);
    }
    let why = a.host().hivevpn(&["dht", "delete", "weather/berlin"]);
    assert!(why.failed_with(exit::FAILED).contains("weather/berlin"));
    let why = a.host().hivevpn(&["dht", "put", "Weather", "1"]);
    assert!(why.failed_with(exit::FAILED).contains("is not a key"));

    // Each keeps in its part of the DHT what the others publish.
    until(SOON, "the entries lie in the DHT", || {
        let routes = c.json(&["dht", "routes", "--json"]);
        routes["records"]["entries_of_others"].as_u64() >= Some(2)
    });
    let routes = c.json(&["dht", "routes", "--json"]);
    let buckets = routes["buckets"].as_array().unwrap().iter();
    let peers = buckets.flat_map(|bucket| bucket["peers"].as_array().unwrap());
    let mut names: Vec<_> = peers.map(|peer| peer["name"].as_str().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["a", "b"]);
    let shown = c.ask(&["dht", "routes"]);
    assert!(
        shown.contains("server: ") && shown.contains("BUCKET"),
        "{shown}"
    );
}

#[test]
fn ten_that_write_at_once_under_one_key_are_all_there() {
    const NAMES: [&str; 10] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];
    let lab = NAMES.iter().fold(Lab::new(), |lab, name| lab.public(name));
    let net = Network::configured(lab.build(), &NAMES, |_| String::new());
    std::thread::scope(|scope| {
        for name in NAMES {
            let node = net.node(name);
            scope.spawn(move || node.ask(&["dht", "put", "roll-call", name]));
        }
    });
    let all: Vec<_> = NAMES.map(|name| (name.to_owned(), name.to_owned())).into();
    for name in NAMES {
        until(REPAIRED, &format!("{name} sees all"), || {
            read(net.node(name), "roll-call") == all
        });
    }
}

#[test]
fn an_entry_outlives_four_of_its_five_holders_and_reaches_who_comes_then() {
    const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];
    let lab = NAMES.iter().fold(Lab::new(), |lab, name| lab.public(name));
    let lab = lab.public("late").build();
    let mut net = Network::start(lab, NAMES);
    net.node("b").ask(&["dht", "put", "will", "all to a"]);
    for name in NAMES {
        reads(net.node(name), "will", "b", "all to a", REPAIRED);
    }
    for name in ["b", "c", "d", "e"] {
        net.take(name).kill9();
    }
    let a = net.node("a");
    reads(a, "will", "b", "all to a", SOON);
    let searched = a.json(&["dht", "get", "will", "--network", "--json"]);
    assert_eq!(searched[0]["value"]["text"], "all to a");
    let late = net.lab().host("late").up(&["--join", &a.invite()]);
    reads(&late, "will", "b", "all to a", REPAIRED);
}

/// Stops a node without a warning, and starts it again with what it has on its disk.
fn restart(net: &mut Network, name: &'static str) {
    net.take(name).kill9();
    let node = net.lab().host(name).up(&[]);
    net.put(node);
}

fn copy_state(host: &Host, from: &str, to: &str) {
    host.sh(&format!("rm -rf {to} && cp -a {from} {to}")).ok();
}

#[test]
fn nothing_older_comes_back_after_all_holders_were_restarted() {
    let mut net = three();
    let b = net.node("b");
    b.ask(&["dht", "put", "version", "1"]);
    b.ask(&["dht", "put", "rumour", "it is true"]);
    for name in ["a", "c"] {
        reads(net.node(name), "version", "b", "1", SOON);
        reads(net.node(name), "rumour", "b", "it is true", SOON);
    }
    // The owner's disk as it is now comes back later.
    net.take("b").interrupt();
    let host = net.lab().host("b").clone();
    copy_state(&host, "state", "backup");
    net.put(host.up(&[]));
    net.node("b").wait("online", "a", Duration::from_secs(15));
    net.node("b").wait("online", "c", Duration::from_secs(15));
    net.node("b").ask(&["dht", "put", "version", "2"]);
    net.node("b").ask(&["dht", "delete", "rumour"]);
    for name in ["a", "c"] {
        reads(net.node(name), "version", "b", "2", REPAIRED);
        until(REPAIRED, "the rumour is over", || {
            read(net.node(name), "rumour").is_empty()
        });
    }
    net.take("b").interrupt();
    // What was written last is on the disk a moment later.
    crate::deadline::passes(Duration::from_secs(1));
    restart(&mut net, "a");
    restart(&mut net, "c");
    for name in ["a", "c"] {
        assert_eq!(read(net.node(name), "version"), [("b".into(), "2".into())]);
        assert!(read(net.node(name), "rumour").is_empty());
    }

    copy_state(&host, "backup", "state");
    net.put(host.up(&[]));
    reads(net.node("b"), "version", "b", "2", REPAIRED);
    until(
        REPAIRED,
        "the owner itself learns that it was deleted",
        || read(net.node("b"), "rumour").is_empty(),
    );
    for name in ["a", "c"] {
        assert_eq!(read(net.node(name), "version"), [("b".into(), "2".into())]);
        assert!(read(net.node(name), "rumour").is_empty());
    }
    // And what it writes now counts, although its counter was set back.
    net.node("b").ask(&["dht", "put", "version", "3"]);
    for name in ["a", "c"] {
        reads(net.node(name), "version", "b", "3", REPAIRED);
    }
}

#[test]
fn a_client_reads_and_publishes_but_keeps_and_serves_nothing_of_others() {
    let lab = Lab::new().public("client").public("a").public("late");
    let lab = lab.build();
    let toml = |name: &str| match name {
        "client" => "[node]\ndht = \"client\"\n".to_owned(),
        _ => String::new(),
    };
    let mut net = Network::configured(lab, &["client", "a"], toml);
    net.wait("online", ["client", "a"], Duration::from_secs(15));
    let (client, a) = (net.node("client"), net.node("a"));
    a.ask(&["dht", "put", "from-a", "hello"]);
    client.ask(&["dht", "put", "from-client", "hi"]);
    reads(client, "from-a", "a", "hello", SOON);
    reads(a, "from-client", "client", "hi", SOON);
    let searched = client.json(&["dht", "get", "from-a", "--network", "--json"]);
    assert_eq!(searched[0]["value"]["text"], "hello");

    until(SOON, "what the client publishes lies in the DHT", || {
        let routes = a.json(&["dht", "routes", "--json"]);
        routes["records"]["entries_of_others"] == 1
    });
    let routes = a.json(&["dht", "routes", "--json"]);
    assert_eq!(
        routes["buckets"].as_array().map(Vec::len),
        Some(0),
        "{routes:#}"
    );
    let routes = client.json(&["dht", "routes", "--json"]);
    assert_eq!(routes["mode"], "client");
    assert_eq!(routes["records"]["others"], 0, "{routes:#}");

    // Whoever comes when the owner is gone gets nothing of it from the client, but what is the client's own.
    net.take("a").kill9();
    let client = net.node("client");
    let late = net.lab().host("late").up(&["--join", &client.invite()]);
    reads(&late, "from-client", "client", "hi", REPAIRED);
    assert!(read(&late, "from-a").is_empty());
    // And nothing of others is on its disk.
    let client = net.take("client");
    let host = client.host().clone();
    client.interrupt();
    let client = host.up(&["network.toml"]);
    assert!(read(&client, "from-a").is_empty());
    assert_eq!(
        read(&client, "from-client"),
        [("client".into(), "hi".into())]
    );
}

#[test]
fn the_rules_of_a_node_hold_for_what_comes_and_for_what_it_has() {
    const RULES: &str = "[[registry.rule]]\nkeys = \"weather/**\"\ngroups = [\"sensors\"]\n\
                         [[registry.rule]]\nkeys = \"**\"\nmax_bytes = 10\n";
    let lab = Lab::new().public("a").public("b").public("roof").build();
    let a = lab.host("a").up(&[]);
    let (b_host, roof_host) = (lab.host("b"), lab.host("roof"));
    b_host.configure(RULES);
    let b = b_host.up(&["network.toml", "--join", &a.invite()]);
    let sensor = a.ask(&["invite", "--group", "sensors"]);
    let roof = roof_host.up(&["--join", &sensor]);
    for other in [&a, &roof] {
        b.wait("online", other.host().name(), Duration::from_secs(15));
    }
    a.ask(&["dht", "put", "weather/berlin", "sun"]);
    a.ask(&["dht", "put", "other", "short"]);
    a.ask(&["dht", "put", "long", "more than ten bytes"]);
    roof.ask(&["dht", "put", "weather/berlin", "rain"]);
    reads(&b, "other", "a", "short", SOON);
    reads(&b, "weather/berlin", "roof", "rain", SOON);
    assert!(read(&b, "long").is_empty());
    until(SOON, "the refusals are counted", || {
        rejections(&b, "role-missing") > 0 && rejections(&b, "too-large") > 0
    });
    until(SOON, "a has both, for it has no rule", || {
        read(&a, "weather/berlin").len() == 2
    });

    // What it had before there was a rule is not shown either.
    a.interrupt();
    lab.host("a").configure(RULES);
    let a = lab.host("a").up(&["network.toml"]);
    assert_eq!(read(&a, "weather/berlin"), [("roof".into(), "rain".into())]);
    // Nor may it write what its own rules forbid.
    let refused = a.host().hivevpn(&["dht", "put", "weather/berlin", "sun"]);
    let why = refused.failed_with(exit::FAILED);
    assert!(why.contains("group"), "{why}");
    assert_eq!(read(&b, "weather/berlin"), [("roof".into(), "rain".into())]);
}

#[test]
fn a_wrong_rule_is_told_with_its_line() {
    let lab = Lab::new().public("a").build();
    let host = lab.host("a");
    let file = host.configure("[[registry.rule]]\nkeys = \"weather/**\"\nhours = \"always\"\n");
    let why = host.hivevpn(&["up", file]).failed_with(exit::USAGE);
    assert!(
        why.contains("network.toml:3: registry.rule.hours: 'always'"),
        "{why}"
    );
}

#[test]
fn the_example_of_the_local_api_runs_as_it_is_documented() {
    const DOCUMENT: &str = include_str!("../../src/control/local-api.md");
    let example = DOCUMENT.split("```python\n").nth(1).unwrap();
    let example = example.split("```").next().unwrap();
    let net = Network::start(Lab::new().public("a").public("b").build(), ["a", "b"]);
    net.wait("online", ["a", "b"], Duration::from_secs(15));
    let (a, b) = (net.node("a"), net.node("b"));
    let script = a.host().directory().join("example.py");
    std::fs::write(script, example).unwrap();
    let run = |node: &Node| {
        let line = ["python3", "../a/example.py", "hivevpn.sock"];
        node.host().run(&line).ok()
    };
    assert_eq!(run(a), "a 12 °C");
    reads(b, "weather/berlin", "a", "12 °C", SOON);
    assert_eq!(run(b), "a 12 °C\nb 12 °C");
}
