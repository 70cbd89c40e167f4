//! The official OpenAI SDK talks to a model on a peer, knowing nothing but the peer's overlay address.
//!
//! Nothing here is a stand-in. The server is llama.cpp with its own OpenAI-compatible API, the client is the
//! `openai` package; both come prebuilt from the Python package index (`openai/setup.sh`). Only the model is
//! made for the occasion, so that every word of its answers is known (`openai/make_model.py`). What must hold
//! of the answers, streams above all, is written where the SDK is used: `openai/client.py`.

use std::process::Command;
use std::time::Duration;

use crate::lab::{Lab, Nat, Process};
use crate::node::{Network, Node};

/// The programs of this test.
pub const PROGRAMS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/openai");

const PORT: &str = "8000";

/// How long the path may take. How soon it must be there is for other tests to say.
const PATH: Duration = Duration::from_secs(30);

/// The interpreter of an environment that has both packages. Made on first use; panics when it cannot be made.
pub fn python() -> String {
    let setup = Command::new(format!("{PROGRAMS}/setup.sh"))
        .output()
        .expect("setup.sh is executable");
    let (out, err) = (
        String::from_utf8_lossy(&setup.stdout),
        String::from_utf8_lossy(&setup.stderr),
    );
    assert!(
        setup.status.success(),
        "the OpenAI server and SDK are not here and cannot be installed: {err}"
    );
    out.trim().to_owned()
}

/// Serves the model on a node, at this address alone.
pub fn serve(python: &str, node: &Node, address: &str) -> Process {
    let model = node
        .host()
        .directory()
        .join("model.gguf")
        .display()
        .to_string();
    // -B: no compiled files beside the sources.
    node.host()
        .run(&[python, "-B", &format!("{PROGRAMS}/make_model.py"), &model])
        .ok();
    let mut server = node.host().spawn(&[
        python,
        "-B",
        &format!("{PROGRAMS}/serve.py"),
        &model,
        address,
        PORT,
    ]);
    server.says("listening on", Duration::from_secs(30));
    server
}

/// Two nodes behind such routers; the SDK on `a` uses the model on `b` over this kind of path.
fn the_sdk_uses_a_model_over(path: &str, nat: Nat) {
    let python = python();
    let lab = Lab::new()
        .public("r")
        .behind(nat, "a")
        .behind(nat, "b")
        .build();
    let net = Network::start(lab, ["r", "a", "b"]);
    net.wait(path, ["a", "b"], PATH);
    let (a, b) = (net.node("a"), net.node("b"));

    let _server = serve(&python, b, &b.ipv4().to_string());
    let url = format!("http://{}:{PORT}/v1", b.ipv4());
    let said = a
        .host()
        .run(&[&python, "-B", &format!("{PROGRAMS}/client.py"), &url])
        .ok();

    assert_eq!(said.lines().last(), Some("OK"), "{said}");
    assert_eq!(
        a.peer("b").expect("the peer is known")["path"],
        path,
        "the path is still the one to be tested"
    );
}

#[test]
fn the_openai_sdk_uses_a_model_of_a_peer_over_a_direct_path() {
    the_sdk_uses_a_model_over("direct", Nat::PortRestricted);
}

#[test]
fn the_openai_sdk_uses_a_model_of_a_peer_over_a_relay() {
    the_sdk_uses_a_model_over("relay", Nat::Symmetric);
}
