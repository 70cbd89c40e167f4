//! What a configuration file may say, and what is said about a wrong one.

use super::*;

fn from_text(text: &str) -> Result<Config, ConfigError> {
    let mut config = Config::default();
    config.apply_file(Path::new("network.toml"), text)?;
    Ok(config)
}

fn error(text: &str) -> String {
    from_text(text).unwrap_err().to_string()
}

/// The commented example is the manual: what it shows must be what happens without it.
#[test]
fn the_example_file_equals_the_defaults() {
    let example = include_str!("../../config/network.toml");
    let config = Config {
        name: None,
        ..from_text(example).unwrap()
    };
    assert_eq!(format!("{config:?}"), format!("{:?}", Config::default()));
}

/// Uncommented, each option of the example must still be valid.
#[test]
fn every_option_in_the_example_is_an_option() {
    let example = include_str!("../../config/network.toml");
    let uncommented: String = example
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(option)
                if option.split_once(" = ").is_some_and(|(key, _)| {
                    key.chars().all(|c| c.is_ascii_lowercase() || c == '_')
                }) =>
            {
                option
            }
            Some(_) | None => line,
        })
        .flat_map(|line| [line, "\n"])
        .collect();
    // The invite alone is no real one: it would not fit the page.
    let shortened = "invite = \"hive1…\"";
    assert!(uncommented.contains(shortened));
    let config = from_text(&uncommented.replace(shortened, "")).unwrap();
    assert!(config.address.is_some() && config.name.is_some());
    assert!(config.publish.len() == 2);
    assert!(!config.bootstrap.is_empty() && !config.external.is_empty());
    assert!(config.password.is_some());
    assert!(config.relay_rate.is_some() && config.relay_members.is_some());
    assert!(format!("{:?}", config.registry).contains("weather/**"));
    assert!(config.services.limits.slots.is_some() && !config.services.limits.groups.is_empty());
    assert!(config.admin.file.is_some() && !config.admin.members.is_empty());
}

#[test]
fn a_wrong_mode_or_service_is_named_with_its_line() {
    assert_eq!(
        error("[network]\npolicy = \"shut\""),
        "network.toml:2: network.policy: 'shut' is none of open, published, closed"
    );
    let wrong = error("[node]\npublish = [\"tcp/22\",\n  \"tcp/0\"]");
    assert!(
        wrong.starts_with("network.toml:3: node.publish: 'tcp/0' is no port"),
        "{wrong}"
    );
}

#[test]
fn a_rate_has_a_unit() {
    let rate = |text: &str| {
        let config = from_text(&format!("[underlay]\nrelay_rate = \"{text}\""));
        config.map(|config| config.relay_rate.unwrap().get())
    };
    assert_eq!(rate("50 MB/s").unwrap(), 50_000_000);
    assert_eq!(rate("1GB/s").unwrap(), 1_000_000_000);
    assert_eq!(rate("64 kB/s").unwrap(), 64_000);
    assert_eq!(rate("9 B/s").unwrap(), 9);
    for wrong in [
        "50",
        "0 MB/s",
        "-1 B/s",
        "1.5 MB/s",
        "50 Mbit/s",
        "99999999999 GB/s",
        "",
    ] {
        let error = rate(wrong).unwrap_err().to_string();
        assert!(
            error.starts_with("network.toml:2: underlay.relay_rate: "),
            "{error}"
        );
    }
}

#[test]
fn relaying_may_be_for_some_members_only() {
    let peer = PeerId::random().to_string();
    let text = format!("[underlay]\nrelay_members = [\"gpu\", \"{peer}\"]");
    let config = from_text(&text).unwrap();
    assert_eq!(config.relay_members, Some(vec!["gpu".to_owned(), peer]));
    assert!(
        error("[underlay]\nrelay_members = [\n\"gpu\",\n\"My Laptop\"]")
            .starts_with("network.toml:4: underlay.relay_members: 'My Laptop' is neither")
    );
}

#[test]
fn an_error_names_file_line_and_option() {
    assert_eq!(
        error("[interface]\nname = \"hive0\"\nmtu = 100\n"),
        "network.toml:3: interface.mtu: 100 is out of range: 1280 (the least that IPv6 allows) to 9000 bytes"
    );
    assert!(
        error("[underlay]\nprot = 1\n")
            .starts_with("network.toml:2: underlay.prot: unknown field `prot`")
    );
    assert!(error("[underlay]\nport = 70000\n").starts_with("network.toml:2: underlay.port: "));
    assert!(error("[underlay\n").starts_with("network.toml:1: "));
    assert!(
        error("\n[underlay]\nrelay = \"maybe\"\n").contains("relay is true, false or \"auto\"")
    );
    assert!(error("[node]\naddress = \"10.77.0\"").contains("'10.77.0' is not an IPv4 address"));
    assert!(
        error("[underlay]\nbootstrap = [\n\"/ip4/1.2.3.4/udp/1/quic-v1\"]")
            .starts_with("network.toml:3: underlay.bootstrap")
    );
    assert!(
        error("[network]\ninvite = \"letmein\"").starts_with("network.toml:2: network.invite: ")
    );
    assert!(error("[interface]\nname = \"much-too-long-a-name\"").contains("interface.name"));
}

