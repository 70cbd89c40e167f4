//! Entries of the registry and the DHT beneath it, as commands and daemon speak of them. The shapes are documented for
//! programs of others in `local-api.md, beside this file`.

use serde::{Deserialize, Serialize};

/// A question about the registry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "about", rename_all = "snake_case")]
pub enum Ask {
    /// Tell everybody a value under a key, in place of what we told before. [`Written`].
    Put {
        /// The key.
        key: String,
        /// The value.
        value: Value,
        /// Seconds until it is gone; the registry's own default, if none.
        lifetime_s: Option<u64>,
    },
    /// Take our value back. [`Written`].
    Delete {
        /// The key.
        key: String,
    },
    /// A list of [`Entry`]: what lies under a key, one for each owner.
    Get {
        /// The key.
        key: String,
        /// Of this member alone: name, address or peer id.
        owner: Option<String>,
        /// Look it up in the DHT, however fresh what is known here is.
        #[serde(default)]
        network: bool,
    },
    /// A list of [`Leaf`]: the keys that are known here.
    Walk {
        /// This key and those below it alone.
        prefix: Option<String>,
    },
    /// [`Routes`].
    Routes,
}

/// What lies under a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Value {
    /// Characters.
    Text(String),
    /// Bytes that are no text, in hexadecimal digits.
    Hex(String),
}

impl Value {
    /// As text, if these bytes are text that can be shown.
    pub fn of(bytes: &[u8]) -> Self {
        let is_plain = |c: char| !c.is_control() || matches!(c, '\n' | '\t');
        match str::from_utf8(bytes) {
            Ok(text) if text.chars().all(is_plain) => Self::Text(text.to_owned()),
            Ok(_) | Err(_) => Self::Hex(bytes.iter().map(|byte| format!("{byte:02x}")).collect()),
        }
    }

    /// The bytes.
    pub fn bytes(&self) -> Result<Vec<u8>, String> {
        match self {
            Self::Text(text) => Ok(text.clone().into_bytes()),
            Self::Hex(digits) => unhex(digits)
                .ok_or_else(|| "the value's 'hex' is no even number of hexadecimal digits".into()),
        }
    }
}

fn unhex(digits: &str) -> Option<Vec<u8>> {
    let pairs = digits.as_bytes().chunks(2);
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let byte = |pair: &[u8]| {
        let [high, low] = *pair else { return None };
        u8::try_from(digit(high)? << 4 | digit(low)?).ok()
    };
    pairs.map(byte).collect()
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// The key.
    pub key: String,
    /// Higher ones replace lower ones.
    pub seq: u64,
}

/// A value that a member keeps under a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// The member that it is from.
    pub owner: String,
    /// Its peer id.
    pub owner_id: String,
    /// Higher ones replace lower ones.
    pub seq: u64,
    /// Seconds since it was written.
    pub age_s: u64,
    /// Seconds until it is gone.
    pub left_s: u64,
    /// The value.
    pub value: Value,
}

/// That a member keeps a value under a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaf {
    /// The key.
    pub key: String,
    /// The member that it is from.
    pub owner: String,
    /// Its peer id.
    pub owner_id: String,
    /// Higher ones replace lower ones.
    pub seq: u64,
    /// Seconds since it was written.
    pub age_s: u64,
    /// Seconds until it is gone.
    pub left_s: u64,
    /// Length of the value.
    pub bytes: usize,
}

/// Whom the DHT knows here, and what it keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Routes {
    /// `server` or `client`: whether this node keeps records for others.
    pub mode: String,
    /// The routing table without what is empty in it, nearest first.
    pub buckets: Vec<Bucket>,
    /// What lies in our part of the DHT.
    pub records: Records,
}

/// Members at about one distance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bucket {
    /// Two peer ids differ in this bit first; 255 are those farthest away.
    pub distance: u32,
    /// Who is there.
    pub peers: Vec<Route>,
}

/// A member in the routing table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Its peer id.
    pub peer_id: String,
    /// Its name, as long as it is a member.
    pub name: Option<String>,
    /// Where the DHT would dial it.
    pub addresses: Vec<String>,
    /// Whether it is connected.
    pub connected: bool,
}

/// How many records lie in our part of the DHT.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Records {
    /// Those that we publish.
    pub ours: usize,
    /// Those that we keep for others.
    pub others: usize,
    /// How many of the latter are entries of the registry.
    pub entries_of_others: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_shown_is_text_and_all_else_hexadecimal() {
        for bytes in [&b""[..], "12 °C\n".as_bytes(), &[0, 0x7f, 0xff], b"\x1b[2J"] {
            let value = Value::of(bytes);
            let is_shown = bytes.is_empty() || bytes.starts_with(b"12");
            assert_eq!(matches!(value, Value::Text(_)), is_shown);
            assert_eq!(value.bytes().as_deref(), Ok(bytes));
        }
        for wrong in ["0", "0g", "ä"] {
            assert!(Value::Hex(wrong.to_owned()).bytes().is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_may_be_left_out_may_be_left_out() {
        let line = r#"{"command":"dht","about":"get","key":"a/b"}"#;
        let get = Ask::Get {
            key: "a/b".to_owned(),
            owner: None,
            network: false,
        };
        let request: super::super::Request = serde_json::from_str(line).unwrap();
        assert_eq!(request, super::super::Request::Dht(get));
        let line = r#"{"command":"dht","about":"put","key":"a","value":{"text":"hi"}}"#;
        assert!(serde_json::from_str::<super::super::Request>(line).is_ok());
    }
}
