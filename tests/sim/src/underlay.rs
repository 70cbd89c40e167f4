//! The simulated internet: sites with their gateways, hosts on them, links between.
//!
//! A datagram takes these steps: its host's gateway lets it out and may translate it, the links of both sites delay,
//! lose, reorder or refuse it, the other site's gateway lets it in. Every datagram that was sent is delivered, on its
//! way, or counted under the [`Loss`] that ended it. Hosts of one site reach each other without their gateway. Private
//! addresses are the same on all sites, as they are in the world.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddrV4},
    time::Duration,
};

use crate::{
    clock::{Moment, millis},
    nat::{Nat, NatKind},
    swarm::quic::QuicDatagram,
};

/// A host by its place in the world.
pub type HostId = usize;
/// A site by its place in the underlay.
pub type SiteId = usize;

/// Every host listens here, for UDP and TCP.
pub const PORT: u16 = 7777;
/// IPv4 and UDP headers, which a link's MTU counts.
pub const HEADERS: usize = 28;
const LAN_LATENCY: Duration = Duration::from_micros(300);
/// How much later than the others a reordered datagram comes at the most.
const REORDER_DELAY_MS: u64 = 40;

/// How a site meets the internet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GatewayKind {
    /// Public addresses and nothing in between.
    Open,
    /// A NAT or a firewall.
    Nat(NatKind),
    /// A NAT that lets no UDP pass; TCP gets out.
    NoUdp,
}

/// What a site's line to the internet does to datagrams.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Line {
    /// To the middle of the internet.
    pub latency: Duration,
    /// Probability that a datagram is lost.
    pub loss: f64,
    /// Probability that a datagram is overtaken.
    pub reorder: f64,
    /// Longest IP packet in bytes.
    pub mtu: usize,
}

/// A line like many.
pub const GOOD_LINE: Line = Line {
    latency: millis(10),
    loss: 0.0,
    reorder: 0.0,
    mtu: 1500,
};

/// What does not pass between two sites.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Nothing does.
    Everything,
    /// UDP does not: some middlebox changed its mind.
    Udp,
}

/// Why a datagram did not arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Loss {
    /// Bad luck.
    Chance,
    /// Longer than the MTU of a line.
    TooBig,
    /// The sites are cut off from each other.
    Cut,
    /// A gateway did not let it in.
    Filtered,
    /// A gateway lets no UDP pass.
    UdpBlocked,
    /// Nobody has this address.
    NoSuchHost,
    /// The host sleeps or has not started.
    Asleep,
}

/// What travels on UDP.
#[derive(Debug, Clone)]
pub enum Payload {
    /// As the core sealed it.
    WireGuard(Vec<u8>),
    /// As the swarm's stand-in wants it.
    Quic(QuicDatagram),
}

impl Payload {
    /// Bytes of UDP payload.
    pub fn len(&self) -> usize {
        match self {
            Self::WireGuard(bytes) => bytes.len(),
            Self::Quic(datagram) => datagram.length,
        }
    }

    /// Never: even a keep-alive has a header.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A datagram on its way.
#[derive(Debug, Clone)]
pub struct Flight {
    /// Who sent it.
    pub sender: HostId,
    /// As the receiver sees it.
    pub source: SocketAddrV4,
    destination: SocketAddrV4,
    place: Place,
    /// What it carries.
    pub payload: Payload,
}

#[derive(Debug, Clone, Copy)]
enum Place {
    /// A host that is reached without a gateway.
    Lan(HostId),
    /// Behind the gateway of this site.
    Behind(SiteId),
}

#[derive(Debug)]
enum Gateway {
    Open,
    Nat(Nat),
    NoUdp,
}

#[derive(Debug)]
struct Site {
    kind: GatewayKind,
    gateway: Gateway,
    line: Line,
    members: Vec<HostId>,
    addresses_given: u8,
    /// How often its gateway was rebooted.
    reboots: u32,
}

#[derive(Debug)]
struct Attachment {
    site: SiteId,
    address: SocketAddrV4,
    is_awake: bool,
    sent: u64,
    sent_bytes: u64,
}

/// How many datagrams came how far.
#[derive(Debug, Default, Clone)]
pub struct Tally {
    /// Sent by hosts.
    pub sent: u64,
    /// Of these, the core's.
    pub sent_wireguard: u64,
    /// Handed to hosts.
    pub delivered: u64,
    /// Under way.
    pub in_flight: u64,
    /// Lost, by reason.
    pub lost: BTreeMap<Loss, u64>,
    /// Of the lost, the core's.
    pub lost_wireguard: u64,
}

/// The internet.
#[derive(Debug, Default)]
pub struct Underlay {
    sites: Vec<Site>,
    hosts: Vec<Attachment>,
    cuts: BTreeMap<(SiteId, SiteId), Cut>,
    tally: Tally,
}

impl Underlay {
    // ---- building ----------------------------------------------------------------------------------------

