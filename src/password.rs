//! The network's password: the ways by which it comes to this node, none of which shows it to others.
//!
//! | from | |
//! |---|---|
//! | `--network name:password` | overwritten in the command line at once; `name:-` reads it from standard input |
//! | `HIVEVPN_NETWORK=name:password` | the environment of a process shows to its user alone |
//! | `name = "name:password"` in the file | which must be private |
//! | `--password-file`, `HIVEVPN_PASSWORD_FILE`, `password_file` | which must be private; `-` is standard input |
//! | systemd: `LoadCredential=hivevpn.password:…` | used when nothing else is given |
//!
//! A node needs it once, to join or to found, so a file is not read before that and may be gone afterwards.

use std::{
    env, fmt, fs,
    io::{IsTerminal, Read},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use hivevpn_core::membership::{PasswordRecord, password::MAX_PASSWORD};
use hivevpn_platform::{command_line, secret_file, terminal};
use zeroize::Zeroizing;

use crate::{commands::BadUsage, identity::random_bytes};

/// The name under which systemd hands it over.
const CREDENTIAL: &str = "hivevpn.password";
/// Where systemd puts what it hands over.
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";
/// A password of fewer characters is guessed, not found out: ten a minute, for months.
const SHORT: usize = 10;

/// A password. Wiped when it is not needed any more, and not shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(Zeroizing<String>);

impl Password {
    /// The password that `text` is, without a newline behind it.
    pub fn new(text: &str) -> Result<Self, String> {
        let text = text.strip_suffix('\n').unwrap_or(text);
        let text = text.strip_suffix('\r').unwrap_or(text);
        if text.is_empty() {
            return Err("the password is empty".to_owned());
        }
        if text.len() > MAX_PASSWORD {
            return Err(format!(
                "the password is longer than {MAX_PASSWORD} bytes: is it the right file?"
            ));
        }
        Ok(Self(Zeroizing::new(text.to_owned())))
    }

    /// What OPAQUE takes.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// What a node keeps of it. Takes some tenths of a second.
    pub fn record(&self) -> Result<PasswordRecord> {
        if self.0.chars().count() < SHORT {
            tracing::warn!(
                "the password has fewer than {SHORT} characters: whoever tries long enough will guess it"
            );
        }
        Ok(PasswordRecord::of(self.as_bytes(), &random_bytes())?)
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

/// Where the password is to be had when it is needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PasswordSource {
    /// Here.
    Given(Password),
    /// In this file; `-` is standard input.
    File(PathBuf),
}

impl PasswordSource {
    /// The password.
    pub fn read(&self) -> Result<Password> {
        match self {
            Self::Given(password) => Ok(password.clone()),
            Self::File(path) => from_file(path),
        }
    }
}

/// `name:password`, or a name alone.
pub fn split(text: &str) -> (&str, Option<&str>) {
    match text.split_once(':') {
        Some((name, password)) => (name, Some(password)),
        None => (text, None),
    }
}

/// The password in a file, which must be private; `-` is standard input.
pub fn from_file(path: &Path) -> Result<Password> {
    if path == Path::new("-") {
        return from_stdin();
    }
    let bytes = secret_file::read(path).map_err(|error| {
        BadUsage(format!(
            "the password cannot be read: {:#}",
            anyhow::Error::new(error)
        ))
    })?;
    parse(&bytes, &path.display().to_string())
}

/// What is typed, or comes through a pipe.
pub fn from_stdin() -> Result<Password> {
    const PLACE: &str = "standard input";
    if std::io::stdin().is_terminal() {
        let typed = terminal::read_secret("Password: ").context("cannot read the terminal")?;
        return parse(&typed, PLACE);
    }
    // Room for everything from the start: growing would leave copies behind that nobody wipes.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_PASSWORD + 3));
    std::io::stdin()
        .take(MAX_PASSWORD as u64 + 3)
        .read_to_end(&mut bytes)
        .context(PLACE)?;
    parse(&bytes, PLACE)
}

/// What systemd hands over, if anything. It keeps the directory private itself, by means that permission bits do not
/// show.
pub fn from_credential() -> Result<Option<Password>> {
    let Some(directory) = env::var_os(CREDENTIALS) else {
        return Ok(None);
    };
    let path = Path::new(&directory).join(CREDENTIAL);
    match fs::read(&path).map(Zeroizing::new) {
        Ok(bytes) => parse(&bytes, &path.display().to_string()).map(Some),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}

fn parse(bytes: &[u8], place: &str) -> Result<Password> {
    let Ok(text) = std::str::from_utf8(bytes) else {
        bail!(BadUsage(format!(
            "{place}: the password is no text in UTF-8"
        )));
    };
    let password = Password::new(text).map_err(|why| BadUsage(format!("{place}: {why}")))?;
    ensure!(
        !password.0.contains('\n'),
        BadUsage(format!("{place}: a password is one line"))
    );
    Ok(password)
}

/// Takes the password out of the command line again, if it was there.
pub fn hide(network: &str) {
    let (name, Some(_)) = split(network) else {
        return;
    };
    match command_line::wipe(network, name.len() + 1) {
        Ok(false) => {}
        Ok(true) => tracing::warn!(
            "the password was on the command line, where others could see it until now: better use --password-file, \
             or the environment variable HIVEVPN_NETWORK"
        ),
        Err(error) => tracing::warn!(
            %error,
            "if the password was given on the command line, it stays visible to every user of this machine: use \
             --password-file, or the environment variable HIVEVPN_NETWORK"
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_first_colon_divides_name_and_password() {
        assert_eq!(split("home:a:b"), ("home", Some("a:b")));
        assert_eq!(split("home:"), ("home", Some("")));
        assert_eq!(split("home"), ("home", None));
    }

    #[test]
    fn a_password_does_not_show_and_loses_its_newline() {
        let password = Password::new("letmein\r\n").unwrap();
        assert_eq!(password.as_bytes(), b"letmein");
        let shown = format!("{:?}", PasswordSource::Given(password));
        assert!(!shown.contains("letmein"), "{shown}");
        assert!(Password::new("\n").is_err());
        assert!(Password::new(&"x".repeat(MAX_PASSWORD + 1)).is_err());
    }

    #[test]
    fn a_file_that_others_may_read_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("password");
        fs::write(&path, "letmein\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let error = format!("{:#}", from_file(&path).unwrap_err());
        assert!(error.contains("chmod 600"), "{error}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(from_file(&path).unwrap().as_bytes(), b"letmein");
    }

    #[test]
    fn a_file_of_several_lines_is_no_password() {
        let error = parse(b"one\ntwo\n", "here").unwrap_err().to_string();
        assert_eq!(error, "here: a password is one line");
        assert!(parse(b"\xff", "here").is_err());
    }
}
