//! What was changed on this node, by whom, and who was refused: a line of JSON each.
//!
//! The file is only ever appended to. When it has grown to [`LONGEST`] it becomes [`OLDER`], in place of the one before,
//! so that there are never more than two. A line says nothing that is secret. A line that cannot be written is told in the
//! log of the daemon and keeps nobody from anything: a full disk must not lock an operator out.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::event_loop::now;

/// The file in the state directory.
pub const FILE: &str = "audit.log";
/// Where its predecessor lies.
pub const OLDER: &str = "audit.log.old";
/// In bytes. Some thousands of lines.
const LONGEST: u64 = 1 << 20;
/// A subject or reason is cut after this many characters: a line stays a line.
const LONGEST_TEXT: usize = 200;

/// A line of the file, and of `audit --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// When, in seconds since 1970.
    pub time: u64,
    /// Who: `uid 0`, `member 12D3…`, or `network` for what others signed.
    pub caller: String,
    /// What was asked for, or what happened.
    pub request: String,
    /// Whom or what it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// `done`, `failed: …` or `refused: …`.
    pub outcome: String,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome<'a> {
    /// It happened.
    Done,
    /// It was allowed and did not work out.
    Failed(&'a str),
    /// It was not allowed.
    Refused(&'a str),
}

/// Writes the file. Clones write the same one, from any thread.
#[derive(Clone)]
pub struct Audit(Arc<Mutex<Log>>);

struct Log {
    path: PathBuf,
    file: File,
    length: u64,
    longest: u64,
}

impl Audit {
    /// Goes on with the file in the state directory.
    pub fn open(state: &Path) -> Result<Self> {
        let path = state.join(FILE);
        let log = Log::open(path.clone(), LONGEST)
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self(Arc::new(Mutex::new(log))))
    }

    /// Appends a line, with the time.
    pub fn record(&self, caller: &str, request: &str, subject: Option<&str>, outcome: Outcome<'_>) {
        let entry = Entry {
            time: now().unix.0,
            caller: caller.to_owned(),
            request: request.to_owned(),
            subject: subject.map(short),
            outcome: match outcome {
                Outcome::Done => "done".to_owned(),
                Outcome::Failed(why) => format!("failed: {}", short(why)),
                Outcome::Refused(why) => format!("refused: {}", short(why)),
            },
        };
        // Whoever panicked with the lock held left at worst half a line, which readers skip.
        let mut log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = log.append(&entry) {
            tracing::error!(%error, ?entry, "the audit log cannot be written: is the disk full?");
        }
    }
}

fn short(text: &str) -> String {
    text.chars().take(LONGEST_TEXT).collect()
}

impl Log {
    fn open(path: PathBuf, longest: u64) -> io::Result<Self> {
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&path)?;
        let length = file.metadata()?.len();
        Ok(Self {
            path,
            file,
            length,
            longest,
        })
    }

    fn append(&mut self, entry: &Entry) -> io::Result<()> {
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        if self.length > 0 && self.length + line.len() as u64 > self.longest {
            fs::rename(&self.path, self.path.with_file_name(OLDER))?;
            *self = Self::open(self.path.clone(), self.longest)?;
        }
        self.file.write_all(&line)?;
        self.length += line.len() as u64;
        Ok(())
    }
}

/// The last `count` lines, the oldest first. Lines that cannot be read are left out.
pub fn read(state: &Path, count: usize) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for name in [OLDER, FILE] {
        let path = state.join(name);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error).context(path.display().to_string()),
        };
        let lines = bytes.split(|byte| *byte == b'\n');
        entries.extend(lines.filter_map(|line| serde_json::from_slice::<Entry>(line).ok()));
    }
    Ok(entries.split_off(entries.len().saturating_sub(count)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn lines_are_appended_across_restarts_and_read_back_in_order() {
        let state = tempfile::tempdir().unwrap();
        assert!(read(state.path(), 9).unwrap().is_empty());
        let audit = Audit::open(state.path()).unwrap();
        audit.record("uid 0", "invite", Some("laptop"), Outcome::Done);
        drop(audit);
        let audit = Audit::open(state.path()).unwrap();
        audit.record("uid 7", "down", None, Outcome::Refused("no\nrole"));
        let entries = read(state.path(), 9).unwrap();
        assert_eq!(entries.len(), 2);
        assert_eq!(entries[0].subject.as_deref(), Some("laptop"));
        assert_eq!(entries[1].outcome, "refused: no\nrole");
        assert_eq!(read(state.path(), 1).unwrap(), entries[1..]);
        let file = fs::metadata(state.path().join(FILE)).unwrap();
        assert_eq!(file.permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_damaged_line_hides_no_other() {
        let state = tempfile::tempdir().unwrap();
        Audit::open(state.path())
            .unwrap()
            .record("uid 0", "down", None, Outcome::Done);
        let mut file = OpenOptions::new()
            .append(true)
            .open(state.path().join(FILE))
            .unwrap();
        file.write_all(b"{\"time\":1,\xff\n").unwrap();
        Audit::open(state.path())
            .unwrap()
            .record("uid 1", "down", None, Outcome::Done);
        assert_eq!(read(state.path(), 9).unwrap().len(), 2);
    }

    #[test]
    fn the_file_is_rotated_and_two_of_them_are_all_there_is() {
        let state = tempfile::tempdir().unwrap();
        let log = Log::open(state.path().join(FILE), 1000).unwrap();
        let audit = Audit(Arc::new(Mutex::new(log)));
        for number in 0..100 {
            let subject = format!("{number} {}", "x".repeat(1000));
            audit.record("uid 0", "invite", Some(&subject), Outcome::Done);
        }
        let sizes: Vec<_> = [FILE, OLDER]
            .map(|name| fs::metadata(state.path().join(name)).unwrap().len())
            .into();
        assert!(sizes.iter().all(|size| *size <= 1000), "{sizes:?}");
        let last = read(state.path(), 1).unwrap();
        assert!(last[0].subject.as_ref().unwrap().starts_with("99 "));
        assert_eq!(fs::read_dir(state.path()).unwrap().count(), 2);
    }
}
