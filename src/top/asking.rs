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

/// Asks one round after the other, and tells somebody.
pub struct Rounds<E> {
    asker: Asker,
    wanted: Wanted,
    wishes: Receiver<Wanted>,
    listener: Sender<E>,
    /// How many there were since the daemon answered again.
    number: u32,
}

/// Nobody listens any more.
struct Unheard;

impl<E: From<Heard>> Rounds<E> {
    /// Asks for what is wanted, and later for what is wished.
    pub fn new(
        daemon: Daemon,
        wanted: Wanted,
        wishes: Receiver<Wanted>,
        listener: Sender<E>,
    ) -> Self {
        Self {
            asker: Asker::new(daemon),
            wanted,
            wishes,
            listener,
            number: 0,
        }
    }

    /// Goes on for as long as anybody listens. The first status was told already: the next comes after an interval, because
    /// rates over shorter times mean little.
    pub fn run(mut self, interval: Duration) {
        let mut next = Instant::now();
        let mut status = None;
        while self.ask(status.take()).is_ok() {
            next = (next + interval).max(Instant::now());
            if self.rest(next).is_err() {
                return;
            }
            status = Some(self.asker.status());
        }
    }

    /// A daemon that does not tell its status tells nothing else: no use in waiting for each answer in turn.
    fn ask(&mut self, status: Option<Heard>) -> Result<(), Unheard> {
        if let Some(status) = status {
            let is_told = matches!(status.answer, Answer::Status(Ok(_)));
            self.tell([status])?;
            if !is_told {
                self.number = 0;
                return Ok(());
            }
        }
        let heard = match self.number % WHOLE {
            0 => self.asker.everything_else(),
            _ => self.asker.what_is(&self.wanted),
        };
        self.number = self.number.wrapping_add(1);
        self.tell(heard)
    }

    /// Until then nothing is asked, except what the user suddenly wants to see.
    fn rest(&mut self, until: Instant) -> Result<(), Unheard> {
        loop {
            let pause = until.saturating_duration_since(Instant::now());
            let wish = match self.wishes.recv_timeout(pause) {
                Ok(wish) => wish,
                Err(RecvTimeoutError::Timeout) => return Ok(()),
                Err(RecvTimeoutError::Disconnected) => return Err(Unheard),
            };
            self.wanted = self.wishes.try_iter().last().unwrap_or(wish);
            // Another node lets nobody ask whenever a key is pressed, and one that is away would not answer.
            if self.number > 0 && self.asker.daemon.on.is_none() {
                let heard = self.asker.what_is(&self.wanted);
                self.tell(heard)?;
            }
        }
    }

    fn tell(&self, heard: impl IntoIterator<Item = Heard>) -> Result<(), Unheard> {
        for heard in heard {
            self.listener.send(heard.into()).map_err(|_| Unheard)?;
        }
        Ok(())
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
    pub fn status(&self) -> Heard {
        let status = ask(&self.daemon, &Request::Status);
        heard(Answer::Status(status.map_err(|error| trouble(&error))))
    }

    /// As the first answer of all: without it there is nothing to show.
    pub fn status_or_error(&self) -> Result<Heard> {
        let status = ask(&self.daemon, &Request::Status)?;
        Ok(heard(Answer::Status(Ok(status))))
    }

    /// What all panes but the peers show.
    pub fn everything_else(&self) -> Vec<Heard> {
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
