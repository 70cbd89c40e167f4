//! Who may ask this node what.
//!
//! Membership gives no right on a node. Every request needs one of the [`Roles`], by a table that has a row for each ([`rule`]);
//! whoever does not hold that role is refused. Roles come to
//!
//! - **local users** from the control socket, whose other end the kernel names: root, the daemon's own user and the members
//!   of the group `hivevpn` hold all of them, nobody else any;
//! - **members** from a [capability](hivevpn_core::membership::Capability) of theirs.
//!
//! [`Access`] asks the table, keeps callers from asking too often, and has everything that changes something, and every
//! refusal, written down ([`audit`](crate::audit)).

use std::{
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use hivevpn_core::membership::Roles;
use hivevpn_platform::privileges::{self, PeerCredentials};
use libp2p::PeerId;

use crate::{
    audit::{Audit, Outcome},
    control::{Reply, Request, membership::Change, policy::Ask, registry, services},
};

mod pace;

use pace::{Pace, TooMany};

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// A user of this machine who may ask.
    Local(u32),
    /// A member with the roles that its capability gives it here.
    Member(PeerId, Roles),
}

impl Caller {
    fn roles(&self) -> Roles {
        match self {
            Self::Local(_) => Roles::ALL,
            Self::Member(_, roles) => *roles,
        }
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(uid) => write!(f, "uid {uid}"),
            Self::Member(peer, _) => write!(f, "member {peer}"),
        }
    }
}

/// What the table says about a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// What it is called in the audit log.
    pub name: &'static str,
    /// What it takes.
    pub role: Roles,
    /// What it is about, without anything secret.
    pub subject: Option<String>,
    /// Whether a member that acts on this node may ask it.
    pub from_afar: bool,
}

impl Rule {
    /// Whether it changes something, so that it is to be written down.
    pub fn changes_something(&self) -> bool {
        self.role != Roles::METRICS
    }
}

/// The table. A request without a row does not compile.
pub fn rule(request: &Request) -> Rule {
    let (name, role, subject) = match request {
        Request::Status => ("status", Roles::METRICS, None),
        Request::Nodes => ("nodes", Roles::METRICS, None),
        Request::Id => ("id", Roles::METRICS, None),
        Request::Underlay => ("underlay", Roles::METRICS, None),
        Request::Ping { peer } => ("ping", Roles::METRICS, Some(peer.clone())),
        Request::Why { peer } => ("why", Roles::METRICS, Some(peer.clone())),
        Request::Bench { peer, .. } => ("bench", Roles::METRICS, Some(peer.clone())),
        Request::Clock { peer } => ("clock", Roles::METRICS, Some(peer.clone())),
        Request::Reflect { peer, .. } => ("reflect", Roles::METRICS, Some(peer.clone())),
        Request::Invite { name, address, .. } => {
            let address = address.map(|address| address.to_string());
            let whom: Vec<_> = [name.clone(), address].into_iter().flatten().collect();
            (
                "invite",
                Roles::KEYS,
                (!whom.is_empty()).then(|| whom.join(" ")),
            )
        }
        Request::Whois { who } => ("whois", Roles::METRICS, Some(who.clone())),
        Request::Authorities => ("authority", Roles::METRICS, None),
        Request::Delegates => ("delegate list", Roles::METRICS, None),
        Request::Revoked => ("revoked", Roles::METRICS, None),
        Request::Change(change) => change_rule(change),
        Request::Policy(Ask::Set { .. }) => ("policy set", Roles::KEYS, None),
        Request::Policy(Ask::Show | Ask::Test { .. } | Ask::Trace { .. }) => {
            ("policy", Roles::METRICS, None)
        }
        Request::Services(ask) => services_rule(ask),
        Request::Dht(ask) => registry_rule(ask),
        Request::SetPassword { record } => {
            let name = match record {
                Some(_) => "password set",
                None => "password clear",
            };
            (name, Roles::KEYS, None)
        }
        Request::Down => ("down", Roles::CONFIG, None),
        // What is asked there is written down there.
        Request::On { peer, .. } => ("on", Roles::METRICS, Some(peer.clone())),
        Request::Login { peer, .. } => ("login", Roles::METRICS, Some(peer.clone())),
        Request::Logout { peer } => ("logout", Roles::METRICS, Some(peer.clone())),
        Request::Admins => ("admin list", Roles::METRICS, None),
        Request::Appoint { user, roles, .. } => {
            let subject = format!("{user}: {}", roles.join(", "));
            ("admin set-password", Roles::KEYS, Some(subject))
        }
        Request::Dismiss { user } => ("admin remove", Roles::KEYS, Some(user.clone())),
    };
    Rule {
        name,
        role,
        subject,
        from_afar: makes_sense_from_afar(request),
    }
}

