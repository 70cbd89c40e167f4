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
use tokio::time::timeout;

use super::{HEAD_ROOM, scan::model_id};
use crate::services::probe;

/// For all that is asked.
const LIMIT: Duration = Duration::from_secs(3);
/// For what is good to know, but not needed.
const EXTRA: Duration = Duration::from_secs(1);
/// Bytes of an answer.
const ROOM: usize = 1 << 20;
/// Models that a record has room for.
const MODELS: usize = 64;

const MODELS_PATH: &str = "/v1/models";

/// What a model server has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Its models, no more than 64.
    pub models: Vec<Model>,
    /// It answers nobody without a key. If there are no models then, it has not seen the right one.
    pub needs_key: bool,
    /// Requests that it works on at once, if it says so.
    pub slots: Option<u32>,
}

/// Asks a model server what it has: without the key first, to see whether it needs one. Errors are for people.
pub async fn read_models(target: SocketAddr, key: Option<&str>) -> Result<Found> {
    let mut server = Server { target, key: None };
    let asking = async {
        let (status, body) = server.get(MODELS_PATH).await?;
        let needs_key = is_locked(status);
        if !needs_key || key.is_none() {
            return anyhow::Ok((status, body, needs_key));
        }
        server.key = key;
        let (status, body) = server.get(MODELS_PATH).await?;
        Ok((status, body, needs_key))
    };
    let (status, body, needs_key) = timeout(LIMIT, asking).await.unwrap_or_else(|_| {
        Err(anyhow!(
            "says nothing for {} s when asked for its models (GET {MODELS_PATH})",
            LIMIT.as_secs()
        ))
    })?;
    let mut found = Found {
        needs_key,
        ..Found::default()
    };
    let odd = |what: &str| {
        anyhow!("answers, but not like an OpenAI-compatible server: GET {MODELS_PATH} gave {what}")
    };
    match status {
        StatusCode::OK => {}
        status if is_locked(status) => return Ok(found),
        StatusCode::SERVICE_UNAVAILABLE => bail!("is not ready yet: GET {MODELS_PATH} gave 503"),
        status => return Err(odd(&status.as_u16().to_string())),
    }
    let list: List =
        serde_json::from_slice(&body).map_err(|_| odd("something else than a list of models"))?;
    found.models = list.models();
    // What is good to know may fail.
    let _ = timeout(EXTRA, server.ask_more(&list, &mut found)).await;
    Ok(found)
}

