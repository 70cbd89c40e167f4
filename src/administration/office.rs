//! Who may act on this node, and on which nodes we may act.
//!
//! Administrators are named in the store, by `admin set-password`, or in the file that `up` is given, which wins. Members
//! that need no password are named in the configuration. Whenever an administrator changes, all capabilities that this
//! node has given end.
//!
//! The capabilities that other nodes have given us are in memory only: a restart forgets them.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use hivevpn_core::{
    allowance::Allowances,
    membership::{
        Admin, Administration, Name, Roles,
        administration::{Step, message::Grant},
        password::PasswordRecord,
    },
    node::{Node, Now},
};
use libp2p::PeerId;

use super::{role_names, roles_named};
use crate::{
    config::Administrators,
    control::admin::{AdminEntry, Sealed, Source},
    identity,
    store::Store,
};

/// Refusals of a member that are written down at once, and in the long run: whoever asks in a loop must not fill the log.
const NOTES_AT_ONCE: u32 = 5;
const NOTE_PERIOD: Duration = Duration::from_secs(60);
/// Members whose refusals are counted apart at once.
const MAX_NOTED: usize = 4096;

/// A right on another node.
struct Lent {
    capability: Vec<u8>,
    until: Instant,
}

/// This node's administrators, and what others have given us.
pub struct Office {
    administration: Administration,
    /// Members that need no password.
    listed: BTreeMap<String, Roles>,
    from_file: BTreeMap<Name, Admin>,
    stored: BTreeMap<Name, Admin>,
    lent: BTreeMap<PeerId, Lent>,
    /// How many refusals of each member are written down.
    notes: Allowances<PeerId>,
}

impl Office {
    /// With the administrators of the store and the configuration.
    pub fn open(store: &Store, config: &Administrators) -> Result<Self> {
        let secret = store.secret("admin_decoys", identity::random_bytes)?;
        let mut stored = BTreeMap::new();
        for (name, admin) in store.admins()? {
            let name = Name::parse(&name).context("the database's list of administrators")?;
            let admin = Admin::decode(&admin)
                .with_context(|| format!("the database's administrator {name}"))?;
            stored.insert(name, admin);
        }
        let mut office = Self {
            administration: Administration::new(secret, &identity::random_bytes(), epoch()),
            listed: config.members.clone(),
            from_file: config.appointed.clone(),
            stored,
            lent: BTreeMap::new(),
            notes: Allowances::new(NOTES_AT_ONCE, NOTE_PERIOD, MAX_NOTED),
        };
        office.appoint_all();
        Ok(office)
    }

    /// A message of a member that wants to act on this node.
    pub fn administer(&mut self, node: &mut Node, from: &PeerId, message: &[u8], now: Now) -> Step {
        node.administer(&mut self.administration, &self.listed, from, message, now)
    }

    /// Whether a refusal of this member is to be written down.
    pub fn is_worth_noting(&mut self, member: &PeerId, now: Instant) -> bool {
        self.notes.take(*member, 1, now)
    }

    // ---- our administrators ------------------------------------------------------------------------------

    /// Gives an administrator a password and roles.
    pub fn appoint(
        &mut self,
        store: &Store,
        user: &str,
        roles: &[String],
        record: &Sealed,
    ) -> Result<AdminEntry, String> {
        let name = self.changeable(user)?;
        let roles = roles_named(roles.iter().map(String::as_str))?;
        if roles.is_empty() {
            return Err("an administrator without a role could do nothing: name one".to_owned());
        }
        let record = PasswordRecord::decode(&record.0).map_err(|error| error.to_string())?;
        let admin = Admin { roles, record };
        store
            .save_admin(name.as_str(), &admin.encode())
            .map_err(|error| format!("{error:#}"))?;
        self.stored.insert(name.clone(), admin);
        self.appoint_all();
        Ok(entry(name.as_str(), roles, Source::Store))
    }

    /// This administrator is none any more.
    pub fn dismiss(&mut self, store: &Store, user: &str) -> Result<(), String> {
        let name = self.changeable(user)?;
        if !self.stored.contains_key(&name) {
            return Err(format!(
                "no administrator is called {name}: 'hivevpn admin list' shows all"
            ));
        }
        store
            .remove_admin(name.as_str())
            .map_err(|error| format!("{error:#}"))?;
        self.stored.remove(&name);
        self.appoint_all();
        Ok(())
    }

    /// Everybody who may act on this node.
    pub fn list(&self) -> Vec<AdminEntry> {
        let stored = self
            .stored
            .iter()
            .filter(|(name, _)| !self.from_file.contains_key(name));
        let stored = stored.map(|(name, admin)| entry(name.as_str(), admin.roles, Source::Store));
        let from_file = self.from_file.iter();
        let from_file =
            from_file.map(|(name, admin)| entry(name.as_str(), admin.roles, Source::File));
        let listed = self.listed.iter();
        let listed = listed.map(|(who, roles)| entry(who, *roles, Source::Config));
        stored.chain(from_file).chain(listed).collect()
    }

