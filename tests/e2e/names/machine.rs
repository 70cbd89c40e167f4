//! A machine with systemd-resolved.
//!
//! It is a host of the laboratory, and what its programs see is made of files in its directory: `/run` with a bus and
//! systemd-resolved, and `/etc/resolv.conf` that leads there. The machine that the laboratory stands on has none of it.

use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::deadline::until;
use crate::lab::{Host, Outcome, Process};
use crate::node::{Node, STOP};
use crate::privileges::has_other_users;

/// Far more than any of it takes to start.
const SOON: Duration = Duration::from_secs(60);
/// The overlay interface.
pub const LINK: &str = "hive0";
/// The users that services of the machine become, where there are others than root.
const RESOLVED: (&str, u32) = ("systemd-resolve", 41_236);
const POLKIT: (&str, u32) = ("polkitd", 41_237);
/// What `/etc/resolv.conf` leads to.
const STUB: &str = "run/systemd/resolve/stub-resolv.conf";
/// What it led to before.
const BEFORE: &str = "before.conf";

/// Its services. They end with it.
pub struct Machine {
    host: Host,
    _bus: Process,
    resolved: Option<Process>,
    polkit: Option<Process>,
}

/// What systemd-resolved has been told of an interface.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Settings {
    pub servers: Vec<String>,
    pub domains: Vec<String>,
    pub by_default: Vec<String>,
}

impl Machine {
    /// Sets it up, without systemd-resolved. That is to ask this server.
    pub fn new(host: &Host, server: &Host) -> Self {
        furnish(host, server);
        let bus = ["dbus-daemon", "--config-file=bus.conf", "--nofork"];
        let machine = Self {
            host: host.clone(),
            _bus: host.spawn(&after(&inside(BEFORE), &bus)),
            resolved: None,
            polkit: None,
        };
        let ask = "dbus-send --system --print-reply --dest=org.freedesktop.DBus / org.freedesktop.DBus.GetId";
        let ask: Vec<_> = ask.split(' ').collect();
        until(SOON, "the bus answers", || machine.run(&ask).succeeded());
        machine
    }

    pub fn start_resolved(&mut self) {
        let line = after(&inside(BEFORE), &["systemd-resolved"]);
        let mut resolved = self.host.spawn(&line);
        until(SOON, "systemd-resolved answers", || {
            assert!(resolved.runs(), "it ended: {}", resolved.stderr());
            self.run(&["resolvectl", "status"]).succeeded()
        });
        self.resolved = Some(resolved);
    }

    pub fn stop_resolved(&mut self) {
        let mut resolved = self.resolved.take().unwrap();
        resolved.signal(Signal::SIGTERM);
        resolved.ends(STOP).ok();
    }

    /// Starts what decides whom systemd-resolved obeys, with our rule.
    pub fn start_polkit(&mut self) {
        let prepare = format!("mount --bind share /usr/share && {}", inside(BEFORE));
        let line = after(&prepare, &["polkitd", "--no-debug"]);
        self.polkit = Some(self.host.spawn(&line));
    }

    /// The file that `/etc/resolv.conf` leads to.
    pub fn resolv_conf(&self) -> String {
        std::fs::read_to_string(self.host.directory().join(STUB)).unwrap()
    }

    /// Adds a user.
    pub fn add_user(&self, line: &str) {
        let users = self.host.directory().join("users");
        let others = std::fs::read_to_string(&users).unwrap();
        std::fs::write(users, format!("{others}{line}\n")).unwrap();
    }

    /// Runs a program to its end.
    pub fn run(&self, line: &[&str]) -> Outcome {
        self.host.run(&self.line(line))
    }

    /// What runs a program.
    pub fn line(&self, line: &[&str]) -> Vec<String> {
        after(&self.prepare(), line)
    }

    /// The shell line that makes the machine, and ends in `exec "$@"`.
    pub fn prepare(&self) -> String {
        inside(STUB)
    }

    /// Runs `hivevpn` to its end.
    pub fn hivevpn(&self, arguments: &[&str]) -> Outcome {
        self.host.hivevpn_after(&self.prepare(), arguments)
    }

    /// Starts a node and waits until it answers.
    pub fn up(&self, arguments: &[&str]) -> Node {
        self.host.up_after(&self.prepare(), arguments)
    }

