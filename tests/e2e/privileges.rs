//! A running node can change networks and nothing else, and other users of its machine can do nothing with it.

use std::collections::BTreeSet;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::deadline::until;
use crate::lab::{Host, Lab, Outcome, Process};
use crate::node::{HIVEVPN, STOP, exit};

/// CAP_NET_ADMIN, as proc_pid_status(5) shows it; and with CAP_NET_BIND_SERVICE.
const NET_ADMIN: &str = "0000000000001000";
const BOTH: &str = "0000000000001400";
const NONE: &str = "0000000000000000";

/// The service's user and group in the user database that a test shows to a daemon.
const SERVICE: u32 = 41_234;
/// A user who is in the group.
const OPERATOR: u32 = 41_235;
/// Everybody's nobody.
const NOBODY: u32 = 65_534;

/// A field of every thread of a process.
fn of_every_thread(pid: impl std::fmt::Display, field: &str) -> BTreeSet<String> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let value = |status: String| {
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        line.unwrap().trim_start_matches(':').trim().to_owned()
    };
    threads
        .filter_map(|thread| std::fs::read_to_string(thread.unwrap().path().join("status")).ok())
        .map(value)
        .collect()
}

fn has_two_capabilities(pid: impl std::fmt::Display) {
    let pid = pid.to_string();
    let threads = std::fs::read_dir(format!("/proc/{pid}/task"))
        .unwrap()
        .count();
    assert!(
        threads > 2,
        "the network side has started: {threads} threads"
    );
    for (field, expected) in [
        ("CapEff", BOTH),
        ("CapPrm", BOTH),
        ("CapInh", NONE),
        ("CapAmb", NONE),
        ("CapBnd", NONE),
        ("NoNewPrivs", "1"),
    ] {
        let found = of_every_thread(&pid, field);
        assert_eq!(found, [expected.to_owned()].into(), "{field}");
    }
}

/// Whether this process is root of a user namespace that has no other users to become.
pub fn is_alone() -> bool {
    let is_alone = !has_other_users();
    if is_alone {
        println!("skipped: there are no other users in this user namespace");
    }
    is_alone
}

/// Whether there are users to become.
pub fn has_other_users() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap();
    map.split_whitespace().nth(2) == Some("4294967295")
}

/// A shell line that shows what follows a user database with the service's group, and perhaps its user.
fn with_service(host: &Host, has_user: bool) -> String {
    let at = |name: &str| host.directory().join(name);
    let (mut users, mut groups) = (
        std::fs::read_to_string("/etc/passwd").unwrap(),
        std::fs::read_to_string("/etc/group").unwrap(),
    );
    if has_user {
        users += &format!("hivevpn:x:{SERVICE}:{SERVICE}::/nonexistent:/usr/sbin/nologin\n");
    }
    users += &format!("operator:x:{OPERATOR}:{OPERATOR}::/nonexistent:/bin/sh\n");
    groups += &format!("hivevpn:x:{SERVICE}:operator\n");
    std::fs::write(at("users"), users).unwrap();
    std::fs::write(at("groups"), groups).unwrap();
    format!(
        "mount --bind {} /etc/passwd && mount --bind {} /etc/group && exec \"$@\"",
        at("users").display(),
        at("groups").display()
    )
}

/// A daemon whose socket lies in its state directory, and its commands.
struct Service<'a> {
    host: &'a Host,
    prepare: String,
    process: Process,
}

impl<'a> Service<'a> {
    fn up(host: &'a Host, prepare: &str) -> Self {
        let line = ["sh", "-c", prepare, "sh", HIVEVPN, "--state", "state", "up"];
        let mut service = Self {
            host,
            prepare: prepare.to_owned(),
            process: host.spawn(&line),
        };
        until(Duration::from_secs(20), "the daemon answers", || {
            assert!(service.process.runs(), "{}", service.process.stderr());
            service.ask(&["status"]).succeeded()
        });
        service
    }

    fn ask(&self, arguments: &[&str]) -> Outcome {
        let line = ["sh", "-c", &self.prepare, "sh", HIVEVPN, "--state", "state"];
        self.host.run(&[&line, arguments].concat())
    }
}

/// Runs a program as a user who has nothing to do with hivevpn, or is in these groups.
fn run_as(host: &Host, uid: u32, groups: &str, line: &[&str]) -> Outcome {
    let uid = uid.to_string();
    let groups = format!("--groups={groups}");
    let becoming = ["setpriv", "--reuid", &uid, "--regid", &uid, &groups];
    host.run(&[&becoming, line].concat())
}

#[test]
fn every_thread_of_a_running_node_has_two_capabilities_and_can_gain_none() {
    let lab = Lab::new().public("a").public("b").build();
    let a = lab.host("a").up(&[]);
    let b = lab.host("b").up(&["--join", &a.invite()]);
    for node in [&a, &b] {
        has_two_capabilities(node.pid());
    }
    // Which is enough for the addresses, that are given to the interface afterwards, and for what goes through it.
    until(Duration::from_secs(15), "b reaches a", || {
        b.host().pings(a.ipv4()) && b.host().pings(a.ipv6())
    });
    has_two_capabilities(a.pid());
}

