//! `hivevpn doctor`

use std::{io::IsTerminal, path::Path};

use anyhow::{Result, bail};

use super::Paint;
use crate::{
    cli::DoctorArgs,
    doctor::{Check, gather, judge},
};

/// Looks at everything and prints it. Fails when a check does.
pub fn run(args: &DoctorArgs, state: &Path, socket: &Path) -> Result<()> {
    let checks = judge(&gather(args.config.as_deref(), state, socket));
    if args.json {
        super::print_json(&checks)?;
    } else {
        let marks = if std::io::stdout().is_terminal() {
            &SYMBOLS
        } else {
            &WORDS
        };
        super::print(&render(&checks, marks, Paint::for_stdout()))?;
    }
    match checks.iter().filter(|check| !check.ok).count() {
        0 => Ok(()),
        1 => bail!("1 check failed"),
        failed => bail!("{failed} checks failed"),
    }
}

/// What stands before a check that is fine, failed, or was skipped; all of one width.
struct Marks {
    fine: &'static str,
    failed: &'static str,
    skipped: &'static str,
}

const SYMBOLS: Marks = Marks {
    fine: "✓",
    failed: "✗",
    skipped: "-",
};

const WORDS: Marks = Marks {
    fine: "ok  ",
    failed: "FAIL",
    skipped: "-   ",
};

fn render(checks: &[Check], marks: &Marks, paint: Paint) -> String {
    let names = checks.iter().map(|check| check.check.len());
    let width = names.max().unwrap_or(0);
    let mut text = String::new();
    for check in checks {
        let mark = if check.skipped {
            paint.fair(marks.skipped)
        } else if check.ok {
            paint.good(marks.fine)
        } else {
            paint.bad(marks.failed)
        };
        text.push_str(&format!(
            "{mark} {:width$}  {}\n",
            check.check, check.message
        ));
        if let Some(fix) = &check.fix {
            let indent = marks.fine.chars().count() + 1 + width + 2;
            let label = paint.strong("fix:");
            text.push_str(&format!("{:indent$}{label} {fix}\n", ""));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(check: &'static str, message: &str, fix: Option<&str>, skipped: bool) -> Check {
        Check {
            check,
            ok: fix.is_none(),
            message: message.to_owned(),
            fix: fix.map(str::to_owned),
            skipped,
        }
    }

    #[test]
    fn checks_line_up_with_their_fixes_below_them() {
        let checks = [
            check("tun", "/dev/net/tun opens", None, false),
            check("port", "is in use", Some("ss -lunp"), false),
            check("overlay-range", "skipped: no", None, true),
        ];
        let piped = "\
ok   tun            /dev/net/tun opens
FAIL port           is in use
                    fix: ss -lunp
-    overlay-range  skipped: no
";
        assert_eq!(render(&checks, &WORDS, Paint(false)), piped);
        let shown = "\
✓ tun            /dev/net/tun opens
✗ port           is in use
                 fix: ss -lunp
- overlay-range  skipped: no
";
        assert_eq!(render(&checks, &SYMBOLS, Paint(false)), shown);
    }
}
