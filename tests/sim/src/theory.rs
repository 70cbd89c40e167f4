//! What two gateways allow, by RFC 4787 alone: an independent word on what the core should achieve.
//!
//! Two hosts know each other's *reflexive* endpoint: how a third host sees them. Both send to it again and again. A NAT
//! whose mapping depends on the remote end sends from another port than the reflexive one, which the peer learns only
//! if its own gateway lets it in, and that is so if its filter does not look at ports: the address has been written to.

use crate::{
    nat::Dependence,
    underlay::{Cut, GatewayKind, HEADERS, HostId, Underlay},
};

/// A raw path must carry what IPv6 demands of every link, 1280 bytes, with what WireGuard, UDP and IPv4 add.
const LEAST_MTU: usize = 1280 + 32 + HEADERS;

/// What kind of path a pair should end up with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Best {
    /// Raw datagrams from one to the other.
    Direct,
    /// A TCP connection from one to the other.
    Stream,
    /// Through a third host.
    Relay,
}

impl Best {
    /// As the core names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Stream => "stream",
            Self::Relay => "relay",
        }
    }
}

impl Best {
    /// The kind of path that the core calls so.
    pub fn named(name: &str) -> Option<Self> {
        let all = [Self::Direct, Self::Stream, Self::Relay];
        all.into_iter().find(|best| best.name() == name)
    }
}

/// How a gateway treats datagrams: whether the reflexive endpoint is good for everybody, and whether whoever was
/// written to may answer from any port.
struct Manners {
    is_stable: bool,
    forgives_ports: bool,
}

fn manners(gateway: GatewayKind) -> Option<Manners> {
    match gateway {
        GatewayKind::Open => Some(Manners {
            is_stable: true,
            forgives_ports: true,
        }),
        GatewayKind::Nat(nat) => Some(Manners {
            is_stable: !nat.translates || nat.mapping == Dependence::Endpoint,
            forgives_ports: nat.filtering != Dependence::AddressAndPort,
        }),
        GatewayKind::NoUdp => None,
    }
}

/// Whether raw datagrams can ever pass both ways between hosts behind these gateways.
pub fn can_be_direct(a: GatewayKind, b: GatewayKind) -> bool {
    let (Some(a), Some(b)) = (manners(a), manners(b)) else {
        return false;
    };
    match (a.is_stable, b.is_stable) {
        (true, true) => true,
        // The unstable end's datagrams come from a port that the stable end has never written to.
        (false, true) => b.forgives_ports,
        (true, false) => a.forgives_ports,
        (false, false) => a.forgives_ports && b.forgives_ports,
    }
}

/// The best path between two gateways with nothing cut between them.
pub fn best_between(a: GatewayKind, b: GatewayKind) -> Best {
    if can_be_direct(a, b) {
        Best::Direct
    } else if a == GatewayKind::Open || b == GatewayKind::Open {
        Best::Stream
    } else {
        Best::Relay
    }
}

/// The best path between two hosts as things are now; `None` when nothing leads from one to the other.
pub fn best(underlay: &Underlay, a: HostId, b: HostId) -> Option<Best> {
    let is_up = |host| underlay.is_awake(host);
    if !is_up(a) || !is_up(b) {
        return None;
    }
    let direct = without_help(underlay, a, b);
    if direct.is_some() {
        return direct;
    }
    let relays = |host: &HostId| {
        *host != a && *host != b && underlay.is_public(*host) && underlay.is_awake(*host)
    };
    let reaches = |from, relay| without_help(underlay, from, relay).is_some();
    let mut candidates = underlay.all_hosts().filter(relays);
    let is_relayed = candidates.any(|relay| reaches(a, relay) && reaches(b, relay));
    is_relayed.then_some(Best::Relay)
}

/// The best path that leads through nobody else.
fn without_help(underlay: &Underlay, a: HostId, b: HostId) -> Option<Best> {
    let (site_a, site_b) = (underlay.site_of(a), underlay.site_of(b));
    if site_a == site_b {
        return Some(Best::Direct);
    }
    let cut = underlay.cut_between(site_a, site_b);
    let is_narrow = underlay.mtu_between(site_a, site_b) < LEAST_MTU;
    let (a, b) = (underlay.kind_of(site_a), underlay.kind_of(site_b));
    match (best_between(a, b), cut) {
        (_, Some(Cut::Everything)) | (Best::Relay, _) => None,
        (Best::Direct, Some(Cut::Udp)) => {
            let has_tcp = a == GatewayKind::Open || b == GatewayKind::Open;
            has_tcp.then_some(Best::Stream)
        }
        (Best::Direct, None) if is_narrow => {
            let has_tcp = a == GatewayKind::Open || b == GatewayKind::Open;
            has_tcp.then_some(Best::Stream)
        }
        (best, Some(Cut::Udp) | None) => Some(best),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddrV4};

    use super::*;
    use crate::{
        clock::{millis, seconds},
        nat::{Nat, NatKind},
    };

    const REFLECTOR: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(20, 9, 9, 9), 7777);

    /// One end of a pair that sends to everything it knows of the other.
    struct End {
        nat: Nat,
        own: SocketAddrV4,
        knows: Vec<SocketAddrV4>,
        heard: bool,
    }

    impl End {
        fn new(kind: NatKind, number: u8) -> Self {
            let own = SocketAddrV4::new(Ipv4Addr::new(192, 168, 1, 1), 7777);
            Self {
                nat: Nat::new(kind, Ipv4Addr::new(20, 0, number, 254)),
                own,
                knows: Vec::new(),
                heard: false,
            }
        }
    }

    /// Two ends with all patience in the world, against the simulated NATs.
    fn patience_gets_through(a: NatKind, b: NatKind) -> bool {
        let mut ends = [End::new(a, 1), End::new(b, 2)];
        let now = seconds(1);
        for at in [0, 1] {
            let own = ends[at].own;
            let reflexive = ends[at].nat.outbound(own, REFLECTOR, now);
            ends[1 - at].knows.push(reflexive);
        }
        for round in 0..20 {
            let now = now + millis(round * 100);
            for at in [0, 1] {
                for to in ends[at].knows.clone() {
                    let own = ends[at].own;
                    let from = ends[at].nat.outbound(own, to, now);
                    let other = &mut ends[1 - at];
                    if other.nat.inbound(to, from, now).is_some() {
                        other.heard = true;
                        if !other.knows.contains(&from) && other.knows.len() < 8 {
                            other.knows.push(from);
                        }
                    }
                }
            }
        }
        ends.iter().all(|end| end.heard)
    }

    #[test]
    fn theory_and_the_simulated_nats_agree_about_every_pair() {
        let kinds = Dependence::ALL.into_iter().flat_map(|mapping| {
            Dependence::ALL.map(|filtering| NatKind {
                mapping,
                filtering,
                ..NatKind::SYMMETRIC
            })
        });
        let kinds: Vec<_> = kinds.collect();
        for a in &kinds {
            for b in &kinds {
                assert_eq!(
                    can_be_direct(GatewayKind::Nat(*a), GatewayKind::Nat(*b)),
                    patience_gets_through(*a, *b),
                    "{a:?} and {b:?}"
                );
            }
        }
    }

    #[test]
    fn a_host_without_udp_is_reached_by_a_stream_or_through_somebody() {
        let nat = GatewayKind::Nat(NatKind::FULL_CONE);
        assert_eq!(
            best_between(GatewayKind::NoUdp, GatewayKind::Open),
            Best::Stream
        );
        assert_eq!(best_between(GatewayKind::NoUdp, nat), Best::Relay);
    }
}
