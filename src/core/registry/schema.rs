//! What belongs under which key: below `svc/` services, in one spelling only; elsewhere anything.

use std::collections::BTreeSet;

use super::{
    Entry,
    service::{Kind, Model, OpenAi, Service},
};
use crate::membership::{Rejection, wire};

/// Models of one server.
pub const MAX_MODELS: usize = 64;
/// Characters of a model's id.
const MAX_MODEL_ID: usize = 200;
/// Selectors of a service.
const MAX_SELECTORS: usize = 64;
/// Tags of a service.
const MAX_TAGS: usize = 32;
/// Characters of a tag, a quantization, a currency.
const MAX_WORD: usize = 64;
/// Characters of a description, a path, a payee.
const MAX_LINE: usize = 256;
/// The highest price: beyond it sums of prices could not be computed any more.
const MAX_PRICE: u64 = 1_000_000_000_000_000;

/// Whether the value is what belongs under the key. The service, if it is one.
pub(super) fn check(entry: &Entry) -> Result<Option<Service>, Rejection> {
    if !entry.key.is_for_services() {
        return Ok(None);
    }
    if entry.key.service().is_none() {
        return Err(wrong("below svc/ there are names of services alone"));
    }
    let Some(value) = &entry.value else {
        return Ok(None);
    };
    let service: Service = wire::decode(value)?;
    if wire::encode(&service) != *value {
        return Err(wrong("it has fields that a service does not have"));
    }
    check_service(&service)?;
    Ok(Some(service))
}

fn check_service(service: &Service) -> Result<(), Rejection> {
    if service.port == 0 {
        return Err(wrong("a service has a port"));
    }
    if service.transport != service.kind.transport() {
        return Err(wrong(
            "this kind of service is carried by another transport",
        ));
    }
    if let Kind::Vendor(name) = &service.kind
        && !matches!(name.parse(), Ok(Kind::Vendor(_)))
    {
        return Err(wrong("a kind of one's own is x- and a name"));
    }
    if let Some(path) = &service.path {
        check_path(path, &service.kind)?;
    }
    if let Some(description) = &service.description {
        check_text(description, MAX_LINE)?;
    }
    if service.to.len() > MAX_SELECTORS || service.tags.len() > MAX_TAGS {
        return Err(wrong("more tags or selectors than a service may have"));
    }
    service
        .tags
        .iter()
        .try_for_each(|tag| check_text(tag, MAX_WORD))?;
    match (&service.openai, &service.kind) {
        (None, _) => Ok(()),
        (Some(openai), Kind::OpenAi) => check_openai(openai),
        (Some(_), _) => Err(wrong("only a model server has models")),
    }
}

fn check_path(path: &str, kind: &Kind) -> Result<(), Rejection> {
    if !kind.is_plain_http() && *kind != Kind::Https {
        return Err(wrong("only what speaks HTTP has a path"));
    }
    let is_plain = path.len() <= MAX_LINE && path.bytes().all(|b| b.is_ascii_graphic());
    match is_plain && path.starts_with('/') {
        true => Ok(()),
        false => Err(wrong("a path begins with / and has no spaces")),
    }
}

fn check_openai(openai: &OpenAi) -> Result<(), Rejection> {
    if openai.models.len() > MAX_MODELS {
        return Err(wrong("a server may tell of 64 models"));
    }
    let ids: BTreeSet<&str> = openai
        .models
        .iter()
        .map(|model| model.id.as_str())
        .collect();
    if ids.len() != openai.models.len() {
        return Err(wrong("a model is there twice"));
    }
    openai.models.iter().try_for_each(check_model)?;
    if let Some(currency) = &openai.currency {
        check_text(currency, MAX_WORD)?;
    }
    if let Some(payee) = &openai.payee {
        check_text(payee, MAX_LINE)?;
    }
    Ok(())
}

fn check_model(model: &Model) -> Result<(), Rejection> {
    check_text(&model.id, MAX_MODEL_ID)?;
    if let Some(quantization) = &model.quantization {
        check_text(quantization, MAX_WORD)?;
    }
    let prices = [model.price_in, model.price_out];
    match prices.into_iter().flatten().all(|price| price <= MAX_PRICE) {
        true => Ok(()),
        false => Err(wrong("a price is too high to be computed with")),
    }
}

/// Nothing that is written to a terminal may do anything there, or show in another order than it is read.
fn check_text(text: &str, most: usize) -> Result<(), Rejection> {
    let is_plain = |c: char| {
        !c.is_control() && !matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    match !text.is_empty() && text.len() <= most && text.chars().all(is_plain) {
        true => Ok(()),
        false => Err(wrong(
            "a text is empty, too long, or has control characters",
        )),
    }
}

fn wrong(why: &'static str) -> Rejection {
    Rejection::WrongSchema(why)
}
