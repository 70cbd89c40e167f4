//! Which names there are, and what each of them says.
//!
//! ```text
//! <net>.hive.internal                       this node; SOA, NS
//! ai.<net>…                                 this node, for the models of all members
//! <node>.<net>…                             a member, by the name in its certificate
//! <service>.<node>.<net>…                   that member; TXT says what the service is
//! _<service>._tcp.<node>.<net>…             its port (RFC 2782)
//! svc.<net>…                                nothing but what is below
//! <service>.svc.<net>…                      everybody who offers it and is well
//! _<service>._tcp.svc.<net>…                everybody's port, the best first
//! …in-addr.arpa, …ip6.arpa                  the name of who has an overlay address
//! ```
//!
//! A name that a node has only given itself is none: whoever joins could call itself `bank`. Names with nothing below
//! them and names that say something else than what was asked for are told apart, as RFC 2308 wants it.

use std::{net::IpAddr, time::Duration};

use hickory_proto::{
    op::{Query, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{A, AAAA, NS, PTR, SOA, SRV, TXT},
    },
};
use hivevpn_core::{
    node::ServiceStatus,
    registry::service::{State, Transport},
};
use ipnet::IpNet;
use rand::seq::SliceRandom;

use crate::services::{Snapshot, snapshot::Member};

/// Below it are the networks. `internal` is the top-level domain that ICANN keeps free for private use.
pub const PRIVATE: [&str; 2] = ["hive", "internal"];
/// The label of the models' endpoint. A node of this name does not resolve.
pub const ENDPOINT: &str = "ai";
/// The label above services that several nodes offer. A node of this name does not resolve.
pub const SERVICES: &str = "svc";

/// The name of a network's endpoint, on each member's own machine.
pub fn endpoint_of(network: &str) -> String {
    let [hive, internal] = PRIVATE;
    format!("{ENDPOINT}.{network}.{hive}.{internal}")
}

/// Members seldom change their address.
const NODE_TTL: u32 = 30;
/// Services come and go, and so does what is not there: a name asked for too early must not be missing for long.
const SERVICE_TTL: u32 = 5;
/// The longest text in a TXT record (RFC 1035 §3.3.14).
const MAX_TEXT: usize = 255;

/// The names of one network, as of a moment.
pub struct Zone<'a> {
    snapshot: &'a Snapshot,
    apex: Name,
}

/// What is said to a question about one of our names.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// Whether there is such a name.
    pub code: ResponseCode,
    /// What was asked for.
    pub answers: Vec<Record>,
    /// Who says that there is nothing.
    pub authority: Vec<Record>,
    /// What will be asked for next.
    pub additional: Vec<Record>,
}

/// Everything that one name says.
#[derive(Default)]
struct Said {
    ttl: u32,
    data: Vec<RData>,
    /// Where the data points to.
    targets: Vec<(Name, Vec<RData>)>,
}

/// A service of a member.
struct Offer<'a> {
    member: &'a Member,
    status: &'a ServiceStatus,
}

impl<'a> Zone<'a> {
    /// The names of this network; none before there is one.
    pub fn of(snapshot: &'a Snapshot) -> Option<Self> {
        let labels = [snapshot.network.as_str(), PRIVATE[0], PRIVATE[1]];
        let apex = Name::from_labels(labels.map(str::as_bytes)).ok()?;
        let is_there = !snapshot.network.is_empty();
        is_there.then_some(Self { snapshot, apex })
    }

    /// `home.hive.internal`, without a dot at the end.
    pub fn apex(&self) -> String {
        let mut apex = self.apex.to_ascii();
        apex.truncate(apex.trim_end_matches('.').len());
        apex
    }

    /// What we say to a question; nothing, if the name is not ours.
    pub fn answer(&self, query: &Query) -> Option<Answer> {
        let (zone, said) = match below(&self.apex, &query.name) {
            Some(labels) => {
                let labels: Vec<_> = labels.iter().map(String::as_str).collect();
                (self.apex.clone(), self.forward(&labels))
            }
            None => self.reverse(&query.name)?,
        };
        Some(self.of_said(query, zone, said))
    }

