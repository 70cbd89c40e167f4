//! `hivevpn policy`

use std::{
    io::{Read, Write},
    path::Path,
    process::Command,
};

use anyhow::{Context, Result, ensure};

use super::{BadUsage, Paint};
use crate::{
    cli::{
        JsonArg,
        policy::{
            PolicyArgs, PolicyCommand, PolicyModeArgs, PolicySetArgs, PolicyTestArgs,
            PolicyTraceArgs,
        },
    },
    control::{
        Request, ask,
        policy::{Ask, Set, Shown, Tested, Traced},
    },
    policy,
};

/// More than any policy has.
const MAX_FILE: u64 = 192 << 10;

/// Shows, changes, tests or explains the policy.
pub fn run(args: &PolicyArgs, socket: &Path) -> Result<()> {
    match &args.command {
        PolicyCommand::Show(args) => show(args, socket),
        PolicyCommand::Edit => edit(socket),
        PolicyCommand::Set(args) => set(args, socket),
        PolicyCommand::Mode(args) => mode(args, socket),
        PolicyCommand::Test(args) => test(args, socket),
        PolicyCommand::Trace(args) => trace(args, socket),
    }
}

fn in_force(socket: &Path) -> Result<Shown> {
    ask(socket, &Request::Policy(Ask::Show))
}

fn show(args: &JsonArg, socket: &Path) -> Result<()> {
    let shown = in_force(socket)?;
    if args.json {
        return super::print_json(&shown);
    }
    let version = match shown.version {
        0 => {
            "# Nobody has set a policy yet: this is what the network was founded with.\n".to_owned()
        }
        version => format!("# Version {version}.\n"),
    };
    super::print(&(version + &shown.toml))
}

fn set(args: &PolicySetArgs, socket: &Path) -> Result<()> {
    let toml = read(&args.file)?;
    send(toml, None, args.json, socket)
}

fn mode(args: &PolicyModeArgs, socket: &Path) -> Result<()> {
    let shown = in_force(socket)?;
    let policy = policy::parse(&shown.toml).context("the policy in force")?;
    let toml = policy::render(&policy.with_mode(args.mode));
    send(toml, Some(shown.version), args.json, socket)
}

fn send(toml: String, replaces: Option<u64>, json: bool, socket: &Path) -> Result<()> {
    let set: Set = ask(socket, &Request::Policy(Ask::Set { toml, replaces }))?;
    if json {
        return super::print_json(&set);
    }
    for warning in &set.warnings {
        writeln!(std::io::stderr(), "note: {warning}")?;
    }
    super::print(&match (set.changed, set.version) {
        (true, version) => format!("version {version} of the policy is in force\n"),
        (false, version) => format!("nothing changes: version {version} says the same\n"),
    })
}

/// A file, checked before the daemon sees it: so an error names the file.
fn read(file: &Path) -> Result<String> {
    let name = match file.to_str() {
        Some("-") => "standard input".to_owned(),
        Some(_) | None => file.display().to_string(),
    };
    let mut toml = String::new();
    let read = match file.to_str() {
        Some("-") => std::io::stdin()
            .take(MAX_FILE + 1)
            .read_to_string(&mut toml),
        Some(_) | None => std::fs::File::open(file)
            .and_then(|file| file.take(MAX_FILE + 1).read_to_string(&mut toml)),
    };
    read.with_context(|| name.clone())?;
    ensure!(
        toml.len() as u64 <= MAX_FILE,
        BadUsage(format!("{name}: longer than any policy ({MAX_FILE} bytes)"))
    );
    match policy::parse(&toml) {
        Ok(_) => Ok(toml),
        Err(error) => Err(BadUsage(format!("{name}: {error}")).into()),
    }
}

