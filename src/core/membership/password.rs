//! Proving a password without showing it: OPAQUE (RFC 9807). The only file that knows `opaque-ke`.
//!
//! Whoever sets a password makes a [`PasswordRecord`] of it. That is all that is ever kept: it does not contain the
//! password, and each guess that somebody who stole it makes costs him an Argon2id over 64 MiB.
//!
//! 1. The client's [`Login::begin`] sends the password blinded: the message is random to everybody.
//! 2. The server's [`PasswordRecord::challenge`] evaluates it with its key and begins a key exchange. That costs
//!    about half a millisecond: nothing is stretched at the server.
//! 3. The client's [`Login::answer`] unblinds and **stretches** what came, which takes some tenths of a second and is
//!    no work for a thread that carries packets. With the right password it finds that the server holds the record of
//!    it, and proves in turn that it knows it.
//! 4. The server's [`Challenge::check`] is convinced. Both hold the same [`SessionKey`].
//!
//! Both ends put into the exchange what it is for, the name it is about, and who they are ([`Parties`]). Where these
//! differ the exchange fails as with a wrong password, so whoever passes the messages on between two others, each of
//! whom it greets under its own peer id, gets nowhere. A message serves once: its keys are made for it alone.
//!
//! A server without a password answers from a [decoy](PasswordRecord::decoy). So nobody learns from an answer whether
//! there is a password, nor which part of what he knows is wrong.
//!
//! Every challenge that is given out is one guess that the client may check at home. So tries are counted when they
//! begin, not when they fail.

use std::fmt;

use argon2::{Algorithm, Argon2, Params, Version};
use hmac::{Hmac, KeyInit, Mac};
use libp2p_identity::PeerId;
use minicbor::{Decode, Encode, bytes::ByteVec};
use opaque_ke::{
    CipherSuite, ClientLogin, ClientLoginFinishParameters, ClientRegistration,
    ClientRegistrationFinishParameters, CredentialFinalization, CredentialRequest,
    CredentialResponse, Identifiers, Ristretto255, ServerLogin, ServerLoginParameters,
    ServerRegistration, ServerSetup, TripleDh,
};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use sha2::Sha256;
use sha2_for_opaque::Sha512;
use zeroize::Zeroizing;

use super::{name::Name, rejection::Rejection, wire};

/// The longest password, in bytes; OPAQUE itself takes 64 KiB.
pub const MAX_PASSWORD: usize = 1024;

/// What a guess costs whoever stole a record: RFC 9106 section 4's second choice, on one lane, since a node that joins
/// may have one processor. Tests of this crate make hundreds of logins and guess nothing.
const STRETCH_MEMORY_KIB: u32 = if cfg!(test) { 8 } else { 64 * 1024 };
const STRETCH_PASSES: u32 = if cfg!(test) { 1 } else { 3 };
const STRETCH_LANES: u32 = 1;

/// A record is of one password: there is nobody to tell apart by OPAQUE's credential identifiers.
const CREDENTIAL: &[u8] = b"hivevpn";

/// RFC 9807 section 7, its first recommended configuration.
struct Suite;

impl CipherSuite for Suite {
    type OprfCs = Ristretto255;
    type KeyExchange = TripleDh<Ristretto255, Sha512>;
    type Ksf = Argon2<'static>;
}

fn stretch() -> Argon2<'static> {
    let params = Params::new(STRETCH_MEMORY_KIB, STRETCH_PASSES, STRETCH_LANES, None)
        .expect("the constants are within Argon2's bounds");
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
}

/// Randomness for many exchanges, from one seed that must be random and secret.
pub struct Random(ChaCha20Rng);

impl Random {
    /// Begins with this seed.
    pub fn new(seed: &Zeroizing<[u8; 32]>) -> Random {
        Random(ChaCha20Rng::from_seed(**seed))
    }
}

/// Who proves a password to whom, and what for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parties {
    /// What the password opens: one of our protocols.
    pub purpose: &'static str,
    /// The name that goes with the password.
    pub name: Name,
    /// Who proves, as the connection shows it.
    pub client: PeerId,
    /// Who keeps the record, as the connection shows it.
    pub server: PeerId,
}

