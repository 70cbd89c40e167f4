//! `hivevpn doctor` finds what is wrong, says what would mend it, and leaves everything as it was.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::deadline::{eventually, until};
use crate::lab::{Host, Lab, Nat, Outcome};
use crate::node::{HIVEVPN, Network, exit};

/// What the doctor said.
struct Visit {
    code: Option<i32>,
    checks: Vec<Value>,
}

impl Visit {
    fn new(outcome: &Outcome) -> Self {
        assert!(!outcome.stderr.contains("panicked at"), "{outcome}");
        let checks: Vec<Value> = serde_json::from_str(&outcome.stdout)
            .unwrap_or_else(|error| panic!("{error}: {outcome}"));
        for check in &checks {
            let (ok, fix) = (&check["ok"], &check["fix"]);
            assert!(check["message"].is_string(), "{check:#}");
            assert_eq!(ok.as_bool().unwrap(), fix.is_null(), "{check:#}");
        }
        Self {
            code: outcome.code,
            checks,
        }
    }

    /// Names of the checks that failed; the exit code must agree.
    fn failed(&self) -> Vec<&str> {
        let failed = self.checks.iter().filter(|check| check["ok"] == false);
        let failed: Vec<_> = failed
            .map(|check| check["check"].as_str().unwrap())
            .collect();
        let code = if failed.is_empty() { 0 } else { exit::FAILED };
        assert_eq!(self.code, Some(code), "{:#?}", self.checks);
        failed
    }

    fn check(&self, name: &str) -> &Value {
        let mut checks = self.checks.iter();
        checks
            .find(|check| check["check"] == name)
            .unwrap_or_else(|| panic!("no check {name} in {:#?}", self.checks))
    }

    /// Asserts that exactly these checks failed, the last of them with these words in its message or fix.
    fn finds(&self, failed: &[&str], words: &[&str]) {
        assert_eq!(self.failed(), failed, "{:#?}", self.checks);
        let check = self.check(failed.last().unwrap());
        for word in words {
            assert!(check.to_string().contains(word), "no {word:?} in {check:#}");
        }
    }
}

fn doctor(host: &Host, arguments: &[&str]) -> Visit {
    Visit::new(&host.hivevpn(&[&["doctor", "--json"], arguments].concat()))
}

fn doctor_after(host: &Host, prepare: &str) -> Visit {
    Visit::new(&host.hivevpn_after(prepare, &["doctor", "--json"]))
}

#[test]
fn a_healthy_node_passes_and_nothing_changes() {
    let net = Network::start(Lab::new().public("a").public("b").build(), ["a", "b"]);
    net.wait("direct", ["a", "b"], Duration::from_secs(15));
    let host = net.node("a").host();
    let before = host.network_state();
    let visit = doctor(host, &[]);
    assert_eq!(visit.failed(), [""; 0], "{:#?}", visit.checks);
    for (check, words) in [
        ("daemon", "1 of 1 other members online"),
        ("port", "7777 are our daemon's"),
        ("certificate", "29 days"),
        ("clock", "'b', the only member"),
        ("udp", "1 member is reached over UDP"),
        ("mtu", "1420"),
        ("relay", "not needed"),
    ] {
        let found = visit.check(check);
        assert!(
            found.to_string().contains(words),
            "no {words:?} in {found:#}"
        );
    }
    assert_eq!(host.network_state(), before);

    // The same for people: one line each, without colours where nobody sees them.
    let shown = net.node("a").ask(&["doctor"]);
    assert_eq!(shown.lines().count(), visit.checks.len(), "{shown}");
    assert!(shown.lines().all(|line| line.starts_with("ok ")), "{shown}");
    assert!(shown.is_ascii(), "{shown}");
}

#[test]
fn before_the_first_start_only_the_daemon_is_missing() {
    let lab = Lab::new().public("a").build();
    let host = lab.host("a");
    let visit = doctor(host, &[]);
    visit.finds(&["daemon"], &["sudo hivevpn up"]);
    for skipped in ["certificate", "clock", "udp", "mtu", "relay"] {
        let check = visit.check(skipped);
        let message = check["message"].as_str().unwrap();
        assert!(message.starts_with("skipped: "), "{check:#}");
    }
    assert!(!host.directory().join("state").exists());
    let shown = host.hivevpn(&["doctor"]);
    assert!(shown.stdout.contains("fix: sudo hivevpn up"), "{shown}");
    let why = shown.failed_with(exit::FAILED);
    assert!(why.contains("1 check failed"), "{why}");
}

