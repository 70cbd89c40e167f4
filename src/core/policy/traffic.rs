//! What is asked for: a protocol and a port of the destination. And how rules name several of them at once.

use std::{fmt, str::FromStr};

/// The protocols that a policy tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// By its destination port.
    Tcp,
    /// By its destination port.
    Udp,
    /// Echo requests, which is what `ping` sends. Errors belong to the flow that they are about.
    Icmp,
    /// Everything else, other ICMP messages included. Only "any" means it.
    Other,
}

impl Protocol {
    const ALL: [Self; 4] = [Self::Tcp, Self::Udp, Self::Icmp, Self::Other];

    /// What people write.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Icmp => "icmp",
            Self::Other => "other",
        }
    }

    /// Whether there are ports.
    pub fn has_ports(self) -> bool {
        match self {
            Self::Tcp | Self::Udp => true,
            Self::Icmp | Self::Other => false,
        }
    }
}

/// One protocol and port of a destination, as a packet or a person asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Traffic {
    protocol: Protocol,
    port: u16,
}

impl Traffic {
    /// Where there are no ports, `port` means nothing.
    pub fn new(protocol: Protocol, port: u16) -> Self {
        let port = if protocol.has_ports() { port } else { 0 };
        Self { protocol, port }
    }

    pub(super) const fn of(protocol: Protocol, port: u16) -> Self {
        Self { protocol, port }
    }

    /// The protocol.
    pub fn protocol(self) -> Protocol {
        self.protocol
    }

    /// The destination's port; 0 where there are none.
    pub fn port(self) -> u16 {
        self.port
    }
}

impl fmt::Display for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.protocol.name())?;
        match self.protocol.has_ports() {
            true => write!(f, "/{}", self.port),
            false => Ok(()),
        }
    }
}

/// A text names no traffic.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no port: write a number from 1 to 65535 (TCP), tcp/22, udp/53 or icmp")]
pub struct InvalidTraffic(String);

impl FromStr for Traffic {
    type Err = InvalidTraffic;

    /// `tcp/22`, `udp/53`, `icmp`; a number alone is a TCP port.
    fn from_str(text: &str) -> Result<Self, InvalidTraffic> {
        let error = || InvalidTraffic(shortened(text));
        let (protocol, port) = match text.split_once('/') {
            Some(("tcp", port)) => (Protocol::Tcp, port),
            Some(("udp", port)) => (Protocol::Udp, port),
            Some(_) => return Err(error()),
            None if text == "icmp" => return Ok(Self::new(Protocol::Icmp, 0)),
            None => (Protocol::Tcp, text),
        };
        let port = parse_port(port).ok_or_else(error)?;
        Ok(Self::new(protocol, port))
    }
}

/// A set of traffic that one word of a rule means: `tcp/22`, `udp/8000-8100`, `tcp`, `icmp`, `any/53` (TCP and UDP), `any`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Service {
    /// Any without.
    protocol: Option<Protocol>,
    first: u16,
    last: u16,
}

impl Service {
    /// Everything.
    pub const ANY: Self = Self {
        protocol: None,
        first: 0,
        last: u16::MAX,
    };

    /// Whether it means this as well.
    pub fn includes(&self, traffic: Traffic) -> bool {
        self.ports_of(traffic.protocol)
            .is_some_and(|(first, last)| (first..=last).contains(&traffic.port))
    }

    /// The traffic that it means, if it is one protocol and one port.
    pub fn single(&self) -> Option<Traffic> {
        let protocol = self.protocol?;
        let is_single = !protocol.has_ports() || self.first == self.last;
        is_single.then(|| Traffic::new(protocol, self.first))
    }

