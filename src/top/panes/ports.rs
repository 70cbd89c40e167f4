//! Ports of this node: what it offers, and what leads to others.

use super::{health, nothing};
use crate::{
    commands::span,
    control::services::{Exposed, Forward},
    top::{
        known::Known,
        table::{Cell, Column, Row, Table, Tone},
    },
};

const COLUMNS: &[Column] = &[
    Column::words("PORT", 0, 20),
    Column::words("WHAT", 1, 9),
    Column::words("KIND", 6, 10),
    Column::words("LISTENS ON", 4, 21),
    Column::words("LEADS TO", 3, 21),
    Column::words("STATE", 2, 8),
    Column::numbers("OPEN", 5, 4),
    Column::numbers("LEFT", 7, 6),
    Column::words("PROBLEM", 8, 40),
];

pub(super) fn table(known: &Known) -> Table {
    let exposed = known.exposed.value.iter().map(offered);
    let forwards = known.forwards.value.iter().map(brought);
    let trouble = known.exposed.trouble.as_ref();
    Table {
        columns: COLUMNS,
        rows: exposed.chain(forwards).collect(),
        nothing: nothing(
            trouble.or(known.forwards.trouble.as_ref()),
            "this node offers nothing and brings nothing here",
        ),
    }
}

fn offered(exposed: &Exposed) -> Row {
    let whom = match exposed.to.is_empty() {
        true => "everyone".to_owned(),
        false => exposed.to.join(", "),
    };
    Row {
        id: format!("exposed {}", exposed.name),
        rank: 0,
        cells: vec![
            Cell::word(&exposed.name),
            Cell::word("exposed"),
            Cell::word(&exposed.kind),
            Cell::word(format!("{}:{}", exposed.address, exposed.port)),
            Cell::word(exposed.target.to_string()),
            health(&exposed.health),
            Cell::number(exposed.connections as f64, exposed.connections.to_string()),
            left(exposed.left_s),
            problem(exposed.problem.as_ref()),
        ],
        more: vec![("for", whom)],
    }
}

fn brought(forward: &Forward) -> Row {
    let state = match forward.problem {
        None => "up",
        Some(_) => "degraded",
    };
    Row {
        id: format!("forward {} {}", forward.protocol, forward.listen),
        rank: 1,
        cells: vec![
            Cell::word(&forward.to),
            Cell::word("forward"),
            Cell::word(&forward.protocol),
            Cell::word(forward.listen.to_string()),
            Cell::word(&forward.to),
            health(state),
            Cell::number(forward.connections as f64, forward.connections.to_string()),
            left(forward.left_s),
            problem(forward.problem.as_ref()),
        ],
        more: vec![],
    }
}

fn left(seconds: Option<u64>) -> Cell {
    Cell::maybe(seconds.map(|seconds| seconds as f64), |seconds| {
        span(seconds as u64)
    })
}

fn problem(problem: Option<&String>) -> Cell {
    problem.map_or_else(Cell::nothing, |problem| {
        Cell::word(problem).meant(Tone::Bad)
    })
}
