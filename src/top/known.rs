//! What is known of the node, from all that was heard.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::rates::{Growth, History, Meter};
use crate::control::{
    Status, Why,
    services::{Exposed, Forward, Listed, Models},
};

/// An answer, and when it came.
#[derive(Debug, Clone)]
pub struct Heard {
    /// When it was here.
    pub at: Instant,
    /// What it says.
    pub answer: Answer,
}

/// What the daemon says, or why it does not, for people.
#[derive(Debug, Clone)]
pub enum Answer {
    /// About node and peers.
    Status(Result<Box<Status>, String>),
    /// What all members offer.
    Services(Result<Vec<Listed>, String>),
    /// Their models.
    Models(Result<Models, String>),
    /// What this node offers.
    Exposed(Result<Vec<Exposed>, String>),
    /// Ports that lead to members' services.
    Forwards(Result<Vec<Forward>, String>),
    /// The ways to a peer.
    Why {
        /// The peer's id.
        peer: String,
        /// The ways.
        why: Result<Why, String>,
    },
    /// How long the node has been up.
    UpFor(Duration),
}

/// The latest of something. It stays when it cannot be asked for any more.
#[derive(Debug, Clone, Default)]
pub struct Latest<T> {
    /// What it was when it was told last.
    pub value: T,
    /// Why it is not told any more, or never was.
    pub trouble: Option<String>,
}

impl<T> Latest<T> {
    fn hear(&mut self, told: Result<T, String>) {
        match told {
            Ok(value) => {
                self.value = value;
                self.trouble = None;
            }
            Err(trouble) => self.trouble = Some(trouble),
        }
    }
}

/// What goes to and comes from a peer.
#[derive(Debug, Clone, Default)]
pub struct Traffic {
    /// Overlay bytes to it.
    pub sent: Meter,
    /// Overlay bytes from it.
    pub received: Meter,
}

/// All of it.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// How often the node is asked.
    pub interval: Duration,
    /// The latest status. What is wrong with it is wrong with the daemon.
    pub status: Latest<Option<Status>>,
    /// When that was told.
    pub told_at: Option<Instant>,
    /// When the node came up.
    pub began: Option<Instant>,
    /// By peer id.
    pub traffic: BTreeMap<String, Traffic>,
    /// Bytes to all peers.
    pub sent: History,
    /// Bytes from all peers.
    pub received: History,
    /// What went no further.
    pub drops: Growth,
    /// What broke a rule.
    pub rejections: Growth,
    /// What all members offer.
    pub services: Latest<Vec<Listed>>,
    /// Their models.
    pub models: Latest<Option<Models>>,
    /// What this node offers.
    pub exposed: Latest<Vec<Exposed>>,
    /// Ports that lead to members' services.
    pub forwards: Latest<Vec<Forward>>,
    /// The ways to the peer that was asked about last.
    pub why: Option<(String, Latest<Option<Why>>)>,
}

impl Known {
    /// Takes in what was heard.
    pub fn hear(&mut self, heard: Heard) {
        let at = heard.at;
        match heard.answer {
            Answer::Status(Ok(status)) => self.measure(*status, at),
            Answer::Status(Err(trouble)) => {
                self.status.trouble = Some(trouble);
                self.began = None;
                for traffic in self.traffic.values_mut() {
                    traffic.sent.forget();
                    traffic.received.forget();
                }
            }
            Answer::Services(services) => self.services.hear(services),
            Answer::Models(models) => self.models.hear(models.map(Some)),
            Answer::Exposed(exposed) => self.exposed.hear(exposed),
            Answer::Forwards(forwards) => self.forwards.hear(forwards),
            Answer::Why { peer, why } => {
                let latest = match &mut self.why {
                    Some((about, latest)) if *about == peer => latest,
                    other => &mut other.insert((peer, Latest::default())).1,
                };
                latest.hear(why.map(Some));
            }
            Answer::UpFor(time) => self.began = at.checked_sub(time),
        }
    }

    fn measure(&mut self, status: Status, at: Instant) {
        let (mut sent, mut received) = (0, 0);
        let mut before = std::mem::take(&mut self.traffic);
        for peer in &status.peers {
            let mut traffic = before.remove(&peer.peer_id).unwrap_or_default();
            sent += traffic.sent.read(peer.tx_bytes, at);
            received += traffic.received.read(peer.rx_bytes, at);
            self.traffic.insert(peer.peer_id.clone(), traffic);
        }
        if let Some(told_at) = self.told_at {
            self.sent.add(told_at, at, sent);
            self.received.add(told_at, at, received);
        }
        self.drops.read(&status.drops, at);
        self.rejections.read(&status.rejections, at);
        self.told_at = Some(at);
        self.status.hear(Ok(Some(status)));
    }

    /// Bytes a second to all peers, once there is a rate.
    pub fn sending(&self) -> Option<f64> {
        total(self.traffic.values().map(|traffic| traffic.sent.rate()))
    }

    /// Bytes a second from all peers, once there is a rate.
    pub fn receiving(&self) -> Option<f64> {
        total(self.traffic.values().map(|traffic| traffic.received.rate()))
    }

    /// The ways to this peer, if it was asked about last.
    pub fn why(&self, peer_id: &str) -> Option<&Latest<Option<Why>>> {
        let (about, why) = self.why.as_ref()?;
        (about == peer_id).then_some(why)
    }
}

fn total(rates: impl Iterator<Item = Option<f64>>) -> Option<f64> {
    rates.flatten().reduce(|sum, rate| sum + rate)
}
