//! `hivevpn admin`

use std::path::Path;

use anyhow::Result;
use hivevpn_core::membership::{Admin, Name, password::PasswordRecord};

use super::{BadUsage, Table, prompt};
use crate::{
    administration::{file, role_names, roles_named},
    cli::{AdminArgs, AdminCommand, AppointArgs},
    control::{
        Request,
        admin::{AdminEntry, Sealed, Source},
        ask,
    },
    identity,
};

/// Shows or changes who may act on this node.
pub fn run(args: &AdminArgs, socket: &Path) -> Result<()> {
    match &args.command {
        AdminCommand::SetPassword(args) => set_password(args, socket),
        AdminCommand::Hash(args) => {
            let (user, admin) = hash(args)?;
            super::print(&format!("{}\n", file::line(&user, &admin)))
        }
        AdminCommand::Remove(args) => {
            let user = args.user.clone();
            ask(socket, &Request::Dismiss { user })
        }
        AdminCommand::List(args) => {
            let entries: Vec<AdminEntry> = ask(socket, &Request::Admins)?;
            if args.json {
                super::print_json(&entries)
            } else {
                super::print(&render(&entries, super::Paint::for_stdout()))
            }
        }
    }
}

fn set_password(args: &AppointArgs, socket: &Path) -> Result<()> {
    let (user, admin) = hash(args)?;
    let request = Request::Appoint {
        user: user.to_string(),
        roles: role_names(admin.roles),
        record: Sealed(admin.record.encode().to_vec()),
    };
    let entry: AdminEntry = ask(socket, &request)?;
    super::print(&format!(
        "{} may act on this node: {}\n",
        entry.user,
        entry.roles.join(", ")
    ))
}

/// What is kept of a password that is asked for here. Not even our own daemon sees the password.
fn hash(args: &AppointArgs) -> Result<(Name, Admin)> {
    let user = Name::parse(&args.user).map_err(|error| BadUsage(error.to_string()))?;
    let roles = roles_named(args.role.iter().map(String::as_str)).map_err(BadUsage)?;
    let password = prompt::choose(
        &format!("New password of {user}"),
        args.password_file.as_deref(),
    )?;
    let record = PasswordRecord::of(&password, &identity::random_bytes())?;
    Ok((user, Admin { roles, record }))
}

fn render(entries: &[AdminEntry], paint: super::Paint) -> String {
    if entries.is_empty() {
        return "nobody may act on this node from another one: 'hivevpn admin set-password' names somebody\n"
            .to_owned();
    }
    let mut table = Table::new(&["ADMINISTRATOR", "ROLES", "BY"]);
    for entry in entries {
        let by = match entry.source {
            Source::Store => "password",
            Source::File => "password, named in a file",
            Source::Config => "membership, named in the configuration",
        };
        table.row(vec![
            entry.user.clone(),
            entry.roles.join(", "),
            by.to_owned(),
        ]);
    }
    table.render(paint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_see_who_may_do_what_and_why() {
        let entry = |user: &str, source| AdminEntry {
            user: user.to_owned(),
            roles: vec!["metrics".to_owned(), "keys".to_owned()],
            source,
        };
        let entries = [
            entry("admin", Source::Store),
            entry("laptop", Source::Config),
        ];
        let text = render(&entries, crate::commands::Paint(false));
        assert!(
            text.contains("admin          metrics, keys  password\n"),
            "{text}"
        );
        assert!(text.contains("membership"), "{text}");
        let nobody = render(&[], crate::commands::Paint(false));
        assert!(nobody.contains("nobody"), "{nobody}");
    }
}
