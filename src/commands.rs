//! One file per command. Each asks the daemon and prints, for people or with `--json` for machines.

use std::io::{IsTerminal, Write};

use anyhow::Result;
use serde::Serialize;

use crate::{
    cli::{Cli, Command},
    config::ConfigError,
    control::{Daemon, NoDaemon, Starting},
};

pub mod admin;
pub mod admit;
pub mod audit;
pub mod authority;
pub mod bench;
pub mod connect;
pub mod delegate;
pub mod dht;
pub mod doctor;
pub mod down;
pub mod id;
pub mod invite;
pub mod keygen;
pub mod login;
pub mod logout;
pub mod models;
pub mod names;
pub mod netcheck;
pub mod nodes;
pub mod password;
pub mod ping;
pub mod policy;
mod prompt;
mod qr;
pub mod rotate;
pub mod services;
pub mod status;
pub mod top;
pub mod up;
pub mod usage;
pub mod version;
pub mod whois;
pub mod why;

/// Waiting took too long.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct TimedOut(pub String);

/// The arguments are well-formed but cannot be meant.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadUsage(pub String);

/// Runs the command that was asked for.
pub fn run(cli: &Cli) -> Result<()> {
    let (state, socket) = (cli.state(), cli.socket());
    let daemon = Daemon {
        socket: socket.clone(),
        on: cli.on.clone(),
    };
    if let Some(peer) = &cli.on
        && !cli.command.can_act_elsewhere()
    {
        return Err(BadUsage(format!(
            "this command acts on this machine only: leave out --on, or run it on {peer} itself"
        ))
        .into());
    }
    match &cli.command {
        Command::Up(args) => up::run(args, cli),
        Command::Down => down::run(cli, &daemon),
        Command::Invite(args) => invite::run(args, &daemon),
        Command::Password(command) => password::run(command, &socket),
        Command::Admit(args) => admit::admit(args, &socket),
        Command::Revoke(args) => admit::revoke(args, &socket),
        Command::Restore(args) => admit::restore(args, &socket),
        Command::Delegate(args) => delegate::run(args, &state, &socket),
        Command::Authority(args) => authority::run(args, &state, &socket),
        Command::Rotate(args) => rotate::run(args, &state, &socket),
        Command::Status(args) => status::run(args, &daemon),
        Command::Top(args) => top::run(args, &daemon),
        Command::Nodes(args) => nodes::run(args, &daemon),
        Command::Names(args) => names::run(args, &daemon),
        Command::Whois(args) => whois::run(args, &socket),
        Command::Models(args) => models::run(args, &socket),
        Command::Connect(args) => connect::run(args, &socket),
        Command::Ping(args) => ping::run(args, &daemon),
        Command::Policy(args) => policy::run(args, &socket),
        Command::Expose(args) => services::expose(args, &daemon),
        Command::Unexpose(args) => services::unexpose(args, &daemon),
        Command::Exposed(args) => services::exposed(args, &daemon),
        Command::Services(args) => services::services(args, &daemon),
        Command::Usage(args) => usage::run(args, &daemon),
        Command::Forward(args) => services::forward(args, &daemon),
        Command::Unforward(args) => services::unforward(args, &daemon),
        Command::Forwards(args) => services::forwards(args, &daemon),
        Command::Dht(args) => dht::run(args, &daemon),
        Command::Why(args) => why::run(args, &daemon),
        Command::Bench(args) => bench::run(args, &socket),
        Command::Netcheck(args) => netcheck::run(args, &daemon),
        Command::Doctor(args) => doctor::run(args, &state, &socket),
        Command::Id(args) => id::run(args, &state, &daemon),
        Command::Keygen(args) => keygen::run(args, &state),
        Command::Login(args) => login::run(args, &socket),
        Command::Logout(args) => logout::run(args, &socket),
        Command::Admin(args) => admin::run(args, &socket),
        Command::Audit(args) => audit::run(args, &state),
        Command::Version(args) => version::run(args),
    }
}

/// The documented exit code for an error: 1 failed, 2 bad usage or configuration, 3 no daemon, 4 timed out.
pub fn exit_code(error: &anyhow::Error) -> u8 {
    if error.is::<ConfigError>() || error.is::<BadUsage>() {
        2
    } else if error.is::<NoDaemon>() || error.is::<Starting>() {
        3
    } else if error.is::<TimedOut>() {
        4
    } else {
        1
    }
}

/// Prints `value` as indented JSON.
fn print_json(value: &impl Serialize) -> Result<()> {
    print(&(serde_json::to_string_pretty(value)? + "\n"))
}

/// Writes to standard output. A reader that has gone (`| head`) is no error.
fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}

/// Colours for people: none when the output is not a terminal or `NO_COLOR` is set.
#[derive(Clone, Copy)]
struct Paint(bool);

impl Paint {
    fn for_stdout() -> Self {
        Self(std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none())
    }

    fn good(self, text: &str) -> String {
        self.with("32", text)
    }

    fn fair(self, text: &str) -> String {
        self.with("33", text)
    }

