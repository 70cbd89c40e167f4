//! What commands and daemon say to each other about acting on other nodes, and about who may act on this one.

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Bytes that are nobody's to read: base64 on the wire, and not shown anywhere.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed(pub Vec<u8>);

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl Serialize for Sealed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Sealed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        BASE64.decode(text).map(Self).map_err(de::Error::custom)
    }
}

/// What a command that logs in asks of the daemon, step by step. The password stays with the command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoginStep {
    /// Between whom the login is: [`LoginAnswer::Parties`].
    Whom,
    /// Without a password: [`LoginAnswer::Granted`] or [`LoginAnswer::NotListed`].
    Enter,
    /// OPAQUE's first message: [`LoginAnswer::Challenge`].
    Begin {
        /// The administrator's name.
        user: String,
        /// The message.
        message: Sealed,
    },
    /// OPAQUE's third message: [`LoginAnswer::Granted`].
    Prove {
        /// The message.
        message: Sealed,
    },
}

/// The daemon's answer to a [`LoginStep`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoginAnswer {
    /// Who logs in, and where.
    Parties {
        /// Our peer id.
        client: String,
        /// The peer id of the node that is acted on.
        server: String,
        /// What that is called.
        name: String,
    },
    /// Its configuration gives us nothing: it takes a password.
    NotListed,
    /// OPAQUE's second message.
    Challenge(Sealed),
    /// The daemon may act on the node now.
    Granted(Granted),
}

/// What a login gave, and `login --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Granted {
    /// The node.
    pub node: String,
    /// What may be done there.
    pub roles: Vec<String>,
    /// For how many seconds.
    pub seconds: u32,
}

/// Where an administrator is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// In the node's store: `admin set-password` and `admin remove` change it.
    Store,
    /// In the file that `up` was given.
    File,
    /// In the configuration: a member that needs no password.
    Config,
}

/// An administrator in `admin list --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdminEntry {
    /// Its name; of a member in the configuration, its name or peer id.
    pub user: String,
    /// What it may do.
    pub roles: Vec<String>,
    /// Where it is named.
    pub source: Source,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_is_not_shown_and_survives_the_wire() {
        let step = LoginStep::Prove {
            message: Sealed(b"proof".to_vec()),
        };
        assert!(!format!("{step:?}").contains("proof"));
        let json = serde_json::to_string(&step).unwrap();
        assert!(!json.contains("proof\""), "{json}");
        assert_eq!(serde_json::from_str::<LoginStep>(&json).unwrap(), step);
    }
}