fn services_rule(ask: &services::Ask) -> (&'static str, Roles, Option<String>) {
    use services::Ask;
    match ask {
        Ask::Expose(expose) => {
            let subject = format!("{} {}", expose.name, expose.target);
            ("expose", Roles::PROXY, Some(subject))
        }
        Ask::Unexpose { name } => ("unexpose", Roles::PROXY, Some(name.clone())),
        Ask::Forward(forward) => ("forward", Roles::PROXY, Some(forward.to.clone())),
        Ask::Names => ("names", Roles::METRICS, None),
        Ask::Unforward { listen } => ("unforward", Roles::PROXY, Some(listen.clone())),
        Ask::ResetUsage { service } => ("usage reset", Roles::PROXY, service.clone()),
        Ask::Exposed | Ask::Forwards | Ask::Services | Ask::Usage | Ask::Models => {
            ("services", Roles::METRICS, None)
        }
    }
}

fn registry_rule(ask: &registry::Ask) -> (&'static str, Roles, Option<String>) {
    use registry::Ask;
    match ask {
        Ask::Put { key, .. } => ("dht put", Roles::CONFIG, Some(key.clone())),
        Ask::Delete { key } => ("dht delete", Roles::CONFIG, Some(key.clone())),
        Ask::Get { key, .. } => ("dht get", Roles::METRICS, Some(key.clone())),
        Ask::Walk { .. } => ("dht walk", Roles::METRICS, None),
        Ask::Routes => ("dht routes", Roles::METRICS, None),
    }
}

/// What no role lets a member ask: it would go on to further nodes in this one's name, give itself further rights, or
/// decide for the whole network.
fn makes_sense_from_afar(request: &Request) -> bool {
    match request {
        Request::On { .. }
        | Request::Login { .. }
        | Request::Logout { .. }
        | Request::Admins
        | Request::Appoint { .. }
        | Request::Dismiss { .. }
        | Request::SetPassword { .. }
        | Request::Change(_)
        | Request::Policy(Ask::Set { .. }) => false,
        Request::Status
        | Request::Nodes
        | Request::Id
        | Request::Underlay
        | Request::Ping { .. }
        | Request::Why { .. }
        | Request::Bench { .. }
        | Request::Clock { .. }
        | Request::Reflect { .. }
        | Request::Invite { .. }
        | Request::Whois { .. }
        | Request::Authorities
        | Request::Delegates
        | Request::Revoked
        | Request::Policy(Ask::Show | Ask::Test { .. } | Ask::Trace { .. })
        | Request::Services(_)
        | Request::Dht(_)
        | Request::Down => true,
    }
}

/// The rows of changes of who may what: all of them take the right to use the node's keys.
fn change_rule(change: &Change) -> (&'static str, Roles, Option<String>) {
    let (name, subject) = match change {
        Change::Admit { id, .. } => ("admit", Some(id)),
        Change::Revoke { node, .. } => ("revoke", Some(node)),
        Change::Restore { node } => ("restore", Some(node)),
        Change::Delegate { node, .. } => ("delegate add", Some(node)),
        Change::Undelegate { node, .. } => ("delegate remove", Some(node)),
        Change::RotateWireguard => ("rotate wg", None),
    };
    (name, Roles::KEYS, subject.cloned())
}

