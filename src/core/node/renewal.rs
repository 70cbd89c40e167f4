//! How a node that the others do not accept any more comes back: it asks for its newest certificate.
//!
//! It may have been away while its certificate ran out, while it was expelled and restored, or while the delegation that
//! its certificate rests on was ended. Whichever member it reaches hands out what it has for exactly the node at the other
//! end of the connection: the newest certificate, or the revocation. Either proves itself, so anybody may be asked.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use libp2p_core::Multiaddr;
use libp2p_identity::PeerId;

use super::{Node, Now, Standing};
use crate::{
    membership::{
        Credential, JoinAnswer, JoinMessage, JoinRefusal, MemberRecord, Powers, Rejection, Renewal,
        SignerKey,
    },
    output::Output,
};

/// Between the first two questions to one node; doubles up to [`MAX_PAUSE`].
const PAUSE: Duration = Duration::from_secs(5);
/// An expelled node asks each member this often whether it was restored.
const MAX_PAUSE: Duration = Duration::from_secs(600);
/// A question that was lost with its connection is asked again after this.
const RETRY: Duration = Duration::from_secs(2);
/// Nodes whose answers are remembered. More than these are asked as if for the first time.
const MAX_ASKED: usize = 256;
/// Members that a node without a certificate dials at once.
const DIALS: usize = 4;

/// Whom we asked, and when we may again.
#[derive(Debug, Default)]
pub(super) struct Asking {
    /// Who did not accept our certificate, although we think it good.
    refused_by: BTreeSet<PeerId>,
    asked: BTreeMap<PeerId, Asked>,
    /// Who showed us a certificate of a delegate whose delegation was ended, and of which one. They may not know.
    unsupported: BTreeMap<PeerId, SignerKey>,
    /// Where members were when we knew them last.
    contacts: BTreeMap<PeerId, Vec<Multiaddr>>,
}

#[derive(Debug)]
struct Asked {
    next: Instant,
    pause: Duration,
}

impl Node {
    // ---- asking ------------------------------------------------------------------------------------------

    /// The peer did not accept our certificate: it may know of a newer one, or of a reason.
    pub fn handle_refused_by_peer(&mut self, peer: PeerId, now: Now) {
        tracing::warn!(%peer, "the member does not accept our certificate: asking it for a newer one");
        if self.asking.refused_by.len() < MAX_ASKED {
            self.asking.refused_by.insert(peer);
        }
        self.ask_for_renewal(&peer, now);
    }

    /// A connection came up to somebody who may know more of our certificate than we do.
    pub(super) fn ask_if_needed(&mut self, peer: &PeerId, now: Now) {
        if !self.is_member() || self.asking.refused_by.contains(peer) {
            self.ask_for_renewal(peer, now);
        }
    }

    fn ask_for_renewal(&mut self, peer: &PeerId, now: Now) {
        if self.asking.asked.len() >= MAX_ASKED && !self.asking.asked.contains_key(peer) {
            self.asking.asked.clear();
        }
        let asked = self.asking.asked.entry(*peer).or_insert(Asked {
            next: now.instant,
            pause: PAUSE,
        });
        if now.instant < asked.next {
            return;
        }
        asked.next = now.instant + asked.pause;
        asked.pause = (asked.pause * 2).min(MAX_PAUSE);
        self.outputs.push_back(Output::AskRenewal {
            peer: *peer,
            body: JoinMessage::Renewal.encode(),
        });
    }

    /// Whom to dial as long as we are no member: a few of those we knew, as their turn comes.
    pub(super) fn contact_for_renewal(&mut self, now: Now) {
        let is_due = |peer: &PeerId| {
            let asked = self.asking.asked.get(peer);
            asked.is_none_or(|asked| now.instant >= asked.next)
        };
        let contacts = self.asking.contacts.keys();
        let mut due: Vec<PeerId> = contacts.copied().filter(is_due).collect();
        self.tunnels.choose_some(&mut due, DIALS);
        let given = self.bootstrap.iter().map(|(peer, _)| *peer);
        due.extend(given.filter(is_due));
        for peer in due {
            if self.connections.is_open(&peer) {
                self.ask_for_renewal(&peer, now);
                continue;
            }
            let known = self.asking.contacts.get(&peer).into_iter().flatten();
            let given = self.bootstrap.iter().filter(|(id, _)| *id == peer);
            let addresses: Vec<Multiaddr> = known
                .chain(given.map(|(_, address)| address))
                .cloned()
                .collect();
            self.outputs.push_back(Output::Dial {
                peer,
                addresses,
                even_if_connected: true,
            });
        }
    }

    /// Remembers where a member was.
    pub(super) fn remember_contact(&mut self, peer: PeerId, addresses: Vec<Multiaddr>) {
        let contacts = &mut self.asking.contacts;
        if peer == self.signer.peer_id() || addresses.is_empty() {
            return;
        }
        if contacts.len() < MAX_ASKED || contacts.contains_key(&peer) {
            contacts.insert(peer, addresses);
        }
    }

