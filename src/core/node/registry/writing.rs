//! What this node keeps in the registry: services, which it writes again before they are over, and entries, which it does not.

use std::time::Duration;

use super::{Node, Now, Origin};
use crate::{
    membership::{Name, Rejection, UnixTime, descriptor::next_seq, wire},
    output::Output,
    registry::{Entry, Key, Service, entry::MAX_LIFETIME},
};

/// What could not be written is tried again after this.
const RETRY: Duration = Duration::from_secs(60);

/// A service that we keep in the registry, or that we must still take out of it.
pub(super) struct Offer {
    /// None, if it is to be taken out.
    pub value: Option<Vec<u8>>,
    pub lifetime: Duration,
    /// When it is to be written next.
    pub due: UnixTime,
}

impl Node {
    /// Tells everybody that we offer this, in place of what we offered by that name, for so long, and again before half of
    /// that is over, until it is withdrawn. While we are no member, it waits until we are one again.
    pub fn publish_service(
        &mut self,
        name: &Name,
        service: &Service,
        lifetime: Duration,
        now: Now,
    ) -> Result<(), Rejection> {
        let value = wire::encode(service);
        let offered = self.registry.offers.get(name);
        let is_offered = offered.is_some_and(|offer| {
            offer.value.as_ref() == Some(&value)
                && offer.lifetime == lifetime
                && offer.due > self.time.now(now.unix)
        });
        if is_offered {
            return Ok(());
        }
        let offer = Offer {
            value: Some(value),
            lifetime,
            due: UnixTime(0),
        };
        let before = self.registry.offers.insert(name.clone(), offer);
        let written = self.offer(name, now);
        if written.is_err() {
            match before {
                Some(before) => self.registry.offers.insert(name.clone(), before),
                None => self.registry.offers.remove(name),
            };
        }
        self.plan_registry(now);
        written
    }

    /// Tells everybody that we do not offer it any more.
    pub fn withdraw_service(&mut self, name: &Name, now: Now) -> Result<(), Rejection> {
        self.registry.loads.withdraw(name);
        let offer = Offer {
            value: None,
            lifetime: MAX_LIFETIME,
            due: UnixTime(0),
        };
        self.registry.offers.insert(name.clone(), offer);
        let written = self.offer(name, now);
        self.plan_registry(now);
        written
    }

    /// Writes a service of ours, or takes it out, if we are a member.
    fn offer(&mut self, name: &Name, now: Now) -> Result<(), Rejection> {
        let Some(offer) = self.registry.offers.get(name) else {
            return Ok(());
        };
        if !self.is_member() {
            return Ok(());
        }
        let (value, lifetime) = (offer.value.clone(), offer.lifetime);
        let key = Key::of_service(name);
        if value.is_none() {
            self.registry.offers.remove(name);
            if !self.has_own(&key) {
                return Ok(());
            }
        }
        self.write(&key, value, lifetime, now)?;
        let unix = self.time.floor();
        if let Some(held) = self.registry.replica.get(&key, &self.signer.key())
            && let Some(offer) = self.registry.offers.get_mut(name)
        {
            // Not all at the same moment.
            let lot = u64::from(held.hash[0]);
            let life = held.entry.expires.since(held.entry.issued).as_secs();
            offer.due = unix.plus(Duration::from_secs(life * (90 + lot / 10) / 256));
        }
        Ok(())
    }

    /// Keeps a value under a key, in place of what we had there, for so long (one minute to 48 hours, or the nearest to
    /// that). It is not renewed by itself. Returns its sequence number.
    pub fn put_entry(
        &mut self,
        key: &Key,
        value: Vec<u8>,
        lifetime: Duration,
        now: Now,
    ) -> Result<u64, Rejection> {
        let seq = self.write(key, Some(value), lifetime, now);
        self.plan_registry(now);
        seq
    }

    /// Deletes what we have under a key. Returns the tombstone's sequence number.
    pub fn delete_entry(&mut self, key: &Key, now: Now) -> Result<u64, Rejection> {
        self.time.now(now.unix);
        if !self.has_own(key) {
            return Err(Rejection::NothingThere);
        }
        if let Some(name) = key.service() {
            self.registry.offers.remove(&name);
            self.registry.loads.withdraw(&name);
        }
        let seq = self.write(key, None, MAX_LIFETIME, now);
        self.plan_registry(now);
        seq
    }

    /// Whether we have a value there that is not over.
    fn has_own(&self, key: &Key) -> bool {
        let held = self.registry.replica.get(key, &self.signer.key());
        held.is_some_and(|held| !held.entry.is_tombstone() && held.entry.is_live(self.time.floor()))
    }

    /// Signs an entry of ours, and tells everybody.
    fn write(
        &mut self,
        key: &Key,
        value: Option<Vec<u8>>,
        lifetime: Duration,
        now: Now,
    ) -> Result<u64, Rejection> {
        let unix = self.time.now(now.unix);
        if !self.is_member() {
            return Err(Rejection::NotAMember);
        }
        let seq = next_seq(self.registry.seq, unix.as_millis());
        let network = self.network.id();
        let envelope = Entry::sign(&self.signer, network, key, seq, unix, lifetime, value);
        let sealed = self.registry.sealing.seal(&envelope);
        let taken = self.take_entry(&sealed, None, Origin::Ourselves, now)?;
        self.publish_entry(key);
        self.announce_own(&sealed);
        debug_assert!(taken.is_some(), "a higher number is news");
        Ok(seq)
    }

    /// Puts what we keep into the DHT, which forgets.
    pub(in crate::node) fn publish_entries(&mut self) {
        if !self.is_member() {
            return;
        }
        let us = self.signer.key();
        let unix = self.time.floor();
        let live = self.registry.replica.of_owner(&us);
        let live = live.filter(|held| held.entry.is_live(unix));
        let keys: Vec<Key> = live.map(|held| held.entry.key.clone()).collect();
        keys.iter().for_each(|key| self.publish_entry(key));
    }

    fn publish_entry(&mut self, key: &Key) {
        if let Some(held) = self.registry.replica.get(key, &self.signer.key()) {
            let slot = self.network.entry_slot(&held.entry.owner, key);
            let sealed = held.sealed.clone();
            self.outputs
                .push_back(Output::PublishEntry { slot, sealed });
        }
    }

    /// Writes what is due.
    pub(super) fn write_due(&mut self, unix: UnixTime, now: Now) {
        if !self.is_member() {
            return;
        }
        let offers = self.registry.offers.iter();
        let due = offers.filter(|(_, offer)| unix >= offer.due);
        let due: Vec<Name> = due.map(|(name, _)| name.clone()).collect();
        for name in due {
            let Err(reason) = self.offer(&name, now) else {
                continue;
            };
            tracing::warn!(service = %name, %reason, "a service of this node cannot be kept in the registry: trying again in a minute");
            if let Some(offer) = self.registry.offers.get_mut(&name) {
                offer.due = unix.plus(RETRY);
            }
        }
    }
}
