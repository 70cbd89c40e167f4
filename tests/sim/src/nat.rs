//! What stands between a site and the internet, as RFC 4787 describes it: how it maps (§4.1), what it filters (§5), for
//! how long it remembers (§4.3).
//!
//! A firewall is the same without translation. A mapping belongs to one internal endpoint and, depending on the
//! behaviour, to one remote address or endpoint; only what goes out keeps it alive, which is the least that §4.3 allows.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddrV4},
    time::Duration,
};

use crate::clock::{Moment, seconds};

/// What a mapping or a filter depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dependence {
    /// On nothing of the remote end.
    Endpoint,
    /// On the remote address.
    Address,
    /// On the remote address and port.
    AddressAndPort,
}

impl Dependence {
    /// All three.
    pub const ALL: [Self; 3] = [Self::Endpoint, Self::Address, Self::AddressAndPort];

    /// What of `remote` matters.
    fn part_of(self, remote: SocketAddrV4) -> Option<(Ipv4Addr, u16)> {
        match self {
            Self::Endpoint => None,
            Self::Address => Some((*remote.ip(), 0)),
            Self::AddressAndPort => Some((*remote.ip(), remote.port())),
        }
    }
}

/// How a NAT or firewall behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NatKind {
    /// What an external port is good for.
    pub mapping: Dependence,
    /// From whom datagrams are let in.
    pub filtering: Dependence,
    /// How long a mapping outlives the last datagram that went out by it.
    pub expiry: Duration,
    /// Whether addresses are translated; a mere firewall does not.
    pub translates: bool,
    /// Whether the external port is the internal one where that is free.
    pub keeps_port: bool,
    /// Whether hosts behind it reach each other by their external endpoints.
    pub hairpins: bool,
}

/// Common home routers forget a UDP mapping after this.
pub const COMMON_EXPIRY: Duration = seconds(30);

impl NatKind {
    const fn translating(mapping: Dependence, filtering: Dependence) -> Self {
        Self {
            mapping,
            filtering,
            expiry: COMMON_EXPIRY,
            translates: true,
            keeps_port: true,
            hairpins: false,
        }
    }

    /// Lets everything in that is sent to a mapping.
    pub const FULL_CONE: Self = Self::translating(Dependence::Endpoint, Dependence::Endpoint);
    /// Lets in whoever was sent something.
    pub const ADDRESS_RESTRICTED: Self =
        Self::translating(Dependence::Endpoint, Dependence::Address);
    /// Lets in endpoints that were sent something.
    pub const PORT_RESTRICTED: Self =
        Self::translating(Dependence::Endpoint, Dependence::AddressAndPort);
    /// The same with an external port of its own choice.
    pub const PORT_REMAPPING: Self = Self {
        keeps_port: false,
        ..Self::PORT_RESTRICTED
    };
    /// Another external port for every remote endpoint.
    pub const SYMMETRIC: Self = Self {
        keeps_port: false,
        ..Self::translating(Dependence::AddressAndPort, Dependence::AddressAndPort)
    };
    /// A stateful firewall on a public network.
    pub const FIREWALL: Self = Self {
        translates: false,
        ..Self::PORT_RESTRICTED
    };
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    internal: SocketAddrV4,
    remote: Option<(Ipv4Addr, u16)>,
}

#[derive(Debug)]
struct Mapping {
    port: u16,
    last_out: Moment,
}

/// One NAT or firewall with what it remembers.
#[derive(Debug)]
pub struct Nat {
    kind: NatKind,
    external: Ipv4Addr,
    mappings: BTreeMap<Key, Mapping>,
    ports: BTreeMap<u16, Key>,
    /// To whom each internal endpoint sent when: what the filter knows.
    contacts: BTreeMap<(SocketAddrV4, SocketAddrV4), Moment>,
    next_port: u16,
    /// Nothing expires before this.
    next_expiry: Moment,
}

impl Nat {
    /// One that has seen nothing yet.
    pub fn new(kind: NatKind, external: Ipv4Addr) -> Self {
        Self {
            kind,
            external,
            mappings: BTreeMap::new(),
            ports: BTreeMap::new(),
            contacts: BTreeMap::new(),
            next_port: 40_000,
            next_expiry: Moment::ZERO,
        }
    }

    /// How it behaves.
    pub fn kind(&self) -> &NatKind {
        &self.kind
    }

    /// The address that the internet sees.
    pub fn external(&self) -> Ipv4Addr {
        self.external
    }

    /// A datagram leaves: which endpoint the remote end sees it come from.
    pub fn outbound(
        &mut self,
        internal: SocketAddrV4,
        remote: SocketAddrV4,
        now: Moment,
    ) -> SocketAddrV4 {
        self.forget_expired(now);
        self.contacts.insert((internal, remote), now);
        if !self.kind.translates {
            return internal;
        }
        let key = Key {
            internal,
            remote: self.kind.mapping.part_of(remote),
        };
        if let Some(mapping) = self.mappings.get_mut(&key) {
            mapping.last_out = now;
            return SocketAddrV4::new(self.external, mapping.port);
        }
        let port = self.free_port(internal.port());
        self.ports.insert(port, key);
        let last_out = now;
        self.mappings.insert(key, Mapping { port, last_out });
        SocketAddrV4::new(self.external, port)
    }

