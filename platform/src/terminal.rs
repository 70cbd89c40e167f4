//! Reading what a person types without showing it.

use std::io::{self, BufRead, IsTerminal, Write};

use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

/// Asks for a line on the terminal and reads it without echo. None when standard input is no terminal.
pub fn ask_secret(prompt: &str) -> io::Result<Option<Zeroizing<String>>> {
    let input = io::stdin();
    if !input.is_terminal() {
        return Ok(None);
    }
    let mut out = io::stderr().lock();
    write!(out, "{prompt}")?;
    out.flush()?;
    let quiet = Quiet::begin()?;
    let mut line = Zeroizing::new(String::new());
    let read = input.lock().read_line(&mut line);
    drop(quiet);
    // The Return that ended the line was not shown either.
    writeln!(out)?;
    read?;
    Ok(Some(line))
}

/// Restores the terminal however reading ends.
struct Quiet(Termios);

impl Quiet {
    fn begin() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut quiet = before.clone();
        quiet.local_flags.remove(LocalFlags::ECHO);
        tcsetattr(io::stdin(), SetArg::TCSAFLUSH, &quiet)?;
        Ok(Self(before))
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        // There is nobody to tell, and nothing else to try.
        let _ = tcsetattr(io::stdin(), SetArg::TCSAFLUSH, &self.0);
    }
}