#[test]
fn root_becomes_the_service_s_user_who_owns_the_state_and_cleans_up() {
    if is_alone() {
        return;
    }
    let lab = Lab::new().public("a").build();
    let host = lab.host("a");
    let before = host.network_state();
    // An earlier start, when there was no such user.
    host.up(&[]).interrupt();
    let id = host.hivevpn(&["id"]).ok();
    let with_user = with_service(host, true);

    let mut service = Service::up(host, &with_user);
    let pid = service.process.pid();
    has_two_capabilities(pid);
    let uids = format!("{SERVICE}\t{SERVICE}\t{SERVICE}\t{SERVICE}");
    assert_eq!(of_every_thread(pid, "Uid"), [uids.clone()].into());
    assert_eq!(of_every_thread(pid, "Gid"), [uids].into());
    assert_eq!(of_every_thread(pid, "Groups"), [SERVICE.to_string()].into());
    assert_eq!(service.ask(&["id"]).ok(), id, "it keeps its identity");
    for file in [
        "",
        "identity.key",
        "wg.key",
        "authority.key",
        "db",
        "lock",
        "audit.log",
    ] {
        let found = host
            .directory()
            .join("state")
            .join(file)
            .metadata()
            .unwrap();
        assert_eq!(found.uid(), SERVICE, "{file}");
        assert_eq!(found.mode() & 0o077, 0, "{file}");
    }

    service.process.signal(nix::sys::signal::Signal::SIGKILL);
    service.process.ends(STOP);
    assert_eq!(host.network_state(), before, "after a kill");
    // Root's own commands may look at what is the user's now.
    assert_eq!(service.ask(&["id"]).ok(), id);
    let mut service = Service::up(host, &with_user);
    assert_ne!(host.network_state(), before);
    service.ask(&["down"]).ok();
    service.process.ends(STOP).ok();
    assert_eq!(host.network_state(), before, "after down");
    assert!(!host.directory().join("state/hivevpn.sock").exists());
    let entries: Value = serde_json::from_str(&service.ask(&["audit", "--json"]).ok()).unwrap();
    let last = entries.as_array().unwrap().last().unwrap();
    assert_eq!(
        (&last["request"], &last["caller"]),
        (&"down".into(), &"uid 0".into())
    );
}

/// An ordinary user starts a program that has the capability as a property of its file.
#[test]
fn a_node_of_an_ordinary_user_has_the_capability_of_its_file_and_no_other() {
    if is_alone() {
        return;
    }
    let lab = Lab::new().public("a").build();
    let host = lab.host("a");
    let give = format!(
        "mkdir -m 777 his && cp {HIVEVPN} his/hivevpn && setcap cap_net_admin+ep his/hivevpn"
    );
    host.sh(&give).ok();
    let prepare = "mount -t tmpfs tmpfs /dev/net && mknod /dev/net/tun c 10 200 && chmod 666 /dev/net/tun && exec \"$@\"";
    let become_nobody = [
        "setpriv",
        "--reuid",
        "65534",
        "--regid",
        "65534",
        "--clear-groups",
    ];
    let start = ["his/hivevpn", "--state", "his/state", "up"];
    let mut node =
        host.spawn(&[&["sh", "-c", prepare, "sh"], &become_nobody[..], &start[..]].concat());
    until(Duration::from_secs(20), "the node answers", || {
        assert!(node.runs(), "{}", node.stderr());
        host.run(&[HIVEVPN, "--state", "his/state", "status"])
            .succeeded()
    });
    for (field, expected) in [
        ("CapEff", NET_ADMIN),
        ("CapPrm", NET_ADMIN),
        ("CapInh", NONE),
        ("CapAmb", NONE),
        ("NoNewPrivs", "1"),
    ] {
        let found = of_every_thread(node.pid(), field);
        assert_eq!(found, [expected.to_owned()].into(), "{field}");
    }
    host.run(&[HIVEVPN, "--state", "his/state", "down"]).ok();
    node.ends(STOP).ok();
}

#[test]
fn a_user_that_does_not_exist_is_named_with_the_command_that_makes_it() {
    let lab = Lab::new().public("a").build();
    let why = lab
        .host("a")
        .hivevpn(&["up", "--user", "nobody-here"])
        .failed_with(exit::USAGE);
    assert!(
        why.contains("nobody-here") && why.contains("useradd"),
        "{why}"
    );
}

#[test]
fn a_directory_that_is_somebody_s_is_not_given_away() {
    if is_alone() {
        return;
    }
    let lab = Lab::new().public("a").build();
    let host = lab.host("a");
    host.sh("mkdir -m 700 state && echo precious > state/thesis.tex")
        .ok();
    let why = host
        .hivevpn_after(&with_service(host, true), &["up"])
        .failed_with(exit::FAILED);
    assert!(
        why.contains("state") && why.contains("--user root"),
        "{why}"
    );
    for file in ["state", "state/thesis.tex"] {
        assert_eq!(host.directory().join(file).metadata().unwrap().uid(), 0);
    }
}