    fn of_said(&self, query: &Query, zone: Name, said: Option<Said>) -> Answer {
        let code = match said {
            Some(_) => ResponseCode::NoError,
            None => ResponseCode::NXDomain,
        };
        let mut said = said.unwrap_or_default();
        if zone == query.name {
            said.data.push(RData::SOA(self.soa()));
            said.data.push(RData::NS(NS(self.apex.clone())));
            said.targets.push((
                self.apex.clone(),
                self.us().map_or_else(Vec::new, addresses),
            ));
        }
        let wanted = |data: &RData| {
            query.query_type == RecordType::ANY || data.record_type() == query.query_type
        };
        let answers: Vec<_> = said
            .data
            .into_iter()
            .filter(wanted)
            .map(|data| Record::from_rdata(query.name.clone(), said.ttl, data))
            .collect();
        let is_pointer = matches!(query.query_type, RecordType::SRV | RecordType::NS);
        let additional = said
            .targets
            .into_iter()
            .filter(|_| is_pointer && !answers.is_empty())
            .flat_map(|(name, data)| {
                data.into_iter()
                    .map(move |data| Record::from_rdata(name.clone(), NODE_TTL, data))
            })
            .collect();
        let authority = match answers.is_empty() {
            true => vec![Record::from_rdata(
                zone,
                SERVICE_TTL,
                RData::SOA(self.soa()),
            )],
            false => Vec::new(),
        };
        Answer {
            code,
            answers,
            authority,
            additional,
        }
    }

    /// What the name with these labels below the apex says, the one next to the apex first; nothing, if there is none.
    fn forward(&self, labels: &[&str]) -> Option<Said> {
        match *labels {
            [] | [ENDPOINT] => Some(Said::of(NODE_TTL, addresses(self.us()?))),
            [SERVICES] => Some(Said::of(SERVICE_TTL, Vec::new())),
            [SERVICES, label] => match transport(label) {
                Some(transport) => self.has_below(None, transport),
                None => self.pool(label),
            },
            [SERVICES, label, service] => self.ports(None, transport(label)?, service),
            [node] => Some(Said::of(NODE_TTL, addresses(self.node(node)?))),
            [node, label] => match transport(label) {
                Some(transport) => self.has_below(Some(self.node(node)?), transport),
                None => self.service(self.node(node)?, label),
            },
            [node, label, service] => {
                self.ports(Some(self.node(node)?), transport(label)?, service)
            }
            [..] => None,
        }
    }

    /// The zone of an overlay address, and what its name says.
    fn reverse(&self, name: &Name) -> Option<(Name, Option<Said>)> {
        let asked = name.parse_arpa_name().ok()?;
        let range = self
            .snapshot
            .ranges
            .iter()
            .find(|range| range.contains(&asked))?;
        let zone = zone_of(range, asked.addr())?;
        let is_whole = asked.prefix_len() == asked.max_prefix_len();
        let member = match is_whole {
            true => self.snapshot.member_at(asked.addr()),
            false => None,
        };
        let pointer = member.and_then(|member| self.name_of(member));
        let has_below = !is_whole
            && self
                .resolving()
                .flat_map(Member::addresses)
                .any(|address| asked.contains(&address));
        let said = match pointer {
            Some(name) => Some(Said::of(NODE_TTL, vec![RData::PTR(PTR(name))])),
            None if has_below || zone == *name => Some(Said::of(SERVICE_TTL, Vec::new())),
            None => None,
        };
        Some((zone, said))
    }

    /// Everybody who offers a service of this name.
    fn pool(&self, service: &str) -> Option<Said> {
        let mut offers = self.offers(None, service).peekable();
        offers.peek()?;
        let offers: Vec<_> = offers.collect();
        let of_state = |state| {
            let usable = offers.iter().filter(|offer| self.is_usable(offer));
            let usable = usable.filter(move |offer| offer.state() == state);
            usable.flat_map(|offer| addresses(offer.member)).collect()
        };
        let mut data: Vec<_> = of_state(State::Up);
        if data.is_empty() {
            data = of_state(State::Degraded);
        }
        data.shuffle(&mut rand::rng());
        Some(Said::of(SERVICE_TTL, data))
    }