#[test]
fn a_bootstrap_string_is_what_id_prints() {
    let peer = PeerId::random();
    let address = format!("/ip4/203.0.113.11/udp/7777/quic-v1/p2p/{peer}");
    let identity = Identity {
        id: peer.to_string(),
        addresses: vec![address.clone()],
    };
    let string = BASE64.encode(serde_json::to_vec(&identity).unwrap());
    let config = from_text(&format!("[underlay]\nbootstrap = [\"{string}\"]")).unwrap();
    assert_eq!(config.bootstrap, [(peer, address.parse().unwrap())]);
}

#[test]
fn a_network_s_prefix_is_private_and_a_network() {
    let founded = |text: &str| from_text(&format!("[network]\nipv4_prefix = \"{text}\""));
    let prefix = founded("10.78.0.0/16").unwrap().ipv4_prefix;
    assert_eq!(prefix, "10.78.0.0/16".parse().unwrap());
    for wrong in [
        "8.8.0.0/16",
        "10.78.0.1/16",
        "10.78.0.0",
        "10.78.0.0/31",
        "fd00::/8",
    ] {
        let error = founded(wrong).unwrap_err().to_string();
        assert!(
            error.starts_with("network.toml:2: network.ipv4_prefix: ") && error.contains("10.78"),
            "{error}"
        );
    }
}

#[test]
fn a_file_with_an_invite_that_everybody_can_read_is_refused_with_the_fix() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("network.toml");
    std::fs::write(&path, "[network]\nname = \"home\"\n").unwrap();
    let config = Config::load(Some(&path), &UpArgs::default()).unwrap();
    assert_eq!(config.secret(), None);
    assert!(check_privacy(&path, None, 0o644).is_ok());
    let invite = Some("an invite");
    assert!(check_privacy(&path, invite, 0o640).is_ok(), "a group's");
    let error = check_privacy(&path, invite, 0o644).unwrap_err().to_string();
    assert!(
        error.contains("an invite") && error.contains("chmod 600") && error.contains("0644"),
        "{error}"
    );
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(read(&path).unwrap().1, 0o640);
}

#[test]
fn the_command_line_wins_over_the_file() {
    let mut config = from_text("[underlay]\nport = 1\nrelay = true\n").unwrap();
    let args = UpArgs {
        port: Some(2),
        ..UpArgs::default()
    };
    config.apply_arguments(&args).unwrap();
    assert_eq!((config.port, config.relay), (Some(2), RelayMode::Always));
}

fn given(password: &str) -> Option<PasswordSource> {
    Some(PasswordSource::Given(Password::new(password).unwrap()))
}

fn up(network: &str) -> UpArgs {
    UpArgs {
        network: Some(network.parse().unwrap()),
        ..UpArgs::default()
    }
}

#[test]
fn a_network_may_bring_its_password() {
    let mut config = Config::default();
    config.apply_arguments(&up("lab:a:b c")).unwrap();
    assert_eq!(
        (config.network.as_str(), &config.password),
        ("lab", &given("a:b c"))
    );
    // A name alone takes nothing away: the password may be in the file.
    config.apply_arguments(&up("lab")).unwrap();
    assert_eq!(config.password, given("a:b c"));
    config.apply_arguments(&up("lab:-")).unwrap();
    assert_eq!(config.password, Some(PasswordSource::File("-".into())));
}

#[test]
fn no_error_shows_a_password() {
    for wrong in [
        "My Lab:sesame",
        ":sesame",
        &format!("lab:{}", "sesame".repeat(500)),
    ] {
        let mut config = Config::default();
        let error = config.apply_arguments(&up(wrong)).unwrap_err();
        let shown = format!("{error} {error:?} {:?}", up(wrong));
        assert!(!shown.contains("sesame"), "{shown}");
    }
    let mut config = Config::default();
    assert!(config.apply_arguments(&up("lab:")).is_err());
}

#[test]
fn a_configuration_with_a_password_must_be_private() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("network.toml");
    let load = |text: &str, mode| {
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        Config::load(Some(&path), &UpArgs::default())
    };
    let with_password = "\n[network]\nname = \"lab:sesame\"\n";
    let error = load(with_password, 0o644).unwrap_err().to_string();
    assert!(
        error.contains("holds the network's password") && error.contains("chmod 600"),
        "{error}"
    );
    assert_eq!(
        load(with_password, 0o600).unwrap().password,
        given("sesame")
    );
    let elsewhere = "[network]\nname = \"lab\"\npassword_file = \"/etc/pw\"";
    let config = load(elsewhere, 0o644).unwrap();
    assert_eq!(
        config.password,
        Some(PasswordSource::File("/etc/pw".into()))
    );
}

#[test]
fn spans_of_time_have_a_unit_and_a_range() {
    assert_eq!(parse_span("24h"), Ok(Duration::from_secs(86_400)));
    assert_eq!(parse_span("7d"), Ok(Duration::from_secs(604_800)));
    for wrong in [
        "",
        "24",
        "h",
        "-1h",
        "0s",
        "366d",
        "99999999999999999999d",
        "1 h",
        "1ü",
    ] {
        assert!(parse_span(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a_reservation_lasts_from_a_minute_to_a_day() {
    let lasting = |text: &str| from_text(&format!("[underlay]\nrelay_reservation = \"{text}\""));
    let minute = lasting("60s").unwrap().relay_reservation;
    assert_eq!(minute, Duration::from_secs(60));
    for wrong in ["59s", "2d", "soon"] {
        let error = lasting(wrong).unwrap_err().to_string();
        assert!(
            error.starts_with("network.toml:2: underlay.relay_reservation: "),
            "{error}"
        );
    }
}