#[test]
fn as_another_local_user_nothing_is_readable_or_callable() {
    if is_alone() {
        return;
    }
    let lab = Lab::new().public("a").build();
    let host = lab.host("a");
    let a = host.up(&[]);
    let socket = host.directory().join("hivevpn.sock");
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&socket), 0o600);
    let socket = socket.display().to_string();
    let every = [
        &["status"][..],
        &["nodes"],
        &["invite"],
        &["why", "a"],
        &["audit"],
        &["down"],
    ];
    let nothing_works = || {
        for command in every {
            let line = [&[HIVEVPN, "--socket", &socket, "--state", "state"], command].concat();
            let outcome = run_as(host, NOBODY, "65534", &line);
            assert!(outcome.stdout.is_empty(), "{outcome}");
            outcome.failed_with(exit::FAILED);
        }
    };
    nothing_works();
    for file in [
        "",
        "identity.key",
        "wg.key",
        "authority.key",
        "db/db",
        "audit.log",
        "lock",
    ] {
        let path = format!("state/{file}");
        assert!(Path::new(&host.directory().join(&path)).exists(), "{path}");
        let line = format!("cat {path} || ls {path}");
        let outcome = run_as(host, NOBODY, "65534", &["sh", "-c", &line]);
        assert!(
            !outcome.succeeded() && outcome.stdout.is_empty(),
            "{outcome}"
        );
    }

    // Where the permissions of the socket are mistaken, the daemon still looks at who asks.
    host.sh("chmod 666 hivevpn.sock").ok();
    nothing_works();
    let line = [HIVEVPN, "--socket", &socket, "status"];
    let why = run_as(host, NOBODY, "65534", &line).failed_with(exit::FAILED);
    assert!(why.contains("only root"), "{why}");
    let audit = a.json(&["audit", "--json"]);
    let refused = audit.as_array().unwrap().iter().filter(|entry| {
        entry["caller"] == format!("uid {NOBODY}")
            && entry["outcome"].as_str().unwrap().starts_with("refused: ")
    });
    assert!(refused.count() >= 5, "{audit:#}");
    a.status();
    a.interrupt();
}

#[test]
fn a_member_of_the_group_may_ask_the_daemon_and_is_written_down() {
    if is_alone() {
        return;
    }
    let lab = Lab::new().public("a").build();
    let host = lab.host("a");
    let service = Service::up(host, &with_service(host, false));
    let socket = host.directory().join("state/hivevpn.sock");
    let found = socket.metadata().unwrap();
    let seen = (found.uid(), found.gid(), found.mode() & 0o777);
    assert_eq!(seen, (0, SERVICE, 0o660));

    // The state directory is private: only a socket elsewhere is within reach.
    host.sh("mkdir -m 755 run && mount --bind state run || true")
        .ok();
    let operator = |command: &[&str]| {
        let line = [&["--socket", "shared.sock"], command].concat();
        run_as(
            host,
            OPERATOR,
            &SERVICE.to_string(),
            &[&[HIVEVPN], &line[..]].concat(),
        )
    };
    host.sh("ln state/hivevpn.sock shared.sock").ok();
    operator(&["status"]).ok();
    operator(&["invite", "--name", "laptop"]).ok();
    let entries: Value = serde_json::from_str(&service.ask(&["audit", "--json"]).ok()).unwrap();
    let last = entries.as_array().unwrap().last().unwrap();
    assert_eq!(last["caller"], format!("uid {OPERATOR}"), "{last:#}");
    assert_eq!(
        (&last["request"], &last["subject"]),
        (&"invite".into(), &"laptop".into())
    );
    let line = [HIVEVPN, "--socket", "shared.sock", "status"];
    run_as(host, NOBODY, "65534", &line).failed_with(exit::FAILED);
}

#[test]
fn who_was_let_in_by_an_invite_is_written_down() {
    let lab = Lab::new().public("a").public("b").build();
    let a = lab.host("a").up(&[]);
    let invite = a.invite();
    let b = lab.host("b").up(&["--join", &invite]);
    let audit = a.json(&["audit", "--json"]);
    let entries = audit.as_array().unwrap();
    let said = |request: &str| entries.iter().find(|entry| entry["request"] == request);
    assert_eq!(said("invite").unwrap()["outcome"], "done", "{audit:#}");
    let joined = said("join").unwrap();
    let subject = joined["subject"].as_str().unwrap();
    assert!(subject.starts_with(&b.node_field("peer_id")), "{joined:#}");
    assert!(!audit.to_string().contains(&invite[..20]), "{audit:#}");
    assert!(a.ask(&["audit"]).lines().count() >= 3);
}
