//! The names of a network for people: which resolve, to what, and which do not, and why.

use std::{collections::BTreeSet, net::IpAddr};

use hickory_proto::{
    op::Query,
    rr::{Name, RecordType},
};

use super::zone::{ENDPOINT, SERVICES, Zone, resolves};
use crate::{
    control::names::ListedName,
    services::{Snapshot, snapshot::Member},
};

/// Every name, nodes first, each with its services.
pub fn list(snapshot: &Snapshot) -> Vec<ListedName> {
    let Some(zone) = Zone::of(snapshot) else {
        return Vec::new();
    };
    let listed = |label: &str, kind: &str| listed(&zone, label, kind);
    let mut names = Vec::new();
    for member in snapshot.members.iter() {
        if !resolves(member) {
            names.push(unresolved(&zone, member));
            continue;
        }
        let Some(name) = &member.certified else {
            continue;
        };
        names.push(listed(name.as_str(), "node"));
        let own = snapshot.services.iter();
        for service in own.filter(|service| service.owner == member.peer_id) {
            names.push(listed(&format!("{}.{name}", service.name), "service"));
        }
    }
    names.sort_by_cached_key(ListedName::order);
    let pools: BTreeSet<_> = snapshot.services.iter().map(|s| s.name.as_str()).collect();
    let pools = pools.iter().map(|pool| format!("{pool}.{SERVICES}"));
    names.extend(pools.map(|pool| listed(&pool, "services")));
    names.push(listed(ENDPOINT, "models"));
    names
}

fn listed(zone: &Zone<'_>, label: &str, kind: &str) -> ListedName {
    let name = format!("{label}.{}", zone.apex());
    let addresses = addresses(zone, &name);
    let trouble = addresses
        .is_empty()
        .then(|| "nobody who offers it is up, reached and lets this node in".to_owned());
    ListedName {
        name,
        kind: kind.to_owned(),
        resolves: trouble.is_none(),
        addresses,
        trouble,
    }
}

fn unresolved(zone: &Zone<'_>, member: &Member) -> ListedName {
    let trouble = match &member.certified {
        Some(name) => format!("'{name}' stands for something else: admit it by another name"),
        None => "it has given itself this name; only the one in a certificate, and the oldest of its namesakes, resolves"
            .to_owned(),
    };
    ListedName {
        name: format!("{}.{}", member.name, zone.apex()),
        kind: "node".to_owned(),
        addresses: Vec::new(),
        resolves: false,
        trouble: Some(trouble),
    }
}

/// What the resolver says to both questions for addresses.
fn addresses(zone: &Zone<'_>, name: &str) -> Vec<IpAddr> {
    let Ok(name) = Name::from_ascii(format!("{name}.")) else {
        return Vec::new();
    };
    let mut addresses: Vec<_> = [RecordType::A, RecordType::AAAA]
        .into_iter()
        .filter_map(|kind| zone.answer(&Query::query(name.clone(), kind)))
        .flat_map(|answer| answer.answers)
        .filter_map(|record| record.data.ip_addr())
        .collect();
    addresses.sort();
    addresses
}
