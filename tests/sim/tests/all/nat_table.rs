//! Every kind of gateway with every other: how long the first packet takes, which path the pair ends up with, and when.
//!
//! The table is a file beside this one, so that a change to the core shows here what it does to every pair.
//! `UPDATE=1 cargo test nat_table` writes it anew.

use std::{fmt::Write, fs, path::Path, time::Duration};

use hivevpn_sim::{
    clock::{millis, seconds},
    nat::NatKind,
    theory::{self, Best},
    underlay::{GOOD_LINE, GatewayKind},
    world::World,
};

const KINDS: [(&str, GatewayKind); 8] = [
    ("open", GatewayKind::Open),
    ("firewall", GatewayKind::Nat(NatKind::FIREWALL)),
    ("full cone", GatewayKind::Nat(NatKind::FULL_CONE)),
    (
        "address-restricted",
        GatewayKind::Nat(NatKind::ADDRESS_RESTRICTED),
    ),
    (
        "port-restricted",
        GatewayKind::Nat(NatKind::PORT_RESTRICTED),
    ),
    ("port-remapping", GatewayKind::Nat(NatKind::PORT_REMAPPING)),
    ("symmetric", GatewayKind::Nat(NatKind::SYMMETRIC)),
    ("no UDP", GatewayKind::NoUdp),
];
/// From the start of both to the best path.
const LIMIT: Duration = seconds(15);
const STEP: Duration = millis(50);

struct Row {
    first_packet: Option<Duration>,
    best_at: Option<Duration>,
    path: &'static str,
}

/// Host 0 is public and relays; host 1 and host 2 are behind the two gateways.
fn meet(a: GatewayKind, b: GatewayKind) -> Row {
    let mut world = World::new(1);
    for (kind, start) in [(GatewayKind::Open, 0), (a, 100), (b, 100)] {
        let site = world.add_site(kind, GOOD_LINE);
        world.add_host(site, millis(start));
    }
    world.run_for(millis(100));
    let best = theory::best_between(a, b);
    let begin = world.now();
    let (mut first_packet, mut best_at, mut asked) = (None, None, Vec::new());
    while world.now() - begin < LIMIT * 2 {
        asked.push(world.ask(1, 2, 100));
        world.run_for(STEP);
        let mut answers = asked
            .iter()
            .filter_map(|asked| world.echo.get(*asked).answered);
        first_packet = first_packet.or_else(|| answers.next().map(|at| at - begin));
        let kinds = [world.kind_of_path(1, 2), world.kind_of_path(2, 1)];
        let is_best = kinds == [best.name(); 2];
        best_at = best_at
            .filter(|_| is_best)
            .or(is_best.then(|| world.now() - begin));
    }
    assert_eq!(world.broken(), [], "{a:?} and {b:?}");
    Row {
        first_packet,
        best_at,
        path: world.kind_of_path(1, 2),
    }
}

fn table() -> (String, Vec<String>) {
    let (mut table, mut late) = (String::new(), Vec::new());
    let time = |at: Option<Duration>| {
        at.map_or("never".to_owned(), |at| {
            format!("{:.2} s", at.as_secs_f64())
        })
    };
    let line = |table: &mut String, cells: [&str; 5]| {
        let [a, b, first, best, path] = cells;
        writeln!(table, "{a:<18} × {b:<18}  {first:>12}  {best:>12}  {path}")
            .expect("a string takes everything");
    };
    line(&mut table, ["", "", "first packet", "best path at", "path"]);
    for (at, (name, kind)) in KINDS.iter().enumerate() {
        for (other, other_kind) in &KINDS[at..] {
            let row = meet(*kind, *other_kind);
            let (first, best) = (time(row.first_packet), time(row.best_at));
            line(&mut table, [name, other, &first, &best, row.path]);
            let wanted = theory::best_between(*kind, *other_kind).name();
            let is_late = |at: Option<Duration>| at.is_none_or(|at| at > LIMIT);
            if is_late(row.first_packet) || is_late(row.best_at) || row.path != wanted {
                late.push(format!(
                    "{name} × {other}: {} after {best}, first packet after {first}, should be {wanted}",
                    row.path
                ));
            }
        }
    }
    (table, late)
}

#[test]
fn every_pair_of_gateways_finds_its_best_path_in_time() {
    let (table, late) = table();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/nat_table.txt");
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&file, &table).unwrap();
    }
    assert_eq!(late, Vec::<String>::new());
    let known = fs::read_to_string(&file).unwrap();
    assert!(
        known == table,
        "the table has changed; if for the better: UPDATE=1 cargo test nat_table\n{table}"
    );
}

/// Nothing else may be relayed: what hard pairs are is decided by theory, not by the core.
#[test]
fn only_what_no_patience_can_punch_is_relayed() {
    let relayed = |a: &GatewayKind, b: &GatewayKind| theory::best_between(*a, *b) == Best::Relay;
    for (at, (name, kind)) in KINDS.iter().enumerate() {
        for (other, other_kind) in &KINDS[at..] {
            let is_hard = match (*name, *other) {
                ("open", _) | (_, "open") => false,
                (_, "no UDP") | ("symmetric", "symmetric") => true,
                (stable, "symmetric") => {
                    ["firewall", "port-restricted", "port-remapping"].contains(&stable)
                }
                _ => false,
            };
            assert_eq!(relayed(kind, other_kind), is_hard, "{name} × {other}");
        }
    }
}
