//! What the node does about libp2p connections: judging who shows up, and the paths that connections open.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use libp2p_core::Multiaddr;
use libp2p_identity::PeerId;

use super::{Node, Now};
use crate::{
    connection::{ConnectionId, Link, quic_endpoint},
    membership::Rejection,
    output::Output,
    path::{
        Path, PathKind,
        candidate::{Candidate, CandidateKind},
    },
};

/// Somebody on the LAN who is no member we know is tried this often: it may be a member that we have not heard of.
const STRANGER_PERIOD: Duration = Duration::from_secs(60);
/// More strangers than this are not remembered.
const MAX_STRANGERS: usize = 256;

impl Node {
    /// A connection came up; nobody has proven anything yet.
    pub fn handle_connection_opened(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        link: Link,
        now: Now,
    ) {
        self.connections.opened(id, peer, link, now.instant);
        self.ask_if_needed(&peer, now);
    }

    /// The peer shows its record on this connection, after proving that it knows the network.
    pub fn handle_credential(&mut self, id: ConnectionId, peer: PeerId, record: &[u8], now: Now) {
        let verdict = match self.judge(peer, record, now) {
            Ok(()) => Output::Admit(id),
            Err(rejection) => {
                self.rejections.count(&rejection);
                if rejection == Rejection::DelegationEnded {
                    self.remember_unsupported(peer, record);
                }
                Output::Refuse {
                    connection: id,
                    reason: rejection.to_string(),
                }
            }
        };
        self.outputs.push_back(verdict);
    }

    fn judge(&mut self, peer: PeerId, record: &[u8], now: Now) -> Result<(), Rejection> {
        let is_cheap = self.directory.knows(record);
        // A stranger has few connections, and shows few credentials on each.
        let is_known = self.directory.get(&peer).is_some();
        if !is_cheap && is_known && !self.works_for(peer, 1, now) {
            return Err(Rejection::TooMuch);
        }
        match self.admit(record, Some(peer), now)? {
            shown if shown == peer => Ok(()),
            _ => Err(Rejection::WrongSubject),
        }
    }

    /// Both ends of the connection are members.
    pub fn handle_authenticated(&mut self, id: ConnectionId, now: Now) {
        let Some((peer, link)) = self.connections.peer_of(id) else {
            return;
        };
        let is_first = self.connections.authenticated(id, now.instant);
        if let Link::Quic(endpoint) = link {
            self.tunnels
                .open_path(&peer, Path::Direct(endpoint), PathKind::Direct, now.instant);
        }
        if is_first {
            self.tunnels.look_for(&peer, now.instant);
            self.compare_summary_with(peer);
            self.greet_for_registry(peer, now.instant);
        }
    }

    /// The connection's carrier stream is up.
    pub fn handle_carrier_opened(&mut self, id: ConnectionId, now: Now) {
        self.connections.set_carrier(id, true);
        self.open_carrier_path(id, now);
    }

    pub(super) fn open_carrier_path(&mut self, id: ConnectionId, now: Now) {
        let Some((peer, link)) = self.connections.peer_of(id) else {
            return;
        };
        let kind = match link {
            Link::Quic(_) | Link::Tcp(_) => PathKind::Stream,
            Link::Relayed { relay } => PathKind::Relay(relay),
        };
        self.tunnels
            .open_path(&peer, Path::Carrier(id), kind, now.instant);
    }

    /// The connection's carrier stream broke.
    pub fn handle_carrier_closed(&mut self, id: ConnectionId, now: Now) {
        self.connections.set_carrier(id, false);
        if let Some((peer, _)) = self.connections.peer_of(id) {
            self.tunnels
                .close_path(&peer, Path::Carrier(id), now.instant);
        }
    }