#[test]
fn a_missing_tun_device_and_a_missing_capability_are_found() {
    let lab = Lab::new().public("a").build();
    let host = lab.host("a");
    let no_device = "mount -t tmpfs -o ro tmpfs /dev/net && exec \"$@\"";
    let words = ["/dev/net/tun", "modprobe tun"];
    doctor_after(host, no_device).finds(&["daemon", "tun"], &words);
    let no_capability = "exec unshare --user --map-user=1000 --map-group=1000 -- \"$@\"";
    let words = ["CAP_NET_ADMIN", "setcap cap_net_admin+ep", "sudo"];
    doctor_after(host, no_capability).finds(&["daemon", "capability"], &words);
}

#[test]
fn a_configuration_that_is_broken_or_shows_its_invite_is_found() {
    let lab = Lab::new().public("a").public("b").build();
    let invite = lab.host("a").up(&[]).invite();
    let host = lab.host("b");
    let broken = host.configure("[underlay]\n\nprot = 7777\n");
    let words = ["network.toml:3", "prot"];
    doctor(host, &[broken]).finds(&["daemon", "config"], &words);
    doctor(host, &["missing.toml"]).finds(&["daemon", "config"], &["missing.toml"]);

    let config = host.configure(&format!("[network]\ninvite = \"{invite}\"\n"));
    host.sh("chmod 644 network.toml").ok();
    let words = ["everybody", "0644", "chmod 600 network.toml"];
    doctor(host, &[config]).finds(&["daemon", "config"], &words);
    host.sh("chmod 600 network.toml").ok();
    assert_eq!(doctor(host, &[config]).failed(), ["daemon"]);
}

/// Each fix, carried out as it is written, mends what was found.
#[test]
fn a_loose_state_directory_and_key_are_found_and_the_fix_mends_them() {
    let lab = Lab::new().public("a").build();
    let host = lab.host("a");
    host.up(&[]).interrupt();
    let key = host.directory().join("state/identity.key");
    host.sh("chmod 644 state/identity.key && chmod 755 state")
        .ok();
    let visit = doctor(host, &[]);
    let words = [&*key.display().to_string(), "0644", "0755"];
    visit.finds(&["daemon", "state"], &words);
    host.sh(visit.check("state")["fix"].as_str().unwrap()).ok();
    let mended = doctor(host, &[]);
    assert_eq!(mended.failed(), ["daemon"]);
    // Without a daemon the certificate is read from the disk.
    let certificate = mended.check("certificate").to_string();
    assert!(certificate.contains("29 days"), "{certificate}");
    host.up(&[]).interrupt();
}

#[test]
fn a_full_disk_is_found() {
    let lab = Lab::new().public("a").build();
    let full =
        "mkdir -p -m 700 state && mount -t tmpfs -o size=8k,mode=700 tmpfs state && exec \"$@\"";
    doctor_after(lab.host("a"), full).finds(&["daemon", "disk"], &["0.0 MB", "/a/state"]);
}

#[test]
fn a_taken_port_is_found_for_udp_and_tcp() {
    let lab = Lab::new().public("a").build();
    let host = lab.host("a");
    for (protocol, kind) in [("UDP", "UDP-RECV"), ("TCP", "TCP-LISTEN")] {
        let line = [
            "socat",
            "-ddd",
            "-u",
            &format!("{kind}:7777"),
            "OPEN:/dev/null",
        ];
        let mut other = host.spawn(&line);
        until(Duration::from_secs(10), "socat has the port", || {
            assert!(other.runs(), "{}", other.stderr());
            !host.sh("ss -Hlntu 'sport = :7777'").ok().is_empty()
        });
        let words = [&format!("{protocol} port 7777"), "port = 7778"];
        doctor(host, &[]).finds(&["daemon", "port"], &words);
        let elsewhere = host.configure("[underlay]\nport = 7778\n");
        assert_eq!(doctor(host, &[elsewhere]).failed(), ["daemon"]);
    }
}

#[test]
fn a_network_in_the_way_is_found_before_the_start_and_beside_a_running_node() {
    let lab = Lab::new().public("a").build();
    let host = lab.host("a");
    let get_in_the_way = "ip link add office type bridge && ip link set office up && \
                          ip addr add 10.77.3.1/24 dev office";
    host.sh(get_in_the_way).ok();
    let words = ["10.77.0.0/16", "10.77.3.0/24", "office"];
    doctor(host, &[]).finds(&["daemon", "overlay-range"], &words);
    host.sh("ip link delete office").ok();
    let _node = host.up(&[]);
    assert_eq!(doctor(host, &[]).failed(), [""; 0]);
    host.sh(get_in_the_way).ok();
    doctor(host, &[]).finds(&["overlay-range"], &words);
}

#[test]
fn ipv6_that_is_turned_off_is_found() {
    let lab = Lab::new().public("a").build();
    let host = lab.host("a");
    host.sh("sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1")
        .ok();
    doctor(host, &[]).finds(&["daemon", "ipv6"], &["sysctl net.ipv6.conf"]);
}

