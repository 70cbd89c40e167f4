//! Where a forward leads: what people write, and which of the members' services that is at the moment.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
    time::Duration,
};

use hivevpn_core::{
    membership::Name,
    node::ServiceStatus,
    registry::{State, Transport},
};

use super::{Snapshot, listing::transport_name, snapshot::Member};

/// What a forward leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// `llm`, whoever offers it; or `llm.gpu`, of one node.
    Service {
        /// What it is called.
        name: Name,
        /// Whose, if that is said.
        node: Option<Name>,
    },
    /// `gpu:5432`: a port of a node, whether or not it offers anything there.
    Port {
        /// Whose: name, overlay address or peer id.
        node: String,
        /// Which.
        port: u16,
    },
}

/// A text is no destination.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is none of <service>, <service>.<node>, <node>:<port> ('hivevpn services' and 'hivevpn nodes' show them)"
)]
pub struct InvalidDestination(String);

impl FromStr for Destination {
    type Err = InvalidDestination;

    fn from_str(text: &str) -> Result<Self, InvalidDestination> {
        let error = || InvalidDestination(text.chars().take(80).collect());
        let name = |text: &str| Name::parse(text).map_err(|_| error());
        if let Some((node, port)) = text.rsplit_once(':') {
            let node = node.trim_start_matches('[').trim_end_matches(']');
            let port = port.parse().ok().filter(|&port| port != 0);
            let (node, port) = (node.to_owned(), port.ok_or_else(error)?);
            return match node.is_empty() {
                true => Err(error()),
                false => Ok(Self::Port { node, port }),
            };
        }
        let (service, node) = match text.split_once('.') {
            Some((service, node)) => (service, Some(name(node)?)),
            None => (text, None),
        };
        Ok(Self::Service {
            name: name(service)?,
            node,
        })
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service { name, node: None } => write!(f, "{name}"),
            Self::Service {
                name,
                node: Some(node),
            } => write!(f, "{name}.{node}"),
            Self::Port { node, port } if node.contains(':') => write!(f, "[{node}]:{port}"),
            Self::Port { node, port } => write!(f, "{node}:{port}"),
        }
    }
}

/// Why it leads nowhere.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Nowhere {
    /// Nobody has that name, address or id.
    #[error("no member is called {0} ('hivevpn nodes' shows them)")]
    NoMember(String),
    /// Nobody offers it.
    #[error("no member offers {0} over {over} ('hivevpn services' shows what they do)", over = transport_name(*.1))]
    NoService(Destination, Transport),
    /// Not to us.
    #[error("{0} is not offered to this node")]
    NotForUs(Destination),
}

impl Destination {
    /// Where to try, the best first: what is healthy, of a node that is reached, and near.
    pub fn places(
        &self,
        snapshot: &Snapshot,
        transport: Transport,
    ) -> Result<Vec<SocketAddr>, Nowhere> {
        match self {
            Self::Port { node, port } => {
                let member =
                    member(snapshot, node).ok_or_else(|| Nowhere::NoMember(node.clone()))?;
                // The family that was asked for, where one was.
                let address = node.parse().unwrap_or(member.address());
                Ok(vec![SocketAddr::new(address, *port)])
            }
            Self::Service { name, node } => {
                let offered: Vec<_> = snapshot
                    .named(name)
                    .filter(|service| service.service.transport == transport)
                    .filter_map(|service| Some((service, snapshot.member(&service.owner)?)))
                    .filter(|(_, owner)| node.is_none() || owner.certified == *node)
                    .collect();
                if offered.is_empty() {
                    return Err(Nowhere::NoService(self.clone(), transport));
                }
                let mut ours: Vec<_> = offered
                    .into_iter()
                    .filter(|(service, owner)| snapshot.lets_us_in(owner, service))
                    .collect();
                if ours.is_empty() {
                    return Err(Nowhere::NotForUs(self.clone()));
                }
                ours.sort_by_key(|(service, owner)| rank(service, owner));
                let place = |(service, owner): (&ServiceStatus, &Member)| {
                    SocketAddr::new(owner.address(), service.service.port)
                };
                Ok(ours.into_iter().map(place).collect())
            }
        }
    }

    /// The transport of the service, if it is offered.
    pub fn transport(&self, snapshot: &Snapshot) -> Option<Transport> {
        let Self::Service { name, node } = self else {
            return None;
        };
        let is_meant = |service: &&ServiceStatus| {
            let owner = snapshot.member(&service.owner);
            node.is_none() || owner.is_some_and(|owner| owner.certified == *node)
        };
        let service = snapshot.named(name).find(is_meant)?;
        Some(service.service.transport)
    }
}

