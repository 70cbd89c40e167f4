//! `hivevpn top` at a terminal: what is seen there, keys, and a terminal that is given back whatever ends it.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::deadline::until;
use crate::lab::{Host, Lab};
use crate::node::{HIVEVPN, Network, exit};
use crate::traffic::Flood;

/// How long something on the screen may take.
const SEEN: Duration = Duration::from_secs(30);

/// What the shell at a terminal runs: it keeps the terminal's modes before and after the program.
const SHELL: &str = r#"
stty cols 120 rows 30
stty -a >before
sh -c 'echo $$ >pid && exec "$@"' sh "$@"
echo $? >code
stty -a >after
"#;

/// Ctrl-L, which draws everything again: otherwise only what has changed is drawn.
const REDRAW: &str = "\u{c}";

/// A user at a terminal of 120 by 30.
struct Seat {
    directory: PathBuf,
    terminal: Child,
}

impl Seat {
    /// Sits down and starts `hivevpn top`.
    fn take(host: &Host) -> Self {
        let directory = host.directory().to_owned();
        for old in ["before", "after", "code", "pid", "screen"] {
            let _ = fs::remove_file(directory.join(old)); // the seat may be new
        }
        fs::write(directory.join("shell"), SHELL).expect("the host's directory is ours");
        let program = format!("sh shell {HIVEVPN} top --interval 0.5s");
        let mut command = host.command(&["script", "-qfec", &program, "screen"]);
        let terminal = command
            .env("HIVEVPN_STATE", directory.join("state"))
            .env("HIVEVPN_SOCKET", directory.join("hivevpn.sock"))
            .env("TERM", "xterm-256color")
            .env_remove("NO_COLOR")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("script is installed");
        Self {
            directory,
            terminal,
        }
    }

