//! What an owner says under a key, and how it signs it.
//!
//! A signed entry lives for one minute to 48 hours from when it was issued. Its sequence number has nothing to do with
//! that: a higher one replaces a lower one, however long either lives. So that nobody brings back the lower one after the
//! higher one is over, what is over is still remembered for [`RETENTION`].

use std::time::Duration;

use libp2p_identity::PeerId;
use minicbor::{Decode, Encode, bytes::ByteVec};

use super::key::Key;
use crate::membership::{
    Rejection, Signer, SignerKey, UnixTime,
    descriptor::MAX_AHEAD,
    envelope::{self, Domain},
    genesis::NetworkId,
    time::CLOCK_SKEW,
};

/// Bytes of a value. Sealed, with key and signature, the longest one takes less than
/// [`MAX_SEALED`](super::seal::MAX_SEALED).
pub const MAX_VALUE: usize = 6 * 1024;
/// No entry lives for less: it would be over before everybody has it.
pub const MIN_LIFETIME: Duration = Duration::from_secs(60);
/// No entry lives longer without being renewed.
pub const MAX_LIFETIME: Duration = Duration::from_secs(48 * 60 * 60);
/// So long after its end an entry or tombstone is remembered, so that nothing older takes its place: an older one that was
/// issued before cannot outlive that.
pub const RETENTION: Duration = MAX_LIFETIME;

/// What this version signs.
const VERSION: u8 = 1;

/// What an owner keeps under a key, or that it keeps nothing there any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Whose.
    pub owner: PeerId,
    /// Where.
    pub key: Key,
    /// The higher one of two counts.
    pub seq: u64,
    /// When it was signed.
    pub issued: UnixTime,
    /// When it is over: from this second on it is not there any more.
    pub expires: UnixTime,
    /// At most [`MAX_VALUE`] bytes; none, if this is a tombstone.
    pub value: Option<Vec<u8>>,
}

/// What is signed.
#[derive(Debug, Encode, Decode)]
#[cbor(map)]
pub(super) struct Payload {
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

#[cfg(test)]
impl Payload {
    /// Of an entry with a lifetime that no honest node signs.
    pub fn forged(
        owner: &Signer,
        network: &crate::membership::Network,
        lifetime_secs: u64,
    ) -> Self {
        Payload {
            version: VERSION,
            network: network.id(),
            owner: owner.key(),
            key: Key::parse("a").expect("a key"),
            seq: 1,
            issued: crate::membership::testing::NOW,
            lifetime_secs,
            value: None,
        }
    }
}

/// An entry whose signature was found good. Who signed it, and for which network, is still to be judged.
#[derive(Debug)]
pub(super) struct Signed {
    pub entry: Entry,
    pub owner: SignerKey,
    pub signer: SignerKey,
    pub network: NetworkId,
    pub lifetime: Duration,
}

impl Entry {
    /// Signs an entry of this node, as an envelope. A lifetime out of bounds becomes the nearest one within.
    #[expect(clippy::too_many_arguments, reason = "it is what is signed")]
    pub(crate) fn sign(
        owner: &Signer,
        network: NetworkId,
        key: &Key,
        seq: u64,
        issued: UnixTime,
        lifetime: Duration,
        value: Option<Vec<u8>>,
    ) -> Vec<u8> {
        let payload = Payload {
            version: VERSION,
            network,
            owner: owner.key(),
            key: key.clone(),
            seq,
            issued,
            lifetime_secs: lifetime.clamp(MIN_LIFETIME, MAX_LIFETIME).as_secs(),
            value: value.map(ByteVec::from),
        };
        envelope::seal(owner, Domain::Entry, &payload)
    }

    /// Reads an envelope.
    pub(super) fn open(envelope: &[u8]) -> Result<Signed, Rejection> {
        let opened = envelope::open::<Payload>(Domain::Entry, envelope)?;
        let payload = opened.payload;
        if payload.version != VERSION {
            return Err(Rejection::UnknownVersion);
        }
        let lifetime = Duration::from_secs(payload.lifetime_secs);
        Ok(Signed {
            owner: payload.owner,
            signer: opened.signer,
            network: payload.network,
            lifetime,
            entry: Entry {
                owner: payload.owner.peer_id(),
                key: payload.key,
                seq: payload.seq,
                issued: payload.issued,
                expires: payload.issued.plus(lifetime),
                value: payload.value.map(Vec::from),
            },
        })
    }

    /// Whether its time is not over.
    pub fn is_live(&self, now: UnixTime) -> bool {
        now < self.expires
    }

    /// Whether it says that nothing is there.
    pub fn is_tombstone(&self) -> bool {
        self.value.is_none()
    }

    /// Whether more than half of its life is over: there may be news of it that have not come here.
    pub fn is_stale(&self, now: UnixTime) -> bool {
        now.since(self.issued) > self.expires.since(self.issued) / 2
    }

    /// From this second on it is not even remembered.
    pub(super) fn forgotten_at(&self) -> UnixTime {
        self.expires.plus(RETENTION)
    }
}

impl Signed {
    /// The rules of time. What is over may still be worth remembering, for [`RETENTION`].
    pub fn check_times(&self, now: UnixTime) -> Result<(), Rejection> {
        if !(MIN_LIFETIME..=MAX_LIFETIME).contains(&self.lifetime) {
            return Err(Rejection::LifetimeOutOfBounds);
        }
        if self.entry.issued > now.plus(CLOCK_SKEW) {
            return Err(Rejection::NotYetValid);
        }
        if self.entry.seq > now.plus(MAX_AHEAD).as_millis() {
            return Err(Rejection::FromTheFuture);
        }
        if now >= self.entry.forgotten_at() {
            return Err(Rejection::Expired);
        }
        Ok(())
    }

    /// The bounds that everything has, whatever its kind.
    pub fn check_fields(&self) -> Result<(), Rejection> {
        match &self.entry.value {
            Some(value) if value.len() > MAX_VALUE => Err(Rejection::TooLarge { limit: MAX_VALUE }),
            Some(_) | None => Ok(()),
        }
    }
}
