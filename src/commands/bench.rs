//! `hivevpn bench`

use std::path::Path;

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use super::{Paint, Table};
use crate::{
    bench::{
        client::{Client, Figures, Load, Phase, Plan, Progress},
        echoes::Echoes,
    },
    cli::BenchArgs,
    control::{self, Bench, Peer, Request, Status, ask},
};

/// Steps of the progress bar.
const STEPS: f64 = 1000.0;

/// `bench --json`.
#[derive(Debug, Serialize)]
struct Report {
    /// Name of the peer.
    peer: String,
    /// The path in use at the beginning.
    #[serde(flatten)]
    way: Way,
    /// The path in use at the end, if it is another.
    changed_to: Option<Way>,
    #[serde(flatten)]
    figures: Figures,
    /// Why something is missing.
    error: Option<String>,
}

/// The path in use at some moment.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Way {
    /// `direct`, `stream`, `relay` or `none`.
    path: String,
    /// Name of the member that relays.
    relay: Option<String>,
    /// Underlay address of a direct path or stream.
    endpoint: Option<String>,
}

/// Measures the tunnel to a peer. What was measured before something went wrong is printed all the same.
pub fn run(args: &BenchArgs, socket: &Path) -> Result<()> {
    let request = Request::Bench {
        peer: args.peer.clone(),
        seconds: args.seconds,
    };
    let Bench { peer, place } = ask(socket, &request)?;
    let plan = Plan {
        seconds: args.seconds,
        streams: args.streams,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start to measure")?;
    let mut client = runtime.block_on(Client::reach(place, plan))?;
    // Reaching the peer may have brought the tunnel up.
    let begin = way_to(&peer, socket)?;
    let bar = Bar::new();
    let stop = async {
        // Without a way to notice Ctrl-C, it ends the process as ever.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    let (figures, ended) = runtime.block_on(client.measure(stop, |progress| bar.show(progress)));
    bar.clear();
    drop(client);
    // A daemon that has gone meanwhile is what broke the measurement, if anything did.
    let end = way_to(&peer, socket).ok();
    let report = Report {
        peer: peer.name,
        changed_to: end.filter(|end| *end != begin),
        way: begin,
        figures,
        error: ended.as_ref().err().map(ToString::to_string),
    };
    if args.json {
        super::print_json(&report)?;
    } else {
        super::print(&render(&report, Paint::for_stdout()))?;
    }
    Ok(ended?)
}

fn way_to(peer: &Peer, socket: &Path) -> Result<Way> {
    let status: Status = ask(socket, &Request::Status)?;
    let mut peers = status.peers.into_iter();
    let peer: control::Peer = peers
        .find(|other| other.peer_id == peer.peer_id)
        .with_context(|| format!("{} is no member any more", peer.name))?;
    Ok(Way {
        path: peer.path,
        relay: peer.relay,
        endpoint: peer.endpoint,
    })
}

// ---- for people --------------------------------------------------------------------------------------------

fn render(report: &Report, paint: Paint) -> String {
    let mut text = format!(
        "{}: {}\n",
        paint.strong(&report.peer),
        shown(&report.way, paint)
    );
    if let Some(way) = &report.changed_to {
        text.push_str(&format!("in the end: {}\n", shown(way, paint)));
    }
    let mut table = Table::new(&["", "THROUGHPUT", "RECEIVED", "P50", "P99", "LOSS"]);
    let Figures { idle, up, down } = &report.figures;
    if let Some(idle) = idle {
        table.row(row("idle", None, idle));
    }
    for (name, load) in [("upload", up), ("download", down)] {
        if let Some(load) = load {
            table.row(row(name, Some(load), &load.echoes));
        }
    }
    text.push('\n');
    text.push_str(&table.render(paint));
    text
}

fn shown(way: &Way, paint: Paint) -> String {
    let by = super::by(way.relay.as_deref(), way.endpoint.as_deref());
    format!("{}{by}", paint.path(&way.path, 0))
}

fn row(name: &str, load: Option<&Load>, echoes: &Echoes) -> Vec<String> {
    let dash = || "-".to_owned();
    let latency = echoes.latency_ms;
    vec![
        name.to_owned(),
        load.map_or_else(dash, |load| throughput(load.mbit_s)),
        load.map_or_else(dash, |load| super::bytes(load.bytes)),
        latency.map_or_else(dash, |latency| format!("{:.1} ms", latency.p50)),
        latency.map_or_else(dash, |latency| format!("{:.1} ms", latency.p99)),
        echoes
            .loss_percent
            .map_or_else(dash, |percent| format!("{percent:.1} %")),
    ]
}

fn throughput(mbit_s: f64) -> String {
    format!("{mbit_s:.1} Mbit/s")
}

/// Progress on standard error, if that is a terminal. It has no colours that `NO_COLOR` could forbid.
struct Bar(ProgressBar);

impl Bar {
    fn new() -> Self {
        let bar = ProgressBar::with_draw_target(Some(STEPS as u64), ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("{prefix:8} [{bar:40}] {msg}");
        bar.set_style(
            style
                .expect("the template is well-formed")
                .progress_chars("=> "),
        );
        Self(bar)
    }

    fn show(&self, progress: Progress) {
        let rate = progress.mbit_s.map_or_else(String::new, throughput);
        self.0.set_position((progress.done * STEPS) as u64);
        self.0.set_message(rate);
        self.0.set_prefix(match progress.phase {
            Phase::Idle => "idle",
            Phase::Upload => "upload",
            Phase::Download => "download",
        });
    }

    fn clear(&self) {
        self.0.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::echoes::Latency;

    fn report() -> Report {
        let echoes = Echoes {
            latency_ms: Some(Latency {
                p50: 1.25,
                p99: 9.5,
            }),
            loss_percent: Some(0.5),
        };
        Report {
            peer: "b".into(),
            way: Way {
                path: "relay".into(),
                relay: Some("r".into()),
                endpoint: None,
            },
            changed_to: Some(Way {
                path: "direct".into(),
                relay: None,
                endpoint: Some("203.0.113.12:7777".into()),
            }),
            figures: Figures {
                idle: Some(echoes),
                up: Some(Load {
                    mbit_s: 940.123,
                    bytes: 587_500_000,
                    seconds: 5.0,
                    echoes,
                }),
                down: None,
            },
            error: Some("stopped".into()),
        }
    }

    #[test]
    fn people_see_the_ways_and_a_row_for_what_was_measured() {
        let text = render(&report(), Paint(false));
        let expected = "\
b: relay through r
in the end: direct 203.0.113.12:7777

        THROUGHPUT    RECEIVED  P50     P99     LOSS
idle    -             -         1.2 ms  9.5 ms  0.5 %
upload  940.1 Mbit/s  587.5 MB  1.2 ms  9.5 ms  0.5 %
";
        assert_eq!(text, expected);
    }

    #[test]
    fn machines_see_null_where_nothing_was_measured() {
        let value = serde_json::to_value(report()).unwrap();
        let latency = serde_json::json!({ "p50": 1.25, "p99": 9.5 });
        let expected = serde_json::json!({
            "peer": "b",
            "path": "relay",
            "relay": "r",
            "endpoint": null,
            "changed_to": { "path": "direct", "relay": null, "endpoint": "203.0.113.12:7777" },
            "idle": { "latency_ms": latency, "loss_percent": 0.5 },
            "up": {
                "mbit_s": 940.123,
                "bytes": 587_500_000,
                "seconds": 5.0,
                "latency_ms": latency,
                "loss_percent": 0.5,
            },
            "down": null,
            "error": "stopped",
        });
        assert_eq!(value, expected);
    }
}
