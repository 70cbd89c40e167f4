use std::os::unix::fs::symlink;

use proptest::prelude::*;

use super::*;

fn standing(domain: &str, number: u8, search: bool) -> Standing {
    let pid = std::process::id();
    Standing {
        domain: domain.to_owned(),
        server: IpAddr::from([10, 77, 0, number]),
        search,
        process: (pid, process::started(pid).unwrap()),
    }
}

/// Of a process that never was.
fn dead(number: u8) -> Standing {
    Standing {
        process: (u32::MAX, 1),
        ..standing("home.hive.internal", number, false)
    }
}

fn a_file(text: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("resolv.conf");
    fs::write(&path, text).unwrap();
    (directory, path)
}

/// The lines that programs read.
fn settings(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(str::to_owned).collect()
}

const BEFORE: &[u8] =
    b"# by hand\nsearch lan\nnameserver 192.168.1.1\noptions edns0\nnameserver fe80::1%2";

#[test]
fn we_stand_in_front_and_everything_else_goes_on() {
    let (_directory, path) = a_file(BEFORE);
    let file = ResolvConf::open(&path).unwrap();
    let behind = file
        .stand_in_front(standing("home.hive.internal", 2, true))
        .unwrap();
    assert_eq!(
        behind,
        [
            "192.168.1.1:53".parse().unwrap(),
            "[fe80::1%2]:53".parse().unwrap()
        ]
    );
    assert_eq!(
        settings(&path),
        [
            "nameserver 10.77.0.2",
            "nameserver 192.168.1.1",
            "options edns0",
            "nameserver fe80::1%2",
            "search home.hive.internal lan",
        ]
    );
    file.step_back("10.77.0.2".parse().unwrap()).unwrap();
    assert_eq!(fs::read(&path).unwrap(), BEFORE);
}

#[test]
fn without_search_the_machine_searches_where_it_did() {
    let (_directory, path) = a_file(b"domain lan\n");
    let file = ResolvConf::open(&path).unwrap();
    let behind = file
        .stand_in_front(standing("home.hive.internal", 2, false))
        .unwrap();
    assert_eq!(
        behind,
        [SocketAddr::from(([127, 0, 0, 1], 53))],
        "who names none means this"
    );
    assert_eq!(settings(&path), ["nameserver 10.77.0.2", "domain lan"]);
}

#[test]
fn networks_come_and_go_in_any_order() {
    let (_directory, path) = a_file(BEFORE);
    let [home, work] = [
        ResolvConf::open(&path).unwrap(),
        ResolvConf::open(&path).unwrap(),
    ];
    home.stand_in_front(standing("home.hive.internal", 2, true))
        .unwrap();
    let behind = work
        .stand_in_front(standing("work.hive.internal", 3, true))
        .unwrap();
    assert_eq!(
        behind[0],
        "192.168.1.1:53".parse().unwrap(),
        "not the other network's"
    );
    assert!(
        settings(&path).contains(&"search home.hive.internal work.hive.internal lan".to_owned())
    );
    let [first, last] = [2, 3].map(|number| IpAddr::from([10, 77, 0, number]));
    assert!(!home.is_last(first) && work.is_last(last));
    home.step_back("10.77.0.2".parse().unwrap()).unwrap();
    assert_eq!(settings(&path)[0], "nameserver 10.77.0.3");
    work.step_back("10.77.0.3".parse().unwrap()).unwrap();
    assert_eq!(fs::read(&path).unwrap(), BEFORE);
}

#[test]
fn what_a_killed_daemon_left_is_taken_away_but_not_what_stands() {
    let (_directory, path) = a_file(BEFORE);
    let file = ResolvConf::open(&path).unwrap();
    assert_eq!(repair(&path).unwrap(), Repair::Nothing);
    file.stand_in_front(dead(2)).unwrap();
    assert_eq!(repair(&path).unwrap(), Repair::Repaired);
    assert_eq!(fs::read(&path).unwrap(), BEFORE);

    file.stand_in_front(standing("work.hive.internal", 3, false))
        .unwrap();
    assert_eq!(repair(&path).unwrap(), Repair::Nothing);
    file.change(|parts| parts.standing.push(dead(2))).unwrap();
    assert_eq!(repair(&path).unwrap(), Repair::Repaired);
    assert_eq!(
        settings(&path)[..2],
        ["nameserver 10.77.0.3", "search lan"].map(str::to_owned)
    );
}

