//! `hivevpn top` at a terminal: what is seen there, keys, and a terminal that is given back whatever ends it.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::deadline::{eventually, until};
use crate::lab::{Host, Lab};
use crate::node::{HIVEVPN, Network, exit};
use crate::traffic::Flood;

/// How long something on the screen may take.
const SEEN: Duration = Duration::from_secs(30);

/// A user at a terminal of 120 by 30, whose shell shows the modes of the terminal before and after the program.
struct Seat {
    host: Host,
    script: std::process::Child,
}

impl Seat {
    /// Sits down and starts `hivevpn top` with these arguments.
    fn take(host: &Host, arguments: &str) -> Self {
        let line = format!(
            "stty cols 120 rows 30; stty -a >before; \
             {HIVEVPN} top --interval 0.5s {arguments} & top=$!; echo $top >pid; fg >/dev/null; echo $? >code; \
             stty -a >after"
        );
        let program = format!("bash -mc '{line}'");
        let mut command: Command = host.command(&["script", "-qfec", &program, "screen"]);
        let script = command
            .env("HIVEVPN_STATE", host.directory().join("state"))
            .env("HIVEVPN_SOCKET", host.directory().join("hivevpn.sock"))
            .env("TERM", "xterm-256color")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("script is installed");
        Self {
            host: host.clone(),
            script,
        }
    }

    fn read(&self, file: &str) -> String {
        let bytes = fs::read(self.host.directory().join(file)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Everything that was ever drawn. Text that did not change is drawn once only.
    fn screen(&self) -> String {
        self.read("screen")
    }

    /// Types.
    fn press(&mut self, keys: &str) {
        let keyboard = self.script.stdin.as_mut().expect("it is piped");
        keyboard.write_all(keys.as_bytes()).unwrap();
        keyboard.flush().unwrap();
    }

    /// Waits until something is drawn after what was there so far.
    fn sees(&self, from: usize, text: &str) {
        eventually(SEEN, &format!("{text:?} is on the screen"), || {
            self.screen().get(from..).is_some_and(|new| new.contains(text)).then_some(())
        });
    }

    fn signal(&self, signal: Signal) {
        let pid: i32 = self.read("pid").trim().parse().expect("the shell wrote it");
        kill(Pid::from_raw(pid), signal).expect("it runs");
    }

    /// The program has ended well, and the terminal is what it was.
    fn is_given_back(mut self) -> String {
        until(SEEN, "the shell is there again", || !self.read("after").is_empty());
        until(SEEN, "the shell ends", || matches!(self.script.try_wait(), Ok(Some(_))));
        let screen = self.screen();
        assert_eq!(self.read("code").trim(), "0", "{screen}");
        assert_eq!(self.read("after"), self.read("before"), "{screen}");
        for (taken, back) in [("\u{1b}[?1049h", "\u{1b}[?1049l"), ("\u{1b}[?25l", "\u{1b}[?25h")] {
            assert!(screen.rfind(taken) < screen.rfind(back), "{taken:?}: {screen:?}");
        }
        assert!(!screen.contains("panicked"), "{screen}");
        screen
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let _ = self.script.kill();
        let _ = self.script.wait();
    }
}

fn two() -> Network {
    let net = Network::start(Lab::new().public("a").public("b").build(), ["a", "b"]);
    net.wait("direct", ["a", "b"], Duration::from_secs(15));
    net
}

/// Whether a rate of at least a kilobyte a second is drawn.
fn has_rate(screen: &str) -> bool {
    ["kB/s", "MB/s", "GB/s"].iter().any(|unit| screen.contains(unit))
}

#[test]
fn a_user_sees_peers_and_what_goes_by_and_gets_the_terminal_back() {
    let net = two();
    let (a, b) = (net.node("a"), net.node("b"));
    let mut seat = Seat::take(a.host(), "");
    seat.sees(0, "203.0.113.12:7777");
    seat.sees(0, &b.ipv4().to_string());
    let flood = Flood::start(a.host(), b.host(), b.ipv4().into());
    until(SEEN, "a rate is drawn", || has_rate(&seat.screen()));
    drop(flood);

    let drawn = seat.screen().len();
    seat.press("\r");
    seat.sees(drawn, "ML-KEM-768");
    seat.sees(drawn, "in use");
    let drawn = seat.screen().len();
    seat.press("\u{1b}");
    seat.sees(drawn, "HANDSHAKE");
    seat.press("2");
    seat.sees(drawn, "HEALTH\u{1b}".get(..6).unwrap_or_default());
    seat.press("q");
    let screen = seat.is_given_back();
    assert!(screen.contains("\u{1b}[38;5;2m") || screen.contains("\u{1b}[32m"), "there are colours: {screen:?}");
}

#[test]
fn it_goes_on_when_the_daemon_comes_back_and_ends_in_order_by_a_signal() {
    let mut net = two();
    let host = net.node("a").host().clone();
    let seat = Seat::take(&host, "");
    seat.sees(0, "203.0.113.12:7777");
    net.take("a").interrupt();
    seat.sees(0, "does not answer, trying again");
    let drawn = seat.screen().len();
    net.put(host.up(&[]));
    net.node("a").wait("online", "b", Duration::from_secs(20));
    seat.sees(drawn, "online".get(..0).unwrap_or_default());
    seat.sees(drawn, "dropped or refused");
    seat.signal(Signal::SIGTERM);
    seat.is_given_back();
}

#[test]
fn a_picture_is_plain_text_and_a_pipe_is_no_terminal() {
    let net = two();
    let (a, b) = (net.node("a"), net.node("b"));
    let _flood = Flood::start(b.host(), a.host(), a.ipv4().into());
    let picture = a.ask(&["top", "--once"]);
    for part in ["PEER", "b ", "direct", &b.ipv4().to_string(), "Services", "Models", "Ports"] {
        assert!(picture.contains(part), "{part}: {picture}");
    }
    assert!(has_rate(&picture), "{picture}");
    assert!(!picture.contains('\u{1b}'), "{picture}");
    assert!(picture.lines().all(|line| line.chars().count() <= 100), "{picture}");

    let why = a.host().hivevpn(&["top"]).failed_with(exit::USAGE);
    assert!(why.contains("top --once") && why.contains("status --json"), "{why}");
    for wrong in ["0", "soon", "-1s"] {
        a.host().hivevpn(&["top", "--once", "--interval", wrong]).failed_with(exit::USAGE);
    }
}

#[test]
fn without_a_daemon_or_a_right_there_is_nothing_to_see() {
    let mut net = two();
    let a = net.node("a").host();
    let why = a.hivevpn(&["--on", "b", "top", "--once"]).failed_with(exit::FAILED);
    assert!(why.contains("hivevpn login b"), "{why}");
    let a = a.clone();
    net.take("a").interrupt();
    a.hivevpn(&["top", "--once"]).failed_with(exit::NO_DAEMON);
}
