//! One address for every model of the network.
//!
//! The servers are llama.cpp behind NATs of their own, on loopback, and exposed; the client is the official SDK on a third
//! machine, which knows one URL. What must hold of the answers is written where the SDK is used: `openai/endpoint.py`.

use std::time::Duration;

use serde_json::Value;

use crate::deadline::{eventually, until};
use crate::lab::{Lab, Nat, Process};
use crate::node::{Network, Node, exit};
use crate::openai::{PROGRAMS, python};

/// How long the paths and what is told over them may take.
const SOON: Duration = Duration::from_secs(30);

/// The user on `a` and servers on `b` and `c`, all behind routers.
fn three() -> Network {
    let lab = Lab::new()
        .public("r")
        .behind(Nat::PortRestricted, "a")
        .behind(Nat::PortRestricted, "b")
        .behind(Nat::PortRestricted, "c")
        .build();
    let net = Network::start(lab, ["r", "a", "b", "c"]);
    for server in ["b", "c"] {
        net.wait("direct", ["a", server], SOON);
    }
    net
}

/// Serves the model under this name on a node's loopback address, and exposes it.
fn serve(python: &str, node: &Node, id: &str) -> Process {
    let model = node.host().directory().join("model.gguf");
    let model = model.display().to_string();
    let program = |name: &str| format!("{PROGRAMS}/{name}");
    // -B: no compiled files beside the sources.
    node.host()
        .run(&[python, "-B", &program("make_model.py"), &model])
        .ok();
    let line = [
        python,
        "-B",
        &program("serve.py"),
        &model,
        "127.0.0.1",
        "8000",
        id,
    ];
    let mut server = node.host().spawn(&line);
    server.says("listening on", SOON);
    node.ask(&[
        "expose",
        "127.0.0.1:8000",
        "--as",
        "llm",
        "--kind",
        "openai",
    ]);
    server
}

/// `models --json`, once it lists this many.
fn listed(node: &Node, count: usize) -> Value {
    eventually(SOON, &format!("{count} models are listed"), || {
        let models = node.json(&["models", "--json"]);
        (models["models"].as_array()?.len() == count).then_some(models)
    })
}

fn endpoint(models: &Value) -> String {
    models["endpoint"].as_str().unwrap().to_owned()
}

/// Starts a step of the SDK on a node.
fn sdk(python: &str, node: &Node, arguments: &[&str]) -> Process {
    let program = format!("{PROGRAMS}/endpoint.py");
    node.host()
        .spawn(&[&[python, "-B", &program], arguments].concat())
}

/// Waits for such a step to succeed; what it printed.
fn succeeds(mut step: Process) -> String {
    let said = step.ends(Duration::from_secs(120)).ok();
    assert_eq!(said.lines().last(), Some("OK"), "{said}");
    said
}

#[test]
fn one_address_has_the_models_of_all_members() {
    let python = python();
    let net = three();
    let (a, b, c) = (net.node("a"), net.node("b"), net.node("c"));
    let _servers = [serve(&python, b, "bee"), serve(&python, c, "wasp")];
    let models = listed(a, 2);
    for (model, id, node) in [(0, "bee", "b"), (1, "wasp", "c")] {
        let model = &models["models"][model];
        assert_eq!((&model["id"], &model["node"]), (&id.into(), &node.into()));
        assert!(
            model["load"].is_number() && model["rtt_ms"].is_number(),
            "{model}"
        );
    }
    let url = endpoint(&models);
    succeeds(sdk(&python, a, &[&url, "all", "bee", "wasp"]));
    // By the address of the overlay as well, which the name leads to.
    let overlay = format!("http://{}/v1", a.ipv4());
    succeeds(sdk(&python, a, &[&overlay, "all", "bee", "wasp"]));
    // It is this machine's: nobody else is answered.
    let foreign = format!("curl -sS -m5 http://{}/v1/models", a.ipv4());
    assert!(!b.host().sh(&foreign).succeeded());
    connecting_finds_the_model_or_says_what_there_is(a, &url);
}

fn connecting_finds_the_model_or_says_what_there_is(a: &Node, url: &str) {
    let shown: Value = a.json(&["connect", "openai://bee@b", "--json"]);
    assert_eq!(shown["base_url"], url);
    assert_eq!(
        (&shown["model"], &shown["nodes"][0]),
        (&"bee@b".into(), &"b".into())
    );
    let line = [
        "connect",
        "openai://bee",
        "--run",
        "--",
        "sh",
        "-c",
        "echo $OPENAI_BASE_URL $OPENAI_MODEL",
    ];
    assert_eq!(a.ask(&line), format!("{url} bee"));
    let exported = a.ask(&["connect", "openai://wasp", "--export"]);
    assert!(
        exported.contains(&format!("export OPENAI_BASE_URL='{url}'")),
        "{exported}"
    );
    let refused = |what: &str| {
        a.host()
            .hivevpn(&["connect", what])
            .failed_with(exit::FAILED)
    };
    assert!(refused("openai://bees").contains("did you mean bee?"));
    assert!(refused("openai://bee@c").contains("these do: b"));
    a.host()
        .hivevpn(&["connect", "bee"])
        .failed_with(exit::USAGE);
    let table = a.ask(&["models"]);
    assert!(table.contains("bee") && table.contains(url), "{table}");
}

