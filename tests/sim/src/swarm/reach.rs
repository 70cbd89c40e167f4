//! Where a host is reached, as its swarm knows it, and how others are found: the DHT and mDNS.

use std::{net::SocketAddrV4, time::Duration};

use super::{ConnectionNumber, DISCOVERY_PERIOD, MAX_OBSERVED};
use crate::{
    underlay::HostId,
    world::{Event, World},
};

impl World {
    pub(super) fn is_seen_at(
        &mut self,
        here: HostId,
        endpoint: SocketAddrV4,
        by: ConnectionNumber,
    ) {
        if endpoint.ip().is_private() {
            return;
        }
        let member = &mut self.swarm.members[here];
        for others in member.observed.values_mut() {
            others.remove(&by);
        }
        member.observed.retain(|_, by| !by.is_empty());
        if member.observed.len() < MAX_OBSERVED || member.observed.contains_key(&endpoint) {
            member.observed.entry(endpoint).or_default().insert(by);
        }
        self.tell_reach(here);
    }

    /// Tells the node where it is reached, if that is news.
    pub(crate) fn tell_reach(&mut self, here: HostId) {
        let now = self.now();
        let own = self.underlay.address_of(here);
        let is_public = self.underlay.is_public(here);
        let member = &mut self.swarm.members[here];
        let observed = member.stable_observed();
        let relays: Vec<_> = member.reservations.keys().copied().collect();
        let told = Some((own, observed.clone(), relays.clone()));
        if member.told == told {
            return;
        }
        member.told = told;
        let relays: Vec<_> = relays
            .iter()
            .map(|relay| (self.underlay.address_of(*relay), self.peer_id(*relay)))
            .collect();
        if self.hosts[here].is_some() {
            self.host(here)
                .reached_at(own, &observed, &relays, is_public, now);
        }
    }

    pub(crate) fn publish(&mut self, key: [u8; 32], record: Vec<u8>) {
        self.swarm.dht.insert(key, record);
    }

    pub(crate) fn look_up(&mut self, here: HostId, key: [u8; 32]) {
        let is_connected = self.swarm.is_connected(here);
        if let Some(record) = self.swarm.dht.get(&key).filter(|_| is_connected) {
            let found = Event::Found(here, record.clone());
            self.after(Duration::from_millis(300), found);
        }
    }

    /// mDNS at the site of this host.
    pub(crate) fn discover(&mut self, here: HostId) {
        let now = self.now();
        let neighbours = self.underlay.hosts_at(self.underlay.site_of(here)).to_vec();
        for other in neighbours {
            let is_up = self.hosts[other].is_some() && self.underlay.is_awake(other);
            if other != here && is_up && self.underlay.is_awake(here) {
                let (peer, address) = (self.peer_id(other), self.underlay.address_of(other));
                self.host(here).discovered(peer, address, now);
            }
        }
        self.drain(here);
        self.after(DISCOVERY_PERIOD, Event::Discover(here));
    }
}
