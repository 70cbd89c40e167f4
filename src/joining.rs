//! Joining a network: find a node that may admit us, ask, check the answer. What is asked is in [`asking`](Asking).

use std::{
    collections::{BTreeMap, VecDeque},
    net::Ipv4Addr,
    os::fd::AsFd,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use hivevpn_core::membership::{JoinError, Joined, Signer};
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
    event_loop::{Local, Socket},
    footprint::Footprint,
    mailbox,
    swarm::{Command, Event, Protocol, addresses::is_quic},
};

mod asking;

pub use asking::{Asking, Ticket};
use asking::{Joiner, Step};

/// How long an issuer may take to be found and to answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// Pause between two attempts to reach it.
const RETRY: Duration = Duration::from_secs(1);
/// An answer that has not come after this long is asked for again: the issuer gives the same node the same answer.
const ASK_AGAIN: Duration = Duration::from_secs(6);
/// QUIC's head start over TCP, which UDP that is blocked costs once.
const TCP_DELAY: Duration = Duration::from_millis(300);
/// How joining ended without an error.
pub enum Outcome {
    /// We are a member.
    Joined(Box<Joined>),
    /// We were asked to stop.
    Stopped,
}

/// What joining works with.
pub struct Joining<'a> {
    /// What we have to join with.
    pub asking: Asking,
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
    /// How many connections are open, to each of those whom we may ask.
    pub open: BTreeMap<PeerId, usize>,
    /// What to keep once an issuer may have admitted us.
    pub footprint: &'a Footprint,
}

/// The question that is waited for.
#[derive(Default)]
struct Question {
    /// To whom.
    peer: Option<PeerId>,
    /// Its number. An answer to an earlier one comes too late.
    token: u64,
}

