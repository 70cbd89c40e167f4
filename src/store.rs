//! What survives a restart: the only file that knows sled.
//!
//! ```text
//! self         format │ network │ credential │ delegation │ password │ time_floor │ descriptor_seq │ admin_decoys
//! records      peer id → member record
//! redemptions  invite id → who used it, and the certificate it was answered with
//! entries      slot → entry of the registry, sealed; or what is left of one, so that nothing older comes back
//! notices      id → who was expelled, who may act for the authority, which policy is in force
//! exposed      name → what this node offers
//! usage        service, member and model → what was used
//! forwards     where it listens → the service it leads to
//! admins       name → what it may do on this node, and what is kept of its password
//! ```
//!
//! Keys, secrets included, lie in a directory that only the owner may enter.

use std::path::Path;

use anyhow::{Context, Result, bail};
use zeroize::Zeroizing;

/// What this version writes. A store of a newer version is refused, not guessed at.
const FORMAT: &[u8] = &[1];
/// Records of thousands of members take about 1 MB; sled's own default of 1 GB is for other uses.
const CACHE_BYTES: u64 = 4 << 20;

/// The node's database.
pub struct Store {
    db: sled::Db,
    own: sled::Tree,
    records: sled::Tree,
    redemptions: sled::Tree,
    notices: sled::Tree,
    entries: sled::Tree,
    admins: sled::Tree,
}

/// A part of the database of its own, in which values lie under names. Its owner may be another thread than the store's.
#[derive(Clone)]
pub struct Shelf(sled::Tree);

impl Shelf {
    /// All that lies there, in the order of the names. A name that is no text is shown as well as it can be.
    pub fn all(&self) -> Result<Vec<(String, Vec<u8>)>> {
        self.0
            .iter()
            .map(|entry| {
                let (name, value) = entry?;
                let name = String::from_utf8_lossy(&name).into_owned();
                Ok((name, value.to_vec()))
            })
            .collect()
    }

    /// Puts a value there, and returns once it is on the disk.
    pub fn put(&self, name: &str, value: &[u8]) -> Result<()> {
        self.0.insert(name, value)?;
        self.0.flush()?;
        Ok(())
    }

    /// Puts values there and takes values away, all of it or nothing, and returns once that is on the disk.
    pub fn change(
        &self,
        changes: impl IntoIterator<Item = (String, Option<Vec<u8>>)>,
    ) -> Result<()> {
        let mut batch = sled::Batch::default();
        for (name, value) in changes {
            match value {
                Some(value) => batch.insert(name.as_str(), value),
                None => batch.remove(name.as_str()),
            }
        }
        self.0.apply_batch(batch)?;
        self.0.flush()?;
        Ok(())
    }

    /// Takes a value away, and returns once it is gone from the disk.
    pub fn remove(&self, name: &str) -> Result<()> {
        self.0.remove(name)?;
        self.0.flush()?;
        Ok(())
    }
}

/// What makes this node a member, as encoded by the core.
pub struct StoredMembership {
    /// The network with its discovery secret.
    pub network: Zeroizing<Vec<u8>>,
    /// Our certificate with its issuer's delegation.
    pub credential: Vec<u8>,
    /// Our own delegation, when we may admit others.
    pub delegation: Option<Vec<u8>>,
}

impl Store {
    /// Opens or creates the database below `state`.
    pub fn open(state: &Path) -> Result<Self> {
        let path = state.join("db");
        let open = || -> Result<Self> {
            let db = sled::Config::new()
                .path(&path)
                .cache_capacity(CACHE_BYTES)
                .mode(sled::Mode::LowSpace)
                .open()?;
            let own = db.open_tree("self")?;
            match own.get("format")? {
                None => drop(own.insert("format", FORMAT)?),
                Some(format) if format == FORMAT => {}
                Some(_) => bail!("it was written by a newer hivevpn: update this one"),
            }
            let (records, redemptions) = (db.open_tree("records")?, db.open_tree("redemptions")?);
            let notices = db.open_tree("notices")?;
            let (entries, admins) = (db.open_tree("entries")?, db.open_tree("admins")?);
            Ok(Self {
                own,
                records,
                redemptions,
                notices,
                entries,
                admins,
                db,
            })
        };
        open().with_context(|| format!("cannot open the database {}", path.display()))
    }

    /// A part of its own for the services of this node.
    pub fn shelf(&self, name: &'static str) -> Result<Shelf> {
        Ok(Shelf(self.db.open_tree(name)?))
    }

