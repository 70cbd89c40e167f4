//! `hivevpn status`

use std::time::{Duration, Instant};

use anyhow::Result;

use super::{BadUsage, Paint, Table, TimedOut};
use crate::{
    cli::{StatusArgs, WaitFor},
    control::{Daemon, NoDaemon, Peer, Request, Starting, Status, ask},
};

/// How often a waiting command looks.
const LOOK: Duration = Duration::from_millis(100);
/// And on another node, which lets nobody ask all the time.
const LOOK_ELSEWHERE: Duration = Duration::from_secs(1);

/// Shows the status, after waiting for it to become as asked.
pub fn run(args: &StatusArgs, daemon: &Daemon) -> Result<()> {
    let status = match args.wait {
        Some(wanted) => wait(args, wanted, daemon)?,
        None => ask(daemon, &Request::Status)?,
    };
    if args.json {
        super::print_json(&status)
    } else {
        super::print(&render(&status, Paint::for_stdout()))
    }
}

fn wait(args: &StatusArgs, wanted: WaitFor, daemon: &Daemon) -> Result<Status> {
    if args.peer.is_none() && wanted != WaitFor::Online {
        return Err(BadUsage("--wait for a path needs --peer".to_owned()).into());
    }
    let deadline = Instant::now() + Duration::from_secs(args.timeout);
    loop {
        let unmet = match ask::<Status>(daemon, &Request::Status) {
            Ok(status) => match unmet(&status, wanted, args.peer.as_deref()) {
                None => return Ok(status),
                Some(reason) => {
                    anyhow::Error::new(TimedOut(format!("after {} s: {reason}", args.timeout)))
                }
            },
            // A daemon that is still starting has no socket or no network yet: a reason to wait, unless time is up.
            Err(error) if error.is::<NoDaemon>() || error.is::<Starting>() => error,
            Err(error) => return Err(error),
        };
        if Instant::now() >= deadline {
            return Err(unmet);
        }
        std::thread::sleep(match daemon.on {
            None => LOOK,
            Some(_) => LOOK_ELSEWHERE,
        });
    }
}

/// Why the status is not as wanted, `None` when it is.
fn unmet(status: &Status, wanted: WaitFor, peer: Option<&str>) -> Option<String> {
    let named = peer?;
    let Some(peer) = status.peers.iter().find(|peer| is_called(peer, named)) else {
        return Some(format!("no member is called {named}"));
    };
    let is_met = match wanted {
        WaitFor::Online => peer.online,
        WaitFor::Direct => peer.path == "direct",
        WaitFor::Stream => peer.path == "stream",
        WaitFor::Relay => peer.path == "relay",
    };
    let state = if peer.online { "online" } else { "offline" };
    (!is_met).then(|| format!("{named} is {state}, path {}", peer.path))
}

fn is_called(peer: &Peer, name: &str) -> bool {
    peer.name == name
        || peer.peer_id == name
        || peer.ipv4.is_some_and(|address| address.to_string() == name)
        || name.parse() == Ok(peer.ipv6)
}

fn render(status: &Status, paint: Paint) -> String {
    let node = &status.node;
    let address = node.ipv4.map_or_else(
        || node.ipv6.to_string(),
        |ipv4| format!("{ipv4}  {}", node.ipv6),
    );
    let mut text = format!(
        "{} {}\n{}  {}  on {}\nreachability: {}, listening on:\n",
        paint.strong(&status.network.name),
        &status.network.id[..status.network.id.len().min(16)],
        paint.strong(&node.name),
        address,
        node.interface,
        node.reachability,
    );
    if let Some(warning) = standing(status) {
        text.insert_str(0, &format!("{}\n\n", paint.bad(&warning)));
    }
    for listen in &node.listen {
        text.push_str(&format!("  {listen}\n"));
    }
    if status.peers.is_empty() {
        text.push_str(
            "\nno other member yet: 'hivevpn invite' prints a string that lets one join\n",
        );
    } else {
        text.push('\n');
        text.push_str(&peers(status).render(paint));
    }
    for (what, counts) in [("dropped", &status.drops), ("refused", &status.rejections)] {
        let counts: Vec<_> = counts
            .iter()
            .map(|(reason, count)| format!("{reason} {count}"))
            .collect();
        if !counts.is_empty() {
            text.push_str(&format!("\n{what}: {}\n", counts.join(", ")));
        }
    }
    text
}

