//! A network begins on one machine, and one string brings in another.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::deadline::until;
use crate::lab::{Host, Lab};
use crate::node::{Node, exit};

/// Tries to join; asserts that this ends with a message and leaves no interface. The message.
fn is_refused(host: &Host, invite: &str) -> String {
    let outcome = host.hivevpn(&["up", "--join", invite]);
    assert!(
        matches!(outcome.code, Some(exit::FAILED | exit::USAGE)),
        "{outcome}"
    );
    assert!(
        !outcome.stderr.contains("panicked at") && outcome.stderr.contains("invite"),
        "{outcome}"
    );
    assert!(!host.sh("ip link").ok().contains("hive0"), "{outcome}");
    outcome.stderr
}

/// The members that a node knows beside itself.
fn peers(node: &Node) -> Vec<String> {
    let status = node.status();
    status["peers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|peer| peer["name"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn the_founder_prints_an_invite_that_admits_one_node() {
    let lab = Lab::new().public("a").public("b").public("c").build();
    let a = lab.host("a").up(&[]);
    let invite = a.printed_invite();

    let b = lab.host("b").up(&["--join", &invite]);
    a.wait("online", "b", Duration::from_secs(10));
    assert!(a.host().pings(b.ipv4()) && b.host().pings(a.ipv4()));
    assert_eq!(b.status()["network"]["id"], a.status()["network"]["id"]);

    let why = is_refused(lab.host("c"), &invite);
    assert!(why.contains("used"), "{why}");
    assert_eq!(peers(&a), ["b"]);
    assert_eq!(peers(&b), ["a"]);
}

#[test]
fn invite_prints_the_invite_alone_and_each_only_once() {
    let lab = Lab::new().public("a").build();
    let a = lab.host("a").up(&[]);
    let outcome = lab.host("a").hivevpn(&["invite"]);
    let [first, second] = [outcome.ok(), a.invite()];
    for invite in [&first, &second] {
        assert!(
            invite.starts_with("hive1") && !invite.contains(char::is_whitespace),
            "{invite:?}"
        );
    }
    assert_ne!(first, second);
}

#[test]
fn an_invite_that_was_changed_or_cut_admits_nobody() {
    let lab = Lab::new().public("a").public("c").build();
    let a = lab.host("a").up(&[]);
    let invite = a.invite();
    let middle = invite.len() / 2;
    let other = if invite.as_bytes()[middle] == b'x' {
        "y"
    } else {
        "x"
    };
    let changed = format!("{}{other}{}", &invite[..middle], &invite[middle + 1..]);
    for wrong in [
        &invite[..middle],
        &invite[..invite.len() - 1],
        &changed,
        "hive1",
        "hive1notaninvite",
        "letmein",
        "",
    ] {
        is_refused(lab.host("c"), wrong);
    }
    assert_eq!(peers(&a), [""; 0]);

    // It was the changes: the invite itself still works.
    let c = lab.host("c").up(&["--join", &invite]);
    c.wait("online", "a", Duration::from_secs(10));
}

#[test]
fn an_expired_invite_admits_nobody() {
    let lab = Lab::new().public("a").public("c").build();
    let a = lab.host("a").up(&[]);
    let now = || {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs()
    };
    let invite = a.ask(&["invite", "--expires", "1s"]);
    let issued = now();
    until(Duration::from_secs(4), "two seconds pass", || {
        now() > issued + 1
    });
    let why = is_refused(lab.host("c"), &invite);
    assert!(why.contains("expired"), "{why}");
    assert_eq!(peers(&a), [""; 0]);
}

#[test]
fn an_invite_to_a_node_that_is_gone_says_so() {
    let lab = Lab::new().public("a").public("c").build();
    let a = lab.host("a").up(&[]);
    let invite = a.invite();
    a.interrupt();
    let outcome = lab.host("c").hivevpn(&["up", "--join", &invite]);
    let why = outcome.failed_with(exit::TIMED_OUT);
    assert!(
        why.contains("203.0.113.11"),
        "the message names where it was looked for: {why}"
    );
}

#[test]
fn a_network_member_that_is_asked_to_join_another_network_refuses() {
    let lab = Lab::new().public("a").public("c").build();
    let a = lab.host("a").up(&[]);
    lab.host("c").up(&[]).interrupt();
    is_refused(lab.host("c"), &a.invite());
    assert_eq!(peers(&a), [""; 0]);
}
