//! `[admin]`: who may act on this node from others.

use std::{collections::BTreeMap, path::PathBuf};

use hivevpn_core::membership::{Admin, Name, Roles};
use libp2p::PeerId;
use serde::Deserialize;

use super::{ConfigError, file::Spanned};
use crate::administration::{file, roles_named};

/// Who may act on this node from others, beside those that its store names.
#[derive(Debug, Clone, Default)]
pub struct Administrators {
    /// A file that names some.
    pub file: Option<PathBuf>,
    /// Those that it names.
    pub appointed: BTreeMap<Name, Admin>,
    /// Members that need no password, by peer id or by the name in their certificate.
    pub members: BTreeMap<String, Roles>,
}

impl Administrators {
    /// Reads the file, if one is given.
    pub(super) fn read(&mut self) -> Result<(), ConfigError> {
        if let Some(path) = &self.file {
            self.appointed = file::read(path).map_err(|error| ConfigError::Value {
                place: path.display().to_string(),
                option: "admin.file",
                message: error.to_string(),
            })?;
        }
        Ok(())
    }
}

/// As it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct AdminSection {
    file: Option<PathBuf>,
    members: BTreeMap<Spanned<String>, Vec<String>>,
}

impl AdminSection {
    /// What it means; `place` tells where in the file something is.
    pub(super) fn apply_to(
        self,
        administrators: &mut Administrators,
        place: impl Fn(std::ops::Range<usize>) -> String,
    ) -> Result<(), ConfigError> {
        if self.file.is_some() {
            administrators.file = self.file;
        }
        for (member, roles) in self.members {
            let wrong = |message| ConfigError::Value {
                place: place(member.span()),
                option: "admin.members",
                message,
            };
            let name = member.get_ref();
            if name.parse::<PeerId>().is_err() && Name::parse(name).is_err() {
                return Err(wrong(format!(
                    "'{name}' is neither a member's name nor a peer id ('hivevpn nodes --json' shows both)"
                )));
            }
            let roles = roles_named(roles.iter().map(String::as_str)).map_err(wrong)?;
            administrators.members.insert(name.clone(), roles);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    fn from_text(text: &str) -> Result<Administrators, String> {
        let mut config = Config::default();
        config
            .apply_file(Path::new("network.toml"), text)
            .map_err(|error| error.to_string())?;
        Ok(config.admin)
    }

    #[test]
    fn members_are_given_roles() {
        let text = "[admin]\nmembers = { laptop = [\"metrics\", \"config\"] }\n";
        let administrators = from_text(text).unwrap();
        assert_eq!(
            administrators.members["laptop"],
            Roles::METRICS | Roles::CONFIG
        );
    }

    #[test]
    fn a_wrong_role_or_name_is_told_with_its_line() {
        let role = from_text("[admin]\nmembers = { laptop = [\"root\"] }\n").unwrap_err();
        assert!(
            role.contains("network.toml:2") && role.contains("'root'"),
            "{role}"
        );
        let name = from_text("[admin]\nmembers = { \"My Laptop\" = [\"keys\"] }\n").unwrap_err();
        assert!(name.contains("neither a member's name"), "{name}");
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let mut administrators = Administrators {
            file: Some("/nonexistent/admins".into()),
            ..Administrators::default()
        };
        let why = administrators.read().unwrap_err().to_string();
        assert!(why.contains("/nonexistent/admins"), "{why}");
    }
}
