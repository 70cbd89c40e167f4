//! Names, as commands and daemon speak of them.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// `names --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Names {
    /// What they all end with: `home.hive.internal`.
    pub domain: String,
    /// The addresses of this machine that answer, on port 53.
    pub servers: Vec<IpAddr>,
    /// How programs get there: `systemd-resolved`, `resolv.conf`, or `none`, if they have to ask one of these addresses.
    pub through: String,
    /// Whether names without a dot are looked for in the domain.
    pub search: bool,
    /// Why programs do not get there, or not as they should.
    pub trouble: Option<String>,
    /// Every name.
    pub names: Vec<ListedName>,
}

/// A name in `names --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedName {
    /// In full.
    pub name: String,
    /// `node`, `service` (of one node), `services` (of all that are well) or `models`.
    pub kind: String,
    /// What it resolves to.
    pub addresses: Vec<IpAddr>,
    /// Whether it resolves to anything.
    pub resolves: bool,
    /// Why not.
    pub trouble: Option<String>,
}

impl ListedName {
    /// A node comes before its services, and they before the next node.
    pub fn order(&self) -> impl Ord + use<> {
        let mut labels: Vec<_> = self.name.split('.').map(str::to_owned).collect();
        labels.reverse();
        labels
    }
}
