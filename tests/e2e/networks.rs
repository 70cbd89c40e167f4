//! One machine in several networks, which it does not connect.

use std::time::Duration;

use serde_json::Value;

use crate::deadline::until;
use crate::identity::impostor::Impostor;
use crate::lab::{Host, Lab, Outcome, Process};
use crate::node::{HIVEVPN, Node, STOP, exit};

/// A daemon in several networks, each with a configuration file.
struct Several<'a> {
    host: &'a Host,
    process: Process,
}

impl<'a> Several<'a> {
    /// Starts it with these files: names without `.toml`, and what they say.
    fn up(host: &'a Host, files: &[(&str, &str)]) -> Self {
        let mut line = vec![
            HIVEVPN.to_owned(),
            "--state".into(),
            "nets".into(),
            "up".into(),
        ];
        for (name, toml) in files {
            let file = format!("{name}.toml");
            host.write_private(&file, toml);
            line.push(file);
        }
        Self {
            host,
            process: host.spawn(&line),
        }
    }

    fn ask(&self, net: &str, command: &[&str]) -> Outcome {
        let line = [HIVEVPN, "--state", "nets", "--net", net];
        self.host.run(&[&line, command].concat())
    }

    /// Waits until the node answers in this network.
    fn answers(&mut self, net: &str) {
        until(Duration::from_secs(25), &format!("{net} is up"), || {
            assert!(self.process.runs(), "{}", self.process.stderr());
            self.ask(net, &["status"]).succeeded()
        });
    }

    fn node(&self, net: &str) -> Value {
        let status = self.ask(net, &["status", "--json"]).ok();
        serde_json::from_str::<Value>(&status).unwrap()["node"].clone()
    }

    fn underlay_port(&self, net: &str) -> u16 {
        let listen = self.node(net)["listen"].to_string();
        let port = listen.split("/tcp/").nth(1).unwrap();
        let digits: String = port.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().unwrap()
    }
}

fn founder(lab: &Lab, name: &str, options: &[&str]) -> Node {
    lab.host(name).up(&[&["--network", name], options].concat())
}

fn joining(node: &Node) -> String {
    format!("[network]\ninvite = \"{}\"\n", node.invite())
}

#[test]
fn a_host_in_two_networks_reaches_both_and_connects_them_not() {
    let lab = Lab::new().public("x").public("y").public("both").build();
    let x = founder(&lab, "x", &[]);
    let y = founder(&lab, "y", &["--prefix", "10.78.0.0/16"]);
    let host = lab.host("both");
    host.sh("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")
        .ok();
    let before = host.network_state();
    let mut both = Several::up(host, &[("x", &joining(&x)), ("y", &joining(&y))]);
    both.answers("x");
    both.answers("y");
    let nodes = [both.node("x"), both.node("y")];
    assert_eq!(nodes[0]["interface"], "hive0");
    assert_eq!(nodes[1]["interface"], "hive1");
    assert_ne!(
        nodes[0]["peer_id"], nodes[1]["peer_id"],
        "an identity for each"
    );
    assert_eq!(
        (both.underlay_port("x"), both.underlay_port("y")),
        (7777, 7778)
    );
    assert!(nodes[1]["ipv4"].as_str().unwrap().starts_with("10.78."));

    until(Duration::from_secs(20), "it reaches both", || {
        [&x, &y]
            .iter()
            .all(|node| node.addresses().iter().all(|address| host.pings(*address)))
    });

    // No network tells its members the host's addresses in the other.
    for (net, foreign) in [("x", &nodes[1]), ("y", &nodes[0])] {
        let listen = both.node(net)["listen"].to_string();
        for address in [&foreign["ipv4"], &foreign["ipv6"]] {
            assert!(
                !listen.contains(address.as_str().unwrap()),
                "{net}: {listen}"
            );
        }
    }

    // Someone in X alone who sends what he likes into the tunnel: to the host's address in Y, to somebody in Y, and
    // to the host's address on the underlay.
    let (x_host, own) = (x.host().clone(), x.addresses());
    let wanted: Vec<std::net::IpAddr> = vec![
        nodes[1]["ipv4"].as_str().unwrap().parse().unwrap(),
        nodes[1]["ipv6"].as_str().unwrap().parse().unwrap(),
        y.ipv4().into(),
        y.ipv6().into(),
        host.address(),
    ];
    for address in &wanted[..4] {
        assert!(!x_host.pings(*address), "{address} from an honest node");
    }
    x.kill9();
    let in_x: [std::net::IpAddr; 2] =
        ["ipv4", "ipv6"].map(|field| nodes[0][field].as_str().unwrap().parse().unwrap());
    let mut impostor = Impostor::connect_with(&x_host, host, "nets/x");
    assert!(
        impostor.ping(own[0], in_x[0]),
        "what is for the host in X is answered"
    );
    let heard = y.host().capture(crate::identity::impostor::MARKER);
    let dropped = |both: &Several| {
        let status: Value =
            serde_json::from_str(&both.ask("x", &["status", "--json"]).ok()).unwrap();
        status["drops"]["not_for_us"].as_u64().unwrap_or(0)
    };
    let before_pings = dropped(&both);
    for address in &wanted {
        let source = if address.is_ipv4() { own[0] } else { own[1] };
        assert!(!impostor.ping(source, *address), "{address} answered");
    }
    until(Duration::from_secs(5), "they are counted", || {
        dropped(&both) >= before_pings + wanted.len() as u64
    });
    assert_eq!(heard.stop().matching, 0, "nothing of it came to Y");

    // Nothing of this has disturbed Y. One network ends alone, the other with the daemon.
    assert!(host.pings(y.ipv4()));
    both.ask("x", &["down"]).ok();
    assert!(!host.sh("ip link").ok().contains("hive0"));
    both.ask("x", &["status"]).failed_with(exit::NO_DAEMON);
    assert!(host.pings(y.ipv4()));
    let ended = host.run(&[HIVEVPN, "--state", "nets", "down"]).ok();
    assert_eq!(ended, "ended: y");
    both.process.ends(STOP).ok();
    assert_eq!(host.network_state(), before);
}

