//! Who acts for the network: delegates, the authority's key off the machine, and keys that are replaced.

use std::time::Duration;

use serde_json::json;

use crate::deadline::until;
use crate::lab::Lab;
use crate::node::{Network, Node, exit};

const SOON: Duration = Duration::from_secs(15);
/// Nodes that lost each other look for each other every so often.
const LATER: Duration = Duration::from_secs(45);

/// What a node may do, as another one sees it.
fn powers(seen_by: &Node, name: &str) -> Vec<String> {
    let list = seen_by.json(&["delegate", "list", "--json"]);
    let delegates = list.as_array().unwrap();
    let found = delegates.iter().find(|delegate| delegate["name"] == name);
    found.map_or_else(Vec::new, |delegate| {
        serde_json::from_value(delegate["powers"].clone()).unwrap()
    })
}

fn has_powers(net: &Network, seen_by: &str, name: &str, expected: &[&str]) {
    let what = format!("{seen_by} knows what {name} may do: {expected:?}");
    until(LATER, &what, || powers(net.node(seen_by), name) == expected);
}

#[test]
fn a_delegate_invites_within_its_powers_until_they_end() {
    let lab = Lab::new()
        .public("a")
        .public("b")
        .public("c")
        .public("d")
        .public("e")
        .build();
    let mut net = Network::start(lab, ["a", "b", "c"]);
    net.wait_ping("a", "b", SOON);
    net.wait_ping("b", "c", SOON);
    let all = ["admit", "invite", "revoke", "policy", "update"];
    has_powers(&net, "c", "a", &all);

    let lend = [
        "delegate", "add", "b", "--power", "admit", "--power", "invite", "--group", "lab",
    ];
    let said = net.node("a").ask(&lend);
    assert!(
        said.contains("b may admit, invite") && said.contains("90 d"),
        "{said}"
    );
    for seen_by in ["a", "b", "c"] {
        has_powers(&net, seen_by, "b", &["admit", "invite"]);
    }
    assert!(net.node("c").ask(&["nodes"]).contains("admit,invite"));

    // Within its powers, without the founder.
    net.take("a").interrupt();
    let invite = net
        .node("b")
        .ask(&["invite", "--group", "lab", "--name", "d"]);
    let d = net.lab().host("d").up(&["--join", &invite]);
    net.put(d);
    net.node("c").wait("online", "d", SOON);
    net.wait_ping("c", "d", SOON);
    let whois = net.node("c").json(&["whois", "d", "--json"]);
    assert_eq!(whois["groups"], json!(["lab"]));
    // And not beyond them.
    let refused = |net: &Network, line: &[&str]| {
        let outcome = net.node("b").host().hivevpn(line);
        outcome.failed_with(exit::FAILED)
    };
    let why = refused(&net, &["invite", "--group", "gpu"]);
    assert!(why.contains("no other groups than lab"), "{why}");
    let why = refused(&net, &["revoke", "c"]);
    assert!(
        why.contains("may not expel") && why.contains("on a"),
        "{why}"
    );
    let unused = net.node("b").invite();

    // Taken back: its invites are dead, what it admitted lives on.
    let a = net.lab().host("a").up(&[]);
    net.put(a);
    net.wait_ping("a", "d", SOON);
    let said = net.node("a").ask(&["delegate", "remove", "b"]);
    assert!(said.contains("certified by this node: d"), "{said}");
    for seen_by in ["a", "b", "c", "d"] {
        has_powers(&net, seen_by, "b", &[]);
    }
    let why = refused(&net, &["invite"]);
    assert!(
        why.contains("may not invite") && why.contains("on a"),
        "{why}"
    );
    let e = net.lab().host("e").hivevpn(&["up", "--join", &unused]);
    e.failed_with(exit::FAILED);
    for [x, y] in [["a", "d"], ["c", "d"], ["d", "b"]] {
        net.wait_ping(x, y, SOON);
    }
}

/// The delegate's disk is copied before its powers end, and put back afterwards: it does not know that they ended and
/// admits somebody; the others do not take that member.
#[test]
fn what_a_former_delegate_signs_is_believed_by_nobody() {
    let lab = Lab::new()
        .public("a")
        .public("b")
        .public("c")
        .public("d")
        .build();
    let mut net = Network::start(lab, ["a", "b", "c"]);
    net.wait_ping("a", "b", SOON);
    net.wait_ping("c", "b", SOON);
    let lend = [
        "delegate", "add", "b", "--power", "admit", "--power", "invite",
    ];
    net.node("a").ask(&lend);
    has_powers(&net, "b", "b", &["admit", "invite"]);
    net.take("b").interrupt();
    net.node("a").ask(&["delegate", "remove", "b"]);
    has_powers(&net, "c", "b", &[]);

    // Cut off from the others, it goes on as it was.
    for name in ["a", "c"] {
        net.node(name).host().cable().set_carrier(false);
    }
    let b = net.lab().host("b").up(&[]);
    let d = net.lab().host("d").up(&["--join", &b.invite()]);
    b.wait("online", "d", SOON);
    let d_ipv4 = d.ipv4();
    net.put(b);
    net.put(d);
    for name in ["a", "c"] {
        net.node(name).host().cable().set_carrier(true);
    }
    // As soon as they meet, B and D hear of it.
    has_powers(&net, "b", "b", &[]);
    until(LATER, "d knows that nobody vouches for it", || {
        net.node("d").node_field("standing") != "member"
    });
    for name in ["a", "c"] {
        let nodes = net.node(name).json(&["nodes", "--json"]);
        assert_eq!(nodes.as_array().unwrap().len(), 3, "{nodes}");
        assert!(!net.node(name).host().pings(d_ipv4));
    }
}

