//! `hivevpn expose`, `unexpose`, `exposed`, `services`, `forward`, `unforward` and `forwards`.

use std::{
    io::{Read, Write},
    path::Path,
};

use anyhow::{Context, Result};

use super::{BadUsage, Paint, Table};
use crate::{
    cli::services::{ExposeArgs, ForwardArgs, ListArgs, ServicesArgs, UnexposeArgs, UnforwardArgs},
    control::{
        Daemon, Request,
        admin::Sealed,
        ask,
        services::{Ask, Expose, Exposed, Forward, ForwardTo, Listed},
    },
    http::ApiKey,
};

/// Longer than any key.
const MAX_KEY: u64 = 4096;

/// Offers something.
pub fn expose(args: &ExposeArgs, daemon: &Daemon) -> Result<()> {
    let api_key = args.api_key_file.as_deref().map(read_key).transpose()?;
    let expose = Expose {
        target: args.target,
        name: args.name.to_string(),
        kind: args.kind.to_string(),
        port: args.port,
        to: args.to.iter().map(ToString::to_string).collect(),
        lifetime_s: args.lifetime.map(|lifetime| lifetime.as_secs()),
        description: args.description.clone(),
        tags: args.tags.clone(),
        unauthenticated: args.unauthenticated,
        api_key,
    };
    let exposed: Exposed = ask(daemon, &Request::Services(Ask::Expose(expose)))?;
    for note in &exposed.notes {
        writeln!(std::io::stderr(), "note: {note}")?;
    }
    if args.json {
        return super::print_json(&exposed);
    }
    let Exposed { name, target, .. } = &exposed;
    let place = place(&exposed.address, exposed.port);
    super::print(&format!("{name}: members reach {target} at {place}\n"))
}

fn read_key(file: &Path) -> Result<Sealed> {
    let key = match file.to_str() {
        Some("-") => {
            let mut key = String::new();
            let read = std::io::stdin().take(MAX_KEY).read_to_string(&mut key);
            read.context("cannot read the key in standard input")?;
            ApiKey::new(key.trim())
                .context("standard input: an API key is one line of letters, digits and signs")
        }
        Some(_) | None => ApiKey::from_file(file),
    };
    let key = key.map_err(|error| BadUsage(format!("{error:#}")))?;
    Ok(Sealed(key.expose().as_bytes().to_vec()))
}

/// Offers it no more.
pub fn unexpose(args: &UnexposeArgs, daemon: &Daemon) -> Result<()> {
    let name = args.name.clone();
    ask(daemon, &Request::Services(Ask::Unexpose { name }))
}

/// Lists what this node offers.
pub fn exposed(args: &ListArgs, daemon: &Daemon) -> Result<()> {
    let exposed: Vec<Exposed> = ask(daemon, &Request::Services(Ask::Exposed))?;
    if args.json {
        return super::print_json(&exposed);
    }
    super::print(&render_exposed(&exposed, Paint::for_stdout()))
}

fn render_exposed(exposed: &[Exposed], paint: Paint) -> String {
    if exposed.is_empty() {
        return "This node offers nothing: 'hivevpn expose --help' says how to.\n".to_owned();
    }
    let mut table = Table::new(&[
        "NAME",
        "KIND",
        "LISTENS ON",
        "MEMBERS USE",
        "TO",
        "HEALTH",
        "OPEN",
        "LEFT",
    ]);
    for service in exposed {
        table.row(vec![
            service.name.clone(),
            service.kind.clone(),
            service.target.to_string(),
            place(&service.address, service.port),
            scope(&service.to),
            service.health.clone(),
            service.connections.to_string(),
            left(service.left_s),
        ]);
    }
    let problems = exposed.iter().filter_map(|service| {
        let problem = service.problem.as_ref()?;
        Some(format!("\n{}: {problem}", service.name))
    });
    table.render(paint) + &problems_below(problems.collect())
}