impl Joining<'_> {
    /// Asks until there is an answer or the time is up. A lost answer burns nothing: the issuer gives the same
    /// certificate to the same node again.
    pub fn run(mut self) -> Result<Outcome> {
        let deadline = Instant::now() + PATIENCE;
        let mut next_dial = Instant::now();
        let mut next_tcp = None;
        let mut question = Question::default();
        let mut last_error = "nobody answers".to_owned();
        loop {
            let moment = Instant::now();
            if moment >= deadline {
                return Err(self.nobody(&last_error).into());
            }
            if moment >= next_dial {
                next_dial = moment + ASK_AGAIN;
                if let Some(peer) = self.connected() {
                    self.ask(peer, &mut question)?;
                } else if !self.asking.is_busy() {
                    next_tcp = Some(moment + TCP_DELAY);
                    self.dial(is_quic)?;
                }
            }
            if next_tcp.is_some_and(|due| moment >= due) {
                next_tcp = None;
                if self.connected().is_none() {
                    self.dial(|address| !is_quic(address))?;
                }
            }
            let until = next_tcp.unwrap_or(deadline).min(next_dial).min(deadline);
            self.wait(until - moment)?;
            while let Some(event) = self.swarm.try_recv() {
                let step = self.on_event(event, &mut question)?;
                if let Some(joined) =
                    self.go_on(step, &mut question, &mut next_dial, &mut last_error)?
                {
                    return Ok(Outcome::Joined(joined));
                }
            }
            if let Some(peer) = question.peer {
                let stretched = self.asking.stretched(&peer);
                let step = self.judged(stretched)?;
                self.go_on(step, &mut question, &mut next_dial, &mut last_error)?;
            }
            while let Some(message) = self.local.try_recv() {
                match message {
                    Local::Stop => return Ok(Outcome::Stopped),
                    // They begin once there is a network.
                    Local::Services(_) => {}
                    Local::Control(Asked { answer, .. }) => {
                        let network = self.asking.network();
                        // Whoever asked may have gone.
                        let _ = answer.send(Reply::Starting(format!(
                            "this node is still joining '{network}'"
                        )));
                    }
                }
            }
        }
    }

    fn go_on(
        &mut self,
        step: Step,
        question: &mut Question,
        next_dial: &mut Instant,
        last_error: &mut String,
    ) -> Result<Option<Box<Joined>>> {
        match step {
            Step::Joined(joined) => return Ok(Some(joined)),
            Step::Say(body) => {
                if let Some(peer) = question.peer {
                    *next_dial = Instant::now() + ASK_AGAIN;
                    self.say(peer, body, question)?;
                }
            }
            Step::Failed(error) => {
                *last_error = error;
                *next_dial = Instant::now() + RETRY;
            }
            Step::Nothing => {}
        }
        Ok(None)
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

    /// Somebody to ask.
    fn connected(&self) -> Option<PeerId> {
        let peers = self.asking.peers();
        self.open
            .keys()
            .find(|peer| peers.contains_key(peer))
            .copied()
    }

    fn dial(&self, which: impl Fn(&Multiaddr) -> bool) -> Result<()> {
        for (peer, mut addresses) in self.asking.peers() {
            addresses.retain(&which);
            if addresses.is_empty() {
                continue;
            }
            // The two kinds are dialled side by side.
            self.send(Command::Dial {
                peer,
                addresses,
                even_if_connected: true,
            })?;
        }
        Ok(())
    }

    fn on_event(&mut self, event: Event, question: &mut Question) -> Result<Step> {
        match event {
            Event::ConnectionOpened { peer, .. } if self.asking.peers().contains_key(&peer) => {
                self.early.push_back(event);
                // The second connection of a peer, or the second peer, is no reason to ask twice.
                let asked = question
                    .peer
                    .is_some_and(|peer| self.open.contains_key(&peer));
                *self.open.entry(peer).or_default() += 1;
                if !asked {
                    self.ask(peer, question)?;
                }
            }
            Event::Response {
                token,
                peer,
                outcome,
            } => {
                if token != question.token {
                    return Ok(Step::Nothing);
                }
                let body = match outcome {
                    Ok(body) => body,
                    Err(error) => {
                        tracing::debug!(%error, "no answer to the request to join");
                        return Ok(Step::Failed(error));
                    }
                };
                let joiner = joiner(self.signer, self.name, self.ipv4);
                let answered = self.asking.answered(&joiner, &peer, body, self.waker);
                return self.judged(answered);
            }
            Event::DialFailed { error, .. } => {
                tracing::debug!(%error, "the issuer was not reached");
                if self.open.is_empty() {
                    return Ok(Step::Failed(error));
                }
            }
            Event::ConnectionClosed { peer, .. } => {
                self.early.push_back(event);
                if let Some(count) = self.open.get_mut(&peer) {
                    *count -= 1;
                    if *count == 0 {
                        self.open.remove(&peer);
                    }
                }
            }
            other => self.early.push_back(other),
        }
        Ok(Step::Nothing)
    }

    /// Passes the step on. If it is a refusal, the issuer has nothing that only this identity could ask for again.
    fn judged(&self, step: Result<Step>) -> Result<Step> {
        step.inspect_err(|error| {
            if let Some(JoinError::Refused(_)) = error.downcast_ref() {
                self.footprint.let_go();
            }
        })
    }

    fn ask(&mut self, peer: PeerId, question: &mut Question) -> Result<()> {
        if self.asking.is_busy() {
            return Ok(());
        }
        let joiner = joiner(self.signer, self.name, self.ipv4);
        let body = self.asking.ask(&joiner, &peer)?;
        question.peer = Some(peer);
        self.say(peer, body, question)
    }

    fn say(&self, peer: PeerId, body: Vec<u8>, question: &mut Question) -> Result<()> {
        // From now on the issuer may have spent an invite on us: only this identity can ask again.
        self.footprint.keep();
        question.token += 1;
        self.send(Command::Request {
            peer,
            protocol: Protocol::Join,
            token: question.token,
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
        let peers = self.asking.peers();
        let addresses: Vec<_> = peers.values().flatten().map(ToString::to_string).collect();
        TimedOut(format!(
            "{} not reached within {} s ({last_error}).\n\
             It must be running, and reachable at one of:\n  {}\n\
             {}",
            self.asking.sought(),
            PATIENCE.as_secs(),
            addresses.join("\n  "),
            self.asking.advice(),
        ))
    }
}

fn joiner<'a>(signer: &'a Signer, name: &'a str, ipv4: Option<Ipv4Addr>) -> Joiner<'a> {
    Joiner { signer, name, ipv4 }
}
