//! `hivevpn usage`

use anyhow::Result;

use super::{Paint, Table};
use crate::{
    cli::services::ListArgs,
    control::{
        Daemon, Request, ask,
        services::{Ask, Used},
    },
};

/// Lists what members used of this node's model servers.
pub fn run(args: &ListArgs, daemon: &Daemon) -> Result<()> {
    let used: Vec<Used> = ask(daemon, &Request::Services(Ask::Usage))?;
    if args.json {
        return super::print_json(&used);
    }
    super::print(&render(&used, Paint::for_stdout()))
}

fn render(used: &[Used], paint: Paint) -> String {
    if used.is_empty() {
        return "Nobody has used a model server of this node so far.\n".to_owned();
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
        };
        let table = render(&[used(0), used(77)], Paint(false));
        let lines: Vec<_> = table.lines().collect();
        assert!(
            lines[1].contains(" 77") && !lines[1].contains('~'),
            "{table}"
        );
        assert!(lines[2].contains("~77"), "{table}");
    }
}
