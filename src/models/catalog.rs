//! Who has which model.
//!
//! A model is live when the service that has it was not reported down, its record is still good, its node is reached, and
//! that node lets us in.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

use hivevpn_core::{
    membership::Name,
    node::ServiceStatus,
    registry::{
        Load,
        service::{Kind, Model, OpenAi, State},
    },
};
use hyper::StatusCode;
use libp2p::PeerId;
use serde_json::{Value, json};

use super::problem::Problem;
use crate::{
    control::services::ListedModel,
    services::{Snapshot, snapshot::Member},
};

/// Where a service's interface begins, unless it says otherwise.
const USUAL_BASE: &str = "/v1";
/// Ids that are proposed to whoever asked for one that nobody has.
const PROPOSALS: usize = 3;
/// Longer ids are cut where they are shown or compared.
const SHOWN: usize = 128;

/// A service that has the model that was asked for.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Offer {
    pub peer: PeerId,
    /// What its node is called.
    pub node: String,
    pub service: Name,
    pub address: SocketAddr,
    /// What `/v1` is there.
    pub base: String,
    pub state: State,
    pub load: Option<Load>,
    pub rtt: Option<Duration>,
    pub loaded: Option<bool>,
    /// Whether it is on this node.
    pub this: bool,
}

/// A model as a request names it, and the services that have it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Wanted {
    /// The model's own id.
    pub id: String,
    /// At least one.
    pub offers: Vec<Offer>,
}

/// Finds who is to be asked for `model`, which may be `<id>@<node>`; `node` is what else names one.
pub(super) fn wanted(
    snapshot: &Snapshot,
    model: &str,
    node: Option<&str>,
) -> Result<Wanted, Problem> {
    let exact = (model, node);
    let pinned = model
        .rsplit_once('@')
        .filter(|(id, _)| !id.is_empty())
        .map(|(id, at)| (id, Some(at)));
    // An id that has an '@' of its own wins over one with a node behind it.
    for (id, node) in std::iter::once(exact).chain(pinned) {
        let offers = offers(snapshot, id, node);
        if !offers.is_empty() {
            return Ok(Wanted {
                id: id.to_owned(),
                offers,
            });
        }
    }
    let (id, node) = pinned
        .filter(|(id, _)| servers(snapshot, model).next().is_none() && is_known(snapshot, id))
        .unwrap_or(exact);
    Err(match servers(snapshot, id).next() {
        None => not_found(snapshot, id),
        Some(_) => not_there(snapshot, id, node),
    })
}

/// Those who have a model and are reached.
fn offers(snapshot: &Snapshot, id: &str, node: Option<&str>) -> Vec<Offer> {
    servers(snapshot, id)
        .filter_map(|(status, model)| {
            let member = snapshot.member(&status.owner)?;
            let is_meant = node.is_none_or(|node| is_called(snapshot, member, node));
            (is_meant && is_live(snapshot, member, status)).then(|| offer(member, status, model))
        })
        .collect()
}

fn offer(member: &Member, status: &ServiceStatus, model: &Model) -> Offer {
    let base = status.service.path.as_deref().unwrap_or(USUAL_BASE);
    Offer {
        peer: member.peer_id,
        node: member.name.to_string(),
        service: status.name.clone(),
        address: SocketAddr::new(member.address(), status.service.port),
        base: base.trim_end_matches('/').to_owned(),
        state: status.service.health.state,
        load: status.load,
        rtt: member.rtt,
        loaded: model.loaded,
        this: member.this,
    }
}

/// Services with this model, reached or not.
fn servers<'a>(
    snapshot: &'a Snapshot,
    id: &'a str,
) -> impl Iterator<Item = (&'a ServiceStatus, &'a Model)> {
    model_services(snapshot).filter_map(move |(status, openai)| {
        let model = openai.models.iter().find(|model| model.id == id)?;
        Some((status, model))
    })
}

fn model_services(snapshot: &Snapshot) -> impl Iterator<Item = (&ServiceStatus, &OpenAi)> {
    snapshot.services.iter().filter_map(|status| {
        let openai = status.service.openai.as_ref()?;
        (status.service.kind == Kind::OpenAi).then_some((status, openai))
    })
}

