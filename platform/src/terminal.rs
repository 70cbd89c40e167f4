//! Asking at the terminal for something that must not be seen on it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;

use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

/// Longest line; a terminal itself takes 4096 bytes.
const MAX_LINE: usize = 4096;

/// Shows `prompt` and reads a line that is not shown while it is typed. The line's end is part of what is returned. What
/// the process was given as standard input and output does not matter.
pub fn read_secret(prompt: &str) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut terminal = OpenOptions::new().read(true).write(true).open("/dev/tty")?;
    let silent = Silent::make(terminal.try_clone()?)?;
    terminal.write_all(prompt.as_bytes())?;
    let line = read_line(&mut terminal);
    drop(silent);
    // The end of the line that was typed was not shown either.
    terminal.write_all(b"\n")?;
    line
}

fn read_line(from: &mut impl Read) -> io::Result<Zeroizing<Vec<u8>>> {
    // Room for everything from the start: growing would leave copies behind that nobody wipes.
    let mut line = Zeroizing::new(Vec::with_capacity(MAX_LINE));
    let mut byte = Zeroizing::new([0; 1]);
    while line.len() < MAX_LINE && line.last() != Some(&b'\n') {
        match from.read(&mut *byte) {
            Ok(0) => break,
            Ok(_) => line.push(byte[0]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(line)
}

/// A terminal that does not show what is typed, as long as this value lives.
struct Silent {
    terminal: File,
    before: Termios,
}

impl Silent {
    fn make(terminal: File) -> io::Result<Self> {
        let before = tcgetattr(terminal.as_fd())?;
        let mut silent = before.clone();
        silent.local_flags.remove(LocalFlags::ECHO);
        tcsetattr(terminal.as_fd(), SetArg::TCSAFLUSH, &silent)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        // A terminal that has gone needs nothing put back.
        let _ = tcsetattr(self.terminal.as_fd(), SetArg::TCSANOW, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use nix::pty::openpty;

    use super::*;

    #[test]
    fn a_terminal_is_silent_for_as_long_as_it_should_be() {
        let pair = openpty(None, None).unwrap();
        let shows = || {
            let flags = tcgetattr(pair.slave.as_fd()).unwrap().local_flags;
            flags.contains(LocalFlags::ECHO)
        };
        assert!(shows());
        let silent = Silent::make(File::from(pair.slave.try_clone().unwrap())).unwrap();
        assert!(!shows());
        drop(silent);
        assert!(shows());
    }

    #[test]
    fn a_line_ends_at_its_end() {
        let mut typed = &b"secret\nmore"[..];
        assert_eq!(*read_line(&mut typed).unwrap(), b"secret\n");
        assert_eq!(*read_line(&mut typed).unwrap(), b"more");
    }
}
