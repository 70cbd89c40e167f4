//! Two commands on two machines.

use std::time::Duration;

use crate::deadline::until;
use crate::lab::Lab;

#[test]
fn two_machines_with_one_command_each_ping_within_twenty_seconds() {
    let lab = Lab::new().public("a").public("b").build();
    let a = lab.host("a").up(&[]);
    let invite = a.printed_invite();
    let mut b = lab
        .host("b")
        .start(&mut lab.host("b").hivevpn_command(&["up", "--join", &invite]));
    let address = a.ipv4();
    until(Duration::from_secs(20), "b pings a", || {
        assert!(b.runs(), "{}", b.stderr());
        lab.host("b").pings(address)
    });
}

#[test]
fn two_machines_behind_nat_need_only_a_public_third() {
    let lab = Lab::new()
        .public("r")
        .behind(crate::lab::Nat::PortRestricted, "a")
        .behind(crate::lab::Nat::PortRestricted, "b")
        .build();
    let r = lab.host("r").up(&[]);
    let a = lab.host("a").up(&["--join", &r.invite()]);
    let invite = r.invite();
    let mut b = lab
        .host("b")
        .start(&mut lab.host("b").hivevpn_command(&["up", "--join", &invite]));
    let address = a.ipv4();
    until(Duration::from_secs(20), "b pings a", || {
        assert!(b.runs(), "{}", b.stderr());
        lab.host("b").pings(address)
    });
}

#[test]
fn a_script_can_wait_for_a_node_that_it_has_just_started() {
    let lab = Lab::new().public("a").public("b").build();
    let a = lab.host("a").up(&[]);
    let b = lab.host("b");
    let _b = b.start(&mut b.hivevpn_command(&["up", "--join", &a.invite()]));
    b.hivevpn(&["status", "--wait", "online", "--timeout", "20"])
        .ok();
    b.hivevpn(&[
        "status",
        "--wait",
        "online",
        "--peer",
        "a",
        "--timeout",
        "20",
    ])
    .ok();
}
