use std::{collections::BTreeMap, path::Path};

use super::*;
use crate::control::{Connection, ControlTraffic, Network, Own, Peer, Transport};

const NOW: UnixTime = UnixTime(1_800_000_000);
const DAY: u64 = 24 * 60 * 60;

fn range() -> Ipv4Net {
    "10.77.0.0/16".parse().unwrap()
}

fn node(name: &str, relays: bool) -> Node {
    Node {
        name: name.to_owned(),
        peer_id: format!("12D3{name}"),
        ipv4: None,
        ipv6: "fd00::1".parse().unwrap(),
        this: name == "a",
        online: true,
        relays,
        groups: Vec::new(),
        powers: Vec::new(),
        admitted_at: 0,
    }
}

fn peer(name: &str, path: &str, mtu: u16) -> Peer {
    Peer {
        name: name.to_owned(),
        peer_id: format!("12D3{name}"),
        ipv4: None,
        ipv6: "fd00::2".parse().unwrap(),
        online: true,
        path: path.to_owned(),
        endpoint: None,
        relay: None,
        rtt_ms: Some(2.0),
        mtu: Some(mtu),
        tx_bytes: 0,
        rx_bytes: 0,
        last_handshake_s: Some(1),
        post_quantum: true,
    }
}

/// A private node `a` that reaches the public `r` directly and `b` through it.
fn answers() -> Answers {
    Answers {
        status: Status {
            network: Network {
                name: "home".into(),
                id: "ab".into(),
            },
            node: Own {
                name: "a".into(),
                peer_id: "12D3a".into(),
                ipv4: None,
                ipv6: "fd00::1".parse().unwrap(),
                interface: "hive0".into(),
                listen: Vec::new(),
                reachability: "private".into(),
                standing: "member".to_owned(),
                expelled: None,
            },
            peers: vec![peer("b", "relay", 1420), peer("r", "direct", 1420)],
            drops: BTreeMap::new(),
            rejections: BTreeMap::new(),
        },
        nodes: vec![node("a", false), node("b", false), node("r", true)],
        underlay: Underlay {
            port: 7777,
            mtu: 1420,
            ipv4_prefix: range().to_string(),
            certificate_expires_at: NOW.0 + 20 * DAY,
            certificate_issuer: "12D3r".into(),
            time_floor: NOW.0,
            reservations: vec!["12D3r".into()],
            connections: vec![Connection {
                peer_id: "12D3r".into(),
                transport: Transport::Quic,
                endpoint: None,
            }],
            port_mapping: None,
            observations: Vec::new(),
            addresses: Vec::new(),
            control_traffic: ControlTraffic::default(),
        },
        clocks: vec![("r".into(), clock(250))],
    }
}

fn clock(ahead_ms: i64) -> Clock {
    Clock {
        ahead_ms,
        within_ms: 5,
    }
}

fn member() -> Member {
    Member {
        certificate: Ok((
            NOW.plus(20 * std::time::Duration::from_secs(DAY)),
            "12D3r".into(),
        )),
        time_floor: NOW,
    }
}

fn defaults() -> ConfigFile {
    ConfigFile {
        path: None,
        valid: Ok(()),
        holds_invite: false,
    }
}

/// A healthy node, with its daemon.
fn healthy() -> Facts {
    Facts {
        is_root: true,
        may_configure_interfaces: true,
        executable: "/usr/bin/hivevpn".into(),
        driver: Ok(()),
        config: defaults(),
        state: "/var/lib/hivevpn".into(),
        secrets: Vec::new(),
        user: ("hivevpn".into(), true),
        disk: Ok(DiskSpace {
            bytes: 1 << 30,
            files: Some(1000),
        }),
        port: Port {
            number: 7777,
            udp: Err(io::ErrorKind::AddrInUse.into()),
            tcp: Err(io::ErrorKind::AddrInUse.into()),
        },
        daemon: Daemon::Answers(Box::new(answers())),
        membership: Ok(Some(member())),
        range: (range(), Ok(None)),
        has_ipv6: true,
        underlay_ipv6: Vec::new(),
        now: NOW,
    }
}

/// A healthy machine before the first start.
fn fresh() -> Facts {
    Facts {
        secrets: vec![SecretFileError::Missing("/var/lib/hivevpn".into())],
        port: Port {
            number: 7777,
            udp: Ok(()),
            tcp: Ok(()),
        },
        daemon: Daemon::Absent("no daemon answers".into()),
        membership: Ok(None),
        ..healthy()
    }
}

