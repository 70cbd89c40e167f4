//! Programs that refuse to be root, or should not be.
//!
//! They run as the user `tester` in a user namespace of their own, which works the same for root and
//! inside the user namespace of a rootless run, where there is no other user to become.

use std::path::{Path, PathBuf};

use super::{Host, Outcome, Process};

/// The name under which unprivileged programs run.
pub const TESTER: &str = "tester";

const UID: u32 = 1000;

/// Shows the program a user database in which `tester` exists, then gives up root.
const BECOME: &str = "mount --bind \"$0\" /etc/passwd && \
                      exec unshare --user --map-user=1000 --map-group=1000 \"$@\"";

impl Host {
    /// Runs a program as `tester` to its end.
    pub fn run_as_user(&self, line: &[&str]) -> Outcome {
        self.run(&self.as_user(line))
    }

    /// Starts a program as `tester` in the background.
    pub fn spawn_as_user(&self, line: &[&str]) -> Process {
        self.spawn(&self.as_user(line))
    }

    /// The line that becomes `tester` first.
    pub fn as_user<'a>(&self, line: &[&'a str]) -> Vec<String> {
        let passwd = self.user_database().display().to_string();
        let prefix = ["sh", "-c", BECOME, &passwd, "env"].map(str::to_owned);
        let home = format!("HOME={}", self.directory().display());
        prefix
            .into_iter()
            .chain([home, format!("USER={TESTER}")])
            .chain(line.iter().map(|&word: &&'a str| word.to_owned()))
            .collect()
    }

    /// The system's users and `tester`, who lives in this host's directory.
    fn user_database(&self) -> PathBuf {
        let path = self.directory().join("passwd");
        let system = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        let home = self.directory().display();
        let users = system
            .lines()
            .filter(|user| user.split(':').nth(2) != Some("1000"));
        let all: String = users.map(|user| format!("{user}\n")).collect();
        std::fs::write(
            &path,
            format!("{all}{TESTER}:x:{UID}:{UID}::{home}:/bin/sh\n"),
        )
        .expect("the directory is ours");
        path
    }
}

/// The program of this name, also where Debian hides it.
pub fn program(name: &str) -> String {
    let postgres = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|v| v.path().join("bin"));
    let mut places: Vec<PathBuf> = postgres.collect();
    places.extend(
        ["/usr/sbin", "/usr/bin", "/usr/local/bin", "/sbin", "/bin"]
            .map(|place| Path::new(place).to_owned()),
    );
    let found = places
        .into_iter()
        .map(|place| place.join(name))
        .find(|path| path.exists());
    found
        .unwrap_or_else(|| panic!("{name} is not installed; .ci/run lists what the tests need"))
        .display()
        .to_string()
}