    /// The first and the last port that it means of a protocol. Protocols without ports have port 0 alone.
    pub(super) fn ports_of(&self, protocol: Protocol) -> Option<(u16, u16)> {
        let is_meant = self.protocol.is_none_or(|meant| meant == protocol);
        let is_whole = (self.first, self.last) == (0, u16::MAX);
        (is_meant && (is_whole || protocol.has_ports())).then_some((self.first, self.last))
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.protocol.map_or("any", Protocol::name))?;
        match (self.first, self.last) {
            (0, u16::MAX) => Ok(()),
            (first, last) if first == last => write!(f, "/{first}"),
            (first, last) => write!(f, "/{first}-{last}"),
        }
    }
}

/// A text names no service.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is none of tcp/22, udp/53, tcp/8000-8100, any/53, tcp, udp, icmp, any (ports are 1 to 65535)"
)]
pub struct InvalidService(String);

impl FromStr for Service {
    type Err = InvalidService;

    fn from_str(text: &str) -> Result<Self, InvalidService> {
        let error = || InvalidService(shortened(text));
        let (protocol, ports) = match text.split_once('/') {
            Some((protocol, ports)) => (protocol, Some(ports)),
            None => (text, None),
        };
        let protocol = match protocol {
            "any" => None,
            "tcp" => Some(Protocol::Tcp),
            "udp" => Some(Protocol::Udp),
            "icmp" if ports.is_none() => Some(Protocol::Icmp),
            _ => return Err(error()),
        };
        let Some(ports) = ports else {
            return Ok(Self {
                protocol,
                ..Self::ANY
            });
        };
        let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
        let (first, last) = parse_port(first).zip(parse_port(last)).ok_or_else(error)?;
        if first > last {
            return Err(error());
        }
        Ok(Self {
            protocol,
            first,
            last,
        })
    }
}

impl From<Traffic> for Service {
    fn from(traffic: Traffic) -> Self {
        match traffic.protocol.has_ports() {
            true => Self {
                protocol: Some(traffic.protocol),
                first: traffic.port,
                last: traffic.port,
            },
            false => Self {
                protocol: Some(traffic.protocol),
                ..Self::ANY
            },
        }
    }
}

/// One spelling for each number, and no port 0, which nobody can listen on.
fn parse_port(text: &str) -> Option<u16> {
    let port: u16 = text.parse().ok()?;
    (port > 0 && port.to_string() == text).then_some(port)
}

/// For error messages: what is far too long is not all repeated.
pub(super) fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}

/// The traffic that one member may send to another: what is allowed, less what is denied. Worked out once for each pair,
/// so that a packet asks one sorted list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reachable([Ports; Protocol::ALL.len()]);

impl Reachable {
    /// Nothing at all.
    pub fn nothing() -> Self {
        Self::default()
    }

    /// Everything there is.
    pub fn everything() -> Self {
        let mut all = Self::nothing();
        all.allow(&Service::ANY);
        all
    }

    /// Adds what `service` means.
    pub fn allow(&mut self, service: &Service) {
        for (ports, protocol) in self.0.iter_mut().zip(Protocol::ALL) {
            if let Some((first, last)) = service.ports_of(protocol) {
                ports.add(first, last);
            }
        }
    }

    /// Takes out what `service` means.
    pub fn deny(&mut self, service: &Service) {
        for (ports, protocol) in self.0.iter_mut().zip(Protocol::ALL) {
            if let Some((first, last)) = service.ports_of(protocol) {
                ports.remove(first, last);
            }
        }
    }

    /// Whether this is in it.
    pub fn includes(&self, traffic: Traffic) -> bool {
        self.0[traffic.protocol as usize].include(traffic.port)
    }

    /// Whether nothing is missing.
    pub fn is_everything(&self) -> bool {
        self.0.iter().all(Ports::are_all)
    }
}

/// Ranges of ports that neither overlap nor touch, in ascending order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Ports(Vec<(u16, u16)>);

impl Ports {
    fn add(&mut self, mut first: u16, mut last: u16) {
        self.0.retain(|&(start, end)| {
            let is_apart = end.checked_add(1).is_some_and(|next| next < first)
                || last.checked_add(1).is_some_and(|next| next < start);
            if !is_apart {
                (first, last) = (first.min(start), last.max(end));
            }
            is_apart
        });
        let at = self.0.partition_point(|&(start, _)| start < first);
        self.0.insert(at, (first, last));
    }

