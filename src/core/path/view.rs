//! What people may see of the paths to a peer, and why the one in use was chosen.

use std::time::{Duration, Instant};

use super::{
    Path, PathKind, Paths,
    candidate::{CandidateKind, Outcome},
    tracked::Tracked,
};

/// What the outside may know of the path in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathView {
    /// Where it leads.
    pub path: Path,
    /// What kind it is.
    pub kind: PathKind,
    /// Smoothed round trip, once measured.
    pub rtt: Option<Duration>,
    /// A probe came back and none is missing too long.
    pub proven: bool,
    /// The longest packet that it carries now, in bytes.
    pub mtu: u16,
}

/// How a candidate stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Packets go this way.
    InUse,
    /// It works, and another one is better.
    Standby,
    /// It is being probed.
    Probing,
    /// It does not work.
    Failed,
    /// It was not tried yet.
    Untried,
}

impl State {
    /// The stable name that `why --json` shows.
    pub fn name(self) -> &'static str {
        match self {
            Self::InUse => "in use",
            Self::Standby => "standby",
            Self::Probing => "probing",
            Self::Failed => "failed",
            Self::Untried => "untried",
        }
    }
}

/// One way to a peer with what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CandidateView {
    /// Which way; a candidate that was never tried is the direct one to its endpoint.
    pub path: Path,
    /// What kind of path it makes.
    pub kind: PathKind,
    /// Where the endpoint of a direct path comes from.
    pub source: Option<CandidateKind>,
    /// Smoothed round trip, once measured.
    pub rtt: Option<Duration>,
    /// How it stands.
    pub state: State,
    /// Why, for people.
    pub reason: String,
}

impl Paths {
    /// The path in use and what is known of it.
    pub fn view(&self) -> Option<PathView> {
        let known = self.in_use()?;
        Some(PathView {
            path: known.path,
            kind: known.kind,
            rtt: known.rtt(),
            proven: known.proven || known.suspected,
            mtu: known.mtu.get(),
        })
    }

    /// Since when packets go the way they go.
    pub fn since(&self) -> Option<Instant> {
        self.since
    }

    /// Every way that is known, the one in use first, the failed ones last.
    pub fn explain(&self) -> Vec<CandidateView> {
        let mut views: Vec<_> = self
            .list
            .iter()
            .map(|known| self.explain_path(known))
            .collect();
        let rest = self.candidates.iter().filter(|known| {
            let path = Path::Direct(known.candidate.endpoint);
            !self.knows(path)
        });
        views.extend(rest.map(|known| {
            let (state, reason) = match known.outcome {
                Outcome::Untried => (State::Untried, "not tried yet".to_owned()),
                Outcome::NoAnswer => (
                    State::Failed,
                    format!("no answer to {}", attempts(known.tries)),
                ),
                Outcome::Spare => (
                    State::Standby,
                    "worked when it was tried; faster ones are in use".to_owned(),
                ),
                Outcome::Lost => (State::Failed, "it answered once and fell silent".to_owned()),
            };
            CandidateView {
                path: Path::Direct(known.candidate.endpoint),
                kind: PathKind::Direct,
                source: Some(known.candidate.kind),
                rtt: None,
                state,
                reason,
            }
        }));
        views.sort_by_key(|view| view.state as u8);
        views
    }

    fn explain_path(&self, known: &Tracked) -> CandidateView {
        let (state, reason) = self.judge(known);
        CandidateView {
            path: known.path,
            kind: known.kind,
            source: self.source_of(&known.path),
            rtt: known.rtt(),
            state,
            reason,
        }
    }

    fn source_of(&self, path: &Path) -> Option<CandidateKind> {
        let endpoint = match path {
            Path::Direct(endpoint) => endpoint,
            Path::Relayed { .. } | Path::Carrier(_) => return None,
        };
        let known = self
            .candidates
            .iter()
            .find(|known| known.candidate.endpoint == *endpoint);
        Some(known.map_or(CandidateKind::Heard, |known| known.candidate.kind))
    }

    fn judge(&self, known: &Tracked) -> (State, String) {
        if Some(known.path) == self.current {
            return (State::InUse, self.why_in_use(known));
        }
        if !known.is_alive() {
            let reason = if known.has_answered() {
                "stopped to answer"
            } else {
                "no answer so far"
            };
            return (State::Failed, reason.to_owned());
        }
        if !known.proven {
            let reason = if known.has_answered() {
                "answers, but not to packets of 1280 bytes so far"
            } else {
                "waiting for an answer"
            };
            return (State::Probing, reason.to_owned());
        }
        (State::Standby, self.why_not(known))
    }

    fn why_in_use(&self, known: &Tracked) -> String {
        if known.suspected {
            return "the network changed: it is being proven anew".to_owned();
        }
        if !known.proven {
            return "the only way so far; not proven yet".to_owned();
        }
        if known.is_in_doubt() {
            return "answers are missing: all others are being probed".to_owned();
        }
        let others = self.list.iter().filter(|other| other.path != known.path);
        let is_alone = !others.clone().any(|other| other.proven);
        match (known.kind, is_alone) {
            (_, true) => "the only way that works".to_owned(),
            (PathKind::Direct, false) => {
                let has_rival = others
                    .filter(|other| other.proven)
                    .any(|other| other.kind == PathKind::Direct);
                if has_rival {
                    "the fastest direct path".to_owned()
                } else {
                    "direct paths come first".to_owned()
                }
            }
            (PathKind::Stream, false) => "no direct path works; no relay is needed".to_owned(),
            (PathKind::Relay(_), false) => "no direct path works".to_owned(),
        }
    }

    fn why_not(&self, known: &Tracked) -> String {
        let Some(held) = self.in_use() else {
            return "just found".to_owned();
        };
        if held.kind == known.kind {
            return "works, but is not clearly faster".to_owned();
        }
        format!("works; a {} path comes first", held.kind.name())
    }
}

fn attempts(count: u32) -> String {
    match count {
        1 => "1 attempt".to_owned(),
        _ => format!("{count} attempts"),
    }
}
