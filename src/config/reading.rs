//! Reading the file and the invite, and saying where in a text something stands.

use std::{io::Read, os::unix::fs::PermissionsExt, path::Path};

use zeroize::Zeroizing;

use super::ConfigError;

/// Longer files than this are read too, in more steps.
const MAX_ROOM: usize = 1 << 20;
/// More than any invite has.
const MAX_INVITE: u64 = 64 << 10;
/// Permission to read of those who are neither owner nor in the group.
const READABLE_BY_ALL: u32 = 0o004;

/// Refuses a file that holds `secret` and that others can read.
pub(super) fn check_privacy(
    path: &Path,
    secret: Option<&'static str>,
    mode: u32,
) -> Result<(), ConfigError> {
    match secret {
        Some(what) if mode & READABLE_BY_ALL != 0 => Err(ConfigError::Exposed {
            path: path.to_owned(),
            what,
            mode,
        }),
        Some(_) | None => Ok(()),
    }
}

/// The text of a file and its permission bits.
pub(super) fn read(path: &Path) -> std::io::Result<(Zeroizing<String>, u32)> {
    let mut file = std::fs::File::open(path)?;
    let metadata = file.metadata()?;
    // Room for everything from the start: growing would leave copies behind that nobody wipes.
    let room = usize::try_from(metadata.len()).unwrap_or(0).min(MAX_ROOM) + 1;
    let mut text = Zeroizing::new(String::with_capacity(room));
    file.read_to_string(&mut text)?;
    Ok((text, metadata.permissions().mode() & 0o7777))
}

pub(super) fn read_invite() -> Result<Zeroizing<String>, ConfigError> {
    let mut text = Zeroizing::new(String::new());
    match std::io::stdin().take(MAX_INVITE).read_to_string(&mut text) {
        Ok(_) => Ok(text),
        Err(error) => Err(ConfigError::Unreadable {
            path: "standard input".into(),
            error,
        }),
    }
}

/// The option on the line with this offset, with its section: `underlay.port`.
pub(super) fn option_at(text: &str, offset: usize) -> Option<String> {
    let start = text.get(..offset)?.rfind('\n').map_or(0, |end| end + 1);
    let line = text[start..].lines().next()?;
    let key = line.split_once('=')?.0.trim();
    let section = text[..start]
        .lines()
        .rev()
        .find_map(|line| line.trim().strip_prefix('[')?.strip_suffix(']'))
        // One of several has two brackets.
        .map(|section| section.trim_matches(['[', ']']));
    Some(section.map_or(key.to_owned(), |section| format!("{section}.{key}")))
}

pub(super) fn line_of(text: &str, offset: usize) -> usize {
    1 + text
        .as_bytes()
        .iter()
        .take(offset)
        .filter(|byte| **byte == b'\n')
        .count()
}
