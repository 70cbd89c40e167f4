//! What members can compute and strangers cannot: keyed hashes under the network's discovery secret.
//!
//! The secret admits nobody; certificates do that. It hides: a node shows its certificate only to
//! someone who knows the secret, the network's DHT protocol cannot be probed for, and record keys
//! do not tell whose record they are.

use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use libp2p_identity::PeerId;
use sha2::Sha256;
use zeroize::Zeroizing;

use super::network::Network;
use crate::registry::Key;

impl Network {
    /// Proof by `prover` to `verifier` that it knows the network: both ids and the verifier's nonce
    /// are in it, so it can be neither reflected, relayed to a third node nor replayed.
    pub fn auth_tag(&self, prover: &PeerId, verifier: &PeerId, nonce: &[u8; 32]) -> [u8; 32] {
        self.auth_mac(prover, verifier, nonce)
            .finalize()
            .into_bytes()
            .into()
    }

    /// Whether `tag` is the proof by `prover` to `verifier`; takes the same time for every tag.
    pub fn verify_auth_tag(
        &self,
        tag: &[u8; 32],
        prover: &PeerId,
        verifier: &PeerId,
        nonce: &[u8; 32],
    ) -> bool {
        self.auth_mac(prover, verifier, nonce)
            .verify_slice(tag)
            .is_ok()
    }

    /// What sets the network's DHT protocol apart from every other: 16 hexadecimal digits.
    pub fn kad_protocol_suffix(&self) -> String {
        let mac = self.mac(&[b"kad"]).finalize().into_bytes();
        mac[..8].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The DHT key of a member's record.
    pub fn record_key(&self, peer: &PeerId) -> [u8; 32] {
        let mac = self.mac(&[b"member", &peer.to_bytes()]);
        mac.finalize().into_bytes().into()
    }

    /// What the decoy of a node without a password is made from: the same in every run.
    pub fn decoy_seed(&self, keeper: &PeerId) -> Zeroizing<[u8; 32]> {
        let mac = self.mac(&[b"hivevpn/v1/password-decoy", &keeper.to_bytes()]);
        Zeroizing::new(mac.finalize().into_bytes().into())
    }

    /// Where an entry of the registry lies in the DHT.
    pub fn entry_slot(&self, owner: &PeerId, key: &Key) -> [u8; 32] {
        let mac = self.mac(&[b"registry", &owner.to_bytes(), key.as_str().as_bytes()]);
        mac.finalize().into_bytes().into()
    }

    /// A key that every member can derive, for this purpose and no other.
    pub(crate) fn derive(&self, purpose: &[u8]) -> Zeroizing<[u8; 32]> {
        let mut key = Zeroizing::new([0; 32]);
        Hkdf::<Sha256>::new(None, &self.discovery_secret()[..])
            .expand_multi_info(&[purpose, self.id().as_bytes()], &mut key[..])
            .expect("HKDF gives up to 8160 bytes");
        key
    }

    fn auth_mac(&self, prover: &PeerId, verifier: &PeerId, nonce: &[u8; 32]) -> Hmac<Sha256> {
        // A peer id carries its own length, so the parts cannot be divided in another way.
        self.mac(&[
            b"hivevpn/v1/auth",
            &prover.to_bytes(),
            &verifier.to_bytes(),
            nonce,
        ])
    }

    fn mac(&self, parts: &[&[u8]]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.discovery_secret()[..])
            .expect("HMAC takes keys of any length");
        parts.iter().for_each(|part| mac.update(part));
        mac
    }
}

#[cfg(test)]
mod tests {
    use crate::membership::testing::{Hive, signer};

    #[test]
    fn a_tag_proves_one_thing_to_one_peer_once() {
        let network = Hive::founded().network;
        let [a, b, c] = [1, 2, 3].map(|n| signer(n).peer_id());
        let tag = network.auth_tag(&a, &b, &[7; 32]);
        assert!(network.verify_auth_tag(&tag, &a, &b, &[7; 32]));
        assert!(
            !network.verify_auth_tag(&tag, &b, &a, &[7; 32]),
            "reflected"
        );
        assert!(!network.verify_auth_tag(&tag, &a, &c, &[7; 32]), "relayed");
        assert!(!network.verify_auth_tag(&tag, &a, &b, &[8; 32]), "replayed");
    }

    #[test]
    fn another_networks_secret_makes_other_tags() {
        let (ours, theirs) = (Hive::founded().network, Hive::founded_as(99).network);
        let [a, b] = [1, 2].map(|n| signer(n).peer_id());
        let tag = theirs.auth_tag(&a, &b, &[7; 32]);
        assert!(!ours.verify_auth_tag(&tag, &a, &b, &[7; 32]));
        assert_ne!(ours.kad_protocol_suffix(), theirs.kad_protocol_suffix());
        assert_ne!(ours.record_key(&a), theirs.record_key(&a));
        assert_ne!(ours.record_key(&a), ours.record_key(&b));
        assert_eq!(ours.kad_protocol_suffix().len(), 16);
    }
}