    /// Adds a site without hosts.
    pub fn add_site(&mut self, kind: GatewayKind, line: Line) -> SiteId {
        let site = self.sites.len();
        let gateway = match kind {
            GatewayKind::Open => Gateway::Open,
            GatewayKind::Nat(nat) => Gateway::Nat(Nat::new(nat, public(site, 254))),
            GatewayKind::NoUdp => Gateway::NoUdp,
        };
        self.sites.push(Site {
            kind,
            gateway,
            line,
            members: Vec::new(),
            addresses_given: 0,
            reboots: 0,
        });
        site
    }

    /// Adds a host that does not listen yet.
    pub fn add_host(&mut self, site: SiteId) -> HostId {
        let address = self.fresh_address(site);
        self.hosts.push(Attachment {
            site,
            address,
            is_awake: false,
            sent: 0,
            sent_bytes: 0,
        });
        let host = self.hosts.len() - 1;
        self.sites[site].members.push(host);
        host
    }

    fn fresh_address(&mut self, at: SiteId) -> SocketAddrV4 {
        let site = &mut self.sites[at];
        site.addresses_given += 1;
        let is_public = match site.kind {
            GatewayKind::Open => true,
            GatewayKind::Nat(nat) => !nat.translates,
            GatewayKind::NoUdp => false,
        };
        let ip = if is_public {
            public(at, site.addresses_given)
        } else {
            Ipv4Addr::new(192, 168, 1, site.addresses_given)
        };
        SocketAddrV4::new(ip, PORT)
    }

    // ---- misfortunes -------------------------------------------------------------------------------------

    /// Whether the host listens.
    pub fn set_awake(&mut self, host: HostId, is_awake: bool) {
        self.hosts[host].is_awake = is_awake;
    }

    /// The host is carried to another site.
    pub fn carry(&mut self, host: HostId, site: SiteId) {
        let before = self.site_of(host);
        self.sites[before].members.retain(|member| *member != host);
        self.sites[site].members.push(host);
        self.hosts[host].address = self.fresh_address(site);
        self.hosts[host].site = site;
    }

    /// Cuts two sites off from each other, or joins them again.
    pub fn set_cut(&mut self, a: SiteId, b: SiteId, cut: Option<Cut>) {
        let pair = (a.min(b), a.max(b));
        match cut {
            Some(cut) => self.cuts.insert(pair, cut),
            None => self.cuts.remove(&pair),
        };
    }

    /// The site's gateway forgets everything.
    pub fn reboot_gateway(&mut self, site: SiteId) {
        self.sites[site].reboots += 1;
        match &mut self.sites[site].gateway {
            Gateway::Nat(nat) => nat.reboot(),
            Gateway::Open | Gateway::NoUdp => {}
        }
    }

    // ---- looking -----------------------------------------------------------------------------------------

    /// Where a host is.
    pub fn site_of(&self, host: HostId) -> SiteId {
        self.hosts[host].site
    }

    /// How a site meets the internet.
    pub fn kind_of(&self, site: SiteId) -> GatewayKind {
        self.sites[site].kind
    }

    /// Where a host listens, as it sees itself.
    pub fn address_of(&self, host: HostId) -> SocketAddrV4 {
        self.hosts[host].address
    }

