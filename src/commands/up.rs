//! `hivevpn up`

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::BadUsage;
use crate::{
    cli::{self, Cli, UpArgs},
    config::Config,
    daemon::{self, Launch},
};

/// Brings this node up, in one network or several, and stays until told to stop.
pub fn run(args: &UpArgs, cli: &Cli) -> Result<()> {
    let launches = match args.config.as_slice() {
        [] | [_] => vec![Launch {
            name: None,
            config: Config::load(args.config.first().map(PathBuf::as_path), args)?,
            state: cli.state(),
            home: cli.net.is_some().then(|| cli.state.clone()),
            socket: cli.socket(),
        }],
        files => several(files, args, cli)?,
    };
    daemon::run(launches)
}

/// One network for each file, in a directory of the file's name.
fn several(files: &[PathBuf], args: &UpArgs, cli: &Cli) -> Result<Vec<Launch>> {
    let common = UpArgs {
        user: args.user.clone(),
        ..UpArgs::default()
    };
    let only_common = UpArgs {
        config: args.config.clone(),
        ..common
    };
    ensure!(
        *args == only_common && cli.socket.is_none() && cli.net.is_none(),
        BadUsage(
            "with several files, each says its own: write the options into them, and leave out --socket and --net"
                .to_owned()
        )
    );
    ensure!(
        !cli.state.join("identity.key").exists(),
        BadUsage(format!(
            "{0} is the directory of one network so far. With several files each has one below it: make one of the \
             file's name there and move everything into it, e.g. 'mkdir -m 700 {0}/home && mv {0}/*.* {0}/db {0}/home'",
            cli.state.display()
        ))
    );
    let mut launches: Vec<Launch> = Vec::new();
    for file in files {
        let name = name_of(file)?;
        ensure!(
            launches
                .iter()
                .all(|launch| launch.name.as_ref() != Some(&name)),
            BadUsage(format!("two files are called {name}: rename one of them"))
        );
        launches.push(Launch {
            config: Config::load(Some(file), &only_common)?,
            state: cli.state.join(&name),
            home: Some(cli.state.clone()),
            socket: cli::socket_of(&cli.state, Some(&name)),
            name: Some(name),
        });
    }
    Ok(launches)
}

fn name_of(file: &Path) -> Result<String> {
    let stem = file.file_stem().and_then(|stem| stem.to_str());
    let stem = stem.with_context(|| format!("{} has no name", file.display()))?;
    Ok(cli::parse_net(stem).map_err(BadUsage)?)
}