    /// The answer to our question. It is believed for what it proves.
    pub fn handle_renewal_answer(&mut self, peer: PeerId, body: &[u8], now: Now) {
        let renewal = match JoinAnswer::renewed(body) {
            Ok(renewal) => renewal,
            Err(reason) => {
                return tracing::info!(%peer, %reason, "the node has no certificate for us");
            }
        };
        self.asking.refused_by.remove(&peer);
        self.take_notices(renewal.notices(), Some(peer), now);
        let Some(credential) = renewal.credential else {
            return;
        };
        match self.adopt(credential, now) {
            Ok(true) => {
                // Whoever refuses us now has a new reason.
                self.asking.asked.clear();
                self.asking.refused_by.clear();
                self.judge_ourselves(now);
                self.announce_ourselves(now);
            }
            Ok(false) => {}
            Err(reason) => {
                tracing::debug!(%peer, %reason, "the certificate handed out is not taken")
            }
        }
    }

    /// There was no answer to our question.
    pub fn handle_renewal_failed(&mut self, peer: PeerId, now: Now) {
        if let Some(asked) = self.asking.asked.get_mut(&peer) {
            asked.next = asked.next.min(now.instant + RETRY);
        }
    }

    /// Takes over a newer certificate of our own, if it is good. Returns whether it is newer.
    pub(super) fn adopt(&mut self, credential: Credential, now: Now) -> Result<bool, Rejection> {
        let unix = self.time.now(now.unix);
        let us = self.peer_id();
        let certificate = credential.verify(self.network.genesis(), unix, &us)?;
        let (_, basis) = credential.open(self.network.genesis())?;
        self.directory.notices().check(&certificate, &basis)?;
        let is_same = credential == self.credential;
        if is_same || self.is_member() && certificate.serial < self.certificate.serial {
            return Ok(false);
        }
        let days = certificate.not_after.since(unix).as_secs() / 86_400;
        tracing::info!(days, "our certificate was renewed");
        self.certificate = certificate;
        self.basis = basis;
        self.credential = credential;
        self.outputs
            .push_back(Output::SaveCredential(self.credential.encode()));
        Ok(true)
    }

    /// A delegate need not ask anybody.
    pub(super) fn renew_ourselves(&mut self, now: Now) {
        if !matches!(self.standing, Standing::Lapsed | Standing::Unsupported) {
            return;
        }
        let unix = self.time.now(now.unix);
        let Some(issuer) = &self.issuer else { return };
        let readmitted = issuer.readmit(&self.certificate, unix, &mut self.directory);
        let Ok(credential) = readmitted else { return };
        if let Ok(true) = self.adopt(credential, now) {
            self.judge_ourselves(now);
        }
    }

    // ---- answering ---------------------------------------------------------------------------------------

    /// A node asks for its newest certificate.
    pub(super) fn answer_renewal(
        &mut self,
        peer: &PeerId,
        now: Now,
    ) -> Result<JoinAnswer, JoinRefusal> {
        let key = SignerKey::of_peer(peer).map_err(|_| JoinRefusal::Malformed)?;
        if !self.is_member() {
            return Err(JoinRefusal::NothingToRenew);
        }
        if let Some(member) = self.directory.get(peer) {
            let credential = Some(member.record.credential.clone());
            return Ok(JoinAnswer::Renewed(Renewal::new(credential, Vec::new())));
        }
        if self.directory.is_expelled(&key) {
            let proof = self.directory.notices().proof_of_revocation(&key);
            return Ok(JoinAnswer::Renewed(Renewal::new(None, proof)));
        }
        if let Some(delegate) = self.asking.unsupported.get(peer) {
            let proof = self.directory.notices().proof_of_end(delegate);
            return Ok(JoinAnswer::Renewed(Renewal::new(None, proof)));
        }
        let credential = self.revive(peer, now)?;
        Ok(JoinAnswer::Renewed(Renewal::new(
            Some(credential),
            Vec::new(),
        )))
    }

    /// The node's record was refused, because nobody vouches for it any more. Should it ask why, it is told.
    pub(super) fn remember_unsupported(&mut self, peer: PeerId, record: &[u8]) {
        let opened = MemberRecord::decode(record)
            .and_then(|record| record.credential.open(self.network.genesis()));
        let Ok((certificate, basis)) = opened else {
            return;
        };
        let unsupported = &mut self.asking.unsupported;
        if certificate.subject.peer_id() == peer && unsupported.len() < MAX_ASKED {
            unsupported.insert(peer, basis.delegate);
        }
    }

    /// Renews the certificate of a member that was away while it ran out, if we may.
    fn revive(&mut self, peer: &PeerId, now: Now) -> Result<Credential, JoinRefusal> {
        let unix = self.time.now(now.unix);
        let issuer = self.issuer.as_ref().ok_or(JoinRefusal::NothingToRenew)?;
        let former = self.directory.former(peer).cloned();
        let former = former.ok_or(JoinRefusal::NothingToRenew)?;
        let is_void = self
            .directory
            .notices()
            .check(&former.certificate, &former.delegation)
            .is_err();
        if is_void || issuer.signing(Powers::ADMIT, unix).is_err() {
            return Err(JoinRefusal::NothingToRenew);
        }
        let credential = issuer.readmit(&former.certificate, unix, &mut self.directory)?;
        let record = MemberRecord {
            credential: credential.clone(),
            descriptor: former.record.descriptor,
        };
        match self.admit(&record.encode(), None, now) {
            Ok(_) => {
                tracing::info!(%peer, "a member is back whose certificate had expired");
                Ok(credential)
            }
            Err(reason) => {
                tracing::warn!(%peer, %reason, "a member cannot be taken back");
                Err(JoinRefusal::NothingToRenew)
            }
        }
    }
}
