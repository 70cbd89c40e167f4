//! The other members: where they are, how they are reached, what goes by.

use std::net::Ipv4Addr;

use crate::{
    commands::bytes,
    control::Peer,
    top::{
        known::{Known, Traffic},
        table::{Cell, Column, Row, Table, Tone},
    },
};

/// Wide enough for 999.9 MB/s.
const RATE: u16 = 10;

const COLUMNS: &[Column] = &[
    Column::words("PEER", 0, 16),
    Column::words("ADDRESS", 5, 15),
    Column::words("PATH", 1, 8),
    Column::words("ENDPOINT", 8, 21),
    Column::numbers("RTT", 4, 8),
    Column::numbers("IN", 2, RATE),
    Column::numbers("OUT", 3, RATE),
    Column::numbers("RECEIVED", 6, 8),
    Column::numbers("SENT", 6, 8),
    Column::numbers("HANDSHAKE", 7, 9),
];

pub(super) fn table(known: &Known) -> Table {
    let peers = known.status.value.iter().flat_map(|status| &status.peers);
    let nobody = Traffic::default();
    let mut rows: Vec<_> = peers
        .map(|peer| {
            let traffic = known.traffic.get(&peer.peer_id);
            row(peer, traffic.unwrap_or(&nobody))
        })
        .collect();
    rows.sort_by(|one, other| one.cells[0].text.cmp(&other.cells[0].text));
    Table {
        columns: COLUMNS,
        rows,
        nothing: match &known.status.value {
            None => String::new(),
            Some(_) => "no other member yet: 'hivevpn invite' prints a string that lets one join"
                .to_owned(),
        },
    }
}

fn row(peer: &Peer, traffic: &Traffic) -> Row {
    let Traffic { sent, received } = traffic;
    let tone = if peer.online {
        Tone::Plain
    } else {
        Tone::Faint
    };
    let handshake = peer.last_handshake_s;
    Row {
        id: peer.peer_id.clone(),
        rank: u8::from(!peer.online),
        cells: vec![
            Cell::word(&peer.name).meant(tone),
            address(peer).meant(tone),
            path(peer),
            endpoint(peer).meant(Tone::Faint),
            Cell::maybe(peer.rtt_ms, |rtt| format!("{rtt:.1} ms")),
            rate(received.rate()),
            rate(sent.rate()),
            Cell::number(peer.rx_bytes as f64, bytes(peer.rx_bytes)).meant(tone),
            Cell::number(peer.tx_bytes as f64, bytes(peer.tx_bytes)).meant(tone),
            Cell::maybe(handshake.map(|age| age as f64), |age| {
                format!("{age} s ago")
            }),
        ],
        more: vec![
            ("peer id", peer.peer_id.clone()),
            ("ipv6", peer.ipv6.to_string()),
            ("packets", packets(peer)),
        ],
    }
}

fn address(peer: &Peer) -> Cell {
    match peer.ipv4 {
        Some(ipv4) => Cell::number(Ipv4Addr::to_bits(ipv4).into(), ipv4.to_string()),
        None => Cell::word(peer.ipv6.to_string()),
    }
}

/// With the relay's name behind it.
fn path(peer: &Peer) -> Cell {
    let relay = peer.relay.as_ref();
    let path = relay.map_or_else(
        || peer.path.clone(),
        |relay| format!("{} {relay}", peer.path),
    );
    Cell::word(path).meant(match peer.path.as_str() {
        "direct" => Tone::Good,
        "none" => Tone::Bad,
        _ => Tone::Fair,
    })
}

fn endpoint(peer: &Peer) -> Cell {
    let endpoint = peer.endpoint.as_ref();
    endpoint.map_or_else(Cell::nothing, Cell::word)
}

/// What goes by is what to see first.
fn rate(rate: Option<f64>) -> Cell {
    let cell = Cell::maybe(rate, |rate| format!("{}/s", bytes(rate as u64)));
    match rate {
        Some(rate) if rate >= 1.0 => cell.meant(Tone::Strong),
        Some(_) | None => cell.meant(Tone::Faint),
    }
}

fn packets(peer: &Peer) -> String {
    let keys = match peer.post_quantum {
        true => "ML-KEM-768 and X25519",
        false => "X25519",
    };
    match peer.mtu {
        Some(mtu) => format!("up to {mtu} bytes, keyed with {keys}"),
        None => format!("keyed with {keys}"),
    }
}
