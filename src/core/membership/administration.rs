//! Who may act on this node, from another one.
//!
//! Membership gives no right on a node. A member that wants one **logs in**: as an administrator of this node, whose
//! password it proves by OPAQUE ([`password`](super::password)), or because the node's own configuration lists the
//! member. It is given a [`Capability`], for an hour. With that it **calls**: each call shows the capability and
//! carries a request, whose role the node looks up before it answers.
//!
//! The password reaches neither this node nor anybody else; what is kept of it are [`PasswordRecord`]s. A name that is
//! no administrator's is answered like one that is, from a decoy.
//!
//! Tries are counted when they begin, because a challenge is a guess whether or not it is answered: see [`tries`].
//!
//! What is asked and answered is in [`message`]. Nothing here reads a clock or draws a random number.

use std::{
    collections::BTreeMap,
    fmt,
    time::{Duration, Instant},
};

use hmac::{Hmac, KeyInit, Mac};
use libp2p_identity::PeerId;
use minicbor::{Decode, Encode};
use sha2::Sha256;
use zeroize::Zeroizing;

use self::{
    message::{Answer, Ask, Grant, Refusal},
    tries::Tries,
};
use super::{
    capability::{self, Capability, Roles},
    genesis::NetworkId,
    name::Name,
    password::{Challenge, Parties, PasswordRecord, Random},
    rejection::Rejection,
    signer::{Signer, SignerKey},
    time::UnixTime,
    wire,
};
use crate::allowance::Allowances;

pub mod message;
mod tries;

/// What goes into OPAQUE's context: a login here is one nowhere else.
const PURPOSE: &str = "hivevpn/v1/admin";
/// How long a caller may stretch its password, on the slowest machine.
const ANSWER_TIME: Duration = Duration::from_secs(60);
/// Logins that may be under way at once, each a few hundred bytes.
const MAX_BEGUN: usize = 256;
/// Calls that a member may make at once, and in the long run: each costs a signature check, about 0.1 ms.
const CALLS_AT_ONCE: u32 = 100;
const CALL_PERIOD: Duration = Duration::from_millis(50);
/// Members whose calls are counted apart at once.
const MAX_CALLERS: usize = 4096;

/// Between whom a login as `user` is, for either end.
pub fn parties(user: &Name, client: PeerId, server: PeerId) -> Parties {
    Parties {
        purpose: PURPOSE,
        name: user.clone(),
        client,
        server,
    }
}

/// An administrator of this node.
#[derive(Debug, Clone)]
pub struct Admin {
    /// What it may do.
    pub roles: Roles,
    /// What is kept of its password.
    pub record: PasswordRecord,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct Kept {
    #[n(0)]
    roles: Roles,
    #[cbor(n(1), with = "minicbor::bytes")]
    record: Vec<u8>,
}

impl Admin {
    /// For the store. Whoever has this can try passwords, at a price.
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        let record = self.record.encode().to_vec();
        Zeroizing::new(wire::encode(&Kept {
            roles: self.roles,
            record,
        }))
    }

    /// Reads what [`encode`](Admin::encode) wrote.
    pub fn decode(bytes: &[u8]) -> Result<Admin, Rejection> {
        let Kept { roles, record } = wire::decode(bytes)?;
        let record = PasswordRecord::decode(&record)?;
        Ok(Admin { roles, record })
    }
}

/// The node that is acted on, as it is now.
pub struct Site<'a> {
    /// Signs capabilities.
    pub signer: &'a Signer,
    /// The network that it is in.
    pub network: NetworkId,
    /// By the clock of signed objects.
    pub unix: UnixTime,
    /// By the clock of timers.
    pub instant: Instant,
}

/// What came of a message.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// A login has begun.
    Begun {
        /// Who the caller claims to be.
        user: Name,
        /// What it is given.
        challenge: Vec<u8>,
    },
    /// The caller is an administrator.
    Granted {
        /// By whose password; none if the configuration lists the caller.
        user: Option<Name>,
        /// What the caller is given.
        grant: Grant,
    },
    /// The caller may ask this, as far as these roles go.
    Call {
        /// What it may do.
        roles: Roles,
        /// What it asks, for the shell to read.
        request: Vec<u8>,
    },
    /// Nothing is done.
    Refused {
        /// Who the caller claimed to be, if it did.
        user: Option<Name>,
        /// Why.
        why: Refusal,
    },
}

impl Step {
    /// What to answer at once. A call is answered when its answer is there.
    pub fn answer(&self) -> Option<Answer> {
        match self {
            Step::Begun { challenge, .. } => Some(Answer::Challenge(challenge.clone())),
            Step::Granted { grant, .. } => Some(Answer::Granted(grant.clone())),
            Step::Refused { why, .. } => Some(Answer::Refused(*why)),
            Step::Call { .. } => None,
        }
    }

    fn refused(why: Refusal) -> Step {
        Step::Refused { user: None, why }
    }
}

/// A login between challenge and proof.
struct Begun {
    user: Name,
    challenge: Challenge,
    until: Instant,
}

/// Decides who may act on this node.
pub struct Administration {
    /// In every capability that is good now.
    epoch: [u8; 16],
    /// What decoys are made from.
    secret: Zeroizing<[u8; 32]>,
    random: Random,
    admins: BTreeMap<Name, Admin>,
    begun: BTreeMap<PeerId, Begun>,
    tries: Tries,
    calls: Allowances<PeerId>,
}

