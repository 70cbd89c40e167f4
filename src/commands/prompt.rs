//! Passwords from the terminal, standard input or a file. Never from an argument: others could see those.

use std::{
    io::{BufRead, IsTerminal},
    path::Path,
};

use anyhow::{Context, Result, ensure};
use hivevpn_core::membership::password::MAX_PASSWORD;
use hivevpn_platform::{secret_file, terminal};
use zeroize::Zeroizing;

use super::BadUsage;

/// A password that exists.
pub fn ask(what: &str, file: Option<&Path>) -> Result<Zeroizing<Vec<u8>>> {
    match file {
        Some(path) => Ok(without_line_end(secret_file::read(path)?)),
        None if std::io::stdin().is_terminal() => prompt(what),
        None => from(std::io::stdin().lock()),
    }
}

/// A new password, which is typed twice.
pub fn choose(what: &str, file: Option<&Path>) -> Result<Zeroizing<Vec<u8>>> {
    let password = ask(what, file)?;
    if file.is_none() && std::io::stdin().is_terminal() {
        let again = prompt("Once more")?;
        ensure!(
            *again == *password,
            "the two passwords differ: nothing was changed"
        );
    }
    ensure!(
        (1..=MAX_PASSWORD).contains(&password.len()),
        BadUsage(format!("a password has 1 to {MAX_PASSWORD} bytes"))
    );
    Ok(password)
}

fn prompt(what: &str) -> Result<Zeroizing<Vec<u8>>> {
    let line = terminal::read_secret(&format!("{what}: ")).context("cannot ask for a password")?;
    Ok(without_line_end(line))
}

/// The first line.
fn from(input: impl BufRead) -> Result<Zeroizing<Vec<u8>>> {
    let limit = MAX_PASSWORD as u64 + 2;
    // Room for everything from the start: growing would leave copies behind that nobody wipes.
    let mut line = Zeroizing::new(Vec::with_capacity(MAX_PASSWORD + 2));
    input
        .take(limit)
        .read_until(b'\n', &mut line)
        .context("cannot read the password from standard input")?;
    Ok(without_line_end(line))
}

fn without_line_end(mut line: Zeroizing<Vec<u8>>) -> Zeroizing<Vec<u8>> {
    if line.last() == Some(&b'\n') {
        line.pop();
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_the_line_is_not_part_of_the_password() {
        for (input, password) in [
            (&b"secret\n"[..], &b"secret"[..]),
            (b"secret\r\nmore\n", b"secret"),
            (b" spaced ", b" spaced "),
            (b"", b""),
        ] {
            assert_eq!(*from(input).unwrap(), password);
        }
    }
}
