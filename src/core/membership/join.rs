//! Joining a network: the request, and the answer.
//!
//! 1. The joiner makes a [`JoinRequest`] from its invite. It is signed twice: by the joiner's
//!    identity, and by the invite's secret over that. The first says who wants in, the second that
//!    they hold the invite; each names the other, so neither can be moved to another request.
//! 2. The issuer opens it (the connection tells from whom it must be), looks up whether the invite
//!    was used, and lets its [`Issuer`](super::issuer::Issuer) decide.
//! 3. The joiner checks the [`JoinAnswer`] against its invite: the genesis must hash to the network
//!    id that the invite names, and the credential must hold under that genesis.
//!
//! What a stranger sends is a [`JoinMessage`]: such a request is one kind of it.

use std::net::Ipv4Addr;

use libp2p_identity::PeerId;
use minicbor::{Decode, Encode, bytes::ByteVec};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::{
    certificate::{Certificate, Credential},
    descriptor::Features,
    directory::Directory,
    envelope::{self, Domain},
    genesis::{Genesis, NetworkId},
    invite::{Invite, Terms},
    name::Name,
    network::Network,
    record::Member,
    refusal::JoinRefusal,
    rejection::Rejection,
    signer::{Signer, SignerKey},
    time::UnixTime,
    wire,
};

/// What the join protocol carries to a member: all that a node may ask before it is one itself.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum JoinMessage {
    /// To be admitted by an invite: a sealed [`JoinRequest`].
    #[n(0)]
    Invite(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
    /// To be given one's newest certificate: by a node that is or was a member, and is not accepted by
    /// others any more. The connection proves who asks.
    #[n(1)]
    Renewal,
}

impl JoinMessage {
    /// For the wire.
    pub fn encode(&self) -> Vec<u8> {
        wire::encode(self)
    }

    /// Reads a message; what is in it is still to be judged.
    pub fn decode(bytes: &[u8]) -> Result<JoinMessage, Rejection> {
        wire::decode(bytes)
    }
}

/// The longest name a request may ask for before it is made a [`Name`]: that of a host, RFC 1035.
const MAX_WANTED_NAME: usize = 253;

/// What the joiner's identity signs.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
struct Request {
    #[n(0)]
    network: NetworkId,
    #[n(1)]
    issuer: SignerKey,
    /// The envelope of the invite's terms.
    #[cbor(n(2), with = "minicbor::bytes")]
    terms: Vec<u8>,
    #[n(3)]
    wanted_name: String,
    #[n(4)]
    wanted_ipv4: Option<Ipv4Addr>,
}

/// What goes over the wire.
#[derive(Encode, Decode)]
#[cbor(map)]
struct Proven {
    /// The envelope of a [`Request`].
    #[cbor(n(0), with = "minicbor::bytes")]
    request: Vec<u8>,
    /// The invite's signature over [`proof_digest`].
    #[cbor(n(1), with = "minicbor::bytes")]
    proof: Vec<u8>,
}

/// What the holder of an invite signs to show that it holds it. All parts but the last are of
/// fixed length.
fn proof_digest(
    network: &NetworkId,
    joiner: &SignerKey,
    issuer: &SignerKey,
    request: &[u8],
) -> [u8; 32] {
    Sha256::new()
        .chain_update("hivevpn/v1/invite-proof")
        .chain_update(network.as_bytes())
        .chain_update(joiner.as_bytes())
        .chain_update(issuer.as_bytes())
        .chain_update(request)
        .finalize()
        .into()
}

/// A request to join whose signatures were found good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinRequest {
    request: Request,
    joiner: SignerKey,
    terms: Terms,
    invited_by: SignerKey,
}

impl JoinRequest {
    /// Asks to be admitted by an invite, under the name of the machine, say.
    pub fn seal(
        invite: &Invite,
        joiner: &Signer,
        wanted_name: &str,
        wanted_ipv4: Option<Ipv4Addr>,
    ) -> Vec<u8> {
        let request = Request {
            network: invite.terms().network,
            issuer: invite.issuer_key(),
            terms: invite.envelope().to_vec(),
            wanted_name: Name::sanitised(wanted_name)
                .map(|name| name.to_string())
                .unwrap_or_default(),
            wanted_ipv4,
        };
        let sealed = envelope::seal(joiner, Domain::JoinRequest, &request);
        let digest = proof_digest(&request.network, &joiner.key(), &request.issuer, &sealed);
        wire::encode(&Proven {
            proof: invite.signer().sign(&digest),
            request: sealed,
        })
    }

    /// Reads a request that came from the node `from` and checks its signatures.
    pub fn open(bytes: &[u8], from: &PeerId) -> Result<JoinRequest, JoinRefusal> {
        let request = JoinRequest::open_any(bytes).map_err(|_| JoinRefusal::Malformed)?;
        // A request overheard elsewhere is of no use: the connection proves who `from` is.
        if request.joiner.peer_id() != *from {
            return Err(JoinRefusal::Malformed);
        }
        Ok(request)
    }

