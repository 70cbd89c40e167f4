//! Our part of the DHT: what members may leave there, and what we look for in theirs.
//!
//! Records of members are judged here: each lies under its own key, and none is older than what lies there. **Entries** of
//! the registry, which begin with another byte, can be read by the core alone: what a member brings is offered to it, and
//! kept when it says so. Nothing rests on acknowledgements, which libp2p gives before anybody has judged; and nothing that
//! is found is believed, because whoever keeps it may say what it likes.

use std::{
    collections::HashMap,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use hivevpn_core::{
    allowance::Allowances,
    membership::{DhtVerdict, MemberRecord, Rejection, UnixTime, directory::MAX_MEMBERS},
};
use libp2p::{
    PeerId,
    kad::{
        self, GetRecordError, GetRecordOk, InboundRequest, QueryId, Quorum, Record, RecordKey,
        store::RecordStore,
    },
};

use super::{
    Event, Swarm,
    behaviour::{MAX_ENTRIES, MAX_ENTRY, MemoryKad},
};

/// Records that one member may bring at once: whoever holds some for others repeats them all every hour.
const BURST: u32 = 512;
/// And one more in this time. Each costs a few signature checks.
const PRICE: Duration = Duration::from_millis(250);

/// How long an entry lies here when nobody brings it again: as long as any may live.
const ENTRY_TTL: Duration = Duration::from_secs(48 * 60 * 60);
/// What entries begin with. Records of members begin with the head of a CBOR map.
const ENTRY: u8 = 1;
/// Questions to the DHT at once; one beyond finds nothing.
const MAX_LOOKUPS: usize = 1024;

/// Whether this node keeps records for others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DhtMode {
    /// It does, and answers questions about them.
    #[default]
    Server,
    /// It only reads and publishes.
    Client,
}

impl std::str::FromStr for DhtMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "server" => Ok(Self::Server),
            "client" => Ok(Self::Client),
            _ => Err(format!("'{text}' is none of server, client")),
        }
    }
}

/// How many records each member may still bring.
pub(super) struct Quotas(Allowances<PeerId>);

impl Default for Quotas {
    fn default() -> Self {
        Self(Allowances::new(BURST, PRICE, MAX_MEMBERS))
    }
}

/// What we are looking for.
pub(super) type Lookups = HashMap<QueryId, Vec<u8>>;

/// Whether this value is an entry of the registry.
pub(super) fn is_entry(value: &[u8]) -> bool {
    value.first() == Some(&ENTRY)
}

impl Swarm {
    fn kad(&mut self) -> Option<&mut MemoryKad> {
        self.inner.behaviour_mut().gate.inner_mut().kad.as_mut()
    }

    // ---- what members leave here -------------------------------------------------------------------------

    /// Keeps what a member puts here, if it may be kept. Providers are not used, and not kept.
    pub(super) fn on_dht_request(&mut self, request: InboundRequest) {
        let InboundRequest::PutRecord {
            source,
            record: Some(record),
            ..
        } = request
        else {
            return;
        };
        if !self.quotas.0.take(source, 1, Instant::now()) {
            return tracing::debug!(peer = %source, "it puts more into the DHT than it may");
        }
        if is_entry(&record.value) {
            return self.offer_entry(source, record.key.to_vec(), record.value);
        }
        if let Err(reason) = self.keep(record) {
            tracing::debug!(peer = %source, %reason, "a record for the DHT is not kept");
            self.tell(Event::Rejected(reason));
        }
    }

    fn keep(&mut self, record: Record) -> Result<(), Rejection> {
        let gate = &mut self.inner.behaviour_mut().gate;
        let Some(membership) = gate.membership().cloned() else {
            return Ok(());
        };
        let Some(kad) = gate.inner_mut().kad.as_mut() else {
            return Ok(());
        };
        let store = kad.store_mut();
        let kept = store.get(&record.key).map(|kept| kept.value.clone());
        let verdict = MemberRecord::verify_for_dht(
            membership.network(),
            &record.key.to_vec(),
            &record.value,
            kept.as_deref(),
            now(),
        )?;
        if verdict == DhtVerdict::News
            && let Err(error) = store.put(record)
        {
            tracing::debug!("our part of the DHT is full: {error}");
        }
        Ok(())
    }

    /// Has the core judge an entry beside what lies here.
    fn offer_entry(&mut self, from: PeerId, slot: Vec<u8>, sealed: Vec<u8>) {
        let Some(kept) = self.kept(&slot) else { return };
        self.tell(Event::EntryOffered {
            from,
            slot,
            sealed,
            kept,
        });
    }

    /// Keeps what the core has found better than `kept`.
    pub(super) fn keep_entry(
        &mut self,
        from: PeerId,
        slot: Vec<u8>,
        sealed: Vec<u8>,
        kept: Option<Vec<u8>>,
    ) {
        let Some(lies) = self.kept(&slot) else { return };
        if lies != kept {
            return self.offer_entry(from, slot, sealed);
        }
        let Some(kad) = self.kad() else { return };
        let store = kad.store_mut();
        let entries = || store.records().filter(|record| is_entry(&record.value));
        if sealed.len() > MAX_ENTRY || lies.is_none() && entries().count() >= MAX_ENTRIES {
            return tracing::debug!("our part of the DHT has no room for an entry");
        }
        let mut record = Record::new(RecordKey::new(&slot), sealed);
        record.expires = Some(Instant::now() + ENTRY_TTL);
        if let Err(error) = store.put(record) {
            tracing::debug!("our part of the DHT is full: {error}");
        }
    }

