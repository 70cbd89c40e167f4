//! `/etc/resolv.conf` where nothing else decides who is asked for which name, and the user wants us to stand in front.
//!
//! The file then begins with our server, and the servers that were there before know the rest. Everything that it takes to
//! put it back is in the file itself: what was there before, as comments; who has put what in front, one line for each
//! network; and a sum over it all. So it can be put back by whoever finds it, after a crash of ours too, and nobody's
//! change is undone with ours: where the sum is wrong, somebody else has written, and the file is left alone.
//!
//! It is written in place. It may be a mount, which cannot be replaced, and it may be open: a daemon that root has started
//! opens it before it becomes another user, who could not. Whoever reads it meanwhile sees the old text, the new, or the
//! new with empty lines behind.

use std::{
    fmt::Write as _,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Seek},
    net::{IpAddr, SocketAddr, SocketAddrV6},
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use hivevpn_platform::process;
use sha2::{Digest, Sha256};

/// Where programs look.
pub const PATH: &str = "/etc/resolv.conf";

/// The first line of a file of ours.
const FIRST: &str = "# hivevpn stands in front of what was here. It puts that back when it ends, and so does 'hivevpn down'.";
const STANDING: &str = "# hivevpn: ";
const SUM: &str = "# hivevpn: sum ";
const BEFORE: &str = "# What was here:";
/// Before a line of what was here.
const LINE: &str = "#| ";
/// Before its last line, if nothing ended that.
const UNENDED: &str = "#\\ ";
/// Longer ones are nobody's.
const MAX_LEN: u64 = 256 << 10;
/// Others write it in no time.
const LOCK_LIMIT: Duration = Duration::from_secs(1);
/// Where servers listen.
const PORT: u16 = 53;

/// A file like `/etc/resolv.conf`, open.
#[derive(Debug, Clone)]
pub struct ResolvConf {
    path: PathBuf,
    file: Arc<File>,
}

/// A network that stands in front.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Its domain.
    pub domain: String,
    /// Its server.
    pub server: IpAddr,
    /// Whether names without a dot are looked for there.
    pub search: bool,
    /// The process that serves it, and when that was started.
    pub process: (u32, u64),
}

/// What became of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repair {
    /// It is as it should be.
    Nothing,
    /// What a daemon that is no more had put in front is gone.
    Repaired,
    /// It was ours, and somebody else has changed it.
    LeftAlone,
}

/// A file of ours, in parts.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Parts {
    standing: Vec<Standing>,
    before: Vec<u8>,
}

/// What a file is to us.
enum Found {
    /// Nobody of us stands in front.
    Others(Vec<u8>),
    Ours(Parts),
    /// Ours, but changed by somebody else.
    Changed,
}

impl ResolvConf {
    /// Opens the file, for changes to come.
    pub fn open(path: &Path) -> Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(path);
        let file = file.with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self {
            path: path.to_owned(),
            file: Arc::new(file),
        })
    }

    /// Puts a server of ours in front. The servers behind it, which know all names but ours.
    pub fn stand_in_front(&self, standing: Standing) -> Result<Vec<SocketAddr>> {
        self.change(|parts| {
            parts
                .standing
                .retain(|other| other.server != standing.server);
            parts.standing.push(standing);
            servers(&parts.before)
        })
    }

    /// Takes it away again.
    pub fn step_back(&self, server: IpAddr) -> Result<()> {
        self.change(|parts| parts.standing.retain(|other| other.server != server))
    }

    /// Whether nobody of us stands between this server and those that were there before.
    pub fn is_last(&self, server: IpAddr) -> bool {
        let Ok(Found::Ours(parts)) = read(&self.file).map(|text| Found::of(&text)) else {
            return true;
        };
        let mut alive = parts.standing.iter().rev().filter(|other| other.is_alive());
        alive.next().is_none_or(|last| last.server == server)
    }

    /// Changes what stands in front, without those that died there.
    fn change<T>(&self, change: impl FnOnce(&mut Parts) -> T) -> Result<T> {
        let shown = self.path.display();
        ensure!(
            self.is_in_place(),
            "somebody has put another file in place of {shown}: it is left alone"
        );
        let _locked = lock(&self.file).with_context(|| format!("cannot lock {shown}"))?;
        let text = read(&self.file).with_context(|| shown.to_string())?;
        let mut parts = match Found::of(&text) {
            Found::Others(before) => Parts {
                standing: Vec::new(),
                before,
            },
            Found::Ours(parts) => parts,
            Found::Changed => bail!(
                "somebody else has changed {shown}, in which hivevpn stands: it is left alone. What was there before is \
                 in it as comments"
            ),
        };
        parts.standing.retain(Standing::is_alive);
        let outcome = change(&mut parts);
        replace(&self.file, &text, &parts.text())
            .with_context(|| format!("cannot write {shown}"))?;
        Ok(outcome)
    }

    /// Whether the open file is still what has this name.
    fn is_in_place(&self) -> bool {
        let (Ok(open), Ok(named)) = (self.file.metadata(), fs::metadata(&self.path)) else {
            return false;
        };
        (open.dev(), open.ino()) == (named.dev(), named.ino())
    }
}

