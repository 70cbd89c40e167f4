//! What a shell keeps on its disk, and hosts that go away and come back.

use super::*;
use crate::membership::{Notice, NoticeId};

/// What survives a restart.
#[derive(Default)]
pub struct Disk {
    records: BTreeMap<PeerId, Vec<u8>>,
    notices: BTreeMap<NoticeId, Vec<u8>>,
    pub entries: BTreeMap<[u8; 32], Vec<u8>>,
    pub policies: Vec<Option<Vec<u8>>>,
    pub standings: Vec<Standing>,
}

impl Disk {
    /// What a shell saves when it has joined.
    pub fn fill(&mut self, start: &Start) {
        let notices = start.notices.iter();
        self.notices
            .extend(notices.map(|notice| (Notice::id_of(notice), notice.clone())));
    }

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
            Output::PolicyChanged(body) => self.policies.push(body.clone()),
            Output::Standing(standing) => self.standings.push(standing.clone()),
            Output::SaveEntry { slot, sealed } => {
                self.entries.insert(*slot, sealed.clone());
            }
            Output::ForgetEntry { slot } => drop(self.entries.remove(slot)),
            Output::Dial { .. }
            | Output::Close(_)
            | Output::Admit(_)
            | Output::Refuse { .. }
            | Output::Introduce(_)
            | Output::Sync { .. }
            | Output::Respond { .. }
            | Output::Redeem { .. }
            | Output::AskRenewal { .. }
            | Output::Departed(_)
            | Output::SaveDescriptorSeq(_)
            | Output::SaveTimeFloor(_)
            | Output::SaveCredential(_)
            | Output::Publish { .. }
            | Output::Lookup { .. }
            | Output::Relays(_)
            | Output::SetIpv4(_)
            | Output::Registry { .. }
            | Output::PublishEntry { .. }
            | Output::LookupEntry { .. } => {}
        }
    }
}

impl World {
    /// Every connection of a host breaks.
    pub fn unplug(&mut self, at: usize) {
        let ends: Vec<_> = self.links.iter().map(|(id, ends)| (*id, *ends)).collect();
        for (id, (a, b)) in ends {
            if a == at || b == at {
                self.close(at, id);
            }
        }
        self.settle();
    }

    /// Ends a host and starts it again from its disk.
    pub fn restart(&mut self, at: usize) {
        self.unplug(at);
        let now = self.now();
        let host = &mut self.hosts[at];
        let node = &host.node;
        let mut start = start(
            host.number,
            node.network.clone(),
            node.credential.clone(),
            host.disk.records.values().cloned().collect(),
        );
        start.notices = host.disk.notices.values().cloned().collect();
        start.entries = host.disk.entries.values().cloned().collect();
        start.descriptor_seq = node.descriptor_seq;
        start.time_floor = node.time.floor();
        if host.number == 1 {
            start.delegation = Some(founded("n1").2);
        }
        start.redemptions = node.redemptions.values().cloned().collect();
        host.node = Node::new(start, now).unwrap();
        self.settle();
        self.reach(at);
        self.settle();
    }

    /// One host connects to another, and each shows what it has. Returns whether both admitted each other.
    pub fn knock(&mut self, a: usize, b: usize) -> bool {
        let id = ConnectionId(self.next_connection);
        self.next_connection += 1;
        self.links.insert(id, (a, b));
        let now = self.now();
        let mut admitted = true;
        for (here, there) in [(a, b), (b, a)] {
            let (peer, number) = (self.hosts[there].node.peer_id(), self.hosts[there].number);
            let node = &mut self.hosts[here].node;
            node.handle_connection_opened(id, peer, Link::Quic(endpoint(number)), now);
        }
        self.settle();
        for (here, there) in [(a, b), (b, a)] {
            let [us, peer] = [here, there].map(|at| self.hosts[at].node.peer_id());
            let Some(record) = self.hosts[there].node.own_record() else {
                admitted = false;
                continue;
            };
            let before = self.hosts[here].refused.len();
            let node = &mut self.hosts[here].node;
            node.handle_credential(id, peer, &record, now);
            self.settle();
            if self.hosts[here].refused.len() > before {
                admitted = false;
                self.hosts[there].node.handle_refused_by_peer(us, now);
                self.settle();
            }
        }
        if admitted {
            for here in [a, b] {
                self.hosts[here].node.handle_authenticated(id, now);
            }
        } else if self.links.contains_key(&id) {
            self.close(a, id);
        }
        self.settle();
        admitted && self.links.contains_key(&id)
    }

    /// The network without one of its hosts.
    pub fn knows(&self, at: usize, other: usize) -> bool {
        let peer = self.hosts[other].node.peer_id();
        self.hosts[at].node.directory.get(&peer).is_some()
    }

    pub fn has_tunnel(&self, at: usize, other: usize) -> bool {
        let peer = self.hosts[other].node.peer_id();
        self.hosts[at].node.tunnels.peer(&peer).is_some()
    }

    pub fn peer(&self, at: usize) -> PeerId {
        self.hosts[at].node.peer_id()
    }

    pub fn standing(&self, at: usize) -> Standing {
        self.hosts[at].node.standing().clone()
    }

    /// The founder expels a host.
    pub fn revoke(&mut self, at: usize) {
        let (peer, now) = (self.peer(at), self.now());
        self.hosts[0]
            .node
            .revoke(&peer, "the laptop was lost", now)
            .unwrap();
        self.settle();
    }

    /// Days later.
    pub fn sleep(&mut self, days: u32) {
        self.elapsed += Duration::from_secs(24 * 60 * 60) * days;
    }

    /// Lets a host act on the time that has passed.
    pub fn wake(&mut self, at: usize) {
        let now = self.now();
        self.hosts[at].node.handle_timeout(now);
        self.settle();
    }
}
