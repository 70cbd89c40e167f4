//! A new WireGuard key: nobody needs to be asked, the next descriptor says it.

use super::{Node, Now};
use crate::session;

impl Node {
    /// Takes another key for all tunnels from now on, and tells everybody. Save it before: who has our new descriptor
    /// cannot reach us by the old one.
    pub fn rotate_wireguard(&mut self, identity: session::Identity, now: Now) {
        self.wireguard_key = identity.public().0;
        self.tunnels.set_identity(identity);
        let us = self.peer_id();
        let members = self.directory.members().map(|member| member.peer_id);
        let others: Vec<_> = members.filter(|peer| *peer != us).collect();
        for peer in &others {
            self.tunnels.remove(peer);
            self.apply(peer, now);
        }
        self.offer_relays();
        self.announce_ourselves(now);
    }
}
