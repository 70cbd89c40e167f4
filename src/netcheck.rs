//! What the network around this node lets it do.
//!
//! A node learns about its NAT from the members that it talks to: each sees its UDP socket at some endpoint. If that is an
//! address of its own there is no NAT on the way; if members at different addresses see the same endpoint the NAT's
//! *mapping* does not depend on the destination (RFC 4787 §4.1), and whoever learns of the endpoint may use it. Whether a
//! datagram from a port that this node never spoke to gets in, the *filtering* (RFC 4787 §5), a member has to try: see
//! [`reflect`](crate::reflect). A filter of this machine's own counts like one of its router.
//!
//! Nothing here asks anybody: facts come in, a [`Report`] comes out.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use serde::Serialize;

use crate::{
    control::{ControlTraffic, Node, Observation, Peer, Status, Transport, Underlay},
    swarm::addresses::is_public_ip,
};

/// What `netcheck` knows before it judges.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The daemon's view of the network.
    pub status: Status,
    /// The members.
    pub nodes: Vec<Node>,
    /// The daemon's view of the underlay.
    pub underlay: Underlay,
    /// The machine's own addresses on the underlay.
    pub addresses: Vec<IpAddr>,
    /// What came of tokens, over IPv4.
    pub tokens_v4: Tokens,
    /// What came of tokens, over IPv6.
    pub tokens_v6: Tokens,
}

/// What came of tokens that members sent from new ports.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tokens {
    /// Where one arrived from.
    pub arrived: Option<String>,
    /// How many were sent and did not arrive.
    pub lost: u32,
    /// Why the last one that was not sent was not.
    pub refused: Option<String>,
}

impl Tokens {
    /// Of one datagram that is lost a network may be innocent.
    pub const TRIES: u32 = 2;
}

/// `netcheck --json`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Whether datagrams get through at all.
    pub udp: Udp,
    /// The way out over IPv4; none without an address.
    pub ipv4: Option<Family>,
    /// The way out over IPv6; none without an address.
    pub ipv6: Option<Family>,
    /// Which protocol had the router map a port to ours, if it did.
    pub port_mapping: Option<String>,
    /// Members that offer to relay, the fastest first.
    pub relays: Vec<Relay>,
    /// The other members.
    pub peers: Vec<Prediction>,
    /// What being a member costs.
    pub control_traffic: Cost,
}

/// What this node sends beside packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Cost {
    /// Bytes of UDP payload so far; see [`ControlTraffic`].
    pub sent_bytes: u64,
    /// In how many seconds.
    pub since_s: u64,
    /// What that makes a day; none in the first minute.
    pub bytes_per_day: Option<u64>,
}

impl From<ControlTraffic> for Cost {
    fn from(traffic: ControlTraffic) -> Self {
        Self {
            sent_bytes: traffic.sent_bytes,
            since_s: traffic.since_s,
            bytes_per_day: traffic.per_day(),
        }
    }
}

/// Whether datagrams get through at all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Udp {
    /// None if there is nobody to tell by.
    pub works: Option<bool>,
    /// How that is known.
    pub reason: String,
}

/// What one address family's way out is like.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Family {
    /// The machine's own addresses.
    pub addresses: Vec<IpAddr>,
    /// What members see the UDP socket as.
    pub seen_as: Vec<Seen>,
    /// How a NAT maps the socket.
    pub mapping: Mapping,
    /// Whether it keeps the port's number.
    pub port_preserved: Option<bool>,
    /// Whom a NAT or firewall lets in.
    pub filtering: Filtering,
    /// Why the filtering is not known, if it is not.
    pub filtering_unknown: Option<String>,
}

/// An endpoint with those who see the socket there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Seen {
    /// The endpoint.
    pub endpoint: SocketAddr,
    /// Names of members.
    pub by: Vec<String>,
}

/// How a NAT maps the socket (RFC 4787 §4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mapping {
    /// It does not: there is no NAT.
    None,
    /// To the same endpoint whatever the destination.
    EndpointIndependent,
    /// To another endpoint for another destination.
    AddressOrPortDependent,
    /// Not enough members see the socket.
    Unknown,
}

/// Whom a NAT or firewall lets in (RFC 4787 §5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Filtering {
    /// At least every port of an address that was spoken to.
    PortIndependent,
    /// Only address and port that were spoken to.
    AddressAndPortDependent,
    /// Nobody could try.
    Unknown,
}

