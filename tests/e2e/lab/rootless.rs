//! Running without root.
//!
//! A process that makes namespaces needs privilege, and any user has all of it inside a user namespace
//! of their own. The test binary therefore executes itself again there, before its `main`: libtest has
//! no hook, and a process with threads cannot enter a user namespace. A private `/run` holds the names
//! of network namespaces, so nothing is visible outside and the kernel removes all of it at the end.

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

/// Set in the process that already is inside.
const INSIDE: &str = "HIVEVPN_E2E_INSIDE";

/// What `unshare` is asked for.
const NAMESPACES: [&str; 4] = ["--user", "--map-root-user", "--net", "--mount"];

/// Prepared inside, before the test binary starts again.
const PREPARE: &str =
    "mount -t tmpfs tmpfs /run && mkdir -p /run/netns && ip link set lo up && exec \"$0\" \"$@\"";

#[ctor::ctor(unsafe)]
fn enter_user_namespace() {
    if nix::unistd::geteuid().is_root()
        || std::env::var_os(INSIDE).is_some()
        || !user_namespaces_are_allowed()
    {
        return; // if privilege is missing, the first laboratory says so
    }
    let Ok(myself) = std::env::current_exe() else {
        return;
    };
    let error = unshare("sh")
        .args(["-c", PREPARE])
        .arg(myself)
        .args(std::env::args_os().skip(1))
        .env(INSIDE, "1")
        .exec();
    eprintln!("lab: cannot start again inside a user namespace: {error}");
}

/// Panics with what to do when laboratories cannot be built here.
pub fn require_privilege() {
    assert!(
        nix::unistd::geteuid().is_root(),
        "end-to-end tests build network namespaces: run them as root, or allow user namespaces \
         (sysctl kernel.unprivileged_userns_clone=1, user.max_user_namespaces above 0, \
         kernel.apparmor_restrict_unprivileged_userns=0)"
    );
}

fn user_namespaces_are_allowed() -> bool {
    let probe = unshare("true")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    probe.is_ok_and(|status| status.success())
}

fn unshare(program: &str) -> Command {
    let mut command = Command::new("unshare");
    command.args(NAMESPACES).arg(program);
    command
}
