//! What one node exposes, the others find.

use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

use super::{LOOPBACK, PATH, PORT, SOON, Server, count, echo, echoes, expose, forward, neighbours};
use crate::deadline::{eventually, until};
use crate::lab::{Host, Lab};
use crate::node::{Node, exit};

/// Within which a node that died without a word is known not to be reached.
const SILENT: Duration = Duration::from_secs(30);
/// Within which a service must be found.
const FOUND: Duration = Duration::from_secs(5);

/// A model server that has one model, and asks nobody for a key.
fn models(stream: TcpStream) {
    use std::io::{Read, Write};
    let mut stream = stream;
    let mut heard = [0; 4096];
    let asked = stream.read(&mut heard).unwrap_or(0);
    if asked == 0 {
        return;
    }
    let body = r#"{"object":"list","data":[{"id":"llama-3.3","object":"model"}]}"#;
    let length = body.len();
    let _ = stream.write_all(
        format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        )
        .as_bytes(),
    );
}

fn listed(node: &Node, name: &str) -> Option<Value> {
    let services = node.json(&["services", "--json"]);
    let mut services = services.as_array().unwrap().iter();
    services.find(|service| service["name"] == name).cloned()
}

#[test]
fn a_model_server_is_found_by_others_and_is_offline_with_its_node() {
    let mut net = neighbours();
    let b = net.node("b");
    let _server = Server::start(b.host(), (LOOPBACK, PORT), models);
    b.ask(&[
        "expose",
        "127.0.0.1:8000",
        "--as",
        "llm",
        "--kind",
        "openai",
    ]);
    let a = net.node("a");
    let service = eventually(FOUND, "a knows the service", || listed(a, "llm"));
    assert_eq!(service["kind"], "openai");
    assert_eq!(service["node"], "b");
    assert_eq!(service["address"], b.ipv4().to_string());
    assert_eq!(service["port"], PORT);
    assert_eq!(service["health"], "up");
    assert_eq!(service["models"], serde_json::json!(["llama-3.3"]));
    assert!(service["age_s"].as_u64().unwrap() < 60);
    assert!(a.ask(&["services"]).contains("llama-3.3"));
    let found = a.json(&[
        "services", "--model", "llama*", "--kind", "openai", "--json",
    ]);
    assert_eq!(found.as_array().unwrap().len(), 1);
    let none = a.json(&["services", "--kind", "ssh", "--json"]);
    assert_eq!(none.as_array().unwrap().len(), 0);

    net.take("b").kill9();
    let a = net.node("a");
    until(SILENT, "it is offline", || {
        listed(a, "llm").is_none_or(|service| service["health"] == "offline")
    });
}

#[test]
fn a_service_that_is_taken_back_is_gone_everywhere() {
    let net = neighbours();
    let (a, b) = (net.node("a"), net.node("b"));
    let _server = Server::start(b.host(), (LOOPBACK, PORT), count);
    expose(
        b,
        &[
            "8000",
            "--as",
            "count",
            "--tag",
            "test",
            "--description",
            "Counts",
        ],
    );
    let service = eventually(FOUND, "a knows the service", || listed(a, "count"));
    assert_eq!(service["description"], "Counts");
    b.ask(&["unexpose", "count"]);
    until(FOUND, "a knows that it is gone", || {
        listed(a, "count").is_none()
    });
}

#[test]
fn a_forward_finds_a_service_by_its_name_and_fails_over() {
    let lab = Lab::new().public("a").public("b").public("c").build();
    let mut net = crate::node::Network::start(lab, ["a", "b", "c"]);
    for (one, other) in [("a", "b"), ("a", "c"), ("b", "c")] {
        net.wait("direct", [one, other], PATH);
    }
    let _servers: Vec<Server> = ["b", "c"]
        .map(|name| {
            let server = Server::start(net.node(name).host(), (LOOPBACK, PORT), echo);
            expose(net.node(name), &["8000", "--as", "echo"]);
            server
        })
        .into();
    let a = net.node("a");
    let both = || {
        let services = a.json(&["services", "--json"]);
        services.as_array().unwrap().len() == 2
    };
    until(FOUND, "a knows both", both);
    let (any, only_b) = (forward(a, &["echo"]), forward(a, &["echo.b"]));
    let host: Host = a.host().clone();
    assert!(echoes(&host, LOOPBACK, any) && echoes(&host, LOOPBACK, only_b));
    net.take("b").kill9();
    until(SOON * 2, "the forward leads to c", || {
        echoes(&host, LOOPBACK, any)
    });
    let why = net
        .node("a")
        .host()
        .hivevpn(&["forward", "echo.d"])
        .failed_with(exit::FAILED);
    assert!(why.contains("echo.d"), "{why}");
}

/// Whoever knows the password would have the model server.
#[test]
fn an_open_model_server_is_not_for_everybody_who_knows_a_password() {
    let lab = Lab::new().public("a").build();
    let a = lab
        .host("a")
        .up(&["--network", "home:correct-horse-battery"]);
    let _server = Server::start(a.host(), (LOOPBACK, PORT), models);
    let line = ["expose", "8000", "--as", "llm", "--kind", "openai"];
    let why = a.host().hivevpn(&line).failed_with(exit::FAILED);
    for way in ["--to", "--unauthenticated", "key"] {
        assert!(why.contains(way), "{way} in {why}");
    }
    a.ask(&[&line[..], &["--to", "group:friends"]].concat());
    a.ask(&[&line[..], &["--unauthenticated"]].concat());
}
