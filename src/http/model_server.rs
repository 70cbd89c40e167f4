//! What a model server says of itself.
//!
//! `/v1/models` is what they have in common, and it names the models. What else there is to know, each tells elsewhere; who
//! it is shows in what it calls the owner of its models.

use std::{collections::BTreeMap, io, net::SocketAddr, time::Duration};

use anyhow::{Result, anyhow, bail};
use hivevpn_core::registry::Model;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{
    Request, StatusCode,
    body::Bytes,
    client::conn::http1,
    header::{self, HeaderValue},
};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::{net::TcpStream, time::timeout};

use super::{HEAD_ROOM, scan::model_id};

/// For all that is asked.
const LIMIT: Duration = Duration::from_secs(3);
/// For what is good to know, but not needed.
const EXTRA: Duration = Duration::from_secs(1);
/// Bytes of an answer.
const ROOM: usize = 1 << 20;
/// Models that a record has room for.
const MODELS: usize = 64;

/// What a model server has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Its models, no more than 64.
    pub models: Vec<Model>,
    /// It answers nobody without a key, and we have none, or a wrong one.
    pub needs_key: bool,
    /// Requests that it works on at once, if it says so.
    pub slots: Option<u32>,
}

/// Asks a model server what it has. Errors are for people.
pub async fn read_models(target: SocketAddr, key: Option<&str>) -> Result<Found> {
    let server = Server { target, key };
    let (status, body) = match timeout(LIMIT, server.get("/v1/models")).await {
        Ok(answered) => answered?,
        Err(_) => bail!(
            "says nothing for {} s when asked for its models (GET /v1/models)",
            LIMIT.as_secs()
        ),
    };
    let odd = |what: &str| {
        anyhow!("answers, but not like an OpenAI-compatible server: GET /v1/models gave {what}")
    };
    match status {
        StatusCode::OK => {}
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            return Ok(Found {
                needs_key: true,
                ..Found::default()
            });
        }
        StatusCode::SERVICE_UNAVAILABLE => bail!("is not ready yet: GET /v1/models gave 503"),
        status => return Err(odd(&status.as_u16().to_string())),
    }
    let list: List =
        serde_json::from_slice(&body).map_err(|_| odd("something else than a list of models"))?;
    let mut found = Found {
        models: list.models(),
        ..Found::default()
    };
    // What is good to know may fail.
    let _ = timeout(EXTRA, server.ask_more(&list, &mut found)).await;
    Ok(found)
}

/// The answer to `/v1/models`.
#[derive(Deserialize)]
struct List {
    data: Vec<Card>,
}

/// A model there. Servers add what they like; of what we look at, anything may be of another type.
#[derive(Deserialize)]
struct Card {
    id: String,
    #[serde(default)]
    owned_by: serde_json::Value,
    /// vLLM, SGLang.
    #[serde(default)]
    max_model_len: serde_json::Value,
    /// Some gateways.
    #[serde(default)]
    context_length: serde_json::Value,
    /// llama.cpp.
    #[serde(default)]
    meta: serde_json::Value,
    /// llama.cpp as a router: whether the model is loaded.
    #[serde(default)]
    status: serde_json::Value,
}

impl List {
    fn models(&self) -> Vec<Model> {
        let mut models: Vec<Model> = Vec::new();
        for card in &self.data {
            let Some(id) = model_id(&card.id) else {
                continue;
            };
            if models.len() < MODELS && models.iter().all(|model| model.id != id) {
                models.push(card.model(id));
            }
        }
        models
    }

    fn owner(&self) -> &str {
        let first = self.data.first();
        first
            .and_then(|card| card.owned_by.as_str())
            .unwrap_or_default()
    }
}

impl Card {
    fn model(&self, id: String) -> Model {
        let contexts = [
            &self.max_model_len,
            &self.context_length,
            &self.meta["n_ctx_train"],
        ];
        Model {
            id,
            context: contexts.into_iter().find_map(tokens),
            max_output: None,
            price_in: None,
            price_out: None,
            quantization: None,
            loaded: match self.status["value"].as_str() {
                Some("loaded") => Some(true),
                Some("unloaded" | "loading") => Some(false),
                Some(_) => None,
                // These serve what they hold in memory, and nothing else.
                None => matches!(self.owned_by.as_str(), Some("vllm" | "sglang" | "llamacpp"))
                    .then_some(true),
            },
        }
    }
}

/// A model server that is asked.
struct Server<'a> {
    target: SocketAddr,
    key: Option<&'a str>,
}

