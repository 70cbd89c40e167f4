//! Joining by the network's name and password.
//!
//! 1. The joiner [begins](PasswordJoin::begin) a login at a node that may admit. It names neither itself nor the
//!    network.
//! 2. That node answers with a [challenge](PasswordAnswer::Challenge), whatever it is asked.
//! 3. The joiner [proves](PasswordJoin::prove) that it knows the password, and says what it would like to be called.
//!    It knows now that the other side holds the record of this password for a network of this name.
//! 4. The other side admits it. The joiner knows neither the network's id nor its genesis, so the admission carries a
//!    tag by the key that only these two share since the login: it is that node's, for this joiner.
//!
//! Should an answer be lost, the joiner begins again and is admitted as what it is by then.

use std::net::Ipv4Addr;

use libp2p_identity::PeerId;
use minicbor::{Decode, Encode};
use zeroize::Zeroizing;

use super::{
    ANOTHER_ANSWER, Admission, JoinAnswer, JoinError, JoinMessage, Joined, MAX_WANTED_NAME, Name,
    Rejection, SignerKey, UnixTime, wanted_name,
};
use crate::membership::{
    password::{Login, Parties, SessionKey, UnusablePassword},
    refusal::JoinRefusal,
    wire,
};

const PURPOSE: &str = "hivevpn/v1/password-join";
const ADMISSION: &str = "hivevpn/v1/password-admission";

/// Who logs in to whom, to join the network of this name.
pub fn parties(network: &Name, joiner: &PeerId, issuer: &PeerId) -> Parties {
    Parties {
        purpose: PURPOSE,
        name: network.clone(),
        client: *joiner,
        server: *issuer,
    }
}

/// What the joiner sends, in a [`JoinMessage::Password`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum PasswordStep {
    /// The password, blinded.
    #[n(0)]
    Begin(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
    /// The proof that it is the right one, and what the joiner would like to be.
    #[n(1)]
    Prove(#[n(0)] PasswordProof),
}

/// The last thing that a joiner sends.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct PasswordProof {
    /// That the joiner knows the password, and to whom it proves it.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub proof: Vec<u8>,
    #[n(1)]
    wanted_name: String,
    /// The address it would like; any, if none.
    #[n(2)]
    pub wanted_ipv4: Option<Ipv4Addr>,
}

impl PasswordStep {
    /// Reads a step; what is in it is still to be judged.
    pub fn decode(bytes: &[u8]) -> Result<PasswordStep, Rejection> {
        let step: PasswordStep = wire::decode(bytes)?;
        match &step {
            PasswordStep::Prove(proof) if proof.wanted_name.len() > MAX_WANTED_NAME => {
                Err(Rejection::Malformed("the wanted name is too long"))
            }
            PasswordStep::Prove(_) | PasswordStep::Begin(_) => Ok(step),
        }
    }

    fn message(&self) -> Vec<u8> {
        JoinMessage::Password(wire::encode(self)).encode()
    }
}

impl PasswordProof {
    /// What it wants to be called; something, if it asks for nothing that is a name.
    pub fn wanted_name(&self) -> Name {
        wanted_name(&self.wanted_name)
    }
}