impl Parties {
    /// OPAQUE's context: every part with its length before it.
    fn context(&self) -> Vec<u8> {
        let (client, server) = (self.client.to_bytes(), self.server.to_bytes());
        let parts = [
            self.purpose.as_bytes(),
            self.name.as_str().as_bytes(),
            &client,
            &server,
        ];
        wire::encode(&parts.map(|part| ByteVec::from(part.to_vec())).to_vec())
    }
}

/// What is kept of a password: OPAQUE's server setup and its record of the password.
#[derive(Clone)]
pub struct PasswordRecord {
    setup: ServerSetup<Suite>,
    record: Option<ServerRegistration<Suite>>,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct Kept {
    #[cbor(n(0), with = "minicbor::bytes")]
    setup: Vec<u8>,
    #[cbor(n(1), with = "minicbor::bytes")]
    record: Vec<u8>,
}

/// A password is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a password has 1 to {MAX_PASSWORD} bytes")]
pub struct UnusablePassword;

impl PasswordRecord {
    /// The record of a new password. Stretches it: takes some tenths of a second. `seed` is fresh randomness.
    pub fn of(
        password: &[u8],
        seed: &Zeroizing<[u8; 32]>,
    ) -> Result<PasswordRecord, UnusablePassword> {
        if password.is_empty() || password.len() > MAX_PASSWORD {
            return Err(UnusablePassword);
        }
        let random = &mut Random::new(seed).0;
        let setup = ServerSetup::<Suite>::new(random);
        let begun = ClientRegistration::<Suite>::start(random, password)
            .expect("the password is short enough");
        let answer = ServerRegistration::<Suite>::start(&setup, begun.message, CREDENTIAL)
            .expect("our own message is well-formed");
        let stretch = stretch();
        let parameters =
            ClientRegistrationFinishParameters::new(Identifiers::default(), Some(&stretch));
        let finished = begun
            .state
            .finish(random, password, answer.message, parameters)
            .expect("our own answer is well-formed");
        Ok(PasswordRecord {
            record: Some(ServerRegistration::finish(finished.message)),
            setup,
        })
    }

    /// What answers where no password is set: like a record, and no password fits. The same seed makes the same one,
    /// so that a restart does not give it away.
    pub fn decoy(seed: &Zeroizing<[u8; 32]>) -> PasswordRecord {
        PasswordRecord {
            setup: ServerSetup::new(&mut Random::new(seed).0),
            record: None,
        }
    }

    /// For the store. Whoever has this can try passwords, at a price.
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        let record = self.record.as_ref();
        Zeroizing::new(wire::encode(&Kept {
            setup: self.setup.serialize().to_vec(),
            record: record.map_or(Vec::new(), |record| record.serialize().to_vec()),
        }))
    }

    /// Reads what [`encode`](PasswordRecord::encode) wrote of a password's record.
    pub fn decode(bytes: &[u8]) -> Result<PasswordRecord, Rejection> {
        let kept: Kept = wire::decode(bytes)?;
        let damaged = |_| Rejection::Malformed("this is no record of a password");
        Ok(PasswordRecord {
            setup: ServerSetup::deserialize(&kept.setup).map_err(damaged)?,
            record: Some(ServerRegistration::deserialize(&kept.record).map_err(damaged)?),
        })
    }

    /// The server's answer to a client's first message: what to send, and what to check its next one by.
    pub fn challenge(
        &self,
        begun: &[u8],
        parties: &Parties,
        random: &mut Random,
    ) -> Result<(Challenge, Vec<u8>), Rejection> {
        let malformed = |_| Rejection::Malformed("this begins no login");
        let request = CredentialRequest::deserialize(begun).map_err(malformed)?;
        let context = parties.context();
        let started = ServerLogin::start(
            &mut random.0,
            &self.setup,
            self.record.clone(),
            request,
            CREDENTIAL,
            ServerLoginParameters {
                context: Some(&context),
                identifiers: Identifiers::default(),
            },
        )
        .map_err(malformed)?;
        let challenge = Challenge {
            state: started.state,
            context,
        };
        Ok((challenge, started.message.serialize().to_vec()))
    }
}