    /// A service of one member.
    fn service(&self, member: &Member, service: &str) -> Option<Said> {
        let offer = self.offers(Some(member), service).next()?;
        let mut data = addresses(member);
        data.push(RData::TXT(TXT::new(texts(offer.status))));
        Some(Said::of(SERVICE_TTL, data))
    }

    /// The ports of a service, of one member or of all that are reached.
    fn ports(&self, of: Option<&Member>, transport: Transport, label: &str) -> Option<Said> {
        let service = label.strip_prefix('_')?;
        let mut said = Said::of(SERVICE_TTL, Vec::new());
        let mut is_there = false;
        for offer in self.offers(of, service) {
            let Some(target) = self.name_of(offer.member) else {
                continue;
            };
            if offer.status.service.transport != transport {
                continue;
            }
            is_there = true;
            if of.is_some() || self.is_usable(&offer) {
                said.targets.push((target.clone(), addresses(offer.member)));
                said.data.push(RData::SRV(offer.srv(target)));
            }
        }
        is_there.then_some(said)
    }

    /// Whether it may be of use to us now: it is reached, it answers, and it is for us.
    fn is_usable(&self, offer: &Offer<'_>) -> bool {
        let is_reached = offer.member.online || offer.member.this;
        let to = &offer.status.service.to;
        is_reached && offer.state() != State::Down && self.us().is_none_or(|us| us.is_among(to))
    }

    /// Says nothing, if there are services below, of one member or of anybody.
    fn has_below(&self, of: Option<&Member>, transport: Transport) -> Option<Said> {
        let mut services = self.snapshot.services.iter().filter(|status| {
            status.service.transport == transport
                && of.is_none_or(|member| member.peer_id == status.owner)
        });
        services.next()?;
        Some(Said::of(SERVICE_TTL, Vec::new()))
    }

    fn offers(&self, of: Option<&Member>, service: &str) -> impl Iterator<Item = Offer<'a>> {
        let snapshot = self.snapshot;
        let owner = of.map(|member| member.peer_id);
        snapshot
            .services
            .iter()
            .filter(move |status| {
                status.name.as_str() == service && owner.is_none_or(|owner| owner == status.owner)
            })
            .filter_map(move |status| {
                let member = snapshot.member(&status.owner)?;
                Some(Offer { member, status })
            })
    }

    fn us(&self) -> Option<&'a Member> {
        self.snapshot.us()
    }

    fn resolving(&self) -> impl Iterator<Item = &'a Member> {
        let members = self.snapshot.members.iter();
        members.filter(|member| resolves(member))
    }

    fn node(&self, label: &str) -> Option<&'a Member> {
        let is_called = |name: &hivevpn_core::membership::Name| name.as_str() == label;
        self.resolving()
            .find(|member| member.certified.as_ref().is_some_and(is_called))
    }

    /// A member's name in full, if it resolves.
    fn name_of(&self, member: &Member) -> Option<Name> {
        let name = member.certified.as_ref().filter(|_| resolves(member))?;
        self.apex.prepend_label(name.as_str().as_bytes()).ok()
    }

    fn soa(&self) -> SOA {
        // Nobody transfers the zone: of its times only the last counts, for how long nothing is remembered.
        let [refresh, retry, expire] = [3600, 600, 86_400];
        let postmaster = self.apex.prepend_label("hostmaster".as_bytes());
        let serial = self.snapshot.taken.0.0 as u32;
        SOA::new(
            self.apex.clone(),
            postmaster.unwrap_or_else(|_| self.apex.clone()),
            serial,
            refresh,
            retry,
            expire,
            SERVICE_TTL,
        )
    }
}

impl Said {
    fn of(ttl: u32, data: Vec<RData>) -> Self {
        Self {
            ttl,
            data,
            targets: Vec::new(),
        }
    }
}

impl Offer<'_> {
    fn state(&self) -> State {
        self.status.service.health.state
    }

    /// The well before the others, and among those the near more often.
    fn srv(&self, target: Name) -> SRV {
        let priority = match self.state() {
            State::Up => 10,
            State::Degraded => 20,
            State::Down => 30,
        };
        let weight = match self.member.rtt {
            _ if self.member.this => u16::MAX,
            Some(rtt) => nearness(rtt),
            None => 1,
        };
        SRV::new(priority, weight, self.status.service.port, target)
    }
}

