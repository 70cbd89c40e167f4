//! `hivevpn version`

use anyhow::Result;
use serde_json::json;

use crate::cli::JsonArg;

/// Prints the version of this program.
pub fn run(args: &JsonArg) -> Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    if args.json {
        super::print_json(&json!({ "name": "hivevpn", "version": version }))
    } else {
        super::print(&format!("hivevpn {version}\n"))
    }
}