/// Lists what all members offer.
pub fn services(args: &ServicesArgs, daemon: &Daemon) -> Result<()> {
    let mut services: Vec<Listed> = ask(daemon, &Request::Services(Ask::Services))?;
    services.retain(|service| is_wanted(service, args));
    if args.json {
        return super::print_json(&services);
    }
    super::print(&render_services(&services, Paint::for_stdout()))
}

fn is_wanted(service: &Listed, args: &ServicesArgs) -> bool {
    let is_kind = |kind: &hivevpn_core::registry::Kind| kind.to_string() == service.kind;
    let has_model = |pattern: &String| service.models.iter().any(|model| matches(pattern, model));
    args.kind.as_ref().is_none_or(is_kind) && args.model.as_ref().is_none_or(has_model)
}

/// Whether a text is as the pattern says, in which `*` stands for anything.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(mut text) = text.strip_prefix(first) else {
        return false;
    };
    let (middle, last) = rest.rsplit_once('*').unwrap_or(("", rest));
    for part in middle.split('*') {
        match text.find(part) {
            Some(at) => text = &text[at + part.len()..],
            None => return false,
        }
    }
    text.ends_with(last)
}

fn render_services(services: &[Listed], paint: Paint) -> String {
    if services.is_empty() {
        return "Nobody offers such a service at the moment.\n".to_owned();
    }
    let mut table = Table::new(&[
        "NAME", "KIND", "NODE", "ADDRESS", "TO", "HEALTH", "AGE", "WHAT",
    ]);
    for service in services {
        let what = match (&service.models[..], &service.description) {
            ([], None) => super::listed(&service.tags),
            ([], Some(description)) => description.clone(),
            (models, _) => models.join(","),
        };
        table.row(vec![
            service.name.clone(),
            service.kind.clone(),
            service.node.clone(),
            place(&service.address, service.port),
            scope(&service.to),
            service.health.clone(),
            super::span(service.age_s),
            what,
        ]);
    }
    table.render(paint)
}

/// Opens a port that leads to a member's service.
pub fn forward(args: &ForwardArgs, daemon: &Daemon) -> Result<()> {
    let to = ForwardTo {
        to: args.to.clone(),
        listen: args.listen,
        udp: args.udp.then_some(true),
        lifetime_s: args.lifetime.map(|lifetime| lifetime.as_secs()),
    };
    let forward: Forward = ask(daemon, &Request::Services(Ask::Forward(to)))?;
    if !forward.listen.ip().is_loopback() {
        let warning = "note: whoever reaches that address uses the service in this node's name";
        writeln!(std::io::stderr(), "{warning}")?;
    }
    if args.json {
        return super::print_json(&forward);
    }
    let Forward { listen, to, .. } = &forward;
    super::print(&format!("{listen} leads to {to}\n"))
}

/// Closes one.
pub fn unforward(args: &UnforwardArgs, daemon: &Daemon) -> Result<()> {
    let listen = args.listen.clone();
    ask(daemon, &Request::Services(Ask::Unforward { listen }))
}

/// Lists them.
pub fn forwards(args: &ListArgs, daemon: &Daemon) -> Result<()> {
    let forwards: Vec<Forward> = ask(daemon, &Request::Services(Ask::Forwards))?;
    if args.json {
        return super::print_json(&forwards);
    }
    super::print(&render_forwards(&forwards, Paint::for_stdout()))
}

fn render_forwards(forwards: &[Forward], paint: Paint) -> String {
    if forwards.is_empty() {
        return "No port of this machine leads to a member: 'hivevpn forward --help' says how to.\n"
            .to_owned();
    }
    let mut table = Table::new(&["LISTENS ON", "OVER", "LEADS TO", "OPEN", "LEFT"]);
    for forward in forwards {
        table.row(vec![
            forward.listen.to_string(),
            forward.protocol.clone(),
            forward.to.clone(),
            forward.connections.to_string(),
            left(forward.left_s),
        ]);
    }
    let problems = forwards.iter().filter_map(|forward| {
        let problem = forward.problem.as_ref()?;
        Some(format!("\n{}: {problem}", forward.listen))
    });
    table.render(paint) + &problems_below(problems.collect())
}

