//! The real binary on a host, driven as a script would drive it: arguments, exit codes, JSON.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde_json::Value;

use crate::deadline::eventually;
use crate::lab::{Host, Lab, Outcome, Process};

/// The program under test.
pub const HIVEVPN: &str = env!("CARGO_BIN_EXE_hivevpn");

/// Exit codes that scripts rely on.
pub mod exit {
    pub const FAILED: i32 = 1;
    pub const USAGE: i32 = 2;
    pub const NO_DAEMON: i32 = 3;
    pub const TIMED_OUT: i32 = 4;
}

/// How long a node may take until it answers its control socket.
const START: Duration = Duration::from_secs(20);

/// How long a command may take that only talks to the node beside it, or fails.
const COMMAND: Duration = Duration::from_secs(45);

/// How long a node may take to undo what it did.
pub const STOP: Duration = Duration::from_secs(10);

impl Host {
    /// `hivevpn` with these arguments, its state and socket in this host's directory.
    pub fn hivevpn_command(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(&[&[HIVEVPN], arguments].concat());
        command.env("HIVEVPN_STATE", self.directory().join("state"));
        command.env("HIVEVPN_SOCKET", self.directory().join("hivevpn.sock"));
        command
    }

    /// Runs `hivevpn` to its end.
    pub fn hivevpn(&self, arguments: &[&str]) -> Outcome {
        self.start(&mut self.hivevpn_command(arguments))
            .ends(COMMAND)
    }

    /// Runs `hivevpn` in an environment that the shell line `prepare` makes, which ends in `exec "$@"`.
    pub fn hivevpn_after(&self, prepare: &str, arguments: &[&str]) -> Outcome {
        let line = ["sh", "-c", prepare, "sh", HIVEVPN];
        let mut command = self.command(&[&line, arguments].concat());
        command.env("HIVEVPN_STATE", self.directory().join("state"));
        command.env("HIVEVPN_SOCKET", self.directory().join("hivevpn.sock"));
        self.start(&mut command).ends(COMMAND)
    }

    /// Writes `network.toml`, to be named as an argument of [`Host::up`].
    pub fn configure(&self, toml: &str) -> &'static str {
        self.write_private("network.toml", toml);
        "network.toml"
    }

    /// Writes a file that may hold a secret.
    pub fn write_private(&self, name: &str, text: &str) {
        let path = self.directory().join(name);
        std::fs::write(&path, text)
            .and_then(|()| std::fs::set_permissions(&path, Permissions::from_mode(0o600)))
            .expect("the host's directory is ours");
    }

    /// Starts a node and waits until it answers.
    pub fn up(&self, arguments: &[&str]) -> Node {
        let mut process = self.start(&mut self.hivevpn_command(&[&["up"], arguments].concat()));
        eventually(
            START,
            &format!("the node on {} answers", self.name()),
            || {
                assert!(
                    process.runs(),
                    "it ended: {}{}",
                    process.stdout(),
                    process.stderr()
                );
                self.hivevpn(&["status"]).succeeded().then_some(())
            },
        );
        Node {
            host: self.clone(),
            process,
        }
    }
}

/// A running node.
pub struct Node {
    host: Host,
    process: Process,
}

impl Node {
    /// The host it runs on.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// What `up` printed so far.
    pub fn stdout(&self) -> String {
        self.process.stdout()
    }

    /// The invite that a founder prints by itself, once it knows where it is reached.
    pub fn printed_invite(&self) -> String {
        eventually(Duration::from_secs(5), "up prints an invite", || {
            let printed = self.stdout();
            let line = printed.strip_suffix('\n')?;
            line.starts_with("hive1").then(|| line.to_owned())
        })
    }

    /// A command's standard output; the command must succeed.
    pub fn ask(&self, arguments: &[&str]) -> String {
        self.host.hivevpn(arguments).ok()
    }

