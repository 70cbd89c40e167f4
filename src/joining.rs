//! Joining a network with an invite: find the node that made it, ask, check the answer.

use std::{
    collections::VecDeque,
    net::Ipv4Addr,
    os::fd::AsFd,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use hivevpn_core::membership::{
    Invite, JoinAnswer, JoinError, JoinMessage, JoinRefusal, JoinRequest, Joined, Signer,
};
use hivevpn_platform::{
    poll::{self, Waker},
    udp::RecvBatch,
};
use libp2p::{Multiaddr, PeerId};
use tokio::sync::mpsc;

use crate::{
    commands::TimedOut,
    control::Reply,
    control_socket::Asked,
    event_loop::{Local, Socket, now},
    footprint::Footprint,
    mailbox,
    swarm::{Command, Event, Protocol, addresses::is_quic},
};

/// How long the issuer may take to be found and to answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// Pause between two attempts to reach it.
const RETRY: Duration = Duration::from_secs(1);
/// An answer that has not come after this long is asked for again: the issuer gives the same node the same answer.
const ASK_AGAIN: Duration = Duration::from_secs(6);
/// QUIC's head start over TCP, which UDP that is blocked costs once.
const TCP_DELAY: Duration = Duration::from_millis(300);
/// The one request under way.
const TOKEN: u64 = 0;

/// How joining ended without an error.
pub enum Outcome {
    /// We are a member.
    Joined(Box<Joined>),
    /// We were asked to stop.
    Stopped,
}

/// What joining works with.
pub struct Joining<'a> {
    /// The invite.
    pub invite: &'a Invite,
    /// Our identity.
    pub signer: &'a Signer,
    /// What we would like to be called.
    pub name: &'a str,
    /// The address we would like.
    pub ipv4: Option<Ipv4Addr>,
    /// To the swarm.
    pub commands: &'a mpsc::Sender<Command>,
    /// From the swarm.
    pub swarm: &'a mut mailbox::Receiver<Event>,
    /// From signals.
    pub local: &'a mut mailbox::Receiver<Local>,
    /// Wakes us for both.
    pub waker: &'a Waker,
    /// The underlay sockets, which nobody else reads yet.
    pub sockets: &'a [Socket],
    /// What the swarm says meanwhile that the event loop must know later.
    pub early: &'a mut VecDeque<Event>,
    /// Memory to receive into.
    pub received: RecvBatch,
    /// Connections to the issuer that are open.
    pub open: usize,
    /// What to keep once the issuer may have admitted us.
    pub footprint: &'a Footprint,
}