/// Why somebody is not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A user of this machine without any right.
    #[error(
        "only root, the user who runs the daemon and members of the group '{}' may ask it",
        privileges::SERVICE
    )]
    Stranger,
    /// A member that lacks the role.
    #[error("'{request}' takes the role '{}' on this node", role.names().collect::<String>())]
    Role {
        /// The request.
        request: &'static str,
        /// What it takes.
        role: Roles,
    },
    /// A member that asks what is for this machine's users.
    #[error("'{0}' can be asked on this node itself only")]
    OnlyHere(&'static str),
    /// Too many requests.
    #[error("too many requests: ask again in a second")]
    TooOften,
}

/// Decides who is answered.
pub struct Access {
    /// The daemon's user.
    own: u32,
    /// Whose members may ask.
    group: Option<u32>,
    pace: Mutex<Pace>,
    audit: Audit,
}

impl Access {
    /// For the user that this process is now.
    pub fn new(audit: Audit) -> Self {
        Self {
            own: privileges::effective_uid(),
            group: privileges::group_named(privileges::SERVICE),
            pace: Mutex::default(),
            audit,
        }
    }

    /// The group whose members may ask, if there is one.
    pub fn group(&self) -> Option<u32> {
        self.group
    }

    /// Whoever is at the other end of the control socket.
    pub fn local(&self, asker: PeerCredentials) -> Result<Caller, Refusal> {
        let in_group = |group: u32| asker.gid == group || privileges::is_in_group(asker.uid, group);
        if asker.uid == 0 || asker.uid == self.own || self.group.is_some_and(in_group) {
            return Ok(Caller::Local(asker.uid));
        }
        let stranger = Caller::Local(asker.uid);
        let paced = self.pace().admit(&stranger, Instant::now());
        // Once for each time that it asks too often, or the log would hold nothing else.
        if paced.is_ok() || paced.is_err_and(TooMany::is_first) {
            let why = Refusal::Stranger.to_string();
            self.audit.record(
                &stranger.to_string(),
                "connect",
                None,
                Outcome::Refused(&why),
            );
        }
        Err(Refusal::Stranger)
    }

    /// Whether `caller` may have this answered now. A refusal is written down.
    pub fn allow(&self, caller: &Caller, request: &Request, now: Instant) -> Result<Rule, Refusal> {
        let rule = rule(request);
        let paced = self.pace().admit(caller, now);
        let refusal = if let Err(too_many) = paced {
            if !too_many.is_first() {
                return Err(Refusal::TooOften);
            }
            Refusal::TooOften
        } else if matches!(caller, Caller::Member(..)) && !rule.from_afar {
            Refusal::OnlyHere(rule.name)
        } else if caller.roles().include(rule.role) {
            return Ok(rule);
        } else {
            Refusal::Role {
                request: rule.name,
                role: rule.role,
            }
        };
        self.note(caller, &rule, Outcome::Refused(&refusal.to_string()));
        Err(refusal)
    }

    /// Writes down what came of a request that changes something.
    pub fn answered(&self, caller: &Caller, rule: &Rule, reply: &Reply) {
        if rule.changes_something() {
            let outcome = match reply {
                Reply::Ok(_) => Outcome::Done,
                Reply::Error(why) | Reply::Starting(why) => Outcome::Failed(why),
            };
            self.note(caller, rule, outcome);
        }
    }

    fn pace(&self) -> MutexGuard<'_, Pace> {
        // Whoever panicked with the lock held has left whole numbers behind.
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, caller: &Caller, rule: &Rule, outcome: Outcome<'_>) {
        let caller = caller.to_string();
        self.audit
            .record(&caller, rule.name, rule.subject.as_deref(), outcome);
    }
}

#[cfg(test)]
mod tests;
