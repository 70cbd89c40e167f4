//! How entries look to whoever is no member: noise, in a place that tells nothing.
//!
//! ```text
//! slot    HMAC-SHA256(network's discovery secret, "registry" │ owner │ key)
//! sealed  0x01 │ nonce (24) │ XChaCha20-Poly1305(envelope), with 0x01 and the network's id as associated data
//! key     HKDF-SHA256(network's discovery secret, "hivevpn/v1/registry/seal" │ network id)
//! nonce   the first 24 bytes of HMAC-SHA256(HKDF-SHA256(…, "hivevpn/v1/registry/nonce" │ network id), envelope)
//! ```
//!
//! Sealing hides, it proves nothing: every member has the key. What proves is the signature in the envelope. The envelope
//! names owner and key as well, and whoever reads it compares them with the slot it was found in, so nothing is gained by
//! moving sealed bytes to another slot.
//!
//! The nonce is synthetic, as in SIV: a keyed hash of all that is encrypted, by a key of its own. The same nonce comes
//! again only with the same envelope, of which then the same bytes come out, and all that anybody learns is that they are
//! the same; that two envelopes share a nonce is as improbable as that two random ones do. In return no random numbers are
//! needed, and an envelope has one sealed form only: another nonce is refused.

use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use hmac::{Hmac, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::membership::{Network, Rejection};

/// What sealed entries begin with. Members' records, which lie in the same DHT, begin with another byte.
pub const VERSION: u8 = 0x01;
/// Bytes of a sealed entry.
pub const MAX_SEALED: usize = 8 * 1024;

const NONCE: usize = 24;
const TAG: usize = 16;

/// The keys that a network's entries are sealed with.
pub struct Sealing {
    key: Zeroizing<[u8; 32]>,
    nonce_key: Zeroizing<[u8; 32]>,
    associated: [u8; 33],
}

impl Sealing {
    /// Of this network.
    pub fn of(network: &Network) -> Sealing {
        let mut associated = [VERSION; 33];
        associated[1..].copy_from_slice(network.id().as_bytes());
        Sealing {
            key: network.derive(b"hivevpn/v1/registry/seal"),
            nonce_key: network.derive(b"hivevpn/v1/registry/nonce"),
            associated,
        }
    }

    /// Seals an envelope.
    pub fn seal(&self, envelope: &[u8]) -> Vec<u8> {
        let nonce = self.nonce(envelope);
        let payload = Payload {
            msg: envelope,
            aad: &self.associated,
        };
        let hidden = self
            .cipher()
            .encrypt(XNonce::from_slice(&nonce), payload)
            .expect("envelopes are shorter than 256 GB");
        let mut sealed = Vec::with_capacity(1 + NONCE + hidden.len());
        sealed.push(VERSION);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(&hidden);
        sealed
    }

    /// The envelope in there: size, version, key, nonce.
    pub fn unseal(&self, sealed: &[u8]) -> Result<Vec<u8>, Rejection> {
        if sealed.len() > MAX_SEALED {
            return Err(Rejection::TooLarge { limit: MAX_SEALED });
        }
        let Some((version, rest)) = sealed.split_first() else {
            return Err(Rejection::Unsealable);
        };
        if *version != VERSION {
            return Err(Rejection::UnknownVersion);
        }
        if rest.len() < NONCE + TAG {
            return Err(Rejection::Unsealable);
        }
        let (nonce, hidden) = rest.split_at(NONCE);
        let payload = Payload {
            msg: hidden,
            aad: &self.associated,
        };
        let envelope = self
            .cipher()
            .decrypt(XNonce::from_slice(nonce), payload)
            .map_err(|_| Rejection::Unsealable)?;
        match self.nonce(&envelope) == nonce {
            true => Ok(envelope),
            false => Err(Rejection::Unsealable),
        }
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new((&*self.key).into())
    }

    fn nonce(&self, envelope: &[u8]) -> [u8; NONCE] {
        let mut mac = <Hmac<Sha256> as hmac::KeyInit>::new_from_slice(&self.nonce_key[..])
            .expect("HMAC takes keys of any length");
        mac.update(envelope);
        let mac = mac.finalize().into_bytes();
        let mut nonce = [0; NONCE];
        nonce.copy_from_slice(&mac[..NONCE]);
        nonce
    }
}
