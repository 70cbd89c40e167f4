//! N6: members that know only one member find all others, and need that one no longer.

use std::time::Duration;

use crate::lab::{Lab, Nat};
use crate::node::Network;

/// B and C sit on subnets of their own, so that no multicast can introduce them.
#[test]
fn two_nodes_that_know_only_a_third_find_each_other_and_stay_together_without_it() {
    let lab = Lab::new()
        .public("a")
        .behind(Nat::Open, "b")
        .behind(Nat::Open, "c")
        .build();
    let mut net = Network::start(lab, ["a", "b", "c"]);
    net.wait_ping("b", "c", Duration::from_secs(10));
    net.wait_ping("c", "b", Duration::from_secs(10));

    net.take("a").interrupt();
    assert!(
        net.node("b").host().pings(net.node("c").ipv4()),
        "without a the tunnel stays"
    );

    net.take("b").interrupt();
    let b = net.lab().host("b").up(&[]);
    net.put(b);
    net.wait_ping("b", "c", Duration::from_secs(10));
    net.wait_ping("c", "b", Duration::from_secs(10));
}

#[test]
fn a_node_that_is_killed_is_shown_offline_and_online_again_after_its_return() {
    let mut net = Network::start(
        Lab::new().public("a").public("b").public("c").build(),
        ["a", "b", "c"],
    );
    let online = |net: &Network, seen_by: &str| {
        net.node(seen_by)
            .peer("b")
            .is_some_and(|peer| peer["online"] == true)
    };
    for observer in ["a", "c"] {
        net.node(observer)
            .wait("online", "b", Duration::from_secs(10));
    }
    net.take("b").kill9();
    crate::deadline::until(Duration::from_secs(40), "b is shown offline", || {
        !online(&net, "a") && !online(&net, "c")
    });
    let b = net.lab().host("b").up(&[]);
    net.put(b);
    for observer in ["a", "c"] {
        net.node(observer)
            .wait("online", "b", Duration::from_secs(15));
    }
}
