//! What is asked to join, of whom, and what the answers mean.
//!
//! With an invite that is one question to the node that made it. With the network's password it is two, to any of the
//! bootstrap nodes, and between them the password is stretched: that takes a while, so a thread of its own does it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::mpsc::{self, Receiver, TryRecvError},
};

use anyhow::{Context, Result};
use hivevpn_core::membership::{
    Invite, JoinAnswer, JoinError, JoinMessage, JoinRefusal, JoinRequest, Joined, Name,
    PasswordJoin, PasswordProven, Signer,
};
use hivevpn_platform::poll::Waker;
use libp2p::{Multiaddr, PeerId};

use crate::{event_loop::now, identity::random_bytes, password::Password};

/// What a node has to join with.
pub enum Ticket {
    /// An invite.
    Invite(Box<Invite>),
    /// The network's name and password, and where to find members.
    Password {
        /// What people call the network.
        network: Name,
        /// Its password.
        password: Password,
        /// Members that may admit.
        bootstrap: Vec<(PeerId, Multiaddr)>,
    },
}

impl Ticket {
    /// The network to join.
    pub fn network(&self) -> &Name {
        match self {
            Self::Invite(invite) => &invite.terms().network_name,
            Self::Password { network, .. } => network,
        }
    }
}

/// Who wants to join, as what.
pub struct Joiner<'a> {
    /// Its identity.
    pub signer: &'a Signer,
    /// What it would like to be called.
    pub name: &'a str,
    /// The address it would like.
    pub ipv4: Option<Ipv4Addr>,
}

/// What to do next.
pub enum Step {
    /// We are a member.
    Joined(Box<Joined>),
    /// Send this to the node that was asked.
    Say(Vec<u8>),
    /// It did not work now; it may in a moment.
    Failed(String),
    /// Wait.
    Nothing,
}

/// A join under way.
pub struct Asking {
    ticket: Ticket,
    login: Login,
    /// Those who admit nobody.
    useless: BTreeSet<PeerId>,
}

/// How far a join by password is.
enum Login {
    /// Nothing was said.
    Idle,
    /// A challenge is awaited.
    Begun(Box<PasswordJoin>),
    /// The password is being stretched.
    Stretching(Receiver<Stretched>),
    /// The admission is awaited.
    Proven(PasswordProven),
}

type Stretched = Result<(PasswordProven, Vec<u8>), JoinError>;

impl Asking {
    /// Begins with what we have.
    pub fn with(ticket: Ticket) -> Self {
        Self {
            ticket,
            login: Login::Idle,
            useless: BTreeSet::new(),
        }
    }

    /// The network to join.
    pub fn network(&self) -> &Name {
        self.ticket.network()
    }

    /// Whom to ask, and where they are.
    pub fn peers(&self) -> BTreeMap<PeerId, Vec<Multiaddr>> {
        let mut peers: BTreeMap<_, Vec<_>> = BTreeMap::new();
        match &self.ticket {
            Ticket::Invite(invite) => {
                peers.insert(invite.issuer(), invite.addresses().to_vec());
            }
            Ticket::Password { bootstrap, .. } => {
                for (peer, address) in bootstrap {
                    if !self.useless.contains(peer) {
                        peers.entry(*peer).or_default().push(address.clone());
                    }
                }
            }
        }
        peers
    }