/// What the one daemon's answers make of the healthy node.
fn with_answers(change: impl FnOnce(&mut Answers)) -> Facts {
    let mut answers = answers();
    change(&mut answers);
    Facts {
        daemon: Daemon::Answers(Box::new(answers)),
        ..healthy()
    }
}

/// Asserts that this check alone fails, with all words in its message and fix.
fn fails(facts: &Facts, name: &str, words: &[&str]) {
    let checks = judge(facts);
    let failed: Vec<_> = checks.iter().filter(|check| !check.ok).collect();
    let [failed] = &failed[..] else {
        panic!("{failed:#?}");
    };
    assert_eq!(failed.check, name, "{failed:?}");
    let said = format!("{} {}", failed.message, failed.fix.as_ref().unwrap());
    for word in words {
        assert!(said.contains(word), "no {word:?} in {said:?}");
    }
}

/// The message of a check that is fine or skipped.
fn says(facts: &Facts, name: &str) -> String {
    let checks = judge(facts);
    let found = checks.into_iter().find(|check| check.check == name);
    let found = found.unwrap();
    assert!(found.ok && found.fix.is_none(), "{found:?}");
    found.message
}

fn on_fresh(change: impl FnOnce(&mut Facts)) -> Facts {
    let mut facts = fresh();
    change(&mut facts);
    // Its absence is a failure of its own, which is not what these are about.
    facts.daemon = Daemon::Forbidden("only root may ask".into());
    facts
}

#[test]
fn a_healthy_node_passes_everything() {
    for check in judge(&healthy()) {
        assert!(
            check.ok && !check.skipped && check.fix.is_none(),
            "{check:?}"
        );
    }
}

#[test]
fn a_machine_before_the_first_start_lacks_the_daemon_alone() {
    fails(
        &fresh(),
        "daemon",
        &["no daemon answers", "sudo hivevpn up"],
    );
    assert!(says(&fresh(), "state").contains("not there yet"));
    assert!(says(&fresh(), "port").contains("7777 are free"));
    for name in ["certificate", "clock", "udp", "mtu", "relay"] {
        assert!(says(&fresh(), name).starts_with("skipped: "), "{name}");
    }
}

#[test]
fn a_missing_tun_driver_and_a_forbidden_one_are_told_apart() {
    let facts = on_fresh(|facts| facts.driver = Err(TunError::NoDriver));
    fails(&facts, "tun", &["/dev/net/tun", "modprobe tun"]);
    let facts = on_fresh(|facts| facts.driver = Err(TunError::DriverForbidden));
    fails(&facts, "tun", &["may not be opened", "--device"]);
    let running = Facts {
        driver: Err(TunError::DriverForbidden),
        is_root: false,
        ..healthy()
    };
    assert!(says(&running, "tun").contains("the daemon has it"));
}

#[test]
fn a_missing_capability_matters_unless_the_daemon_has_it() {
    let facts = on_fresh(|facts| facts.may_configure_interfaces = false);
    fails(
        &facts,
        "capability",
        &["CAP_NET_ADMIN", "setcap cap_net_admin+ep /usr/bin/hivevpn"],
    );
    let running = Facts {
        may_configure_interfaces: false,
        ..healthy()
    };
    assert!(says(&running, "capability").contains("the daemon has"));
}

#[test]
fn a_configuration_is_valid_and_private_while_it_holds_an_invite() {
    let file = |valid, holds_invite| ConfigFile {
        path: Some("network.toml".into()),
        valid,
        holds_invite,
    };
    assert!(local::config(&file(Ok(()), false), true).ok);
    assert!(local::config(&file(Ok(()), true), true).ok);
    let exposed = ConfigError::Exposed {
        path: "network.toml".into(),
        what: "an invite",
        mode: 0o644,
    };
    let loose = local::config(&file(Err(exposed), false), true);
    assert_eq!(loose.fix.as_deref(), Some("chmod 600 network.toml"));
    assert!(loose.message.contains("0644"), "{loose:?}");

    let broken = ConfigError::Syntax {
        path: "network.toml".into(),
        line: 2,
        message: "unknown field".into(),
    };
    let broken = local::config(&file(Err(broken), false), true);
    assert!(!broken.ok && broken.message.starts_with("network.toml:2: unknown field"));
    let unreadable = || ConfigError::Unreadable {
        path: "network.toml".into(),
        error: io::ErrorKind::PermissionDenied.into(),
    };
    assert!(local::config(&file(Err(unreadable()), false), false).skipped);
    assert!(!local::config(&file(Err(unreadable()), false), true).ok);
}

