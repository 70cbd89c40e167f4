//! Answers to commands about membership: who is who, who may what, and changes of that.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use hivevpn_core::{
    membership::{Bundle, GroupGrant, Name, Powers, Signer, SignerKey, UnixTime},
    node::{
        CannotAdmit, CannotRestore, CannotRevoke, CannotUndelegate, DelegateStatus, NoInvite, Now,
        RevokedStatus, Standing,
    },
    session,
};
use libp2p::{PeerId, identity::Keypair};
use zeroize::Zeroizing;

use super::{EventLoop, answers::unknown};
use crate::{
    control::{
        Reply,
        membership::{
            Admission, Authorities, AuthorityKey, Change, Delegate, Expulsion, Restored, Revoked,
            Rotated, Undelegated, Whois,
        },
    },
    identity,
};

/// The powers there are, as people write them.
const POWERS: [(Powers, &str); 5] = [
    (Powers::ADMIT, "admit"),
    (Powers::INVITE, "invite"),
    (Powers::REVOKE, "revoke"),
    (Powers::POLICY, "policy"),
    (Powers::UPDATE, "update"),
];

/// Digits of a key that tell nodes without a name apart.
const KEY_DIGITS: usize = 6;

impl EventLoop {
    // ---- who is who --------------------------------------------------------------------------------------

