//! The command line of the live view.

use std::time::Duration;

use clap::Args;

pub(super) const HELP: &str = "\
Watch this node live: peers, paths, throughput, services, models.

Above, the node, what goes by in both directions with the last minutes as a line of bars, and what was dropped or \
refused in the last minute, by reason. Below, one of four tables:

  1 Peers     path (direct, stream, relay) and by what, round trip, throughput and totals in both
              directions, age of the keys; who is online comes first
  2 Services  what all members offer: kind, node, address and port, health, models, age
  3 Models    each member's models: load, requests that wait, round trip, whether it is in memory,
              tokens per second, price
  4 Ports     what this node offers, and its ports that lead to others' services

Keys:
  1-4, Tab, ← →   another table
  ↑ ↓, j k        select a row (PgUp, PgDn, Home, End)
  Enter           everything about it; of a peer also every way to it, as 'hivevpn why' tells them
  /               show only rows that contain what is typed; Esc shows all again
  s, r            sort by the next column; the other way round
  ?               show the keys
  q, Ctrl-C       quit

It goes on while the daemon restarts. It uses no colours if NO_COLOR is set. With --on it shows the node of another \
member, no more often than every 2 s, and with --net that of another network.

In a pipe or a script, 'hivevpn top --once' prints one picture as plain text, and 'hivevpn status --json', 'services \
--json' and 'models --json' are made for programs.";

/// Arguments of `top`.
#[derive(Debug, Args)]
pub struct TopArgs {
    /// Time between two looks, e.g. 0.5s, 500ms, 2
    #[arg(long, short, value_name = "TIME", default_value = "1s", value_parser = parse_interval)]
    pub interval: Duration,

    /// Print one picture as plain text, after one interval, and end
    #[arg(long)]
    pub once: bool,
}

/// Seconds, with or without a unit, or milliseconds.
fn parse_interval(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.strip_suffix("ms") {
        Some(number) => (number, 0.001),
        None => (text.strip_suffix('s').unwrap_or(text), 1.0),
    };
    let seconds = number.trim_end().parse::<f64>().ok();
    let interval = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds * unit).ok());
    interval
        .filter(|interval| {
            (Duration::from_millis(100)..=Duration::from_secs(60)).contains(interval)
        })
        .ok_or_else(|| "it is between 100ms and 60s, such as 0.5s or 2".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_a_number_of_seconds_or_says_what_it_is() {
        for (text, millis) in [
            ("1s", 1000),
            ("0.5s", 500),
            ("500ms", 500),
            ("2", 2000),
            ("0.1", 100),
        ] {
            assert_eq!(
                parse_interval(text),
                Ok(Duration::from_millis(millis)),
                "{text}"
            );
        }
        for wrong in ["", "s", "0", "-1s", "NaN", "inf", "1h", "99ms", "61s"] {
            assert!(parse_interval(wrong).is_err(), "{wrong}");
        }
    }
}
