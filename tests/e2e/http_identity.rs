//! What is exposed on loopback is used at its node's address, and learns who uses it.

use std::time::Duration;

use serde_json::{Value, json};

use crate::deadline::until;
use crate::lab::{Lab, Process};
use crate::node::{Network, Node};
use crate::openai;

/// The programs of these tests.
const PROGRAMS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/http_identity");

fn two_nodes() -> Network {
    let net = Network::start(Lab::new().public("a").public("b").build(), ["a", "b"]);
    net.wait("direct", ["a", "b"], Duration::from_secs(15));
    net
}

/// A server on `b` that only `b` itself reaches, and that tells what it sees.
fn backend(b: &Node) -> Process {
    let program = format!("{PROGRAMS}/backend.py");
    let mut server = b.host().spawn(&["python3", "-B", &program, "8080"]);
    server.says("listening", Duration::from_secs(10));
    server
}

/// The values of a header that the backend saw.
fn values<'a>(seen: &'a Value, name: &str) -> Vec<&'a str> {
    let headers = seen["headers"].as_array().unwrap();
    let named = headers.iter().filter(|header| header[0] == name);
    named.map(|header| header[1].as_str().unwrap()).collect()
}

#[test]
fn an_exposed_web_service_sees_who_calls_and_nobody_can_pretend() {
    let net = two_nodes();
    let (a, b) = (net.node("a"), net.node("b"));
    let _server = backend(b);
    b.ask(&["expose", "8080", "--as", "wiki", "--kind", "http"]);
    let url = |b: &Node| format!("http://{}:8080/page?q=1", b.ipv4());
    let see = |from: &Node, options: &str| -> Value {
        let line = format!("curl -sS --max-time 20 {options} '{}'", url(b));
        serde_json::from_str(&from.host().sh(&line).ok()).unwrap()
    };

    let seen = see(a, "");
    assert_eq!(seen["path"], "/page?q=1");
    assert_eq!(values(&seen, "x-hive-name"), ["a"]);
    assert_eq!(values(&seen, "x-hive-peer"), [a.node_field("peer_id")]);
    assert_eq!(values(&seen, "x-forwarded-for"), [a.ipv4().to_string()]);
    assert_eq!(values(&seen, "host"), [format!("{}:8080", b.ipv4())]);

    let pretending = "-H 'X-Hive-Name: b' -H 'x_hive_name: b' -H 'X-Hive-Groups: admin' -H 'X-Hive-Peer: 12D3' \
         -H 'Connection: X-Hive-Name' -H 'X-Forwarded-For: 127.0.0.1' -H 'Forwarded: for=127.0.0.1'";
    let seen = see(a, pretending);
    assert_eq!(values(&seen, "x-hive-name"), ["a"]);
    assert_eq!(values(&seen, "x-hive-peer"), [a.node_field("peer_id")]);
    assert_eq!(values(&seen, "x-hive-groups"), [""]);
    assert_eq!(values(&seen, "x-forwarded-for"), [a.ipv4().to_string()]);
    assert!(values(&seen, "x_hive_name").is_empty() && values(&seen, "forwarded").is_empty());

    // The node itself is a member too.
    assert_eq!(values(&see(b, ""), "x-hive-name"), ["b"]);
}

#[test]
fn the_openai_sdk_uses_a_model_that_a_peer_exposes() {
    let python = openai::python();
    let net = two_nodes();
    let (a, b) = (net.node("a"), net.node("b"));
    let _server = openai::serve(&python, b, "127.0.0.1");
    b.ask(&["expose", "8000", "--as", "llm", "--kind", "openai"]);

    let url = format!("http://{}:8000/v1", b.ipv4());
    let client = format!("{}/client.py", openai::PROGRAMS);
    let said = a.host().run(&[&python, "-B", &client, &url]).ok();
    assert_eq!(said.lines().last(), Some("OK"), "{said}");

    let usage = b.json(&["usage", "--json"]);
    let used = &usage[0];
    assert_eq!(
        (&used["service"], &used["member"]),
        (&json!("llm"), &json!("a")),
        "{usage}"
    );
    assert_eq!(used["errors"], 0, "{usage}");
    for count in [
        "requests",
        "prompt_tokens",
        "completion_tokens",
        "estimated_tokens",
    ] {
        assert!(used[count].as_u64() > Some(0), "{count}: {usage}");
    }
    let table = b.ask(&["usage"]);
    assert!(
        table
            .lines()
            .any(|line| line.starts_with("llm") && line.contains('~')),
        "{table}"
    );
}