    fn remove(&mut self, first: u16, last: u16) {
        let cut = |&(start, end): &(u16, u16)| {
            let before = (start < first).then(|| (start, end.min(first.saturating_sub(1))));
            let behind = (end > last).then(|| (start.max(last.saturating_add(1)), end));
            before.into_iter().chain(behind)
        };
        self.0 = self.0.iter().flat_map(cut).collect();
    }

    fn include(&self, port: u16) -> bool {
        let behind = self.0.partition_point(|&(start, _)| start <= port);
        behind > 0 && self.0[behind - 1].1 >= port
    }

    fn are_all(&self) -> bool {
        self.0 == [(0, u16::MAX)]
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    #[test]
    fn what_people_write_means_what_they_expect() {
        let traffic = |text: &str| text.parse::<Traffic>().unwrap();
        let service = |text: &str| text.parse::<Service>().unwrap();
        assert_eq!(traffic("22"), traffic("tcp/22"));
        assert!(service("tcp/8000-8100").includes(traffic("8100")));
        assert!(!service("tcp/8000-8100").includes(traffic("8101")));
        assert!(!service("tcp/53").includes(traffic("udp/53")));
        assert!(service("any/53").includes(traffic("udp/53")));
        assert!(!service("any/53").includes(traffic("icmp")));
        assert!(service("udp").includes(traffic("udp/1")));
        assert!(service("any").includes(traffic("icmp")));
        assert!(service("any").includes(Traffic::new(Protocol::Other, 0)));
        for wrong in [
            "",
            "22",
            "tcp/",
            "tcp/0",
            "tcp/022",
            "tcp/65536",
            "tcp/9-8",
            "icmp/8",
            "sctp/1",
            "TCP/22",
        ] {
            assert!(wrong.parse::<Service>().is_err(), "{wrong}");
        }
        for wrong in ["", "0", "any", "tcp", "udp/53-54", "icmp/8"] {
            assert!(wrong.parse::<Traffic>().is_err(), "{wrong}");
        }
    }

    pub fn services() -> impl Strategy<Value = Service> {
        let ports = (1..=u16::MAX, 1..=u16::MAX).prop_map(|(a, b)| (a.min(b), a.max(b)));
        let protocol = prop_oneof![Just("tcp"), Just("udp"), Just("any")];
        prop_oneof![
            Just(Service::ANY),
            Just("icmp".parse().unwrap()),
            (protocol, ports).prop_map(|(protocol, (first, last))| {
                format!("{protocol}/{first}-{last}").parse().unwrap()
            }),
        ]
    }

    proptest! {
        #[test]
        fn every_service_is_read_as_it_is_shown(service in services()) {
            prop_assert_eq!(service.to_string().parse(), Ok(service));
        }

        #[test]
        fn a_pairs_list_agrees_with_the_services_one_by_one(
            allowed in vec(services(), 0..8), denied in vec(services(), 0..8), ports: Vec<u16>,
        ) {
            let mut reachable = Reachable::nothing();
            allowed.iter().for_each(|service| reachable.allow(service));
            denied.iter().for_each(|service| reachable.deny(service));
            let edges = allowed.iter().chain(&denied).flat_map(|s| [s.first, s.last]);
            let edges = edges.flat_map(|port| [port.wrapping_sub(1), port, port.wrapping_add(1)]);
            for port in ports.into_iter().chain(edges) {
                for protocol in Protocol::ALL {
                    let traffic = Traffic::new(protocol, port);
                    let any = |services: &[Service]| services.iter().any(|s| s.includes(traffic));
                    prop_assert_eq!(reachable.includes(traffic), any(&allowed) && !any(&denied));
                }
            }
        }
    }
}
