//! The service's unit is valid and leaves the daemon little to misuse.

use std::process::Command;

use crate::node::HIVEVPN;

/// `systemd-analyze security` rates from 0 (nothing can be misused) to 10; below 3 it says OK.
const HIGHEST_EXPOSURE: &str = "--threshold=25";

/// Runs `systemd-analyze` with the unit, whose program is the one under test. None where there is no systemd.
fn analyze(verb: &str, options: &[&str]) -> Option<std::process::Output> {
    let unit = include_str!("../../config/hivevpn.service").replace("/usr/bin/hivevpn", HIVEVPN);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("hivevpn.service");
    std::fs::write(&path, unit).unwrap();
    match Command::new("systemd-analyze")
        .arg(verb)
        .args(options)
        .arg(&path)
        .output()
    {
        Ok(output) => Some(output),
        Err(error) => {
            println!("skipped: systemd-analyze: {error}");
            None
        }
    }
}

#[test]
fn the_unit_is_valid() {
    let Some(output) = analyze("verify", &["--man=no"]) else {
        return;
    };
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(!said.contains("hivevpn.service"), "a complaint: {said}");
}

#[test]
fn the_unit_leaves_little_to_misuse() {
    let options = ["--offline=true", "--no-pager", HIGHEST_EXPOSURE];
    let Some(output) = analyze("security", &options) else {
        return;
    };
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
}