/// Opens an editor until what it leaves is a policy that is taken, or nothing has changed.
fn edit(socket: &Path) -> Result<()> {
    let shown = in_force(socket)?;
    // Created for its owner alone, and gone with this command.
    let file = tempfile::Builder::new()
        .prefix("hivevpn-policy-")
        .suffix(".toml")
        .tempfile()
        .context("a file to edit")?;
    std::fs::write(file.path(), &shown.toml).context("a file to edit")?;
    let mut refused = None;
    loop {
        open_editor(file.path())?;
        let text = std::fs::read_to_string(file.path()).context("the edited file")?;
        let text = without_complaints(&text);
        if text == shown.toml {
            return super::print("nothing was changed\n");
        }
        let sent = match policy::parse(&text) {
            Ok(_) => send(text.clone(), Some(shown.version), false, socket),
            Err(error) => Err(error.into()),
        };
        let Err(error) = sent else { return Ok(()) };
        ensure!(
            refused.as_ref() != Some(&text),
            "{error:#}\nIt was left as it was, so the policy stays as it was, too"
        );
        std::fs::write(file.path(), with_complaint(&text, &format!("{error:#}")))
            .context("the edited file")?;
        refused = Some(text);
    }
}

/// Begins the lines in which the editor shows what is wrong. They stand at the end, so that no line gets another number.
const COMPLAINT: &str = "#! ";

fn with_complaint(text: &str, complaint: &str) -> String {
    let lines = complaint.lines();
    let lines: String = lines.map(|line| format!("{COMPLAINT}{line}\n")).collect();
    let end = if text.ends_with('\n') { "" } else { "\n" };
    format!("{text}{end}{lines}")
}

fn without_complaints(text: &str) -> String {
    let lines = text.split_inclusive('\n');
    lines.filter(|line| !line.starts_with(COMPLAINT)).collect()
}

fn open_editor(file: &Path) -> Result<()> {
    let named = ["VISUAL", "EDITOR"]
        .into_iter()
        .filter_map(std::env::var_os);
    let editor = named
        .into_iter()
        .find(|editor| !editor.is_empty())
        .unwrap_or_else(|| "vi".into());
    // The variables hold a command with arguments, as every program takes them.
    let status = Command::new("sh")
        .arg("-c")
        .arg("$0 \"$1\"")
        .arg(&editor)
        .arg(file)
        .status()
        .context("no shell to start the editor with")?;
    ensure!(
        status.success(),
        "the editor {} ended with {status}: the policy stays as it was",
        editor.display()
    );
    Ok(())
}

fn test(args: &PolicyTestArgs, socket: &Path) -> Result<()> {
    let toml = args.file.as_deref().map(read).transpose()?;
    let tested: Tested = ask(socket, &Request::Policy(Ask::Test { toml }))?;
    if args.json {
        super::print_json(&tested)?;
    } else if tested.failed.is_empty() {
        super::print(&format!("all {} tests come out\n", tested.tests))?;
    }
    ensure!(
        tested.failed.is_empty(),
        "{} of {} tests do not come out:\n  {}",
        tested.failed.len(),
        tested.tests,
        tested.failed.join("\n  ")
    );
    Ok(())
}

fn trace(args: &PolicyTraceArgs, socket: &Path) -> Result<()> {
    let traced: Traced = ask(
        socket,
        &Request::Policy(Ask::Trace {
            from: args.from.clone(),
            to: args.to.clone(),
            port: args.port.clone(),
        }),
    )?;
    if args.json {
        return super::print_json(&traced);
    }
    super::print(&render_trace(&traced, Paint::for_stdout()))
}

fn render_trace(traced: &Traced, paint: Paint) -> String {
    let outcome = match traced.allowed {
        true => paint.good("allowed"),
        false => paint.bad("denied"),
    };
    let Traced { from, to, port, .. } = traced;
    format!("{from} to {to} on {port}: {outcome}\n  {}\n", traced.by)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_shown_and_taken_out_again() {
        let text = "mode = \"open\"\n# mine\n";
        let shown = with_complaint(text, "line 1: no\nand more");
        assert_eq!(shown, format!("{text}#! line 1: no\n#! and more\n"));
        assert_eq!(without_complaints(&shown), text);
    }

    #[test]
    fn a_trace_names_what_decides() {
        let traced = Traced {
            from: "laptop (groups: dev)".into(),
            to: "gpu".into(),
            port: "tcp/22".into(),
            allowed: false,
            by: "rule: deny from laptop to gpu on tcp/22".into(),
            version: 3,
        };
        let text = render_trace(&traced, Paint(false));
        assert_eq!(
            text,
            "laptop (groups: dev) to gpu on tcp/22: denied\n  rule: deny from laptop to gpu on tcp/22\n"
        );
    }
}
