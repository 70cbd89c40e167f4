//! Whoever knows the network's name and password joins, nobody else does, and the password stays where it was typed.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use crate::deadline::until;
use crate::lab::{Host, Lab};
use crate::node::{Node, exit};

/// Found nowhere else.
const PASSWORD: &str = "sesame-open-7f3a";
const NETWORK: &str = "lab:sesame-open-7f3a";

/// What a node prints for others to join by.
fn bootstrap(node: &Node) -> String {
    node.ask(&["id", "--base64"])
}

/// Joins with a network, name and password in one.
fn join(host: &Host, network: &str, bootstrap: &str) -> Node {
    host.up(&["--network", network, "--bootstrap", bootstrap])
}

/// Tries to join; asserts that this ends with exit code 1 and no interface. The message.
fn is_refused(host: &Host, network: &str, bootstrap: &str) -> String {
    let outcome = host.hivevpn(&["up", "--network", network, "--bootstrap", bootstrap]);
    let why = outcome.failed_with(exit::FAILED);
    assert!(!host.sh("ip link").ok().contains("hive0"), "{why}");
    why
}

fn tries_too_much(why: &str) -> bool {
    why.contains("asked too often")
}

fn is_wrong(why: &str) -> bool {
    why.contains("name or its password is wrong")
}

/// Writes a file on this host that only its owner may read.
fn private(host: &Host, name: &str, text: &str) -> String {
    let path = host.directory().join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    path.display().to_string()
}

/// The files below this host's directory that contain the password.
fn found_on_disk(host: &Host) -> String {
    host.sh(&format!("grep -rlaF -e {PASSWORD} . ; true")).ok()
}

#[test]
fn who_knows_name_and_password_joins_and_both_survive_a_restart() {
    let lab = Lab::new().public("a").public("b").public("c").build();
    let a = lab.host("a").up(&["--network", NETWORK]);
    let b = join(lab.host("b"), NETWORK, &bootstrap(&a));
    a.wait("online", "b", Duration::from_secs(10));
    assert!(a.host().pings(b.ipv4()) && b.host().pings(a.ipv4()));
    assert_eq!(b.status()["network"]["id"], a.status()["network"]["id"]);
    assert_eq!(b.status()["network"]["name"], "lab");

    // Neither needs the password again: one is a member, the other has a record of it.
    let ours = b.ipv4();
    a.interrupt();
    b.interrupt();
    let a = lab.host("a").up(&[]);
    let b = lab.host("b").up(&[]);
    assert_eq!(b.ipv4(), ours);
    let c = join(lab.host("c"), NETWORK, &bootstrap(&a));
    c.wait("online", "a", Duration::from_secs(10));
}

#[test]
fn a_wrong_password_and_a_wrong_name_are_refused_in_the_same_words() {
    let lab = Lab::new().public("a").public("c").build();
    let a = lab.host("a").up(&["--network", NETWORK]);
    let (bootstrap, c) = (bootstrap(&a), lab.host("c"));
    let password = is_refused(c, "lab:sesame-open-7f3b", &bootstrap);
    let name = is_refused(c, "lap:sesame-open-7f3a", &bootstrap);
    assert!(is_wrong(&password) && is_wrong(&name), "{password}{name}");
    assert_eq!(a.status()["peers"].as_array().map(Vec::len), Some(0));
    until(
        Duration::from_secs(60),
        "the founder logs the tries",
        || a.log().contains("a wrong password"),
    );
    assert!(!a.log().contains("sesame"), "{}", a.log());
    join(c, NETWORK, &bootstrap).wait("online", "a", Duration::from_secs(10));
}

/// From one address, with a new identity each time: ten guesses, then a minute's pause. Meanwhile another address joins.
#[test]
fn of_a_hundred_wrong_passwords_ten_are_looked_at() {
    let lab = Lab::new().public("a").public("b").public("c").build();
    let a = lab.host("a").up(&["--network", NETWORK]);
    let (bootstrap, c) = (bootstrap(&a), lab.host("c"));
    let whys: Vec<_> = (0..100)
        .map(|guess| is_refused(c, &format!("lab:guess-{guess}"), &bootstrap))
        .collect();
    assert!(whys[..10].iter().all(|why| is_wrong(why)), "{whys:?}");
    let limited = whys.iter().filter(|why| tries_too_much(why)).count();
    let wrong = whys.iter().filter(|why| is_wrong(why)).count();
    assert_eq!(limited + wrong, 100, "{whys:?}");
    // A slow machine takes more than a minute for all of this, and then has a guess more.
    assert!(wrong <= 13, "{wrong} of 100 were looked at");
    join(lab.host("b"), NETWORK, &bootstrap).wait("online", "a", Duration::from_secs(10));
}

#[test]
fn the_password_is_found_nowhere_afterwards() {
    let lab = Lab::new().public("a").public("b").build();
    let wire = lab.host("a").capture(PASSWORD.as_bytes());
    let a = lab.host("a").up(&["--network", NETWORK]);
    let b = join(lab.host("b"), NETWORK, &bootstrap(&a));
    b.wait("online", "a", Duration::from_secs(10));
    let seen = wire.stop();
    assert!(seen.packets > 20 && seen.matching == 0, "{seen:?}");
    for node in [&a, &b] {
        let line = node.command_line();
        assert!(
            line.contains("lab:***") && !line.contains(PASSWORD),
            "{line}"
        );
        assert!(node.log().contains("was on the command line"));
        assert_eq!(found_on_disk(node.host()), "");
    }
    // So this search finds what there is to find.
    private(a.host(), "proof", PASSWORD);
    assert_eq!(found_on_disk(a.host()), "./proof");
}