    fn open_any(bytes: &[u8]) -> Result<JoinRequest, Rejection> {
        let proven: Proven = wire::decode(bytes)?;
        let opened = envelope::open::<Request>(Domain::JoinRequest, &proven.request)?;
        let (request, joiner) = (opened.payload, opened.signer);
        if request.wanted_name.len() > MAX_WANTED_NAME {
            return Err(Rejection::Malformed("the wanted name is too long"));
        }
        let (terms, invited_by) = Terms::open(&request.terms)?;
        if request.network != terms.network {
            return Err(Rejection::WrongNetwork);
        }
        if request.issuer != invited_by {
            return Err(Rejection::WrongIssuer);
        }
        let digest = proof_digest(&request.network, &joiner, &request.issuer, &proven.request);
        if !terms.id.verify(&digest, &proven.proof) {
            return Err(Rejection::BadSignature);
        }
        Ok(JoinRequest {
            request,
            joiner,
            terms,
            invited_by,
        })
    }

    /// The id of the invite, to look up its redemption by.
    pub fn invite_id(&self) -> SignerKey {
        self.terms.id
    }

    /// The node that wants in.
    pub fn joiner(&self) -> SignerKey {
        self.joiner
    }

    pub(super) fn terms(&self) -> &Terms {
        &self.terms
    }

    pub(super) fn invited_by(&self) -> SignerKey {
        self.invited_by
    }

    /// What it wants to be called; something, if it asks for nothing that is a name.
    pub(super) fn wanted_name(&self) -> Name {
        Name::sanitised(&self.request.wanted_name)
            .unwrap_or_else(|| Name::parse("node").expect("is a name"))
    }

    pub(super) fn wanted_ipv4(&self) -> Option<Ipv4Addr> {
        self.request.wanted_ipv4
    }
}

/// The issuer's answer to a [`JoinRequest`].
#[derive(Encode, Decode)]
pub enum JoinAnswer {
    /// The joiner is a member.
    #[n(0)]
    Admitted(#[n(0)] Admission),
    /// It is not, for this reason.
    #[n(1)]
    Refused(#[n(0)] JoinRefusal),
    /// To a [`JoinMessage::Renewal`].
    #[n(2)]
    Renewed(#[n(0)] Renewal),
}

/// What a member has for a node that may have missed something.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Renewal {
    /// The newest credential of the node that asked; none when it was expelled.
    #[n(0)]
    pub credential: Option<Credential>,
    /// Encoded notices that explain it: they prove themselves.
    #[n(1)]
    pub(super) notices: Vec<ByteVec>,
}

impl Renewal {
    /// A credential, or the proof that there is none to have.
    pub fn new(credential: Option<Credential>, notices: Vec<Vec<u8>>) -> Renewal {
        Renewal {
            credential,
            notices: notices.into_iter().map(ByteVec::from).collect(),
        }
    }

    /// The notices, encoded.
    pub fn notices(&self) -> impl Iterator<Item = &[u8]> {
        self.notices.iter().map(|notice| notice.as_slice())
    }
}

/// All that a new member needs to take part. Contains the discovery secret.
#[derive(Clone, Encode, Decode)]
#[cbor(map)]
pub struct Admission {
    #[cbor(n(0), with = "minicbor::bytes")]
    genesis: Vec<u8>,
    #[cbor(n(1), with = "wire::secret")]
    discovery_secret: Zeroizing<[u8; 32]>,
    #[n(2)]
    credential: Credential,
    /// Members to begin with, the issuer first, then those that relay. Synchronisation brings the rest.
    #[n(3)]
    records: Vec<ByteVec>,
    /// Notices to begin with: who was expelled, who may admit, what the policy is.
    #[n(4)]
    notices: Option<Vec<ByteVec>>,
}

impl JoinAnswer {
    /// The answer to a joiner that was given `credential`.
    pub fn admitted(
        network: &Network,
        credential: Credential,
        issuer: &PeerId,
        directory: &Directory,
    ) -> JoinAnswer {
        let (relays, others): (Vec<&Member>, Vec<&Member>) = directory
            .members()
            .filter(|member| member.peer_id != *issuer)
            .partition(|member| member.descriptor.features.include(Features::RELAY));
        let others = relays.into_iter().chain(others);
        let issuer_first = std::iter::once(issuer).chain(others.map(|member| &member.peer_id));
        let beginning = directory.beginning(issuer_first);
        JoinAnswer::Admitted(Admission {
            genesis: network.genesis().envelope().to_vec(),
            discovery_secret: network.discovery_secret().clone(),
            credential,
            records: beginning.records,
            notices: Some(beginning.notices),
        })
    }

    /// For the wire. May contain the discovery secret.
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(wire::encode(self))
    }

    /// Reads an answer, to an `own` request made from `invite`, and checks it.
    pub fn accept(
        bytes: &[u8],
        invite: &Invite,
        own: &SignerKey,
        now: UnixTime,
    ) -> Result<Joined, JoinError> {
        match wire::decode_message(bytes).map_err(JoinError::Malformed)? {
            JoinAnswer::Admitted(admission) => admission.accept(invite, own, now),
            JoinAnswer::Refused(refusal) => Err(JoinError::Refused(refusal)),
            JoinAnswer::Renewed(_) => Err(JoinError::Malformed(ANOTHER_ANSWER)),
        }
    }

    /// Reads the answer to a [`JoinMessage::Renewal`]. What is in it is still to be judged.
    pub fn renewed(bytes: &[u8]) -> Result<Renewal, JoinError> {
        match wire::decode_message(bytes).map_err(JoinError::Malformed)? {
            JoinAnswer::Renewed(renewal) => Ok(renewal),
            JoinAnswer::Refused(refusal) => Err(JoinError::Refused(refusal)),
            JoinAnswer::Admitted(_) => Err(JoinError::Malformed(ANOTHER_ANSWER)),
        }
    }
}

const ANOTHER_ANSWER: Rejection = Rejection::Malformed("it answers another question");

impl Admission {
    /// The genesis that is in it, of whatever network.
    pub(super) fn open_genesis(&self) -> Result<Genesis, Rejection> {
        Genesis::open(&self.genesis)
    }

