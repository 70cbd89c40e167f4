//! Answers to commands.

use std::{
    io::{self, Write},
    net::{Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use hivevpn_core::{
    membership::{Name, UnixTime, address},
    node::{InviteRequest, MemberStatus, Now, PeerStatus, Standing},
    path::{Path as Route, PathKind, PathView, candidate::CandidateKind, view::CandidateView},
    tunnels::PingAnswer,
};
use libp2p::PeerId;
use tokio::sync::oneshot;
use zeroize::Zeroizing;

use super::{EventLoop, members};
use crate::{
    bench::asking::Asking,
    control::{
        Candidate, Identity, Invite, Network, Node, Own, Peer, Pong, Reply, Request, Status, Why,
    },
    control_socket::Asked,
    identity, reach,
    swarm::Command,
};

/// The invite that a founder prints is good for this long.
const FIRST_INVITE: Duration = Duration::from_secs(24 * 60 * 60);

impl EventLoop {
    pub(super) fn answer(&mut self, asked: Asked, now: Now) {
        let Asked { request, answer } = asked;
        let reply = match request {
            Request::Status => Reply::of(&self.status()),
            Request::Nodes => Reply::of(&self.nodes()),
            Request::Id => Reply::of(&self.identity()),
            Request::Whois { who } => match self.whois(&who) {
                Ok(whois) => Reply::of(&whois),
                Err(message) => Reply::Error(message),
            },
            Request::Authorities => Reply::of(&self.authorities()),
            Request::Delegates => Reply::of(&self.delegates()),
            Request::Revoked => Reply::of(&self.revoked()),
            Request::Change(change) => self.change(change, now).unwrap_or_else(Reply::Error),
            Request::Policy(ask) => self.policy(&ask, now).unwrap_or_else(Reply::Error),
            Request::Invite {
                name,
                groups,
                address,
                expires_s,
            } => match self.invite(name, &groups, address, Duration::from_secs(expires_s), now) {
                Ok((invite, expires)) => Reply::of(&Invite {
                    invite: invite.to_string(),
                    expires_at: expires.0,
                }),
                Err(message) => Reply::Error(message),
            },
            Request::SetPassword { record } => match self.set_password(record, now) {
                Ok(()) => Reply::of(&()),
                Err(error) => Reply::Error(format!("{error:#}")),
            },
            Request::Why { peer } => match self.why(&peer, now) {
                Ok(why) => Reply::of(&why),
                Err(message) => Reply::Error(message),
            },
            Request::Ping { peer } => return self.ping(&peer, answer, now),
            Request::Bench { peer, seconds } => return self.ask_bench(&peer, seconds, answer),
            Request::Underlay => return self.survey(answer, now),
            Request::Clock { peer } => return self.ask_clock(&peer, answer),
            Request::Reflect { peer, endpoint } => {
                return self.ask_reflection(&peer, endpoint, answer);
            }
            Request::On { peer, request } => return self.ask_on(&peer, &request, answer, now),
            Request::Login { peer, step } => return self.login(&peer, step, answer),
            Request::Logout { peer } => self.logout(&peer),
            Request::Admins => Reply::of(&self.office.list()),
            Request::Appoint {
                user,
                roles,
                record,
            } => self.appoint(&user, &roles, &record),
            Request::Dismiss { user } => self.dismiss(&user),
            Request::Dht(ask) => return self.registry(ask, answer, now),
            Request::Services(ask) => return self.services.ask(ask, answer),
            Request::Down => {
                self.stopping = true;
                return;
            }
        };
        // Whoever asked may have gone.
        let _ = answer.send(reply);
    }

    fn status(&self) -> Status {
        let us = self.node.peer_id();
        let own_name = self.own_name();
        let (standing, expelled) = self.standing();
        Status {
            network: Network {
                name: self.node.network().genesis().name().to_string(),
                id: self.node.network().id().to_string(),
            },
            node: Own {
                name: own_name,
                peer_id: us.to_string(),
                ipv4: self.node.ipv4(),
                ipv6: self.own_ipv6(),
                interface: self.tun.name().to_owned(),
                listen: reach::all(&self.addresses)
                    .iter()
                    .map(ToString::to_string)
                    .collect(),
                reachability: reach::reachability(&self.addresses).to_owned(),
                standing: standing.to_owned(),
                expelled,
            },
            peers: self
                .node
                .peers()
                .into_iter()
                .map(|peer| self.peer(peer))
                .collect(),
            drops: self
                .node
                .drops()
                .iter()
                .map(|(reason, count)| (reason.to_string(), count))
                .collect(),
            rejections: self
                .node
                .rejections()
                .iter()
                .map(|(code, count)| (code.to_owned(), count))
                .collect(),
        }
    }

    /// What the others call us; when they do not take us for a member, what they called us.
    fn own_name(&self) -> String {
        let us = self.node.peer_id();
        match self.node.standing() {
            Standing::Member => self.node.name_of(&us).to_string(),
            Standing::Lapsed | Standing::Unsupported | Standing::Expelled { .. } => {
                self.node.certificate().name.to_string()
            }
        }
    }

    fn own_ipv6(&self) -> Ipv6Addr {
        let network = self.node.network().id();
        address::ipv6(&network, &self.node.certificate().subject)
    }

    fn peer(&self, peer: PeerStatus) -> Peer {
        Peer {
            name: peer.member.name.to_string(),
            peer_id: peer.member.peer_id.to_string(),
            ipv4: peer.member.ipv4,
            ipv6: peer.member.ipv6,
            online: peer.member.online,
            path: peer.path.map_or("none", |path| path.kind.name()).to_owned(),
            endpoint: peer.endpoint.map(|endpoint| endpoint.to_string()),
            relay: peer.path.and_then(|path| self.relay_name(&path)),
            rtt_ms: peer.path.and_then(|path| path.rtt).map(milliseconds),
            mtu: peer.path.map(|path| path.mtu),
            tx_bytes: peer.tx_bytes,
            rx_bytes: peer.rx_bytes,
            post_quantum: peer.post_quantum,
            last_handshake_s: peer.since_handshake.map(|age| age.as_secs()),
        }
    }

    fn relay_name(&self, path: &PathView) -> Option<String> {
        match path.kind {
            PathKind::Relay(relay) => Some(self.node.name_of(&relay).to_string()),
            PathKind::Direct | PathKind::Stream => None,
        }
    }

    fn nodes(&self) -> Vec<Node> {
        let us = self.node.peer_id();
        let powers = self.powers();
        let node = |member: MemberStatus| Node {
            groups: members::names(&member.groups),
            powers: powers.get(&member.peer_id).cloned().unwrap_or_default(),
            name: member.name.to_string(),
            peer_id: member.peer_id.to_string(),
            ipv4: member.ipv4,
            ipv6: member.ipv6,
            this: member.peer_id == us,
            online: member.online,
            relays: member.relays,
            admitted_at: member.admitted_at.0,
        };
        self.node.members().into_iter().map(node).collect()
    }

    fn identity(&self) -> Identity {
        Identity {
            id: self.node.peer_id().to_string(),
            addresses: reach::dialable(&self.addresses, self.node.peer_id())
                .iter()
                .map(ToString::to_string)
                .collect(),
        }
    }

    fn invite(
        &mut self,
        name: Option<String>,
        groups: &[String],
        ipv4: Option<Ipv4Addr>,
        lifetime: Duration,
        now: Now,
    ) -> Result<(Zeroizing<String>, UnixTime), String> {
        let name = name
            .map(|name| Name::parse(&name))
            .transpose()
            .map_err(|error| error.to_string())?;
        let addresses = reach::for_invite(&self.addresses);
        if addresses.is_empty() {
            return Err("this node has no address yet at which the invited machine could reach it: try again when \
                        it is connected to a network"
                .to_owned());
        }
        let request = InviteRequest {
            name,
            groups: members::groups(groups)?,
            ipv4,
            lifetime,
        };
        let invite = self
            .node
            .invite(request, addresses, identity::random_bytes(), now)
            .map_err(|why| self.no_invite(&why))?;
        Ok((invite.to_printable(), invite.terms().expires))
    }

    /// Prints the founder's first invite.
    pub(super) fn greet(&mut self, now: Now) {
        self.greet_at = None;
        // Without an address yet, the next one that is reported tries again.
        if let Ok((invite, _)) = self.invite(None, &[], None, FIRST_INVITE, now) {
            self.greet = false;
            say(&format!(
                "One machine may join '{}' within 24 hours with this invite ('hivevpn invite' prints more):\n  \
                 sudo hivevpn up --join {}…",
                self.node.network().genesis().name(),
                &invite[..12]
            ));
            // Alone on standard output, so that it can be piped.
            let _ = writeln!(io::stdout(), "{}", *invite);
        }
    }

    // ---- ping --------------------------------------------------------------------------------------------

    fn ping(&mut self, name: &str, answer: oneshot::Sender<Reply>, now: Now) {
        self.pings.retain(|_, waiting| !waiting.is_closed());
        let Some(peer) = self.node.resolve(name) else {
            let _ = answer.send(Reply::Error(unknown(name)));
            return;
        };
        let token = self.next_token();
        if self.node.ping(&peer, token, now.instant) {
            self.pings.insert(token, answer);
        } else {
            let _ = answer.send(Reply::Error(format!(
                "{name} is this node, or has no tunnel yet"
            )));
        }
    }

    pub(super) fn answer_ping(&mut self, came: PingAnswer) {
        let Some(waiting) = self.pings.remove(&came.token) else {
            return;
        };
        let members = self.node.members();
        let address = members
            .iter()
            .find(|member| member.peer_id == came.peer)
            .map_or_else(String::new, |member| {
                member
                    .ipv4
                    .map_or_else(|| member.ipv6.to_string(), |ip| ip.to_string())
            });
        let pong = Pong {
            name: self.node.name_of(&came.peer).to_string(),
            address,
            path: came.path.kind.name().to_owned(),
            endpoint: self
                .node
                .endpoint_of(&came.path.path)
                .map(|endpoint| endpoint.to_string()),
            relay: self.relay_name(&came.path),
            rtt_ms: milliseconds(came.round_trip),
        };
        let _ = waiting.send(Reply::of(&pong));
    }

    // ---- why ---------------------------------------------------------------------------------------------

    fn why(&self, name: &str, now: Now) -> Result<Why, String> {
        let id = self.node.resolve(name).ok_or_else(|| unknown(name))?;
        let (Some(why), Some(status)) = (self.node.why(&id, now.instant), self.node.peer(&id))
        else {
            return Err(format!("{name} is this node: name another one"));
        };
        let peer = self.peer(status);
        Ok(Why {
            name: peer.name,
            path: peer.path,
            endpoint: peer.endpoint,
            relay: peer.relay,
            since_s: why.since.map(|since| since.as_secs()),
            candidates: why.ways.iter().map(|way| self.candidate(way)).collect(),
        })
    }

    fn candidate(&self, way: &CandidateView) -> Candidate {
        let kind = match (way.kind, way.path, way.source) {
            (PathKind::Direct, _, source) => source.map_or("heard", CandidateKind::name),
            (PathKind::Stream, ..) => "stream",
            (PathKind::Relay(_), Route::Carrier(_), _) => "relayed stream",
            (PathKind::Relay(_), Route::Direct(_) | Route::Relayed { .. }, _) => "relay",
        };
        let endpoint = self.node.endpoint_of(&way.path).map(|at| at.to_string());
        let address = match way.kind {
            PathKind::Relay(relay) => Some(self.node.name_of(&relay).to_string()),
            PathKind::Direct | PathKind::Stream => endpoint,
        };
        Candidate {
            kind: kind.to_owned(),
            address: address.unwrap_or_else(|| "-".to_owned()),
            rtt_ms: way.rtt.map(milliseconds),
            state: way.state.name().to_owned(),
            reason: way.reason.clone(),
        }
    }

    /// For the log: which way packets to a peer go now.
    pub(super) fn log_path(&self, moved: PeerStatus) {
        let peer = self.peer(moved);
        if peer.path == "none" {
            return tracing::info!(peer = %peer.name, "no path answers");
        }
        tracing::info!(
            peer = %peer.name,
            path = %peer.path,
            endpoint = peer.endpoint,
            relay = peer.relay,
            rtt_ms = peer.rtt_ms,
            "path"
        );
    }

    // ---- bench -------------------------------------------------------------------------------------------

    /// Has the peer's daemon asked. From there the swarm knows who waits.
    fn ask_bench(&mut self, name: &str, seconds: u8, answer: oneshot::Sender<Reply>) {
        match self.other_member(name) {
            Ok((peer, status)) => {
                let asking = Asking {
                    peer: self.peer(status),
                    own: self.own_ipv6(),
                    seconds,
                    answer,
                };
                self.command(Command::AskBench { peer, asking });
            }
            Err(why) => {
                let _ = answer.send(Reply::Error(why));
            }
        }
    }

    /// The member of this name, if it is another one and online.
    pub(super) fn other_member(&self, name: &str) -> Result<(PeerId, PeerStatus), String> {
        let Some(id) = self.node.resolve(name) else {
            return Err(unknown(name));
        };
        let mut peers = self.node.peers().into_iter();
        match peers.find(|peer| peer.member.peer_id == id) {
            Some(peer) if peer.member.online => Ok((id, peer)),
            Some(_) => Err(format!("{name} is offline")),
            None => Err(format!("{name} is this node: name another one")),
        }
    }
}

pub(super) fn unknown(name: &str) -> String {
    format!("no member is called {name}: 'hivevpn nodes' lists them")
}

/// For whoever sits at the terminal. Nobody may be there.
fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Milliseconds with microseconds behind the point.
fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}
