//! What commands and daemon say to each other about the access policy.

use serde::{Deserialize, Serialize};

/// A question about the policy, or another one to be set. Policies go as TOML, so that an error can name a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "policy", rename_all = "snake_case")]
pub enum Ask {
    /// [`Shown`].
    Show,
    /// [`Set`]. Everybody in the network will follow it.
    Set {
        /// The policy.
        toml: String,
        /// Only if this version is in force; 0 means that none was set yet.
        replaces: Option<u64>,
    },
    /// [`Tested`]. Changes nothing.
    Test {
        /// The policy whose tests are run; the one in force without.
        toml: Option<String>,
    },
    /// [`Traced`].
    Trace {
        /// Who begins: name, address, peer id, or a selector of rules.
        from: String,
        /// With whom.
        to: String,
        /// By what: `22`, `tcp/22`, `udp/53`, `icmp`.
        port: String,
    },
}

/// `policy show --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    /// 0 before anybody has set one.
    pub version: u64,
    /// `open`, `published` or `closed`.
    pub mode: String,
    /// Denials first.
    pub rules: Vec<Rule>,
    /// What must come out.
    pub tests: Vec<Test>,
    /// What this node publishes.
    pub published: Vec<String>,
    /// The whole as people edit it.
    pub toml: String,
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// `allow` or `deny`.
    pub action: String,
    /// Who begins.
    pub from: Vec<String>,
    /// With whom.
    pub to: Vec<String>,
    /// By what.
    pub ports: Vec<String>,
    /// Why.
    pub note: Option<String>,
}

/// A test.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Test {
    /// Who begins.
    pub from: String,
    /// With whom.
    pub to: String,
    /// By what.
    pub port: String,
    /// `allow` or `deny`.
    pub expect: String,
}

/// `policy set --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Set {
    /// The version now in force.
    pub version: u64,
    /// Whether it is another than before.
    pub changed: bool,
    /// What is perhaps not as it was meant.
    pub warnings: Vec<String>,
}

/// `policy test --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tested {
    /// How many tests there are.
    pub tests: usize,
    /// Those that do not come out, with what does.
    pub failed: Vec<String>,
}

/// `policy trace --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traced {
    /// Who begins, as rules see it.
    pub from: String,
    /// With whom.
    pub to: String,
    /// By what.
    pub port: String,
    /// Whether it may begin, as far as this node knows.
    pub allowed: bool,
    /// The rule or the mode that decides.
    pub by: String,
    /// The version of the policy.
    pub version: u64,
}
