//! What a member can make of what it has seen and what it can sign, written as it travels, not by the program under test.

use hivevpn_core::membership::genesis::NetworkId;
use hivevpn_core::membership::{Network, Signer, SignerKey, UnixTime, envelope};
use hivevpn_core::registry::Key;
use hivevpn_core::registry::seal::Sealing;
use libp2p::PeerId;
use minicbor::Encode;
use minicbor::bytes::ByteVec;

use super::storer::{Papers, now};

/// Something that nobody may read.
#[derive(Clone)]
pub struct Lie {
    pub what: &'static str,
    pub sealed: Vec<u8>,
    /// What the readers' status counts it under.
    pub rule: &'static str,
}

/// What an owner signs.
#[derive(Encode)]
#[cbor(map)]
struct Payload {
    #[n(0)]
    version: u8,
    #[n(1)]
    network: NetworkId,
    #[n(2)]
    owner: SignerKey,
    #[n(3)]
    key: Key,
    #[n(4)]
    seq: u64,
    #[n(5)]
    issued: UnixTime,
    #[n(6)]
    lifetime_secs: u64,
    #[n(7)]
    value: Option<ByteVec>,
}

/// How members tell each other what they have. Numbers as in `RegistryMessage`.
#[derive(Encode)]
enum Promise {
    #[n(3)]
    Have(#[n(0)] Vec<OwnerVersions>),
    #[n(6)]
    Versions(#[n(0)] Versions),
}

#[derive(Encode)]
#[cbor(map)]
struct Versions {
    #[n(0)]
    owners: Vec<OwnerVersions>,
}

#[derive(Encode)]
#[cbor(map)]
struct OwnerVersions {
    #[n(0)]
    owner: SignerKey,
    #[n(1)]
    keys: Vec<KeyVersion>,
}

#[derive(Encode)]
#[cbor(array)]
struct KeyVersion {
    #[n(0)]
    key: Key,
    #[n(1)]
    seq: u64,
    #[n(2)]
    hash: u64,
}

/// The one who lies, with what it knows.
pub struct Forger {
    signer: Signer,
    network: Network,
    sealing: Sealing,
}

impl Forger {
    pub fn new(papers: &Papers) -> Self {
        Self {
            signer: papers.signer(),
            network: papers.network.clone(),
            sealing: Sealing::of(&papers.network),
        }
    }

    /// Where an entry lies in the DHT.
    pub fn slot(&self, owner: &PeerId, key: &str) -> [u8; 32] {
        self.network.entry_slot(owner, &Key::parse(key).unwrap())
    }

    /// Lies about what `owner` has under a key, where it has put `truth`.
    pub fn lies(&self, owner: &PeerId, key: &str, truth: &[u8]) -> Vec<Lie> {
        let envelope = self.sealing.unseal(truth).unwrap();
        let owner = SignerKey::of_peer(owner).unwrap();
        let mut resigned = envelope.clone();
        *resigned.last_mut().unwrap() ^= 1; // the signature comes last
        let mut flipped = truth.to_vec();
        *flipped.last_mut().unwrap() ^= 1;
        let mut other_nonce = truth.to_vec();
        other_nonce[1] ^= 1;
        let lie = |what, sealed, rule| Lie { what, sealed, rule };
        vec![
            lie(
                "in another's name",
                self.signed(owner, key, b"lie"),
                "not-by-owner",
            ),
            lie(
                "with a broken signature",
                self.sealing.seal(&resigned),
                "bad-signature",
            ),
            lie("with a flipped bit", flipped, "unsealable"),
            lie("with another nonce", other_nonce, "unsealable"),
            lie("cut short", truth[..truth.len() - 1].to_vec(), "unsealable"),
            lie("rubbish", vec![1; 500], "unsealable"),
            lie("not sealed", [&[1], &envelope[..]].concat(), "unsealable"),
            lie("oversize", [truth, &[0; 9 << 10]].concat(), "too-large"),
        ]
    }

    /// What is good elsewhere, and is no lie but in the place of `owner`'s.
    pub fn own_word(&self, key: &str) -> Lie {
        Lie {
            what: "the storer's own word",
            sealed: self.signed(self.signer.key(), key, b"lie"),
            rule: "wrong-slot",
        }
    }

    /// Signed by us as an entry of `owner`, later than anything.
    fn signed(&self, owner: SignerKey, key: &str, value: &[u8]) -> Vec<u8> {
        let payload = Payload {
            version: 1,
            network: self.network.id(),
            owner,
            key: Key::parse(key).unwrap(),
            seq: now().as_millis() + 60_000,
            issued: now(),
            lifetime_secs: 3600,
            value: Some(value.to_vec().into()),
        };
        let domain = envelope::Domain::Entry;
        self.sealing
            .seal(&envelope::seal(&self.signer, domain, &payload))
    }

    /// News that we have something newer of `owner` under these keys than anybody, and the same as the answer to a comparison.
    pub fn promises(&self, owner: &PeerId, keys: &[&str]) -> (Vec<u8>, Vec<u8>) {
        let versions = || {
            let key = |key: &&str| KeyVersion {
                key: Key::parse(key).unwrap(),
                seq: now().as_millis() + 3_600_000,
                hash: 0,
            };
            vec![OwnerVersions {
                owner: SignerKey::of_peer(owner).unwrap(),
                keys: keys.iter().map(key).collect(),
            }]
        };
        let owners = versions();
        let encoded = |promise| minicbor::to_vec(promise).unwrap();
        (
            encoded(Promise::Have(versions())),
            encoded(Promise::Versions(Versions { owners })),
        )
    }
}