    /// Whether anybody can send to the host unasked.
    pub fn is_public(&self, host: HostId) -> bool {
        self.sites[self.site_of(host)].kind == GatewayKind::Open
    }

    /// Whether the host listens.
    pub fn is_awake(&self, host: HostId) -> bool {
        self.hosts[host].is_awake
    }

    /// How many sites there are.
    pub fn site_count(&self) -> usize {
        self.sites.len()
    }

    /// Every host, awake or not.
    pub fn all_hosts(&self) -> std::ops::Range<HostId> {
        0..self.hosts.len()
    }

    /// Whether any line between two hosts loses or reorders datagrams.
    pub fn is_rough(&self, a: HostId, b: HostId) -> bool {
        let lines = [a, b].map(|host| self.sites[self.site_of(host)].line);
        lines
            .iter()
            .any(|line| line.loss > 0.0 || line.reorder > 0.0)
    }

    /// All hosts at a site.
    pub fn hosts_at(&self, site: SiteId) -> &[HostId] {
        &self.sites[site].members
    }

    /// How often the site's gateway was rebooted.
    pub fn reboots_of(&self, site: SiteId) -> u32 {
        self.sites[site].reboots
    }

    /// The host of a site that has this address.
    fn host_at(&self, address: SocketAddrV4, site: SiteId) -> Option<HostId> {
        let has_it = |host: &HostId| self.hosts[*host].address == address;
        self.sites[site].members.iter().copied().find(has_it)
    }

    /// The host that listens at this address as `from` sees it.
    pub fn host_seen_at(&self, from: HostId, address: SocketAddrV4) -> Option<HostId> {
        let here = self.site_of(from);
        self.host_at(address, here).or_else(|| {
            let site = site_of_public(*address.ip()).filter(|site| *site < self.sites.len())?;
            self.host_at(address, site)
        })
    }

    /// What lies between two sites.
    pub fn cut_between(&self, a: SiteId, b: SiteId) -> Option<Cut> {
        self.cuts.get(&(a.min(b), a.max(b))).copied()
    }

    /// The longest IP packet that passes between two sites.
    pub fn mtu_between(&self, a: SiteId, b: SiteId) -> usize {
        self.sites[a].line.mtu.min(self.sites[b].line.mtu)
    }

    /// How long a datagram between two hosts is under way.
    pub fn latency(&self, a: HostId, b: HostId) -> Duration {
        let (a, b) = (self.site_of(a), self.site_of(b));
        if a == b {
            LAN_LATENCY
        } else {
            self.sites[a].line.latency + self.sites[b].line.latency
        }
    }

    /// Whether TCP segments pass between two hosts whose connection is established.
    pub fn passes_tcp(&self, a: HostId, b: HostId) -> bool {
        let cut = self.cut_between(self.site_of(a), self.site_of(b));
        cut != Some(Cut::Everything) && self.is_awake(a) && self.is_awake(b)
    }

    /// Whether `from` can open a TCP connection to `to`.
    pub fn accepts_tcp(&self, from: HostId, to: HostId) -> bool {
        let same_site = self.site_of(from) == self.site_of(to);
        (same_site || self.is_public(to)) && self.passes_tcp(from, to)
    }

    /// How many datagrams came how far.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Datagrams and bytes (headers included) that a host has sent.
    pub fn sent_by(&self, host: HostId) -> (u64, u64) {
        (self.hosts[host].sent, self.hosts[host].sent_bytes)
    }

    // ---- datagrams ---------------------------------------------------------------------------------------

    /// A datagram leaves its host. Returns when it arrives, or why it never will.
    pub fn send(
        &mut self,
        sender: HostId,
        destination: SocketAddrV4,
        payload: Payload,
        now: Moment,
        rng: &mut fastrand::Rng,
    ) -> Result<(Moment, Flight), (Loss, Payload)> {
        self.tally.sent += 1;
        self.tally.sent_wireguard += u64::from(matches!(payload, Payload::WireGuard(_)));
        self.hosts[sender].sent += 1;
        self.hosts[sender].sent_bytes += (payload.len() + HEADERS) as u64;
        match self.route(sender, destination, payload.len(), now, rng) {
            Ok((delay, source, place)) => {
                self.tally.in_flight += 1;
                let flight = Flight {
                    sender,
                    source,
                    destination,
                    place,
                    payload,
                };
                Ok((now + delay, flight))
            }
            Err(loss) => {
                self.lose(loss, &payload);
                Err((loss, payload))
            }
        }
    }