    /// A datagram arrives from outside: for which internal endpoint, if it is let in at all.
    pub fn inbound(
        &mut self,
        external: SocketAddrV4,
        remote: SocketAddrV4,
        now: Moment,
    ) -> Option<SocketAddrV4> {
        self.forget_expired(now);
        let internal = if self.kind.translates {
            self.ports.get(&external.port())?.internal
        } else {
            external
        };
        self.lets_in(internal, remote).then_some(internal)
    }

    fn lets_in(&self, internal: SocketAddrV4, remote: SocketAddrV4) -> bool {
        let wanted = self.kind.filtering.part_of(remote);
        let lowest = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0);
        let highest = SocketAddrV4::new(Ipv4Addr::BROADCAST, u16::MAX);
        let mut contacts = self
            .contacts
            .range((internal, lowest)..=(internal, highest))
            .map(|((_, contact), _)| *contact);
        contacts.any(|contact| self.kind.filtering.part_of(contact) == wanted)
    }

    /// Power cut: everything is forgotten, and the ports are others.
    pub fn reboot(&mut self) {
        self.mappings.clear();
        self.ports.clear();
        self.contacts.clear();
        self.next_port = self.next_port.wrapping_add(977).max(40_000);
    }

    /// How many mappings and contacts it holds.
    pub fn size(&self) -> usize {
        self.mappings.len() + self.contacts.len()
    }

    fn forget_expired(&mut self, now: Moment) {
        if now < self.next_expiry {
            return;
        }
        let expiry = self.kind.expiry;
        let ports = &mut self.ports;
        self.mappings.retain(|_, mapping| {
            let lives = now < mapping.last_out + expiry;
            if !lives {
                ports.remove(&mapping.port);
            }
            lives
        });
        self.contacts.retain(|_, at| now < *at + expiry);
        let used = self.mappings.values().map(|mapping| mapping.last_out);
        let oldest = used.chain(self.contacts.values().copied()).min();
        self.next_expiry = oldest.unwrap_or(now) + expiry;
    }

    fn free_port(&mut self, wanted: u16) -> u16 {
        if self.kind.keeps_port && !self.ports.contains_key(&wanted) {
            return wanted;
        }
        while self.ports.contains_key(&self.next_port) {
            self.next_port = self.next_port.wrapping_add(1).max(40_000);
        }
        let port = self.next_port;
        self.next_port = self.next_port.wrapping_add(1).max(40_000);
        port
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXTERNAL: Ipv4Addr = Ipv4Addr::new(20, 0, 0, 254);

    fn inside() -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::new(192, 168, 1, 1), 7777)
    }

    fn remote(host: u8, port: u16) -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::new(20, 9, 0, host), port)
    }

    fn nat(kind: NatKind) -> Nat {
        Nat::new(kind, EXTERNAL)
    }

    #[test]
    fn a_full_cone_lets_strangers_in_once_it_is_open() {
        let mut nat = nat(NatKind::FULL_CONE);
        let now = seconds(1);
        assert_eq!(
            nat.inbound(SocketAddrV4::new(EXTERNAL, 7777), remote(1, 1), now),
            None
        );
        let seen = nat.outbound(inside(), remote(1, 1), now);
        assert_eq!(nat.inbound(seen, remote(2, 2), now), Some(inside()));
    }

    #[test]
    fn filters_look_at_the_address_or_at_the_port_too() {
        for (kind, other_port) in [
            (NatKind::ADDRESS_RESTRICTED, true),
            (NatKind::PORT_RESTRICTED, false),
        ] {
            let mut nat = nat(kind);
            let seen = nat.outbound(inside(), remote(1, 1), seconds(1));
            assert!(nat.inbound(seen, remote(1, 1), seconds(1)).is_some());
            assert_eq!(
                nat.inbound(seen, remote(1, 2), seconds(1)).is_some(),
                other_port
            );
            assert_eq!(nat.inbound(seen, remote(2, 1), seconds(1)), None);
        }
    }

    #[test]
    fn a_symmetric_nat_shows_everybody_another_port() {
        let mut nat = nat(NatKind::SYMMETRIC);
        let first = nat.outbound(inside(), remote(1, 1), seconds(1));
        assert_ne!(first, nat.outbound(inside(), remote(1, 2), seconds(1)));
        assert_eq!(first, nat.outbound(inside(), remote(1, 1), seconds(1)));
    }

    #[test]
    fn only_what_goes_out_keeps_a_mapping() {
        let mut nat = nat(NatKind::PORT_RESTRICTED);
        let seen = nat.outbound(inside(), remote(1, 1), seconds(0));
        assert!(nat.inbound(seen, remote(1, 1), seconds(29)).is_some());
        assert!(nat.inbound(seen, remote(1, 1), seconds(30)).is_none());
    }

    #[test]
    fn a_firewall_translates_nothing_and_lets_answers_in() {
        let mut nat = nat(NatKind::FIREWALL);
        let host = SocketAddrV4::new(Ipv4Addr::new(20, 0, 0, 1), 7777);
        assert_eq!(nat.inbound(host, remote(1, 1), seconds(1)), None);
        assert_eq!(nat.outbound(host, remote(1, 1), seconds(1)), host);
        assert_eq!(nat.inbound(host, remote(1, 1), seconds(1)), Some(host));
    }
}
