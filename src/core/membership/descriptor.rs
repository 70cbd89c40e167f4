//! What a node says about itself: where to reach it, its WireGuard key, what it calls itself.
//!
//! The node signs it with its identity, so it needs nobody to change any of it: the WireGuard key
//! rotates by a new descriptor. A higher sequence number replaces a lower one.

use std::{fmt, ops::BitOr, time::Duration};

use libp2p_core::Multiaddr;
use minicbor::{Decode, Encode};

use super::{
    envelope::{self, Domain},
    genesis::NetworkId,
    name::Name,
    rejection::Rejection,
    signer::{Signer, SignerKey},
    time::UnixTime,
    wire,
};

/// More addresses than a well-connected host has; each of them may be dialled.
pub const MAX_ADDRESSES: usize = 32;

/// Bytes of one address. A circuit through a relay with a long DNS name takes about 200.
pub const MAX_ADDRESS_LEN: usize = 256;

/// Bytes of a whole descriptor: all the addresses it may have, and room for what later versions add.
const MAX_LEN: usize = 16 * 1024;

const _: () = assert!(MAX_ADDRESSES * (MAX_ADDRESS_LEN + 3) < MAX_LEN);

/// How far ahead of our clock a sequence number may be. Without a bound, a node that once signed
/// the highest number there is could never again say anything new.
pub(crate) const MAX_AHEAD: Duration = Duration::from_secs(24 * 60 * 60);

/// What a node offers to others. Unknown bits, from later versions, are kept and mean nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Encode, Decode)]
#[cbor(transparent)]
pub struct Features(#[n(0)] u32);

impl Features {
    /// None at all.
    pub const NONE: Features = Features(0);
    /// It carries circuits for other members.
    pub const RELAY: Features = Features(1);

    /// Whether all of `wanted` are in here.
    pub fn include(self, wanted: Features) -> bool {
        self.0 & wanted.0 == wanted.0
    }
}

impl BitOr for Features {
    type Output = Features;

    fn bitor(self, other: Features) -> Features {
        Features(self.0 | other.0)
    }
}

impl fmt::Debug for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let relay = self.include(Features::RELAY).then_some("RELAY");
        f.debug_set().entries(relay).finish()
    }
}

/// A node's word about itself.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Descriptor {
    /// The network it is for.
    #[n(0)]
    pub network: NetworkId,
    /// Which of the node's descriptors this is; see [`next_seq`].
    #[n(1)]
    pub seq: u64,
    /// The x25519 public key of the node's tunnels.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub wireguard_key: [u8; 32],
    /// What the node calls itself. It need not be unique; the directory sees to that.
    #[n(3)]
    pub name: Name,
    /// Where libp2p may reach it, at most [`MAX_ADDRESSES`] of [`MAX_ADDRESS_LEN`] bytes each.
    #[cbor(n(4), with = "wire::addresses")]
    pub addresses: Vec<Multiaddr>,
    /// What it offers to others.
    #[n(5)]
    pub features: Features,
}

/// The sequence number after `last`: the time in milliseconds, so that a node that lost its state
/// is not taken for its own past, and always higher than the last one.
pub fn next_seq(last: u64, now_millis: u64) -> u64 {
    now_millis.max(last.saturating_add(1))
}

impl Descriptor {
    /// Signs it by the node it is about. Addresses beyond the bounds are left out.
    pub fn seal(mut self, node: &Signer) -> Vec<u8> {
        self.addresses
            .retain(|a| a.as_ref().len() <= MAX_ADDRESS_LEN);
        self.addresses.truncate(MAX_ADDRESSES);
        envelope::seal(node, Domain::Descriptor, &self)
    }

