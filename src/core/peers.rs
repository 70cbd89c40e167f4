//! All peers, looked up by what a datagram, a control message or a person calls them.

use std::collections::{BTreeMap, HashMap};

use libp2p_identity::PeerId;

use crate::{
    peer::{Peer, PeerIndex, PeerKeys},
    policy::Guard,
    session::WireGuardKey,
};

/// The peers by index, with the two ways to find an index.
pub struct Peers {
    interface_mtu: u16,
    /// Boxed, because the table keeps room for more peers than there are.
    by_index: HashMap<PeerIndex, Box<Peer>>,
    by_id: BTreeMap<PeerId, PeerIndex>,
    by_key: HashMap<WireGuardKey, PeerIndex>,
}

impl Peers {
    /// None yet. They may be sent packets of up to `interface_mtu` bytes.
    pub fn new(interface_mtu: u16) -> Self {
        Self {
            interface_mtu,
            by_index: HashMap::new(),
            by_id: BTreeMap::new(),
            by_key: HashMap::new(),
        }
    }

    /// Adds a peer under an unused index, drawn by `draw`. Two peers cannot share a WireGuard key: the one who
    /// announced it first keeps it.
    pub fn add(
        &mut self,
        keys: PeerKeys,
        guard: Guard,
        mut draw: impl FnMut() -> u32,
    ) -> Option<PeerIndex> {
        if self.by_key.contains_key(&keys.key) || self.by_id.contains_key(&keys.id) {
            return None;
        }
        let mut index = PeerIndex::new(draw());
        while self.by_index.contains_key(&index) {
            index = PeerIndex::new(draw());
        }
        let peer = Peer::new(keys, guard, index, self.interface_mtu);
        self.by_index.insert(index, Box::new(peer));
        self.by_id.insert(keys.id, index);
        self.by_key.insert(keys.key, index);
        Some(index)
    }

    /// Forgets a peer and its tunnel. What is left is its guard.
    pub fn remove(&mut self, id: &PeerId) -> Option<(PeerIndex, Guard)> {
        let index = self.by_id.remove(id)?;
        let peer = self.by_index.remove(&index)?;
        self.by_key.remove(&peer.keys().key);
        Some((index, peer.into_guard()))
    }

    /// The peer with this index.
    pub fn get(&self, index: PeerIndex) -> Option<&Peer> {
        self.by_index.get(&index).map(Box::as_ref)
    }

    /// The peer with this index.
    pub fn get_mut(&mut self, index: PeerIndex) -> Option<&mut Peer> {
        self.by_index.get_mut(&index).map(Box::as_mut)
    }

    /// The index of the peer with this identity.
    pub fn index_of(&self, id: &PeerId) -> Option<PeerIndex> {
        self.by_id.get(id).copied()
    }

    /// The indexes of all peers.
    pub fn indexes(&self) -> Vec<PeerIndex> {
        self.by_id.values().copied().collect()
    }

    /// All peers, in no order that means anything.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Peer> {
        self.by_index.values_mut().map(Box::as_mut)
    }

    /// All peers.
    pub fn iter(&self) -> impl Iterator<Item = &Peer> {
        self.by_index.values().map(Box::as_ref)
    }

    /// The index of the peer with this WireGuard key.
    pub fn index_of_key(&self, key: &WireGuardKey) -> Option<PeerIndex> {
        self.by_key.get(key).copied()
    }

    /// How many peers there are.
    pub fn len(&self) -> usize {
        self.by_index.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_index.is_empty()
    }
}