#[test]
fn what_somebody_else_has_changed_is_left_alone() {
    let (_directory, path) = a_file(BEFORE);
    let file = ResolvConf::open(&path).unwrap();
    file.stand_in_front(dead(2)).unwrap();
    let mut text = fs::read(&path).unwrap();
    text.extend(b"nameserver 9.9.9.9\n");
    fs::write(&path, &text).unwrap();
    assert_eq!(repair(&path).unwrap(), Repair::LeftAlone);
    let why = file
        .step_back("10.77.0.2".parse().unwrap())
        .unwrap_err()
        .to_string();
    assert!(why.contains("somebody else"), "{why}");
    file.stand_in_front(dead(3)).unwrap_err();
    assert_eq!(fs::read(&path).unwrap(), text);

    fs::write(&path, "nameserver 9.9.9.9\n").unwrap();
    assert_eq!(repair(&path).unwrap(), Repair::Nothing);
    file.step_back("10.77.0.2".parse().unwrap()).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"nameserver 9.9.9.9\n");
}

#[test]
fn another_file_in_its_place_is_left_alone() {
    let (directory, path) = a_file(BEFORE);
    let file = ResolvConf::open(&path).unwrap();
    file.stand_in_front(dead(2)).unwrap();
    let other = directory.path().join("other");
    fs::write(&other, "nameserver 9.9.9.9\n").unwrap();
    fs::rename(&other, &path).unwrap();
    let why = file
        .step_back("10.77.0.2".parse().unwrap())
        .unwrap_err()
        .to_string();
    assert!(why.contains("another file"), "{why}");
    assert_eq!(fs::read(&path).unwrap(), b"nameserver 9.9.9.9\n");
}

#[test]
fn a_symbolic_link_stays_one() {
    let (directory, path) = a_file(BEFORE);
    let link = directory.path().join("link");
    symlink(&path, &link).unwrap();
    let file = ResolvConf::open(&link).unwrap();
    file.stand_in_front(dead(2)).unwrap();
    assert_eq!(settings(&path)[0], "nameserver 10.77.0.2");
    assert_eq!(repair(&link).unwrap(), Repair::Repaired);
    assert!(link.is_symlink());
    assert_eq!(fs::read(&path).unwrap(), BEFORE);
}

#[test]
fn no_file_is_no_reason_to_make_one() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("resolv.conf");
    assert_eq!(repair(&path).unwrap(), Repair::Nothing);
    ResolvConf::open(&path).unwrap_err();
    assert!(!path.exists());
}

proptest! {
    #[test]
    fn whatever_was_there_is_put_back(before in prop::collection::vec(any::<u8>(), 0..300), lines: bool) {
        let before: Vec<u8> = before
            .into_iter()
            .map(|byte| if lines && byte > 200 { b'\n' } else { byte })
            .collect();
        let (_directory, path) = a_file(&before);
        let file = ResolvConf::open(&path).unwrap();
        file.stand_in_front(dead(2)).unwrap();
        prop_assert_ne!(&fs::read(&path).unwrap(), &before);
        prop_assert_eq!(repair(&path).unwrap(), Repair::Repaired);
        prop_assert_eq!(fs::read(&path).unwrap(), before);
    }

    #[test]
    fn whatever_a_file_says_it_is_no_reason_to_panic(rest in prop::collection::vec("(# hivevpn: |#\\| |#\\\\ |a|1|\n| ){0,20}", 0..5)) {
        let text = format!("{FIRST}\n{}", rest.concat());
        let (_directory, path) = a_file(text.as_bytes());
        let _ = repair(&path);
    }
}