    /// Reads the descriptor that `subject` must have signed.
    pub fn open(
        bytes: &[u8],
        network: &NetworkId,
        subject: &SignerKey,
        now: UnixTime,
    ) -> Result<Descriptor, Rejection> {
        if bytes.len() > MAX_LEN {
            return Err(Rejection::TooLarge { limit: MAX_LEN });
        }
        let opened = envelope::open::<Descriptor>(Domain::Descriptor, bytes)?;
        let descriptor = opened.payload;
        if opened.signer != *subject {
            return Err(Rejection::ForeignDescriptor);
        }
        if descriptor.network != *network {
            return Err(Rejection::WrongNetwork);
        }
        if descriptor.seq > now.plus(MAX_AHEAD).as_millis() {
            return Err(Rejection::FromTheFuture);
        }
        if descriptor.wireguard_key == [0; 32] {
            return Err(Rejection::TunnelKeyTaken);
        }
        Ok(descriptor)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: UnixTime = UnixTime(1_700_000_000);

    fn network() -> NetworkId {
        NetworkId::from_bytes([9; 32])
    }

    fn node() -> Signer {
        Signer::from_seed(&[1; 32])
    }

    fn descriptor(seq: u64, addresses: Vec<Multiaddr>) -> Descriptor {
        Descriptor {
            network: network(),
            seq,
            wireguard_key: [5; 32],
            name: Name::parse("gpu").unwrap(),
            addresses,
            features: Features::RELAY,
        }
    }

    fn open(bytes: &[u8]) -> Result<Descriptor, Rejection> {
        Descriptor::open(bytes, &network(), &node().key(), NOW)
    }

    #[test]
    fn a_clock_set_back_does_not_lower_the_sequence() {
        assert_eq!(next_seq(0, 1_000), 1_000);
        assert_eq!(next_seq(1_000, 400), 1_001);
        assert_eq!(next_seq(u64::MAX, 400), u64::MAX);
    }

    /// The attack: sign the highest number there is and be stuck with that address for ever.
    #[test]
    fn a_sequence_number_from_the_future_is_refused() {
        let edge = NOW.plus(MAX_AHEAD).as_millis();
        assert!(open(&descriptor(edge, vec![]).seal(&node())).is_ok());
        assert_eq!(
            open(&descriptor(edge + 1, vec![]).seal(&node())),
            Err(Rejection::FromTheFuture)
        );
    }

    #[test]
    fn a_descriptor_for_another_network_is_refused() {
        let elsewhere = Descriptor {
            network: NetworkId::from_bytes([8; 32]),
            ..descriptor(1, vec![])
        };
        assert_eq!(open(&elsewhere.seal(&node())), Err(Rejection::WrongNetwork));
    }

    #[test]
    fn sealing_keeps_the_bounds_that_opening_checks() {
        let address: Multiaddr = "/ip4/192.0.2.1/udp/4001/quic-v1".parse().unwrap();
        let sealed = descriptor(1, vec![address.clone(); 40]).seal(&node());
        assert_eq!(open(&sealed).unwrap().addresses, vec![address.clone(); 32]);

        let unbounded = envelope::seal(
            &node(),
            Domain::Descriptor,
            &descriptor(1, vec![address; 33]),
        );
        assert!(matches!(open(&unbounded), Err(Rejection::Malformed(_))));
    }

    /// The attack: a member makes everybody keep and pass on whatever it likes.
    #[test]
    fn a_descriptor_cannot_be_used_as_storage() {
        let sealed = envelope::seal(
            &node(),
            Domain::Descriptor,
            &minicbor::bytes::ByteVec::from(vec![0; MAX_LEN]),
        );
        assert_eq!(open(&sealed), Err(Rejection::TooLarge { limit: MAX_LEN }));
    }

    proptest! {
        #[test]
        fn a_descriptor_survives_its_encoding(
            seq in 0..NOW.as_millis(),
            ports in proptest::collection::vec(any::<u16>(), 0..=MAX_ADDRESSES),
            features in any::<u32>(),
        ) {
            let addresses = ports
                .iter()
                .map(|port| format!("/ip6/2001:db8::1/udp/{port}/quic-v1").parse().unwrap())
                .collect();
            let descriptor = Descriptor {
                features: Features(features),
                ..descriptor(seq, addresses)
            };
            prop_assert_eq!(open(&descriptor.clone().seal(&node())), Ok(descriptor));
        }

        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(open(&bytes).is_err());
        }

        /// Well-signed nonsense: the envelope does not save the decoder from its payload.
        #[test]
        fn signed_random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = wire::decode::<Descriptor>(&bytes);
        }
    }
}
