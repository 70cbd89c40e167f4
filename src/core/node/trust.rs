//! Expelling members, taking them back, and setting the policy: what a delegate does in the authority's place.

use libp2p_identity::PeerId;

use super::{Node, Now};
use crate::membership::{
    JoinRefusal, MemberRecord, Name, Notice, PolicyUpdate, Powers, Rejection, Revocation,
    SignerKey, UnixTime,
    notice::{Author, MAX_POLICY},
};

/// Why nobody was expelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CannotRevoke {
    /// This node's delegation does not include REVOKE, or it has none.
    #[error(
        "this node may not expel members: run the command on a node that may ('hivevpn delegates' lists them)"
    )]
    NotDelegated,
    /// It would be ourselves.
    #[error(
        "this node cannot expel itself: run the command on another node that may expel members"
    )]
    Ourselves,
    /// The member may act for the authority.
    #[error(
        "the node acts for the network's authority: end that first with 'hivevpn undelegate', then expel it"
    )]
    Delegate,
    /// All its certificates are void already.
    #[error("the node has been expelled already")]
    AlreadyExpelled,
    /// The peer id contains no ed25519 key.
    #[error(
        "this is not the id of a hivevpn node: 'hivevpn nodes' lists the members with their ids"
    )]
    NotANode,
    /// Every place for an expelled key is taken.
    #[error(
        "this node has expelled as many members as the network remembers of one: have another one do it"
    )]
    Full,
}

/// Why nobody was taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CannotRestore {
    /// This node's delegation does not include ADMIT, or it has none.
    #[error(
        "this node may not admit members: run the command on a node that may ('hivevpn delegates' lists them)"
    )]
    NotDelegated,
    /// It is a member.
    #[error("the node is a member: there is nothing to restore")]
    IsMember,
    /// Nothing is remembered of it.
    #[error(
        "this node remembers nothing of it: run 'hivevpn id' there, and 'hivevpn admit' with what it prints here"
    )]
    Forgotten,
    /// It cannot be admitted.
    #[error(transparent)]
    Refused(JoinRefusal),
    /// Its record breaks a rule.
    #[error("it cannot be restored: {0}")]
    Rejected(Rejection),
}

/// Why the policy stays as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CannotSetPolicy {
    /// This node's delegation does not include POLICY, or it has none.
    #[error(
        "this node may not set the policy: run the command on a node that may ('hivevpn delegates' lists them)"
    )]
    NotDelegated,
    /// The policy is too long.
    #[error("the policy is longer than {MAX_POLICY} bytes: say the same with fewer rules")]
    TooLarge,
    /// A delegate has used the highest version there is.
    #[error(
        "whoever set the policy last used the highest version there is: end its delegation with 'hivevpn undelegate', \
         then set the policy again"
    )]
    NoVersionLeft,
}

/// A key that was expelled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevokedStatus {
    /// Whose.
    pub peer_id: PeerId,
    /// What it was called, as far as that is remembered.
    pub name: Option<Name>,
    /// Up to this generation its certificates are void.
    pub generation: u32,
    /// When, as whoever did it says.
    pub revoked_at: UnixTime,
    /// Why, as whoever did it says.
    pub reason: String,
    /// The delegate that did it; none when it was an authority.
    pub by: Option<PeerId>,
    /// Whether it has been restored since, and is a member.
    pub is_restored: bool,
}

impl Node {
    /// Expels a node: its key, whether it is a member at the moment or not. Everybody who hears of it lets go of it
    /// at once, and never takes it back with a certificate that it may have had.
    pub fn revoke(&mut self, peer: &PeerId, reason: &str, now: Now) -> Result<(), CannotRevoke> {
        let unix = self.time.now(now.unix);
        let subject = SignerKey::of_peer(peer).map_err(|_| CannotRevoke::NotANode)?;
        let issuer = self.issuer.as_ref().ok_or(CannotRevoke::NotDelegated)?;
        let signing = issuer
            .signing(Powers::REVOKE, unix)
            .map_err(|_| CannotRevoke::NotDelegated)?;
        if *peer == self.peer_id() {
            return Err(CannotRevoke::Ourselves);
        }
        let notices = self.directory.notices();
        if notices.is_delegate(&subject) {
            return Err(CannotRevoke::Delegate);
        }
        let certificate = self.directory.last_certificate_of(&subject);
        let generation = certificate.map_or(0, |certificate| certificate.generation);
        if notices.is_revoked(&subject, generation) {
            return Err(CannotRevoke::AlreadyExpelled);
        }
        let revocation = Revocation {
            network: self.network.id(),
            subject,
            generation,
            revoked_at: unix,
            reason: reason.to_owned(),
        };
        let notice = Notice::revocation(revocation, signing).encode();
        match self.take_notices([notice.as_slice()], None, now) {
            true => Ok(()),
            false => Err(CannotRevoke::Full),
        }
    }

