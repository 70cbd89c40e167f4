//! Which of our addresses we tell whom.

use std::net::SocketAddr;

use hivevpn_core::{
    connection::quic_endpoint,
    path::candidate::{Candidate, CandidateKind},
};
use libp2p::{Multiaddr, PeerId};

use crate::swarm::addresses::{Addresses, is_public, is_quic};

/// Observed addresses in a descriptor: a NAT's mapping works for some, and costs the others a dial that fails.
const MAX_OBSERVED: usize = 4;
/// Candidates of one kind: a machine has many interfaces, and a NAT may show every member another mapping.
const MAX_CANDIDATES: usize = 6;
/// Addresses in an invite: each makes the string about 30 characters longer.
const MAX_INVITE: usize = 8;

/// Every address under which we listen or are reached, best first.
pub fn all(addresses: &Addresses) -> Vec<Multiaddr> {
    let groups = [
        &addresses.external,
        &addresses.mapped,
        &addresses.listen,
        &addresses.relayed,
    ];
    deduplicated(groups.into_iter().flatten())
}

/// What a descriptor says: everything, with what others see us as. `None` before anything is known.
pub fn announced(addresses: &Addresses) -> Option<Vec<Multiaddr>> {
    let observed = stable(&addresses.observed);
    let known = all(addresses);
    let announced = deduplicated(known.iter().chain(observed.into_iter().take(MAX_OBSERVED)));
    (!announced.is_empty()).then_some(announced)
}

/// Of what others see us as, what holds for more than one of them: not the ports of a NAT that gives every destination
/// another. They would be news with every connection, and lead nobody anywhere.
fn stable(observed: &[Multiaddr]) -> Vec<&Multiaddr> {
    let quic: Vec<_> = observed.iter().filter(|address| is_quic(address)).collect();
    let is_alone = |address: &&&Multiaddr| {
        let ip = address.iter().next();
        quic.iter()
            .filter(|other| other.iter().next() == ip)
            .count()
            == 1
    };
    quic.iter().filter(is_alone).copied().collect()
}

/// What an invite says: where somebody without any help finds us. Public comes before private, QUIC before TCP.
pub fn for_invite(addresses: &Addresses) -> Vec<Multiaddr> {
    let mut known = all(addresses);
    known.sort_by_key(|address| (!is_public(address), !is_quic(address)));
    // A circuit is the only way in for some; it must not be cut off by a machine's many interfaces.
    let (circuits, direct): (Vec<_>, Vec<_>) = known
        .into_iter()
        .partition(|a| addresses.relayed.contains(a));
    let room = MAX_INVITE - circuits.len().min(2);
    direct
        .into_iter()
        .take(room)
        .chain(circuits.into_iter().take(2))
        .collect()
}

/// The endpoints of our UDP socket, for peers that try raw datagrams.
pub fn candidates(addresses: &Addresses) -> Vec<Candidate> {
    let groups = [
        (CandidateKind::Host, &addresses.external),
        (CandidateKind::Mapped, &addresses.mapped),
        (CandidateKind::Host, &addresses.listen),
    ];
    let observed = stable(&addresses.observed)
        .into_iter()
        .map(|address| (CandidateKind::Reflexive, address));
    let named = groups
        .into_iter()
        .flat_map(|(kind, group)| {
            let quic = group.iter().filter(|address| is_quic(address));
            quic.take(MAX_CANDIDATES)
                .map(move |address| (kind, address))
        })
        .chain(observed);
    let mut candidates: Vec<Candidate> = Vec::new();
    for (kind, address) in named {
        let is_new = |endpoint: &SocketAddr| !candidates.iter().any(|c| c.endpoint == *endpoint);
        if let Some(endpoint) = quic_endpoint(address).filter(is_new) {
            candidates.push(Candidate { kind, endpoint });
        }
    }
    candidates
}

