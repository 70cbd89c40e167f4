//! `hivevpn password`

use std::path::Path;

use anyhow::Result;
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};

use crate::{
    cli::password::PasswordCommand,
    control::{Request, ask},
    password,
};

/// Gives the daemon the record of a new password, or takes the password away.
pub fn run(command: &PasswordCommand, socket: &Path) -> Result<()> {
    let record = match command {
        PasswordCommand::Set(args) => {
            let password = password::from_file(&args.file)?;
            Some(BASE64.encode(password.record()?.encode()))
        }
        PasswordCommand::Clear => None,
    };
    ask(socket, &Request::SetPassword { record })
}
