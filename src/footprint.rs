//! What a start has left on the disk, so that a failed one can take it away again.

use std::{
    cell::Cell,
    fs,
    path::{Path, PathBuf},
};

use crate::audit;

/// Everything that a start may create in the state directory.
const NAMES: [&str; 6] = [
    "identity.key",
    "wg.key",
    "authority.key",
    "db",
    "hivevpn.sock",
    audit::FILE,
];
/// The lock, which stays where the directory stays: another start may be waiting for it.
const LOCK: &str = "lock";

/// What did not exist before this start.
pub struct Footprint {
    state: PathBuf,
    state_is_new: bool,
    new: Vec<PathBuf>,
    keep: Cell<bool>,
}

impl Footprint {
    /// Looks at the locked state directory before anything is made in it.
    pub fn before(state: &Path, state_is_new: bool) -> Self {
        let mut new: Vec<_> = NAMES
            .iter()
            .map(|name| state.join(name))
            .filter(|path| !path.exists())
            .collect();
        if state_is_new {
            new.push(state.join(LOCK));
        }
        Self {
            state: state.to_owned(),
            state_is_new,
            new,
            keep: Cell::new(false),
        }
    }

    /// From here on somebody else counts on what we have: it stays, whatever happens.
    pub fn keep(&self) {
        self.keep.set(true);
    }

    /// Nobody counts on it any more.
    pub fn let_go(&self) {
        self.keep.set(false);
    }

    /// Takes away what this start has made, unless it is to be kept. Call it with the lock held.
    pub fn undo(&self) {
        if self.keep.get() {
            return;
        }
        for path in &self.new {
            let gone = if path.is_dir() {
                fs::remove_dir_all(path)
            } else {
                fs::remove_file(path)
            };
            if let Err(error) = gone
                && error.kind() != std::io::ErrorKind::NotFound
            {
                tracing::warn!(%error, path = %path.display(), "left behind");
            }
        }
        if self.state_is_new {
            // Fails when somebody has put something else there, which is then not ours to remove.
            let _ = fs::remove_dir(&self.state);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_first_start_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        fs::create_dir(&state).unwrap();
        let footprint = Footprint::before(&state, true);
        fs::write(state.join(LOCK), b"").unwrap();
        fs::create_dir(state.join("db")).unwrap();
        fs::write(state.join("identity.key"), b"x").unwrap();
        footprint.undo();
        assert!(!state.exists());
    }

    #[test]
    fn what_was_there_before_and_what_others_count_on_stays() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("identity.key"), b"x").unwrap();
        let footprint = Footprint::before(dir.path(), false);
        fs::write(dir.path().join("wg.key"), b"x").unwrap();
        footprint.undo();
        assert!(dir.path().join("identity.key").exists() && !dir.path().join("wg.key").exists());
        let footprint = Footprint::before(dir.path(), false);
        fs::write(dir.path().join("wg.key"), b"x").unwrap();
        footprint.keep();
        footprint.undo();
        assert!(dir.path().join("wg.key").exists());
    }
}