#[test]
fn a_bootstrap_address_with_a_name_alone_is_not_enough() {
    let lab = Lab::new().public("a").public("c").build();
    let a = lab.host("a").up(&["--network", NETWORK]);
    let outcome = lab
        .host("c")
        .hivevpn(&["up", "--network", "lab", "--bootstrap", &bootstrap(&a)]);
    let why = outcome.failed_with(exit::USAGE);
    assert!(why.contains("--network lab:PASSWORD"), "{why}");
    assert!(
        !lab.host("c")
            .directory()
            .join("state/authority.key")
            .exists()
    );
}

#[test]
fn the_password_comes_by_environment_file_standard_input_or_systemd() {
    let lab = Lab::new()
        .public("a")
        .public("b")
        .public("c")
        .public("d")
        .public("e")
        .public("f")
        .build();
    let host = |name| lab.host(name).clone();
    let up = |name: &'static str, arguments: &[&str], set: &dyn Fn(&mut Command)| {
        let mut command = host(name).hivevpn_command(&[&["up"], arguments].concat());
        set(&mut command);
        host(name).up_by(&mut command)
    };
    let a = up("a", &[], &|command| {
        command.env("HIVEVPN_NETWORK", NETWORK);
    });
    let string = bootstrap(&a);
    let place = ["--bootstrap", string.as_str()];

    let file = private(&host("b"), "password", &format!("{PASSWORD}\n"));
    let b = up(
        "b",
        &[&["--network", "lab", "--password-file", &file], &place[..]].concat(),
        &|_| {},
    );

    let toml = format!("[network]\nname = \"{NETWORK}\"\n[underlay]\nbootstrap = [\"{string}\"]\n");
    let c = up("c", &[&private(&host("c"), "network.toml", &toml)], &|_| {});

    let credentials = host("d").directory().join("credentials");
    fs::create_dir(&credentials).unwrap();
    fs::write(credentials.join("hivevpn.password"), PASSWORD).unwrap();
    let d = up(
        "d",
        &[&["--network", "lab"], &place[..]].concat(),
        &|command| {
            command.env("CREDENTIALS_DIRECTORY", &credentials);
        },
    );

    let file = private(&host("e"), "password", PASSWORD);
    let toml = format!(
        "[network]\nname = \"lab\"\npassword_file = \"{file}\"\n[underlay]\nbootstrap = [\"{string}\"]\n"
    );
    let e = host("e").up(&[host("e").configure(&toml)]);
    // Once a member it does not need the file.
    fs::remove_file(&file).unwrap();
    e.interrupt();
    let e = host("e").up(&["network.toml"]);

    let typed = format!("exec \"$@\" <<END\n{PASSWORD}\nEND");
    let line = [
        "sh",
        "-c",
        &typed,
        "sh",
        crate::node::HIVEVPN,
        "up",
        "--network",
        "lab:-",
    ];
    let mut command = host("f").command(&[&line, &place[..]].concat());
    command.env("HIVEVPN_STATE", host("f").directory().join("state"));
    command.env("HIVEVPN_SOCKET", host("f").directory().join("hivevpn.sock"));
    let f = host("f").up_by(&mut command);

    for node in [b, c, d, e, f] {
        node.wait("online", "a", Duration::from_secs(15));
    }
}

#[test]
fn a_file_with_a_password_that_others_can_read_is_refused() {
    let lab = Lab::new().public("a").build();
    let a = lab.host("a");
    let toml = a.configure(&format!("[network]\nname = \"{NETWORK}\"\n"));
    a.sh("chmod 644 network.toml").ok();
    let why = a.hivevpn(&["up", toml]).failed_with(exit::USAGE);
    assert!(
        why.contains("network.toml") && why.contains("chmod 600"),
        "{why}"
    );
    fs::write(a.directory().join("password"), PASSWORD).unwrap();
    let why = a
        .hivevpn(&["up", "--network", "lab", "--password-file", "password"])
        .failed_with(exit::USAGE);
    assert!(why.contains("chmod 600"), "{why}");
    assert!(!a.directory().join("state").exists());
}

#[test]
fn the_password_is_set_changed_and_cleared_while_the_node_runs() {
    let lab = Lab::new().public("a").public("b").public("c").build();
    let a = lab.host("a").up(&["--network", "lab"]);
    let (bootstrap, c) = (bootstrap(&a), lab.host("c"));
    assert!(is_wrong(&is_refused(c, NETWORK, &bootstrap)), "none is set");

    let file = private(a.host(), "password", PASSWORD);
    a.ask(&["password", "set", "--file", &file]);
    let b = join(lab.host("b"), NETWORK, &bootstrap);
    b.wait("online", "a", Duration::from_secs(10));
    let why = b
        .host()
        .hivevpn(&["password", "clear"])
        .failed_with(exit::FAILED);
    assert!(why.contains("founded the network"), "{why}");

    let typed = "exec \"$@\" <<END\nanother-secret\nEND";
    a.host().hivevpn_after(typed, &["password", "set"]).ok();
    assert!(is_wrong(&is_refused(c, NETWORK, &bootstrap)), "the old one");
    a.interrupt();
    let a = lab.host("a").up(&[]);
    assert!(
        is_wrong(&is_refused(c, NETWORK, &bootstrap)),
        "still the old one"
    );
    join(c, "lab:another-secret", &bootstrap).interrupt();

    a.ask(&["password", "clear"]);
    c.sh("rm -r state").ok();
    assert!(
        is_wrong(&is_refused(c, "lab:another-secret", &bootstrap)),
        "cleared"
    );
}