fn problems_below(problems: String) -> String {
    match problems.is_empty() {
        true => problems,
        false => problems + "\n",
    }
}

fn place(address: &str, port: u16) -> String {
    match address.contains(':') {
        true => format!("[{address}]:{port}"),
        false => format!("{address}:{port}"),
    }
}

fn scope(to: &[String]) -> String {
    match to.is_empty() {
        true => "*".to_owned(),
        false => to.join(","),
    }
}

fn left(left_s: Option<u64>) -> String {
    left_s.map_or_else(|| "-".to_owned(), super::span)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_finds_models() {
        for (pattern, text) in [
            ("llama*", "llama-3.3-70b"),
            ("*70b", "llama-3.3-70b"),
            ("*3*70*", "llama-3.3-70b"),
            ("gpt", "gpt"),
            ("*", ""),
            ("a**b", "ab"),
        ] {
            assert!(matches(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [
            ("llama", "llama-3"),
            ("*b*b", "ab"),
            ("ab*b", "ab"),
            ("a*b", "acd"),
        ] {
            assert!(!matches(pattern, text), "{pattern} {text}");
        }
    }

    fn listed() -> Listed {
        Listed {
            name: "llm".into(),
            kind: "openai".into(),
            node: "gpu".into(),
            address: "10.77.0.4".into(),
            port: 8000,
            health: "up".into(),
            models: vec!["llama".into()],
            age_s: 7,
            protocol: "tcp".into(),
            to: vec![],
            description: None,
            tags: vec![],
        }
    }

    #[test]
    fn services_are_found_by_kind_and_model() {
        let args = |kind: Option<&str>, model: Option<&str>| ServicesArgs {
            kind: kind.map(|kind| kind.parse().unwrap()),
            model: model.map(str::to_owned),
            json: false,
        };
        assert!(is_wanted(&listed(), &args(None, None)));
        assert!(is_wanted(&listed(), &args(Some("openai"), Some("ll*"))));
        assert!(!is_wanted(&listed(), &args(Some("ssh"), None)));
        assert!(!is_wanted(&listed(), &args(None, Some("gpt*"))));
    }

    #[test]
    fn people_see_where_it_is_how_it_is_and_what_is_wrong() {
        let text = render_services(&[listed()], Paint(false));
        for part in [
            "llm",
            "openai",
            "gpu",
            "10.77.0.4:8000",
            "up",
            "7 s",
            "llama",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        let exposed = Exposed {
            name: "db".into(),
            kind: "postgres".into(),
            target: ([127, 0, 0, 1], 5432).into(),
            address: "10.77.0.4".into(),
            port: 5432,
            to: vec!["group:backend".into()],
            health: "down".into(),
            left_s: Some(7200),
            connections: 0,
            problem: Some("nothing answers".into()),
            protocol: "tcp".into(),
            notes: vec![],
        };
        let text = render_exposed(&[exposed], Paint(false));
        for part in ["group:backend", "2 h", "down", "\ndb: nothing answers\n"] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    /// Scripts rely on these names.
    #[test]
    fn the_shape_of_services_json_is_as_agreed() {
        let json = serde_json::to_value(listed()).unwrap();
        for (key, value) in [
            ("name", serde_json::json!("llm")),
            ("kind", "openai".into()),
            ("node", "gpu".into()),
            ("address", "10.77.0.4".into()),
            ("port", 8000.into()),
            ("health", "up".into()),
            ("models", serde_json::json!(["llama"])),
            ("age_s", 7.into()),
        ] {
            assert_eq!(json[key], value, "{key}");
        }
    }
}
