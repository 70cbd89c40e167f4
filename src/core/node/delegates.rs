//! Who acts for the network's authority: lending its powers, and taking them back. Both need the authority's key, which
//! may lie on a machine that is no node at all; it is brought here for the moment.

use libp2p_identity::PeerId;

use super::{Node, Now};
use crate::membership::{
    Delegation, DelegationEnd, GroupGrant, MemberRecord, Name, Notice, PolicyUpdate, Powers,
    Rejection, Signer, SignerKey, UnixTime,
    notice::{Author, Signing},
    record::Member,
    time::CLOCK_SKEW,
};

/// Why no powers were lent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CannotDelegate {
    /// The key is no authority's.
    #[error(
        "this is not the key of an authority of this network: its founder has it, in 'authority.key'"
    )]
    NotAnAuthority,
    /// Powers are lent to members.
    #[error("the node is no member: 'hivevpn nodes' lists the members")]
    NotAMember,
    /// It has some already.
    #[error(
        "the node acts for the network's authority already: end that first with 'hivevpn undelegate'"
    )]
    AlreadyDelegated,
    /// None were asked for.
    #[error("no power is given: name at least one")]
    NoPowers,
    /// They would be over before they begin.
    #[error("the delegation would end before it begins: give a later end")]
    Over,
    /// It is not taken.
    #[error("the delegation is not taken: {0}")]
    Rejected(Rejection),
}

/// Why no powers were taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CannotUndelegate {
    /// The key is no authority's.
    #[error(
        "this is not the key of an authority of this network: its founder has it, in 'authority.key'"
    )]
    NotAnAuthority,
    /// It has none.
    #[error(
        "the node does not act for the network's authority: 'hivevpn delegates' lists who does"
    )]
    NotADelegate,
    /// It would be our own delegation.
    #[error(
        "this node would take its own powers away, and nobody could renew the members that it admitted: run the \
         command on another node that may admit members"
    )]
    Ourselves,
    /// We could not renew the certificates that rest on it.
    #[error(
        "this node may not admit members, so the members that the delegate admitted would be cut off: run the command \
         on a node that may ('hivevpn delegates' lists them)"
    )]
    CannotReissue,
}

/// Somebody who acts for the authority, or did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DelegateStatus {
    /// Who.
    pub peer_id: PeerId,
    /// What it is called, if it is a member.
    pub name: Option<Name>,
    /// What it may do.
    pub powers: Powers,
    /// The groups it may give.
    pub groups: GroupGrant,
    /// From when on.
    pub not_before: UnixTime,
    /// Until when.
    pub not_after: UnixTime,
    /// Whether an authority has taken them back.
    pub has_ended: bool,
}

/// What taking a delegate's powers back has led to. All of it was the delegate's work, which is to be looked at if its
/// key was stolen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Undelegated {
    /// The members whose certificates rested on it and were issued anew by this node.
    pub reissued: Vec<PeerId>,
    /// Those for whom this node could not do that: they are no members any more.
    pub left_out: Vec<PeerId>,
    /// Whom the delegate had expelled: they stay so, on the authority's word now.
    pub expelled: Vec<PeerId>,
    /// Whether it had set the policy in force: that stays, on the authority's word now.
    pub policy: bool,
}

impl Node {
    /// Every delegation that is known, the ended ones included.
    pub fn delegates(&self) -> Vec<DelegateStatus> {
        let delegations = self.directory.notices().delegations();
        let mut all: Vec<_> = delegations
            .map(|(delegation, _, has_ended)| {
                let peer_id = delegation.delegate.peer_id();
                DelegateStatus {
                    peer_id,
                    name: self.directory.name_of(&peer_id),
                    powers: delegation.powers,
                    groups: delegation.groups.clone(),
                    not_before: delegation.not_before,
                    not_after: delegation.not_after,
                    has_ended,
                }
            })
            .collect();
        all.sort_by_key(|delegate| (delegate.has_ended, delegate.not_before, delegate.peer_id));
        all
    }

    /// What this node may do for the authority.
    pub fn delegation(&self) -> Option<&Delegation> {
        Some(self.issuer.as_ref()?.delegation())
    }

    /// Lends powers of the authority to a member, until `not_after`. It learns so by itself.
    pub fn delegate(
        &mut self,
        authority: &Signer,
        to: &PeerId,
        powers: Powers,
        groups: GroupGrant,
        not_after: UnixTime,
        now: Now,
    ) -> Result<(), CannotDelegate> {
        let unix = self.time.now(now.unix);
        if !self.network.genesis().has_authority(&authority.key()) {
            return Err(CannotDelegate::NotAnAuthority);
        }
        let member = self.directory.get(to).ok_or(CannotDelegate::NotAMember)?;
        let delegate = member.certificate.subject;
        let notices = self.directory.notices();
        if notices.is_delegate(&delegate) {
            return Err(CannotDelegate::AlreadyDelegated);
        }
        if powers == Powers::NONE {
            return Err(CannotDelegate::NoPowers);
        }
        // What has been ended once does not come back with this one.
        let after_end = notices
            .ended_until(&delegate)
            .map(|until| UnixTime(until.0.saturating_add(1)));
        let not_before = unix.minus(CLOCK_SKEW).max(after_end.unwrap_or(UnixTime(0)));
        if not_after <= unix.max(not_before) {
            return Err(CannotDelegate::Over);
        }
        let delegation = Delegation {
            network: self.network.id(),
            delegate,
            powers,
            groups,
            not_before,
            not_after,
        };
        let notice = Notice::Delegation(delegation.seal(authority)).encode();
        match self.take_notices([notice.as_slice()], None, now) {
            true => Ok(()),
            false => Err(CannotDelegate::Rejected(Rejection::DirectoryFull)),
        }
    }

