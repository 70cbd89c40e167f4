//! `hivevpn usage`

use anyhow::Result;
use hivevpn_core::membership::Name;

use super::{Paint, Table};
use crate::{
    cli::services::UsageArgs,
    control::{
        Daemon, Request, ask,
        services::{Ask, Used},
    },
};

/// Lists what members used of this node's model servers, and begins to count anew if that is asked for.
pub fn run(args: &UsageArgs, daemon: &Daemon) -> Result<()> {
    let service = args.service.as_ref().map(ToString::to_string);
    let question = match args.reset {
        true => Ask::ResetUsage {
            service: service.clone(),
        },
        false => Ask::Usage,
    };
    let mut used: Vec<Used> = ask(daemon, &Request::Services(question))?;
    used.retain(|used| service.as_ref().is_none_or(|name| *name == used.service));
    if args.json {
        return super::print_json(&used);
    }
    super::print(&render(&used, args.service.as_ref(), Paint::for_stdout()))
}

fn render(used: &[Used], service: Option<&Name>, paint: Paint) -> String {
    if used.is_empty() {
        return match service {
            Some(service) => {
                format!("Nobody has used {service} as a model server of this node so far.\n")
            }
            None => "Nobody has used a model server of this node so far.\n".to_owned(),
        };
    }
    let mut table = Table::new(&[
        "SERVICE",
        "MEMBER",
        "MODEL",
        "REQUESTS",
        "ERRORS",
        "READ",
        "WRITTEN",
        "FIRST BYTE",
        "SINCE",
    ]);
    for used in used {
        let about = if used.estimated_tokens > 0 { "~" } else { "" };
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        table.row(vec![
            used.service.clone(),
            used.member.clone(),
            or_dash(Some(used.model.clone()).filter(|model| !model.is_empty())),
            used.requests.to_string(),
            used.errors.to_string(),
            used.prompt_tokens.to_string(),
            format!("{about}{}", used.completion_tokens),
            or_dash(used.first_byte_ms.map(|ms| format!("{ms} ms"))),
            or_dash(used.since.map(super::ago)),
        ]);
    }
    table.render(paint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn estimates_look_like_estimates() {
        let used = |estimated_tokens| Used {
            service: "llm".to_owned(),
            member: "a".to_owned(),
            peer_id: None,
            model: "tiny".to_owned(),
            requests: 1,
            errors: 0,
            prompt_tokens: 5,
            completion_tokens: 77,
            estimated_tokens,
            first_byte_ms: None,
            since: None,
            until: None,
        };
        let table = render(&[used(0), used(77)], None, Paint(false));
        let lines: Vec<_> = table.lines().collect();
        assert!(
            lines[1].contains(" 77") && !lines[1].contains('~'),
            "{table}"
        );
        assert!(lines[2].contains("~77"), "{table}");
    }
}
