//! What members may leave in our part of the DHT: records of members, each under its own key, and none that is older
//! than what lies there.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hivevpn_core::{
    allowance::Allowances,
    membership::{DhtVerdict, MemberRecord, Rejection, UnixTime, directory::MAX_MEMBERS},
};
use libp2p::{
    PeerId,
    kad::{self, InboundRequest, Record, store::RecordStore},
};

use super::{Event, Swarm};

/// Records that one member may bring at once: whoever holds some for others repeats them all every hour.
const BURST: u32 = 512;
/// And one more in this time. Each costs a few signature checks.
const PRICE: Duration = Duration::from_millis(250);

/// How many records each member may still bring.
pub(super) struct Quotas(Allowances<PeerId>);

impl Default for Quotas {
    fn default() -> Self {
        Self(Allowances::new(BURST, PRICE, MAX_MEMBERS))
    }
}

impl Swarm {
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

    pub(super) fn on_kad(&mut self, event: kad::Event) {
        use kad::{GetRecordOk, QueryResult};
        let result = match event {
            kad::Event::OutboundQueryProgressed { result, .. } => result,
            kad::Event::InboundRequest { request } => return self.on_dht_request(request),
            kad::Event::RoutingUpdated { .. }
            | kad::Event::UnroutablePeer { .. }
            | kad::Event::RoutablePeer { .. }
            | kad::Event::PendingRoutablePeer { .. }
            | kad::Event::ModeChanged { .. } => return,
        };
        if let QueryResult::GetRecord(Ok(GetRecordOk::FoundRecord(found))) = result {
            self.tell(Event::Found {
                key: found.record.key.to_vec(),
                value: found.record.value,
            });
        } else {
            // Whoever publishes or looks for something does so again.
            tracing::trace!(?result, "a step of the DHT");
        }
    }
}

fn now() -> UnixTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    UnixTime(since.map_or(0, |since| since.as_secs()))
}
