//! An expelled node is out at once, everywhere and for good, until it is restored.

use std::time::Duration;

use serde_json::Value;

use crate::deadline::until;
use crate::doctor::with_clock_ahead;
use crate::lab::{Host, Lab, Nat};
use crate::node::{Network, Node, exit};
use crate::traffic::{Watch, dies_within};

/// How long traffic of an expelled node may go on.
const CUT: Duration = Duration::from_secs(10);
const SOON: Duration = Duration::from_secs(15);
/// A node that is not let in knocks at longer and longer intervals.
const LATER: Duration = Duration::from_secs(45);
/// As long as an expelled node gets for trying.
const WATCHED: Duration = Duration::from_secs(8);

fn three() -> Network {
    let lab = Lab::new().public("a").public("b").public("c").build();
    let net = Network::start(lab, ["a", "b", "c"]);
    for [x, y] in [["a", "b"], ["a", "c"], ["b", "c"]] {
        net.wait("direct", [x, y], SOON);
    }
    net
}

fn knows(node: &Node, name: &str) -> bool {
    let nodes = node.json(&["nodes", "--json"]);
    nodes.as_array().unwrap().iter().any(|n| n["name"] == name)
}

fn forgets(node: &Node, name: &str, within: Duration) {
    let what = format!("{} knows {name} no more", node.host().name());
    until(within, &what, || !knows(node, name));
}

fn standing(node: &Node) -> String {
    node.node_field("standing")
}

fn is_expelled(node: &Node) {
    let what = format!("{} knows that it was expelled", node.host().name());
    until(LATER, &what, || standing(node) == "expelled");
}

/// Asserts that for a while no ping gets through between the two, either way.
fn stays_out(from: &Host, expelled: &Host, [ours, theirs]: [std::net::Ipv4Addr; 2]) {
    let since = std::time::Instant::now();
    while since.elapsed() < WATCHED {
        assert!(!from.pings(theirs), "{} is reached", expelled.name());
        assert!(!expelled.pings(ours), "{} reaches", expelled.name());
    }
}

#[test]
fn an_expelled_nodes_live_streams_die_and_it_stays_out() {
    let mut net = three();
    let c_ipv4 = net.node("c").ipv4();
    let [a, b, c] = ["a", "b", "c"].map(|name| net.node(name));
    let stream =
        |from: &Node, to: &Node| Watch::of_stream(from.host(), to.host(), to.ipv4().into());
    // To it and from it; with who expels it and with somebody else.
    let streams = [stream(a, c), stream(b, c), stream(c, b)];
    let revoke = ["revoke", "c", "--reason", "the laptop was stolen"];
    dies_within(CUT, &streams.each_ref(), "the expulsion", || {
        let said = a.ask(&revoke);
        assert!(said.contains("revoked c"), "{said}");
    });
    for node in [a, b] {
        forgets(node, "c", CUT);
        let revoked = node.json(&["nodes", "--revoked", "--json"]);
        assert_eq!(revoked[0]["reason"], "the laptop was stolen", "{revoked}");
        assert_eq!(
            (&revoked[0]["name"], &revoked[0]["by"]),
            (&Value::from("c"), &Value::from("a"))
        );
        let whois = node.host().hivevpn(&["whois", &c_ipv4.to_string()]);
        whois.failed_with(exit::FAILED);
    }

    // It is told, and says so to whoever sits in front of it.
    is_expelled(c);
    let shown = c.ask(&["status"]);
    assert!(
        shown.contains("the laptop was stolen") && shown.contains("hivevpn restore"),
        "{shown}"
    );

    // Another start, with all that it ever had, changes nothing.
    let (a_ipv4, b_ipv4) = (a.ipv4(), b.ipv4());
    net.take("c").interrupt();
    let host = net.lab().host("c").clone();
    let c = host.up(&[]);
    stays_out(net.node("a").host(), &host, [a_ipv4, c_ipv4]);
    assert!(!host.pings(b_ipv4));
    assert_eq!(standing(&c), "expelled");
    assert!(!knows(net.node("b"), "c"));

    // Nor does a second expulsion.
    let again = net
        .node("a")
        .host()
        .hivevpn(&["revoke", &c.node_field("peer_id")]);
    assert!(again.failed_with(exit::FAILED).contains("already"));
}