    /// What lies in this slot; none when we are in no network.
    fn kept(&mut self, slot: &[u8]) -> Option<Option<Vec<u8>>> {
        let store = self.kad()?.store_mut();
        let kept = store.get(&RecordKey::new(&slot));
        Some(kept.map(|kept| kept.value.clone()))
    }

    // ---- what we leave in theirs -------------------------------------------------------------------------

    pub(super) fn publish(&mut self, key: Vec<u8>, value: Vec<u8>) {
        let Some(kad) = self.kad() else { return };
        // One copy elsewhere makes it a success. How many there will be is the DHT's replication factor.
        let record = Record::new(RecordKey::new(&key), value);
        if let Err(error) = kad.put_record(record, Quorum::One) {
            tracing::warn!("the record is not published: {error}");
        }
    }

    pub(super) fn unpublish(&mut self, key: &[u8]) {
        if let Some(kad) = self.kad() {
            kad.store_mut().remove(&RecordKey::new(&key));
        }
    }

    /// Leaves what we publish with a newcomer as well, as long as everybody is among the nearest: what was published before
    /// anybody was there would be nowhere until it is published again.
    fn share_with(&mut self, peer: PeerId) {
        let local = *self.inner.local_peer_id();
        let Some(kad) = self.kad() else { return };
        let known: usize = kad.kbuckets().map(|bucket| bucket.num_entries()).sum();
        if known > kad::K_VALUE.get() {
            return;
        }
        let records = kad.store_mut().records();
        let ours = records.filter(|record| record.publisher == Some(local));
        let ours: Vec<_> = ours.map(|record| record.into_owned()).collect();
        for record in ours {
            kad.put_record_to(record, std::iter::once(peer), Quorum::One);
        }
    }

    /// Mends what was found stale or missing.
    pub(super) fn write_back(&mut self, slot: &[u8], sealed: Vec<u8>, to: Vec<PeerId>) {
        if let Some(kad) = self.kad() {
            let record = Record::new(RecordKey::new(&slot), sealed);
            kad.put_record_to(record, to.into_iter(), Quorum::One);
        }
    }

    // ---- what we look for --------------------------------------------------------------------------------

    pub(super) fn look_up(&mut self, key: Vec<u8>) {
        let has_room = self.lookups.len() < MAX_LOOKUPS;
        match self.kad() {
            Some(kad) if has_room => {
                let query = kad.get_record(RecordKey::new(&key));
                self.lookups.insert(query, key);
            }
            Some(_) | None => self.tell(Event::LookedUp {
                key,
                without: Vec::new(),
            }),
        }
    }

    pub(super) fn on_kad(&mut self, event: kad::Event) {
        match event {
            kad::Event::OutboundQueryProgressed {
                id,
                result: kad::QueryResult::GetRecord(result),
                step,
                ..
            } => self.on_found(id, result, step.last),
            kad::Event::OutboundQueryProgressed { result, .. } => {
                // Whoever publishes something does so again.
                tracing::trace!(?result, "a step of the DHT");
            }
            kad::Event::InboundRequest { request } => self.on_dht_request(request),
            kad::Event::RoutingUpdated {
                peer,
                is_new_peer: true,
                ..
            } => self.share_with(peer),
            kad::Event::RoutingUpdated { .. }
            | kad::Event::UnroutablePeer { .. }
            | kad::Event::RoutablePeer { .. }
            | kad::Event::PendingRoutablePeer { .. }
            | kad::Event::ModeChanged { .. } => {}
        }
    }

    fn on_found(&mut self, id: QueryId, result: Result<GetRecordOk, GetRecordError>, last: bool) {
        // What was asked for counts, not what the answer says it is for.
        let Some(key) = self.lookups.get(&id).cloned() else {
            return;
        };
        let mut without = Vec::new();
        match result {
            Ok(GetRecordOk::FoundRecord(found)) => {
                let (value, from) = (found.record.value, found.peer);
                self.tell(match is_entry(&value) {
                    true => Event::FoundEntry {
                        slot: key.clone(),
                        sealed: value,
                        from,
                    },
                    false => Event::Found {
                        key: key.clone(),
                        value,
                    },
                });
            }
            Ok(GetRecordOk::FinishedWithNoAdditionalRecord { cache_candidates }) => {
                without = cache_candidates.into_values().collect();
            }
            Err(GetRecordError::NotFound { .. } | GetRecordError::Timeout { .. }) => {}
        }
        if last {
            self.lookups.remove(&id);
            self.tell(Event::LookedUp { key, without });
        }
    }
}

fn now() -> UnixTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    UnixTime(since.map_or(0, |since| since.as_secs()))
}