/// A shell line that gives what follows a clock that is `seconds` ahead of the others'.
pub fn with_clock_ahead(lab: &Lab, seconds: i64) -> String {
    let library = lab.directory().join("wrong_clock.so").display().to_string();
    let source = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/e2e/doctor/wrong_clock.rs"
    );
    let compiled = Command::new("rustc")
        .args([
            "--edition",
            "2024",
            "--crate-type",
            "cdylib",
            "-o",
            &library,
            source,
        ])
        .status();
    assert!(compiled.is_ok_and(|status| status.success()), "rustc");
    format!("export LD_PRELOAD='{library}' CLOCK_AHEAD={seconds} && exec \"$@\"")
}

#[test]
fn a_clock_that_differs_from_a_member_s_is_found() {
    let lab = Lab::new().public("a").public("b").build();
    let mut net = Network::start(lab, ["a", "b"]);
    net.take("a").interrupt();
    // What is signed allows for ten minutes.
    let prepare = with_clock_ahead(net.lab(), 330);
    let host = net.lab().host("a");
    let _early = host.up_after(&prepare, &[]);
    let visit = eventually(Duration::from_secs(45), "b asks a for the time", || {
        let visit = doctor(net.node("b").host(), &[]);
        (visit.failed() == ["clock"]).then_some(visit)
    });
    let words = ["5 minutes behind", "'a', the only member", "timedatectl"];
    visit.finds(&["clock"], &words);
}

#[test]
fn a_clock_that_was_set_back_is_found_without_a_daemon() {
    let lab = Lab::new().public("a").build();
    let host = lab.host("a");
    host.up(&[]).interrupt();
    let prepare = with_clock_ahead(&lab, -200 * 60);
    let words = ["at least 3 hours behind", "timedatectl"];
    doctor_after(host, &prepare).finds(&["daemon", "clock"], &words);
}

#[test]
fn blocked_udp_is_found() {
    let lab = Lab::new().public("r").behind(Nat::NoUdp, "a").build();
    let net = Network::start(lab, ["r", "a"]);
    net.wait("stream", ["a", "r"], Duration::from_secs(15));
    let visit = eventually(
        Duration::from_secs(20),
        "UDP alone is what fails, once the relay is reserved",
        || Some(doctor(net.node("a").host(), &[])).filter(|visit| visit.failed() == ["udp"]),
    );
    visit.finds(&["udp"], &["UDP is blocked", "1 member", "7777/udp"]);
}

#[test]
fn an_mtu_black_hole_is_found() {
    let lab = Lab::new()
        .behind(Nat::Open, "hub")
        .behind(Nat::Open, "spoke")
        .build();
    lab.router("spoke").narrow(lab.router("hub"), 1400);
    lab.router("spoke").mute();
    lab.router("hub").mute();
    let net = Network::start(lab, ["hub", "spoke"]);
    net.wait("direct", ["hub", "spoke"], Duration::from_secs(30));
    let visit = eventually(Duration::from_secs(45), "the path's width is known", || {
        let width = net.node("spoke").peer("hub").unwrap()["mtu"].as_u64()?;
        let is_found = (1332..=1340).contains(&width);
        is_found.then(|| doctor(net.node("spoke").host(), &[]))
    });
    visit.finds(&["mtu"], &["1420 bytes", "'hub' 13", "under [interface]"]);
}

#[test]
fn a_private_node_without_a_relay_is_found() {
    let lab = Lab::new().behind(Nat::PortRestricted, "a").build();
    let node = lab.host("a").up(&[]);
    doctor(node.host(), &[]).finds(&["relay"], &["0 members offer to relay", "relay = true"]);
}

#[test]
fn whoever_may_not_ask_the_daemon_learns_what_was_not_looked_at() {
    let lab = Lab::new().public("a").build();
    let host = lab.host("a");
    let _node = host.up(&[]);
    // Without privileges even the owner is held to the permission bits.
    host.sh("chmod 000 hivevpn.sock state/identity.key").ok();
    let (state, socket) = (
        host.directory().join("state"),
        host.directory().join("hivevpn.sock"),
    );
    let visit = Visit::new(&host.run_as_user(&[
        HIVEVPN,
        "doctor",
        "--json",
        "--state",
        state.to_str().unwrap(),
        "--socket",
        socket.to_str().unwrap(),
    ]));
    visit.finds(&["capability"], &["CAP_NET_ADMIN"]);
    for check in ["daemon", "state", "port", "certificate", "udp"] {
        let check = visit.check(check);
        let message = check["message"].as_str().unwrap();
        assert!(message.starts_with("skipped: "), "{check:#}");
    }
}
