//! What all members offer.

use std::net::SocketAddr;

use super::{health, nothing};
use crate::{
    commands::span,
    control::services::Listed,
    top::{
        known::Known,
        table::{Cell, Column, Row, Table, Tone},
    },
};

const COLUMNS: &[Column] = &[
    Column::words("SERVICE", 0, 20),
    Column::words("KIND", 3, 10),
    Column::words("NODE", 1, 16),
    Column::words("ADDRESS", 4, 21),
    Column::words("HEALTH", 2, 8),
    Column::words("MODELS", 6, 24),
    Column::numbers("AGE", 5, 6),
];

pub(super) fn table(known: &Known) -> Table {
    let services = &known.services;
    let mut rows: Vec<_> = services.value.iter().map(row).collect();
    rows.sort_by(|one, other| one.id.cmp(&other.id));
    Table {
        columns: COLUMNS,
        rows,
        nothing: nothing(services.trouble.as_ref(), "no member offers a service"),
    }
}

fn row(service: &Listed) -> Row {
    let text = |text: &str| match text {
        "" => Cell::nothing(),
        text => Cell::word(text),
    };
    Row {
        id: format!("{}.{}", service.name, service.node),
        rank: u8::from(service.health == "offline"),
        cells: vec![
            Cell::word(&service.name),
            Cell::word(&service.kind),
            Cell::word(&service.node),
            Cell::word(at(service)),
            health(&service.health),
            text(&service.models.join(",")).meant(Tone::Faint),
            Cell::number(service.age_s as f64, span(service.age_s)),
        ],
        more: more(service),
    }
}

fn more(service: &Listed) -> Vec<(&'static str, String)> {
    let mut more = vec![("protocol", service.protocol.clone())];
    let whom = match service.to.is_empty() {
        true => "everyone".to_owned(),
        false => service.to.join(", "),
    };
    more.push(("for", whom));
    more.extend(
        service
            .description
            .clone()
            .map(|text| ("description", text)),
    );
    if !service.tags.is_empty() {
        more.push(("tags", service.tags.join(", ")));
    }
    more
}

/// Address and port, as one would type them.
fn at(service: &Listed) -> String {
    match service.address.parse() {
        Ok(address) => SocketAddr::new(address, service.port).to_string(),
        Err(_) => format!("{}:{}", service.address, service.port),
    }
}
