//! Cryptokey routing: which peer owns an overlay address.
//!
//! One longest-prefix table serves both ways. Outbound, the owner of the destination names the tunnel.
//! Inbound, the owner of the source must be *exactly* the peer whose session opened the datagram: asking
//! "is the source within one of this peer's prefixes" instead would let the owner of a wide prefix speak
//! for everybody inside it who owns a narrower one.

use std::{cell::Cell, net::IpAddr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::PrefixMap;

/// Longest-prefix table from overlay address to its owner.
pub struct AllowedIps<T> {
    ipv4: PrefixMap<Ipv4Net, T>,
    ipv6: PrefixMap<Ipv6Net, T>,
    /// The last answer: most packets are of the flow of the one before. Void when the table changes.
    last: Cell<Option<(IpAddr, T)>>,
}

impl<T> Default for AllowedIps<T> {
    fn default() -> Self {
        Self {
            ipv4: PrefixMap::new(),
            ipv6: PrefixMap::new(),
            last: Cell::new(None),
        }
    }
}

impl<T: Copy + PartialEq> AllowedIps<T> {
    /// Makes `owner` the owner of `prefix`; returns who owned exactly this prefix before.
    pub fn insert(&mut self, prefix: IpNet, owner: T) -> Option<T> {
        self.last.set(None);
        match prefix {
            IpNet::V4(prefix) => self.ipv4.insert(prefix.trunc(), owner),
            IpNet::V6(prefix) => self.ipv6.insert(prefix.trunc(), owner),
        }
    }

    /// The owner of `address`: the most specific prefix decides.
    pub fn owner(&self, address: IpAddr) -> Option<T> {
        if let Some((last, owner)) = self.last.get()
            && last == address
        {
            return Some(owner);
        }
        let owner = match address {
            IpAddr::V4(address) => *self.ipv4.get_lpm(&address.into())?.1,
            IpAddr::V6(address) => *self.ipv6.get_lpm(&address.into())?.1,
        };
        self.last.set(Some((address, owner)));
        Some(owner)
    }

    /// Takes everything away from `owner`.
    pub fn remove_owner(&mut self, owner: T) {
        self.last.set(None);
        self.ipv4.retain(|_, held| *held != owner);
        self.ipv6.retain(|_, held| *held != owner);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_most_specific_prefix_decides() {
        let mut table = AllowedIps::default();
        table.insert("10.77.0.0/16".parse().unwrap(), 'w');
        table.insert("10.77.0.4/32".parse().unwrap(), 'n');
        assert_eq!(table.owner([10, 77, 0, 4].into()), Some('n'));
        assert_eq!(table.owner([10, 77, 0, 5].into()), Some('w'));
        assert_eq!(table.owner([10, 78, 0, 5].into()), None);
        table.remove_owner('n');
        assert_eq!(table.owner([10, 77, 0, 4].into()), Some('w'));
    }

    #[test]
    fn an_answer_does_not_outlive_a_change() {
        let mut table = AllowedIps::default();
        let address = [10, 77, 0, 4].into();
        table.insert("10.77.0.0/16".parse().unwrap(), 'w');
        assert_eq!(table.owner(address), Some('w'));
        table.insert("10.77.0.4/32".parse().unwrap(), 'n');
        assert_eq!(table.owner(address), Some('n'));
        table.remove_owner('n');
        table.remove_owner('w');
        assert_eq!(table.owner(address), None);
    }

    proptest! {
        #[test]
        fn the_table_agrees_with_a_linear_search(
            entries in proptest::collection::vec((any::<u32>(), 0..=32_u8), 0..40), asked: Vec<u32>
        ) {
            let mut table = AllowedIps::default();
            let mut list: Vec<(Ipv4Net, usize)> = Vec::new();
            for (owner, (address, length)) in entries.into_iter().enumerate() {
                // An answer given before must not outlive the change.
                table.owner(std::net::Ipv4Addr::from(address).into());
                let prefix = Ipv4Net::new(address.into(), length).unwrap().trunc();
                table.insert(prefix.into(), owner);
                list.retain(|(held, _)| *held != prefix);
                list.push((prefix, owner));
            }
            for address in asked {
                let address = std::net::Ipv4Addr::from(address);
                let expected = list.iter().filter(|(p, _)| p.contains(&address)).max_by_key(|(p, _)| p.prefix_len());
                prop_assert_eq!(table.owner(address.into()), expected.map(|(_, owner)| *owner));
            }
        }
    }
}