    pub(super) fn whois(&self, who: &str) -> Result<Whois, String> {
        let nobody = || match who.parse::<IpAddr>() {
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
        Authorities::of(self.node.network())
    }

    /// Whether the others take us for a member, in a word, and what there is to say if we were expelled.
    pub(super) fn standing(&self) -> (&'static str, Option<Expulsion>) {
        match self.node.standing() {
            Standing::Member => ("member", None),
            Standing::Lapsed => ("lapsed", None),
            Standing::Unsupported => ("unsupported", None),
            Standing::Expelled { at, reason } => (
                "expelled",
                Some(Expulsion {
                    at: at.0,
                    reason: reason.clone(),
                }),
            ),
        }
    }

    // ---- who may what ------------------------------------------------------------------------------------

    /// Those whose delegation is valid.
    fn acting(&self) -> impl Iterator<Item = DelegateStatus> {
        let now = super::now().unix.max(self.node.time_floor());
        self.node
            .delegates()
            .into_iter()
            .filter(move |delegate| !delegate.has_ended && delegate.not_after >= now)
    }

    /// What each node may do that may do anything.
    pub(super) fn powers(&self) -> BTreeMap<PeerId, Vec<String>> {
        self.acting()
            .map(|delegate| (delegate.peer_id, words(delegate.powers)))
            .collect()
    }

    pub(super) fn delegates(&self) -> Vec<Delegate> {
        self.acting().map(|status| self.delegate(status)).collect()
    }

    fn delegate(&self, status: DelegateStatus) -> Delegate {
        Delegate {
            name: self.node.name_of(&status.peer_id).to_string(),
            peer_id: status.peer_id.to_string(),
            powers: words(status.powers),
            groups: match &status.groups {
                GroupGrant::Any => None,
                GroupGrant::Only(groups) => Some(names(groups)),
            },
            expires_at: status.not_after.0,
        }
    }

    /// "this node may not …", and who may.
    fn may_not(&self, what: &str, power: Powers) -> String {
        let who: Vec<_> = self
            .acting()
            .filter(|delegate| delegate.powers.include(power))
            .map(|delegate| self.node.name_of(&delegate.peer_id).to_string())
            .collect();
        let who = match who.as_slice() {
            [] => "nobody at present may; 'hivevpn delegate add' lends the power".to_owned(),
            [one] => format!("run the command on {one}"),
            [_, _, ..] => format!("run the command on one of {}", who.join(", ")),
        };
        format!("this node may not {what}: {who}")
    }

    pub(super) fn no_invite(&self, why: &NoInvite) -> String {
        match why {
            NoInvite::NotDelegated => self.may_not("invite", Powers::INVITE | Powers::ADMIT),
            NoInvite::GroupNotGranted(_) | NoInvite::Rejected(_) => why.to_string(),
        }
    }

    // ---- changes -----------------------------------------------------------------------------------------

    /// Makes a change, and says in the log that it was asked for here.
    pub(super) fn change(&mut self, change: Change, now: Now) -> Result<Reply, String> {
        match change {
            Change::Admit {
                id,
                name,
                groups,
                address,
            } => self.admit(&id, name, &groups, address, now),
            Change::Revoke { node, reason } => self.revoke(&node, &reason, now),
            Change::Restore { node } => self.restore(&node, now),
            Change::Delegate {
                node,
                powers,
                groups: granted,
                expires_s,
                authority,
            } => {
                let grant = match granted {
                    None => GroupGrant::Any,
                    Some(granted) => GroupGrant::Only(groups(&granted)?),
                };
                let powers = parse_powers(&powers)?;
                let lifetime = Duration::from_secs(expires_s);
                self.lend(&node, powers, grant, lifetime, &authority, now)
            }
            Change::Undelegate { node, authority } => self.take_back(&node, &authority, now),
            Change::RotateWireguard => self.rotate_wireguard(now),
        }
    }

    fn admit(
        &mut self,
        id: &str,
        name: Option<String>,
        wanted: &[String],
        ipv4: Option<Ipv4Addr>,
        now: Now,
    ) -> Result<Reply, String> {
        let peer: PeerId = id.parse().map_err(|_| format!("'{id}' is no peer id"))?;
        let key = SignerKey::of_peer(&peer).map_err(|error| error.to_string())?;
        let name = match name {
            Some(name) => Name::parse(&name).map_err(|error| error.to_string())?,
            None => nameless(&key).ok_or("the key has no digits")?,
        };
        let groups = groups(wanted)?;
        if let Some(delegation) = self.node.delegation()
            && !delegation.groups.covers(&groups)
        {
            return Err(format!(
                "the node is not admitted: this node may put members into {}",
                delegation.groups
            ));
        }
        let admitted = self.node.admit_applicant(key, name, groups, ipv4, now);
        let answer = admitted.map_err(|why| match why {
            CannotAdmit::NotDelegated => self.may_not("admit members", Powers::ADMIT),
            CannotAdmit::Refused(refusal) => refusal.to_string(),
        })?;
        let bundle = Bundle::of_answer(&answer).map_err(|error| error.to_string())?;
        let certificate = bundle.certificate();
        Ok(Reply::of(&Admission {
            admission: bundle.to_printable().to_string(),
            peer_id: peer.to_string(),
            name: certificate.name.to_string(),
            groups: names(&certificate.groups),
            ipv4: certificate.ipv4,
            expires_at: certificate.not_after.0,
        }))
    }

    fn revoke(&mut self, node: &str, reason: &str, now: Now) -> Result<Reply, String> {
        // A key that is no member, a lost laptop's of last year say, can be revoked by its id.
        let peer = self.node.resolve(node).or_else(|| node.parse().ok());
        let peer = peer.ok_or_else(|| unknown(node))?;
        self.node
            .revoke(&peer, reason, now)
            .map_err(|why| match why {
                CannotRevoke::NotDelegated => self.may_not("expel members", Powers::REVOKE),
                CannotRevoke::Ourselves
                | CannotRevoke::Delegate
                | CannotRevoke::AlreadyExpelled
                | CannotRevoke::NotANode
                | CannotRevoke::Full => why.to_string(),
            })?;
        let mut all = self.node.revoked().into_iter();
        let status = all.find(|revoked| revoked.peer_id == peer);
        let status = status.ok_or("the revocation was not kept")?;
        Ok(Reply::of(&self.revoked_key(status)))
    }

    fn restore(&mut self, node: &str, now: Now) -> Result<Reply, String> {
        let is_meant = |revoked: &RevokedStatus| {
            let name = revoked.name.as_ref().map(Name::as_str);
            !revoked.is_restored && (name == Some(node) || revoked.peer_id.to_string() == node)
        };
        let meant: Vec<_> = self.node.revoked().into_iter().filter(is_meant).collect();
        let peer = match meant.as_slice() {
            [one] => one.peer_id,
            [] => self
                .node
                .resolve(node)
                .or_else(|| node.parse().ok())
                .ok_or_else(|| {
                    format!(
                        "no revoked node was called {node}: 'hivevpn nodes --revoked' lists them"
                    )
                })?,
            [_, _, ..] => {
                return Err(format!(
                    "several revoked nodes were called {node}: name one by its peer id ('hivevpn nodes --revoked')"
                ));
            }
        };
        self.node.restore(&peer, now).map_err(|why| match why {
            CannotRestore::NotDelegated => self.may_not("admit members", Powers::ADMIT),
            CannotRestore::IsMember
            | CannotRestore::Forgotten
            | CannotRestore::Refused(_)
            | CannotRestore::Rejected(_) => why.to_string(),
        })?;
        Ok(Reply::of(&Restored {
            name: self.node.name_of(&peer).to_string(),
            peer_id: peer.to_string(),
        }))
    }

    fn lend(
        &mut self,
        node: &str,
        powers: Powers,
        groups: GroupGrant,
        lifetime: Duration,
        authority: &AuthorityKey,
        now: Now,
    ) -> Result<Reply, String> {
        let peer = self.node.resolve(node).ok_or_else(|| unknown(node))?;
        let authority = signer(authority)?;
        let not_after: UnixTime = now.unix.max(self.node.time_floor()).plus(lifetime);
        self.node
            .delegate(&authority, &peer, powers, groups, not_after, now)
            .map_err(|error| error.to_string())?;
        let mut acting = self.acting();
        let status = acting.find(|delegate| delegate.peer_id == peer);
        let status = status.ok_or("the delegation was not kept")?;
        Ok(Reply::of(&self.delegate(status)))
    }

    fn take_back(
        &mut self,
        node: &str,
        authority: &AuthorityKey,
        now: Now,
    ) -> Result<Reply, String> {
        let peer = self.node.resolve(node).or_else(|| node.parse().ok());
        let peer = peer.ok_or_else(|| unknown(node))?;
        let name = self.node.name_of(&peer).to_string();
        let done = self.node.undelegate(&signer(authority)?, &peer, now);
        let done = done.map_err(|why| match why {
            CannotUndelegate::CannotReissue => format!(
                "the members that {name} admitted would be cut off: {}",
                self.may_not("admit members", Powers::ADMIT)
            ),
            CannotUndelegate::NotAnAuthority
            | CannotUndelegate::NotADelegate
            | CannotUndelegate::Ourselves
            | CannotUndelegate::Full => why.to_string(),
        })?;
        let called = |peers: &[PeerId]| -> Vec<String> {
            let name = |peer| self.node.name_of(peer).to_string();
            peers.iter().map(name).collect()
        };
        Ok(Reply::of(&Undelegated {
            reissued: called(&done.reissued),
            left_out: called(&done.left_out),
            name,
            peer_id: peer.to_string(),
        }))
    }

    fn rotate_wireguard(&mut self, now: Now) -> Result<Reply, String> {
        let secret = identity::random_bytes();
        // Who has the new descriptor cannot reach us by the old key: it is on the disk first.
        identity::replace_wireguard(&self.state, &secret).map_err(|error| format!("{error:#}"))?;
        let wireguard = session::Identity::new(*secret);
        let wireguard_key = BASE64.encode(wireguard.public().0);
        self.node.rotate_wireguard(wireguard, now);
        tracing::info!(%wireguard_key, "another WireGuard key");
        Ok(Reply::of(&Rotated { wireguard_key }))
    }

    pub(super) fn revoked(&self) -> Vec<Revoked> {
        let all = self.node.revoked().into_iter();
        all.map(|status| self.revoked_key(status)).collect()
    }

    fn revoked_key(&self, status: RevokedStatus) -> Revoked {
        let by = status.by.map(|by| self.node.name_of(&by).to_string());
        Revoked {
            name: status.name.as_ref().map(ToString::to_string),
            peer_id: status.peer_id.to_string(),
            revoked_at: status.revoked_at.0,
            by: by.unwrap_or_else(|| "authority".to_owned()),
            reason: status.reason,
            restored: status.is_restored,
        }
    }
}

fn signer(key: &AuthorityKey) -> Result<Signer, String> {
    let decoded = BASE64.decode(key.expose()).map(Zeroizing::new);
    let keypair = decoded
        .ok()
        .and_then(|bytes| Keypair::from_protobuf_encoding(&bytes).ok())
        .ok_or("the authority's key is damaged")?;
    Signer::new(keypair).map_err(|error| error.to_string())
}

/// A name for a node that nobody has named.
fn nameless(key: &SignerKey) -> Option<Name> {
    let digits: String = key.as_bytes().iter().map(|b| format!("{b:02x}")).collect();
    Name::sanitised(&format!("node-{}", digits.get(..KEY_DIGITS)?))
}

fn words(powers: Powers) -> Vec<String> {
    POWERS
        .iter()
        .filter(|(power, _)| powers.include(*power))
        .map(|(_, word)| (*word).to_owned())
        .collect()
}

fn parse_powers(texts: &[String]) -> Result<Powers, String> {
    texts.iter().try_fold(Powers::NONE, |sum, text| {
        let known = POWERS.iter().find(|(_, word)| word == text);
        let (power, _) = known.ok_or_else(|| format!("there is no power '{text}'"))?;
        Ok(sum | *power)
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_survive_being_written_as_words() {
        assert_eq!(parse_powers(&words(Powers::ALL)), Ok(Powers::ALL));
        let some = Powers::ADMIT | Powers::REVOKE;
        assert_eq!(words(some), ["admit", "revoke"]);
        assert_eq!(parse_powers(&words(some)), Ok(some));
        assert!(parse_powers(&["fly".to_owned()]).is_err());
    }
}
