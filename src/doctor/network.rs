//! The checks that are about the network, and mostly need a daemon.

use hivevpn_core::membership::UnixTime;

use super::{Answers, Check, Daemon, Member};
use crate::netcheck;

/// A certificate that has less left than this has missed its renewal for more than a week.
const NEAR_EXPIRY_S: u64 = 7 * DAY_S;
const DAY_S: u64 = 24 * 60 * 60;
/// How far off a clock may be. What is signed allows for ten times as much.
const CLOCK_TOLERANCE_S: u64 = 60;

const SET_CLOCK: &str = "sudo timedatectl set-ntp true (or: sudo date --set …)";

/// The running daemon's answers, or why there are none.
pub(super) fn answers(daemon: &Daemon) -> Result<&Answers, &str> {
    match daemon {
        Daemon::Answers(answers) => Ok(answers),
        Daemon::Starting(_) => Err("the daemon is still starting"),
        Daemon::Absent(_) => Err("no daemon is running"),
        Daemon::Forbidden(_) => Err("only root may ask the daemon: run with sudo"),
        Daemon::Broken(_) => Err("the daemon does not answer"),
    }
}

pub(super) fn certificate(
    membership: &Result<Option<Member>, String>,
    answers: Option<&Answers>,
    now: UnixTime,
) -> Check {
    const NAME: &str = "certificate";
    let member = match membership {
        Ok(Some(member)) => member,
        Ok(None) => return Check::skipped(NAME, "this node is not a member yet"),
        Err(why) => return Check::skipped(NAME, why),
    };
    let (expires, issuer) = match &member.certificate {
        Ok(certificate) => certificate,
        Err(rejection) => {
            return Check::failed(
                NAME,
                format!("this node's certificate cannot be used: {rejection}"),
                "hivevpn invite, at the founder's node; here: sudo hivevpn --state <new directory> up --join <invite>",
            );
        }
    };
    let left = expires.since(now).as_secs();
    if left >= NEAR_EXPIRY_S {
        return Check::fine(NAME, format!("expires in {} days", left / DAY_S));
    }
    let mut nodes = answers.into_iter().flat_map(|answers| &answers.nodes);
    let name = nodes.find(|node| node.peer_id == *issuer);
    let name = name.map_or(issuer.as_str(), |node| &node.name);
    Check::failed(
        NAME,
        format!(
            "expires in {:.1} days: '{name}' should have renewed it by now",
            left as f64 / DAY_S as f64
        ),
        format!("start hivevpn on '{name}', then here: hivevpn status --wait online --peer {name}"),
    )
}

pub(super) fn clock(
    membership: &Result<Option<Member>, String>,
    answers: Result<&Answers, &str>,
    now: UnixTime,
) -> Check {
    const NAME: &str = "clock";
    let floor = membership.as_ref().ok().and_then(Option::as_ref);
    let behind = floor.map_or(0, |member| member.time_floor.since(now).as_secs());
    if behind > CLOCK_TOLERANCE_S {
        return Check::failed(
            NAME,
            format!(
                "the system clock is at least {} behind: that moment has been signed or seen already",
                span(behind)
            ),
            SET_CLOCK,
        );
    }
    let mut clocks: Vec<_> = answers.map_or(Vec::new(), |answers| answers.clocks.iter().collect());
    clocks.sort_by_key(|(_, clock)| clock.ahead_ms);
    // The median: one member with a wrong clock does not make ours wrong.
    let Some((name, middle)) = clocks.get(clocks.len() / 2) else {
        return match (answers, floor) {
            (Ok(_), _) => Check::fine(
                NAME,
                "not earlier than any moment known to have come; no member is connected to compare with",
            ),
            (Err(_), Some(_)) => {
                Check::fine(NAME, "not earlier than any moment known to have come")
            }
            (Err(why), None) => Check::skipped(NAME, why),
        };
    };
    let off = middle
        .ahead_ms
        .unsigned_abs()
        .saturating_sub(middle.within_ms.unsigned_abs())
        / 1000;
    let direction = if middle.ahead_ms > 0 {
        "behind"
    } else {
        "ahead of"
    };
    let compared = match clocks.len() {
        1 => format!("'{name}', the only member to compare with"),
        count => format!("'{name}', the middle of {count} members"),
    };
    if off > CLOCK_TOLERANCE_S {
        return Check::failed(
            NAME,
            format!(
                "the system clock is {} {direction} that of {compared}",
                span(off)
            ),
            SET_CLOCK,
        );
    }
    Check::fine(
        NAME,
        format!(
            "within {:.1} s of {compared}",
            middle.ahead_ms.unsigned_abs() as f64 / 1e3
        ),
    )
}

