//! What the node does about notices: taking them in, passing them on, and acting on what they amount to.

use libp2p_identity::PeerId;

use super::{Node, Now, Standing};
use crate::{
    membership::{Issuer, Notice, Rejection, SyncMessage, directory::Departed},
    output::Output,
};

impl Node {
    /// What an earlier run knew, before anybody is told anything.
    pub(super) fn restore_notices(
        &mut self,
        notices: Vec<Vec<u8>>,
        delegation: Option<Vec<u8>>,
        now: Now,
    ) -> Result<(), Rejection> {
        for notice in &notices {
            let not_kept = match self.directory.take_notice(notice) {
                Ok(taken) if taken.is_new => taken.dropped,
                Ok(taken) => vec![taken.id],
                Err(reason) => {
                    tracing::warn!(%reason, "a stored notice is not taken");
                    continue;
                }
            };
            self.outputs
                .extend(not_kept.into_iter().map(Output::ForgetNotice));
        }
        if let Some(delegation) = delegation {
            // It must be ours, and by an authority.
            let genesis = self.network.genesis().clone();
            Issuer::new(self.signer.clone(), delegation.clone(), genesis)?;
            let notice = Notice::Delegation(delegation).encode();
            self.directory.take_notice(&notice)?;
        }
        self.settle(now);
        self.enforce_policy();
        self.tell_policy(None);
        Ok(())
    }

    /// Takes in notices, whoever delivered them, and acts on what is new. Returns whether anything was.
    pub(super) fn take_notices<'a>(
        &mut self,
        notices: impl IntoIterator<Item = &'a [u8]>,
        from: Option<PeerId>,
        now: Now,
    ) -> bool {
        self.take_notices_with(notices, from, now, |_| {})
    }

    /// Takes in notices and the records that came with them. The records may hold what takes the place of something
    /// that the notices void, our own certificate for example: they are all in before anything is done about it.
    pub(super) fn take_notices_with<'a>(
        &mut self,
        notices: impl IntoIterator<Item = &'a [u8]>,
        from: Option<PeerId>,
        now: Now,
        admit_records: impl FnOnce(&mut Self),
    ) -> bool {
        let policy = self.policy_hash();
        let is_news = self.learn_notices(notices, from, now);
        admit_records(self);
        if is_news {
            self.settle(now);
            self.tell_policy(policy);
        }
        is_news
    }

    /// Keeps what is new, and passes it on.
    fn learn_notices<'a>(
        &mut self,
        notices: impl IntoIterator<Item = &'a [u8]>,
        from: Option<PeerId>,
        now: Now,
    ) -> bool {
        let mut news = Vec::new();
        for notice in notices {
            if from.is_some_and(|peer| !self.works_for(peer, 1, now)) {
                tracing::debug!(peer = ?from, "it sends more than it may: the rest is not read");
                break;
            }
            let taken = match self.directory.take_notice(notice) {
                Ok(taken) if taken.is_new => taken,
                Ok(_) => continue,
                Err(reason) => {
                    tracing::debug!(peer = ?from, %reason, "a notice is not taken");
                    self.rejections.count(&reason);
                    continue;
                }
            };
            if let Some(reason) = taken.void {
                tracing::warn!(peer = ?from, %reason, "a notice has no effect");
            }
            news.push(notice.to_vec());
            self.outputs.push_back(Output::SaveNotice {
                id: taken.id,
                notice: notice.to_vec(),
            });
            self.outputs
                .extend(taken.dropped.into_iter().map(Output::ForgetNotice));
        }
        if !news.is_empty() {
            // Before the connections of those end whom it concerns: they learn it as well.
            self.announce(SyncMessage::notices(&news), None, from);
        }
        !news.is_empty()
    }

    /// Acts on what all the notices amount to.
    fn settle(&mut self, now: Now) {
        let unix = self.time.now(now.unix);
        let departed = self.directory.enforce(unix);
        for peer in &departed.gone {
            let name = self
                .directory
                .former(peer)
                .map(|member| &member.certificate.name);
            tracing::info!(%peer, ?name, "no member any more: expelled, or its admission was taken back");
        }
        self.let_go(departed, now);
        self.judge_ourselves(now);
        self.refresh_issuer();
        self.renew_ourselves(now);
    }

    /// Ends the tunnels and connections of members that are none any more.
    pub(super) fn let_go(&mut self, departed: Departed, now: Now) {
        let us = self.peer_id();
        for peer in departed.gone.iter().filter(|peer| **peer != us) {
            self.identify(peer);
            self.tunnels.remove(peer);
            self.outputs.extend(self.connections.unwant(peer));
            self.resync.remove(peer);
            self.registry.part_with(peer, now.instant);
            self.outputs.push_back(Output::Departed(*peer));
        }
        for peer in &departed.disturbed {
            self.apply(peer, now);
        }
        self.outputs
            .extend(departed.forgotten.into_iter().map(Output::ForgetRecord));
        if !departed.gone.is_empty() {
            self.offer_relays();
        }
    }

    /// We act for the authority as long as a delegation says so.
    fn refresh_issuer(&mut self) {
        let key = self.signer.key();
        let is_expelled = matches!(self.standing, Standing::Expelled { .. });
        let notices = self.directory.notices();
        let delegation = notices.delegation_of(&key).filter(|_| !is_expelled);
        let Some((delegation, envelope)) = delegation else {
            if self.issuer.take().is_some() {
                tracing::warn!("this node may not act for the network's authority any more");
            }
            return;
        };
        if let Some(issuer) = &self.issuer
            && issuer.envelope() == envelope
        {
            return;
        }
        let (powers, envelope) = (delegation.powers, envelope.to_vec());
        let genesis = self.network.genesis().clone();
        match Issuer::new(self.signer.clone(), envelope, genesis) {
            Ok(issuer) => {
                tracing::info!(?powers, "this node may act for the network's authority");
                self.issuer = Some(issuer);
            }
            Err(reason) => tracing::warn!(%reason, "our delegation cannot be used"),
        }
    }

    fn policy_hash(&self) -> Option<[u8; 32]> {
        let (policy, _) = self.directory.notices().policy()?;
        Some(policy.hash())
    }

    fn tell_policy(&mut self, before: Option<[u8; 32]>) {
        if self.policy_hash() == before {
            return;
        }
        self.enforce_policy();
        let policy = self.directory.notices().policy().map(|(policy, _)| policy);
        tracing::info!(
            version = policy.map(|policy| policy.version),
            "the network's policy"
        );
        let body = policy.map(|policy| policy.body.clone());
        self.outputs.push_back(Output::PolicyChanged(body));
    }
}
