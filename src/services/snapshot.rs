//! Members and services, as of a moment.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};

use hivevpn_core::{
    membership::{Name, UnixTime},
    node::ServiceStatus,
    policy::{Selector, Subject},
};
use ipnet::IpNet;
use libp2p::PeerId;

/// What the services know of the network. Cheap to clone.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Snapshot {
    /// The network's name; empty before there is a network.
    pub network: String,
    /// The overlay interface.
    pub interface: String,
    /// What overlay addresses are taken from, both families.
    pub ranges: Vec<IpNet>,
    /// All members, this node included.
    pub members: Arc<Vec<Member>>,
    /// All services, ours included, by name and owner.
    pub services: Arc<Vec<ServiceStatus>>,
    /// Whether this node admits whoever knows the network's password.
    pub admits_by_password: bool,
    /// When it was taken.
    pub taken: Taken,
}

/// The moment of a snapshot by the system clock. Two snapshots with the same content are the same, whenever they were taken.
#[derive(Debug, Clone, Copy)]
pub struct Taken(pub UnixTime);

impl Default for Taken {
    fn default() -> Self {
        Self(UnixTime(0))
    }
}

impl PartialEq for Taken {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// A member.
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    /// What commands show.
    pub name: Name,
    /// The name in its certificate, if that is its own: the only one that may be trusted, and that resolves.
    pub certified: Option<Name>,
    /// Its identity.
    pub peer_id: PeerId,
    /// Its overlay IPv4 address, unless an older member holds it.
    pub ipv4: Option<Ipv4Addr>,
    /// Its overlay IPv6 address.
    pub ipv6: Ipv6Addr,
    /// Its groups.
    pub groups: BTreeSet<Name>,
    /// Whether it is reached at the moment.
    pub online: bool,
    /// The round trip through the tunnel, in steps of a millisecond so that a snapshot does not change all the time.
    pub rtt: Option<Duration>,
    /// Whether it is this node.
    pub this: bool,
}

impl Member {
    /// Where its services are: by IPv4 where it has an address.
    pub fn address(&self) -> IpAddr {
        self.ipv4.map_or(IpAddr::V6(self.ipv6), IpAddr::V4)
    }

    /// All its overlay addresses, IPv4 first.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + use<> {
        let ipv4 = self.ipv4.map(IpAddr::V4);
        ipv4.into_iter().chain([IpAddr::V6(self.ipv6)])
    }

    /// The member as rules see it.
    pub fn subject(&self) -> Subject {
        Subject {
            peer: Some(self.peer_id),
            name: self.certified.clone(),
            groups: self.groups.clone(),
        }
    }

    /// Whether one of the selectors means it; none at all mean everyone.
    pub fn is_among(&self, to: &BTreeSet<Selector>) -> bool {
        let subject = self.subject();
        to.is_empty() || to.iter().any(|selector| selector.selects(&subject))
    }
}

impl Snapshot {
    /// This node.
    pub fn us(&self) -> Option<&Member> {
        self.members.iter().find(|member| member.this)
    }

    /// Who has this overlay address. The tunnel lets nobody else use it.
    pub fn member_at(&self, address: IpAddr) -> Option<&Member> {
        self.members.iter().find(|member| match address {
            IpAddr::V4(ipv4) => member.ipv4 == Some(ipv4),
            IpAddr::V6(ipv6) => {
                member.ipv6 == ipv6
                    || ipv6
                        .to_ipv4_mapped()
                        .is_some_and(|v4| member.ipv4 == Some(v4))
            }
        })
    }

    /// Whether an address is this machine's.
    pub fn is_here(&self, address: IpAddr) -> bool {
        address.to_canonical().is_loopback()
            || self.member_at(address).is_some_and(|member| member.this)
    }

    /// Whether the owner of a service lets us use it, as far as it says. It lets itself.
    pub fn lets_us_in(&self, owner: &Member, service: &ServiceStatus) -> bool {
        let us = self.us();
        owner.this || us.is_some_and(|us| us.is_among(&service.service.to))
    }

    /// The member with this identity.
    pub fn member(&self, peer: &PeerId) -> Option<&Member> {
        self.members.iter().find(|member| member.peer_id == *peer)
    }

    /// The services of this name, whoever offers them.
    pub fn named<'a>(&'a self, name: &'a Name) -> impl Iterator<Item = &'a ServiceStatus> {
        self.services
            .iter()
            .filter(move |service| service.name == *name)
    }
}
