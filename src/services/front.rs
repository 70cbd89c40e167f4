//! What stands before an exposed service that speaks HTTP in plain text.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use hivevpn_core::{
    membership::Name,
    registry::{Kind, Load, Model},
};
use serde::Deserialize;
use tokio::{net::TcpStream, sync::watch};

use super::{Snapshot, probe, splice};

/// What a member may have of a service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {}

/// Carries the connections of one service.
#[derive(Debug, Clone)]
pub struct Front {
    target: SocketAddr,
}

impl Front {
    /// For a service that listens at `target`.
    pub fn new(
        _name: Name,
        target: SocketAddr,
        _kind: Kind,
        _snapshots: watch::Receiver<Snapshot>,
        _limits: Limits,
    ) -> Self {
        Self { target }
    }

    /// Serves one connection from `from` until it ends.
    pub async fn serve(&self, stream: TcpStream, _from: SocketAddr) {
        match probe::connect(self.target).await {
            Ok(target) => drop(splice::join(stream, target).await),
            Err(_) => splice::reset(stream),
        }
    }

    /// How busy it is now.
    pub fn load(&self) -> Load {
        Load::default()
    }
}

/// What a model server says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its models.
    pub models: Vec<Model>,
    /// Whether it answers those only who show a key.
    pub needs_key: bool,
    /// Requests that it works on at once.
    pub slots: Option<u32>,
}

/// Asks a model server what it has.
pub async fn read_models(target: SocketAddr, key: Option<&str>) -> Result<Found> {
    let ask = |key| probe::get(target, "/v1/models", key);
    let (status, mut body) = ask(None).await.context("GET /v1/models")?;
    let needs_key = status == 401 || status == 403;
    let mut last = status;
    if needs_key {
        if key.is_none() {
            return Ok(Found {
                models: Vec::new(),
                needs_key,
                slots: None,
            });
        }
        (last, body) = ask(key).await.context("GET /v1/models with the key")?;
    }
    if last != 200 {
        bail!("GET /v1/models answers {last}");
    }
    #[derive(Deserialize)]
    struct Listed {
        id: String,
    }
    #[derive(Deserialize)]
    struct List {
        data: Vec<Listed>,
    }
    let list: List =
        serde_json::from_slice(&body).context("GET /v1/models is no list of models")?;
    let model = |listed: Listed| Model {
        id: listed.id,
        context: None,
        max_output: None,
        price_in: None,
        price_out: None,
        quantization: None,
        loaded: None,
    };
    Ok(Found {
        models: list.data.into_iter().map(model).collect(),
        needs_key,
        slots: None,
    })
}