    fn changeable(&self, user: &str) -> Result<Name, String> {
        let name = Name::parse(user).map_err(|error| error.to_string())?;
        if self.from_file.contains_key(&name) {
            return Err(format!(
                "{name} is named in the file that 'up' was given: change it there, then restart this node"
            ));
        }
        Ok(name)
    }

    fn appoint_all(&mut self) {
        let mut admins = self.stored.clone();
        admins.extend(self.from_file.clone());
        self.administration.appoint(admins, epoch());
    }

    // ---- our rights on others ----------------------------------------------------------------------------

    /// A node has given us a right.
    pub fn keep(&mut self, on: PeerId, grant: Grant, now: Instant) {
        let until = now + Duration::from_secs(grant.seconds.into());
        let capability = grant.capability;
        self.lent.insert(on, Lent { capability, until });
    }

    /// What to show a node that we act on.
    pub fn capability(&mut self, on: &PeerId, now: Instant) -> Option<&[u8]> {
        self.lent.retain(|_, lent| lent.until > now);
        self.lent.get(on).map(|lent| lent.capability.as_slice())
    }

    /// We have no right on this node any more. Returns whether we had one.
    pub fn forget(&mut self, on: &PeerId) -> bool {
        self.lent.remove(on).is_some()
    }
}

fn entry(user: &str, roles: Roles, source: Source) -> AdminEntry {
    AdminEntry {
        user: user.to_owned(),
        roles: role_names(roles),
        source,
    }
}

fn epoch() -> [u8; 16] {
    let random = identity::random_bytes();
    let mut epoch = [0; 16];
    epoch.copy_from_slice(&random[..16]);
    epoch
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;

    fn record() -> PasswordRecord {
        PasswordRecord::of(b"secret", &Zeroizing::new([1; 32])).unwrap()
    }

    fn sealed() -> Sealed {
        Sealed(record().encode().to_vec())
    }

    fn config() -> Administrators {
        let admin = Admin {
            roles: Roles::CONFIG,
            record: record(),
        };
        Administrators {
            file: None,
            appointed: [(Name::parse("boss").unwrap(), admin)].into(),
            members: [("laptop".to_owned(), Roles::METRICS)].into(),
        }
    }

    #[test]
    fn administrators_come_from_store_file_and_configuration_and_survive_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let mut office = Office::open(&store, &config()).unwrap();
        let roles = ["metrics".to_owned()];
        office.appoint(&store, "admin", &roles, &sealed()).unwrap();
        drop((office, store));
        let store = Store::open(dir.path()).unwrap();
        let mut office = Office::open(&store, &config()).unwrap();
        let who = |office: &Office| -> Vec<_> {
            let entries = office.list().into_iter();
            entries.map(|entry| (entry.user, entry.source)).collect()
        };
        let expected = [
            ("admin".to_owned(), Source::Store),
            ("boss".to_owned(), Source::File),
            ("laptop".to_owned(), Source::Config),
        ];
        assert_eq!(who(&office), expected);
        office.dismiss(&store, "admin").unwrap();
        assert_eq!(who(&office), expected[1..]);
        assert!(store.admins().unwrap().is_empty());
    }

    #[test]
    fn what_cannot_be_appointed_or_dismissed_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let mut office = Office::open(&store, &config()).unwrap();
        let mut why = |user: &str, roles: &[&str], record: &Sealed| {
            let roles: Vec<_> = roles.iter().map(|role| (*role).to_owned()).collect();
            office.appoint(&store, user, &roles, record).unwrap_err()
        };
        let damaged = Sealed(vec![1]);
        assert!(why("boss", &["keys"], &sealed()).contains("named in the file"));
        assert!(why("Me!", &["keys"], &sealed()).contains("not a name"));
        assert!(why("me", &["root"], &sealed()).contains("no role 'root'"));
        assert!(why("me", &[], &sealed()).contains("without a role"));
        assert!(why("me", &["keys"], &damaged).contains("malformed"));
        let unknown = office.dismiss(&store, "me").unwrap_err();
        assert!(
            unknown.contains("no administrator is called me"),
            "{unknown}"
        );
    }

    #[test]
    fn a_right_on_another_node_ends_with_its_time_or_when_it_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let mut office = Office::open(&store, &Administrators::default()).unwrap();
        let (peer, now) = (PeerId::random(), Instant::now());
        let grant = Grant {
            capability: vec![7],
            roles: Roles::METRICS,
            seconds: 10,
        };
        office.keep(peer, grant.clone(), now);
        assert_eq!(office.capability(&peer, now), Some(&[7][..]));
        let late = now + Duration::from_secs(10);
        assert_eq!(office.capability(&peer, late), None);
        office.keep(peer, grant, now);
        assert!(office.forget(&peer) && !office.forget(&peer));
        assert_eq!(office.capability(&peer, now), None);
    }
}