#[test]
fn a_model_of_a_peer_calls_tools() {
    let python = openai::python();
    let net = two_nodes();
    let (a, b) = (net.node("a"), net.node("b"));
    let _server = backend(b);
    b.ask(&["expose", "8080", "--as", "llm", "--kind", "openai"]);
    let url = format!("http://{}:8080/v1", b.ipv4());
    let said = a
        .host()
        .run(&[&python, "-B", &format!("{PROGRAMS}/tools.py"), &url])
        .ok();
    assert_eq!(said.trim(), "OK");
    let usage = b.json(&["usage", "--json"]);
    // Seven tokens by its own account, and the pieces of the stream that gave none.
    let pieces = "{\"flower\": \"rose\"}".len() as u64;
    assert_eq!(usage[0]["completion_tokens"], 7 + pieces, "{usage}");
    assert_eq!(usage[0]["estimated_tokens"], pieces, "{usage}");
}

#[test]
fn what_members_used_survives_restarts_until_it_is_reset() {
    let mut net = two_nodes();
    let _server = backend(net.node("b"));
    net.node("b")
        .ask(&["expose", "8080", "--as", "llm", "--kind", "openai"]);
    let usage = |net: &Network| net.node("b").json(&["usage", "--json"]);
    let ask = |net: &Network| {
        let before = usage(net)[0]["requests"].as_u64().unwrap_or(0);
        let body = json!({"model": "tool-user", "tools": [{"function": {"name": "pick"}}]});
        let url = format!("http://{}:8080/v1/chat/completions", net.node("b").ipv4());
        let line = format!("curl -sS --fail --max-time 30 --json '{body}' {url}");
        net.node("a").host().sh(&line).ok();
        until(Duration::from_secs(10), "the request is counted", || {
            usage(net)[0]["requests"].as_u64() > Some(before)
        });
    };
    let restart = |net: &mut Network| {
        let host = net.lab().host("b");
        let mut up = host.hivevpn_command(&["up"]);
        let node = host.up_by(up.env("HIVEVPN_LOG", "info,hivevpn=debug"));
        net.put(node);
    };
    ask(&net);
    let used = usage(&net);
    assert_eq!(
        (&used[0]["prompt_tokens"], &used[0]["completion_tokens"]),
        (&json!(11), &json!(7)),
        "{used}"
    );

    net.take("b").interrupt();
    restart(&mut net);
    assert_eq!(usage(&net), used, "after a restart");

    net.wait("direct", ["a", "b"], Duration::from_secs(30));
    ask(&net);
    let used = usage(&net);
    let saved = format!(
        "usage is written down entries=1 requests={}",
        used[0]["requests"]
    );
    until(Duration::from_secs(30), "it is written down", || {
        net.node("b").log().contains(&saved)
    });
    net.take("b").kill9();
    restart(&mut net);
    assert_eq!(usage(&net), used, "after it was killed");
    let table = net.node("b").ask(&["usage", "llm"]);
    assert!(table.contains("SINCE") && table.contains("ago"), "{table}");

    net.node("b").ask(&["unexpose", "llm"]);
    assert_eq!(usage(&net), used, "nobody forgets what was used");
    let error = net.node("b").host().hivevpn(&["usage", "--reset", "chat"]);
    assert!(error.failed_with(1).contains("but of llm"));
    let reset = net.node("b").json(&["usage", "llm", "--reset", "--json"]);
    assert_eq!(reset, used);
    assert_eq!(usage(&net), json!([]));
    net.take("b").kill9();
    restart(&mut net);
    assert_eq!(usage(&net), json!([]), "it stays forgotten");
}