/// A member that offers to relay.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Relay {
    /// Its name.
    pub name: String,
    /// Whether it is reached at the moment.
    pub online: bool,
    /// Smoothed round trip to it, in milliseconds.
    pub rtt_ms: Option<f64>,
    /// Whether it holds a reservation for us.
    pub reserved: bool,
}

/// The path that is to be expected to a member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Prediction {
    /// Its name.
    pub name: String,
    /// The path in use, as in `status`.
    pub path: String,
    /// `direct`, `stream` or `relay`.
    pub predicted: &'static str,
    /// Why.
    pub reason: String,
}

/// Judges all of it.
pub fn judge(facts: &Facts) -> Report {
    let udp = udp(&facts.status, &facts.underlay);
    let ipv4 = family(facts, IpAddr::is_ipv4, &facts.tokens_v4);
    let ipv6 = family(facts, IpAddr::is_ipv6, &facts.tokens_v6);
    let peers = facts.status.peers.iter();
    let peers = peers.map(|peer| predict(peer, facts, &udp, [&ipv4, &ipv6]));
    Report {
        peers: peers.collect(),
        control_traffic: facts.underlay.control_traffic.into(),
        udp,
        ipv4,
        ipv6,
        port_mapping: facts.underlay.port_mapping.clone(),
        relays: relays(facts),
    }
}

/// Whether datagrams get through: to or from a member, over a path or a connection.
pub fn udp(status: &Status, underlay: &Underlay) -> Udp {
    let by = |peer: &Peer, wanted| {
        let mut connections = underlay.connections.iter();
        connections
            .any(|connection| connection.peer_id == peer.peer_id && connection.transport == wanted)
    };
    let online = || status.peers.iter().filter(|peer| peer.online);
    let over_udp = online().filter(|peer| peer.path == "direct" || by(peer, Transport::Quic));
    let over_tcp = online().filter(|peer| by(peer, Transport::Tcp));
    match (over_udp.count(), over_tcp.count()) {
        (0, 0) => Udp {
            works: None,
            reason: "no member is reached directly, so there is nobody to tell by".to_owned(),
        },
        (0, tcp) => Udp {
            works: Some(false),
            reason: format!("{} reached over TCP and none over UDP", members(tcp)),
        },
        (udp, _) => Udp {
            works: Some(true),
            reason: format!("{} reached over UDP", members(udp)),
        },
    }
}

fn members(count: usize) -> String {
    match count {
        1 => "1 member is".to_owned(),
        _ => format!("{count} members are"),
    }
}

// ---- NAT and firewall ------------------------------------------------------------------------------------------

/// The members whose view tells most about the way out of this family, each with what it sees us as: those beyond the
/// NAT, if there is one. They can be asked for tokens.
pub fn observers(facts: &Facts, of_family: impl Fn(&IpAddr) -> bool) -> Vec<Observation> {
    // A later connection of the same peer tells of a later mapping.
    let latest: BTreeMap<_, _> = facts
        .underlay
        .observations
        .iter()
        .filter(|observation| of_family(&observation.endpoint.ip()))
        .map(|observation| ((&observation.peer_id, observation.from), observation))
        .collect();
    let all: Vec<_> = latest.into_values().cloned().collect();
    let part = |wanted: &dyn Fn(&Observation) -> bool| {
        let part: Vec<_> = all.iter().filter(|seen| wanted(seen)).cloned().collect();
        (!part.is_empty()).then_some(part)
    };
    // Neighbours see us on our own site. What the router there makes of their packets tells nothing of the way out.
    let beyond = |seen: &Observation| !is_own(facts, &seen.endpoint);
    part(&|seen| beyond(seen) && is_public_ip(seen.endpoint.ip()))
        .or_else(|| part(&beyond))
        .unwrap_or(all)
}

fn is_own(facts: &Facts, endpoint: &SocketAddr) -> bool {
    facts.addresses.contains(&endpoint.ip()) && endpoint.port() == facts.underlay.port
}

fn family(facts: &Facts, of_family: fn(&IpAddr) -> bool, tokens: &Tokens) -> Option<Family> {
    let addresses = facts.addresses.iter().filter(|ip| of_family(ip)).copied();
    let addresses: Vec<_> = addresses.collect();
    let observers = observers(facts, of_family);
    if addresses.is_empty() && observers.is_empty() {
        return None;
    }
    let mut seen_as: BTreeMap<SocketAddr, BTreeSet<String>> = BTreeMap::new();
    for observer in &observers {
        let by = seen_as.entry(observer.endpoint).or_default();
        by.insert(name_of(facts, &observer.peer_id));
    }
    let keeps_port = |endpoint: &SocketAddr| endpoint.port() == facts.underlay.port;
    let (filtering, filtering_unknown) = filtering(tokens);
    Some(Family {
        addresses,
        mapping: mapping(facts, &observers),
        port_preserved: (!seen_as.is_empty()).then(|| seen_as.keys().all(keeps_port)),
        seen_as: seen_as
            .into_iter()
            .map(|(endpoint, by)| Seen {
                endpoint,
                by: by.into_iter().collect(),
            })
            .collect(),
        filtering,
        filtering_unknown,
    })
}