#[test]
fn the_authoritys_key_leaves_the_machine_and_is_used_from_where_it_is() {
    let mut net = Network::start(Lab::new().public("a").public("b").build(), ["a", "b"]);
    net.wait_ping("a", "b", SOON);
    let a = net.node("a").host().clone();
    let shown = net.node("a").json(&["authority", "show", "--json"]);
    assert_eq!(shown["here"], true, "{shown}");
    a.sh("umask 077; echo 'correct horse battery' > passphrase")
        .ok();

    let sealed = [
        "authority",
        "export",
        "sealed.pem",
        "--passphrase-file",
        "passphrase",
    ];
    a.hivevpn(&[&sealed[..], &["--remove"]].concat()).ok();
    assert_eq!(a.sh("stat -c %a sealed.pem").ok(), "600");
    assert!(a.sh("head -1 sealed.pem").ok().contains("ENCRYPTED"));
    assert!(!a.directory().join("state/authority.key").exists());
    // Another tool that reads such files reads this one.
    let read = "openssl pkey -in sealed.pem -passin file:passphrase -pubout";
    assert!(a.sh(read).ok().contains("PUBLIC KEY"));
    assert_eq!(
        net.node("a").json(&["authority", "show", "--json"])["here"],
        false
    );

    // The network runs without it, and restarts without it.
    net.take("a").interrupt();
    net.put(a.up(&[]));
    net.wait_ping("a", "b", SOON);

    let lend = [
        "delegate",
        "add",
        "b",
        "--power",
        "revoke",
        "--expires",
        "24h",
    ];
    let why = a.hivevpn(&lend).failed_with(exit::FAILED);
    assert!(why.contains("--authority"), "{why}");
    let by_file = ["--authority", "sealed.pem"];
    let why = a
        .hivevpn(&[&lend[..], &by_file].concat())
        .failed_with(exit::FAILED);
    assert!(why.contains("--passphrase-file"), "{why}");
    let opened = ["--passphrase-file", "passphrase"];
    a.hivevpn(&[&lend[..], &by_file, &opened].concat()).ok();
    has_powers(&net, "b", "b", &["revoke"]);

    // Back again; a key that is nobody's authority is not taken.
    let b = net.node("b").host().clone();
    b.hivevpn(&["keygen", "--out", "other.pem", "--format", "pem"])
        .ok();
    let why = b
        .hivevpn(&["authority", "import", "other.pem"])
        .failed_with(exit::FAILED);
    assert!(why.contains("no authority"), "{why}");
    let import = ["authority", "import", "sealed.pem"];
    a.hivevpn(&[&import[..], &opened].concat()).ok();
    assert_eq!(
        net.node("a").json(&["authority", "show", "--json"])["here"],
        true
    );

    // Without a daemon as well, in plain, and never over a file that is there.
    net.take("a").interrupt();
    let plain = a.hivevpn(&["authority", "export", "plain.pem"]);
    assert!(plain.stderr.contains("not encrypted"), "{plain}");
    a.hivevpn(&["authority", "export", "plain.pem"])
        .failed_with(exit::FAILED);
    assert!(
        a.hivevpn(&["authority", "show"])
            .ok()
            .contains("on this machine")
    );
}

#[test]
fn a_wireguard_key_is_replaced_while_everybody_goes_on() {
    let mut net = Network::start(Lab::new().public("a").public("b").build(), ["a", "b"]);
    net.wait_ping("a", "b", SOON);
    let key = |net: &Network| net.lab().host("b").sh("cat state/wg.key").ok();
    let before = key(&net);
    let rotated = net.node("b").json(&["rotate", "wg", "--json"]);
    assert!(
        rotated["wireguard_key"]
            .as_str()
            .is_some_and(|key| key.len() == 44)
    );
    assert_ne!(key(&net), before);
    net.wait_ping("a", "b", SOON);
    net.wait_ping("b", "a", SOON);
    // It is the one that the next start takes.
    net.take("b").interrupt();
    let b = net.lab().host("b").up(&[]);
    net.put(b);
    net.wait_ping("a", "b", SOON);
}

#[test]
fn an_identity_is_replaced_by_a_new_admission_and_the_old_one_is_out() {
    let mut net = Network::start(Lab::new().public("a").public("b").build(), ["a", "b"]);
    net.wait_ping("a", "b", SOON);
    let host = net.lab().host("b").clone();
    let old = net.node("b").node_field("peer_id");
    let why = host
        .hivevpn(&["rotate", "identity"])
        .failed_with(exit::FAILED);
    assert!(why.contains("hivevpn down"), "{why}");
    net.take("b").interrupt();
    let outcome = host.hivevpn(&["rotate", "identity"]);
    assert!(
        outcome.stderr.contains(&format!("hivevpn revoke {old}")),
        "{outcome}"
    );
    let new = outcome.ok();
    assert_ne!(new, old);

    let why = host.hivevpn(&["up"]).failed_with(exit::FAILED);
    assert!(why.contains("--join"), "it founds no network: {why}");

    net.node("a").ask(&["revoke", &old, "--reason", "replaced"]);
    let bundle = net.node("a").ask(&["admit", &new, "--name", "b"]);
    net.put(host.up(&["--join", &bundle]));
    net.wait_ping("a", "b", SOON);
    assert_eq!(net.node("b").node_field("peer_id"), new);
    let revoked = net.node("a").json(&["nodes", "--revoked", "--json"]);
    assert_eq!(revoked[0]["peer_id"], old.as_str());

    // A founder is a delegate: its powers would go with its identity.
    let founder = net.lab().host("a").clone();
    net.take("a").interrupt();
    let why = founder
        .hivevpn(&["rotate", "identity"])
        .failed_with(exit::FAILED);
    assert!(why.contains("delegate add"), "{why}");
}
