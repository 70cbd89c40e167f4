//! `hivevpn ping`

use std::time::Duration;

use anyhow::{Result, bail};

use super::{BadUsage, Paint};
use crate::{
    cli::PingArgs,
    control::{Daemon, NoDaemon, Pong, Request, Starting, ask},
};

/// Pings through the tunnel and says which path each answer took, so that an upgrade from relay to direct is seen as
/// it happens.
pub fn run(args: &PingArgs, daemon: &Daemon) -> Result<()> {
    let interval = Duration::try_from_secs_f64(args.interval)
        .ok()
        .filter(|interval| {
            (Duration::from_millis(10)..=Duration::from_secs(3600)).contains(interval)
        })
        .ok_or_else(|| BadUsage("--interval is between 0.01 and 3600 seconds".to_owned()))?;
    let paint = Paint::for_stdout();
    let mut answered = 0_u32;
    let mut sent = 0_u32;
    let mut last_path = None;
    while args.count == 0 || sent < args.count {
        if sent > 0 {
            std::thread::sleep(interval);
        }
        sent += 1;
        match ask::<Pong>(
            daemon,
            &Request::Ping {
                peer: args.peer.clone(),
            },
        ) {
            Ok(pong) => {
                answered += 1;
                show(args, &pong, last_path.as_deref(), paint)?;
                last_path = Some(pong.path);
            }
            Err(error) if error.is::<NoDaemon>() || error.is::<Starting>() => return Err(error),
            Err(error) if args.json => super::print(&format!(
                "{}\n",
                serde_json::json!({ "error": error.to_string() })
            ))?,
            Err(error) => super::print(&format!("{}\n", paint.bad(&error.to_string())))?,
        }
    }
    if answered == 0 {
        bail!("{} did not answer", args.peer);
    }
    Ok(())
}

fn show(args: &PingArgs, pong: &Pong, last_path: Option<&str>, paint: Paint) -> Result<()> {
    if args.json {
        return super::print(&format!("{}\n", serde_json::to_string(pong)?));
    }
    let by = super::by(pong.relay.as_deref(), pong.endpoint.as_deref());
    let change = match last_path {
        Some(before) if before != pong.path => paint.strong(&format!("  (was {before})")),
        Some(_) | None => String::new(),
    };
    let path = paint.path(&pong.path, 0);
    super::print(&format!(
        "{} ({}): {path}{by}  {:.1} ms{change}\n",
        pong.name, pong.address, pong.rtt_ms
    ))
}
