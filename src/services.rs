//! What stands on the overlay: services offered and used, names, models.
//!
//! All of it runs on a thread of its own beside the data loop, and on ordinary sockets: the tunnel carries its packets like
//! everybody's. It never asks the loop what it needs to know for a connection; the loop tells it what changed as a
//! [`Snapshot`], which everybody reads without waiting. What this node offers travels the other way, as [`Told`].
//!
//! - [`snapshot`]: members and services, as of a moment
//! - [`exposures`], [`exposure`]: what this node offers, all of it and one thing
//! - [`sockets`], [`door`], [`hatch`]: where members' connections and datagrams come in; [`scope`]: whose
//! - [`probe`], [`standing`]: whether it answers; before HTTP stands a [`Front`](crate::http::Front)
//! - [`forwards`], [`forward`]: ports of this machine that lead to members' services; [`destination`]: to which
//! - [`splice`], [`flows`], [`room`]: carrying bytes and datagrams, and how many; [`span`]: for how long
//! - [`bookkeeper`]: what members used of this node's model servers
//! - [`listing`]: what all members offer

use std::sync::Arc;

use anyhow::Result;
use hivevpn_core::{
    membership::Name,
    policy::Exposed,
    registry::{Load, Service},
};
use serde::Serialize;
use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    control::{Reply, services::Ask},
    event_loop::Local,
    http, mailbox, models, names,
    store::{Shelf, Store},
};

pub mod bookkeeper;
pub mod destination;
pub mod door;
pub mod exposure;
pub mod exposures;
pub mod flows;
pub mod forward;
pub mod forwards;
pub mod hatch;
pub mod listing;
pub mod probe;
pub mod room;
pub mod scope;
pub mod snapshot;
pub mod sockets;
pub mod span;
pub mod splice;
pub mod standing;

use bookkeeper::Bookkeeper;
use exposures::Exposures;
use forwards::Forwards;
use room::Room;
pub use snapshot::Snapshot;

/// Questions that may wait.
const QUEUE: usize = 64;

/// What the services of this node tell its data loop.
#[derive(Debug)]
pub enum Told {
    /// Publish this, in place of what had that name, and renew it until it is withdrawn. The answer is for a person.
    Publish {
        /// What we call it.
        name: Name,
        /// What it is.
        service: Box<Service>,
        /// Whether the registry takes it.
        answer: oneshot::Sender<Result<(), String>>,
    },
    /// It is not offered any more.
    Withdraw {
        /// What we called it.
        name: Name,
    },
    /// What members may reach here in "published" mode, beside what the configuration publishes.
    Exposed(Exposed),
    /// How busy a service of ours is.
    Load {
        /// What we call it.
        name: Name,
        /// How busy.
        load: Load,
    },
}

/// A question of a command, on its way from the data loop.
#[derive(Debug)]
pub struct Asked {
    /// The question.
    pub ask: Ask,
    /// Where the answer goes.
    pub answer: oneshot::Sender<Reply>,
}

/// The data loop's end.
pub struct Desk {
    /// Commands' questions go there.
    pub asked: mpsc::Sender<Asked>,
    /// What changed goes there.
    pub snapshots: watch::Sender<Snapshot>,
}

/// The services' end.
pub struct Parts {
    /// Questions of commands.
    pub asked: mpsc::Receiver<Asked>,
    /// Members and services, always the latest.
    pub snapshots: watch::Receiver<Snapshot>,
    /// To the data loop, as [`Local::Services`].
    pub to_loop: mailbox::Sender<Local>,
    /// What this node offers, by name: it survives a restart.
    pub exposed: Shelf,
    /// What members used of it: it survives a restart.
    pub usage: Shelf,
    /// What was brought here, by where it listens: it survives a restart.
    pub forwards: Shelf,
    /// What the user has configured.
    pub config: Config,
    /// What the names of this network start with.
    pub names: names::Start,
}

/// What the user has configured.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config {
    /// What the endpoint for all models goes by.
    pub models: models::Config,
    /// How much of a model server each member may have.
    pub limits: http::Limits,
}

/// Both ends of what connects loop and services.
pub fn connect(
    to_loop: mailbox::Sender<Local>,
    store: &Store,
    config: Config,
) -> Result<(Desk, Parts)> {
    let (questions, asked) = mpsc::channel(QUEUE);
    let (telling, snapshots) = watch::channel(Snapshot::default());
    let desk = Desk {
        asked: questions,
        snapshots: telling,
    };
    let parts = Parts {
        asked,
        snapshots,
        to_loop,
        exposed: store.shelf("exposed")?,
        usage: store.shelf("usage")?,
        forwards: store.shelf("forwards")?,
        config,
        names: names::Start::default(),
    };
    Ok((desk, parts))
}

/// Runs the services of this node until the data loop has gone, and undoes them then. What is left to do is to close the
/// books, once nothing that counts is under way any more.
pub async fn run(parts: Parts) -> Arc<Bookkeeper> {
    let Parts {
        mut asked,
        snapshots,
        to_loop,
        exposed,
        usage,
        forwards,
        config,
        names,
    } = parts;
    let names = names::start(snapshots.clone(), names);
    let room = Room::of_this_process();
    let books = Bookkeeper::open(usage);
    tokio::spawn(books.clone().keep());
    let exposures = Exposures::open(
        exposed,
        snapshots.clone(),
        to_loop,
        room.clone(),
        config.limits,
        books.clone(),
    );
    let forwards = Forwards::open(forwards, snapshots.clone(), room);
    let models = models::start(snapshots.clone(), config.models, names.is_asked());

    while let Some(Asked { ask, answer }) = asked.recv().await {
        let (exposures, forwards, books) = (exposures.clone(), forwards.clone(), books.clone());
        let (snapshots, models, named) = (snapshots.clone(), models.clone(), names.view());
        // Some take seconds, because they look at what they are to expose.
        tokio::spawn(async move {
            let reply = match ask {
                Ask::Expose(expose) => reply(exposures.expose(expose).await),
                Ask::Unexpose { name } => reply(exposures.unexpose(&name).await),
                Ask::Exposed => Reply::of(&exposures.list()),
                Ask::Forward(forward) => reply(forwards.forward(forward).await),
                Ask::Unforward { listen } => reply(forwards.unforward(&listen).await),
                Ask::Forwards => Reply::of(&forwards.list()),
                Ask::Services => Reply::of(&listing::services(&snapshots.borrow())),
                Ask::Models => Reply::of(&models.list()),
                Ask::Names => Reply::of(&named.list()),
                Ask::Usage => Reply::of(&books.usage()),
                Ask::ResetUsage { service } => reply(books.reset(service.as_deref()).await),
            };
            // Whoever asked may have gone.
            let _ = answer.send(reply);
        });
    }

    names.end().await;
    exposures.end().await;
    forwards.end().await;
    models.end().await;
    books
}

fn reply<T: Serialize>(outcome: Result<T>) -> Reply {
    match outcome {
        Ok(value) => Reply::of(&value),
        Err(error) => Reply::Error(format!("{error:#}")),
    }
}
