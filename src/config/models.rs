//! `[models]`: the one endpoint for every model of the network.

use std::{net::SocketAddr, ops::Range};

use serde::Deserialize;

use super::{ConfigError, file::Spanned, parse_span};
use crate::models::{Config, Listen};

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ModelsSection {
    listen: Option<Spanned<String>>,
    on_overlay: Option<bool>,
    serve_members: Option<bool>,
    connect_timeout: Option<Spanned<String>>,
    first_token_timeout: Option<Spanned<String>>,
    answer_timeout: Option<Spanned<String>>,
}

impl ModelsSection {
    pub(super) fn apply_to(
        self,
        models: &mut Config,
        place: impl Fn(Range<usize>) -> String,
    ) -> Result<(), ConfigError> {
        if let Some(listen) = self.listen {
            let listening = parse_listen(listen.get_ref());
            models.listen = listening
                .map_err(|message| wrong("models.listen", message, place(listen.span())))?;
        }
        models.on_overlay = self.on_overlay.unwrap_or(models.on_overlay);
        models.serve_members = self.serve_members.unwrap_or(models.serve_members);
        for (said, span, option) in [
            (
                self.connect_timeout,
                &mut models.connect_timeout,
                "models.connect_timeout",
            ),
            (
                self.first_token_timeout,
                &mut models.first_token_timeout,
                "models.first_token_timeout",
            ),
            (
                self.answer_timeout,
                &mut models.answer_timeout,
                "models.answer_timeout",
            ),
        ] {
            if let Some(said) = said {
                *span = parse_span(said.get_ref())
                    .map_err(|message| wrong(option, message, place(said.span())))?;
            }
        }
        Ok(())
    }
}

fn wrong(option: &'static str, message: String, place: String) -> ConfigError {
    ConfigError::Value {
        place,
        option,
        message,
    }
}

fn parse_listen(text: &str) -> Result<Listen, String> {
    if text == "off" {
        return Ok(Listen::Off);
    }
    let address: Option<SocketAddr> = text.parse().ok();
    match address {
        Some(address) if address.ip().is_loopback() && address.port() > 0 => {
            Ok(Listen::At(address))
        }
        Some(_) => Err(format!(
            "'{text}' is no loopback address with a port: the endpoint asks in this machine's name, so it is for this \
             machine; members are answered on the overlay, with serve_members = true"
        )),
        None => Err(format!(
            "'{text}' is neither a loopback address such as 127.0.0.1:7780 nor \"off\""
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_endpoint_listens_on_loopback_or_not_at_all() {
        assert_eq!(parse_listen("off"), Ok(Listen::Off));
        let own = "[::1]:9000".parse().unwrap();
        assert_eq!(parse_listen("[::1]:9000"), Ok(Listen::At(own)));
        for wrong in [
            "",
            "on",
            "7780",
            "127.0.0.1:0",
            "0.0.0.0:7780",
            "10.0.0.1:80",
        ] {
            assert!(parse_listen(wrong).is_err(), "{wrong}");
        }
    }
}
