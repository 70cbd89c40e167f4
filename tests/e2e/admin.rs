//! Membership gives no right on a node. Whoever knows an administrator's password, or is listed by the node itself, may
//! act on it from another one, as far as the roles go, and everybody sees in its audit log that they did.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::lab::Lab;
use crate::node::{Network, Node, exit};

const PASSWORD: &str = "correct-horse-battery-staple";
const ANOTHER: &str = "another-horse-another-staple";

/// Two nodes that know each other.
fn two() -> Network {
    let net = Network::start(Lab::new().public("a").public("b").build(), ["a", "b"]);
    net.wait_ping("a", "b", Duration::from_secs(10));
    net
}

/// Runs a command with a password on its standard input.
fn with_password(node: &Node, password: &str, arguments: &[&str]) -> crate::lab::Outcome {
    node.host().write_private("password", password);
    let all = [arguments, &["--password-file", "password"]].concat();
    let outcome = node.host().hivevpn(&all);
    fs::remove_file(node.host().directory().join("password")).unwrap();
    outcome
}

fn refused(node: &Node, arguments: &[&str], because: &str) {
    let why = node.host().hivevpn(arguments).failed_with(exit::FAILED);
    assert!(why.contains(because), "{arguments:?}: {why}");
}

/// The lines of a node's audit log, without times.
fn audit(node: &Node) -> Vec<String> {
    let entries = node.json(&["audit", "--json"]);
    let entries = entries.as_array().unwrap().iter();
    let field = |entry: &Value, name: &str| entry[name].as_str().unwrap_or("-").to_owned();
    entries
        .map(|entry| ["caller", "request", "subject", "outcome"].map(|name| field(entry, name)))
        .map(|fields| fields.join(" "))
        .collect()
}

#[test]
fn a_member_has_no_right_on_a_node_until_it_proves_one() {
    let net = two();
    let (a, b) = (net.node("a"), net.node("b"));
    let not_yet = "not an administrator of b: log in with 'hivevpn login b'";
    for command in ["status", "nodes", "down"] {
        refused(a, &["--on", "b", command], not_yet);
    }
    // Without any administrator every password is wrong.
    let why = with_password(a, PASSWORD, &["login", "b"]).failed_with(exit::FAILED);
    assert!(why.contains("wrong"), "{why}");

    with_password(b, PASSWORD, &["admin", "set-password"]).ok();
    let listed = b.json(&["admin", "list", "--json"]);
    assert_eq!(listed[0]["roles"], serde_json::json!(["metrics"]));
    // On a slow machine the first pauses are over before the next try. They double.
    let limited = (0..10).find_map(|_| {
        let why = with_password(a, "wrong", &["login", "b"]).failed_with(exit::FAILED);
        let is_limited = why.contains("too often: try again in");
        assert!(
            is_limited || why.contains("the user or the password is wrong"),
            "{why}"
        );
        is_limited.then_some(())
    });
    assert!(limited.is_some(), "ten wrong passwords in a row were heard");
    refused(a, &["--on", "b", "status"], not_yet);

    let tries = audit(b);
    let of_tries = tries
        .iter()
        .filter(|line| line.contains("try a password admin done"));
    assert!(of_tries.count() >= 3, "{tries:#?}");
    assert!(
        tries
            .iter()
            .any(|line| line.contains("login admin refused: TooOften")),
        "{tries:#?}"
    );
}

