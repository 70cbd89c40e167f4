//! Acting on other nodes, and being acted on.
//!
//! ```text
//! command ──control socket──► its daemon ──/hivevpn/admin/1──► the node's daemon ──► as from its own control socket
//!   login: OPAQUE here             keeps the capability            keeps OPAQUE's record, signs the capability
//! ```
//!
//! Who may act on a node is decided by the core ([`hivevpn_core::membership::administration`]). Here is what that
//! decision rests on, and what follows from it: [`office`] is this node's list of administrators and the capabilities
//! that other nodes have given us; [`mod@file`] the list as a file; [`asking`] a message on its way to another node;
//! [`desk`] has a member's request answered.

pub mod asking;
pub mod desk;
pub mod file;
pub mod office;

use hivevpn_core::membership::Roles;

/// The roles with these names.
pub fn roles_named<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Roles, String> {
    names.into_iter().try_fold(Roles::NONE, |roles, name| {
        let role = Roles::named(name).ok_or_else(|| {
            let known: Vec<_> = Roles::ALL.names().collect();
            format!("there is no role '{name}': {}", known.join(", "))
        })?;
        Ok(roles | role)
    })
}

/// Their names, for people and JSON.
pub fn role_names(roles: Roles) -> Vec<String> {
    roles.names().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_called_by_name_and_a_wrong_name_is_told_the_right_ones() {
        let roles = roles_named(["metrics", "config"]).unwrap();
        assert_eq!(roles, Roles::METRICS | Roles::CONFIG);
        assert_eq!(role_names(roles), ["metrics", "config"]);
        let why = roles_named(["root"]).unwrap_err();
        assert!(
            why.contains("'root'") && why.contains("metrics, proxy"),
            "{why}"
        );
    }
}