fn is_locked(status: StatusCode) -> bool {
    status == StatusCode::UNAUTHORIZED || status == StatusCode::FORBIDDEN
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
        let stream = probe::connect(self.target).await.map_err(|error| {
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

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tokio::{
        io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
        net::TcpListener,
    };

    use super::*;

    /// What a server answers to a path, and what it was asked.
    struct Stub {
        target: SocketAddr,
        asked: Arc<Mutex<Vec<String>>>,
    }

    /// A server with these answers. `key` opens it, if there is one.
    async fn stub(
        key: Option<&'static str>,
        answers: &'static [(&'static str, &'static str)],
    ) -> Stub {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let mut stream = BufReader::new(stream);
                let mut head = String::new();
                while !head.ends_with("\r\n\r\n") && stream.read_line(&mut head).await.is_ok() {}
                let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
                let shows = key
                    .is_none_or(|key| head.contains(&format!("authorization: Bearer {key}\r\n")));
                let found = answers.iter().find(|(known, _)| *known == path);
                let (status, body) = match found {
                    _ if !shows => ("401 Unauthorized", ""),
                    Some((_, body)) => ("200 OK", *body),
                    None => ("404 Not Found", ""),
                };
                log.lock().unwrap().push(path);
                let answer = format!(
                    "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                );
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        Stub { target, asked }
    }

    fn model(id: &str) -> Model {
        Model {
            id: id.to_owned(),
            context: None,
            max_output: None,
            price_in: None,
            price_out: None,
            quantization: None,
            loaded: None,
        }
    }

    #[tokio::test]
    async fn each_server_tells_what_it_knows_in_its_own_way() {
        let vllm = stub(
            None,
            &[(
                "/v1/models",
                r#"{"data":[{"id":"org/m","owned_by":"vllm","max_model_len":8192}]}"#,
            )],
        )
        .await;
        let found = read_models(vllm.target, None).await.unwrap();
        let expected = Model {
            context: Some(8192),
            loaded: Some(true),
            ..model("org/m")
        };
        assert_eq!(found.models, [expected]);
        assert_eq!(
            *vllm.asked.lock().unwrap(),
            ["/v1/models"],
            "nobody is asked in vain"
        );

        let llama_cpp = stub(
            None,
            &[
                (
                    "/v1/models",
                    r#"{"data":[{"id":"m","owned_by":"llamacpp","meta":{"n_ctx_train":131072}}]}"#,
                ),
                (
                    "/props",
                    r#"{"total_slots":4,"default_generation_settings":{"n_ctx":4096}}"#,
                ),
            ],
        )
        .await;
        let found = read_models(llama_cpp.target, None).await.unwrap();
        let expected = Model {
            context: Some(4096),
            loaded: Some(true),
            ..model("m")
        };
        assert_eq!((found.models, found.slots), (vec![expected], Some(4)));

        let ollama = stub(None, &[
            ("/v1/models", r#"{"data":[{"id":"a:1b","owned_by":"library"},{"id":"b:7b","owned_by":"library"}]}"#),
            ("/api/ps", r#"{"models":[{"model":"a:1b","context_length":2048}]}"#),
            ("/api/tags", r#"{"models":[{"model":"b:7b","details":{"quantization_level":"Q4_K_M"}}]}"#),
        ])
        .await;
        let found = read_models(ollama.target, None).await.unwrap();
        let warm = Model {
            context: Some(2048),
            loaded: Some(true),
            ..model("a:1b")
        };
        let cold = Model {
            quantization: Some("Q4_K_M".to_owned()),
            loaded: Some(false),
            ..model("b:7b")
        };
        assert_eq!(found.models, [warm, cold]);

        let lm_studio = stub(None, &[
            ("/v1/models", r#"{"data":[{"id":"m","owned_by":"organization_owner"}]}"#),
            ("/api/v0/models", r#"{"data":[{"id":"m","state":"not-loaded","max_context_length":512,"quantization":"4bit"}]}"#),
        ])
        .await;
        let found = read_models(lm_studio.target, None).await.unwrap();
        let expected = Model {
            context: Some(512),
            loaded: Some(false),
            quantization: Some("4bit".to_owned()),
            ..model("m")
        };
        assert_eq!(found.models, [expected]);
    }

    #[tokio::test]
    async fn a_key_is_needed_where_nobody_is_answered_without() {
        let closed = stub(
            Some("k"),
            &[("/v1/models", r#"{"data":[{"id":"m","owned_by":"vllm"}]}"#)],
        )
        .await;
        for (key, models) in [(None, 0), (Some("wrong"), 0), (Some("k"), 1)] {
            let found = read_models(closed.target, key).await.unwrap();
            assert!(found.needs_key);
            assert_eq!(found.models.len(), models, "{key:?}");
        }
        let open = stub(None, &[("/v1/models", r#"{"data":[]}"#)]).await;
        assert!(!read_models(open.target, Some("k")).await.unwrap().needs_key);
    }

    #[tokio::test]
    async fn names_of_models_are_bounded_in_number_length_and_signs() {
        let cards: Vec<_> = (0..100)
            .map(|number| format!("{{\"id\":\"m{number}\"}}"))
            .collect();
        let long = "a".repeat(300);
        let body = format!(
            "{{\"data\":[{{\"id\":\"\\u001b[2J\"}},{{\"id\":\"{long}\"}},{{\"id\":\"\"}},{{\"id\":\"m0\"}},{}]}}",
            cards.join(",")
        );
        let body: &'static str = body.leak();
        let answers: &'static [(&str, &str)] = vec![("/v1/models", body)].leak();
        let found = read_models(stub(None, answers).await.target, None)
            .await
            .unwrap();
        assert_eq!(found.models.len(), 64);
        assert_eq!(found.models[0].id, "m0");
        assert_eq!(found.models[1].id, "m1", "and none twice");
    }

    #[tokio::test]
    async fn what_is_no_model_server_is_told_in_words() {
        let other = stub(None, &[]).await;
        let said = |error: anyhow::Error| error.to_string();
        let error = said(read_models(other.target, None).await.unwrap_err());
        assert_eq!(
            error,
            "answers, but not like an OpenAI-compatible server: GET /v1/models gave 404"
        );
        let page = stub(None, &[("/v1/models", "<html>")]).await;
        let error = said(read_models(page.target, None).await.unwrap_err());
        assert!(
            error.ends_with("gave something else than a list of models"),
            "{error}"
        );
        let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = nobody.local_addr().unwrap();
        drop(nobody);
        let error = said(read_models(target, None).await.unwrap_err());
        assert_eq!(error, format!("nothing listens on {target}"));
    }

    #[tokio::test]
    async fn an_endless_answer_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            // An answer to nothing is none.
            stream.read_exact(&mut [0; 4]).await.unwrap();
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n[").await;
            while stream.write_all(&[b' '; 4096]).await.is_ok() {}
        });
        let error = read_models(target, None).await.unwrap_err().to_string();
        assert!(error.contains("more than 1024 KiB"), "{error}");
    }
}
