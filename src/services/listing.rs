//! What all members offer, as `hivevpn services` shows it.

use hivevpn_core::{node::ServiceStatus, registry::Transport};

use super::Snapshot;
use crate::control::services::Listed;

/// All services of members, by name and node.
pub fn services(snapshot: &Snapshot) -> Vec<Listed> {
    let services = snapshot.services.iter();
    let mut listed: Vec<_> = services
        .filter_map(|status| listed(status, snapshot))
        .collect();
    listed.sort_by(|a, b| (&a.name, &a.node).cmp(&(&b.name, &b.node)));
    listed
}

/// None if its owner is no member any more.
fn listed(status: &ServiceStatus, snapshot: &Snapshot) -> Option<Listed> {
    let owner = snapshot.member(&status.owner)?;
    let service = &status.service;
    let health = match owner.online || owner.this {
        true => service.health.state.name(),
        false => "offline",
    };
    let models = service.openai.iter().flat_map(|openai| &openai.models);
    Some(Listed {
        name: status.name.to_string(),
        kind: service.kind.to_string(),
        node: owner.name.to_string(),
        address: owner.address().to_string(),
        port: service.port,
        health: health.to_owned(),
        models: models.map(|model| model.id.clone()).collect(),
        age_s: snapshot.taken.0.0.saturating_sub(status.issued.0),
        protocol: transport_name(service.transport).to_owned(),
        to: service.to.iter().map(ToString::to_string).collect(),
        description: service.description.clone(),
        tags: service.tags.iter().cloned().collect(),
    })
}

/// What people write.
pub fn transport_name(transport: Transport) -> &'static str {
    match transport {
        Transport::Tcp => "tcp",
        Transport::Udp => "udp",
    }
}
