//! Parse, run, exit code.

use std::process::ExitCode;

use clap::Parser;
use hivevpn::{cli::Cli, commands};
use hivevpn_platform::privileges;
use tracing_subscriber::EnvFilter;

/// Ours at info, warnings of the rest. boringtun logs expected timeouts as errors; what matters of them is in `status`.
const DEFAULT_LOG: &str = "warn,hivevpn=info,hivevpn_core=info,hivevpn_platform=info,boringtun=off,libp2p_kad=error,yamux=off";

fn main() -> ExitCode {
    privileges::make_files_private();
    let cli = Cli::parse();
    let filter =
        EnvFilter::try_from_env("HIVEVPN_LOG").unwrap_or_else(|_| EnvFilter::new(DEFAULT_LOG));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_target(false)
        .init();
    match commands::run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hivevpn: {error:#}");
            ExitCode::from(commands::exit_code(&error))
        }
    }
}