#[test]
fn an_administrator_does_what_its_roles_allow_until_the_password_changes() {
    let net = two();
    let (a, b) = (net.node("a"), net.node("b"));
    let heard = b.host().capture(PASSWORD.as_bytes());
    with_password(b, PASSWORD, &["admin", "set-password"]).ok();
    let said = with_password(a, PASSWORD, &["login", "b"]).ok();
    assert_eq!(said, "you may act on b for 60 minutes: metrics");

    let status = a.json(&["--on", "b", "status", "--json"]);
    assert_eq!(status["node"]["name"], "b");
    assert_eq!(status["node"]["peer_id"], b.node_field("peer_id").as_str());
    assert!(a.ask(&["--on", "b", "why", "a"]).starts_with("a: direct"));
    assert!(a.ask(&["--on", "b", "ping", "-c1", "a"]).contains("direct"));
    a.ask(&["--on", "b", "netcheck"]);
    assert_eq!(a.ask(&["--on", "b", "id"]), b.node_field("peer_id"));

    refused(a, &["--on", "b", "down"], "takes the role config on b");
    refused(a, &["--on", "b", "invite"], "takes the role keys on b");
    for elsewhere in [
        &["doctor"][..],
        &["bench", "a"],
        &["admin", "list"],
        &["login", "a"],
    ] {
        let arguments = [&["--on", "b"], elsewhere].concat();
        let why = a.host().hivevpn(&arguments).failed_with(exit::USAGE);
        assert!(why.contains("this machine only"), "{why}");
    }
    // It is a's right alone: b has none on a.
    refused(b, &["--on", "a", "status"], "not an administrator of a");

    with_password(b, ANOTHER, &["admin", "set-password", "--role", "config"]).ok();
    refused(a, &["--on", "b", "status"], "not an administrator of b");
    with_password(a, ANOTHER, &["login", "b"]).ok();
    refused(a, &["--on", "b", "status"], "takes the role metrics on b");
    a.ask(&["logout", "b"]);
    refused(a, &["--on", "b", "down"], "not an administrator of b");

    let lines = audit(b);
    for part in [
        "login admin done",
        "down - refused: 'down' takes the role 'config'",
        "admin set-password admin: config done",
    ] {
        assert!(
            lines.iter().any(|line| line.contains(part)),
            "{part}: {lines:#?}"
        );
    }
    assert_eq!(heard.stop().matching, 0, "the password was on the wire");
    is_nowhere_below(net.lab().directory(), &[PASSWORD, ANOTHER]);
}

/// Neither in a log nor in any state.
fn is_nowhere_below(directory: &Path, secrets: &[&str]) {
    let mut files = 0;
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).unwrap().flatten() {
            let path = entry.path();
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                directories.push(path);
            } else if kind.is_file() {
                let bytes = fs::read(&path).unwrap();
                files += 1;
                for secret in secrets {
                    let is_there = bytes
                        .windows(secret.len())
                        .any(|at| at == secret.as_bytes());
                    assert!(!is_there, "{secret} is in {}", path.display());
                }
            }
        }
    }
    assert!(
        files > 10,
        "logs and state of two nodes are more than {files} files"
    );
}

#[test]
fn a_node_may_list_members_and_hashed_passwords_and_be_stopped_from_afar() {
    let lab = Lab::new().public("a").public("b").public("c").build();
    let a = lab.host("a").up(&[]);
    let line = {
        let b = lab.host("b");
        b.write_private("password", PASSWORD);
        let hash = ["admin", "hash", "--user", "ops", "--role", "metrics"];
        let line = b.hivevpn(&[&hash[..], &["--password-file", "password"]].concat());
        line.ok()
    };
    assert!(
        line.starts_with("ops metrics ") && !line.contains(PASSWORD),
        "{line}"
    );
    lab.host("b").write_private("admins", &(line + "\n"));
    let toml = lab
        .host("b")
        .configure("[admin]\nmembers = { a = [\"metrics\", \"config\"] }\n");
    let invite = a.invite();
    let b = lab
        .host("b")
        .up(&[toml, "--admin-file", "admins", "--join", &invite]);
    let c = lab.host("c").up(&["--join", &a.invite()]);
    for node in [&a, &c] {
        node.wait("online", "b", Duration::from_secs(20));
    }

    // c is not listed: it needs the password of an administrator that the file names.
    let why = with_password(&c, PASSWORD, &["login", "b"]).failed_with(exit::FAILED);
    assert!(why.contains("wrong"), "{why}");
    with_password(&c, PASSWORD, &["login", "b", "--user", "ops"]).ok();
    assert_eq!(
        c.json(&["--on", "b", "status", "--json"])["node"]["name"],
        "b"
    );

    // a is, and is asked for none.
    let said = a.ask(&["login", "b"]);
    assert_eq!(said, "you may act on b for 60 minutes: metrics, config");
    a.ask(&["--on", "b", "down"]);
    assert!(b.ended().succeeded());
}