    fn read(&self, file: &str) -> String {
        let bytes = fs::read(self.directory.join(file)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Everything that was ever drawn.
    fn screen(&self) -> String {
        self.read("screen")
    }

    /// Types.
    fn press(&mut self, keys: &str) {
        let keyboard = self.terminal.stdin.as_mut().expect("it is piped");
        keyboard
            .write_all(keys.as_bytes())
            .and_then(|()| keyboard.flush())
            .expect("somebody reads what is typed");
    }

    /// Waits until a word is on the screen from now on. Empty cells are not drawn, so that only words stay together.
    fn sees(&mut self, word: &str) {
        let before = self.screen().len();
        until(SEEN, &format!("{word:?} is on the screen"), || {
            let is_there = self.screen()[before..].contains(word);
            if !is_there {
                self.press(REDRAW);
            }
            is_there
        });
    }

    fn pid(&self) -> Pid {
        let pid = self.read("pid");
        Pid::from_raw(pid.trim().parse().expect("the shell wrote it"))
    }

    /// The program has ended well, and the terminal is what it was. Returns all that was drawn.
    fn ends(mut self) -> String {
        until(SEEN, "the shell ends", || {
            matches!(self.terminal.try_wait(), Ok(Some(_)))
        });
        let screen = self.screen();
        assert_eq!(self.read("code").trim(), "0", "{screen:?}");
        assert!(!self.read("before").is_empty(), "{screen:?}");
        assert_eq!(self.read("after"), self.read("before"), "{screen:?}");
        for (taken, back) in [("[?1049h", "[?1049l"), ("[?25l", "[?25h")] {
            let (taken, back) = (screen.rfind(taken), screen.rfind(back));
            assert!(taken.is_some() && taken < back, "{screen:?}");
        }
        screen
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let _ = self.terminal.kill();
        let _ = self.terminal.wait();
        if std::thread::panicking() {
            eprintln!("──── the screen\n{:?}", self.screen());
        }
    }
}

fn two() -> Network {
    let net = Network::start(Lab::new().public("a").public("b").build(), ["a", "b"]);
    net.wait("direct", ["a", "b"], Duration::from_secs(15));
    net
}

/// Whether a rate of at least a kilobyte a second is drawn.
fn has_rate(screen: &str) -> bool {
    ["kB/s", "MB/s", "GB/s"]
        .iter()
        .any(|unit| screen.contains(unit))
}

#[test]
fn a_user_sees_peers_and_what_goes_by_and_gets_the_terminal_back() {
    let net = two();
    let (a, b) = (net.node("a"), net.node("b"));
    let mut seat = Seat::take(a.host());
    seat.sees("203.0.113.12:7777");
    seat.sees(&b.ipv4().to_string());
    let flood = Flood::start(a.host(), b.host(), b.ipv4().into());
    until(SEEN, "a rate is drawn", || {
        seat.press(REDRAW);
        has_rate(&seat.screen())
    });
    drop(flood);

    seat.press("\r");
    seat.sees("ML-KEM-768");
    seat.sees("direct paths come first"); // as `why` says
    seat.press("q");
    seat.sees("HANDSHAKE");
    seat.press("/nobody\r");
    seat.sees("/nobody");
    seat.press("q");
    let screen = seat.ends();
    assert!(screen.contains("38;5;2"), "the path is green: {screen:?}");
}

#[test]
fn it_goes_on_when_the_daemon_comes_back_and_ends_with_its_terminal() {
    let mut net = two();
    let host = net.node("a").host().clone();
    let mut seat = Seat::take(&host);
    seat.sees("203.0.113.12:7777");
    net.take("a").interrupt();
    seat.sees("trying");
    net.put(host.up(&[]));
    net.node("a").wait("direct", "b", Duration::from_secs(20));
    until(SEEN, "it has heard of the daemon", || {
        let before = seat.screen().len();
        seat.press(REDRAW);
        until(SEEN, "it is drawn", || {
            seat.screen()[before..].contains("HANDSHAKE")
        });
        !seat.screen()[before..].contains("trying")
    });
    kill(seat.pid(), Signal::SIGTERM).expect("it runs");
    seat.ends();

    let mut seat = Seat::take(&host);
    seat.sees("203.0.113.12:7777");
    let pid = seat.pid();
    drop(seat);
    until(SEEN, "it ends with its terminal", || {
        kill(pid, None).is_err()
    });
}

#[test]
fn a_picture_is_plain_text_and_a_pipe_is_no_terminal() {
    let net = two();
    let (a, b) = (net.node("a"), net.node("b"));
    let _flood = Flood::start(b.host(), a.host(), a.ipv4().into());
    let picture = a.ask(&["top", "--once"]);
    for part in [
        "PEER",
        "b ",
        "direct",
        &b.ipv4().to_string(),
        "Services",
        "Models",
        "Ports",
    ] {
        assert!(picture.contains(part), "{part}: {picture}");
    }
    assert!(has_rate(&picture), "{picture}");
    assert!(!picture.contains('\u{1b}'), "{picture}");
    assert!(
        picture.lines().all(|line| line.chars().count() <= 100),
        "{picture}"
    );

    let why = a.host().hivevpn(&["top"]).failed_with(exit::USAGE);
    assert!(
        why.contains("top --once") && why.contains("status --json"),
        "{why}"
    );
    for wrong in ["0", "soon", "-1s"] {
        a.host()
            .hivevpn(&["top", "--once", "--interval", wrong])
            .failed_with(exit::USAGE);
    }
}

#[test]
fn without_a_daemon_or_a_right_there_is_nothing_to_see() {
    let mut net = two();
    let a = net.node("a").host();
    let why = a
        .hivevpn(&["--on", "b", "top", "--once"])
        .failed_with(exit::FAILED);
    assert!(why.contains("hivevpn login b"), "{why}");
    let a = a.clone();
    net.take("a").interrupt();
    a.hivevpn(&["top", "--once"]).failed_with(exit::NO_DAEMON);
}

#[test]
fn another_node_is_seen_from_afar_by_whom_it_lets() {
    let lab = Lab::new().public("a").public("b").build();
    let a = lab.host("a").up(&[]);
    let toml = lab
        .host("b")
        .configure("[admin]\nmembers = { a = [\"metrics\"] }\n");
    let b = lab.host("b").up(&[toml, "--join", &a.invite()]);
    a.wait("direct", "b", Duration::from_secs(15));
    a.ask(&["login", "b"]);
    let picture = a.ask(&["--on", "b", "top", "--once"]);
    let (first, rest) = picture.split_once('\n').expect("there are lines");
    assert!(first.contains(&b.ipv4().to_string()), "{picture}");
    assert!(rest.contains(&a.ipv4().to_string()), "{picture}");
}