#[test]
fn one_network_that_fails_is_named_and_the_other_goes_on() {
    let lab = Lab::new().public("a").build();
    let host = lab.host("a");
    let files = [
        ("good", "[network]\nname = \"good\"\n"),
        ("same-port", "[underlay]\nport = 7799\n"),
        ("port", "[underlay]\nport = 7799\n"),
        ("same-range", "[network]\nname = \"range\"\n"),
        ("other-range", "[network]\nipv4_prefix = \"10.79.0.0/16\"\n"),
    ];
    let mut several = Several::up(host, &files);
    several.answers("other-range");
    let named = |network: &str, words: &[&str], several: &mut Several| {
        let wanted = format!("network '{network}': ");
        several.process.says(&wanted, Duration::from_secs(10));
        let said = several.process.stderr();
        let line = said.lines().find(|line| line.contains(&wanted)).unwrap();
        for word in words {
            assert!(line.contains(word), "no {word:?} in {line}");
        }
    };
    named("port", &["7799", "another network's"], &mut several);
    // Of those with the same range the first to come has it.
    let ups = || {
        let up = ["good", "same-port", "same-range"]
            .map(|net| several.ask(net, &["status"]).succeeded());
        up.iter().filter(|up| **up).count()
    };
    until(Duration::from_secs(10), "one of the three is up", || {
        ups() == 1
    });
    several.process.says("--prefix", Duration::from_secs(10));
    assert!(
        several
            .process
            .stderr()
            .contains("overlaps with 10.77.0.0/16")
    );
    several.ask("other-range", &["status"]).ok();
    several.process.signal(nix::sys::signal::Signal::SIGTERM);
    let why = several.process.ends(STOP).failed_with(exit::FAILED);
    assert!(why.contains("these networks failed: port, "), "{why}");
    assert!(!host.sh("ip link").ok().contains("hive"));
}

#[test]
fn several_files_take_no_options_of_one_network_and_no_directory_of_one() {
    let lab = Lab::new().public("a").build();
    let host = lab.host("a");
    host.write_private("x.toml", "");
    host.write_private("y.toml", "");
    let refused = |arguments: &[&str]| {
        let line = [&[HIVEVPN, "--state", "nets"], arguments].concat();
        host.run(&line).failed_with(exit::USAGE)
    };
    let why = refused(&["up", "--port", "1", "x.toml", "y.toml"]);
    assert!(why.contains("write the options into them"), "{why}");
    let why = refused(&["up", "x.toml", "x.toml"]);
    assert!(why.contains("called x"), "{why}");
    let why = refused(&["--net", "../x", "status"]);
    assert!(why.contains("cannot name"), "{why}");
    // A network that was there before moves by hand, and the message says how.
    host.up(&[]).interrupt();
    let line = [HIVEVPN, "--state", "state", "up", "x.toml", "y.toml"];
    let why = host.run(&line).failed_with(exit::USAGE);
    assert!(
        why.contains("one network so far") && why.contains("mkdir"),
        "{why}"
    );
}
