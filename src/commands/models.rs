//! `hivevpn models`

use std::path::Path;

use anyhow::Result;

use super::{Paint, Table};
use crate::{
    cli::models::ModelsArgs,
    control::{
        Request, ask,
        services::{Ask, ListedModel, Models},
    },
};

/// Lists the models of all members.
pub fn run(args: &ModelsArgs, socket: &Path) -> Result<()> {
    let mut models: Models = ask(socket, &Request::Services(Ask::Models))?;
    if let Some(pattern) = &args.model {
        models.models.retain(|model| matches(pattern, &model.id));
    }
    if args.json {
        return super::print_json(&models);
    }
    super::print(&shown(&models, Paint::for_stdout()))
}

fn shown(models: &Models, paint: Paint) -> String {
    let endpoint = match models.endpoint.as_str() {
        "" => "nothing listens for programs here: see [models] in the configuration".to_owned(),
        endpoint => format!("OPENAI_BASE_URL={}", paint.strong(endpoint)),
    };
    if models.models.is_empty() {
        return format!("no member offers a model at the moment\n{endpoint}\n");
    }
    let mut table = Table::new(&[
        "MODEL", "NODE", "SERVICE", "STATE", "LOAD", "QUEUE", "RTT", "WARM", "TOKENS/S", "CONTEXT",
        "PRICE",
    ]);
    for model in &models.models {
        table.row(row(model));
    }
    format!("{}\n{endpoint}\n", table.render(paint))
}

fn row(model: &ListedModel) -> Vec<String> {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let warm = model.loaded.map(|loaded| if loaded { "yes" } else { "no" });
    let price = |price: Option<u64>| or_dash(price.map(|price| price.to_string()));
    let prices = match (model.price_in, model.price_out) {
        (None, None) => None,
        (read, written) => {
            let currency = model.currency.as_deref().unwrap_or_default();
            let prices = format!("{} / {} {currency}", price(read), price(written));
            Some(prices.trim_end().to_owned())
        }
    };
    vec![
        model.id.clone(),
        model.node.clone(),
        model.service.clone(),
        model.health.clone(),
        format!("{:.1}", model.load),
        model.queued.to_string(),
        or_dash(model.rtt_ms.map(|rtt| format!("{rtt:.0} ms"))),
        or_dash(warm.map(str::to_owned)),
        format!("{:.1}", model.tokens_per_s),
        or_dash(model.context.map(|context| context.to_string())),
        or_dash(prices),
    ]
}

/// Whether an id fits a pattern in which `*` stands for any characters.
fn matches(pattern: &str, id: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else {
        return pattern == id;
    };
    let Some(mut left) = id.strip_prefix(start) else {
        return false;
    };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let end = parts.pop().unwrap_or_default();
    for part in parts {
        let Some((_, behind)) = left.split_once(part) else {
            return false;
        };
        left = behind;
    }
    left.ends_with(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn llama() -> ListedModel {
        ListedModel {
            id: "llama".into(),
            node: "gpu".into(),
            load: 0.5,
            rtt_ms: Some(12.0),
            loaded: Some(true),
            service: "llm".into(),
            health: "up".into(),
            context: Some(8192),
            queued: 0,
            tokens_per_s: 41.25,
            price_in: Some(15),
            price_out: Some(60),
            currency: Some("EUR".into()),
        }
    }

    #[test]
    fn a_model_is_a_row_and_the_address_stands_below() {
        let models = Models {
            endpoint: "http://127.0.0.1:7780/v1".into(),
            models: vec![llama()],
        };
        assert_eq!(
            shown(&models, Paint(false)),
            "MODEL  NODE  SERVICE  STATE  LOAD  QUEUE  RTT    WARM  TOKENS/S  CONTEXT  PRICE\n\
             llama  gpu   llm      up     0.5   0      12 ms  yes   41.2      8192     15 / 60 EUR\n\
             \n\
             OPENAI_BASE_URL=http://127.0.0.1:7780/v1\n"
        );
    }

    #[test]
    fn without_models_it_says_so() {
        let models = Models {
            endpoint: String::new(),
            models: Vec::new(),
        };
        let shown = shown(&models, Paint(false));
        assert!(shown.starts_with("no member offers a model"), "{shown}");
        assert!(shown.contains("nothing listens"), "{shown}");
    }

    #[test]
    fn a_star_stands_for_any_characters() {
        for (pattern, id) in [
            ("llama", "llama"),
            ("*", "llama"),
            ("ll*", "llama"),
            ("*ma", "llama"),
            ("l*a*a", "llama"),
            ("*lam*", "llama"),
        ] {
            assert!(matches(pattern, id), "{pattern}");
        }
        for pattern in ["", "lama", "ll", "*x*", "a*", "*l", "llama*llama"] {
            assert!(!matches(pattern, "llama"), "{pattern}");
        }
    }
}
