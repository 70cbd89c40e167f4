//! Asking the daemon, once an interval.

use std::{
    io,
    sync::mpsc::{Receiver, RecvTimeoutError, Sender},
    time::{Duration, Instant},
};

use anyhow::Result;
use serde::de::DeserializeOwned;

use super::{
    known::{Answer, Heard},
    panes::Pane,
};
use crate::control::{Daemon, NoDaemon, Request, Underlay, ask, services::Ask};

/// After so many intervals what is not looked at is asked for too: tabs show how much there is.
const WHOLE: u32 = 10;

/// What the user looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The pane.
    pub pane: Pane,
    /// The peer whose details are open.
    pub peer: Option<String>,
}

/// Asks for as long as anybody listens.
pub fn ask_on<E>(
    daemon: Daemon,
    interval: Duration,
    mut wanted: Wanted,
    wishes: &Receiver<Wanted>,
    listener: &Sender<E>,
) where
    E: From<Heard>,
{
    let mut asker = Asker::new(daemon);
    let mut next = Instant::now();
    let mut rounds = 0_u32;
    loop {
        let status = asker.status();
        let is_told = matches!(status.answer, Answer::Status(Ok(_)));
        if listener.send(status.into()).is_err() {
            return;
        }
        // A daemon that does not tell its status tells nothing else: do not wait for each answer in turn.
        if is_told {
            let heard = match rounds % WHOLE {
                0 => asker.everything_else(),
                _ => asker.what_is(&wanted),
            };
            rounds = rounds.wrapping_add(1);
            for heard in heard {
                // The next round notices that nobody listens.
                let _ = listener.send(heard.into());
            }
        } else {
            rounds = 0;
        }
        next = (next + interval).max(Instant::now());
        loop {
            let pause = next.saturating_duration_since(Instant::now());
            match wishes.recv_timeout(pause) {
                Ok(wish) => {
                    wanted = wishes.try_iter().last().unwrap_or(wish);
                    // Another node lets nobody ask whenever a key is pressed.
                    if is_told && asker.daemon.on.is_none() {
                        for heard in asker.what_is(&wanted) {
                            let _ = listener.send(heard.into());
                        }
                    }
                }
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }
}

/// Asks a daemon.
pub struct Asker {
    daemon: Daemon,
}

impl Asker {
    /// For this daemon.
    pub fn new(daemon: Daemon) -> Self {
        Self { daemon }
    }

    /// Node and peers, or why they are not told.
    fn status(&mut self) -> Heard {
        let status = ask(&self.daemon, &Request::Status);
        heard(Answer::Status(status.map_err(|error| trouble(&error))))
    }

    /// As the first answer of all: without it there is nothing to show.
    pub fn status_or_error(&mut self) -> Result<Heard> {
        let status = ask(&self.daemon, &Request::Status)?;
        Ok(heard(Answer::Status(Ok(status))))
    }

    /// What all panes but the peers show.
    pub fn everything_else(&mut self) -> Vec<Heard> {
        let panes = Pane::ALL.into_iter().flat_map(|pane| self.pane(pane));
        panes.chain(self.up_for()).collect()
    }

    fn what_is(&self, wanted: &Wanted) -> Vec<Heard> {
        let why = wanted.peer.iter().map(|peer| self.why(peer));
        self.pane(wanted.pane).into_iter().chain(why).collect()
    }

    fn pane(&self, pane: Pane) -> Vec<Heard> {
        match pane {
            Pane::Peers => vec![],
            Pane::Services => vec![heard(Answer::Services(self.about(Ask::Services)))],
            Pane::Models => vec![heard(Answer::Models(self.about(Ask::Models)))],
            Pane::Ports => vec![
                heard(Answer::Exposed(self.about(Ask::Exposed))),
                heard(Answer::Forwards(self.about(Ask::Forwards))),
            ],
        }
    }

    fn about<T: DeserializeOwned>(&self, question: Ask) -> Result<T, String> {
        let answer = ask(&self.daemon, &Request::Services(question));
        answer.map_err(|error| format!("{error:#}"))
    }

    fn why(&self, peer: &str) -> Heard {
        let request = Request::Why {
            peer: peer.to_owned(),
        };
        let why = ask(&self.daemon, &request).map_err(|error| format!("{error:#}"));
        let peer = peer.to_owned();
        heard(Answer::Why { peer, why })
    }

    /// How long the node is up, if it says so.
    fn up_for(&self) -> Option<Heard> {
        let underlay: Underlay = ask(&self.daemon, &Request::Underlay).ok()?;
        let time = Duration::from_secs(underlay.control_traffic.since_s);
        Some(heard(Answer::UpFor(time)))
    }
}

fn heard(answer: Answer) -> Heard {
    Heard {
        at: Instant::now(),
        answer,
    }
}

/// Why there is no status, and that it goes on.
fn trouble(error: &anyhow::Error) -> String {
    let is_silent = error.is::<NoDaemon>() || error.chain().any(|cause| cause.is::<io::Error>());
    match is_silent {
        true => "the daemon does not answer, trying again".to_owned(),
        false => format!("{error:#}, trying again"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_that_has_gone_is_told_from_one_that_refuses() {
        let gone = [
            NoDaemon("/run/x".into()).into(),
            anyhow::Error::new(io::Error::other("reset")).context("the daemon hung up"),
        ];
        for error in gone {
            assert_eq!(trouble(&error), "the daemon does not answer, trying again");
        }
        let refused = anyhow::Error::msg("you are not an administrator of b");
        assert_eq!(
            trouble(&refused),
            "you are not an administrator of b, trying again"
        );
    }
}
