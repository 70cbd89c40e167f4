//! Who may reach what, as programs see it that know nothing of a policy.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use crate::deadline::until;
use crate::lab::{Host, Lab};
use crate::node::{Network, Node};

/// Far more than it takes, and far less than a program waits for an answer that never comes.
const SOON: Duration = Duration::from_secs(10);
const PORT: u16 = 8080;

fn two_nodes() -> Network {
    let net = Network::start(Lab::new().public("a").public("b").build(), ["a", "b"]);
    net.wait("direct", ["a", "b"], Duration::from_secs(15));
    net
}

fn set(node: &Node, toml: &str) {
    let file = node.host().directory().join("policy.toml");
    std::fs::write(&file, toml).unwrap();
    node.ask(&["policy", "set", file.to_str().unwrap()]);
}

/// The policy is the same everywhere.
fn wait_for_version(net: &Network, version: u64) {
    for name in ["a", "b"] {
        until(SOON, "the policy arrives", || {
            net.node(name).json(&["policy", "show", "--json"])["version"] == version
        });
    }
}

fn connect(host: &Host, address: IpAddr) -> Result<TcpStream, ErrorKind> {
    host.here(move || {
        TcpStream::connect_timeout(&SocketAddr::new(address, PORT), SOON)
            .map_err(|error| error.kind())
    })
}

#[test]
fn a_closed_network_refuses_at_once_and_a_rule_opens_it() {
    let net = two_nodes();
    let (a, b) = (net.node("a"), net.node("b"));
    let _listener = b
        .host()
        .here(|| TcpListener::bind(("0.0.0.0", PORT)).unwrap());
    let address = IpAddr::from(b.ipv4());
    assert!(connect(a.host(), address).is_ok());

    a.ask(&["policy", "mode", "closed"]);
    wait_for_version(&net, 1);
    let refused = connect(a.host(), address).map(drop);
    assert_eq!(refused, Err(ErrorKind::ConnectionRefused));
    assert!(!a.host().pings(address));
    assert!(a.status()["drops"]["policy_refused"].as_u64() > Some(0));

    set(
        a,
        "mode = \"closed\"\n[[allow]]\nfrom = [\"a\"]\nto = [\"b\"]\nports = [\"tcp/8080\"]\nnote = \"the shop\"\n",
    );
    wait_for_version(&net, 2);
    assert!(connect(a.host(), address).is_ok());
    assert!(!a.host().pings(address));
    let trace = b.ask(&["policy", "trace", "a", "b", "8080"]);
    assert!(
        trace.contains("allowed") && trace.contains("(the shop)"),
        "{trace}"
    );
    let trace = b.json(&["policy", "trace", "b", "a", "22", "--json"]);
    assert_eq!(trace["allowed"], false);
}

#[test]
fn a_live_connection_is_cut_by_a_denial() {
    let net = two_nodes();
    let (a, b) = (net.node("a"), net.node("b"));
    let listener = b
        .host()
        .here(|| TcpListener::bind(("0.0.0.0", PORT)).unwrap());
    let mut client = connect(a.host(), b.ipv4().into()).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    client.write_all(b"hello").unwrap();
    server.read_exact(&mut [0; 5]).unwrap();

    set(
        a,
        "mode = \"open\"\n[[deny]]\nfrom = [\"a\"]\nto = [\"b\"]\nports = [\"tcp/8080\"]\n",
    );
    until(SOON, "the client's connection is reset", || {
        let written = client.write_all(b"still there?");
        written.is_err_and(|error| {
            error.kind() == ErrorKind::ConnectionReset || error.kind() == ErrorKind::BrokenPipe
        })
    });
}

#[test]
fn a_policy_whose_tests_fail_is_not_taken() {
    let net = two_nodes();
    let a = net.node("a");
    let file = a.host().directory().join("policy.toml");
    let toml =
        "mode = \"open\"\n[[test]]\nfrom = \"a\"\nto = \"b\"\nport = \"22\"\nexpect = \"deny\"\n";
    std::fs::write(&file, toml).unwrap();
    let outcome = a.host().hivevpn(&["policy", "set", file.to_str().unwrap()]);
    let why = outcome.failed_with(1);
    assert!(why.contains("a to b on tcp/22: expect deny"), "{why}");
    assert_eq!(a.json(&["policy", "show", "--json"])["version"], 0);
}