#[test]
fn a_user_that_is_named_must_exist_and_the_usual_one_need_not() {
    let user = |name: &str, exists| Facts {
        user: (name.into(), exists),
        ..healthy()
    };
    assert!(says(&user("hivevpn", true), "user").contains("becomes the user 'hivevpn'"));
    let without = user("hivevpn", false);
    assert!(says(&without, "user").contains("useradd --system"));
    fails(
        &user("nobody-here", false),
        "user",
        &["nobody-here", "useradd"],
    );
}

#[test]
fn loose_secrets_are_named_with_the_command_that_mends_them() {
    let facts = Facts {
        secrets: vec![
            SecretFileError::LooseDirectory {
                path: "/var/lib/hivevpn".into(),
                mode: 0o755,
            },
            SecretFileError::LooseFile {
                path: "/var/lib/hivevpn/wg.key".into(),
                mode: 0o644,
            },
            SecretFileError::Missing("/var/lib/hivevpn/authority.key".into()),
        ],
        ..healthy()
    };
    let fix = "chmod 700 /var/lib/hivevpn && chmod 600 /var/lib/hivevpn/wg.key";
    fails(&facts, "state", &["0755", "0644", fix]);
    let hidden = SecretFileError::Io {
        action: "open",
        path: "/var/lib/hivevpn/wg.key".into(),
        source: io::ErrorKind::PermissionDenied.into(),
    };
    let check = local::state(&[hidden], Path::new("/var/lib/hivevpn"));
    assert!(check.skipped && check.message.contains("sudo"), "{check:?}");
}

#[test]
fn a_full_disk_is_found_by_bytes_and_by_files() {
    let left = |bytes, files| Facts {
        disk: Ok(DiskSpace { bytes, files }),
        ..healthy()
    };
    fails(&left(8192, None), "disk", &["0.0 MB", "df -h"]);
    fails(&left(1 << 30, Some(0)), "disk", &["inodes", "df -i"]);
    assert!(says(&left(1 << 30, None), "disk").contains("1073.7 MB"));
}

#[test]
fn a_port_is_taken_by_another_program_or_by_our_daemon() {
    let in_use = || Err(io::ErrorKind::AddrInUse.into());
    let port = |udp, tcp| Port {
        number: 7777,
        udp,
        tcp,
    };
    let absent = Daemon::Absent("none".into());
    let udp = local::port(&port(in_use(), Ok(())), &absent);
    assert!(!udp.ok && udp.message.contains("UDP port 7777 is in use"));
    assert!(udp.fix.unwrap().contains("port = 7778"));
    let tcp = local::port(&port(Ok(()), in_use()), &absent);
    assert!(!tcp.ok && tcp.fix.unwrap().contains("ss -ltnp"));
    let forbidden = Err(io::ErrorKind::PermissionDenied.into());
    let low = local::port(&port(forbidden, Ok(())), &absent);
    assert!(!low.ok && low.message.contains("no permission"));
    let perhaps = local::port(&port(in_use(), Ok(())), &Daemon::Forbidden("sudo".into()));
    assert!(perhaps.skipped && perhaps.message.contains("perhaps by our daemon"));
    assert!(says(&healthy(), "port").contains("our daemon's"));
}

#[test]
fn a_network_in_the_way_is_named_with_its_interface() {
    let facts = Facts {
        range: (
            range(),
            Ok(Some(Clash {
                interface: "docker0".into(),
                network: "10.77.3.0/24".parse().unwrap(),
            })),
        ),
        ..healthy()
    };
    let words = ["10.77.0.0/16", "10.77.3.0/24", "docker0", "ip route del"];
    fails(&facts, "overlay-range", &words);
}

