//! `hivevpn netcheck`

use std::net::IpAddr;

use anyhow::Result;

use super::{Paint, Table};
use crate::{
    cli::JsonArg,
    control::{Daemon, NoDaemon, Reflection, Request, Starting, Status, Underlay, ask},
    netcheck::{Facts, Family, Filtering, Mapping, Relay, Report, Tokens, judge, observers},
};

/// Finds out what the network lets this node do. Takes a few seconds where tokens do not arrive.
pub fn run(args: &JsonArg, daemon: &Daemon) -> Result<()> {
    let status: Status = ask(daemon, &Request::Status)?;
    let underlay: Underlay = ask(daemon, &Request::Underlay)?;
    let mut facts = Facts {
        addresses: underlay.addresses.clone(),
        status,
        nodes: ask(daemon, &Request::Nodes)?,
        underlay,
        tokens_v4: Tokens::default(),
        tokens_v6: Tokens::default(),
    };
    facts.tokens_v4 = send_tokens(&facts, IpAddr::is_ipv4, daemon)?;
    facts.tokens_v6 = send_tokens(&facts, IpAddr::is_ipv6, daemon)?;
    let report = judge(&facts);
    if args.json {
        super::print_json(&report)
    } else {
        super::print(&render(&report, Paint::for_stdout()))
    }
}

/// Has members send tokens, one after the other, until one arrives or enough are lost.
fn send_tokens(facts: &Facts, of_family: fn(&IpAddr) -> bool, daemon: &Daemon) -> Result<Tokens> {
    let observers = observers(facts, of_family);
    let mut tokens = Tokens::default();
    // Each may fail once for reasons that are not the network's.
    let tries = observers.len().max(1) * Tokens::TRIES as usize;
    for observer in observers.iter().cycle().take(tries) {
        let request = Request::Reflect {
            peer: observer.peer_id.clone(),
            endpoint: observer.endpoint,
        };
        match ask::<Reflection>(daemon, &request) {
            Ok(Reflection { from: Some(from) }) => tokens.arrived = Some(from),
            Ok(Reflection { from: None }) => tokens.lost += 1,
            Err(error) if error.is::<NoDaemon>() || error.is::<Starting>() => return Err(error),
            Err(error) => tokens.refused = Some(error.to_string()),
        }
        if tokens.arrived.is_some() || tokens.lost >= Tokens::TRIES {
            break;
        }
    }
    Ok(tokens)
}

// ---- for people --------------------------------------------------------------------------------------------

fn render(report: &Report, paint: Paint) -> String {
    let mut lines = Lines {
        text: String::new(),
        paint,
    };
    let udp = match report.udp.works {
        Some(true) => paint.good("works"),
        Some(false) => paint.bad("blocked"),
        None => paint.fair("unknown"),
    };
    lines.line("UDP", &format!("{udp}: {}", report.udp.reason));
    for (name, family) in [("IPv4", &report.ipv4), ("IPv6", &report.ipv6)] {
        match family {
            None => lines.line(name, "no address"),
            Some(family) => render_family(name, family, &mut lines),
        }
    }
    let port_mapping = report.port_mapping.as_deref();
    lines.line("port mapping", port_mapping.unwrap_or("none"));
    if report.relays.is_empty() {
        lines.line("relays", "no member offers to relay");
    }
    for (number, relay) in report.relays.iter().enumerate() {
        lines.line(
            if number == 0 { "relays" } else { "" },
            &render_relay(relay),
        );
    }
    if let Some(per_day) = report.control_traffic.bytes_per_day {
        let what = format!(
            "{} a day sent beside packets, at the rate of the last {}",
            super::bytes(per_day),
            span(report.control_traffic.since_s)
        );
        lines.line("control", &what);
    }
    let mut text = lines.text;
    if !report.peers.is_empty() {
        let mut table = Table::new(&["PEER", "PATH", "EXPECTED", "BECAUSE"]);
        for peer in &report.peers {
            table.row(vec![
                peer.name.clone(),
                peer.path.clone(),
                peer.predicted.to_owned(),
                peer.reason.clone(),
            ]);
        }
        text.push('\n');
        text.push_str(&table.render(paint));
    }
    text
}

