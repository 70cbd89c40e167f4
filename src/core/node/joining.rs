//! How others join through this node: making invites, deciding about requests.

use std::{
    collections::BTreeSet,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use libp2p_core::Multiaddr;
use libp2p_identity::PeerId;
use zeroize::Zeroizing;

use super::{Node, Now};
use crate::{
    membership::{
        Applicant, GroupGrant, Invite, JoinAnswer, JoinMessage, JoinRefusal, JoinRequest, Name,
        Offer, Rejection, SignerKey,
    },
    output::{Output, RequestId},
};

/// Requests to join that are looked at in a second; each costs a few signature checks, about 0.5 ms.
const JOINS_PER_SECOND: u32 = 20;

/// What an invite should say.
#[derive(Debug, Clone)]
pub struct InviteRequest {
    /// Name for whoever joins; its own choice without.
    pub name: Option<Name>,
    /// The groups that whoever joins will be in.
    pub groups: BTreeSet<Name>,
    /// Address for whoever joins; its own choice without.
    pub ipv4: Option<Ipv4Addr>,
    /// How long it is good for.
    pub lifetime: Duration,
}

/// Why there is no invite.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoInvite {
    /// Only nodes with a delegation may.
    #[error("this node may not invite: run 'hivevpn invite' on the node that founded the network")]
    NotDelegated,
    /// Its delegation names other groups.
    #[error("the invite cannot be made: this node may put members into {0}")]
    GroupNotGranted(GroupGrant),
    /// What was asked for breaks a rule.
    #[error("the invite cannot be made: {0}")]
    Rejected(#[from] Rejection),
}

/// Why nobody was admitted by hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CannotAdmit {
    /// This node's delegation does not include ADMIT or one of the groups, or it has none.
    #[error(
        "this node may not admit members, or not into these groups: run the command on a node that may \
         ('hivevpn delegates' lists them)"
    )]
    NotDelegated,
    /// The node cannot be what it was to be.
    #[error(transparent)]
    Refused(JoinRefusal),
}

/// Counts requests to join in the current second.
#[derive(Debug, Default)]
pub(super) struct JoinLimit {
    second: Option<Instant>,
    count: u32,
}

impl JoinLimit {
    fn admits(&mut self, now: Instant) -> bool {
        if self
            .second
            .is_none_or(|start| now >= start + Duration::from_secs(1))
        {
            self.second = Some(now);
            self.count = 0;
        }
        self.count += 1;
        self.count <= JOINS_PER_SECOND
    }
}

impl Node {
    /// Makes an invite. `secret` is fresh randomness; `addresses` is where the joining node will find us.
    pub fn invite(
        &mut self,
        request: InviteRequest,
        addresses: Vec<Multiaddr>,
        secret: Zeroizing<[u8; 32]>,
        now: Now,
    ) -> Result<Invite, NoInvite> {
        let unix = self.time.now(now.unix);
        let issuer = self.issuer.as_ref().ok_or(NoInvite::NotDelegated)?;
        let granted = &issuer.delegation().groups;
        if !granted.covers(&request.groups) {
            return Err(NoInvite::GroupNotGranted(granted.clone()));
        }
        let offer = Offer {
            name: request.name,
            groups: request.groups,
            ipv4: request.ipv4,
            expires: unix.plus(request.lifetime),
            addresses,
        };
        Ok(issuer.invite(offer, secret, unix)?)
    }

    /// A stranger asks to join.
    pub fn handle_join_request(&mut self, request: RequestId, peer: PeerId, body: &[u8], now: Now) {
        let decided = if !self.joins.admits(now.instant) {
            Err(JoinRefusal::RateLimited)
        } else {
            match JoinMessage::decode(body) {
                Ok(JoinMessage::Invite(asked)) => self.decide_join(request, peer, &asked, now),
                Ok(JoinMessage::Renewal) => {
                    let answer = self.answer_renewal(&peer, now);
                    answer.map(|answer| Output::Respond {
                        request,
                        body: answer.encode().to_vec(),
                    })
                }
                Err(_) => Err(JoinRefusal::Malformed),
            }
        };
        match decided {
            Ok(output) => self.outputs.push_back(output),
            Err(refusal) => {
                tracing::info!(%peer, reason = refusal.code(), "a request to join is refused");
                let body = JoinAnswer::Refused(refusal).encode().to_vec();
                self.outputs.push_back(Output::Respond { request, body });
            }
        }
    }

    fn decide_join(
        &mut self,
        request: RequestId,
        peer: PeerId,
        body: &[u8],
        now: Now,
    ) -> Result<Output, JoinRefusal> {
        let unix = self.time.now(now.unix);
        let asked = JoinRequest::open(body, &peer)?;
        let issuer = self.issuer.as_ref().ok_or(JoinRefusal::UnknownInvite)?;
        let redeemed = self.redemptions.get(&asked.invite_id());
        let is_first = redeemed.is_none();
        let redemption = issuer.decide(&asked, unix, &mut self.directory, redeemed)?;
        let us = self.signer.peer_id();
        let admission = JoinAnswer::admitted(
            &self.network,
            redemption.credential.clone(),
            &us,
            &self.directory,
        );
        let body = admission.encode().to_vec();
        if !is_first {
            return Ok(Output::Respond { request, body });
        }
        tracing::info!(%peer, "admitted by invite");
        self.redemptions
            .insert(redemption.invite, redemption.clone());
        Ok(Output::Redeem {
            request,
            invite: *redemption.invite.as_bytes(),
            redemption: redemption.encode(),
            accepted: body,
            refused: JoinAnswer::Refused(JoinRefusal::Unavailable)
                .encode()
                .to_vec(),
        })
    }

    /// Admits a node without an invite: its key was brought here by a trusted hand, and the answer is brought back by
    /// one. It holds all that the node needs, the network's secret included.
    pub fn admit_applicant(
        &mut self,
        key: SignerKey,
        name: Name,
        groups: BTreeSet<Name>,
        ipv4: Option<Ipv4Addr>,
        now: Now,
    ) -> Result<Zeroizing<Vec<u8>>, CannotAdmit> {
        let unix = self.time.now(now.unix);
        let issuer = self.issuer.as_ref().ok_or(CannotAdmit::NotDelegated)?;
        let applicant = Applicant {
            key,
            name,
            groups,
            ipv4,
        };
        let credential = issuer
            .admit(applicant, unix, &mut self.directory)
            .map_err(|refusal| match refusal {
                JoinRefusal::IssuerMayNotAdmit => CannotAdmit::NotDelegated,
                refusal => CannotAdmit::Refused(refusal),
            })?;
        tracing::info!(peer = %key, "admitted by hand");
        let us = self.signer.peer_id();
        let admission = JoinAnswer::admitted(&self.network, credential, &us, &self.directory);
        Ok(admission.encode())
    }

    /// The disk did not take the redemption: the invite is as good as before.
    pub fn handle_redeem_failed(&mut self, invite: [u8; 32]) {
        if let Ok(invite) = SignerKey::from_bytes(invite) {
            self.redemptions.remove(&invite);
        }
    }
}
