//! What people may see of a node.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::{Duration, Instant},
};

use libp2p_identity::PeerId;

use super::Node;
use crate::{
    drop_reason::Drops,
    membership::{Certificate, Features, Member, Name, Rejections, UnixTime},
    path::{Path, PathView, view::CandidateView},
    tunnel_key,
};

/// A member of the network, this node included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberStatus {
    /// Its name in the network.
    pub name: Name,
    /// Its identity.
    pub peer_id: PeerId,
    /// Its overlay IPv4 address, unless an older member holds it.
    pub ipv4: Option<Ipv4Addr>,
    /// Its overlay IPv6 address.
    pub ipv6: Ipv6Addr,
    /// Whether it is reached at the moment; of this node, true.
    pub online: bool,
    /// Whether it offers to relay.
    pub relays: bool,
    /// The groups that its certificate puts it in.
    pub groups: BTreeSet<Name>,
    /// When it was admitted.
    pub admitted_at: UnixTime,
}

/// Another member with the way to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerStatus {
    /// Who it is.
    pub member: MemberStatus,
    /// The path in use, once a session is established over it.
    pub path: Option<PathView>,
    /// Underlay address that the path leads to, as far as it has one.
    pub endpoint: Option<SocketAddr>,
    /// Overlay bytes sent.
    pub tx_bytes: u64,
    /// Overlay bytes received.
    pub rx_bytes: u64,
    /// Age of the keys in use.
    pub since_handshake: Option<Duration>,
    /// Whether the keys in use rest on ML-KEM beside X25519.
    pub post_quantum: bool,
}

/// Why packets to a peer go the way they go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Why {
    /// How long they have gone this way.
    pub since: Option<Duration>,
    /// Every way that is known, the one in use first.
    pub ways: Vec<CandidateView>,
}

impl Node {
    /// All members, in the order of their names.
    pub fn members(&self) -> Vec<MemberStatus> {
        let mut members: Vec<_> = self
            .directory
            .members()
            .map(|member| self.member_status(member))
            .collect();
        members.sort_by(|a, b| (&a.name, a.peer_id).cmp(&(&b.name, b.peer_id)));
        members
    }

    fn member_status(&self, member: &Member) -> MemberStatus {
        MemberStatus {
            name: self.name_of(&member.peer_id),
            peer_id: member.peer_id,
            ipv4: self.directory.ipv4_of(&member.peer_id),
            ipv6: member.ipv6,
            online: member.peer_id == self.peer_id() || self.is_online(&member.peer_id),
            relays: member.descriptor.features.include(Features::RELAY),
            groups: member.certificate.groups.clone(),
            admitted_at: member.certificate.admitted_at,
        }
    }

    /// Another member, with the path to it.
    pub fn peer(&self, peer: &PeerId) -> Option<PeerStatus> {
        let member = self.directory.get(peer)?;
        (*peer != self.peer_id()).then(|| self.peer_status(self.member_status(member)))
    }

    /// All members but this node, with the paths to them.
    pub fn peers(&self) -> Vec<PeerStatus> {
        let others = self
            .members()
            .into_iter()
            .filter(|member| member.peer_id != self.peer_id());
        others.map(|member| self.peer_status(member)).collect()
    }

    fn peer_status(&self, member: MemberStatus) -> PeerStatus {
        let peer = self.tunnels.peer(&member.peer_id);
        let (tx_bytes, rx_bytes) = peer.map_or((0, 0), |peer| peer.traffic());
        let since_handshake = peer.and_then(|peer| peer.session()?.since_handshake());
        let path = peer
            .and_then(|peer| peer.paths().view())
            .filter(|path| since_handshake.is_some() && path.proven);
        PeerStatus {
            endpoint: path.and_then(|view| self.endpoint_of(&view.path)),
            path,
            tx_bytes,
            rx_bytes,
            since_handshake,
            post_quantum: since_handshake.is_some() && tunnel_key::SUITE != 0,
            member,
        }
    }

    /// Every way to a peer that is known, what came of it, and since when packets go the way they go. None for a peer
    /// that is not known.
    pub fn why(&self, peer: &PeerId, now: Instant) -> Option<Why> {
        let paths = self.tunnels.peer(peer)?.paths();
        let since = paths.since().filter(|_| paths.current().is_some());
        Some(Why {
            since: since.map(|since| now.saturating_duration_since(since)),
            ways: paths.explain(),
        })
    }

    /// What members see our UDP socket as, and how long ago they did so last.
    pub fn observations(
        &self,
        now: Instant,
    ) -> impl Iterator<Item = (PeerId, SocketAddr, Duration)> {
        self.tunnels.observations(now)
    }

    /// Bytes of the datagrams that carried signals inside the tunnels so far.
    pub fn signal_bytes(&self) -> u64 {
        self.tunnels.signal_bytes()
    }

    /// Bytes passed on for other members so far.
    pub fn passed_on(&self) -> u64 {
        self.tunnels.passed_on()
    }

    /// Where a path leads on the underlay; a relayed one leads to its relay, which has a name instead.
    pub fn endpoint_of(&self, path: &Path) -> Option<SocketAddr> {
        match path {
            Path::Direct(endpoint) => Some(*endpoint),
            Path::Relayed { .. } => None,
            Path::Carrier(id) => self.connections.peer_of(*id)?.1.endpoint(),
        }
    }

    /// What makes us a member.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// The latest moment that is known to have come: a system clock that shows an earlier one is wrong.
    pub fn time_floor(&self) -> UnixTime {
        self.time.floor()
    }

    /// What the network calls a member, the peer id when it is none.
    pub fn name_of(&self, peer: &PeerId) -> Name {
        self.directory.name_of(peer).unwrap_or_else(|| {
            Name::sanitised(&peer.to_string()).unwrap_or_else(|| self.name.clone())
        })
    }

    /// What went no further, and why.
    pub fn drops(&self) -> &Drops {
        self.tunnels.drops()
    }

    /// How often which rule was broken by what others sent.
    pub fn rejections(&self) -> &Rejections {
        &self.rejections
    }

    /// A path has answered lately, or a connection is open that may be alive.
    pub(super) fn is_online(&self, peer: &PeerId) -> bool {
        self.connections.may_live(peer)
            || self
                .tunnels
                .peer(peer)
                .and_then(|peer| peer.paths().view())
                .is_some_and(|path| path.proven)
    }
}
