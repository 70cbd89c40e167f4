//! Network namespaces, and the three programs that furnish them: `ip`, `nft`, `sysctl`.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Once;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Begins the name of all we make; the process id follows, so that the living can bury the dead.
pub const PREFIX: &str = "hv";

/// A network namespace, deleted on drop with every process in it.
pub struct Namespace(String);

impl Namespace {
    pub fn create(name: String) -> Self {
        feed(Command::new("ip").args(["netns", "add", &name]), "");
        let namespace = Self(name);
        // Addresses work at once: nobody else is on our cables who could have the same.
        sysctl(
            &namespace.0,
            &[
                "net.ipv6.conf.default.accept_dad=0",
                "net.ipv6.conf.all.accept_dad=0",
            ],
        );
        ip(&namespace.0, "link set lo up\n");
        namespace
    }

    pub fn name(&self) -> &str {
        &self.0
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        delete(&self.0);
    }
}

/// A command that will run inside.
pub fn command(namespace: &str, program: &str) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace, program]);
    command
}

/// Runs a batch of `ip` lines inside.
pub fn ip(namespace: &str, lines: &str) {
    feed(
        Command::new("ip").args(["-netns", namespace, "-batch", "-"]),
        lines,
    );
}

/// Loads an nftables ruleset inside.
pub fn nft(namespace: &str, rules: &str) {
    feed(command(namespace, "nft").args(["-f", "-"]), rules);
}

/// Lets the namespace forward packets.
pub fn route(namespace: &str) {
    sysctl(
        namespace,
        &["net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"],
    );
}

fn sysctl(namespace: &str, settings: &[&str]) {
    feed(command(namespace, "sysctl").arg("-qw").args(settings), "");
}

/// Moves the calling thread inside; for good, so the thread should be a new one.
pub fn enter(namespace: &str) {
    let file =
        std::fs::File::open(Path::new("/run/netns").join(namespace)).expect("the namespace exists");
    nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET)
        .expect("we may enter our own namespace");
}

/// Runs a command that must succeed.
fn feed(command: &mut Command, input: &str) {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| {
            panic!("{command:?} does not start: {error}; is the program installed?")
        });
    child
        .stdin
        .take()
        .expect("stdin is piped")
        .write_all(input.as_bytes())
        .expect("the command reads its input");
    let output = child.wait_with_output().expect("the child is ours");
    assert!(
        output.status.success(),
        "{command:?} failed: {}\n{input}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Ends the processes inside and deletes the namespace. Never panics: it runs while unwinding.
fn delete(name: &str) {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let pids = output(Command::new("ip").args(["netns", "pids", name]));
        let pids: Vec<i32> = pids
            .lines()
            .filter_map(|line| line.trim().parse().ok())
            .collect();
        if pids.is_empty() || Instant::now() > deadline {
            break;
        }
        for pid in pids {
            // Gone already is as good as killed.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
    if !Command::new("ip")
        .args(["netns", "delete", name])
        .status()
        .is_ok_and(|status| status.success())
    {
        eprintln!("lab: namespace {name} stays behind");
    }
}

/// Removes what earlier runs left that were killed before they could clean up.
pub fn remove_leftovers_once() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let namespaces = output(Command::new("ip").args(["netns", "list"]));
        for name in namespaces
            .lines()
            .filter_map(|line| line.split_whitespace().next())
        {
            if owner_is_dead(name) {
                delete(name);
            }
        }
        let Ok(entries) = std::fs::read_dir(std::env::temp_dir()) else {
            return;
        };
        for entry in entries.flatten() {
            if entry.file_name().to_str().is_some_and(owner_is_dead) {
                let _ = std::fs::remove_dir_all(entry.path()); // another run may be faster
            }
        }
    });
}

/// Whether `name` is one of ours (`hv<pid>-…`) and that process is no more.
fn owner_is_dead(name: &str) -> bool {
    let Some((pid, _)) = name
        .strip_prefix(PREFIX)
        .and_then(|rest| rest.split_once('-'))
    else {
        return false;
    };
    pid.parse::<u32>().is_ok() && !Path::new("/proc").join(pid).exists()
}

fn output(command: &mut Command) -> String {
    let output = command.stderr(Stdio::null()).output();
    output
        .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
        .unwrap_or_default()
}