/// From 1000 for a millisecond or less to 1 for a second or more.
fn nearness(rtt: Duration) -> u16 {
    let ms = rtt.as_millis().clamp(1, 1000);
    u16::try_from(1000 / ms).unwrap_or(1)
}

/// Whether the member has a name of its own that is not needed for something else.
pub fn resolves(member: &Member) -> bool {
    let is_free =
        |name: &hivevpn_core::membership::Name| ![ENDPOINT, SERVICES].contains(&name.as_str());
    member.certified.as_ref().is_some_and(is_free)
}

/// Whether a name lies where only members of some network may know it: it is never asked elsewhere.
pub fn is_private(name: &Name) -> bool {
    Name::from_labels(PRIVATE.map(str::as_bytes)).is_ok_and(|private| private.zone_of(name))
}

/// The labels of a name below another one, the one next to that first; nothing, if it is not below it or itself.
fn below(apex: &Name, name: &Name) -> Option<Vec<String>> {
    if !apex.zone_of(name) {
        return None;
    }
    // Not `num_labels`, which leaves out a star.
    let count = name.iter().count() - apex.iter().count();
    let labels = name.iter().take(count).map(|label| {
        // What is no text is the name of nothing, and this is no label of ours.
        str::from_utf8(label).map_or_else(|_| "?".to_owned(), str::to_ascii_lowercase)
    });
    let mut labels: Vec<_> = labels.collect();
    labels.reverse();
    Some(labels)
}

fn transport(label: &str) -> Option<Transport> {
    match label {
        "_tcp" => Some(Transport::Tcp),
        "_udp" => Some(Transport::Udp),
        _ => None,
    }
}

fn addresses(member: &Member) -> Vec<RData> {
    let v4 = member.ipv4.map(|address| RData::A(A(address)));
    v4.into_iter()
        .chain([RData::AAAA(AAAA(member.ipv6))])
        .collect()
}

/// The smallest zone of the reverse tree that an address of the range is in and that is all within the range.
fn zone_of(range: &IpNet, address: IpAddr) -> Option<Name> {
    let bits = match range {
        IpNet::V4(_) => 8,
        IpNet::V6(_) => 4,
    };
    let fixed = usize::from(range.prefix_len().div_ceil(bits));
    let whole = usize::from(range.max_prefix_len() / bits);
    let name = Name::from(address);
    // An address shorter than the range was filled up with zeros, which do not reach into these labels.
    let labels: Vec<_> = name.iter().skip(whole - fixed).collect();
    Name::from_labels(labels).ok()
}

/// What a service is, as `key=value` (RFC 6763 §6).
fn texts(status: &ServiceStatus) -> Vec<String> {
    let service = &status.service;
    let mut texts = vec![
        format!("kind={}", service.kind),
        format!("port={}", service.port),
        format!("health={}", service.health.state.name()),
    ];
    texts.extend(service.path.iter().map(|path| format!("path={path}")));
    let models = service.openai.iter().flat_map(|openai| &openai.models);
    texts.extend(models.map(|model| format!("model={}", model.id)));
    texts.extend(service.tags.iter().map(|tag| format!("tag={tag}")));
    texts.retain(|text| text.len() <= MAX_TEXT);
    texts
}

/// The domains to ask this resolver for: the network's, and those of its addresses that end with a label.
pub fn reverse_domains(ranges: &[IpNet]) -> Vec<String> {
    let aligned = |range: &&IpNet| match range {
        IpNet::V4(range) => range.prefix_len() % 8 == 0,
        IpNet::V6(range) => range.prefix_len() % 4 == 0,
    };
    let domain = |range: &IpNet| {
        let zone = zone_of(range, range.network())?.to_ascii();
        Some(zone.trim_end_matches('.').to_owned())
    };
    ranges.iter().filter(aligned).filter_map(domain).collect()
}

#[cfg(test)]
pub(super) mod tests;
