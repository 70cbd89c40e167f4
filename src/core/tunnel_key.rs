//! The pre-shared keys of the tunnels, and the secrets that they come from.
//!
//! WireGuard's handshake rests on X25519 alone, unless both ends know a pre-shared key. Members always have one:
//!
//! ```text
//! greeting  HKDF-SHA256(network's discovery secret,
//!                       "hivevpn/v1/psk" │ network id │ lower WireGuard key │ higher)
//! session   HKDF-SHA256(network's discovery secret │ secret that the pair agreed on,
//!                       "hivevpn/v1/psk/session" │ suite │ network id │ offering WireGuard key │ accepting
//!                       │ session index of the offering side │ of the accepting │ SHA-256(offer │ acceptance))
//! ```
//!
//! The first is the same for a pair as long as their keys are, so it keeps out whoever does not know the network, and no
//! more. Under it two nodes agree on the second by the [exchange](crate::key_exchange), with a fresh ML-KEM-768 key (FIPS
//! 203): whoever records everything, learns the network's secret later and breaks X25519 still has ML-KEM to break.
//!
//! Secrets are wiped when they are dropped, and drawn from a ratchet that cannot be turned back.

mod kem;

use hkdf::Hkdf;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

pub use self::kem::{ACCEPTANCE, OFFER, SUITE, Secret, accept, name, offer, open};
use crate::session::{Identity, WireGuardKey};

/// A pre-shared key (whitepaper §5.4).
pub type Psk = Zeroizing<[u8; 32]>;

/// What all tunnels of a node are keyed with.
pub struct Keyring {
    identity: Identity,
    discovery: Zeroizing<[u8; 32]>,
    network: [u8; 32],
    entropy: Entropy,
}

/// What both sides of an exchange know besides the secret.
#[derive(Debug, Clone, Copy)]
pub struct Agreement<'a> {
    /// WireGuard key and session index (24 bits) of the side that made the offer.
    pub offering: (WireGuardKey, u32),
    /// The same of the side that accepted it.
    pub accepting: (WireGuardKey, u32),
    /// The offer as it was sent.
    pub offer: &'a [u8],
    /// What was sent in return.
    pub acceptance: &'a [u8],
}

impl Keyring {
    /// The keys of a node in the network with this id and discovery secret. `seed` is random and secret: all ephemeral
    /// keys of the exchanges come from it.
    pub fn new(
        identity: Identity,
        network: [u8; 32],
        discovery: Zeroizing<[u8; 32]>,
        seed: Zeroizing<[u8; 32]>,
    ) -> Self {
        Self {
            identity,
            discovery,
            network,
            entropy: Entropy(seed),
        }
    }

    /// Our WireGuard key.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Another WireGuard key of ours, for the sessions that begin from now on.
    pub fn set_identity(&mut self, identity: Identity) {
        self.identity = identity;
    }

    /// Whether it is ours to make the offer when keys are exchanged with this peer: one of two has to begin.
    pub fn offers_to(&self, peer: &WireGuardKey) -> bool {
        self.identity.public() < *peer
    }

    /// The pre-shared key of the session that we and this peer exchange keys in.
    pub fn greeting_psk(&self, peer: &WireGuardKey) -> Psk {
        let us = self.identity.public();
        let (lower, higher) = (us.min(*peer), us.max(*peer));
        expand(
            &self.discovery[..],
            &[b"hivevpn/v1/psk", &self.network, &lower.0, &higher.0],
        )
    }

    /// The pre-shared key of the session that two nodes agreed on.
    pub fn session_psk(&self, shared: &[u8; 32], agreement: &Agreement<'_>) -> Psk {
        let mut secrets = Zeroizing::new([0; 64]);
        secrets[..32].copy_from_slice(&self.discovery[..]);
        secrets[32..].copy_from_slice(shared);
        let transcript = Sha256::new()
            .chain_update(agreement.offer)
            .chain_update(agreement.acceptance)
            .finalize();
        let ((offering, one), (accepting, other)) = (agreement.offering, agreement.accepting);
        expand(
            &secrets[..],
            &[
                b"hivevpn/v1/psk/session",
                &[SUITE],
                &self.network,
                &offering.0,
                &accepting.0,
                &one.to_be_bytes(),
                &other.to_be_bytes(),
                &transcript,
            ],
        )
    }

    /// Random bytes for one use.
    pub fn draw(&mut self) -> Zeroizing<[u8; 64]> {
        self.entropy.draw()
    }
}

/// A source of secret random bytes. What it gave before cannot be computed from what it is now.
struct Entropy(Zeroizing<[u8; 32]>);

impl Entropy {
    fn draw(&mut self) -> Zeroizing<[u8; 64]> {
        let drawn = expand(&self.0[..], &[b"hivevpn/v1/entropy/draw"]);
        self.0 = expand(&self.0[..], &[b"hivevpn/v1/entropy/next"]);
        drawn
    }
}

