//! One process per state directory.
//!
//! Two nodes with one identity would fight over its addresses and corrupt its store. The lock is the kernel's, on an
//! open file: it goes away with the process however that ends, and there is no stale lock to remove.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Name of the lock file in the state directory.
const FILE_NAME: &str = "lock";

/// Why the directory cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process works with the directory.
    #[error("{directory} is in use by {holder}: stop it first or choose another state directory",
        directory = directory.display(), holder = holder(*pid))]
    Held {
        /// The state directory.
        directory: PathBuf,
        /// The other process, if it has got round to writing it down.
        pid: Option<u32>,
    },
    /// The lock file cannot be opened, locked or written.
    #[error("cannot lock {path}", path = path.display())]
    Io {
        /// The lock file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(
        || "another process".to_owned(),
        |pid| format!("process {pid}"),
    )
}

/// Holds a state directory for this process until dropped.
#[derive(Debug)]
pub struct InstanceLock {
    /// Open, and so locked.
    _file: File,
}

impl InstanceLock {
    /// Takes the directory, which must exist, or says who has it. Does not wait.
    pub fn acquire(directory: &Path) -> Result<Self, LockError> {
        let path = directory.join(FILE_NAME);
        match Self::lock(&path) {
            Ok(file) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(LockError::Held {
                directory: directory.to_owned(),
                pid: written_pid(&path),
            }),
            Err(TryLockError::Error(source)) => Err(LockError::Io { path, source }),
        }
    }

    fn lock(path: &Path) -> Result<File, TryLockError> {
        // Emptied only once the lock is ours: until then the pid in it is the holder's.
        let open = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            // The directory may belong to a user that root must not be led astray by: neither by a symbolic link,
            .custom_flags(nix::libc::O_NOFOLLOW)
            .open(path);
        let mut file = open.map_err(TryLockError::Error)?;
        file.try_lock()?;
        // nor by another name of a file elsewhere.
        let found = file.metadata().map_err(TryLockError::Error)?;
        if !found.is_file() || found.nlink() != 1 {
            let error = io::Error::other("it is no plain file with this one name: remove it");
            return Err(TryLockError::Error(error));
        }
        let written = file
            .set_len(0)
            .and_then(|()| writeln!(file, "{}", std::process::id()));
        written.map_err(TryLockError::Error)?;
        Ok(file)
    }
}

fn written_pid(path: &Path) -> Option<u32> {
    let mut text = String::new();
    // The lock file may be anything by now: a pid has few digits.
    File::open(path)
        .ok()?
        .take(16)
        .read_to_string(&mut text)
        .ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_comer_learns_who_was_first() {
        let directory = tempfile::tempdir().unwrap();
        let first = InstanceLock::acquire(directory.path()).unwrap();
        let error = InstanceLock::acquire(directory.path()).unwrap_err();
        assert!(
            matches!(error, LockError::Held { pid: Some(pid), .. } if pid == std::process::id()),
            "{error}"
        );

        drop(first);
        InstanceLock::acquire(directory.path()).unwrap();
    }

    #[test]
    fn a_file_left_by_a_longer_pid_does_not_confuse() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(FILE_NAME), "4194303999\n").unwrap();
        let _lock = InstanceLock::acquire(directory.path()).unwrap();
        assert_eq!(
            written_pid(&directory.path().join(FILE_NAME)),
            Some(std::process::id())
        );
    }

    #[test]
    fn a_lock_that_is_another_name_of_something_else_is_refused_and_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let elsewhere = directory.path().join("elsewhere");
        std::fs::write(&elsewhere, "precious").unwrap();
        let lock = directory.path().join(FILE_NAME);
        for link in [
            std::os::unix::fs::symlink::<&Path, &Path>,
            std::fs::hard_link::<&Path, &Path>,
        ] {
            link(&elsewhere, &lock).unwrap();
            let error = InstanceLock::acquire(directory.path()).unwrap_err();
            assert!(matches!(error, LockError::Io { .. }), "{error}");
            assert_eq!(std::fs::read_to_string(&elsewhere).unwrap(), "precious");
            std::fs::remove_file(&lock).unwrap();
        }
    }

    #[test]
    fn a_missing_directory_is_named() {
        let error = InstanceLock::acquire(Path::new("/nonexistent/state")).unwrap_err();
        assert_eq!(error.to_string(), "cannot lock /nonexistent/state/lock");
    }
}
