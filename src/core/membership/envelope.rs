//! Signed objects: the only file that knows libp2p's signed envelope (RFC 0002).
//!
//! An envelope holds a payload, the key of its signer and a signature over the payload and the
//! [`Domain`], so an object of one kind is never taken for one of another. The signature is checked
//! over the bytes received. Envelopes that re-encode differently are refused: bytes nobody signed
//! (unknown protobuf fields, say) would otherwise travel with them.

use libp2p_core::signed_envelope::{ReadPayloadError, SignedEnvelope};
use minicbor::{Decode, Encode};

use super::{
    rejection::Rejection,
    signer::{Signer, SignerKey},
    wire,
};

/// RFC 0002's payload type, the same for all: the kinds differ in their domain.
const PAYLOAD_TYPE: &[u8] = b"/hivevpn/cbor";

/// What kind of object a signature is for.
///
/// Updates will have one of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Domain {
    /// A network's [`Genesis`](super::genesis::Genesis).
    Genesis,
    /// A [`Delegation`](super::delegation::Delegation) by an authority.
    Delegation,
    /// A member's [`Certificate`](super::certificate::Certificate).
    Member,
    /// The signed [`Terms`](super::invite::Terms) of an invite.
    Invite,
    /// A [`JoinRequest`](super::join::JoinRequest).
    JoinRequest,
    /// A node's [`Descriptor`](super::descriptor::Descriptor) of itself.
    Descriptor,
    /// A [`Capability`](super::capability::Capability) on a node.
    Capability,
    /// A [`DelegationEnd`](super::notice::DelegationEnd) by an authority.
    DelegationEnd,
    /// A [`Revocation`](super::notice::Revocation) of a member's key.
    Revocation,
    /// A [`PolicyUpdate`](super::notice::PolicyUpdate).
    Policy,
    /// An [`Entry`](crate::registry::Entry) of the registry.
    Entry,
}

impl Domain {
    /// The string that goes into the signature.
    pub fn as_str(self) -> &'static str {
        match self {
            Domain::Genesis => "hivevpn/v1/genesis",
            Domain::Delegation => "hivevpn/v1/delegation",
            Domain::Member => "hivevpn/v1/member",
            Domain::Invite => "hivevpn/v1/invite",
            Domain::JoinRequest => "hivevpn/v1/join-request",
            Domain::Descriptor => "hivevpn/v1/descriptor",
            Domain::Capability => "hivevpn/v1/capability",
            Domain::DelegationEnd => "hivevpn/v1/delegation-end",
            Domain::Revocation => "hivevpn/v1/revocation",
            Domain::Policy => "hivevpn/v1/policy",
            Domain::Entry => "hivevpn/v1/entry",
        }
    }
}

/// A signed object whose signature was found good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened<T> {
    /// What was signed.
    pub payload: T,
    /// Who signed it. Whether they may is for the caller to judge.
    pub signer: SignerKey,
    /// The payload as it was signed.
    pub bytes: Vec<u8>,
}

/// Signs `payload` as an object of the kind `domain`.
pub fn seal<T: Encode<()>>(signer: &Signer, domain: Domain, payload: &T) -> Vec<u8> {
    seal_bytes(signer, domain, wire::encode(payload))
}

/// Opens an object of the kind `domain`: checks the signature, then reads the payload.
pub fn open<T: for<'b> Decode<'b, ()>>(
    domain: Domain,
    bytes: &[u8],
) -> Result<Opened<T>, Rejection> {
    let (payload, signer) = open_bytes(domain, bytes)?;
    Ok(Opened {
        payload: wire::decode(&payload)?,
        signer,
        bytes: payload,
    })
}

fn seal_bytes(signer: &Signer, domain: Domain, payload: Vec<u8>) -> Vec<u8> {
    SignedEnvelope::new(
        signer.keypair(),
        domain.as_str().to_owned(),
        PAYLOAD_TYPE.to_vec(),
        payload,
    )
    .expect("ed25519 signs everything")
    .into_protobuf_encoding()
}

fn open_bytes(domain: Domain, bytes: &[u8]) -> Result<(Vec<u8>, SignerKey), Rejection> {
    if bytes.len() > wire::MAX_OBJECT {
        return Err(Rejection::TooLarge {
            limit: wire::MAX_OBJECT,
        });
    }
    let Ok(envelope) = SignedEnvelope::from_protobuf_encoding(bytes) else {
        return Err(Rejection::NotAnEnvelope);
    };
    if envelope.clone().into_protobuf_encoding() != bytes {
        return Err(Rejection::NotAnEnvelope);
    }
    match envelope.payload_and_signing_key(domain.as_str().to_owned(), PAYLOAD_TYPE) {
        Ok((payload, key)) => {
            let signer = SignerKey::of_public(key).map_err(|_| Rejection::WrongKeyType)?;
            Ok((payload.to_vec(), signer))
        }
        Err(ReadPayloadError::UnexpectedPayloadType { .. }) => Err(Rejection::WrongKind),
        Err(ReadPayloadError::InvalidSignature) => Err(Rejection::BadSignature),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn signer() -> Signer {
        Signer::from_seed(&[1; 32])
    }

    #[test]
    fn what_was_sealed_opens_and_names_its_signer() {
        let sealed = seal(&signer(), Domain::Member, &42u64);
        let opened = open::<u64>(Domain::Member, &sealed).unwrap();
        assert_eq!(opened.payload, 42);
        assert_eq!(opened.signer, signer().key());
        assert_eq!(opened.bytes, [0x18, 42]);
    }

    #[test]
    fn an_object_of_one_kind_is_not_taken_for_another() {
        let sealed = seal(&signer(), Domain::Descriptor, &42u64);
        assert_eq!(
            open::<u64>(Domain::Member, &sealed),
            Err(Rejection::BadSignature)
        );
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let sealed = seal(&signer(), Domain::Member, &42u64);
        for at in 0..sealed.len() * 8 {
            let mut bent = sealed.clone();
            bent[at / 8] ^= 1 << (at % 8);
            assert!(open::<u64>(Domain::Member, &bent).is_err(), "bit {at}");
        }
    }

    #[test]
    fn bytes_that_nobody_signed_do_not_travel_along() {
        let mut sealed = seal(&signer(), Domain::Member, &42u64);
        // Protobuf field 15, a string of one byte: decoders skip it.
        sealed.extend_from_slice(&[0x7a, 0x01, b'x']);
        assert_eq!(
            open::<u64>(Domain::Member, &sealed),
            Err(Rejection::NotAnEnvelope)
        );
    }

    #[test]
    fn a_signature_does_not_excuse_bad_cbor() {
        let twice = seal_bytes(&signer(), Domain::Member, b"\xa2\x00\x01\x00\x02".to_vec());
        assert_eq!(
            open::<u64>(Domain::Member, &twice),
            Err(Rejection::Malformed("map keys do not ascend"))
        );
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(open::<u64>(Domain::Member, &bytes).is_err());
        }
    }
}
