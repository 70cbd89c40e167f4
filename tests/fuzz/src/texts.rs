//! What people write, and what commands say to the daemon.

use std::path::Path;

use hivevpn::{
    config::Config,
    control::{Reply, Request, Status},
};

/// A configuration file. An error says where it is.
pub fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Err(error) = Config::of_text(Path::new("network.toml"), text) {
        assert!(error.to_string().contains("network.toml"), "{error}");
    }
    let _ = hivevpn::config::parse_span(text);
}

/// A line on the control socket, in either direction.
pub fn control(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(request) = serde_json::from_str::<Request>(text) {
        let again = serde_json::to_string(&request).expect("what was read can be written");
        assert!(serde_json::from_str::<Request>(&again).is_ok());
    }
    if let Ok(Reply::Ok(value)) = serde_json::from_str::<Reply>(text) {
        let _ = serde_json::from_value::<Status>(value);
    }
}

pub(crate) fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let example = include_bytes!("../../../config/network.toml");
    vec![
        ("config", example.to_vec()),
        ("config", b"[node]\nname = \"a\"\n".to_vec()),
        ("config", b"90m".to_vec()),
        ("control", b"{\"command\":\"status\"}".to_vec()),
        (
            "control",
            b"{\"command\":\"bench\",\"peer\":\"b\",\"seconds\":3}".to_vec(),
        ),
        (
            "control",
            b"{\"Ok\":{\"network\":{\"name\":\"home\"}}}".to_vec(),
        ),
    ]
}