/// What a node that the others do not take for a member has to know.
pub(crate) fn standing(status: &Status) -> Option<String> {
    if let Some(expelled) = &status.node.expelled {
        let because = if expelled.reason.is_empty() {
            String::new()
        } else {
            format!(" ({})", expelled.reason)
        };
        return Some(format!(
            "This node was expelled {}{because}: it reaches nobody. If that is a mistake, have an administrator run \
             'hivevpn restore {}'; nothing is to be done here.",
            super::ago(expelled.at),
            status.node.peer_id
        ));
    }
    match status.node.standing.as_str() {
        "lapsed" => Some(
            "This node's certificate has run out: it reaches nobody until a member that may admit others renews it, for \
             which that member must be reachable."
                .to_owned(),
        ),
        "unsupported" => Some(
            "Whoever admitted this node has lost its powers: it reaches nobody until another administrator runs \
             'hivevpn restore' or 'hivevpn admit' for it."
                .to_owned(),
        ),
        _ => None,
    }
}

fn peers(status: &Status) -> Table {
    let mut table = Table::new(&[
        "PEER",
        "ADDRESS",
        "STATE",
        "PATH",
        "BY",
        "RTT",
        "SENT",
        "RECEIVED",
        "HANDSHAKE",
    ]);
    for peer in &status.peers {
        let dash = || "-".to_owned();
        table.row(vec![
            peer.name.clone(),
            peer.ipv4
                .map_or_else(|| peer.ipv6.to_string(), |address| address.to_string()),
            if peer.online { "online" } else { "offline" }.to_owned(),
            peer.path.clone(),
            peer.relay
                .clone()
                .or_else(|| peer.endpoint.clone())
                .unwrap_or_else(dash),
            peer.rtt_ms.map_or_else(dash, |rtt| format!("{rtt:.1} ms")),
            super::bytes(peer.tx_bytes),
            super::bytes(peer.rx_bytes),
            peer.last_handshake_s
                .map_or_else(dash, |seconds| format!("{seconds} s ago")),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{Network, Own, membership::Expulsion};

    fn status() -> Status {
        Status {
            network: Network {
                name: "home".into(),
                id: "00ff".into(),
            },
            node: Own {
                name: "a".into(),
                peer_id: "12D3a".into(),
                ipv4: Some([10, 77, 0, 1].into()),
                ipv6: "fd00::1".parse().unwrap(),
                interface: "hive0".into(),
                listen: vec![],
                reachability: "unknown".into(),
                standing: "member".to_owned(),
                expelled: None,
            },
            peers: vec![Peer {
                name: "b".into(),
                peer_id: "12D3b".into(),
                ipv4: Some([10, 77, 0, 2].into()),
                ipv6: "fd00::2".parse().unwrap(),
                online: true,
                path: "relay".into(),
                endpoint: None,
                relay: Some("r".into()),
                rtt_ms: Some(1.25),
                mtu: Some(1420),
                tx_bytes: 10,
                rx_bytes: 20,
                last_handshake_s: Some(3),
                post_quantum: true,
            }],
            drops: [("forged_source".to_owned(), 2)].into(),
            rejections: [("from-the-future".to_owned(), 3)].into(),
        }
    }

    #[test]
    fn a_peer_may_be_called_by_name_address_or_id() {
        for name in ["b", "10.77.0.2", "fd00::2", "12D3b"] {
            assert_eq!(unmet(&status(), WaitFor::Relay, Some(name)), None, "{name}");
        }
        assert_eq!(
            unmet(&status(), WaitFor::Direct, Some("b")).unwrap(),
            "b is online, path relay"
        );
        assert_eq!(
            unmet(&status(), WaitFor::Online, Some("c")).unwrap(),
            "no member is called c"
        );
    }

    #[test]
    fn an_expelled_node_says_so_first_and_what_to_do() {
        let mut status = status();
        status.node.expelled = Some(Expulsion {
            at: 0,
            reason: "stolen".into(),
        });
        let text = render(&status, Paint(false));
        assert!(text.starts_with("This node was expelled"), "{text}");
        assert!(text.contains("(stolen)") && text.contains("hivevpn restore 12D3a"));
    }

    #[test]
    fn people_see_paths_relays_and_what_went_wrong() {
        let text = render(&status(), Paint(false));
        for part in [
            "home",
            "relay",
            "1.2 ms",
            "dropped: forged_source 2",
            "refused: from-the-future 3",
            "10.77.0.2",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
