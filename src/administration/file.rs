//! Administrators as a file: one a line, as `hivevpn admin hash` prints it.
//!
//! ```text
//! # name roles record
//! admin metrics,config rQAB…
//! ```
//!
//! A record is not the password, but lets whoever has it try passwords: the file must be private.

use std::{collections::BTreeMap, path::Path};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use hivevpn_core::membership::{Admin, Name, password::PasswordRecord};
use hivevpn_platform::secret_file::{self, SecretFileError};

use super::{role_names, roles_named};

/// A file that names no administrators.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read, or others can read it too.
    #[error(transparent)]
    Unreadable(#[from] SecretFileError),
    /// A line says something else.
    #[error("{path}:{line}: {message}")]
    Line {
        /// The file.
        path: String,
        /// Line, from 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
}

/// The administrators that a file names.
pub fn read(path: &Path) -> Result<BTreeMap<Name, Admin>, FileError> {
    let bytes = secret_file::read(path)?;
    let wrong = |line, message| FileError::Line {
        path: path.display().to_string(),
        line,
        message,
    };
    let text =
        std::str::from_utf8(&bytes).map_err(|_| wrong(1, "it is not UTF-8 text".to_owned()))?;
    let mut admins = BTreeMap::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, admin) = parse(line).map_err(|message| wrong(number, message))?;
        if admins.insert(name.clone(), admin).is_some() {
            return Err(wrong(number, format!("{name} is named twice")));
        }
    }
    Ok(admins)
}

/// A line of the file.
pub fn line(name: &Name, admin: &Admin) -> String {
    let roles = role_names(admin.roles).join(",");
    format!("{name} {roles} {}", BASE64.encode(&*admin.record.encode()))
}

fn parse(line: &str) -> Result<(Name, Admin), String> {
    let fields: Vec<_> = line.split_whitespace().collect();
    let [name, roles, record] = fields[..] else {
        return Err(
            "a line is a name, roles with commas between them, and a record: 'hivevpn admin hash' prints one"
                .to_owned(),
        );
    };
    let name = Name::parse(name).map_err(|error| error.to_string())?;
    let roles = roles_named(roles.split(','))?;
    let damaged = || "the record is damaged: let 'hivevpn admin hash' make it again".to_owned();
    let record = BASE64.decode(record).map_err(|_| damaged())?;
    let record = PasswordRecord::decode(&record).map_err(|_| damaged())?;
    Ok((name, Admin { roles, record }))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use hivevpn_core::membership::Roles;
    use zeroize::Zeroizing;

    use super::*;

    fn hashed(name: &str) -> String {
        let record = PasswordRecord::of(b"secret", &Zeroizing::new([1; 32])).unwrap();
        let roles = Roles::METRICS | Roles::CONFIG;
        line(&Name::parse(name).unwrap(), &Admin { roles, record })
    }

    fn read_text(text: &str, mode: u32) -> Result<BTreeMap<Name, Admin>, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admins");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        read(&path).map_err(|error| error.to_string())
    }

    #[test]
    fn what_hash_prints_is_a_line_of_the_file() {
        let line = hashed("admin");
        assert!(!line.contains("secret"));
        let text = format!("# who may\n\n{line}\n");
        let admins = read_text(&text, 0o600).unwrap();
        let (name, admin) = admins.iter().next().unwrap();
        assert_eq!(name.as_str(), "admin");
        assert_eq!(admin.roles, Roles::METRICS | Roles::CONFIG);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        let twice = format!("{0}\n{0}\n", hashed("admin"));
        let wrong = [
            ("admin metrics\n".to_owned(), ":1: a line is"),
            ("\nadmin root AAAA\n".to_owned(), ":2: there is no role"),
            ("Admin metrics AAAA\n".to_owned(), "is not a name"),
            ("admin metrics AAAA\n".to_owned(), "damaged"),
            (twice, ":2: admin is named twice"),
        ];
        for (text, part) in wrong {
            let why = read_text(&text, 0o600).unwrap_err();
            assert!(why.contains(part), "{why}");
        }
    }

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        let why = read_text(&hashed("admin"), 0o644).unwrap_err();
        assert!(why.contains("chmod 600"), "{why}");
    }
}
