//! `hivevpn login`

use std::path::Path;

use anyhow::{Context, Result, bail};
use hivevpn_core::membership::{Name, administration::parties, password::Login};
use libp2p::PeerId;

use super::{BadUsage, prompt};
use crate::{
    cli::LoginArgs,
    control::{
        Request,
        admin::{Granted, LoginAnswer, LoginStep, Sealed},
        ask,
    },
    identity,
};

/// Whoever is not named is this administrator.
const DEFAULT_USER: &str = "admin";

/// Logs in, and leaves what that gave with the daemon.
pub fn run(args: &LoginArgs, socket: &Path) -> Result<()> {
    let node = Node {
        socket,
        peer: &args.peer,
    };
    // Whoever names an administrator, or brings a password, wants to be that.
    let by_name = args.user.is_some() || args.password_file.is_some();
    let granted = match by_name {
        true => None,
        false => node.enter()?,
    };
    let granted = match granted {
        Some(granted) => granted,
        None => node.prove(args)?,
    };
    if args.json {
        return super::print_json(&granted);
    }
    super::print(&format!(
        "you may act on {} for {} minutes: {}\n",
        granted.node,
        granted.seconds / 60,
        granted.roles.join(", ")
    ))
}

/// The node that is to be acted on.
struct Node<'a> {
    socket: &'a Path,
    peer: &'a str,
}

impl Node<'_> {
    /// Without a password, if the node lists this one.
    fn enter(&self) -> Result<Option<Granted>> {
        match self.step(LoginStep::Enter)? {
            LoginAnswer::Granted(granted) => Ok(Some(granted)),
            LoginAnswer::NotListed => Ok(None),
            other => unexpected(&other),
        }
    }

    /// By password, which does not leave this process.
    fn prove(&self, args: &LoginArgs) -> Result<Granted> {
        let LoginAnswer::Parties {
            client,
            server,
            name,
        } = self.step(LoginStep::Whom)?
        else {
            bail!("the daemon does not say who {} is", self.peer);
        };
        let user = args.user.as_deref().unwrap_or(DEFAULT_USER);
        let user = Name::parse(user).map_err(|error| BadUsage(error.to_string()))?;
        let id = |text: &str| {
            text.parse::<PeerId>()
                .context("the daemon names no peer id")
        };
        let parties = parties(&user, id(&client)?, id(&server)?);

        let password = prompt::ask(
            &format!("Password of {user} on {name}"),
            args.password_file.as_deref(),
        )?;
        let seeds = [identity::random_bytes(), identity::random_bytes()];
        let (login, message) = Login::begin(&password, &parties, seeds)?;
        drop(password);
        let begin = LoginStep::Begin {
            user: user.to_string(),
            message: Sealed(message),
        };
        let challenge = match self.step(begin)? {
            LoginAnswer::Challenge(challenge) => challenge,
            other => return unexpected(&other),
        };
        let Ok((_, message)) = login.answer(&challenge.0) else {
            bail!("{name} does not accept it: the user or the password is wrong");
        };
        let prove = LoginStep::Prove {
            message: Sealed(message),
        };
        match self.step(prove)? {
            LoginAnswer::Granted(granted) => Ok(granted),
            other => unexpected(&other),
        }
    }

    fn step(&self, step: LoginStep) -> Result<LoginAnswer> {
        let request = Request::Login {
            peer: self.peer.to_owned(),
            step,
        };
        ask(self.socket, &request)
    }
}

fn unexpected<T>(answer: &LoginAnswer) -> Result<T> {
    bail!("the daemon answered another question ({answer:?}): is it another version?")
}
