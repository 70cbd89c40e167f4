//! What a world that carries the registry has besides: its stories, and the DHT's stand-in.
//!
//! A world carries no message of the registry unless it is [told to](World::carry_registry), so that the stories of the
//! others stay what they were. Chance that concerns the registry alone comes from a stream of its own.

use std::{collections::BTreeMap, time::Duration};

use hivevpn_core::membership::UnixTime;

use super::{Event, World};
use crate::{
    chronicle::{Chronicle, Place, Written},
    clock::millis,
    host::Order,
    invariants,
    swarm::questions::Topic,
    underlay::{Cut, HostId, SiteId},
};

/// How long the DHT takes.
const LOOKUP: Duration = millis(300);

/// What a world that carries the registry remembers.
#[derive(Debug)]
pub(crate) struct Registry {
    pub chronicle: Chronicle,
    /// Everything that was ever put into a slot: whoever looks there is served any of it.
    dht: BTreeMap<[u8; 32], Vec<Vec<u8>>>,
    /// The number by which each host was looked at.
    looked_at: BTreeMap<HostId, u64>,
    rng: fastrand::Rng,
}

impl World {
    /// From now on messages of the registry are carried, as those about members are.
    pub fn carry_registry(&mut self) {
        self.registry = Some(Registry {
            chronicle: Chronicle::default(),
            dht: BTreeMap::new(),
            looked_at: BTreeMap::new(),
            rng: fastrand::Rng::with_seed(self.seed ^ 0x7e91_5742),
        });
    }

    /// What was written; the world must carry the registry.
    pub fn chronicle(&self) -> &Chronicle {
        &self.registry().chronicle
    }

    pub(crate) fn registry(&self) -> &Registry {
        self.registry
            .as_ref()
            .expect("the world carries the registry")
    }

    pub(crate) fn registry_mut(&mut self) -> &mut Registry {
        self.registry
            .as_mut()
            .expect("the world carries the registry")
    }

    // ---- before hosts start ------------------------------------------------------------------------------

    /// The wall clock of a host that has not started is ahead of the others' by so many seconds, or behind.
    pub fn set_ahead(&mut self, host: HostId, ahead: i64) {
        self.ahead.insert(host, ahead);
    }

    /// A host that has not started will keep nothing of the registry for others.
    pub fn make_client(&mut self, host: HostId) {
        self.clients.insert(host);
    }

    // ---- writing -----------------------------------------------------------------------------------------

    /// A host writes under a key.
    pub fn put(&mut self, host: HostId, key: &str, value: &str, lifetime: Duration) {
        let now = self.now();
        self.note(format_args!("{host} writes {key}"));
        let seq = self.host(host).put(key, value, lifetime, now);
        self.drain(host);
        let seq = seq.expect("a story writes what may be written");
        let newest = self.chronicle().newest(&(host, key.to_owned()));
        let is_known = newest.is_some_and(|newest| {
            newest.seq == seq && newest.value.as_deref() == Some(value.as_bytes())
        });
        assert!(is_known, "{host} has {key} as it wrote it");
    }

    /// A host deletes what it has under a key.
    pub fn delete(&mut self, host: HostId, key: &str) {
        let now = self.now();
        self.note(format_args!("{host} deletes {key}"));
        let seq = self.host(host).delete(key, now);
        let seq = seq.expect("a story deletes what is there");
        let tombstone = Written {
            seq,
            value: None,
            expires: self.hosts_clock(host),
        };
        let place = (host, key.to_owned());
        self.registry_mut().chronicle.write(place, tombstone);
        self.drain(host);
    }

    /// A host offers a service.
    pub fn offer_service(&mut self, host: HostId, name: &str, port: u16, lifetime: Duration) {
        let now = self.now();
        self.note(format_args!("{host} offers {name}"));
        let offered = self.host(host).offer(name, port, lifetime, now);
        offered.expect("a story offers what may be offered");
        self.drain(host);
    }

    /// A host offers a service no more.
    pub fn withdraw_service(&mut self, host: HostId, name: &str) {
        let now = self.now();
        self.note(format_args!("{host} withdraws {name}"));
        let withdrawn = self.host(host).withdraw(name, now);
        withdrawn.expect("nothing keeps it from that");
        let (place, unix) = ((host, format!("svc/{name}")), self.hosts_clock(host));
        self.registry_mut().chronicle.delete(place, unix);
        self.drain(host);
    }

    /// A host asks members and the DHT for what an owner has under a key.
    pub fn seek(&mut self, host: HostId, key: &str, owner: HostId) {
        let (now, owner) = (self.now(), self.peer_id(owner));
        self.host(host).seek(key, &owner, now);
        self.drain(host);
    }

    // ---- misfortunes -------------------------------------------------------------------------------------

    /// A host stops without a word, and starts again from its disk after `span`.
    pub fn restart(&mut self, host: HostId, span: Duration) {
        self.stop_host(host, span, false);
    }

    /// The same, and what its disk had of the registry is lost.
    pub fn restart_without_entries(&mut self, host: HostId, span: Duration) {
        self.stop_host(host, span, true);
    }

    fn stop_host(&mut self, host: HostId, span: Duration, loses_entries: bool) {
        self.note(format_args!("{host} stops"));
        self.underlay.set_awake(host, false);
        self.after(span, Event::Restart(host, loses_entries));
    }

