//! Who signs: nodes, authorities and invites all hold an ed25519 key.
//!
//! libp2p knows more key types; hivevpn accepts this one only, so a [`PeerId`] *is* a key (it
//! contains it whole) and every signer has 32 bytes.

use std::fmt;

use libp2p_identity::{Keypair, PeerId, PublicKey, ed25519};
use minicbor::{Decode, Decoder, Encode, Encoder, bytes::ByteArray, decode, encode};
use zeroize::Zeroizing;

/// libp2p's peer id spec: a short key is embedded by the identity multihash (0x00, 36 bytes) of its
/// protobuf form, which says that it is ed25519 (field 1 = 1) and what it is (field 2, 32 bytes).
const EMBEDDED_ED25519: [u8; 6] = [0x00, 0x24, 0x08, 0x01, 0x12, 0x20];

/// The ed25519 public key of a node, an authority or an invite.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SignerKey([u8; 32]);

/// Someone who can sign.
#[derive(Clone)]
pub struct Signer {
    keypair: Keypair,
    key: SignerKey,
}

/// A key is of a type other than ed25519, or not a key at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the key is not an ed25519 key, the only type that hivevpn uses")]
pub struct NotEd25519;

impl SignerKey {
    /// The key with these bytes, if they are a point of the curve.
    pub fn from_bytes(bytes: [u8; 32]) -> Result<SignerKey, NotEd25519> {
        match ed25519::PublicKey::try_from_bytes(&bytes) {
            Ok(_) => Ok(SignerKey(bytes)),
            Err(_) => Err(NotEd25519),
        }
    }

    /// The key that a peer id contains.
    pub fn of_peer(peer: &PeerId) -> Result<SignerKey, NotEd25519> {
        let encoded = peer.to_bytes();
        let key = encoded.strip_prefix(&EMBEDDED_ED25519).ok_or(NotEd25519)?;
        SignerKey::from_bytes(key.try_into().map_err(|_| NotEd25519)?)
    }

    /// The key as libp2p holds it, if it is of the type we accept.
    pub fn of_public(key: &PublicKey) -> Result<SignerKey, NotEd25519> {
        match key.clone().try_into_ed25519() {
            Ok(key) => Ok(SignerKey(key.to_bytes())),
            Err(_) => Err(NotEd25519),
        }
    }

    /// The peer id of the node with this key.
    pub fn peer_id(&self) -> PeerId {
        let mut encoded = [0; 38];
        encoded[..6].copy_from_slice(&EMBEDDED_ED25519);
        encoded[6..].copy_from_slice(&self.0);
        PeerId::from_bytes(&encoded).expect("what libp2p's peer id spec prescribes")
    }

    /// The 32 bytes of RFC 8032.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether this key made `signature` over `message`.
    pub(super) fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        ed25519::PublicKey::try_from_bytes(&self.0).is_ok_and(|key| key.verify(message, signature))
    }
}

impl Signer {
    /// Signs with a libp2p key pair, which must be ed25519.
    pub fn new(keypair: Keypair) -> Result<Signer, NotEd25519> {
        let key = SignerKey::of_public(&keypair.public())?;
        Ok(Signer { keypair, key })
    }

    /// The signer with this secret seed (RFC 8032's 32-byte private key).
    pub fn from_seed(seed: &[u8; 32]) -> Signer {
        let mut seed = Zeroizing::new(*seed);
        let keypair = Keypair::ed25519_from_bytes(&mut *seed).expect("any 32 bytes are a seed");
        Signer::new(keypair).expect("made as ed25519 one line above")
    }

    /// The public half.
    pub fn key(&self) -> SignerKey {
        self.key
    }

    /// The peer id of the node that signs with this.
    pub fn peer_id(&self) -> PeerId {
        self.key.peer_id()
    }

    /// What libp2p signs with.
    pub(super) fn keypair(&self) -> &Keypair {
        &self.keypair
    }

    /// A 64-byte ed25519 signature.
    pub(super) fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.keypair
            .sign(message)
            .expect("ed25519 signs everything")
    }
}

impl fmt::Display for SignerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.peer_id(), f)
    }
}

impl fmt::Debug for SignerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Signer").field(&self.key).finish()
    }
}

impl<C> Encode<C> for SignerKey {
    fn encode<W: encode::Write>(
        &self,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), encode::Error<W::Error>> {
        e.bytes(&self.0)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for SignerKey {
    fn decode(d: &mut Decoder<'b>, ctx: &mut C) -> Result<Self, decode::Error> {
        let bytes = ByteArray::<32>::decode(d, ctx)?;
        SignerKey::from_bytes(bytes.into()).map_err(decode::Error::message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_id_contains_its_key() {
        let signer = Signer::from_seed(&[7; 32]);
        let peer = signer.peer_id();
        assert_eq!(SignerKey::of_peer(&peer), Ok(signer.key()));
        assert_eq!(signer.keypair().public().to_peer_id(), peer);
    }

    #[test]
    fn a_random_peer_id_contains_no_key() {
        let hashed = "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N";
        assert_eq!(
            SignerKey::of_peer(&hashed.parse().unwrap()),
            Err(NotEd25519)
        );
    }

    #[test]
    fn only_the_owner_of_a_key_signs_for_it() {
        let (ours, theirs) = (Signer::from_seed(&[1; 32]), Signer::from_seed(&[2; 32]));
        let signature = ours.sign(b"message");
        assert!(ours.key().verify(b"message", &signature));
        assert!(!ours.key().verify(b"another", &signature));
        assert!(!theirs.key().verify(b"message", &signature));
        assert!(!ours.key().verify(b"message", &signature[..63]));
    }

    #[test]
    fn the_secret_does_not_show_in_debug_output() {
        let shown = format!("{:?}", Signer::from_seed(&[0xab; 32]));
        assert!(!shown.to_lowercase().contains("abab"), "{shown}");
        assert!(!shown.contains("171, 171"), "{shown}");
    }
}