#[test]
fn the_invite_of_an_expelled_node_is_dead() {
    let lab = Lab::new().public("a").public("c").public("d").build();
    let a = lab.host("a").up(&[]);
    let invite = a.invite();
    let c = lab.host("c").up(&["--join", &invite]);
    a.wait("online", "c", SOON);
    a.ask(&["revoke", "c"]);
    is_expelled(&c);
    // Another machine cannot use it, and the same one neither, with its state or with its key alone.
    lab.host("d")
        .hivevpn(&["up", "--join", &invite])
        .failed_with(exit::FAILED);
    c.interrupt();
    let host = lab.host("c");
    host.sh("rm -r state/db").ok();
    let outcome = host.hivevpn(&["up", "--join", &invite]);
    assert_eq!(outcome.code, Some(exit::FAILED), "{outcome}");
    assert!(!knows(&a, "c"));
}

/// R cannot be reached by A and B directly, which are behind routers that let nobody meet: everything between the
/// expelled node and the others would go through R.
#[test]
fn nobody_relays_for_an_expelled_node() {
    let lab = Lab::new()
        .public("r")
        .behind(Nat::Symmetric, "a")
        .behind(Nat::Symmetric, "c")
        .build();
    let net = Network::start(lab, ["r", "a", "c"]);
    net.wait("relay", ["a", "c"], SOON);
    let [r, a, c] = ["r", "a", "c"].map(|name| net.node(name));
    let ipv4s = [a.ipv4(), c.ipv4()];
    let echoes = Watch::of_echoes(a.host(), c.host(), c.ipv4().into());
    dies_within(CUT, &[&echoes], "the expulsion", || {
        r.ask(&["revoke", "c"]);
    });
    stays_out(a.host(), c.host(), ipv4s);
    // Not even for somebody who does not know yet: a reservation that it had is gone.
    let circuit = format!("/p2p/{}/p2p-circuit", r.node_field("peer_id"));
    until(LATER, "c holds no reservation with r", || {
        !c.status()["node"]["listen"].to_string().contains(&circuit)
    });
}

/// A expels C while B is away, and is gone itself when B comes back: D is the only one to tell B.
#[test]
fn a_node_that_was_away_learns_of_an_expulsion_from_a_third() {
    let lab = Lab::new()
        .public("a")
        .public("b")
        .public("c")
        .public("d")
        .build();
    let mut net = Network::start(lab, ["a", "b", "c", "d"]);
    net.wait("direct", ["b", "c"], SOON);
    net.wait("direct", ["b", "d"], SOON);
    let ipv4s = [net.node("b").ipv4(), net.node("c").ipv4()];
    net.take("b").interrupt();
    net.node("a").ask(&["revoke", "c"]);
    forgets(net.node("d"), "c", CUT);
    net.take("a").interrupt();

    let b = net.lab().host("b").up(&[]);
    forgets(&b, "c", SOON);
    stays_out(b.host(), net.node("c").host(), ipv4s);
    net.put(b);
    net.wait_ping("b", "d", SOON);
}

#[test]
fn an_expulsion_survives_the_restart_of_everybody() {
    let mut net = three();
    let ipv4s = [net.node("b").ipv4(), net.node("c").ipv4()];
    net.node("a").ask(&["revoke", "c"]);
    forgets(net.node("b"), "c", CUT);
    for name in ["a", "b", "c"] {
        net.take(name).interrupt();
    }
    // The two that may have to find each other without who expelled it.
    for name in ["c", "b"] {
        let node = net.lab().host(name).up(&[]);
        net.put(node);
    }
    stays_out(net.node("b").host(), net.node("c").host(), ipv4s);
    let a = net.lab().host("a").up(&[]);
    net.put(a);
    net.wait_ping("a", "b", SOON);
    for name in ["a", "b"] {
        assert!(!knows(net.node(name), "c"));
        let revoked = net.node(name).json(&["nodes", "--revoked", "--json"]);
        assert_eq!(revoked.as_array().unwrap().len(), 1, "{revoked}");
    }
}

