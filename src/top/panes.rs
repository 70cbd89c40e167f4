//! What there is to look at: peers, services, models, and the ports of this node.

use super::{
    known::Known,
    table::{Cell, Table, Tone},
};

mod models;
mod peers;
mod ports;
mod services;

/// A table with a tab of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pane {
    /// The other members.
    Peers,
    /// What all members offer.
    Services,
    /// Their models.
    Models,
    /// What this node offers, and the ports that lead to others.
    Ports,
}

impl Pane {
    /// In the order of their tabs.
    pub const ALL: [Self; 4] = [Self::Peers, Self::Services, Self::Models, Self::Ports];

    /// What its tab says.
    pub fn title(self) -> &'static str {
        match self {
            Self::Peers => "Peers",
            Self::Services => "Services",
            Self::Models => "Models",
            Self::Ports => "Ports",
        }
    }

    /// Its place among the tabs.
    pub fn number(self) -> usize {
        self as usize
    }

    /// Everything there is in it.
    pub fn table(self, known: &Known) -> Table {
        match self {
            Self::Peers => peers::table(known),
            Self::Services => services::table(known),
            Self::Models => models::table(known),
            Self::Ports => ports::table(known),
        }
    }

    /// How much there is in it, for its tab.
    pub fn count(self, known: &Known) -> String {
        match self {
            Self::Peers => {
                let peers = known.status.value.iter().flat_map(|status| &status.peers);
                let online = peers.clone().filter(|peer| peer.online).count();
                format!("{online}/{}", peers.count())
            }
            Self::Services => known.services.value.len().to_string(),
            Self::Models => {
                let models = known.models.value.as_ref();
                models.map_or(0, |models| models.models.len()).to_string()
            }
            Self::Ports => (known.exposed.value.len() + known.forwards.value.len()).to_string(),
        }
    }
}

/// What an empty pane says, with the reason if there is one.
fn nothing(because: Option<&String>, otherwise: &str) -> String {
    match because {
        Some(because) => format!("{otherwise} ({because})"),
        None => otherwise.to_owned(),
    }
}

/// `up` is good, `degraded` is not, and without it nothing works.
fn health(health: &str) -> Cell {
    Cell::word(health).meant(match health {
        "up" => Tone::Good,
        "degraded" => Tone::Fair,
        _ => Tone::Bad,
    })
}