/// The addresses with our identity behind each, ready to be dialled.
pub fn dialable(addresses: &Addresses, us: PeerId) -> Vec<Multiaddr> {
    all(addresses)
        .into_iter()
        .filter_map(|address| address.with_p2p(us).ok())
        .collect()
}

/// `public` when anybody can dial us, `private` when only through relays or on our own site, `unknown` before there is
/// any address.
pub fn reachability(addresses: &Addresses) -> &'static str {
    if addresses.has_public() {
        "public"
    } else if [&addresses.observed, &addresses.mapped, &addresses.relayed]
        .iter()
        .all(|known| known.is_empty())
    {
        "unknown"
    } else {
        "private"
    }
}

fn deduplicated<'a>(addresses: impl Iterator<Item = &'a Multiaddr>) -> Vec<Multiaddr> {
    let mut unique = Vec::new();
    for address in addresses {
        if !unique.contains(address) {
            unique.push(address.clone());
        }
    }
    unique
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(listen: &[&str], relayed: &[&str]) -> Addresses {
        let parse = |list: &[&str]| list.iter().map(|a| a.parse().unwrap()).collect();
        Addresses {
            listen: parse(listen),
            relayed: parse(relayed),
            ..Addresses::default()
        }
    }

    #[test]
    fn an_invite_keeps_its_circuit_however_many_interfaces_there_are() {
        let listen: Vec<_> = (0..20)
            .map(|n| format!("/ip4/10.0.{n}.1/udp/7777/quic-v1"))
            .collect();
        let listen: Vec<_> = listen.iter().map(String::as_str).collect();
        let relay = PeerId::random();
        let circuit = format!("/ip4/203.0.113.1/udp/7777/quic-v1/p2p/{relay}/p2p-circuit");
        let invited = for_invite(&addresses(&listen, &[&circuit]));
        assert_eq!(invited.len(), MAX_INVITE);
        assert_eq!(invited.last().unwrap().to_string(), circuit);
    }

    #[test]
    fn what_the_router_forwards_is_told_to_everybody() {
        let mapped: Multiaddr = "/ip4/203.0.113.1/udp/7777/quic-v1".parse().unwrap();
        let ours = Addresses {
            mapped: vec![mapped.clone()],
            ..addresses(&["/ip4/10.0.0.1/udp/7777/quic-v1"], &[])
        };
        assert!(announced(&ours).unwrap().contains(&mapped));
        assert_eq!(for_invite(&ours)[0], mapped, "the others are private");
        assert_eq!(reachability(&ours), "private", "it may be wrong");
    }

    #[test]
    fn what_a_symmetric_nat_shows_to_each_is_told_to_none() {
        let seen = |text: &str| -> Multiaddr { text.parse().unwrap() };
        let mut ours = addresses(&["/ip4/10.0.0.1/udp/7777/quic-v1"], &[]);
        ours.observed = vec![seen("/ip4/203.0.113.9/udp/1001/quic-v1")];
        assert_eq!(announced(&ours).unwrap().len(), 2);
        assert_eq!(candidates(&ours).len(), 2);
        ours.observed
            .push(seen("/ip4/203.0.113.9/udp/1002/quic-v1"));
        assert_eq!(announced(&ours).unwrap().len(), 1);
        assert_eq!(candidates(&ours).len(), 1);
    }

    #[test]
    fn reachability_is_what_others_can_do() {
        assert_eq!(
            reachability(&addresses(&["/ip4/203.0.113.1/tcp/1"], &[])),
            "public"
        );
        assert_eq!(
            reachability(&addresses(&["/ip4/10.0.0.1/tcp/1"], &[])),
            "unknown"
        );
        let circuit = format!(
            "/ip4/203.0.113.1/tcp/1/p2p/{}/p2p-circuit",
            PeerId::random()
        );
        assert_eq!(
            reachability(&addresses(&["/ip4/10.0.0.1/tcp/1"], &[&circuit])),
            "private"
        );
    }
}