impl Joining<'_> {
    /// Asks the issuer until it answers or the time is up. A lost answer burns nothing: the issuer gives the same
    /// certificate to the same node again.
    pub fn run(mut self) -> Result<Outcome> {
        let issuer = self.invite.issuer();
        let deadline = Instant::now() + PATIENCE;
        let mut next_dial = Instant::now();
        let mut next_tcp = None;
        let mut last_error = "nobody answers".to_owned();
        loop {
            let moment = Instant::now();
            if moment >= deadline {
                return Err(self.nobody(&last_error).into());
            }
            if moment >= next_dial {
                next_dial = moment + ASK_AGAIN;
                if self.open > 0 {
                    self.ask(issuer)?;
                } else {
                    next_tcp = Some(moment + TCP_DELAY);
                    self.dial(issuer, is_quic)?;
                }
            }
            if next_tcp.is_some_and(|due| moment >= due) {
                next_tcp = None;
                if self.open == 0 {
                    self.dial(issuer, |address| !is_quic(address))?;
                }
            }
            let until = next_tcp.unwrap_or(deadline).min(next_dial).min(deadline);
            self.wait(until - moment)?;
            while let Some(event) = self.swarm.try_recv() {
                match self.on_event(event, issuer)? {
                    Step::Answered(joined) => return Ok(Outcome::Joined(joined)),
                    Step::Failed(error) => {
                        last_error = error;
                        next_dial = Instant::now() + RETRY;
                    }
                    Step::Nothing => {}
                }
            }
            while let Some(message) = self.local.try_recv() {
                match message {
                    Local::Stop => return Ok(Outcome::Stopped),
                    Local::Control(Asked { answer, .. }) => {
                        let network = &self.invite.terms().network_name;
                        // Whoever asked may have gone.
                        let _ = answer.send(Reply::Starting(format!(
                            "this node is still joining '{network}'"
                        )));
                    }
                }
            }
        }
    }

    /// Sleeps until there is something to do. The data loop does not run yet, so QUIC is fed from here.
    fn wait(&mut self, timeout: Duration) -> Result<()> {
        let mut sources = vec![self.waker.as_fd()];
        sources.extend(self.sockets.iter().map(|socket| socket.udp.as_fd()));
        poll::wait(&sources, Some(timeout)).context("cannot wait")?;
        self.waker.drain();
        for socket in self.sockets {
            socket.feed_quic(&mut self.received);
        }
        Ok(())
    }

    fn dial(&self, issuer: PeerId, which: impl Fn(&Multiaddr) -> bool) -> Result<()> {
        let all = self.invite.addresses().iter();
        let addresses: Vec<_> = all.filter(|address| which(address)).cloned().collect();
        if addresses.is_empty() {
            return Ok(());
        }
        // The two kinds are dialled side by side.
        self.send(Command::Dial {
            peer: issuer,
            addresses,
            even_if_connected: true,
        })
    }

    fn on_event(&mut self, event: Event, issuer: PeerId) -> Result<Step> {
        match event {
            Event::ConnectionOpened { peer, .. } if peer == issuer => {
                self.early.push_back(event);
                self.open += 1;
                self.ask(issuer)?;
            }
            Event::Response {
                token: TOKEN,
                outcome: Ok(body),
                ..
            } => {
                let unix = now().unix;
                return match JoinAnswer::accept(&body, self.invite, &self.signer.key(), unix) {
                    Ok(joined) => Ok(Step::Answered(Box::new(joined))),
                    Err(JoinError::Refused(
                        refusal @ (JoinRefusal::RateLimited | JoinRefusal::Unavailable),
                    )) => Ok(Step::Failed(refusal.to_string())),
                    Err(error) => {
                        if matches!(error, JoinError::Refused(_)) {
                            // The issuer has nothing that only this identity could ask for again.
                            self.footprint.let_go();
                        }
                        Err(anyhow::Error::new(error).context("the network did not take us in"))
                    }
                };
            }
            Event::Response {
                token: TOKEN,
                outcome: Err(error),
                ..
            }
            | Event::DialFailed { error, .. } => {
                tracing::debug!(%error, "the issuer was not reached");
                return Ok(Step::Failed(error));
            }
            Event::ConnectionClosed { peer, .. } if peer == issuer => {
                self.early.push_back(event);
                self.open = self.open.saturating_sub(1);
            }
            other => self.early.push_back(other),
        }
        Ok(Step::Nothing)
    }

    fn ask(&self, issuer: PeerId) -> Result<()> {
        // From now on the issuer may have spent the invite on us: only this identity can ask again.
        self.footprint.keep();
        let request = JoinRequest::seal(self.invite, self.signer, self.name, self.ipv4);
        let body = JoinMessage::Invite(request).encode();
        self.send(Command::Request {
            peer: issuer,
            protocol: Protocol::Join,
            token: TOKEN,
            body,
        })
    }

    fn send(&self, command: Command) -> Result<()> {
        self.commands
            .try_send(command)
            .ok()
            .context("the network side of this node has stopped")
    }

    fn nobody(&self, last_error: &str) -> TimedOut {
        let addresses: Vec<_> = self
            .invite
            .addresses()
            .iter()
            .map(ToString::to_string)
            .collect();
        TimedOut(format!(
            "the node that made the invite was not reached within {} s ({last_error}).\n\
             It must be running, and reachable at one of:\n  {}\n\
             The invite is not used up: try again, or ask for a new one if its addresses changed",
            PATIENCE.as_secs(),
            addresses.join("\n  "),
        ))
    }
}

enum Step {
    Answered(Box<Joined>),
    Failed(String),
    Nothing,
}