impl fmt::Debug for PasswordRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PasswordRecord").finish_non_exhaustive()
    }
}

/// What the server remembers between its answer and the client's proof.
pub struct Challenge {
    state: ServerLogin<Suite>,
    context: Vec<u8>,
}

impl Challenge {
    /// The key that both share now, if the proof is one. A challenge is checked once.
    pub fn check(self, proof: &[u8]) -> Option<SessionKey> {
        let proof = CredentialFinalization::deserialize(proof).ok()?;
        let parameters = ServerLoginParameters {
            context: Some(&self.context),
            identifiers: Identifiers::default(),
        };
        let finished = self.state.finish(proof, parameters).ok()?;
        Some(SessionKey::new(&finished.session_key))
    }
}

/// The client's side of a login that has begun.
pub struct Login {
    state: ClientLogin<Suite>,
    password: Zeroizing<Vec<u8>>,
    context: Vec<u8>,
    seed: Zeroizing<[u8; 32]>,
}

/// The other side has no record of this password under this name, or is not who it seems.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the name or the password is wrong")]
pub struct WrongPassword;

impl Login {
    /// Begins, with what to send. Each of the two seeds is fresh randomness.
    pub fn begin(
        password: &[u8],
        parties: &Parties,
        seeds: [Zeroizing<[u8; 32]>; 2],
    ) -> Result<(Login, Vec<u8>), UnusablePassword> {
        if password.is_empty() || password.len() > MAX_PASSWORD {
            return Err(UnusablePassword);
        }
        let [first, seed] = seeds;
        let begun = ClientLogin::<Suite>::start(&mut Random::new(&first).0, password)
            .expect("the password is short enough");
        let login = Login {
            state: begun.state,
            password: Zeroizing::new(password.to_vec()),
            context: parties.context(),
            seed,
        };
        Ok((login, begun.message.serialize().to_vec()))
    }

    /// Checks the server's challenge and answers it: the key that both share now, and what to send. **Slow**, on
    /// purpose: it stretches the password.
    pub fn answer(self, challenge: &[u8]) -> Result<(SessionKey, Vec<u8>), WrongPassword> {
        let challenge = CredentialResponse::deserialize(challenge).map_err(|_| WrongPassword)?;
        let stretch = stretch();
        let parameters = ClientLoginFinishParameters::new(
            Some(&self.context),
            Identifiers::default(),
            Some(&stretch),
        );
        let random = &mut Random::new(&self.seed).0;
        let finished = self
            .state
            .finish(random, &self.password, challenge, parameters)
            .map_err(|_| WrongPassword)?;
        let key = SessionKey::new(&finished.session_key);
        Ok((key, finished.message.serialize().to_vec()))
    }
}

/// What client and server share after a login, and nobody else has.
pub struct SessionKey(Zeroizing<Vec<u8>>);

impl SessionKey {
    fn new(key: &[u8]) -> SessionKey {
        SessionKey(Zeroizing::new(key.to_vec()))
    }

    /// A tag that only the other side could have made on these bytes.
    pub fn tag(&self, purpose: &str, bytes: &[u8]) -> [u8; 32] {
        self.mac(purpose, bytes).finalize().into_bytes().into()
    }

    /// Whether the other side made this tag on these bytes; takes the same time for every tag.
    pub fn verify(&self, tag: &[u8; 32], purpose: &str, bytes: &[u8]) -> bool {
        self.mac(purpose, bytes).verify_slice(tag).is_ok()
    }

    fn mac(&self, purpose: &str, bytes: &[u8]) -> Hmac<Sha256> {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        // No purpose contains a zero byte.
        mac.update(purpose.as_bytes());
        mac.update(&[0]);
        mac.update(bytes);
        mac
    }
}

#[cfg(test)]
mod tests;