#[test]
fn tool_calls_pass_untouched() {
    let python = python();
    let net = Network::start(Lab::new().public("a").public("b").build(), ["a", "b"]);
    net.wait("direct", ["a", "b"], SOON);
    let (a, b) = (net.node("a"), net.node("b"));
    let program = format!("{PROGRAMS}/tools.py");
    let mut server = b
        .host()
        .spawn(&[&python, "-B", &program, "127.0.0.1", "8000", "smith"]);
    server.says("listening", SOON);
    b.ask(&["expose", "8000", "--as", "tools", "--kind", "openai"]);
    let url = endpoint(&listed(a, 1));
    succeeds(sdk(&python, a, &[&url, "tools", "smith"]));
}

#[test]
fn a_form_finds_the_model_that_it_names() {
    let python = python();
    let net = Network::start(Lab::new().public("a").public("b").build(), ["a", "b"]);
    net.wait("direct", ["a", "b"], SOON);
    let (a, b) = (net.node("a"), net.node("b"));
    let program = format!("{PROGRAMS}/ear.py");
    let mut server = b
        .host()
        .spawn(&[&python, "-B", &program, "127.0.0.1", "8000", "ear"]);
    server.says("listening", SOON);
    b.ask(&["expose", "8000", "--as", "hearing", "--kind", "openai"]);
    let url = endpoint(&listed(a, 1));
    succeeds(sdk(&python, a, &[&url, "hear", "ear", "b"]));
    until(SOON, "all of it is counted under its model", || {
        let usage = b.json(&["usage", "--json"]);
        let rows = usage.as_array().unwrap();
        let counted = |field: &str| rows[0][field].as_u64();
        rows.len() == 1
            && rows[0]["model"] == "ear"
            && (counted("requests"), counted("completion_tokens")) == (Some(8), Some(16))
    });
}

#[test]
fn many_streams_at_once_all_come_to_their_end() {
    let python = python();
    let net = three();
    let _servers = ["b", "c"].map(|name| serve(&python, net.node(name), "bee"));
    let a = net.node("a");
    let url = endpoint(&listed(a, 2));
    let said = succeeds(sdk(&python, a, &[&url, "many", "bee", "64"]));
    // Both had their share: each has one slot.
    assert!(said.contains("'b': ") && said.contains("'c': "), "{said}");
}

#[test]
fn a_server_that_dies_within_a_stream_is_an_error_and_the_next_request_goes_elsewhere() {
    broken(|_, server, _| drop(server));
}

#[test]
fn a_node_that_dies_within_a_stream_is_an_error_and_the_next_request_goes_elsewhere() {
    broken(|net, server, name| {
        net.take(name).kill9();
        // It outlives its node and goes on writing.
        std::mem::forget(server);
    });
}

/// Two members with one model; one of them goes away as the story says.
fn broken(end: impl FnOnce(&mut Network, Process, &'static str)) {
    let python = python();
    let mut net = three();
    let mut servers = ["b", "c"].map(|name| Some(serve(&python, net.node(name), "bee")));
    let url = endpoint(&listed(net.node("a"), 2));
    let mut step = sdk(&python, net.node("a"), &[&url, "broken", "bee"]);
    step.says("streaming from", SOON);
    let name = match step.stdout().contains("streaming from b") {
        true => "b",
        false => "c",
    };
    let server = servers[usize::from(name == "c")].take().unwrap();
    end(&mut net, server, name);
    let said = succeeds(step);
    assert!(said.contains("it says: the answer of"), "{said}");
    // What is gone is not listed.
    until(SOON, "its model is gone", || {
        let models = net.node("a").json(&["models", "--json"]);
        let models = models["models"].as_array().unwrap();
        models.iter().all(|model| model["node"] != name)
    });
}

#[test]
#[ignore = "measures: cargo test --release --test e2e first_token -- --ignored --nocapture"]
fn the_first_token_comes_as_soon_as_from_the_server_itself() {
    let python = python();
    let net = three();
    let b = net.node("b");
    let _server = serve(&python, b, "bee");
    let a = net.node("a");
    let url = endpoint(&listed(a, 1));
    let direct = format!("http://{}:8000/v1", b.ipv4());
    let line = [&url, "ttft", "bee", "300", &direct, &url];
    println!("{}", succeeds(sdk(&python, a, &line)));
}

#[test]
#[ignore = "measures: cargo test --release --test e2e first_tokens -- --ignored --nocapture"]
fn sixty_four_streams_at_once_have_their_first_tokens_as_soon_as_from_the_server_itself() {
    let python = python();
    let lab = Lab::new().public("a").public("b").build();
    let net = Network::configured(lab, &["a", "b"], |_| {
        "[services.limits]\nrequests_per_minute = 1000000\n".to_owned()
    });
    net.wait("direct", ["a", "b"], SOON);
    let (a, b) = (net.node("a"), net.node("b"));
    let program = format!("{PROGRAMS}/crowd.py");
    let line = [&python, "-B", &program, "serve", "127.0.0.1", "8000", "bee"];
    let mut server = b.host().spawn(&line);
    server.says("listening", SOON);
    b.ask(&["expose", "8000", "--as", "llm", "--kind", "openai"]);
    let url = endpoint(&listed(a, 1));
    let direct = format!("http://{}:8000/v1", b.ipv4());
    let line = [
        &python, "-B", &program, "ask", "bee", "64", "20", &direct, &url,
    ];
    println!("{}", succeeds(a.host().spawn(&line)));
}
