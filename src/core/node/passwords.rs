//! How others join through this node by the network's password.
//!
//! Only a node that may admit has a password, and keeps no more of it than a [`PasswordRecord`]. Between the two steps
//! of a login it remembers the challenge: one a peer, for [`LOGIN_TIME`], and no more than there are
//! [tries](super::tries) in that time.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use libp2p_identity::PeerId;
use zeroize::Zeroizing;

use super::{
    Node, Now,
    tries::{Source, Tries},
};
use crate::{
    membership::{
        JoinAnswer, JoinRefusal, PasswordRecord, PasswordStep, SignerKey,
        join::{
            Admission,
            by_password::{PasswordProof, parties},
        },
        password::{Challenge, Random},
    },
    output::{Output, RequestId},
};

/// How long a joiner may take to answer a challenge: it stretches the password meanwhile, on a small machine for some
/// seconds.
const LOGIN_TIME: Duration = Duration::from_secs(30);

/// Why this node has no password to set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoPassword {
    /// Only nodes with a delegation may admit.
    #[error(
        "this node may not admit members: set the password on the node that founded the network"
    )]
    MayNotAdmit,
}

/// The password and the logins under way.
pub(super) struct Passwords {
    record: Option<PasswordRecord>,
    decoy: PasswordRecord,
    random: Random,
    begun: BTreeMap<PeerId, Begun>,
    next_lapse: Option<Instant>,
    tries: Tries,
}

struct Begun {
    challenge: Challenge,
    sources: Vec<Source>,
    until: Instant,
}

impl Passwords {
    pub fn new(
        record: Option<PasswordRecord>,
        decoy: PasswordRecord,
        seed: &Zeroizing<[u8; 32]>,
    ) -> Self {
        Self {
            record,
            decoy,
            random: Random::new(seed),
            begun: BTreeMap::new(),
            next_lapse: None,
            tries: Tries::default(),
        }
    }

    /// When the next login lapses.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.next_lapse
    }

    /// Lets go of the logins that were not completed.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.next_lapse.is_none_or(|at| now < at) {
            return;
        }
        let lapsed: Vec<_> = self
            .begun
            .extract_if(.., |_, begun| now >= begun.until)
            .collect();
        for (peer, begun) in lapsed {
            self.log_failure(&peer, &begun.sources);
        }
        self.next_lapse = self.begun.values().map(|begun| begun.until).min();
    }

    /// Whether it was a wrong password or a joiner that was interrupted, only the joiner knows.
    fn log_failure(&self, peer: &PeerId, sources: &[Source]) {
        let tries = sources.iter().map(|source| self.tries.count(source)).max();
        let from: Vec<_> = sources.iter().map(ToString::to_string).collect();
        tracing::warn!(%peer, tries, from = from.join(", "), "a wrong password, or a login that was given up");
    }
}

impl Node {
    /// Whether this node may have a password.
    pub fn may_set_password(&self, now: Now) -> Result<(), NoPassword> {
        match &self.issuer {
            Some(issuer) if issuer.may_admit(self.time.floor().max(now.unix)) => Ok(()),
            Some(_) | None => Err(NoPassword::MayNotAdmit),
        }
    }

    /// From now on this password admits, or none does. Keep it first. Logins with the one before fail.
    pub fn set_password(&mut self, record: Option<PasswordRecord>) {
        self.passwords.record = record;
        self.passwords.begun.clear();
        self.passwords.next_lapse = None;
    }

    /// Whether a password admits.
    pub fn has_password(&self) -> bool {
        self.passwords.record.is_some()
    }

    pub(super) fn take_password_step(
        &mut self,
        request: RequestId,
        peer: PeerId,
        step: &[u8],
        now: Now,
    ) -> Result<Output, JoinRefusal> {
        self.may_set_password(now)
            .map_err(|NoPassword::MayNotAdmit| JoinRefusal::MayNotAdmit)?;
        let step = PasswordStep::decode(step).map_err(|_| JoinRefusal::Malformed)?;
        let answer = match step {
            PasswordStep::Begin(begun) => self.challenge(peer, &begun, now.instant)?,
            PasswordStep::Prove(proof) => self.admit_by_password(peer, &proof, now)?,
        };
        let body = answer.encode().to_vec();
        Ok(Output::Respond { request, body })
    }

    fn challenge(
        &mut self,
        peer: PeerId,
        begun: &[u8],
        now: Instant,
    ) -> Result<JoinAnswer, JoinRefusal> {
        let mut sources = vec![Source::Peer(peer)];
        sources.extend(self.connections.links_of(&peer).map(Source::of));
        sources.sort_unstable();
        sources.dedup();

        let passwords = &mut self.passwords;
        if !passwords.tries.begin(&sources, now) {
            return Err(JoinRefusal::RateLimited);
        }
        let network = self.network.genesis().name();
        let parties = parties(network, &peer, &self.signer.peer_id());
        let record = passwords.record.as_ref().unwrap_or(&passwords.decoy);
        let (challenge, message) = record
            .challenge(begun, &parties, &mut passwords.random)
            .map_err(|_| JoinRefusal::Malformed)?;
        let until = now + LOGIN_TIME;
        let begun = Begun {
            challenge,
            sources,
            until,
        };
        if let Some(before) = passwords.begun.insert(peer, begun) {
            passwords.log_failure(&peer, &before.sources);
        }
        passwords.next_lapse.get_or_insert(until);
        Ok(JoinAnswer::challenge(message))
    }

    fn admit_by_password(
        &mut self,
        peer: PeerId,
        proof: &PasswordProof,
        now: Now,
    ) -> Result<JoinAnswer, JoinRefusal> {
        let unix = self.time.now(now.unix);
        let passwords = &mut self.passwords;
        // Looked up once: a proof that comes again finds nothing.
        let begun = passwords.begun.remove(&peer);
        let Some(begun) = begun.filter(|begun| now.instant < begun.until) else {
            return Err(JoinRefusal::WrongPassword);
        };
        let Some(key) = begun.challenge.check(&proof.proof) else {
            passwords.log_failure(&peer, &begun.sources);
            return Err(JoinRefusal::WrongPassword);
        };
        passwords.tries.take_back(&begun.sources);
        let joiner = SignerKey::of_peer(&peer).map_err(|_| JoinRefusal::Malformed)?;
        let issuer = self.issuer.as_ref().ok_or(JoinRefusal::MayNotAdmit)?;
        let credential = issuer.admit_by_password(
            joiner,
            proof.wanted_name(),
            proof.wanted_ipv4,
            unix,
            &mut self.directory,
        )?;
        tracing::info!(%peer, "admitted by password");
        let us = self.signer.peer_id();
        let admission = Admission::new(&self.network, credential, &us, &self.directory);
        Ok(JoinAnswer::admitted_by(&key, &admission))
    }
}