    /// Who it is that was not reached.
    pub fn sought(&self) -> &'static str {
        match self.ticket {
            Ticket::Invite(_) => "the node that made the invite was",
            Ticket::Password { .. } => "no node of the bootstrap addresses was",
        }
    }

    /// What to do about it.
    pub fn advice(&self) -> &'static str {
        match self.ticket {
            Ticket::Invite(_) => {
                "The invite is not used up: try again, or ask for a new one if its addresses changed"
            }
            Ticket::Password { .. } => {
                "Try again, or run 'hivevpn id --base64' there for its addresses of today"
            }
        }
    }

    /// Whether this side is at work, and nobody else is waited for.
    pub fn is_busy(&self) -> bool {
        matches!(self.login, Login::Stretching(_))
    }

    /// The first question to `peer`. Asked again when no answer came.
    pub fn ask(&mut self, joiner: &Joiner<'_>, peer: &PeerId) -> Result<Vec<u8>> {
        match &self.ticket {
            Ticket::Invite(invite) => {
                let request = JoinRequest::seal(invite, joiner.signer, joiner.name, joiner.ipv4);
                Ok(JoinMessage::Invite(request).encode())
            }
            Ticket::Password {
                network, password, ..
            } => {
                let us = joiner.signer.peer_id();
                let seeds = [random_bytes(), random_bytes()];
                let (join, message) =
                    PasswordJoin::begin(network, password.as_bytes(), &us, peer, seeds)?;
                self.login = Login::Begun(Box::new(join));
                Ok(message)
            }
        }
    }

    /// An answer of `peer`, who was asked last.
    pub fn answered(
        &mut self,
        joiner: &Joiner<'_>,
        peer: &PeerId,
        body: Vec<u8>,
        waker: &Waker,
    ) -> Result<Step> {
        let own = joiner.signer.key();
        let accepted = match (
            &self.ticket,
            std::mem::replace(&mut self.login, Login::Idle),
        ) {
            (Ticket::Invite(invite), _) => JoinAnswer::accept(&body, invite, &own, now().unix),
            (Ticket::Password { .. }, Login::Begun(join)) => {
                self.login = Login::Stretching(stretch(*join, body, joiner, waker)?);
                return Ok(Step::Nothing);
            }
            (Ticket::Password { .. }, Login::Proven(proven)) => {
                proven.accept(&body, &own, now().unix)
            }
            (Ticket::Password { .. }, login @ (Login::Idle | Login::Stretching(_))) => {
                self.login = login;
                return Ok(Step::Nothing);
            }
        };
        match accepted {
            Ok(joined) => Ok(Step::Joined(Box::new(joined))),
            Err(error) => self.refused(peer, error),
        }
    }

    /// What the stretching came to, once it is done.
    pub fn stretched(&mut self, peer: &PeerId) -> Result<Step> {
        let Login::Stretching(result) = &self.login else {
            return Ok(Step::Nothing);
        };
        match result.try_recv() {
            Ok(Ok((proven, message))) => {
                self.login = Login::Proven(proven);
                Ok(Step::Say(message))
            }
            Ok(Err(error)) => {
                self.login = Login::Idle;
                self.refused(peer, error)
            }
            Err(TryRecvError::Empty) => Ok(Step::Nothing),
            Err(TryRecvError::Disconnected) => {
                anyhow::bail!("the password could not be stretched: is there memory left?")
            }
        }
    }

    /// Whether a refusal is the end of it. An invite may be asked about again after a while; each question about a
    /// password is a try that counts.
    fn refused(&mut self, peer: &PeerId, error: JoinError) -> Result<Step> {
        let is_password = matches!(self.ticket, Ticket::Password { .. });
        match error {
            JoinError::Refused(refusal @ JoinRefusal::Unavailable) => {
                Ok(Step::Failed(refusal.to_string()))
            }
            JoinError::Refused(refusal @ JoinRefusal::RateLimited) if !is_password => {
                Ok(Step::Failed(refusal.to_string()))
            }
            JoinError::Refused(refusal @ JoinRefusal::MayNotAdmit) if is_password => {
                self.useless.insert(*peer);
                if self.peers().is_empty() {
                    return Err(refused(error));
                }
                Ok(Step::Failed(refusal.to_string()))
            }
            JoinError::Refused(_)
            | JoinError::Malformed(_)
            | JoinError::Untrustworthy(_)
            | JoinError::Unproven(_) => Err(refused(error)),
        }
    }
}

fn refused(error: JoinError) -> anyhow::Error {
    anyhow::Error::new(error).context("the network did not take us in")
}

fn stretch(
    join: PasswordJoin,
    challenge: Vec<u8>,
    joiner: &Joiner<'_>,
    waker: &Waker,
) -> Result<Receiver<Stretched>> {
    let (done, result) = mpsc::channel();
    let (name, ipv4, waker) = (joiner.name.to_owned(), joiner.ipv4, waker.clone());
    std::thread::Builder::new()
        .name("hivevpn-stretch".to_owned())
        .spawn(move || {
            // Whoever asked may have given up.
            let _ = done.send(join.prove(&challenge, &name, ipv4));
            waker.wake();
        })
        .context("cannot start a thread to stretch the password")?;
    Ok(result)
}