impl Administration {
    /// Nobody is an administrator yet. `secret` is the same at every start, so that a restart does not tell decoys from
    /// records; `seed` is fresh randomness.
    pub fn new(secret: Zeroizing<[u8; 32]>, seed: &Zeroizing<[u8; 32]>, epoch: [u8; 16]) -> Self {
        Self {
            epoch,
            secret,
            random: Random::new(seed),
            admins: BTreeMap::new(),
            begun: BTreeMap::new(),
            tries: Tries::default(),
            calls: Allowances::new(CALLS_AT_ONCE, CALL_PERIOD, MAX_CALLERS),
        }
    }

    /// These are the administrators from now on. Every capability ends, and every login that has begun.
    pub fn appoint(&mut self, admins: BTreeMap<Name, Admin>, epoch: [u8; 16]) {
        self.admins = admins;
        self.epoch = epoch;
        self.begun.clear();
    }

    /// The administrators.
    pub fn admins(&self) -> &BTreeMap<Name, Admin> {
        &self.admins
    }

    /// A message of the member `from`, whom the configuration gives the roles `listed`.
    pub fn handle(
        &mut self,
        from: &PeerId,
        listed: Roles,
        message: &[u8],
        site: &Site<'_>,
    ) -> Step {
        let now = site.instant;
        if !self.calls.take(*from, 1, now) {
            let wait = self.calls.next(from, 1, now).saturating_duration_since(now);
            return Step::refused(Refusal::too_often(wait));
        }
        let Ok(caller) = SignerKey::of_peer(from) else {
            return Step::refused(Refusal::NotUnderstood);
        };
        match Ask::decode(message) {
            Ok(Ask::Enter) if listed == Roles::NONE => Step::refused(Refusal::NotListed),
            Ok(Ask::Enter) => Step::Granted {
                user: None,
                grant: self.grant(caller, listed, site),
            },
            Ok(Ask::Begin { user, begun }) => self.begin(from, user, &begun, site),
            Ok(Ask::Prove(proof)) => self.prove(from, caller, &proof, site),
            Ok(Ask::Call {
                capability,
                request,
            }) => {
                let node = site.signer.key();
                let roles = Capability::check(
                    &capability,
                    &node,
                    &site.network,
                    &self.epoch,
                    &caller,
                    site.unix,
                );
                match roles {
                    Ok(roles) => Step::Call { roles, request },
                    Err(rejection) => {
                        tracing::debug!(%from, "a capability is not good: {rejection}");
                        Step::refused(Refusal::NotAdministrator)
                    }
                }
            }
            Err(_) => Step::refused(Refusal::NotUnderstood),
        }
    }

    fn begin(&mut self, from: &PeerId, user: Name, message: &[u8], site: &Site<'_>) -> Step {
        let now = site.instant;
        self.begun.retain(|_, begun| begun.until > now);
        let refused = |user, why| Step::Refused {
            user: Some(user),
            why,
        };
        if let Err(wait) = self.tries.begin(from, now) {
            return refused(user, Refusal::too_often(wait));
        }
        if self.begun.len() >= MAX_BEGUN && !self.begun.contains_key(from) {
            return refused(user, Refusal::too_often(ANSWER_TIME));
        }
        let parties = parties(&user, *from, site.signer.peer_id());
        // Made for a name that is known as well, so that it takes as long.
        let decoy = self.decoy(&user);
        let record = self.admins.get(&user).map_or(&decoy, |admin| &admin.record);
        let Ok((state, challenge)) = record.challenge(message, &parties, &mut self.random) else {
            return refused(user, Refusal::NotUnderstood);
        };
        let begun = Begun {
            user: user.clone(),
            challenge: state,
            until: now + ANSWER_TIME,
        };
        self.begun.insert(*from, begun);
        Step::Begun { user, challenge }
    }

    fn prove(&mut self, from: &PeerId, caller: SignerKey, proof: &[u8], site: &Site<'_>) -> Step {
        let begun = self.begun.remove(from);
        let Some(begun) = begun.filter(|begun| begun.until > site.instant) else {
            return Step::refused(Refusal::WrongPassword);
        };
        let user = begun.user;
        let is_proven = begun.challenge.check(proof).is_some();
        match self.admins.get(&user) {
            Some(admin) if is_proven => {
                self.tries.succeeded(from);
                let grant = self.grant(caller, admin.roles, site);
                Step::Granted {
                    user: Some(user),
                    grant,
                }
            }
            Some(_) | None => Step::Refused {
                user: Some(user),
                why: Refusal::WrongPassword,
            },
        }
    }

    fn grant(&self, subject: SignerKey, roles: Roles, site: &Site<'_>) -> Grant {
        let capability = Capability {
            network: site.network,
            subject,
            roles,
            not_after: site.unix.plus(capability::LIFETIME),
            epoch: self.epoch,
        };
        Grant {
            capability: capability.seal(site.signer),
            roles,
            seconds: u32::try_from(capability::LIFETIME.as_secs()).unwrap_or(u32::MAX),
        }
    }

    /// What answers for a name that is no administrator's, always the same.
    fn decoy(&self, user: &Name) -> PasswordRecord {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.secret[..])
            .expect("HMAC takes keys of any length");
        mac.update(b"hivevpn/v1/admin-decoy");
        mac.update(user.as_str().as_bytes());
        PasswordRecord::decoy(&Zeroizing::new(mac.finalize().into_bytes().into()))
    }
}

impl fmt::Debug for Administration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Administration")
            .field("admins", &self.admins)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
