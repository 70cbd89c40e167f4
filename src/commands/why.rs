//! `hivevpn why`

use anyhow::Result;

use super::{Paint, Table};
use crate::{
    cli::WhyArgs,
    control::{Daemon, Request, Why, ask},
};

/// Shows every way to a peer, and why packets go the one they go.
pub fn run(args: &WhyArgs, daemon: &Daemon) -> Result<()> {
    let request = Request::Why {
        peer: args.peer.clone(),
    };
    let why: Why = ask(daemon, &request)?;
    if args.json {
        return super::print_json(&why);
    }
    let paint = Paint::for_stdout();
    let by = super::by(why.relay.as_deref(), why.endpoint.as_deref());
    let since = why
        .since_s
        .map_or_else(String::new, |seconds| format!(" for {}", span(seconds)));
    let path = paint.path(&why.path, 0);
    super::print(&format!("{}: {path}{by}{since}\n", why.name))?;
    if why.candidates.is_empty() {
        return super::print(
            "No way to it is known: it has announced no address, and nobody relays for it.\n",
        );
    }
    let mut table = Table::new(&["KIND", "ADDRESS", "RTT", "STATE", "REASON"]);
    for candidate in why.candidates {
        table.row(vec![
            candidate.kind,
            candidate.address,
            candidate
                .rtt_ms
                .map_or("-".to_owned(), |rtt| format!("{rtt:.1} ms")),
            candidate.state,
            candidate.reason,
        ]);
    }
    super::print(&format!("\n{}", table.render(paint)))
}

/// 3725 → "1 h 2 min".
pub(crate) fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::span;

    #[test]
    fn spans_are_told_in_the_two_units_that_matter() {
        let told = [59, 61, 3725, 90_000].map(span);
        assert_eq!(told, ["59 s", "1 min 1 s", "1 h 2 min", "1 d 1 h"]);
    }
}