/// Takes away what daemons have left that were killed.
pub fn repair(path: &Path) -> Result<Repair> {
    let Ok(text) = File::open(path).and_then(|file| read(&file)) else {
        // Not ours, then.
        return Ok(Repair::Nothing);
    };
    match Found::of(&text) {
        Found::Others(_) => Ok(Repair::Nothing),
        Found::Changed => Ok(Repair::LeftAlone),
        Found::Ours(parts) if parts.standing.iter().all(Standing::is_alive) => Ok(Repair::Nothing),
        Found::Ours(_) => {
            ResolvConf::open(path)?.change(|_| ())?;
            Ok(Repair::Repaired)
        }
    }
}

impl Found {
    fn of(text: &[u8]) -> Self {
        if !text.starts_with(FIRST.as_bytes()) {
            return Self::Others(text.to_vec());
        }
        Parts::of(text).map_or(Self::Changed, Self::Ours)
    }
}

impl Parts {
    /// The parts of what [`Parts::text`] has made.
    fn of(text: &[u8]) -> Option<Self> {
        let mut parts = Self {
            standing: Vec::new(),
            before: Vec::new(),
        };
        let mut is_before = false;
        for line in text.split_inclusive(|byte| *byte == b'\n') {
            if is_before {
                let (line, end) = match line.strip_prefix(LINE.as_bytes()) {
                    Some(line) => (line, 0),
                    None => (line.strip_prefix(UNENDED.as_bytes())?, 1),
                };
                parts.before.extend(&line[..line.len() - end]);
                continue;
            }
            let line = str::from_utf8(line).ok()?.trim_end();
            is_before = line == BEFORE;
            if let Some(standing) = line.strip_prefix(STANDING)
                && !line.starts_with(SUM)
            {
                parts.standing.push(standing.parse().ok()?);
            }
        }
        // The sum is in it, and so is every byte that we would write.
        (parts.text() == text).then_some(parts)
    }

    /// The file; what was there before, when nobody stands in front any more.
    fn text(&self) -> Vec<u8> {
        if self.standing.is_empty() {
            return self.before.clone();
        }
        let mut front = String::new();
        for standing in &self.standing {
            // Writing to a string cannot fail.
            let _ = writeln!(front, "{STANDING}{standing}");
        }
        let mut rest = self.settings();
        rest.extend(format!("{BEFORE}\n").bytes());
        for line in self.before.split_inclusive(|byte| *byte == b'\n') {
            let is_ended = line.ends_with(b"\n");
            rest.extend(if is_ended { LINE } else { UNENDED }.bytes());
            rest.extend(line);
            if !is_ended {
                rest.push(b'\n');
            }
        }
        let sum = Sha256::new()
            .chain_update(&front)
            .chain_update(&rest)
            .finalize();
        let sum: String = sum.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut text = format!("{FIRST}\n{front}{SUM}{sum}\n").into_bytes();
        text.extend(rest);
        text
    }