fn expand<const LENGTH: usize>(secret: &[u8], info: &[&[u8]]) -> Zeroizing<[u8; LENGTH]> {
    let mut output = Zeroizing::new([0; LENGTH]);
    Hkdf::<Sha256>::new(None, secret)
        .expand_multi_info(info, &mut output[..])
        .expect("HKDF gives up to 8160 bytes");
    output
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keyring(number: u8, network: u8, discovery: u8) -> Keyring {
        Keyring::new(
            Identity::new([number; 32]),
            [network; 32],
            Zeroizing::new([discovery; 32]),
            Zeroizing::new([number; 32]),
        )
    }

    fn agreement<'a>(a: &Keyring, b: &Keyring, offer: &'a [u8]) -> Agreement<'a> {
        Agreement {
            offering: (a.identity.public(), 4),
            accepting: (b.identity.public(), 8),
            offer,
            acceptance: b"acceptance",
        }
    }

    #[test]
    fn both_ends_of_a_pair_derive_the_same_greeting_and_no_other_pair_or_network_does() {
        let (a, b, c) = (keyring(1, 7, 9), keyring(2, 7, 9), keyring(3, 7, 9));
        let (key_a, key_b) = (a.identity.public(), b.identity.public());
        let psk = a.greeting_psk(&key_b);
        assert_eq!(*psk, *b.greeting_psk(&key_a));
        assert_ne!(*psk, *c.greeting_psk(&key_a));
        assert_ne!(*psk, *keyring(1, 8, 9).greeting_psk(&key_b));
        assert_ne!(*psk, *keyring(1, 7, 8).greeting_psk(&key_b));
    }

    #[test]
    fn of_two_exactly_one_offers() {
        let (a, b) = (keyring(1, 7, 9), keyring(2, 7, 9));
        assert_ne!(
            a.offers_to(&b.identity.public()),
            b.offers_to(&a.identity.public())
        );
    }

    #[test]
    fn a_session_key_depends_on_everything_that_was_agreed() {
        let (a, b) = (keyring(1, 7, 9), keyring(2, 7, 9));
        let known = agreement(&a, &b, b"offer");
        let psk = a.session_psk(&[1; 32], &known);
        assert_eq!(*psk, *b.session_psk(&[1; 32], &known));
        let mut others = vec![
            a.session_psk(&[2; 32], &known),
            a.session_psk(&[1; 32], &agreement(&a, &b, b"other")),
            a.session_psk(&[1; 32], &agreement(&b, &a, b"offer")),
            keyring(1, 7, 8).session_psk(&[1; 32], &known),
            a.greeting_psk(&b.identity.public()),
        ];
        for (one, other) in [(5, 8), (4, 9)] {
            let mut changed = known;
            (changed.offering.1, changed.accepting.1) = (one, other);
            others.push(a.session_psk(&[1; 32], &changed));
        }
        assert!(others.iter().all(|other| **other != *psk));
    }

    #[test]
    fn what_is_drawn_never_comes_again() {
        let mut entropy = Entropy(Zeroizing::new([1; 32]));
        let drawn: Vec<_> = (0..100).map(|_| *entropy.draw()).collect();
        for (at, one) in drawn.iter().enumerate() {
            assert!(!drawn[..at].contains(one));
        }
    }

    #[test]
    fn the_one_who_accepts_an_offer_and_the_one_who_made_it_share_a_secret() {
        let mut keyring = keyring(1, 7, 9);
        let (secret, offered) = offer(keyring.draw());
        let (acceptance, theirs) = accept(&offered, &keyring.draw()).expect("a sound offer");
        assert_eq!((offered.len(), acceptance.len()), (OFFER, ACCEPTANCE));
        let ours = open(&secret, &acceptance).expect("a sound acceptance");
        assert_eq!(*ours, *theirs);
    }

    #[cfg(feature = "pq")]
    #[test]
    fn a_flipped_bit_of_the_ciphertext_leads_to_another_secret() {
        let mut keyring = keyring(1, 7, 9);
        let (secret, offered) = offer(keyring.draw());
        let (mut acceptance, theirs) = accept(&offered, &keyring.draw()).expect("a sound offer");
        acceptance[500] ^= 1;
        let ours = open(&secret, &acceptance).expect("as long as one");
        assert_ne!(*ours, *theirs);
    }

    /// FIPS 203 §7.2: an encapsulation key whose numbers are not below the modulus must be refused.
    #[cfg(feature = "pq")]
    #[test]
    fn an_offer_that_is_no_key_is_refused() {
        let mut keyring = keyring(1, 7, 9);
        assert!(accept(&[0xff; OFFER], &keyring.draw()).is_none());
        assert!(accept(&[0; OFFER - 1], &keyring.draw()).is_none());
        let (secret, _) = offer(keyring.draw());
        assert!(open(&secret, &[0; ACCEPTANCE + 1]).is_none());
    }
}