fn span(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} minutes", seconds / 60),
        7200..=172_799 => format!("{} hours", seconds / 3600),
        _ => format!("{} days", seconds / DAY_S),
    }
}

pub(super) fn udp(answers: Result<&Answers, &str>) -> Check {
    const NAME: &str = "udp";
    let answers = match answers {
        Ok(answers) => answers,
        Err(why) => return Check::skipped(NAME, why),
    };
    let port = answers.underlay.port;
    let found = netcheck::udp(&answers.status, &answers.underlay);
    match found.works {
        Some(true) => Check::fine(NAME, found.reason),
        None => Check::skipped(NAME, found.reason),
        Some(false) => Check::failed(
            NAME,
            format!("UDP is blocked: {}", found.reason),
            format!(
                "allow UDP from and to port {port} in the firewalls of this machine and of its network, e.g. sudo ufw \
                 allow {port}/udp"
            ),
        ),
    }
}

pub(super) fn mtu(answers: Result<&Answers, &str>) -> Check {
    const NAME: &str = "mtu";
    let answers = match answers {
        Ok(answers) => answers,
        Err(why) => return Check::skipped(NAME, why),
    };
    let interface = answers.underlay.mtu;
    let peers = answers.status.peers.iter();
    let direct: Vec<_> = peers
        .filter(|peer| peer.online && peer.path == "direct")
        .filter_map(|peer| Some((peer.mtu?, &peer.name)))
        .collect();
    let narrow: Vec<_> = direct.iter().filter(|(mtu, _)| *mtu < interface).collect();
    let Some((least, _)) = narrow.iter().min() else {
        return match direct.len() {
            0 => Check::skipped(NAME, "no direct path is in use that could be too narrow"),
            count => Check::fine(
                NAME,
                format!("{interface} bytes, and each of {count} direct paths carries as much"),
            ),
        };
    };
    let shown: Vec<_> = narrow
        .iter()
        .map(|(mtu, name)| format!("'{name}' {mtu}"))
        .collect();
    Check::failed(
        NAME,
        format!(
            "the interface takes packets of {interface} bytes, and direct paths carry fewer, to {}: longer datagrams get \
             lost on the way",
            shown.join(", ")
        ),
        format!(
            "mtu = {least} under [interface] in network.toml, or: sudo hivevpn up --mtu {least}"
        ),
    )
}

pub(super) fn relay(answers: Result<&Answers, &str>) -> Check {
    const NAME: &str = "relay";
    let answers = match answers {
        Ok(answers) => answers,
        Err(why) => return Check::skipped(NAME, why),
    };
    let node = &answers.status.node;
    if node.reachability == "public" {
        return Check::fine(NAME, "not needed: anybody can dial this node");
    }
    let offering = || {
        answers
            .nodes
            .iter()
            .filter(|node| node.relays && !node.this)
    };
    let reserved = &answers.underlay.reservations;
    if !reserved.is_empty() {
        let name = |peer_id: &String| {
            let relay = offering().find(|node| node.peer_id == *peer_id);
            relay.map_or(peer_id.clone(), |node| node.name.clone())
        };
        let names: Vec<_> = reserved.iter().map(name).collect();
        return Check::fine(
            NAME,
            format!(
                "{} of {} relays hold a reservation: {}",
                reserved.len(),
                offering().count().max(reserved.len()),
                names.join(", ")
            ),
        );
    }
    let reachability = &node.reachability;
    match offering().next() {
        Some(relay) => Check::failed(
            NAME,
            format!(
                "this node's reachability is {reachability}, and none of {} relays holds a reservation for it: members \
                 behind other NATs may not reach it",
                offering().count()
            ),
            format!("hivevpn status --wait online --peer {}", relay.name),
        ),
        None => Check::failed(
            NAME,
            format!(
                "this node's reachability is {reachability}, and 0 members offer to relay: members behind other NATs may \
                 not reach it"
            ),
            "on a machine with a public address: sudo hivevpn up --join <what 'hivevpn invite' prints>; behind a \
             forwarded port: relay = true under [underlay] in its network.toml",
        ),
    }
}