    /// Takes back a node that was expelled, or whose certificate ran out, as what it was. It fetches its new
    /// certificate by itself.
    pub fn restore(&mut self, peer: &PeerId, now: Now) -> Result<(), CannotRestore> {
        let unix = self.time.now(now.unix);
        if self.directory.get(peer).is_some() {
            return Err(CannotRestore::IsMember);
        }
        let issuer = self.issuer.as_ref().ok_or(CannotRestore::NotDelegated)?;
        issuer
            .signing(Powers::ADMIT, unix)
            .map_err(|_| CannotRestore::NotDelegated)?;
        let former = self.directory.former(peer).cloned();
        let former = former.ok_or(CannotRestore::Forgotten)?;
        let credential = issuer
            .readmit(&former.certificate, unix, &mut self.directory)
            .map_err(CannotRestore::Refused)?;
        let record = MemberRecord {
            credential,
            descriptor: former.record.descriptor,
        };
        self.admit(&record.encode(), None, now)
            .map_err(CannotRestore::Rejected)?;
        Ok(())
    }

    /// Every key that was expelled, in the order of their bytes.
    pub fn revoked(&self) -> Vec<RevokedStatus> {
        let all = self.directory.notices().revocations();
        all.map(|(revocation, author)| {
            let peer_id = revocation.subject.peer_id();
            let certificate = self.directory.last_certificate_of(&revocation.subject);
            RevokedStatus {
                peer_id,
                name: certificate.map(|certificate| certificate.name.clone()),
                generation: revocation.generation,
                revoked_at: revocation.revoked_at,
                reason: revocation.reason.clone(),
                by: delegate_of(author),
                is_restored: self.directory.get(&peer_id).is_some(),
            }
        })
        .collect()
    }

    /// Sets the network's policy. Returns its version.
    pub fn set_policy(&mut self, body: Vec<u8>, now: Now) -> Result<u64, CannotSetPolicy> {
        let unix = self.time.now(now.unix);
        let issuer = self.issuer.as_ref().ok_or(CannotSetPolicy::NotDelegated)?;
        let signing = issuer
            .signing(Powers::POLICY, unix)
            .map_err(|_| CannotSetPolicy::NotDelegated)?;
        if body.len() > MAX_POLICY {
            return Err(CannotSetPolicy::TooLarge);
        }
        let update = self
            .next_policy(body, unix)
            .ok_or(CannotSetPolicy::NoVersionLeft)?;
        let notice = Notice::policy(&update, signing).encode();
        self.take_notices([notice.as_slice()], None, now);
        Ok(update.version)
    }

    /// The policy in force: its version and its body.
    pub fn policy(&self) -> Option<(u64, &[u8])> {
        let (policy, _) = self.directory.notices().policy()?;
        Some((policy.version, &policy.body))
    }

    /// An update that takes the place of the policy in force.
    pub(super) fn next_policy(&self, body: Vec<u8>, unix: UnixTime) -> Option<PolicyUpdate> {
        let (version, previous) = match self.directory.notices().policy() {
            Some((policy, _)) => (policy.version.checked_add(1)?, policy.hash()),
            None => (1, [0; 32]),
        };
        Some(PolicyUpdate {
            network: self.network.id(),
            version,
            previous,
            body,
            set_at: unix,
        })
    }
}

fn delegate_of(author: Author) -> Option<PeerId> {
    match author {
        Author::Authority => None,
        Author::Delegate { delegate, .. } => Some(delegate.peer_id()),
    }
}
