//! How busy services are, told directly from member to member.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use libp2p_identity::PeerId;

use super::{Node, Now};
use crate::{
    membership::Name,
    output::Output,
    registry::{
        Load,
        replica::MAX_SERVICES,
        sync::{LoadOf, RegistryMessage},
    },
};

/// Ours are told no more often than this.
const PAUSE: Duration = Duration::from_secs(1);
/// Ours are told again after this, should they not change.
const REPEAT: Duration = Duration::from_secs(20);
/// Those of whoever says nothing for so long are forgotten.
const SILENCE: Duration = Duration::from_secs(60);

/// Ours and theirs.
#[derive(Debug, Default)]
pub(super) struct Loads {
    own: BTreeMap<Name, Load>,
    told_at: Option<Instant>,
    tell_at: Option<Instant>,
    heard: BTreeMap<PeerId, Heard>,
}

#[derive(Debug)]
struct Heard {
    at: Instant,
    loads: BTreeMap<Name, Load>,
}

impl Loads {
    pub fn forget(&mut self, peer: &PeerId) {
        self.heard.remove(peer);
    }

    pub fn withdraw(&mut self, name: &Name) {
        self.own.remove(name);
    }

    pub fn next(&self) -> Option<Instant> {
        let silent = self.heard.values().map(|heard| heard.at + SILENCE);
        silent.chain(self.tell_at).min()
    }

    fn message(&self) -> Option<Vec<u8>> {
        let loads: Vec<_> = self
            .own
            .iter()
            .take(MAX_SERVICES)
            .map(|(name, load)| LoadOf {
                name: name.clone(),
                load: *load,
            })
            .collect();
        (!loads.is_empty()).then(|| RegistryMessage::Loads(loads).encode())
    }
}

impl Node {
    /// Tells connected members how busy a service of ours is.
    pub fn set_load(&mut self, name: &Name, load: Load, now: Now) {
        let loads = &mut self.registry.loads;
        if loads.own.insert(name.clone(), load) == Some(load) {
            return;
        }
        let soon = loads.told_at.map_or(now.instant, |told| told + PAUSE);
        loads.tell_at = Some(loads.tell_at.map_or(soon, |at| at.min(soon)));
        self.registry.changed();
        self.tend_loads(now.instant);
        self.plan_registry(now);
    }

    /// How busy a service is, as far as its owner has told us lately.
    pub(super) fn load_of(&self, owner: &PeerId, name: &Name) -> Option<Load> {
        let loads = &self.registry.loads;
        if *owner == self.peer_id() {
            return loads.own.get(name).copied();
        }
        let heard = loads.heard.get(owner).filter(|_| self.is_online(owner))?;
        heard.loads.get(name).copied()
    }

    /// What a member says of its own services.
    pub(super) fn hear_loads(&mut self, peer: PeerId, loads: Vec<LoadOf>, now: Instant) {
        let loads = loads.into_iter().map(|of| (of.name, of.load)).collect();
        let heard = Heard { at: now, loads };
        let before = self.registry.loads.heard.insert(peer, heard);
        let is_same = before.is_some_and(|before| {
            let after = self.registry.loads.heard.get(&peer);
            after.is_some_and(|after| after.loads == before.loads)
        });
        if !is_same {
            self.registry.changed();
        }
    }

    /// Tells a member that has just connected.
    pub(super) fn tell_loads_to(&mut self, peer: PeerId) {
        if let Some(body) = self.registry.loads.message() {
            self.outputs.push_back(Output::Registry { peer, body });
        }
    }

    /// Tells ours when that is due, and forgets those of whoever is silent.
    pub(super) fn tend_loads(&mut self, now: Instant) {
        let loads = &mut self.registry.loads;
        let known = loads.heard.len();
        loads.heard.retain(|_, heard| now < heard.at + SILENCE);
        if loads.heard.len() != known {
            self.registry.changes += 1;
        }
        let loads = &mut self.registry.loads;
        if loads.tell_at.is_none_or(|at| now < at) {
            return;
        }
        loads.told_at = Some(now);
        let message = loads.message();
        loads.tell_at = message.is_some().then_some(now + REPEAT);
        let Some(body) = message.filter(|_| self.is_member()) else {
            return;
        };
        let connected: Vec<_> = self.connections.connected().collect();
        self.outputs
            .extend(connected.into_iter().map(|peer| Output::Registry {
                peer,
                body: body.clone(),
            }));
    }
}