    /// The membership of an earlier run.
    pub fn membership(&self) -> Result<Option<StoredMembership>> {
        let (Some(network), Some(credential)) =
            (self.own.get("network")?, self.own.get("credential")?)
        else {
            return Ok(None);
        };
        Ok(Some(StoredMembership {
            network: Zeroizing::new(network.to_vec()),
            credential: credential.to_vec(),
            delegation: self.own.get("delegation")?.map(|bytes| bytes.to_vec()),
        }))
    }

    /// Saves a new membership, all of it or nothing, and returns once it is on the disk.
    pub fn save_membership(&self, membership: &StoredMembership) -> Result<()> {
        let mut batch = sled::Batch::default();
        batch.insert("network", membership.network.as_slice());
        batch.insert("credential", membership.credential.as_slice());
        match &membership.delegation {
            Some(delegation) => batch.insert("delegation", delegation.as_slice()),
            None => batch.remove("delegation"),
        }
        self.own.apply_batch(batch)?;
        self.flush()
    }

    /// Replaces our certificate by a renewed one.
    pub fn save_credential(&self, credential: &[u8]) -> Result<()> {
        self.own.insert("credential", credential)?;
        self.flush()
    }

    /// What we keep of the password that admits others.
    pub fn password(&self) -> Result<Option<Zeroizing<Vec<u8>>>> {
        let kept = self.own.get("password")?;
        Ok(kept.map(|bytes| Zeroizing::new(bytes.to_vec())))
    }

    /// Replaces it, or forgets it, and returns once that is on the disk.
    pub fn save_password(&self, record: Option<&[u8]>) -> Result<()> {
        match record {
            Some(record) => self.own.insert("password", record)?,
            None => self.own.remove("password")?,
        };
        self.flush()
    }

    /// Every member record.
    pub fn records(&self) -> Result<Vec<Vec<u8>>> {
        self.records
            .iter()
            .values()
            .map(|value| Ok(value?.to_vec()))
            .collect()
    }

    /// Saves a member's record.
    pub fn save_record(&self, peer: &[u8], record: &[u8]) -> Result<()> {
        self.records.insert(peer, record)?;
        Ok(())
    }

    /// Forgets a member's record.
    pub fn remove_record(&self, peer: &[u8]) -> Result<()> {
        self.records.remove(peer)?;
        Ok(())
    }

    /// Every notice.
    pub fn notices(&self) -> Result<Vec<Vec<u8>>> {
        self.notices
            .iter()
            .values()
            .map(|value| Ok(value?.to_vec()))
            .collect()
    }

    /// Saves a notice.
    pub fn save_notice(&self, id: &[u8; 32], notice: &[u8]) -> Result<()> {
        self.notices.insert(id, notice)?;
        Ok(())
    }

    /// Forgets a notice that another one has replaced.
    pub fn remove_notice(&self, id: &[u8; 32]) -> Result<()> {
        self.notices.remove(id)?;
        Ok(())
    }

    /// Every entry of the registry.
    pub fn entries(&self) -> Result<Vec<Vec<u8>>> {
        self.entries
            .iter()
            .values()
            .map(|value| Ok(value?.to_vec()))
            .collect()
    }

    /// Saves an entry of the registry in place of what lies in its slot.
    pub fn save_entry(&self, slot: &[u8; 32], sealed: &[u8]) -> Result<()> {
        self.entries.insert(slot, sealed)?;
        Ok(())
    }

    /// Forgets what lies in a slot.
    pub fn remove_entry(&self, slot: &[u8; 32]) -> Result<()> {
        self.entries.remove(slot)?;
        Ok(())
    }

    /// Every used invite.
    pub fn redemptions(&self) -> Result<Vec<Vec<u8>>> {
        self.redemptions
            .iter()
            .values()
            .map(|value| Ok(value?.to_vec()))
            .collect()
    }

    /// Marks an invite as used, in one transaction: of any number at once, one succeeds. Returns whether this
    /// call did, and only once it is on the disk.
    pub fn redeem(&self, invite: &[u8], redemption: &[u8]) -> Result<bool> {
        let outcome =
            self.redemptions
                .compare_and_swap(invite, None as Option<&[u8]>, Some(redemption))?;
        if let Err(error) = self.flush() {
            if outcome.is_ok() {
                // It is not used: nobody will be told that he was admitted.
                self.redemptions.remove(invite)?;
            }
            return Err(error);
        }
        Ok(outcome.is_ok())
    }

    /// Every administrator of this node, by name.
    pub fn admins(&self) -> Result<Vec<(String, Zeroizing<Vec<u8>>)>> {
        let entries = self.admins.iter().map(|entry| {
            let (name, admin) = entry?;
            let name = String::from_utf8(name.to_vec())
                .context("the database's list of administrators is damaged")?;
            Ok((name, Zeroizing::new(admin.to_vec())))
        });
        entries.collect()
    }