    /// The founder expels a member.
    pub fn expel(&mut self, host: HostId) {
        let (now, peer) = (self.now(), self.peer_id(host));
        self.note(format_args!("{host} is expelled"));
        self.registry_mut().chronicle.expel(host);
        self.host(0).expel(&peer, now);
        self.drain(0);
    }

    /// Nothing passes between these sites and all others; or everything does again.
    pub fn set_apart(&mut self, sites: &[SiteId], are_apart: bool) {
        self.note(format_args!("{sites:?} are apart: {are_apart}"));
        let others = (0..self.underlay.site_count()).filter(|site| !sites.contains(site));
        for other in others {
            for site in sites {
                let cut = are_apart.then_some(Cut::Everything);
                self.underlay.set_cut(*site, other, cut);
            }
        }
    }

    pub(super) fn start_again(&mut self, here: HostId, loses_entries: bool) {
        let now = self.now();
        self.note(format_args!("{here} starts again"));
        self.underlay.set_awake(here, true);
        // What it had asked nobody remembers; who still thinks to be connected is told otherwise.
        self.swarm.begin_anew(here);
        if loses_entries {
            self.host(here).lose_entries();
        }
        if loses_entries || self.clients.contains(&here) {
            self.registry_mut().chronicle.forget_shown(here);
        }
        let seed = self.seed;
        self.host(here).restart(here, seed, now);
        self.wakes[here] = None;
        self.registry_mut().looked_at.remove(&here);
        let ends: Vec<_> = self.swarm.ends_of(here).collect();
        for (number, end) in ends {
            self.close_end(number, end);
        }
        self.tell_reach(here);
        self.drain(here);
    }

    // ---- what nodes say ----------------------------------------------------------------------------------

    pub(super) fn obey_registry(&mut self, here: HostId, order: Order) {
        if self.registry.is_none() {
            return;
        }
        match order {
            Order::Registry(peer, body) => self.ask_member(here, peer, Topic::Registry, body),
            Order::PublishEntry(slot, sealed) => {
                self.registry_mut()
                    .dht
                    .entry(slot)
                    .or_default()
                    .push(sealed);
            }
            Order::LookupEntry(slot) => {
                let is_connected = self.swarm.is_connected(here);
                let Registry { dht, rng, .. } = self.registry_mut();
                if let Some(served) = dht.get(&slot).filter(|_| is_connected) {
                    let served = served[rng.usize(0..served.len())].clone();
                    self.after(LOOKUP, Event::FoundEntry(here, slot, served));
                }
            }
            Order::Dial { .. }
            | Order::Close(_)
            | Order::Judge(..)
            | Order::Introduce(_)
            | Order::Sync(..)
            | Order::Respond(..)
            | Order::Relays(_)
            | Order::Publish(..)
            | Order::Lookup(_) => {}
        }
    }

    pub(super) fn entry_found(&mut self, here: HostId, slot: [u8; 32], sealed: &[u8]) {
        if self.underlay.is_awake(here) {
            let now = self.now();
            self.host(here).found_entry(&slot, sealed, now);
            self.drain(here);
        }
    }

    /// An owner that has written something is believed about its own, before anything else comes of it.
    pub(super) fn write_down(&mut self, owner: HostId, orders: &[Order]) {
        let is_writing = |order: &Order| matches!(order, Order::PublishEntry(..));
        if self.registry.is_none() || !orders.iter().any(is_writing) {
            return;
        }
        let shows = self.shown_by(owner);
        let own = shows.into_iter().filter(|((whose, _), _)| *whose == owner);
        let own: Vec<_> = own.collect();
        for (place, entry) in own {
            self.registry_mut().chronicle.write(place, entry);
        }
    }

    /// Looks at what a host shows, if that may have changed.
    pub(super) fn look_at_registry(&mut self, here: HostId) {
        let (Some(host), Some(registry)) = (&self.hosts[here], &mut self.registry) else {
            return;
        };
        let changes = host.registry_changes();
        if registry.looked_at.insert(here, changes) != Some(changes) {
            invariants::registry::on_every_change(self, here);
        }
    }

    // ---- looking -----------------------------------------------------------------------------------------

    /// Everything that a host shows.
    pub fn shown_by(&self, host: HostId) -> BTreeMap<Place, Written> {
        let Some(host) = self.running(host) else {
            return BTreeMap::new();
        };
        let entries = host.entries().into_iter();
        let shown = entries.map(|entry| {
            let place = (self.host_of(&entry.owner), entry.key.to_string());
            let written = Written {
                seq: entry.seq,
                value: entry.value.clone(),
                expires: entry.expires,
            };
            (place, written)
        });
        shown.collect()
    }

    /// The values that a host shows under a key, in the order of their owners.
    pub fn values(&self, host: HostId, key: &str) -> Vec<String> {
        let shown = self.shown_by(host).into_iter();
        let here = shown.filter(|((_, at), _)| at == key);
        let values = here.filter_map(|(_, entry)| String::from_utf8(entry.value?).ok());
        values.collect()
    }

    /// What the wall clock of a host says.
    pub fn hosts_clock(&self, host: HostId) -> UnixTime {
        let host = self.running(host).expect("the host has started");
        host.clocks(self.now()).unix
    }
}