impl Server<'_> {
    async fn ask_more(&self, list: &List, found: &mut Found) {
        match list.owner() {
            "vllm" | "sglang" => {}
            "llamacpp" => self.ask_llama_cpp(found).await,
            "organization_owner" => self.ask_lm_studio(found).await,
            _ => self.ask_ollama(found).await,
        }
    }

    /// How many slots there are, and how much of its context a model was started with.
    async fn ask_llama_cpp(&self, found: &mut Found) {
        let Some(props) = self.json("/props").await else {
            return;
        };
        found.slots = tokens(&props["total_slots"]);
        let context = tokens(&props["default_generation_settings"]["n_ctx"]);
        if let ([model], Some(context)) = (&mut found.models[..], context) {
            model.context = Some(context);
        }
        if found.slots.is_none() {
            let slots = self.json("/slots").await;
            let count = slots
                .as_ref()
                .and_then(|slots| slots.as_array())
                .map(Vec::len);
            found.slots = count.and_then(|count| u32::try_from(count).ok());
        }
    }

    /// What is in memory, and how exactly each is kept.
    async fn ask_ollama(&self, found: &mut Found) {
        let Some(running) = self.json("/api/ps").await else {
            return;
        };
        let running = by_name(&running["models"], "model");
        let tags = self.json("/api/tags").await.unwrap_or_default();
        let tags = by_name(&tags["models"], "model");
        for model in &mut found.models {
            let in_memory = running.get(model.id.as_str());
            model.loaded = Some(in_memory.is_some());
            let context = in_memory.and_then(|model| tokens(&model["context_length"]));
            model.context = context.or(model.context);
            let kept = tags.get(model.id.as_str());
            model.quantization = kept.and_then(|tag| word(&tag["details"]["quantization_level"]));
        }
    }

    async fn ask_lm_studio(&self, found: &mut Found) {
        let Some(list) = self.json("/api/v0/models").await else {
            return;
        };
        let known = by_name(&list["data"], "id");
        for model in &mut found.models {
            let Some(known) = known.get(model.id.as_str()) else {
                continue;
            };
            model.loaded = known["state"].as_str().map(|state| state == "loaded");
            model.context =
                tokens(&known["loaded_context_length"]).or(tokens(&known["max_context_length"]));
            model.quantization = word(&known["quantization"]);
        }
    }

    async fn json(&self, path: &str) -> Option<serde_json::Value> {
        let (status, body) = self.get(path).await.ok()?;
        let is_there = status == StatusCode::OK;
        serde_json::from_slice(&body).ok().filter(|_| is_there)
    }

    async fn get(&self, path: &str) -> Result<(StatusCode, Bytes)> {
        let stream = TcpStream::connect(self.target).await.map_err(|error| {
            let target = self.target;
            match error.kind() {
                io::ErrorKind::ConnectionRefused => anyhow!("nothing listens on {target}"),
                _ => anyhow!("{target} cannot be reached: {error}"),
            }
        })?;
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(HEAD_ROOM)
            .handshake(TokioIo::new(stream))
            .await?;
        let mut request = Request::get(path)
            .header(header::HOST, self.target.to_string())
            .header(header::ACCEPT, "application/json")
            .body(Empty::<Bytes>::new())?;
        if let Some(key) = self.key {
            let mut bearer = HeaderValue::from_str(&format!("Bearer {key}"))
                .map_err(|_| anyhow!("the API key has signs in it that no header may have"))?;
            bearer.set_sensitive(true);
            request.headers_mut().insert(header::AUTHORIZATION, bearer);
        }
        let asking = async {
            let response = sender.send_request(request).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ROOM).collect().await;
            anyhow::Ok((status, body.map(|body| body.to_bytes())))
        };
        // The connection is driven here, and gone with the answer.
        let mut asking = std::pin::pin!(asking);
        let mut connection = std::pin::pin!(connection);
        let answered = tokio::select! {
            answered = &mut asking => answered,
            _ = &mut connection => asking.await,
        };
        let (status, body) = answered
            .map_err(|_| anyhow!("answers, but not in HTTP: is it another kind of service?"))?;
        let body = body.map_err(|_| {
            anyhow!(
                "answers, but GET {path} broke off, or gave more than {} KiB",
                ROOM / 1024
            )
        })?;
        Ok((status, body))
    }
}

/// A number of something there is at least one of.
fn tokens(value: &serde_json::Value) -> Option<u32> {
    let number = value.as_u64().filter(|number| *number > 0)?;
    u32::try_from(number).ok()
}

/// A short word.
fn word(value: &serde_json::Value) -> Option<String> {
    const LONGEST: usize = 32;
    let text = value.as_str().and_then(model_id)?;
    (text.len() <= LONGEST).then_some(text)
}

fn by_name<'a>(
    list: &'a serde_json::Value,
    name: &str,
) -> BTreeMap<&'a str, &'a serde_json::Value> {
    let items = list.as_array().map(Vec::as_slice).unwrap_or_default();
    let named = items
        .iter()
        .filter_map(|item| Some((item[name].as_str()?, item)));
    named.collect()
}