fn is_known(snapshot: &Snapshot, id: &str) -> bool {
    servers(snapshot, id).next().is_some()
}

fn is_live(snapshot: &Snapshot, member: &Member, status: &ServiceStatus) -> bool {
    let lets_us_in = snapshot.lets_us_in(member, status);
    let answers = match status.service.health.state {
        State::Up | State::Degraded => true,
        State::Down => false,
    };
    answers && lets_us_in && (member.online || member.this) && status.expires > snapshot.taken.0
}

/// Whether people mean this member by `node`. A name that somebody has chosen for itself counts for nothing while another
/// one's certificate has it.
fn is_called(snapshot: &Snapshot, member: &Member, node: &str) -> bool {
    let is_certified = |member: &Member| {
        let certified = member.certified.as_ref();
        certified.is_some_and(|name| name.as_str() == node)
    };
    is_certified(member)
        || node
            .parse()
            .is_ok_and(|peer: PeerId| peer == member.peer_id)
        || node.parse().is_ok_and(|address| {
            snapshot
                .member_at(address)
                .is_some_and(|at| at.peer_id == member.peer_id)
        })
        || (member.name.as_str() == node && !snapshot.members.iter().any(is_certified))
}

fn not_found(snapshot: &Snapshot, id: &str) -> Problem {
    let live: BTreeSet<&str> = live(snapshot).map(|(_, _, model)| &*model.id).collect();
    let close = close_to(id, &live);
    let advice = match (live.is_empty(), close.is_empty()) {
        (true, _) => "no member offers any model at the moment".to_owned(),
        (false, true) => "'hivevpn models' lists those that there are".to_owned(),
        (false, false) => format!("did you mean {}?", close.join(", ")),
    };
    Problem::of_model(
        StatusCode::NOT_FOUND,
        "model_not_found",
        format!("no member has the model '{}': {advice}", cut(id)),
    )
}

/// Some record tells of the model, but nobody can be asked.
fn not_there(snapshot: &Snapshot, id: &str, node: Option<&str>) -> Problem {
    let mut reached = BTreeSet::new();
    let mut missed = BTreeSet::new();
    for (status, _) in servers(snapshot, id) {
        let Some(member) = snapshot.member(&status.owner) else {
            continue;
        };
        match is_live(snapshot, member, status) {
            true => reached.insert(member.name.as_str()),
            false => missed.insert(member.name.as_str()),
        };
    }
    let (id, listed) = (cut(id), |names: BTreeSet<&str>| {
        Vec::from_iter(names).join(", ")
    });
    match node {
        Some(node) if !reached.is_empty() => Problem::of_model(
            StatusCode::NOT_FOUND,
            "model_not_found",
            format!(
                "the node '{}' does not offer the model '{id}' at the moment; these do: {}",
                cut(node),
                listed(reached)
            ),
        ),
        Some(_) | None => Problem::of_model(
            StatusCode::SERVICE_UNAVAILABLE,
            "no_server",
            format!(
                "no server of the model '{id}' is reached at the moment: {} had it",
                listed(missed)
            ),
        ),
    }
}

/// All live models with their services and members.
fn live(snapshot: &Snapshot) -> impl Iterator<Item = (&Member, &ServiceStatus, &Model)> {
    let members: BTreeMap<PeerId, &Member> = snapshot
        .members
        .iter()
        .map(|member| (member.peer_id, member))
        .collect();
    model_services(snapshot)
        .filter_map(move |(status, openai)| {
            let member = *members.get(&status.owner)?;
            is_live(snapshot, member, status).then_some((member, status, openai))
        })
        .flat_map(|(member, status, openai)| {
            let models = openai.models.iter();
            models.map(move |model| (member, status, model))
        })
}

/// What `hivevpn models` lists: each model of each member.
pub(super) fn listed(snapshot: &Snapshot) -> Vec<ListedModel> {
    let mut models: Vec<_> = live(snapshot)
        .map(|(member, status, model)| listed_model(member, status, model))
        .collect();
    models.sort_by(|a, b| (&a.id, &a.node, &a.service).cmp(&(&b.id, &b.node, &b.service)));
    models
}

