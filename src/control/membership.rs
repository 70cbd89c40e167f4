//! What commands and daemon say to each other about membership.

use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
};

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// `whois --json`: who an overlay address belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Whois {
    /// Its name in the network.
    pub name: String,
    /// Its libp2p identity.
    pub peer_id: String,
    /// The groups that its certificate puts it in.
    pub groups: Vec<String>,
    /// Its overlay IPv4 address, unless an older member holds it.
    pub ipv4: Option<Ipv4Addr>,
    /// Its overlay IPv6 address.
    pub ipv6: Ipv6Addr,
    /// Whether it is this node.
    pub this: bool,
}

/// The network and those who have the last word in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authorities {
    /// The network's name.
    pub network: String,
    /// The network's id, hexadecimal.
    pub id: String,
    /// The authorities' keys, written as peer ids.
    pub authorities: Vec<String>,
}

/// A change of who may what, which its answer confirms. Who may ask for it may take the network over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum Change {
    /// [`Admission`].
    Admit {
        /// The node's peer id.
        id: String,
        /// What it will be called.
        name: Option<String>,
        /// The groups it will be in.
        groups: Vec<String>,
        /// Its address.
        address: Option<Ipv4Addr>,
    },
    /// [`Revoked`].
    Revoke {
        /// Name, address or peer id.
        node: String,
        /// Why.
        reason: String,
    },
    /// [`Restored`].
    Restore {
        /// The name it had, or its peer id.
        node: String,
    },
    /// [`Delegate`].
    Delegate {
        /// Name, address or peer id.
        node: String,
        /// What it may do.
        powers: Vec<String>,
        /// The groups it may give; every one without.
        groups: Option<Vec<String>>,
        /// For how many seconds.
        expires_s: u64,
        /// Who lends it.
        authority: AuthorityKey,
    },
    /// [`Undelegated`].
    Undelegate {
        /// Name, address or peer id.
        node: String,
        /// Who lent it.
        authority: AuthorityKey,
    },
    /// [`Rotated`].
    RotateWireguard,
}

/// The authority's secret key, in libp2p's encoding and base64, for as long as the daemon signs with it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthorityKey(Zeroizing<String>);

impl AuthorityKey {
    /// Wraps what [`expose`](Self::expose) returns.
    pub fn new(base64: Zeroizing<String>) -> Self {
        Self(base64)
    }

    /// The base64 text.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for AuthorityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuthorityKey")
    }
}

/// `admit --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admission {
    /// The string with which the node joins.
    pub admission: String,
    /// Its libp2p identity.
    pub peer_id: String,
    /// What it is called.
    pub name: String,
    /// The groups it is in.
    pub groups: Vec<String>,
    /// Its overlay address.
    pub ipv4: Ipv4Addr,
    /// Until when it may be used, in seconds since 1970.
    pub expires_at: u64,
}

/// A key that was revoked, in `nodes --revoked --json` and `revoke --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revoked {
    /// The name it had, as far as this node knows.
    pub name: Option<String>,
    /// Its libp2p identity.
    pub peer_id: String,
    /// When, in seconds since 1970.
    pub revoked_at: u64,
    /// By whom: a name, or a peer id.
    pub by: String,
    /// Why.
    pub reason: String,
    /// Whether it was taken back since.
    pub restored: bool,
}

/// `restore --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    /// What it is called.
    pub name: String,
    /// Its libp2p identity.
    pub peer_id: String,
}

/// A node that may act for the network, in `delegate list --json` and `delegate add --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delegate {
    /// Its name in the network.
    pub name: String,
    /// Its libp2p identity.
    pub peer_id: String,
    /// What it may do: `admit`, `invite`, `revoke`, `policy`, `update`.
    pub powers: Vec<String>,
    /// The groups it may give; every one if null.
    pub groups: Option<Vec<String>>,
    /// Until when, in seconds since 1970.
    pub expires_at: u64,
}

/// `delegate remove --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Undelegated {
    /// Its name in the network.
    pub name: String,
    /// Its libp2p identity.
    pub peer_id: String,
}

/// `rotate wg --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotated {
    /// The new public key, in base64 as WireGuard shows it.
    pub wireguard_key: String,
}