/// 43200 → "12 h".
fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3600),
    }
}

/// A name and what there is to say of it, aligned.
struct Lines {
    text: String,
    paint: Paint,
}

impl Lines {
    fn line(&mut self, name: &str, what: &str) {
        let name = self.paint.strong(&format!("{name:13}"));
        self.text.push_str(&format!("{name} {what}\n"));
    }
}

fn render_family(name: &str, family: &Family, lines: &mut Lines) {
    let addresses: Vec<_> = family.addresses.iter().map(ToString::to_string).collect();
    lines.line(name, &addresses.join(", "));
    for seen in &family.seen_as {
        let by = seen.by.join(", ");
        lines.line("  seen as", &format!("{} by {by}", seen.endpoint));
    }
    let mapping = match family.mapping {
        Mapping::None => "none: there is no NAT",
        Mapping::EndpointIndependent => "endpoint-independent: the same for every destination",
        Mapping::AddressOrPortDependent => {
            "address- or port-dependent: another endpoint for another destination (symmetric NAT)"
        }
        Mapping::Unknown => {
            "unknown: two members at different addresses must be connected over QUIC"
        }
    };
    lines.line("  mapping", mapping);
    if let Some(preserved) = family.port_preserved {
        lines.line("  port", if preserved { "preserved" } else { "changed" });
    }
    let filtering = match family.filtering {
        Filtering::PortIndependent => {
            "not by port: any port of an address that was spoken to gets in".to_owned()
        }
        Filtering::AddressAndPortDependent => {
            "address- and port-dependent: only who was spoken to gets in".to_owned()
        }
        Filtering::Unknown => format!(
            "unknown: {}",
            family
                .filtering_unknown
                .as_deref()
                .unwrap_or("nobody tried")
        ),
    };
    lines.line("  filtering", &filtering);
}

fn render_relay(relay: &Relay) -> String {
    let mut text = relay.name.clone();
    match (relay.online, relay.rtt_ms) {
        (false, _) => text.push_str(", offline"),
        (true, Some(rtt)) => text.push_str(&format!(", {rtt:.1} ms")),
        (true, None) => {}
    }
    if relay.reserved {
        text.push_str(", holds a reservation for us");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netcheck::{Cost, Prediction, Seen, Udp};

    #[test]
    fn people_see_every_finding_on_a_line_of_its_own() {
        let report = Report {
            udp: Udp {
                works: Some(true),
                reason: "2 members are reached over UDP".into(),
            },
            ipv4: Some(Family {
                addresses: vec!["10.0.1.10".parse().unwrap()],
                seen_as: vec![Seen {
                    endpoint: "203.0.113.101:7777".parse().unwrap(),
                    by: vec!["r".into(), "s".into()],
                }],
                mapping: Mapping::EndpointIndependent,
                port_preserved: Some(true),
                filtering: Filtering::Unknown,
                filtering_unknown: Some("r is not connected".into()),
            }),
            ipv6: None,
            port_mapping: None,
            relays: vec![Relay {
                name: "r".into(),
                online: true,
                rtt_ms: Some(2.61),
                reserved: true,
            }],
            peers: vec![Prediction {
                name: "b".into(),
                path: "relay".into(),
                predicted: "direct",
                reason: "because".into(),
            }],
            control_traffic: Cost {
                sent_bytes: 1_000_000,
                since_s: 43_200,
                bytes_per_day: Some(2_000_000),
            },
        };
        let expected = "\
UDP           works: 2 members are reached over UDP
IPv4          10.0.1.10
  seen as     203.0.113.101:7777 by r, s
  mapping     endpoint-independent: the same for every destination
  port        preserved
  filtering   unknown: r is not connected
IPv6          no address
port mapping  none
relays        r, 2.6 ms, holds a reservation for us
control       2.0 MB a day sent beside packets, at the rate of the last 12 h

PEER  PATH   EXPECTED  BECAUSE
b     relay  direct    because
";
        assert_eq!(render(&report, Paint(false)), expected);
    }
}
