//! Every candidate that was tried, what came of it, and why this path is used.

use std::time::Duration;

use serde_json::Value;

use crate::lab::{Lab, Nat};
use crate::node::{Network, Node, exit};

/// The candidates of an answer, each of which is complete.
fn candidates(answer: &Value) -> &[Value] {
    let candidates = answer["candidates"].as_array().expect("there is a list");
    for candidate in candidates {
        for field in ["kind", "address", "state", "reason"] {
            let text = candidate[field].as_str().unwrap_or_default();
            assert!(!text.is_empty(), "{field} in {candidate:#}");
        }
        let rtt = &candidate["rtt_ms"];
        assert!(rtt.is_null() || rtt.is_number(), "{candidate:#}");
    }
    candidates
}

/// The candidate whose address begins so.
fn candidate<'a>(answer: &'a Value, address: &str) -> &'a Value {
    let found = candidates(answer).iter().find(|candidate| {
        let text = candidate["address"].as_str();
        text.is_some_and(|text| text.starts_with(address))
    });
    found.unwrap_or_else(|| panic!("{address} is no candidate: {answer:#}"))
}

fn why(node: &Node, peer: &str) -> Value {
    let answer = node.json(&["why", peer, "--json"]);
    let status = node.peer(peer).expect("the peer is known");
    for field in ["path", "endpoint", "relay"] {
        assert_eq!(answer[field], status[field], "{field} in {answer:#}");
    }
    assert!(answer["since_s"].is_u64(), "{answer:#}");
    answer
}

#[test]
fn why_tells_what_was_tried_and_what_came_of_it() {
    let lab = Lab::new()
        .public("r")
        .behind(Nat::PortRestricted, "a")
        .behind(Nat::PortRestricted, "b")
        .behind(Nat::Symmetric, "c")
        .build();
    let net = Network::start(lab, ["r", "a", "b", "c"]);
    net.wait("direct", ["a", "b"], Duration::from_secs(15));
    net.wait("relay", ["a", "c"], Duration::from_secs(15));
    let a = net.node("a");

    let direct = why(a, "b");
    assert_eq!(direct["path"], "direct");
    let endpoint = direct["endpoint"].as_str().expect("it is a text");
    assert!(candidate(&direct, endpoint)["rtt_ms"].is_number());
    let behind_its_router = net.lab().host("b").address().to_string();
    assert!(candidate(&direct, &behind_its_router)["rtt_ms"].is_null());
    assert!(a.ask(&["why", "b"]).contains(endpoint));

    let relayed = why(a, "c");
    assert_eq!(
        (&relayed["path"], &relayed["relay"]),
        (&"relay".into(), &"r".into())
    );
    let its_router = net.lab().router("c").wan().to_string();
    assert!(candidate(&relayed, &its_router)["rtt_ms"].is_null());
    assert!(a.ask(&["why", "c"]).contains(&its_router));

    let error = a.host().hivevpn(&["why", "nobody"]);
    assert!(error.failed_with(exit::FAILED).contains("nobody"));
}