    /// What it certifies, whoever that is for and whenever it is valid.
    pub(super) fn open_certificate(&self, genesis: &Genesis) -> Result<Certificate, Rejection> {
        self.credential
            .open(genesis)
            .map(|(certificate, _)| certificate)
    }

    /// The same with the first record, and as many others as take up to `room` bytes. Notices come with the first
    /// member that is met.
    pub(super) fn with_records_up_to(&self, room: usize) -> Admission {
        let mut left = room;
        let (first, others) = self.records.split_at(self.records.len().min(1));
        let fits = |record: &&ByteVec| {
            let fits = record.len() <= left;
            left = left.saturating_sub(record.len());
            fits
        };
        Admission {
            records: first
                .iter()
                .chain(others.iter().take_while(fits))
                .cloned()
                .collect(),
            notices: None,
            ..self.clone()
        }
    }

    #[cfg(test)]
    pub(super) fn credential_mut(&mut self) -> &mut Credential {
        &mut self.credential
    }

    fn accept(self, invite: &Invite, own: &SignerKey, now: UnixTime) -> Result<Joined, JoinError> {
        let genesis = Genesis::open(&self.genesis).map_err(JoinError::Untrustworthy)?;
        if genesis.id() != invite.terms().network {
            return Err(JoinError::Untrustworthy(Rejection::WrongNetwork));
        }
        self.join(genesis, own, now)
            .map_err(JoinError::Untrustworthy)
    }

    /// Takes part in the network of `genesis`, which is the right one as far as the caller can tell.
    pub(super) fn join(
        self,
        genesis: Genesis,
        own: &SignerKey,
        now: UnixTime,
    ) -> Result<Joined, Rejection> {
        let (certificate, _) = self.credential.open(&genesis)?;
        // A machine without a battery-backed clock starts in 1970. The issuer has signed this
        // under the genesis we were told to trust, so its not-before has come.
        let time = now.max(certificate.not_before);
        let certificate = self.credential.verify(&genesis, time, &own.peer_id())?;
        Ok(Joined {
            network: Network::new(genesis, self.discovery_secret),
            credential: self.credential,
            certificate,
            records: self.records.into_iter().map(Vec::from).collect(),
            notices: self.notices.into_iter().flatten().map(Vec::from).collect(),
            time,
        })
    }
}

/// What a new member has in hand.
#[derive(Debug)]
pub struct Joined {
    /// The network, to keep.
    pub network: Network,
    /// Its own credential, to keep.
    pub credential: Credential,
    /// What that certifies.
    pub certificate: Certificate,
    /// Records of members, the issuer's first; for [`Directory::admit`] to check.
    pub records: Vec<Vec<u8>>,
    /// Notices; for [`Directory::take_notice`] to check.
    pub notices: Vec<Vec<u8>>,
    /// The time this is valid at: later than the clock says if the clock is behind. For
    /// [`TimeFloor::saw`](super::time::TimeFloor::saw).
    pub time: UnixTime,
}

/// Joining did not work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// The issuer said no.
    #[error(transparent)]
    Refused(JoinRefusal),
    /// The answer cannot be read.
    #[error("the answer cannot be read ({0}): update hivevpn on both nodes")]
    Malformed(Rejection),
    /// The answer is not what the invite promised.
    #[error("the answer cannot be trusted ({0}): ask for a new invite, and tell who made this one")]
    Untrustworthy(Rejection),
}