#[test]
fn restoring_brings_a_node_back_without_touching_it() {
    let net = three();
    let before = ["peer_id", "ipv4", "ipv6"].map(|field| net.node("c").node_field(field));
    net.node("a").ask(&["revoke", "c"]);
    is_expelled(net.node("c"));
    forgets(net.node("b"), "c", CUT);
    let said = net.node("a").ask(&["restore", "c"]);
    assert!(said.contains("restored c"), "{said}");

    until(LATER, "c knows that it was restored", || {
        standing(net.node("c")) == "member"
    });
    net.wait_ping("a", "c", SOON);
    net.wait_ping("c", "b", SOON);
    let after = ["peer_id", "ipv4", "ipv6"].map(|field| net.node("c").node_field(field));
    assert_eq!(after, before, "what it was, it is again");
    let revoked = net.node("b").json(&["nodes", "--revoked", "--json"]);
    assert_eq!(revoked[0]["restored"], true, "{revoked}");

    // Out again, under its new certificate: the generations go on.
    net.node("a").ask(&["revoke", "c"]);
    forgets(net.node("b"), "c", CUT);
    is_expelled(net.node("c"));
}

#[test]
fn only_who_may_expels_and_the_others_are_told_who() {
    let net = Network::start(Lab::new().public("a").public("b").build(), ["a", "b"]);
    let refused = |node: &str, line: &[&str]| {
        net.node(node)
            .host()
            .hivevpn(line)
            .failed_with(exit::FAILED)
    };
    net.node("b").wait("online", "a", SOON);
    for line in [&["revoke", "a"][..], &["invite"]] {
        let why = refused("b", line);
        assert!(why.contains("may not") && why.contains("on a"), "{why}");
    }
    let nobody = refused("a", &["revoke", "nobody"]);
    assert!(nobody.contains("hivevpn nodes"), "{nobody}");
    let itself = refused("a", &["revoke", "a"]);
    assert!(itself.contains("itself"), "{itself}");
    let nothing = refused("a", &["restore", "b"]);
    assert!(nothing.contains("nothing to restore"), "{nothing}");
    assert!(knows(net.node("a"), "b") && knows(net.node("b"), "a"));
}

/// The system clock is set back to before the expulsion, on the node that learnt of it and on the one that it is about.
#[test]
fn a_clock_that_is_set_back_revives_nobody() {
    let mut net = three();
    let ipv4s = [net.node("b").ipv4(), net.node("c").ipv4()];
    net.node("a").ask(&["revoke", "c"]);
    forgets(net.node("b"), "c", CUT);
    is_expelled(net.node("c"));
    let prepare = with_clock_ahead(net.lab(), -3 * 60 * 60);
    for name in ["b", "c"] {
        net.take(name).interrupt();
    }
    for name in ["b", "c"] {
        let node = net.lab().host(name).up_after(&prepare, &[]);
        net.put(node);
    }
    net.wait_ping("a", "b", SOON);
    stays_out(net.node("b").host(), net.node("c").host(), ipv4s);
    assert!(!knows(net.node("b"), "c"));
    assert_eq!(standing(net.node("c")), "expelled");
}

/// Where nobody remembers what it was, it is admitted again: its old state takes the new certificate over.
#[test]
fn an_expelled_node_can_be_admitted_again_by_hand() {
    let mut net = three();
    let id = net.node("c").node_field("peer_id");
    net.node("a").ask(&["revoke", "c"]);
    is_expelled(net.node("c"));
    net.take("c").interrupt();
    let bundle = net
        .node("a")
        .ask(&["admit", &id, "--name", "d", "--group", "lab"]);
    let host = net.lab().host("c").clone();
    let c = host.up(&["--join", &bundle]);
    net.node("b").wait("online", "d", SOON);
    assert_eq!(standing(&c), "member");
    let whois = net.node("b").json(&["whois", "d", "--json"]);
    assert_eq!(whois["peer_id"], id.as_str(), "{whois}");
    // The admission may stay where it is: the next start does not mind.
    c.interrupt();
    let c = host.up(&["--join", &bundle]);
    assert_eq!(standing(&c), "member");
}