/// By the name that its certificate gives it: what a member calls itself, anybody may call itself.
fn member<'a>(snapshot: &'a Snapshot, node: &str) -> Option<&'a Member> {
    if let Ok(address) = node.parse::<IpAddr>() {
        return snapshot.member_at(address);
    }
    snapshot.members.iter().find(|member| {
        let name = member.certified.as_ref();
        name.is_some_and(|name| name.to_string() == node) || member.peer_id.to_string() == node
    })
}

/// Lower is better.
fn rank(service: &ServiceStatus, owner: &Member) -> (bool, u8, Duration) {
    let health = match service.service.health.state {
        State::Up => 0,
        State::Degraded => 1,
        State::Down => 2,
    };
    let rtt = match owner.this {
        true => Duration::ZERO,
        false => owner.rtt.unwrap_or(Duration::MAX),
    };
    (!owner.this && !owner.online, health, rtt)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use hivevpn_core::{
        membership::UnixTime,
        policy::Selector,
        registry::{Health, Kind, Service},
    };
    use libp2p::PeerId;

    use super::*;

    fn name(text: &str) -> Name {
        Name::parse(text).unwrap()
    }

    #[test]
    fn what_people_write_is_understood_and_shown_again() {
        for text in ["llm", "llm.gpu", "gpu:5432", "10.77.0.4:22", "[fd00::1]:22"] {
            let destination: Destination = text.parse().unwrap();
            assert_eq!(destination.to_string(), text);
        }
        for bad in [
            "", "LLM", "llm.", ".gpu", "gpu:", "gpu:0", "gpu:x", ":80", "a.b.c",
        ] {
            assert!(bad.parse::<Destination>().is_err(), "{bad}");
        }
    }

    fn node(at: u8, online: bool, rtt_ms: u64) -> Member {
        Member {
            name: name(&format!("n{at}")),
            certified: Some(name(&format!("n{at}"))),
            peer_id: PeerId::random(),
            ipv4: Some([10, 77, 0, at].into()),
            ipv6: [0xfd00, 0, 0, 0, 0, 0, 0, at.into()].into(),
            groups: BTreeSet::new(),
            online,
            rtt: Some(Duration::from_millis(rtt_ms)),
            this: at == 0,
        }
    }

    fn service(owner: &Member, state: State, to: &[&str]) -> ServiceStatus {
        let to = to.iter().map(|who| who.parse::<Selector>().unwrap());
        ServiceStatus {
            owner: owner.peer_id,
            name: name("db"),
            service: Service {
                kind: Kind::Postgres,
                transport: Transport::Tcp,
                port: 5432,
                path: None,
                to: to.collect(),
                health: Health {
                    state,
                    since: UnixTime(0),
                },
                description: None,
                tags: BTreeSet::new(),
                openai: None,
            },
            load: None,
            issued: UnixTime(0),
            expires: UnixTime(0),
        }
    }

    /// The last numbers of the addresses to be tried.
    fn tried(snapshot: &Snapshot, text: &str) -> Vec<u8> {
        let destination: Destination = text.parse().unwrap();
        let places = destination.places(snapshot, Transport::Tcp).unwrap();
        let last = |place: SocketAddr| match place.ip() {
            IpAddr::V4(ip) => ip.octets()[3],
            IpAddr::V6(ip) => ip.octets()[15],
        };
        places.into_iter().map(last).collect()
    }

    #[test]
    fn the_nearest_healthy_service_that_is_reached_comes_first() {
        let members = vec![
            node(0, true, 0),
            node(1, true, 5),
            node(2, true, 20),
            node(3, false, 1),
            node(4, true, 1),
            node(5, true, 1),
        ];
        let services = vec![
            service(&members[1], State::Down, &[]),
            service(&members[2], State::Up, &[]),
            service(&members[3], State::Up, &[]),
            service(&members[4], State::Degraded, &["n0"]),
            service(&members[5], State::Up, &["group:others"]),
        ];
        let snapshot = Snapshot {
            members: members.into(),
            services: services.into(),
            ..Snapshot::default()
        };
        assert_eq!(tried(&snapshot, "db"), [2, 4, 1, 3]);
        assert_eq!(tried(&snapshot, "db.n3"), [3]);
        assert_eq!(tried(&snapshot, "n1:22"), [1]);
        assert_eq!(tried(&snapshot, "[fd00::4]:22"), [4]);
        let nowhere = |text: &str| {
            let destination: Destination = text.parse().unwrap();
            destination.places(&snapshot, Transport::Tcp).unwrap_err()
        };
        assert!(matches!(nowhere("db.n5"), Nowhere::NotForUs(_)));
        assert!(matches!(nowhere("db.n0"), Nowhere::NoService(..)));
        assert!(matches!(nowhere("n9:22"), Nowhere::NoMember(_)));
        assert_eq!(
            "db".parse::<Destination>().unwrap().transport(&snapshot),
            Some(Transport::Tcp)
        );
    }
}
