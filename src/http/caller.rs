//! Who calls, and how the backend is told.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use hivevpn_core::membership::Name;
use hyper::{
    HeaderMap,
    header::{HeaderName, HeaderValue},
};
use libp2p::PeerId;

use crate::services::Snapshot;

const NAME: HeaderName = HeaderName::from_static("x-hive-name");
const PEER: HeaderName = HeaderName::from_static("x-hive-peer");
const GROUPS: HeaderName = HeaderName::from_static("x-hive-groups");
const NETWORK: HeaderName = HeaderName::from_static("x-hive-network");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// What starts so says who calls, and only we say that.
const RESERVED: &str = "x-hive-";
/// What else backends take for the address of whoever calls.
const ADDRESSES: [&str; 3] = ["forwarded", "x-forwarded-for", "x-real-ip"];

/// The member that sent a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Caller {
    pub peer: PeerId,
    /// What commands show.
    pub name: Name,
    /// The only name that may be trusted, if it has one.
    certified: Option<Name>,
    pub groups: BTreeSet<Name>,
    network: String,
    address: IpAddr,
    /// Whether it is this machine.
    pub this: bool,
}

impl Caller {
    /// Whoever has this address: the tunnel lets nobody else use it, and loopback is this machine.
    pub fn at(snapshot: &Snapshot, from: SocketAddr) -> Option<Self> {
        let address = from.ip().to_canonical();
        let member = match address.is_loopback() {
            true => snapshot.us()?,
            false => snapshot.member_at(address)?,
        };
        Some(Self {
            peer: member.peer_id,
            name: member.name.clone(),
            certified: member.certified.clone(),
            groups: member.groups.clone(),
            network: snapshot.network.clone(),
            address: match address.is_loopback() {
                true => member.address(),
                false => address,
            },
            this: member.this,
        })
    }

    /// Writes who calls into the headers of a request, each of ours exactly once; empty where there is nothing to say.
    pub fn introduce(&self, headers: &mut HeaderMap) {
        let groups: Vec<_> = self.groups.iter().map(Name::to_string).collect();
        let certified = self.certified.as_ref().map(Name::to_string);
        for (header, text) in [
            (NAME, certified.unwrap_or_default()),
            (PEER, self.peer.to_string()),
            (GROUPS, groups.join(",")),
            (NETWORK, self.network.clone()),
            (FORWARDED_FOR, self.address.to_string()),
        ] {
            // All of these are plain text; nothing is better than something else.
            let value = HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static(""));
            headers.insert(header, value);
        }
    }
}

/// Removes what claims to say who calls.
pub(super) fn remove_claims(headers: &mut HeaderMap) {
    let claims: Vec<_> = headers.keys().filter(|name| is_claim(name)).collect();
    for claim in claims.into_iter().cloned().collect::<Vec<_>>() {
        headers.remove(claim);
    }
}

/// Programs behind CGI and its heirs cannot tell `x_hive_name`, or `x.hive.name`, from `x-hive-name`.
fn is_claim(name: &HeaderName) -> bool {
    let is_sign = |c: char| !c.is_ascii_alphanumeric();
    let plain = name.as_str().replace(is_sign, "-");
    plain.starts_with(RESERVED) || ADDRESSES.contains(&plain.as_str())
}
