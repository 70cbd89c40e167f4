//! What the shell keeps for the node, and what a node starts from after a restart.

use std::collections::BTreeMap;

use hivevpn_core::{
    membership::{Credential, Network, NoticeId, UnixTime},
    node::Start,
    output::Output,
};
use libp2p_identity::PeerId;

/// What survives a restart. It never fails.
pub struct Disk {
    /// The network, with its secrets.
    pub network: Network,
    /// Our certificate, as we joined.
    pub credential: Credential,
    /// Our delegation, if we are the founder.
    pub delegation: Option<Vec<u8>>,
    /// What is known of members.
    pub records: BTreeMap<PeerId, Vec<u8>>,
    /// What authorities have said.
    pub notices: BTreeMap<NoticeId, Vec<u8>>,
    /// Entries of the registry, by their slots.
    pub entries: BTreeMap<[u8; 32], Vec<u8>>,
    /// The number of our last descriptor.
    pub descriptor_seq: u64,
    /// The latest moment that was known.
    pub time_floor: UnixTime,
    /// Whether we keep nothing of the registry for others.
    pub is_client: bool,
    /// How often the host has started.
    pub starts: u64,
}

impl Disk {
    /// What is written when a node starts for the first time. What it knows of others it saves by itself.
    pub fn of(start: &Start) -> Self {
        Self {
            network: start.network.clone(),
            credential: start.credential.clone(),
            delegation: start.delegation.clone(),
            records: BTreeMap::new(),
            notices: BTreeMap::new(),
            entries: BTreeMap::new(),
            descriptor_seq: start.descriptor_seq,
            time_floor: start.time_floor,
            is_client: start.registry_client,
            starts: 1,
        }
    }

    /// Keeps what the node says is to be kept.
    pub fn keep(&mut self, output: &Output) {
        match output {
            Output::SaveRecord { peer, record } => {
                self.records.insert(*peer, record.clone());
            }
            Output::ForgetRecord(peer) => drop(self.records.remove(peer)),
            Output::SaveNotice { id, notice } => {
                self.notices.insert(*id, notice.clone());
            }
            Output::ForgetNotice(id) => drop(self.notices.remove(id)),
            Output::SaveEntry { slot, sealed } => {
                self.entries.insert(*slot, sealed.clone());
            }
            Output::ForgetEntry { slot } => drop(self.entries.remove(slot)),
            Output::SaveDescriptorSeq(seq) => self.descriptor_seq = *seq,
            Output::SaveTimeFloor(floor) => self.time_floor = *floor,
            // No certificate is renewed within a story that has restarts.
            Output::SaveCredential(_)
            | Output::Dial { .. }
            | Output::Close(_)
            | Output::Admit(_)
            | Output::Refuse { .. }
            | Output::Introduce(_)
            | Output::Sync { .. }
            | Output::Respond { .. }
            | Output::Redeem { .. }
            | Output::AskRenewal { .. }
            | Output::Standing(_)
            | Output::PolicyChanged(_)
            | Output::Departed(_)
            | Output::Publish { .. }
            | Output::Lookup { .. }
            | Output::Registry { .. }
            | Output::PublishEntry { .. }
            | Output::LookupEntry { .. }
            | Output::Relays(_)
            | Output::SetIpv4(_) => {}
        }
    }
}
