//! Answers to commands that explain: what is known of the underlay, and what members see of it that we cannot.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use hivevpn_core::{
    node::{Now, PeerStatus},
    path::PathKind,
};
use hivevpn_platform::addresses::local_addresses;
use tokio::sync::oneshot;

use super::EventLoop;
use crate::{
    control::{ControlTraffic, Observation, Reply, Underlay},
    identity,
    reflect::{
        asking::{Asking, Question},
        wire::Token,
    },
    swarm::Command,
};

/// Idle pairs look every 22 s: what was not seen for longer than two of these may be past.
const FRESH: Duration = Duration::from_secs(60);

impl EventLoop {
    /// Tells what the loop knows. The swarm completes and sends it.
    pub(super) fn survey(&mut self, answer: oneshot::Sender<Reply>, now: Now) {
        let first = self.sockets.first();
        let certificate = self.node.certificate();
        let underlay = Underlay {
            port: first
                .and_then(|socket| socket.udp.local_addr().ok())
                .map_or(0, |address| address.port()),
            mtu: self.tun.config().mtu,
            ipv4_prefix: self.node.network().genesis().ipv4_prefix().to_string(),
            certificate_expires_at: certificate.not_after.0,
            certificate_issuer: certificate.issuer.peer_id().to_string(),
            time_floor: self.node.time_floor().0,
            reservations: Vec::new(),
            connections: Vec::new(),
            port_mapping: self.addresses.mapped.first().map(ToString::to_string),
            observations: self.observations(now),
            addresses: underlay_addresses(self.tun.name()),
            control_traffic: self.control_traffic(now),
        };
        self.command(Command::Survey {
            underlay: Box::new(underlay),
            answer,
        });
    }

    fn control_traffic(&self, now: Now) -> ControlTraffic {
        let quic: u64 = self.sockets.iter().map(|socket| socket.quic.sent()).sum();
        ControlTraffic {
            sent_bytes: quic + self.node.signal_bytes(),
            since_s: now.instant.saturating_duration_since(self.began).as_secs(),
        }
    }

    /// What peers see us as now, as far as a direct path tells from where.
    fn observations(&self, now: Now) -> Vec<Observation> {
        let peers = self.node.peers();
        let is_fresh = |age: &Duration| *age < FRESH;
        let observations = self.node.observations(now.instant);
        observations
            .filter(|(_, _, age)| is_fresh(age))
            .filter_map(|(peer_id, endpoint, _)| {
                let is_it = |peer: &&PeerStatus| peer.member.peer_id == peer_id;
                let peer = peers.iter().find(is_it)?;
                let is_direct = peer.path?.kind == PathKind::Direct;
                Some(Observation {
                    peer_id: peer_id.to_string(),
                    from: peer.endpoint.filter(|_| is_direct)?,
                    endpoint,
                })
            })
            .collect()
    }

    pub(super) fn ask_clock(&mut self, name: &str, answer: oneshot::Sender<Reply>) {
        self.ask_member(name, Question::Clock, answer);
    }

    pub(super) fn ask_reflection(
        &mut self,
        name: &str,
        endpoint: SocketAddr,
        answer: oneshot::Sender<Reply>,
    ) {
        self.tokens.retain(|_, waiting| !waiting.is_closed());
        let mut token = Token([0; 16]);
        token.0.copy_from_slice(&identity::random_bytes()[..16]);
        let (arrival, arrived) = oneshot::channel();
        self.tokens.insert(token, arrival);
        let question = Question::Send {
            endpoint,
            token,
            arrived,
        };
        self.ask_member(name, question, answer);
    }

    /// Has the member's daemon asked. From there the swarm knows who waits.
    fn ask_member(&mut self, name: &str, question: Question, answer: oneshot::Sender<Reply>) {
        match self.other_member(name) {
            Ok((peer, status)) => {
                let asking = Asking {
                    name: status.member.name.to_string(),
                    question,
                    since: Instant::now(),
                    answer,
                };
                self.command(Command::AskReflection { peer, asking });
            }
            Err(why) => {
                let _ = answer.send(Reply::Error(why));
            }
        }
    }
}

/// The machine's addresses that packets of others can have, without those of the overlay.
fn underlay_addresses(overlay: &str) -> Vec<IpAddr> {
    let all = local_addresses().unwrap_or_default();
    let others = all.into_iter().filter(|(name, _)| name != overlay);
    let addresses = others.map(|(_, network)| network.addr());
    addresses.filter(|ip| !is_of_this_wire(ip)).collect()
}

fn is_of_this_wire(ip: &IpAddr) -> bool {
    ip.is_loopback()
        || match ip {
            IpAddr::V4(ip) => ip.is_link_local(),
            IpAddr::V6(ip) => ip.is_unicast_link_local(),
        }
}

/// Tells whoever waits for this token. Others are somebody's mistake.
pub(super) fn token_arrived(
    tokens: &mut HashMap<Token, oneshot::Sender<SocketAddr>>,
    token: Token,
    from: SocketAddr,
) {
    if let Some(waiting) = tokens.remove(&token) {
        let _ = waiting.send(from);
    }
}