    /// As [`Machine::up`], in a namespace whose network is not that of the machine's first process.
    pub fn up_in_another_network(&self, arguments: &[&str]) -> Node {
        self.host.up_after(&elsewhere(STUB), arguments)
    }

    /// What is set for the overlay interface; none before systemd-resolved knows that.
    pub fn settings(&self) -> Option<Settings> {
        let ask = |what| {
            let shown = self.run(&["resolvectl", what, LINK]);
            let (_, values) = shown.stdout.split_once("):")?;
            Some(values.split_whitespace().map(str::to_owned).collect())
        };
        Some(Settings {
            servers: ask("dns")?,
            domains: ask("domain")?,
            by_default: ask("default-route")?,
        })
    }

    /// The files in which systemd-resolved keeps what is set for interfaces.
    pub fn kept(&self) -> PathBuf {
        self.host.directory().join("run/systemd/resolve/netif")
    }
}

/// Lays out the machine's files.
fn furnish(host: &Host, server: &Host) {
    let at = |name: &str| host.directory().join(name);
    let directories = [
        "parts",
        "run/dbus",
        "run/systemd/resolve",
        "run/systemd/resolved.conf.d",
        "share/polkit-1/actions",
        "share/polkit-1/rules.d",
    ];
    for directory in directories {
        std::fs::create_dir_all(at(directory)).unwrap();
    }
    let write = |name: &str, text: &str| std::fs::write(at(name), text).unwrap();
    let conf = format!(
        "[Resolve]\nDNS={}\nFallbackDNS=\nDomains=\nDNSSEC=no\nDNSOverTLS=no\nLLMNR=no\nMulticastDNS=no\n",
        server.address()
    );
    write("run/systemd/resolved.conf.d/office.conf", &conf);
    write(BEFORE, "nameserver 127.0.0.53\n");
    write(STUB, "nameserver 127.0.0.53\n");
    write("bus.conf", include_str!("bus.conf"));
    let rule = include_str!("../../../config/hivevpn.rules");
    write("share/polkit-1/rules.d/50-hivevpn.rules", rule);
    let action = "org.freedesktop.resolve1.policy";
    let actions = at("share/polkit-1/actions").join(action);
    std::fs::copy(parts().join("policies").join(action), actions).unwrap();

    let id = |id| if has_other_users() { id } else { 0 };
    let user = |(name, number)| {
        let id = id(number);
        format!("{name}:x:{id}:{id}::/:/usr/sbin/nologin\n")
    };
    let system = std::fs::read_to_string("/etc/passwd").unwrap();
    // The first of a name counts.
    write("users", &[user(RESOLVED), user(POLKIT), system].concat());
    let owner = Some(id(RESOLVED.1));
    chown(at("run/systemd/resolve"), owner, owner).unwrap();
}

/// The directory with the services. Made on first use; panics when it cannot be made.
fn parts() -> &'static Path {
    const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/names/resolved.sh");
    static PARTS: OnceLock<PathBuf> = OnceLock::new();
    PARTS.get_or_init(|| {
        let made = Command::new(SCRIPT)
            .arg(env!("CARGO_TARGET_TMPDIR"))
            .output()
            .expect("resolved.sh is executable");
        let why = String::from_utf8_lossy(&made.stderr);
        assert!(made.status.success(), "systemd-resolved is not here: {why}");
        String::from_utf8(made.stdout).unwrap().trim_end().into()
    })
}

/// What makes the machine for a program, which sees this as `/etc/resolv.conf`. Its first process is in the same network.
fn inside(resolv_conf: &str) -> String {
    let elsewhere = elsewhere(resolv_conf);
    format!("mount --bind /proc/$$/net /proc/1/net && {elsewhere}")
}

/// The same, but the first process is where the laboratory is.
fn elsewhere(resolv_conf: &str) -> String {
    let parts = parts().display();
    format!(
        "mount --bind '{parts}' parts && mount --bind run /run && mount --bind users /etc/passwd && \
         mount --bind {resolv_conf} /etc/resolv.conf && export PATH=\"$PWD/parts/bin:$PATH\" && exec \"$@\""
    )
}

fn after(prepare: &str, line: &[&str]) -> Vec<String> {
    let shell = ["sh", "-c", prepare, "sh"];
    shell
        .iter()
        .chain(line)
        .map(|&word| word.to_owned())
        .collect()
}