fn mapping(facts: &Facts, observers: &[Observation]) -> Mapping {
    let endpoints: BTreeSet<_> = observers.iter().map(|seen| seen.endpoint).collect();
    let places: BTreeSet<_> = observers.iter().map(|seen| seen.from.ip()).collect();
    if endpoints.is_empty() {
        Mapping::Unknown
    } else if endpoints.iter().all(|endpoint| is_own(facts, endpoint)) {
        Mapping::None
    } else if endpoints.len() > 1 {
        Mapping::AddressOrPortDependent
    } else if places.len() > 1 {
        Mapping::EndpointIndependent
    } else {
        Mapping::Unknown
    }
}

fn filtering(tokens: &Tokens) -> (Filtering, Option<String>) {
    if tokens.arrived.is_some() {
        (Filtering::PortIndependent, None)
    } else if tokens.lost >= Tokens::TRIES {
        (Filtering::AddressAndPortDependent, None)
    } else {
        let why = tokens.refused.clone();
        let nobody = || "no member that is connected over QUIC could try".to_owned();
        (Filtering::Unknown, Some(why.unwrap_or_else(nobody)))
    }
}

fn name_of(facts: &Facts, peer_id: &str) -> String {
    let mut nodes = facts.nodes.iter();
    let node = nodes.find(|node| node.peer_id == peer_id);
    node.map_or_else(|| peer_id.to_owned(), |node| node.name.clone())
}

// ---- relays and peers ------------------------------------------------------------------------------------------

fn relays(facts: &Facts) -> Vec<Relay> {
    let offering = facts.nodes.iter().filter(|node| node.relays && !node.this);
    let mut relays: Vec<_> = offering
        .map(|node| {
            let mut peers = facts.status.peers.iter();
            let peer = peers.find(|peer| peer.peer_id == node.peer_id);
            Relay {
                name: node.name.clone(),
                online: node.online,
                rtt_ms: peer.and_then(|peer| peer.rtt_ms),
                reserved: facts.underlay.reservations.contains(&node.peer_id),
            }
        })
        .collect();
    let rtt = |relay: &Relay| relay.rtt_ms.unwrap_or(f64::INFINITY);
    relays.sort_by(|a, b| rtt(a).total_cmp(&rtt(b)).then_with(|| a.name.cmp(&b.name)));
    relays
}

fn predict(peer: &Peer, facts: &Facts, udp: &Udp, families: [&Option<Family>; 2]) -> Prediction {
    let offers = |node: &Node| node.peer_id == peer.peer_id && node.relays;
    let is_public = facts.nodes.iter().any(offers);
    let ours = || families.into_iter().flatten();
    let maps = |wanted| ours().any(|family| family.mapping == wanted);
    let lets_in = ours().any(|family| family.filtering == Filtering::PortIndependent);
    let is_steady = maps(Mapping::None) || maps(Mapping::EndpointIndependent);
    let (predicted, reason) = if peer.path == "direct" {
        ("direct", "it is in use")
    } else if udp.works == Some(false) && is_public {
        ("stream", "UDP does not get through, TCP to it does")
    } else if udp.works == Some(false) {
        ("relay", "UDP does not get through")
    } else if is_public {
        ("direct", "it offers to relay, so anybody should reach it")
    } else if is_steady && lets_in {
        (
            "direct",
            "every port of a member gets in here, whatever its NAT",
        )
    } else if is_steady {
        (
            "direct",
            "one endpoint here for every destination: a hole opens unless its NAT has more than one",
        )
    } else if maps(Mapping::AddressOrPortDependent) {
        (
            "relay",
            "another endpoint here for every destination: direct only if its end is open",
        )
    } else if peer.path == "stream" {
        ("stream", "it is in use, and too little is known of our NAT")
    } else {
        ("relay", "too little is known of our NAT")
    };
    Prediction {
        name: peer.name.clone(),
        path: peer.path.clone(),
        predicted,
        reason: reason.to_owned(),
    }
}

#[cfg(test)]
mod tests;
