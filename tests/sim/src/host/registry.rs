//! What a host does about the registry.

use std::{collections::BTreeSet, time::Duration};

use hivevpn_core::{
    membership::{Name, Rejection},
    output::RequestId,
    registry::{Entry, Health, Key, Kind, Service, State, Transport},
};
use libp2p_identity::PeerId;

use super::Host;
use crate::{clock::Moment, founding::UNIX};

impl Host {
    /// A member asks.
    pub fn registry_request(&mut self, request: u64, peer: PeerId, body: &[u8], now: Moment) {
        let now = self.now(now);
        self.node
            .handle_registry_request(RequestId(request), peer, body, now);
    }

    /// A member answers.
    pub fn registry_answer(&mut self, peer: PeerId, body: &[u8], now: Moment) {
        let now = self.now(now);
        self.node.handle_registry_answer(peer, body, now);
    }

    /// A question was lost.
    pub fn registry_failed(&mut self, peer: PeerId, now: Moment) {
        let now = self.now(now);
        self.node.handle_registry_failed(peer, now);
    }

    /// The DHT had this in a slot.
    pub fn found_entry(&mut self, slot: &[u8; 32], sealed: &[u8], now: Moment) {
        let now = self.now(now);
        self.node.handle_found_entry(slot, sealed, now);
    }

    /// Writes under a key.
    pub fn put(
        &mut self,
        key: &str,
        value: &str,
        lifetime: Duration,
        now: Moment,
    ) -> Result<u64, Rejection> {
        let now = self.now(now);
        self.node
            .put_entry(&key_of(key), value.into(), lifetime, now)
    }

    /// Deletes what it has under a key.
    pub fn delete(&mut self, key: &str, now: Moment) -> Result<u64, Rejection> {
        let now = self.now(now);
        self.node.delete_entry(&key_of(key), now)
    }

    /// Offers a service, and goes on renewing it.
    pub fn offer(
        &mut self,
        name: &str,
        port: u16,
        lifetime: Duration,
        now: Moment,
    ) -> Result<(), Rejection> {
        let service = Service {
            kind: Kind::Tcp,
            transport: Transport::Tcp,
            port,
            path: None,
            to: BTreeSet::new(),
            health: Health {
                state: State::Up,
                since: UNIX,
            },
            description: None,
            tags: BTreeSet::new(),
            openai: None,
        };
        let now = self.now(now);
        self.node
            .publish_service(&name_of(name), &service, lifetime, now)
    }

    /// Offers it no more.
    pub fn withdraw(&mut self, name: &str, now: Moment) -> Result<(), Rejection> {
        let now = self.now(now);
        self.node.withdraw_service(&name_of(name), now)
    }

    /// Asks members and the DHT for what lies under a key.
    pub fn seek(&mut self, key: &str, owner: &PeerId, now: Moment) {
        let now = self.now(now);
        self.node.seek_entries(&key_of(key), Some(owner), now);
    }

    /// Everything that it shows.
    pub fn entries(&self) -> Vec<&Entry> {
        self.node.entries(None)
    }

    /// Another number when it may show something else.
    pub fn registry_changes(&self) -> u64 {
        self.node.registry_changes()
    }

    /// How many entries and marks it keeps.
    pub fn entries_kept(&self) -> usize {
        self.disk.entries.len()
    }

    /// Expels a member; the founder may.
    pub fn expel(&mut self, peer: &PeerId, now: Moment) {
        let now = self.now(now);
        let expelled = self.node.revoke(peer, "lost", now);
        expelled.expect("the founder may expel");
    }
}

fn key_of(text: &str) -> Key {
    Key::parse(text).expect("a story names sound keys")
}

fn name_of(text: &str) -> Name {
    Name::parse(text).expect("a story gives sound names")
}