#[test]
fn ipv6_that_is_turned_off_is_wrong_and_an_underlay_without_it_is_not() {
    let facts = Facts {
        has_ipv6: false,
        ..healthy()
    };
    fails(&facts, "ipv6", &["sysctl net.ipv6.conf.all.disable_ipv6=0"]);
    assert!(says(&healthy(), "ipv6").contains("0 global IPv6 addresses"));
}

#[test]
fn a_certificate_that_was_not_renewed_in_time_is_found() {
    let expiring = |seconds: u64| {
        let mut member = member();
        member.certificate = Ok((UnixTime(NOW.0 + seconds), "12D3r".into()));
        Facts {
            membership: Ok(Some(member)),
            ..healthy()
        }
    };
    fails(&expiring(DAY / 2), "certificate", &["0.5 days", "--peer r"]);
    assert_eq!(says(&expiring(8 * DAY), "certificate"), "expires in 8 days");
    let mut member = member();
    member.certificate = Err("it has expired".into());
    let facts = Facts {
        membership: Ok(Some(member)),
        ..healthy()
    };
    fails(&facts, "certificate", &["it has expired", "hivevpn invite"]);
}

#[test]
fn a_clock_that_is_behind_what_was_signed_is_wrong_without_asking_anybody() {
    let mut behind = member();
    behind.time_floor = UnixTime(NOW.0 + 3 * 3600);
    let facts = Facts {
        membership: Ok(Some(behind)),
        ..healthy()
    };
    fails(&facts, "clock", &["at least 3 hours behind", "timedatectl"]);
}

#[test]
fn a_clock_is_compared_with_the_middle_of_the_members_clocks() {
    let with = |ahead: &[i64]| {
        with_answers(|answers| {
            let clocks = ahead.iter().enumerate();
            answers.clocks = clocks
                .map(|(at, ahead)| (format!("m{at}"), clock(*ahead)))
                .collect();
        })
    };
    fails(
        &with(&[7_200_000]),
        "clock",
        &["119 minutes behind", "'m0', the only member"],
    );
    let ahead = with(&[-90_100, -90_000, -95_000]);
    fails(&ahead, "clock", &["90 s ahead of", "middle of 3"]);
    // One of three is off: that is its own problem.
    assert!(says(&with(&[7_200_000, 300, -200]), "clock").contains("0.3 s"));
    assert!(says(&with(&[]), "clock").contains("no member"));
}

#[test]
fn blocked_udp_shows_in_the_connections_there_are() {
    let facts = with_answers(|answers| {
        answers.status.peers[1].path = "stream".into();
        answers.underlay.connections[0].transport = Transport::Tcp;
    });
    fails(&facts, "udp", &["UDP is blocked", "7777/udp"]);
    let alone = with_answers(|answers| {
        for peer in &mut answers.status.peers {
            peer.online = false;
        }
    });
    assert!(says(&alone, "udp").starts_with("skipped"));
}

#[test]
fn a_path_that_swallows_long_packets_is_found() {
    let facts = with_answers(|answers| answers.status.peers[1].mtu = Some(1340));
    fails(
        &facts,
        "mtu",
        &["1420", "'r' 1340", "mtu = 1340 under [interface]"],
    );
    assert!(says(&healthy(), "mtu").contains("each of 1 direct paths"));
}

#[test]
fn a_private_node_without_a_reservation_has_no_relay() {
    let facts = with_answers(|answers| answers.underlay.reservations.clear());
    fails(&facts, "relay", &["none of 1 relays", "--peer r"]);
    let facts = with_answers(|answers| {
        answers.underlay.reservations.clear();
        answers.nodes.retain(|node| !node.relays);
    });
    fails(&facts, "relay", &["0 members offer", "relay = true"]);
    let public = with_answers(|answers| {
        answers.underlay.reservations.clear();
        answers.status.node.reachability = "public".into();
    });
    assert!(says(&public, "relay").contains("not needed"));
    assert_eq!(
        says(&healthy(), "relay"),
        "1 of 1 relays hold a reservation: r"
    );
}

#[test]
fn machines_see_four_fields() {
    let value = serde_json::to_value(judge(&fresh())).unwrap();
    assert_eq!(value[0]["check"], "daemon");
    assert_eq!(value[0]["ok"], false);
    let fields: Vec<_> = value[1].as_object().unwrap().keys().collect();
    assert_eq!(fields, ["check", "fix", "message", "ok"]);
    assert!(value[1]["fix"].is_null());
}