    /// Takes a delegate's powers back: nothing that rests on them counts any more, whenever it was signed. In the same
    /// step this node issues the certificates that rested on them anew, on its own delegation, and has the authority
    /// repeat the delegate's expulsions and policy: so ending a delegation that served well changes nothing else.
    pub fn undelegate(
        &mut self,
        authority: &Signer,
        delegate: &PeerId,
        now: Now,
    ) -> Result<Undelegated, CannotUndelegate> {
        let unix = self.time.now(now.unix);
        if !self.network.genesis().has_authority(&authority.key()) {
            return Err(CannotUndelegate::NotAnAuthority);
        }
        let key = SignerKey::of_peer(delegate).map_err(|_| CannotUndelegate::NotADelegate)?;
        let notices = self.directory.notices();
        let (newest, _) = notices
            .delegation_of(&key)
            .ok_or(CannotUndelegate::NotADelegate)?;
        if *delegate == self.peer_id() {
            return Err(CannotUndelegate::Ourselves);
        }
        let issuer = self
            .issuer
            .as_ref()
            .ok_or(CannotUndelegate::CannotReissue)?;
        issuer
            .signing(Powers::ADMIT, unix)
            .map_err(|_| CannotUndelegate::CannotReissue)?;

        let until = newest.not_before.max(unix.minus(CLOCK_SKEW));
        let rests_on_it = |member: &&Member| {
            member.delegation.delegate == key && member.delegation.not_before <= until
        };
        let resting: Vec<Member> = self
            .directory
            .members()
            .filter(rests_on_it)
            .cloned()
            .collect();
        let repeated = self.repeat_by_authority(&key, authority, unix);

        // First the new certificates, so that no tunnel ends; once more afterwards, for whom the delegate had numbered a
        // certificate higher than any that we could.
        self.reissue(&resting, now);
        let end = DelegationEnd {
            network: self.network.id(),
            delegate: key,
            until,
        };
        let mut notices = vec![Notice::end(&end, authority).encode()];
        notices.extend(repeated.notices);
        self.take_notices(notices.iter().map(Vec::as_slice), None, now);
        let missing = |member: &Member| self.directory.get(&member.peer_id).is_none();
        let missing: Vec<Member> = resting.iter().filter(|m| missing(m)).cloned().collect();
        self.reissue(&missing, now);

        let (reissued, left_out) = resting
            .iter()
            .map(|member| member.peer_id)
            .partition(|peer| self.directory.get(peer).is_some());
        Ok(Undelegated {
            reissued,
            left_out,
            expelled: repeated.expelled,
            policy: repeated.policy,
        })
    }

    fn reissue(&mut self, members: &[Member], now: Now) {
        let unix = self.time.now(now.unix);
        for member in members {
            let Some(issuer) = &self.issuer else { return };
            let admitted = issuer
                .reissue(&member.certificate, unix)
                .map(|credential| MemberRecord {
                    credential,
                    descriptor: member.record.descriptor.clone(),
                })
                .and_then(|record| self.admit(&record.encode(), None, now));
            if let Err(reason) = admitted {
                tracing::warn!(peer = %member.peer_id, %reason, "a certificate cannot be issued anew");
            }
        }
    }

    /// What a delegate has said and still counts, signed by the authority.
    fn repeat_by_authority(
        &self,
        delegate: &SignerKey,
        authority: &Signer,
        unix: UnixTime,
    ) -> Repeated {
        let by_it = |author: &Author| matches!(author, Author::Delegate { delegate: author, .. } if author == delegate);
        let notices = self.directory.notices();
        let signing = Signing::Authority(authority);
        let mut repeated = Repeated::default();
        for (revocation, _) in notices.revocations().filter(|(_, author)| by_it(author)) {
            let notice = Notice::revocation(revocation.clone(), signing);
            repeated.notices.push(notice.encode());
            repeated.expelled.push(revocation.subject.peer_id());
        }
        if let Some((policy, author)) = notices.policy()
            && by_it(&author)
        {
            // A version that nobody could follow is no reason to keep it.
            let again = PolicyUpdate {
                version: policy.version.min(u64::MAX / 2),
                ..policy.clone()
            };
            let update = self.next_policy(policy.body.clone(), unix).unwrap_or(again);
            repeated
                .notices
                .push(Notice::policy(&update, signing).encode());
            repeated.policy = true;
        }
        repeated
    }
}

/// A delegate's word, given again by the authority.
#[derive(Default)]
struct Repeated {
    notices: Vec<Vec<u8>>,
    expelled: Vec<PeerId>,
    policy: bool,
}
