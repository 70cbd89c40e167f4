//! A host: a network namespace with a host name, an address and files of its own.

use std::ffi::OsStr;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::cable::Cable;
use super::{Capture, Outcome, Process, namespace};
use crate::deadline::until;

/// Longer than any program of a test takes to its end.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long the kernel may take to settle a new address.
const SETTLED: Duration = Duration::from_secs(5);

/// A machine on the underlay.
#[derive(Clone)]
pub struct Host {
    name: &'static str,
    namespace: String,
    directory: PathBuf,
    cable: Cable,
}

impl Host {
    pub(super) fn new(
        name: &'static str,
        namespace: String,
        directory: PathBuf,
        cable: Cable,
    ) -> Self {
        std::fs::create_dir_all(&directory).expect("the laboratory's directory is ours");
        Self {
            name,
            namespace,
            directory,
            cable,
        }
    }

    /// Its host name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// A directory that only this host uses.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Its cable to the underlay.
    pub fn cable(&self) -> &Cable {
        &self.cable
    }

    /// A command that will run on this host: in its network, under its host name, in its directory.
    pub fn command<S: AsRef<OsStr>>(&self, line: &[S]) -> Command {
        let mut command = namespace::command(&self.namespace, "unshare");
        command
            .args([
                "--uts",
                "sh",
                "-c",
                "hostname \"$0\" && exec \"$@\"",
                self.name,
            ])
            .args(line)
            .current_dir(&self.directory);
        command
    }

    /// Runs a program to its end.
    pub fn run<S: AsRef<OsStr>>(&self, line: &[S]) -> Outcome {
        self.spawn(line).ends(PATIENCE)
    }

    /// Runs a shell line to its end.
    pub fn sh(&self, line: &str) -> Outcome {
        self.run(&["sh", "-c", line])
    }

    /// Starts a program in the background.
    pub fn spawn<S: AsRef<OsStr>>(&self, line: &[S]) -> Process {
        self.start(&mut self.command(line))
    }

    /// Starts a prepared command (see [`Host::command`]) in the background.
    pub fn start(&self, command: &mut Command) -> Process {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let log = self
            .directory
            .join(format!("process-{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        Process::start(command, log)
    }

    /// Runs a closure in a thread that lives on this host: its sockets are this host's.
    pub fn thread<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let namespace = self.namespace.clone();
        std::thread::Builder::new()
            .name(self.name.to_owned())
            .spawn(move || {
                namespace::enter(&namespace);
                work()
            })
            .expect("a thread can be started")
    }

    /// As [`Host::thread`], waiting for the result.
    pub fn here<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        self.thread(work)
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Searches everything that passes through any interface for `needle`.
    pub fn capture(&self, needle: &'static [u8]) -> Capture {
        Capture::start(self, needle)
    }

    /// Whether one ping is answered within a second.
    pub fn pings(&self, address: impl Into<IpAddr>) -> bool {
        let address = address.into().to_string();
        self.run(&["ping", "-n", "-c1", "-W1", &address])
            .succeeded()
    }

    /// The first address of an interface that is not link-local.
    pub fn address(&self) -> IpAddr {
        let shown = self.json("addr show dev eth0 scope global");
        let address = shown[0]["addr_info"]
            .as_array()
            .into_iter()
            .flatten()
            .find_map(|info| info["local"].as_str());
        address
            .and_then(|text| text.parse().ok())
            .expect("every host has an address on eth0")
    }

    /// Takes another underlay address (`address/prefix`) in place of the present ones.
    pub fn set_address(&self, address: &str, gateway: Option<&str>) {
        namespace::ip(
            &self.namespace,
            &format!("addr flush dev eth0 scope global\naddr add {address} dev eth0\n"),
        );
        if let Some(gateway) = gateway {
            namespace::ip(
                &self.namespace,
                &format!("route replace default via {gateway}\n"),
            );
        }
    }

    /// Bytes that went through an interface, both directions together.
    pub fn bytes_through(&self, interface: &str) -> u64 {
        let shown = self.json(&format!("-s link show dev {interface}"));
        let count = |direction: &str| {
            shown[0]["stats64"][direction]["bytes"]
                .as_u64()
                .expect("ip counts bytes")
        };
        count("rx") + count("tx")
    }

    /// Interfaces, addresses, routes and rules, to be compared before and after.
    pub fn network_state(&self) -> String {
        // The kernel makes an IPv6 address's routes a moment after the address.
        until(SETTLED, "addresses are settled", || {
            self.sh("ip -6 addr show tentative").ok().is_empty()
        });
        self.sh("ip -o link | sed 's/^[0-9]*: //; s/qdisc.*//'; ip -o -4 addr | awk '{print $2,$4}'; \
                 ip -o -6 addr | awk '{print $2,$4}'; ip route show table all; ip -6 route show table all | sed 's/expires.*//'; \
                 ip rule; ip -6 rule; nft list ruleset; cat /etc/resolv.conf")
            .ok()
    }

    /// The answer of `ip -json`.
    fn json(&self, arguments: &str) -> serde_json::Value {
        let out = Command::new("ip")
            .args(["-netns", &self.namespace, "-json"])
            .args(arguments.split(' '))
            .output();
        let out = out.expect("ip is installed");
        serde_json::from_slice(&out.stdout)
            .unwrap_or_else(|error| panic!("ip {arguments}: {error}: {out:?}"))
    }
}
