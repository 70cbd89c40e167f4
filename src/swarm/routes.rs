//! Whom the DHT knows here, and what it keeps: for people.

use std::collections::BTreeMap;

use libp2p::{
    PeerId,
    kad::{Addresses, KBucketKey, KBucketRef, Mode, NodeStatus, store::RecordStore},
};
use tokio::sync::oneshot;

use super::{Swarm, dht};
use crate::control::{
    Reply,
    registry::{Bucket, Records, Route, Routes},
};

impl Swarm {
    /// Tells a command the routing table.
    pub(super) fn routes(
        &mut self,
        names: &BTreeMap<PeerId, String>,
        answer: oneshot::Sender<Reply>,
    ) {
        let local = *self.inner.local_peer_id();
        let protocols = self.inner.behaviour_mut().gate.inner_mut();
        let reply = match protocols.kad.as_mut() {
            None => Reply::Error("this node is in no network yet".to_owned()),
            Some(kad) => {
                let mut records = Records::default();
                for record in kad.store_mut().records() {
                    if record.publisher == Some(local) {
                        records.ours += 1;
                    } else {
                        records.others += 1;
                        records.entries_of_others += usize::from(dht::is_entry(&record.value));
                    }
                }
                let mode = match kad.mode() {
                    Mode::Server => "server",
                    Mode::Client => "client",
                };
                Reply::of(&Routes {
                    mode: mode.to_owned(),
                    buckets: kad.kbuckets().map(|one| bucket(&one, names)).collect(),
                    records,
                })
            }
        };
        // Whoever asked may have gone.
        let _ = answer.send(reply);
    }
}

fn bucket(
    bucket: &KBucketRef<'_, KBucketKey<PeerId>, Addresses>,
    names: &BTreeMap<PeerId, String>,
) -> Bucket {
    let peers = bucket.iter().map(|entry| {
        let peer = entry.node.key.preimage();
        let addresses = entry.node.value.iter();
        Route {
            peer_id: peer.to_string(),
            name: names.get(peer).cloned(),
            addresses: addresses.map(ToString::to_string).collect(),
            connected: entry.status == NodeStatus::Connected,
        }
    });
    Bucket {
        distance: bucket.range().0.ilog2().unwrap_or_default(),
        peers: peers.collect(),
    }
}