    fn bad(self, text: &str) -> String {
        self.with("31", text)
    }

    fn strong(self, text: &str) -> String {
        self.with("1", text)
    }

    fn with(self, code: &str, text: &str) -> String {
        if self.0 {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    /// A path's name: green direct, yellow stream and relay, red none.
    fn path(self, path: &str, width: usize) -> String {
        let padded = format!("{path:width$}");
        match path {
            "direct" => self.good(&padded),
            "none" => self.bad(&padded),
            _ => self.fair(&padded),
        }
    }
}

/// By which relay or endpoint a path goes, to be put behind its name.
pub(crate) fn by(relay: Option<&str>, endpoint: Option<&str>) -> String {
    match (relay, endpoint) {
        (Some(relay), _) => format!(" through {relay}"),
        (None, Some(endpoint)) => format!(" {endpoint}"),
        (None, None) => String::new(),
    }
}

/// Rows under headings, columns as wide as their widest cell.
struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    fn new(headings: &[&str]) -> Self {
        Self {
            rows: vec![headings.iter().map(|&heading| heading.to_owned()).collect()],
        }
    }

    fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    fn render(&self, paint: Paint) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            self.rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<_> = (0..columns).map(width).collect();
        let mut text = String::new();
        for (number, row) in self.rows.iter().enumerate() {
            let cells: Vec<_> = row
                .iter()
                .zip(&widths)
                .map(|(cell, &width)| match (number, cell.as_str()) {
                    (0, _) => paint.strong(&format!("{cell:width$}")),
                    (_, "direct" | "stream" | "relay" | "none") => paint.path(cell, width),
                    (_, "online" | "up") => paint.good(&format!("{cell:width$}")),
                    (_, "degraded") => paint.fair(&format!("{cell:width$}")),
                    (_, "offline" | "down") => paint.bad(&format!("{cell:width$}")),
                    (_, _) => format!("{cell:width$}"),
                })
                .collect();
            text.push_str(cells.join("  ").trim_end());
            text.push('\n');
        }
        text
    }
}

/// Names in a row, `-` for none.
fn listed(names: &[String]) -> String {
    if names.is_empty() {
        "-".to_owned()
    } else {
        names.join(",")
    }
}

/// A moment in the past, in seconds since 1970: "5 min ago".
fn ago(moment: u64) -> String {
    format!("{} ago", span(now().saturating_sub(moment)))
}

/// A moment to come, in seconds since 1970: "in 90 d"; or "over".
fn ahead(moment: u64) -> String {
    match moment.checked_sub(now()) {
        Some(left) => format!("in {}", span(left)),
        None => "over".to_owned(),
    }
}

fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// Seconds in the unit that fits, rounded to the nearest.
pub(crate) fn span(seconds: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(86_400, "d"), (3_600, "h"), (60, "min")];
    let unit = UNITS.iter().find(|(length, _)| seconds >= 2 * length);
    match unit {
        Some((length, name)) => format!("{} {name}", (seconds + length / 2) / length),
        None => format!("{seconds} s"),
    }
}

/// 1234567 → "1.2 MB".
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if count < 1000 {
        return format!("{count} B");
    }
    let mut value = count as f64;
    let mut unit = UNITS[0];
    for next in UNITS {
        unit = next;
        value /= 1000.0;
        if value < 999.95 {
            break;
        }
    }
    format!("{value:.1} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_as_documented() {
        assert_eq!(exit_code(&anyhow::anyhow!("failed")), 1);
        assert_eq!(exit_code(&BadUsage("what".into()).into()), 2);
        assert_eq!(exit_code(&NoDaemon("/run/x".into()).into()), 3);
        assert_eq!(exit_code(&Starting("joining".into()).into()), 3);
        assert_eq!(exit_code(&TimedOut("late".into()).into()), 4);
        assert_eq!(
            exit_code(&anyhow::Error::new(NoDaemon("/x".into())).context("asked")),
            3
        );
    }

    #[test]
    fn bytes_are_shown_in_the_unit_that_fits() {
        let shown: Vec<_> = [0, 999, 1000, 1_234_567, 999_999, u64::MAX]
            .map(bytes)
            .into();
        assert_eq!(
            shown,
            ["0 B", "999 B", "1.0 kB", "1.2 MB", "1.0 MB", "18446.7 PB"]
        );
    }

    #[test]
    fn spans_are_shown_in_the_unit_that_fits() {
        let shown: Vec<_> = [0, 119, 120, 7200, 86_399, 90 * 86_400 - 1]
            .map(span)
            .into();
        assert_eq!(shown, ["0 s", "119 s", "2 min", "2 h", "24 h", "90 d"]);
    }

    #[test]
    fn a_table_lines_up_and_has_no_colours_in_a_pipe() {
        let mut table = Table::new(&["NAME", "PATH"]);
        table.row(vec!["a-long-name".into(), "direct".into()]);
        assert_eq!(
            table.render(Paint(false)),
            "NAME         PATH\na-long-name  direct\n"
        );
    }
}