    /// Saves an administrator, and returns once it is on the disk.
    pub fn save_admin(&self, name: &str, admin: &[u8]) -> Result<()> {
        self.admins.insert(name, admin)?;
        self.flush()
    }

    /// Forgets an administrator, and returns once that is on the disk.
    pub fn remove_admin(&self, name: &str) -> Result<()> {
        self.admins.remove(name)?;
        self.flush()
    }

    /// A secret of this node alone, made by `make` when it is asked for the first time.
    pub fn secret(
        &self,
        key: &str,
        make: impl FnOnce() -> Zeroizing<[u8; 32]>,
    ) -> Result<Zeroizing<[u8; 32]>> {
        if let Some(kept) = self.own.get(key)? {
            let bytes = <[u8; 32]>::try_from(kept.as_ref())
                .with_context(|| format!("the database's {key} is damaged"))?;
            return Ok(Zeroizing::new(bytes));
        }
        let secret = make();
        self.own.insert(key, secret.as_slice())?;
        self.flush()?;
        Ok(secret)
    }

    /// The latest moment this node has known, in seconds since 1970.
    pub fn time_floor(&self) -> Result<u64> {
        self.number("time_floor")
    }

    /// Remembers the moment, so that a clock set back revives nothing.
    pub fn save_time_floor(&self, seconds: u64) -> Result<()> {
        self.own.insert("time_floor", &seconds.to_be_bytes())?;
        Ok(())
    }

    /// The sequence number of the last descriptor we signed.
    pub fn descriptor_seq(&self) -> Result<u64> {
        self.number("descriptor_seq")
    }

    /// Remembers the sequence number before the descriptor is shown to anybody.
    pub fn save_descriptor_seq(&self, seq: u64) -> Result<()> {
        self.own.insert("descriptor_seq", &seq.to_be_bytes())?;
        Ok(())
    }

    /// Returns once everything is on the disk.
    pub fn flush(&self) -> Result<()> {
        self.db
            .flush()
            .context("cannot write the database: make room on the disk, then restart this node")?;
        Ok(())
    }

    fn number(&self, key: &str) -> Result<u64> {
        let Some(value) = self.own.get(key)? else {
            return Ok(0);
        };
        let bytes = <[u8; 8]>::try_from(value.as_ref())
            .with_context(|| format!("the database's {key} is damaged"))?;
        Ok(u64::from_be_bytes(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_membership_survives_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        assert!(store.membership().unwrap().is_none());
        let membership = StoredMembership {
            network: Zeroizing::new(vec![1, 2]),
            credential: vec![3],
            delegation: Some(vec![4]),
        };
        store.save_membership(&membership).unwrap();
        drop(store);
        let found = Store::open(dir.path())
            .unwrap()
            .membership()
            .unwrap()
            .unwrap();
        assert_eq!(
            (found.network.as_slice(), found.credential, found.delegation),
            (&[1, 2][..], vec![3], Some(vec![4]))
        );
    }

    #[test]
    fn a_password_that_was_cleared_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        store.save_password(Some(b"record")).unwrap();
        assert_eq!(store.password().unwrap().unwrap().as_slice(), b"record");
        store.save_password(None).unwrap();
        assert!(store.password().unwrap().is_none());
    }

    #[test]
    fn a_slot_holds_what_was_saved_last() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        store.save_entry(&[1; 32], b"old").unwrap();
        store.save_entry(&[1; 32], b"new").unwrap();
        store.save_entry(&[2; 32], b"other").unwrap();
        store.remove_entry(&[2; 32]).unwrap();
        drop(store);
        let store = Store::open(dir.path()).unwrap();
        assert_eq!(store.entries().unwrap(), [b"new"]);
    }

    #[test]
    fn of_twenty_that_redeem_at_once_one_succeeds() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let winners: usize = std::thread::scope(|scope| {
            let store = &store;
            let tries: Vec<_> = (0..20_u8)
                .map(|who| scope.spawn(move || store.redeem(b"invite", &[who]).unwrap()))
                .collect();
            tries
                .into_iter()
                .map(|t| usize::from(t.join().unwrap()))
                .sum()
        });
        assert_eq!(winners, 1);
        assert_eq!(store.redemptions().unwrap().len(), 1);
    }

    #[test]
    fn a_store_of_a_newer_version_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        store.own.insert("format", &[99]).unwrap();
        drop(store);
        let error = Store::open(dir.path()).err().unwrap();
        assert!(format!("{error:#}").contains("newer hivevpn"));
    }
}
