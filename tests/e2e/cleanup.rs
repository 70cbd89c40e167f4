//! A node that is gone leaves the machine as it found it.

use nix::sys::signal::Signal;

use crate::lab::{Host, Lab};
use crate::node::{STOP, exit};

/// Asserts that nothing of a node is left on a host.
fn is_clean(host: &Host, before: &str, after_what: &str) {
    pretty(before, &host.network_state(), after_what);
    assert!(
        !host.directory().join("hivevpn.sock").exists(),
        "{after_what}: the control socket is still there"
    );
    host.hivevpn(&["status"]).failed_with(exit::NO_DAEMON);
}

/// Compares two listings line by line.
fn pretty(before: &str, after: &str, what: &str) {
    let [new, gone] = [(after, before), (before, after)].map(|(these, those)| {
        these
            .lines()
            .filter(|line| !those.lines().any(|other| other == *line))
            .collect::<Vec<_>>()
    });
    assert!(
        new.is_empty() && gone.is_empty(),
        "{what} left {new:#?} and took {gone:#?}"
    );
}

#[test]
fn every_way_to_end_a_node_undoes_all_it_did() {
    let lab = Lab::new().public("a").build();
    let host = lab.host("a");
    let before = host.network_state();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let node = host.up(&[]);
        assert_ne!(
            host.network_state(),
            before,
            "a running node has an interface"
        );
        node.end(signal);
        is_clean(host, &before, signal.as_str());
    }
    let node = host.up(&[]);
    host.hivevpn(&["down"]).ok();
    node.ended().ok();
    is_clean(host, &before, "down");
}

#[test]
fn a_start_after_a_kill_repairs_what_was_left() {
    let lab = Lab::new().public("a").public("b").build();
    let (host, before) = (lab.host("a"), lab.host("a").network_state());
    let a = host.up(&[]);
    let b = lab.host("b").up(&["--join", &a.invite()]);
    let address = a.ipv4();
    a.kill9();
    let a = host.up(&[]);
    assert_eq!(a.ipv4(), address);
    crate::deadline::until(STOP, "b reaches the restarted node", || {
        b.host().pings(address)
    });
    a.interrupt();
    is_clean(host, &before, "kill -9, restart, interrupt");
}

#[test]
fn a_second_node_on_the_same_state_is_refused_and_harms_nothing() {
    let lab = Lab::new().public("a").build();
    let host = lab.host("a");
    let first = host.up(&[]);
    let running = host.network_state();
    let why = host.hivevpn(&["up"]).failed_with(exit::FAILED);
    assert!(why.contains("in use by process"), "{why}");
    assert_eq!(host.network_state(), running);
    first.status();
    first.interrupt();
}

#[test]
fn a_node_that_cannot_join_leaves_nothing() {
    let lab = Lab::new().public("a").build();
    let (host, before) = (lab.host("a"), lab.host("a").network_state());
    let outcome = host.hivevpn(&["up", "--join", "hive1wrong"]);
    assert_ne!(outcome.code, Some(0));
    is_clean(host, &before, "a refused join");
    // Nor a network: the next start without an invite founds one, which a half-joined state would forbid.
    host.up(&[]).interrupt();
    is_clean(host, &before, "the start after it");
}