/// What it is answered, in a [`JoinAnswer::Step`].
#[derive(Debug, Encode, Decode)]
enum PasswordAnswer {
    /// What only the right password can answer.
    #[n(0)]
    Challenge(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
    /// The joiner is a member.
    #[n(1)]
    Admitted(#[n(0)] TaggedAdmission),
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct TaggedAdmission {
    /// An [`Admission`].
    #[cbor(n(0), with = "minicbor::bytes")]
    admission: Vec<u8>,
    #[cbor(n(1), with = "minicbor::bytes")]
    tag: [u8; 32],
}

impl std::fmt::Debug for TaggedAdmission {
    /// Contains the discovery secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TaggedAdmission").finish_non_exhaustive()
    }
}

impl JoinAnswer {
    /// The answer to [`PasswordStep::Begin`].
    pub fn challenge(challenge: Vec<u8>) -> JoinAnswer {
        JoinAnswer::Step(wire::encode(&PasswordAnswer::Challenge(challenge)))
    }

    /// The answer to [`PasswordStep::Prove`]: `admission` as it would be sent to who holds an invite.
    pub fn admitted_by(key: &SessionKey, admission: &Admission) -> JoinAnswer {
        let admission = wire::encode(admission);
        let tag = key.tag(ADMISSION, &admission);
        let tagged = TaggedAdmission { admission, tag };
        JoinAnswer::Step(wire::encode(&PasswordAnswer::Admitted(tagged)))
    }
}

fn read(bytes: &[u8]) -> Result<PasswordAnswer, JoinError> {
    match wire::decode_message(bytes).map_err(JoinError::Malformed)? {
        JoinAnswer::Step(step) => wire::decode_message(&step).map_err(JoinError::Malformed),
        JoinAnswer::Refused(refusal) => Err(JoinError::Refused(refusal)),
        JoinAnswer::Admitted(_) | JoinAnswer::Renewed(_) => Err(UNEXPECTED),
    }
}

const UNEXPECTED: JoinError = JoinError::Malformed(ANOTHER_ANSWER);

/// A joiner that waits for the challenge.
pub struct PasswordJoin {
    network: Name,
    login: Login,
}

impl PasswordJoin {
    /// Begins to join the network of this name at the node `issuer`, with the message for it. Both seeds are fresh
    /// randomness.
    pub fn begin(
        network: &Name,
        password: &[u8],
        joiner: &PeerId,
        issuer: &PeerId,
        seeds: [Zeroizing<[u8; 32]>; 2],
    ) -> Result<(PasswordJoin, Vec<u8>), UnusablePassword> {
        let parties = parties(network, joiner, issuer);
        let (login, begun) = Login::begin(password, &parties, seeds)?;
        let join = PasswordJoin {
            network: network.clone(),
            login,
        };
        Ok((join, PasswordStep::Begin(begun).message()))
    }

    /// Answers the challenge, with the message for the node that was asked. **Slow**: see [`Login::answer`].
    pub fn prove(
        self,
        answer: &[u8],
        wanted_name: &str,
        wanted_ipv4: Option<Ipv4Addr>,
    ) -> Result<(PasswordProven, Vec<u8>), JoinError> {
        let PasswordAnswer::Challenge(challenge) = read(answer)? else {
            return Err(UNEXPECTED);
        };
        let (key, proof) = self
            .login
            .answer(&challenge)
            .map_err(|_| JoinError::Refused(JoinRefusal::WrongPassword))?;
        let proof = PasswordProof {
            proof,
            wanted_name: Name::sanitised(wanted_name)
                .map(|name| name.to_string())
                .unwrap_or_default(),
            wanted_ipv4,
        };
        let proven = PasswordProven {
            network: self.network,
            key,
        };
        Ok((proven, PasswordStep::Prove(proof).message()))
    }
}

/// A joiner that waits for its admission.
pub struct PasswordProven {
    network: Name,
    key: SessionKey,
}

impl PasswordProven {
    /// Reads the last answer and checks it.
    pub fn accept(
        &self,
        answer: &[u8],
        own: &SignerKey,
        now: UnixTime,
    ) -> Result<Joined, JoinError> {
        let PasswordAnswer::Admitted(tagged) = read(answer)? else {
            return Err(UNEXPECTED);
        };
        if !self.key.verify(&tagged.tag, ADMISSION, &tagged.admission) {
            return Err(JoinError::Unproven(Rejection::BadSignature));
        }
        let admission: Admission =
            wire::decode_message(&tagged.admission).map_err(JoinError::Malformed)?;
        let genesis = admission.open_genesis().map_err(JoinError::Unproven)?;
        if *genesis.name() != self.network {
            return Err(JoinError::Unproven(Rejection::WrongNetwork));
        }
        admission
            .join(genesis, own, now)
            .map_err(JoinError::Unproven)
    }
}
