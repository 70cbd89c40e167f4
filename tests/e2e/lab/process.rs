//! Programs that run in the laboratory: to their end, or in the background.

use std::fmt;
use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::deadline::{eventually, until};

/// What came of a program that ran to its end; displays as a transcript.
pub struct Outcome {
    /// The exit code; none when a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    command: String,
}

impl Outcome {
    /// Its standard output, trimmed; panics with everything it said when it failed.
    pub fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{self}");
        self.stdout.trim().to_owned()
    }

    /// Whether it succeeded.
    pub fn succeeded(&self) -> bool {
        self.code == Some(0)
    }

    /// Asserts that it failed with this code; its error message.
    pub fn failed_with(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "{self}");
        assert!(!self.stderr.contains("panicked at"), "{self}");
        self.stderr
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            code,
            stdout,
            stderr,
            command,
        } = self;
        let ended = code.map_or_else(|| "a signal".to_owned(), |code| code.to_string());
        write!(f, "{command}\nended with {ended}\n{stdout}{stderr}")
    }
}

/// A program in the background. Dropping it ends it; its output is shown when the test is failing.
pub struct Process {
    child: Child,
    command: String,
    log: PathBuf,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts it with both outputs going to `log`.<name>.
    pub(super) fn start(command: &mut Command, log: PathBuf) -> Self {
        let file = |kind| {
            File::create(log.with_extension(kind)).expect("the laboratory's directory is ours")
        };
        let child = command
            .stdin(Stdio::null())
            .stdout(file("out"))
            .stderr(file("err"))
            .spawn()
            .unwrap_or_else(|error| {
                panic!("{command:?} does not start: {error}; is the program installed?")
            });
        Self {
            child,
            command: format!("{command:?}"),
            log,
            ended: None,
        }
    }

    /// What it has written to standard output so far.
    pub fn stdout(&self) -> String {
        self.read("out")
    }

    /// What it has written to standard error so far.
    pub fn stderr(&self) -> String {
        self.read("err")
    }

    fn read(&self, kind: &str) -> String {
        let bytes = std::fs::read(self.log.with_extension(kind)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("process ids are small"))
    }

    /// Whether it runs.
    pub fn runs(&mut self) -> bool {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().expect("the child is ours");
        }
        self.ended.is_none()
    }

    /// Sends a signal; a process that has ended takes none.
    pub fn signal(&mut self, signal: Signal) {
        if self.runs() {
            kill(self.pid(), signal).expect("the process is ours and was not yet waited for");
        }
    }

    /// Waits for its end.
    pub fn ends(&mut self, within: Duration) -> Outcome {
        let what = format!("the end of {}", self.command);
        until(within, &what, || !self.runs());
        Outcome {
            code: self.ended.and_then(|status| status.code()),
            stdout: self.stdout(),
            stderr: self.stderr(),
            command: self.command.clone(),
        }
    }

    /// Waits until one of its outputs contains `text`.
    pub fn says(&mut self, text: &str, within: Duration) {
        let what = format!("{} says {text:?}", self.command);
        eventually(within, &what, || {
            let said = self.stdout().contains(text) || self.stderr().contains(text);
            assert!(
                said || self.runs(),
                "it ended instead of {what}\n{}{}",
                self.stdout(),
                self.stderr()
            );
            said.then_some(())
        });
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.runs() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            eprintln!("──── {}\n{}{}", self.command, self.stdout(), self.stderr());
        }
    }
}