    /// What programs read: our servers and domains before all others.
    fn settings(&self) -> Vec<u8> {
        let mut settings = String::new();
        for standing in &self.standing {
            let _ = writeln!(settings, "nameserver {}", standing.server);
        }
        let ours = self.standing.iter().filter(|standing| standing.search);
        let mut search: Vec<_> = ours.map(|standing| standing.domain.as_str()).collect();
        let before = String::from_utf8_lossy(&self.before);
        let mut searched_before = Vec::new();
        for line in before.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                // Of several the last counts (resolv.conf(5)).
                Some("search" | "domain") if !search.is_empty() => {
                    searched_before = words.collect();
                }
                Some(word) if !word.starts_with(['#', ';']) => {
                    let _ = writeln!(settings, "{line}");
                }
                Some(_) | None => {}
            }
        }
        if !search.is_empty() {
            search.extend(searched_before);
            let _ = writeln!(settings, "search {}", search.join(" "));
        }
        settings.into_bytes()
    }
}

impl Standing {
    fn is_alive(&self) -> bool {
        let (pid, started) = self.process;
        process::started(pid) == Some(started)
    }
}

impl std::fmt::Display for Standing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            domain,
            server,
            search,
            process: (pid, started),
        } = self;
        let search = if *search { "searched" } else { "named" };
        write!(
            f,
            "{domain} {server} {search} by process {pid} of {started}"
        )
    }
}

impl FromStr for Standing {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let words: Vec<_> = text.split(' ').collect();
        let [domain, server, search, "by", "process", pid, "of", started] = *words else {
            bail!("'{text}' is nothing that stands in front");
        };
        Ok(Self {
            domain: domain.to_owned(),
            server: server.parse()?,
            search: search == "searched",
            process: (pid.parse()?, started.parse()?),
        })
    }
}

/// The servers that a file names.
fn servers(text: &[u8]) -> Vec<SocketAddr> {
    let text = String::from_utf8_lossy(text);
    let named = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let is_server = words.next() == Some("nameserver");
        words.next().filter(|_| is_server).and_then(server)
    });
    let servers: Vec<_> = named.collect();
    match servers.is_empty() {
        // Who names none means the one on this machine (resolv.conf(5)).
        true => vec![SocketAddr::from(([127, 0, 0, 1], PORT))],
        false => servers,
    }
}

/// An address, which may have a zone behind it: `fe80::1%eth0`.
fn server(word: &str) -> Option<SocketAddr> {
    let Some((address, zone)) = word.split_once('%') else {
        return Some(SocketAddr::new(word.parse().ok()?, PORT));
    };
    let number = zone.parse().ok().or_else(|| {
        let number = fs::read_to_string(Path::new("/sys/class/net").join(zone).join("ifindex"));
        number.ok()?.trim().parse().ok()
    })?;
    Some(SocketAddrV6::new(address.parse().ok()?, PORT, 0, number).into())
}

fn read(file: &File) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    let mut file = file;
    file.rewind()?;
    file.take(MAX_LEN + 1).read_to_end(&mut text)?;
    match text.len() as u64 > MAX_LEN {
        true => Err(io::Error::other("it is too long to be a resolv.conf")),
        false => Ok(text),
    }
}

/// Writes `new` over `old`; or `old` again, if there is no room.
fn replace(file: &File, old: &[u8], new: &[u8]) -> io::Result<()> {
    let write = |text: &[u8]| {
        let mut padded = text.to_vec();
        padded.resize(old.len().max(new.len()), b'\n');
        file.write_all_at(&padded, 0)?;
        file.set_len(text.len() as u64)
    };
    if old == new {
        return Ok(());
    }
    if let Err(error) = write(new) {
        // Room for the old text there was.
        file.write_all_at(old, 0)?;
        file.set_len(old.len() as u64)?;
        return Err(error);
    }
    file.sync_all()
}

/// Keeps other daemons from writing until it is dropped.
fn lock(file: &File) -> io::Result<Locked<'_>> {
    let until = Instant::now() + LOCK_LIMIT;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Locked(file)),
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) if Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(TryLockError::WouldBlock) => return Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

struct Locked<'a>(&'a File);

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        // It ends with the open file otherwise.
        let _ = self.0.unlock();
    }
}

#[cfg(test)]
mod tests;
