//! Answers to commands about membership: who is who, who may what, and changes of that.

use std::collections::{BTreeMap, BTreeSet};

use hivevpn_core::{
    membership::{Delegation, GroupGrant, Name, Powers},
    node::Now,
};
use libp2p::PeerId;

use super::{EventLoop, answers::unknown};
use crate::{
    commands::authority,
    control::{
        Reply,
        membership::{Authorities, Change, Delegate, Revoked, Whois},
    },
};

/// The powers there are, as people write them.
const POWERS: [(Powers, &str); 5] = [
    (Powers::ADMIT, "admit"),
    (Powers::INVITE, "invite"),
    (Powers::REVOKE, "revoke"),
    (Powers::POLICY, "policy"),
    (Powers::UPDATE, "update"),
];

impl EventLoop {
    pub(super) fn whois(&self, who: &str) -> Result<Whois, String> {
        let nobody = || match who.parse::<std::net::IpAddr>() {
            Ok(address) => format!("{address} belongs to no member of this network"),
            Err(_) => unknown(who),
        };
        let peer = self.node.resolve(who).ok_or_else(nobody)?;
        let members = self.node.members();
        let member = members.into_iter().find(|member| member.peer_id == peer);
        let member = member.ok_or_else(nobody)?;
        Ok(Whois {
            name: member.name.to_string(),
            peer_id: peer.to_string(),
            groups: names(&member.groups),
            ipv4: member.ipv4,
            ipv6: member.ipv6,
            this: peer == self.node.peer_id(),
        })
    }

    pub(super) fn authorities(&self) -> Authorities {
        authority::of(self.node.network())
    }

    /// What each node may do that may do anything.
    pub(super) fn powers(&self) -> BTreeMap<PeerId, Vec<String>> {
        BTreeMap::new()
    }

    pub(super) fn delegates(&self) -> Vec<Delegate> {
        Vec::new()
    }

    pub(super) fn revoked(&self) -> Vec<Revoked> {
        Vec::new()
    }

    pub(super) fn change(&mut self, _change: Change, _now: Now) -> Result<Reply, String> {
        Err("not yet".to_owned())
    }
}

/// The groups that were named.
pub(super) fn groups(texts: &[String]) -> Result<BTreeSet<Name>, String> {
    let parsed = texts.iter().map(|text| Name::parse(text));
    parsed
        .collect::<Result<_, _>>()
        .map_err(|error| error.to_string())
}

/// Their names, in order.
pub(super) fn names(groups: &BTreeSet<Name>) -> Vec<String> {
    groups.iter().map(ToString::to_string).collect()
}