    /// A command's JSON.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let text = self.ask(arguments);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {text}"))
    }

    /// `hivevpn status --json`.
    pub fn status(&self) -> Value {
        self.json(&["status", "--json"])
    }

    /// What the status says of a peer, if it is known.
    pub fn peer(&self, name: &str) -> Option<Value> {
        self.status()["peers"]
            .as_array()?
            .iter()
            .find(|peer| peer["name"] == name)
            .cloned()
    }

    /// Waits until a peer is reached over this kind of path (or is `online`).
    pub fn wait(&self, path: &str, peer: &str, within: Duration) {
        let timeout = within.as_secs().to_string();
        let line = [
            "status",
            "--wait",
            path,
            "--peer",
            peer,
            "--timeout",
            &timeout,
        ];
        let mut command = self.host.start(&mut self.host.hivevpn_command(&line));
        let outcome = command.ends(within + COMMAND);
        assert_eq!(
            outcome.code,
            Some(0),
            "{path} to {peer} within {within:?}: {outcome}\n{:#}",
            self.status()
        );
    }

    /// Its addresses on the overlay.
    pub fn ipv4(&self) -> Ipv4Addr {
        self.node_field("ipv4")
            .parse()
            .expect("status shows an address")
    }

    /// The self-certifying one.
    pub fn ipv6(&self) -> Ipv6Addr {
        self.node_field("ipv6")
            .parse()
            .expect("status shows an address")
    }

    /// Both, for what must work over either.
    pub fn addresses(&self) -> [IpAddr; 2] {
        [self.ipv4().into(), self.ipv6().into()]
    }

    /// A text field of `node` in its status.
    pub fn node_field(&self, field: &str) -> String {
        let status = self.status();
        status["node"][field]
            .as_str()
            .unwrap_or_else(|| panic!("no node.{field} in {status:#}"))
            .to_owned()
    }

    /// A fresh invite.
    pub fn invite(&self) -> String {
        self.ask(&["invite"])
    }

    /// Ends it as Ctrl-C does; it must end well.
    pub fn interrupt(self) {
        self.end(Signal::SIGINT);
    }

    /// Ends it with a signal that it may catch; it must end well.
    pub fn end(mut self, signal: Signal) {
        self.process.signal(signal);
        self.process.ends(STOP).ok();
    }

    /// Takes all processors away from it, as a suspended machine does.
    pub fn freeze(&self) {
        self.kill(Signal::SIGSTOP);
    }

    /// Gives them back.
    pub fn thaw(&self) {
        self.kill(Signal::SIGCONT);
    }

    fn kill(&self, signal: Signal) {
        nix::sys::signal::kill(self.process.pid(), signal)
            .expect("the process is ours and was not yet waited for");
    }

    /// What it holds of the machine's memory, in KiB; panics when it has ended.
    pub fn memory(&self) -> u64 {
        let path = format!("/proc/{}/status", self.process.pid());
        let status = std::fs::read_to_string(path).expect("a process that was not waited for");
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = resident.and_then(|value| value.trim().strip_suffix(" kB"));
        kib.and_then(|kib| kib.parse().ok())
            .unwrap_or_else(|| panic!("the node on {} has ended", self.host.name()))
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        self.process.pid()
    }

    /// Asserts that no part of it has panicked.
    pub fn has_not_panicked(&self) {
        let said = self.process.stderr();
        assert!(!said.contains("panicked at"), "{said}");
    }

    /// Ends it without a warning.
    pub fn kill9(mut self) {
        self.process.signal(Signal::SIGKILL);
        assert_eq!(self.process.ends(STOP).code, None);
    }

    /// Waits until it has ended, however that was asked for.
    pub fn ended(mut self) -> Outcome {
        self.process.ends(STOP)
    }
}

/// A network of nodes in a laboratory.
pub struct Network {
    nodes: BTreeMap<&'static str, Node>, // before `lab`: they end first
    lab: Lab,
}

impl Network {
    /// The first of `names` founds it, the others join with an invite of the first.
    pub fn start<const N: usize>(lab: Lab, names: [&'static str; N]) -> Self {
        let mut nodes: BTreeMap<_, Node> = BTreeMap::new();
        for name in names {
            let node = match nodes.get(names[0]) {
                None => lab.host(name).up(&[]),
                Some(founder) => lab.host(name).up(&["--join", &founder.invite()]),
            };
            nodes.insert(name, node);
        }
        Self { nodes, lab }
    }

    /// As [`Network::start`], each node with a configuration file; those who join do so at the same time.
    pub fn configured(
        lab: Lab,
        names: &[&'static str],
        toml: impl Fn(&str) -> String + Sync,
    ) -> Self {
        let up = |name: &str, arguments: &[&str]| {
            let host = lab.host(name);
            host.up(&[&[host.configure(&toml(name))], arguments].concat())
        };
        let (founder, joiners) = names.split_first().expect("somebody founds it");
        let founder = up(founder, &[]);
        let invites: Vec<String> = joiners.iter().map(|_| founder.invite()).collect();
        let joined = std::thread::scope(|scope| {
            let joining: Vec<_> = std::iter::zip(joiners, &invites)
                .map(|(name, invite)| scope.spawn(|| up(name, &["--join", invite])))
                .collect();
            joining
                .into_iter()
                .map(|thread| {
                    thread
                        .join()
                        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
                })
                .collect::<Vec<Node>>()
        });
        let nodes = std::iter::once(founder).chain(joined);
        Self {
            nodes: nodes.map(|node| (node.host.name(), node)).collect(),
            lab,
        }
    }

    /// The laboratory it runs in.
    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    /// The node of this name.
    pub fn node(&self, name: &str) -> &Node {
        self.nodes
            .get(name)
            .unwrap_or_else(|| panic!("node {name} does not run"))
    }

    /// Takes a node out, to end it.
    pub fn take(&mut self, name: &str) -> Node {
        self.nodes
            .remove(name)
            .unwrap_or_else(|| panic!("node {name} does not run"))
    }

    /// Puts a restarted node back.
    pub fn put(&mut self, node: Node) {
        self.nodes.insert(node.host.name(), node);
    }

    /// Waits until two nodes reach each other over this kind of path, both ways.
    pub fn wait(&self, path: &str, between: [&str; 2], within: Duration) {
        let [a, b] = between;
        self.node(a).wait(path, b, within);
        self.node(b).wait(path, a, within);
    }

    /// Waits until a node's IPv4 address answers pings from another.
    pub fn wait_ping(&self, from: &str, to: &str, within: Duration) {
        let (from, address) = (self.node(from).host(), self.node(to).ipv4());
        crate::deadline::until(
            within,
            &format!("{to} ({address}) answers pings of {}", from.name()),
            || from.pings(address),
        );
    }
}
