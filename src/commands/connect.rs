//! `hivevpn connect`

use std::{
    io::{Read, Write},
    net::{TcpStream, ToSocketAddrs},
    os::unix::process::CommandExt,
    path::Path,
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use serde_json::Value;

use super::{Paint, listed};
use crate::{
    cli::models::ConnectArgs,
    control::{
        Request, ask,
        services::{Ask, Models},
    },
};

/// What programs want to have and nobody looks at.
const PLACEHOLDER: &str = "hive";
/// How long the endpoint may take: it is on this machine.
const LIMIT: Duration = Duration::from_secs(5);
/// More than it says about a model.
const MAX_ANSWER: u64 = 1 << 20;

/// What a program needs.
#[derive(Serialize)]
struct Settings<'a> {
    base_url: &'a str,
    api_key: &'a str,
    model: &'a str,
    nodes: Vec<String>,
}

/// Shows what to set, or runs a command with it.
pub fn run(args: &ConnectArgs, socket: &Path) -> Result<()> {
    let models: Models = ask(socket, &Request::Services(Ask::Models))?;
    ensure!(
        !models.endpoint.is_empty(),
        "nothing listens for programs here: give [models] in the configuration a port with 'listen'"
    );
    let found = look_up(&models.endpoint, &args.model)?;
    let nodes = found["nodes"].as_array().into_iter().flatten();
    let settings = Settings {
        base_url: &models.endpoint,
        api_key: PLACEHOLDER,
        model: &args.model,
        nodes: nodes
            .filter_map(|node| node.as_str().map(str::to_owned))
            .collect(),
    };
    if args.json {
        return super::print_json(&settings);
    }
    if args.export {
        return super::print(&exported(&settings));
    }
    match args.line.split_first() {
        None => super::print(&shown(&settings, Paint::for_stdout())),
        Some((program, arguments)) => {
            let error = Command::new(program)
                .args(arguments)
                .envs(variables(&settings))
                .exec();
            Err(error).with_context(|| format!("cannot run {}", program.display()))
        }
    }
}

/// What programs read from their environment. A key for somebody else's server must not get to members.
fn variables<'a>(settings: &Settings<'a>) -> [(&'static str, &'a str); 3] {
    [
        ("OPENAI_BASE_URL", settings.base_url),
        ("OPENAI_API_KEY", settings.api_key),
        ("OPENAI_MODEL", settings.model),
    ]
}

fn exported(settings: &Settings<'_>) -> String {
    variables(settings)
        .iter()
        .map(|(name, value)| format!("export {name}='{}'\n", value.replace('\'', r"'\''")))
        .collect()
}

fn shown(settings: &Settings<'_>, paint: Paint) -> String {
    format!(
        "the model {} is on {}\n\n  OPENAI_BASE_URL={}\n  OPENAI_API_KEY={}\n  model: {}\n",
        paint.strong(settings.model),
        listed(&settings.nodes),
        settings.base_url,
        settings.api_key,
        settings.model,
    )
}

/// Asks the endpoint itself, as a program will, for what it says of a model.
fn look_up(endpoint: &str, model: &str) -> Result<Value> {
    let (status, body) = get(&format!("{endpoint}/models/{}", encoded(model)))
        .with_context(|| format!("{endpoint} does not answer as it should"))?;
    let answer: Value = serde_json::from_str(&body).unwrap_or_default();
    match (status, answer["error"]["message"].as_str()) {
        (200, _) => Ok(answer),
        (_, Some(why)) => bail!("{why}"),
        (status, None) => bail!("{endpoint} answers with {status}"),
    }
}

/// Status and body of a page of this machine.
fn get(url: &str) -> Result<(u16, String)> {
    let rest = url
        .strip_prefix("http://")
        .context("it is no http:// URL")?;
    let (host, path) = rest.split_once('/').context("it has no path")?;
    let with_port = match host.rsplit_once(':') {
        Some((_, port)) if port.parse::<u16>().is_ok() => host.to_owned(),
        Some(_) | None => format!("{host}:80"),
    };
    let address = with_port.to_socket_addrs()?.next();
    let address = address.context("its name leads nowhere")?;
    let mut stream = TcpStream::connect_timeout(&address, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    let request = format!("GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .context("its answer has no end")?;
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    Ok((status.context("its answer has no status")?, body.to_owned()))
}

/// For a part of a path (RFC 3986 §2.3).
fn encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'@' | b'/' => {
                encoded.push(byte.into());
            }
            other => encoded.push_str(&format!("%{other:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_the_values_and_nothing_else() {
        let settings = Settings {
            base_url: "http://127.0.0.1:7780/v1",
            api_key: PLACEHOLDER,
            model: "it's; rm -rf $HOME",
            nodes: vec!["gpu".into()],
        };
        assert_eq!(
            exported(&settings),
            "export OPENAI_BASE_URL='http://127.0.0.1:7780/v1'\n\
             export OPENAI_API_KEY='hive'\n\
             export OPENAI_MODEL='it'\\''s; rm -rf $HOME'\n"
        );
    }

    #[test]
    fn a_model_s_id_is_a_part_of_a_path() {
        assert_eq!(encoded("meta/Llama-3.1@gpu"), "meta/Llama-3.1@gpu");
        assert_eq!(encoded("a b?c#d%ü"), "a%20b%3Fc%23d%25%C3%BC");
    }
}
