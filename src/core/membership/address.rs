//! Overlay addresses, all derived or validated here.
//!
//! **IPv6** certifies itself: it is a hash of the network and the node's key, inside the network's
//! own /48 of the unique local addresses (RFC 4193). Nobody assigns it and nobody can take it.
//!
//! **IPv4** is scarce, so it is signed into the certificate. A node's candidates are hashes as well,
//! which spreads nodes admitted on two sides of a partition; the first free one is taken. The first
//! /24 of the prefix is left to addresses that people ask for (10.77.0.4 is easy to remember), the
//! last /24 to what may come.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};
use sha2::{Digest, Sha256};

use super::{genesis::NetworkId, signer::SignerKey};

/// Candidates by hash before the prefix is searched from its start. With the prefix three quarters
/// full, the chance that all of them are taken is 1 in 10^8.
const HASHED_CANDIDATES: u32 = 64;

/// A prefix at least this wide (a /22: four /24s) keeps its first and last /24 free of automatic
/// addresses; a smaller one has none to spare.
const WIDE: u8 = 22;

/// The network's IPv6 prefix: `fd`, then the first five bytes of its id.
pub fn ipv6_prefix(network: &NetworkId) -> Ipv6Net {
    let mut octets = [0; 16];
    octets[0] = 0xfd;
    octets[1..6].copy_from_slice(&network.as_bytes()[..5]);
    Ipv6Net::new_assert(octets.into(), 48)
}

/// A node's IPv6 address: the network's prefix, then ten bytes of
/// SHA-256("hivevpn/v1/ip6" ‖ network id ‖ key).
pub fn ipv6(network: &NetworkId, node: &SignerKey) -> Ipv6Addr {
    let hash = Sha256::new()
        .chain_update("hivevpn/v1/ip6")
        .chain_update(network.as_bytes())
        .chain_update(node.as_bytes())
        .finalize();
    let mut octets = ipv6_prefix(network).addr().octets();
    octets[6..].copy_from_slice(&hash[..10]);
    octets.into()
}

/// Whether a network may use this prefix: private (RFC 1918, RFC 6598) and of a useful size.
/// Without this, joining a network could draw a host's internet traffic into it.
pub fn is_usable_prefix(prefix: Ipv4Net) -> bool {
    const PRIVATE: [Ipv4Net; 4] = [
        Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), 8),
        Ipv4Net::new_assert(Ipv4Addr::new(172, 16, 0, 0), 12),
        Ipv4Net::new_assert(Ipv4Addr::new(192, 168, 0, 0), 16),
        Ipv4Net::new_assert(Ipv4Addr::new(100, 64, 0, 0), 10),
    ];
    prefix.prefix_len() <= 30 && PRIVATE.iter().any(|private| private.contains(&prefix))
}

/// Whether a member may have this address: inside the prefix, neither its first (the network)
/// nor its last (broadcast).
pub fn is_usable(prefix: Ipv4Net, address: Ipv4Addr) -> bool {
    prefix.contains(&address) && address != prefix.network() && address != prefix.broadcast()
}

/// The addresses to try for a node, best first: its hashed candidates, then all that are left.
pub fn ipv4_candidates(
    network: &NetworkId,
    prefix: Ipv4Net,
    node: &SignerKey,
) -> impl Iterator<Item = Ipv4Addr> {
    let reserved = if prefix.prefix_len() <= WIDE { 256 } else { 1 };
    let first = u32::from(prefix.network()) + reserved;
    let last = u32::from(prefix.broadcast()) - reserved;
    let seed = Sha256::new()
        .chain_update("hivevpn/v1/ip4")
        .chain_update(network.as_bytes())
        .chain_update(node.as_bytes());

    let hashed = (0..HASHED_CANDIDATES).map(move |i| {
        let hash = seed.clone().chain_update(i.to_be_bytes()).finalize();
        let [a, b, c, d, ..] = <[u8; 32]>::from(hash);
        first + u32::from_be_bytes([a, b, c, d]) % (last - first + 1)
    });
    hashed.chain(first..=last).map(Ipv4Addr::from)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::membership::{genesis::DEFAULT_IPV4_PREFIX, signer::Signer};

    fn network() -> NetworkId {
        NetworkId::from_bytes([0xab; 32])
    }

    fn node(seed: u8) -> SignerKey {
        Signer::from_seed(&[seed; 32]).key()
    }

    /// Peers of other versions compute the same: a change here is a change of protocol.
    #[test]
    fn addresses_never_change() {
        assert_eq!(ipv6_prefix(&network()).to_string(), "fdab:abab:abab::/48");
        assert_eq!(
            ipv6(&network(), &node(1)).to_string(),
            "fdab:abab:abab:6b82:18c4:39fa:e1ec:4266"
        );
        let first: Vec<_> = ipv4_candidates(&network(), DEFAULT_IPV4_PREFIX, &node(1))
            .take(3)
            .map(|a| a.to_string())
            .collect();
        assert_eq!(first, ["10.77.47.18", "10.77.252.220", "10.77.7.43"]);
    }

    #[test]
    fn an_ipv6_address_belongs_to_one_key_in_one_network() {
        let elsewhere = NetworkId::from_bytes([0xac; 32]);
        let ours = ipv6(&network(), &node(1));
        assert!(ipv6_prefix(&network()).contains(&ours));
        assert_ne!(ours, ipv6(&network(), &node(2)));
        assert_ne!(ours.octets()[6..], ipv6(&elsewhere, &node(1)).octets()[6..]);
    }

    #[test]
    fn asked_for_addresses_may_lie_in_the_first_24_but_not_at_the_ends() {
        let usable = |a: &str| is_usable(DEFAULT_IPV4_PREFIX, a.parse().unwrap());
        assert!(usable("10.77.0.4"));
        assert!(usable("10.77.0.255"));
        assert!(usable("10.77.255.254"));
        assert!(!usable("10.77.0.0"));
        assert!(!usable("10.77.255.255"));
        assert!(!usable("10.78.0.4"));
    }

    proptest! {
        #[test]
        fn every_candidate_is_usable_and_all_of_a_prefix_are_offered(
            seed in any::<u8>(),
            address in any::<u32>(),
            length in 16u8..=30,
        ) {
            let prefix = Ipv4Net::new_assert((10 << 24 | address >> 8).into(), length).trunc();
            let reserved = if length <= WIDE { 256 } else { 1 };
            let mut offered = std::collections::BTreeSet::new();
            for candidate in ipv4_candidates(&network(), prefix, &node(seed)) {
                prop_assert!(is_usable(prefix, candidate));
                offered.insert(candidate);
            }
            prop_assert_eq!(offered.len(), (1usize << (32 - length)) - 2 * reserved);
        }
    }
}