fn listed_model(member: &Member, status: &ServiceStatus, model: &Model) -> ListedModel {
    let load = status.load.unwrap_or_default();
    let currency = status.service.openai.as_ref();
    ListedModel {
        id: model.id.clone(),
        node: member.name.to_string(),
        load: load.level(),
        rtt_ms: member.rtt.map(|rtt| rtt.as_secs_f64() * 1000.0),
        loaded: model.loaded,
        service: status.name.to_string(),
        health: status.service.health.state.name().to_owned(),
        context: model.context,
        queued: load.queued,
        tokens_per_s: f64::from(load.tokens_per_10s) / 10.0,
        price_in: model.price_in,
        price_out: model.price_out,
        currency: currency.and_then(|openai| openai.currency.clone()),
    }
}

/// What `GET /v1/models` says of each model, by id: once, however many members have it.
pub(super) fn objects(snapshot: &Snapshot) -> Vec<Value> {
    let mut by_id: BTreeMap<&str, Vec<(&Member, &ServiceStatus, &Model)>> = BTreeMap::new();
    for entry @ (_, _, model) in live(snapshot) {
        by_id.entry(&model.id).or_default().push(entry);
    }
    by_id
        .into_iter()
        .map(|(id, entries)| object(id, &entries))
        .collect()
}

/// What `GET /v1/models/<id>` says of one model, by the name that it was asked for.
pub(super) fn object_of(snapshot: &Snapshot, wanted: &Wanted, named: &str) -> Value {
    let is_meant = |status: &ServiceStatus| {
        let mut offers = wanted.offers.iter();
        offers.any(|offer| offer.peer == status.owner && offer.service == status.name)
    };
    let entries: Vec<_> = live(snapshot)
        .filter(|(_, status, model)| model.id == wanted.id && is_meant(status))
        .collect();
    object(named, &entries)
}

fn object(id: &str, entries: &[(&Member, &ServiceStatus, &Model)]) -> Value {
    let nodes: BTreeSet<&str> = entries
        .iter()
        .map(|(member, _, _)| member.name.as_str())
        .collect();
    let created = entries.iter().map(|(_, status, _)| status.issued.0).min();
    let context = entries.iter().filter_map(|(_, _, model)| model.context);
    let is_loaded = |known: bool| {
        let mut models = entries.iter().map(|(_, _, model)| model.loaded);
        models.any(|loaded| loaded == Some(known))
    };
    let loaded = match (is_loaded(true), is_loaded(false)) {
        (true, _) => Some(true),
        (false, true) => Some(false),
        (false, false) => None,
    };
    json!({
        "id": id,
        "object": "model",
        "created": created.unwrap_or_default(),
        "owned_by": nodes.first(),
        "nodes": nodes,
        // What every server of the model can take.
        "context_length": context.min(),
        "loaded": loaded,
    })
}

/// Those of `ids` that somebody who wrote `id` may have meant, the closest first.
fn close_to(id: &str, ids: &BTreeSet<&str>) -> Vec<String> {
    let wanted = cut(id).to_lowercase();
    let mut close: Vec<_> = ids
        .iter()
        .filter_map(|candidate| {
            let name = cut(candidate).to_lowercase();
            let is_part = wanted.len() > 1 && (name.contains(&wanted) || wanted.contains(&name));
            let distance = distance(&wanted, &name);
            let is_close = is_part || distance <= name.chars().count() / 3;
            is_close.then(|| (distance, cut(candidate)))
        })
        .collect();
    close.sort();
    close.truncate(PROPOSALS);
    close.into_iter().map(|(_, id)| id).collect()
}

/// How many characters have to be put in, taken out or replaced (Levenshtein).
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (number, c) in from.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], number + 1);
        for (column, &other) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(c != other);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[to.len()]
}

/// What is shown of a text that somebody has sent.
fn cut(text: &str) -> String {
    let plain = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    text.chars().take(SHOWN).map(plain).collect()
}

#[cfg(test)]
mod tests;