    fn route(
        &mut self,
        sender: HostId,
        destination: SocketAddrV4,
        length: usize,
        now: Moment,
        rng: &mut fastrand::Rng,
    ) -> Result<(Duration, SocketAddrV4, Place), Loss> {
        let (here, own) = (self.site_of(sender), self.address_of(sender));
        if let Some(neighbour) = self.host_at(destination, here) {
            return Ok((LAN_LATENCY, own, Place::Lan(neighbour)));
        }
        if destination.ip().is_private() {
            return Err(Loss::NoSuchHost);
        }
        let source = match &mut self.sites[here].gateway {
            Gateway::Open => own,
            Gateway::Nat(nat) => nat.outbound(own, destination, now),
            Gateway::NoUdp => return Err(Loss::UdpBlocked),
        };
        let there = site_of_public(*destination.ip())
            .filter(|site| *site < self.sites.len())
            .ok_or(Loss::NoSuchHost)?;
        if there == here {
            let hairpins =
                matches!(&self.sites[here].gateway, Gateway::Nat(nat) if nat.kind().hairpins);
            return if hairpins {
                Ok((LAN_LATENCY, source, Place::Behind(there)))
            } else {
                Err(Loss::Filtered)
            };
        }
        if self.cut_between(here, there).is_some() {
            return Err(Loss::Cut);
        }
        let lines = [self.sites[here].line, self.sites[there].line];
        if lines.iter().any(|line| length + HEADERS > line.mtu) {
            return Err(Loss::TooBig);
        }
        if lines.iter().any(|line| rng.f64() < line.loss) {
            return Err(Loss::Chance);
        }
        let mut delay = lines[0].latency + lines[1].latency;
        if lines.iter().any(|line| rng.f64() < line.reorder) {
            delay += millis(rng.u64(1..=REORDER_DELAY_MS));
        }
        Ok((delay, source, Place::Behind(there)))
    }

    /// A datagram is at the end of its way. Returns who gets it, or why nobody does.
    pub fn arrive(&mut self, flight: &Flight, now: Moment) -> Result<HostId, Loss> {
        self.tally.in_flight -= 1;
        let arrived = self.admit(flight, now);
        match arrived {
            Ok(_) => self.tally.delivered += 1,
            Err(loss) => self.lose(loss, &flight.payload),
        }
        arrived
    }

    fn admit(&mut self, flight: &Flight, now: Moment) -> Result<HostId, Loss> {
        let host = match flight.place {
            Place::Lan(host) => host,
            Place::Behind(site) => {
                let internal = match &mut self.sites[site].gateway {
                    Gateway::Open => flight.destination,
                    Gateway::Nat(nat) => nat
                        .inbound(flight.destination, flight.source, now)
                        .ok_or(Loss::Filtered)?,
                    Gateway::NoUdp => return Err(Loss::UdpBlocked),
                };
                self.host_at(internal, site).ok_or(Loss::NoSuchHost)?
            }
        };
        if self.is_awake(host) {
            Ok(host)
        } else {
            Err(Loss::Asleep)
        }
    }

    fn lose(&mut self, loss: Loss, payload: &Payload) {
        *self.tally.lost.entry(loss).or_default() += 1;
        if matches!(payload, Payload::WireGuard(_)) {
            self.tally.lost_wireguard += 1;
        }
    }
}

/// The public addresses of a site.
fn public(site: SiteId, host: u8) -> Ipv4Addr {
    let [.., high, low] = (site as u32).to_be_bytes();
    Ipv4Addr::new(20, high, low, host)
}

fn site_of_public(ip: Ipv4Addr) -> Option<SiteId> {
    let [first, high, low, _] = ip.octets();
    (first == 20).then_some(usize::from(high) << 8 | usize::from(low))
}