    /// The connection's endpoint changed under it: the peer's address, or a NAT's mapping.
    pub fn handle_connection_moved(&mut self, id: ConnectionId, link: Link, now: Now) {
        let Some((peer, before)) = self.connections.peer_of(id) else {
            return;
        };
        let is_authenticated = self.connections.of(&peer).any(|(known, _)| known == id);
        self.connections.moved(id, link, now.instant);
        if let (true, Link::Quic(endpoint)) = (is_authenticated, link) {
            self.tunnels
                .open_path(&peer, Path::Direct(endpoint), PathKind::Direct, now.instant);
        }
        self.close_direct_path(&peer, before, now);
    }

    /// The connection is gone.
    pub fn handle_connection_closed(&mut self, id: ConnectionId, now: Now) {
        let Some((peer, link)) = self.connections.closed(id, now.instant) else {
            return;
        };
        self.tunnels
            .close_path(&peer, Path::Carrier(id), now.instant);
        self.close_direct_path(&peer, link, now);
    }

    /// Another connection to the same endpoint still vouches for it.
    fn close_direct_path(&mut self, peer: &PeerId, link: Link, now: Now) {
        let Link::Quic(endpoint) = link else { return };
        if !self.connections.of(peer).any(|(_, other)| other == link) {
            self.tunnels
                .close_path(peer, Path::Direct(endpoint), now.instant);
        }
    }

    /// Nobody, or the wrong one, answered at the addresses we tried. After a few times the DHT may know better.
    pub fn handle_dial_failed(&mut self, peer: &PeerId, now: Now) {
        let failures = self.connections.dial_failed(peer, now.instant);
        if failures % 4 == 2 {
            self.outputs.push_back(Output::Lookup {
                key: self.network.record_key(peer),
            });
        }
    }

    /// mDNS found somebody on the LAN.
    pub fn handle_discovered(&mut self, peer: PeerId, addresses: Vec<Multiaddr>, now: Now) {
        if peer == self.peer_id() || addresses.is_empty() {
            return;
        }
        self.learn_endpoints(&peer, &addresses, CandidateKind::Lan, now.instant);
        let is_direct = self.connections.of(&peer).any(|(_, link)| link.is_direct());
        let is_member = self.directory.get(&peer).is_some();
        if is_direct || !is_member && !self.try_stranger(peer, now.instant) {
            return;
        }
        self.outputs.push_back(Output::Dial {
            peer,
            addresses,
            // Nor is a dial under way a reason to refrain: it tries addresses of another place.
            even_if_connected: true,
        });
    }

    /// Wherever the peer says that it listens for QUIC, it listens for raw datagrams too.
    pub(super) fn learn_endpoints(
        &mut self,
        peer: &PeerId,
        addresses: &[Multiaddr],
        kind: CandidateKind,
        now: Instant,
    ) {
        for endpoint in addresses.iter().filter_map(quic_endpoint) {
            self.tunnels.learn(peer, Candidate { kind, endpoint }, now);
        }
    }

    /// As long as nobody is connected, tries the addresses that the operator gave; as long as no relay is, one of those that
    /// we know: the others reach us through it, and it may have been away for so long that its own turn comes rarely.
    pub(super) fn contact_bootstrap(&mut self) {
        let connected: BTreeSet<_> = self.connections.connected().collect();
        let dial = |peer, addresses| Output::Dial {
            peer,
            addresses,
            even_if_connected: true,
        };
        if connected.is_empty() {
            let given = self.bootstrap.iter();
            let dials = given.map(|(peer, address)| dial(*peer, vec![address.clone()]));
            self.outputs.extend(dials);
        }
        if !self.relays.iter().any(|(id, _)| connected.contains(id)) {
            let all: Vec<_> = (0..self.relays.len()).collect();
            if let Some(at) = self.tunnels.choose(&all) {
                let (peer, addresses) = self.relays[at].clone();
                self.outputs.push_back(dial(peer, addresses));
            }
        }
    }

    fn try_stranger(&mut self, peer: PeerId, now: Instant) -> bool {
        self.strangers
            .retain(|_, tried| now < *tried + STRANGER_PERIOD);
        if self.strangers.contains_key(&peer) || self.strangers.len() >= MAX_STRANGERS {
            return false;
        }
        self.strangers.insert(peer, now);
        true
    }
}
