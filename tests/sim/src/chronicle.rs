//! What owners have written into the registry, and what every host has shown of it.
//!
//! Owners are believed about what they write themselves; about all others nobody is. So whatever a host shows can be held
//! against what was written, and against what it showed before.

use std::collections::{BTreeMap, BTreeSet};

use hivevpn_core::membership::UnixTime;

use crate::underlay::HostId;

/// Whose entry it is, and under which key.
pub type Place = (HostId, String);

/// One thing that an owner has written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The higher one counts.
    pub seq: u64,
    /// None, if it was deleted.
    pub value: Option<Vec<u8>>,
    /// From this second on it is over.
    pub expires: UnixTime,
}

/// What a host has shown in one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shown {
    seq: u64,
    /// It did not show it any more later.
    is_gone: bool,
}

/// All of it.
#[derive(Debug, Default)]
pub struct Chronicle {
    written: BTreeMap<Place, Vec<Written>>,
    shown: BTreeMap<HostId, BTreeMap<Place, Shown>>,
    /// Who was expelled.
    expelled: BTreeSet<HostId>,
}

impl Chronicle {
    /// An owner has written something, or deleted what was there.
    pub fn write(&mut self, place: Place, entry: Written) {
        let entries = self.written.entry(place).or_default();
        if entries.iter().all(|known| known.seq != entry.seq) {
            entries.push(entry);
            entries.sort_by_key(|known| known.seq);
        }
    }

    /// An owner has deleted what was there, whatever the number of its tombstone is.
    pub fn delete(&mut self, place: Place, expires: UnixTime) {
        let Some(newest) = self.newest(&place) else {
            return;
        };
        let tombstone = Written {
            seq: newest.seq + 1,
            value: None,
            expires,
        };
        self.write(place, tombstone);
    }

    /// A member was expelled: nothing of it counts any more.
    pub fn expel(&mut self, host: HostId) {
        self.expelled.insert(host);
    }

    /// Whether a host was expelled.
    pub fn is_expelled(&self, host: HostId) -> bool {
        self.expelled.contains(&host)
    }

    /// The newest that was written in a place.
    pub fn newest(&self, place: &Place) -> Option<&Written> {
        self.written.get(place)?.last()
    }

    /// How many places were ever written to.
    pub fn places(&self) -> usize {
        self.written.len()
    }

    /// How often something was written or deleted.
    pub fn writes(&self) -> usize {
        self.written.values().map(Vec::len).sum()
    }

    /// What everybody should show whose clock says `unix`.
    pub fn live(&self, unix: UnixTime) -> BTreeMap<Place, Written> {
        let all = self.written.keys();
        all.filter(|(owner, _)| !self.is_expelled(*owner))
            .filter_map(|place| Some((place.clone(), self.newest(place)?.clone())))
            .filter(|(_, newest)| newest.value.is_some() && unix < newest.expires)
            .collect()
    }

    /// Holds what a host shows against what was written. Returns what its owner never wrote.
    pub fn forged(&self, shows: &BTreeMap<Place, Written>) -> Vec<Place> {
        let is_written = |place: &Place, entry: &Written| {
            let written = self.written.get(place);
            written.is_some_and(|all| all.contains(entry))
        };
        let forged = shows
            .iter()
            .filter(|(place, entry)| !is_written(place, entry));
        forged.map(|(place, _)| place.clone()).collect()
    }

    /// Holds what a host shows against what it showed before. Returns what has gone back: an older version, or one that was
    /// gone already.
    pub fn gone_back(&mut self, host: HostId, shows: &BTreeMap<Place, Written>) -> Vec<Place> {
        let before = self.shown.entry(host).or_default();
        for (place, known) in before.iter_mut() {
            known.is_gone |= !shows.contains_key(place);
        }
        let mut back = Vec::new();
        for (place, entry) in shows {
            let now = Shown {
                seq: entry.seq,
                is_gone: false,
            };
            let Some(known) = before.insert(place.clone(), now) else {
                continue;
            };
            if entry.seq < known.seq || entry.seq == known.seq && known.is_gone {
                back.push(place.clone());
            }
        }
        back
    }

    /// A host has lost its disk: it starts with nothing.
    pub fn forget_shown(&mut self, host: HostId) {
        self.shown.remove(&host);
    }
}
