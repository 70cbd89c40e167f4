//! Questions that members ask each other on a proven connection, and their answers.

use super::{ConnectionNumber, REQUEST_TIMEOUT, streams::Message};
use crate::{
    underlay::HostId,
    world::{Event, World},
};
use libp2p_identity::PeerId;

/// What a question is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Topic {
    /// Members: records and notices.
    Members,
    /// The registry's entries.
    Registry,
}

/// What a host has asked about the registry, and what explains it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Asked {
    /// Questions.
    pub questions: u64,
    /// Of these, lost.
    pub lost: u64,
    /// Connections on which both ends proved themselves: they begin by comparing.
    pub greetings: u64,
}

/// A question that waits for its answer.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) topic: Topic,
    pub(super) from: HostId,
    pub(super) to: HostId,
    pub(super) connection: ConnectionNumber,
}

impl World {
    pub(crate) fn ask_member(&mut self, from: HostId, peer: PeerId, topic: Topic, body: Vec<u8>) {
        let to = self.host_of(&peer);
        if topic == Topic::Registry {
            self.swarm.members[from].asked.questions += 1;
        }
        let Some(connection) = self.swarm.proven(from, to) else {
            return self.question_lost(from, peer, topic);
        };
        let token = self.swarm.fresh_number();
        let request = Request {
            topic,
            from,
            to,
            connection,
        };
        self.swarm.requests.insert(token, request);
        self.after(REQUEST_TIMEOUT, Event::RequestTimeout(token));
        let end = self.swarm.connections[&connection].end_of(from);
        self.tell(connection, end, Message::Question(topic, token, body));
    }

    /// A question has come.
    pub(super) fn asked(
        &mut self,
        here: HostId,
        peer: PeerId,
        topic: Topic,
        token: u64,
        body: &[u8],
    ) {
        let now = self.now();
        let host = self.host(here);
        match topic {
            Topic::Members => host.sync_request(token, peer, body, now),
            Topic::Registry => host.registry_request(token, peer, body, now),
        }
    }

    pub(crate) fn answer(&mut self, here: HostId, token: u64, body: Vec<u8>) {
        let Some(request) = self.swarm.requests.get(&token) else {
            return;
        };
        let (number, topic) = (request.connection, request.topic);
        if let Some(connection) = self.swarm.connections.get(&number) {
            let end = connection.end_of(here);
            self.tell(number, end, Message::Answer(topic, token, body));
        }
    }

    /// An answer has come.
    pub(super) fn answered(&mut self, here: HostId, peer: PeerId, token: u64, body: &[u8]) {
        let now = self.now();
        let Some(request) = self.swarm.requests.remove(&token) else {
            return;
        };
        let host = self.host(here);
        match request.topic {
            Topic::Members => host.sync_answer(peer, body, now),
            Topic::Registry => host.registry_answer(peer, body, now),
        }
    }

    fn question_lost(&mut self, from: HostId, peer: PeerId, topic: Topic) {
        let now = self.now();
        let host = self.host(from);
        match topic {
            Topic::Members => host.sync_failed(peer, now),
            Topic::Registry => {
                host.registry_failed(peer, now);
                self.swarm.members[from].asked.lost += 1;
            }
        }
    }

    pub(crate) fn request_timed_out(&mut self, token: u64) {
        if let Some(request) = self.swarm.requests.remove(&token) {
            let peer = self.peer_id(request.to);
            self.question_lost(request.from, peer, request.topic);
            self.drain(request.from);
        }
    }

    /// A connection has closed at this end, and with it went the questions on it.
    pub(super) fn forget_requests(&mut self, number: ConnectionNumber, here: HostId) {
        let lost: Vec<_> = self
            .swarm
            .requests
            .iter()
            .filter(|(_, request)| request.connection == number && request.from == here)
            .map(|(token, request)| (*token, request.to, request.topic))
            .collect();
        for (token, to, topic) in lost {
            self.swarm.requests.remove(&token);
            let peer = self.peer_id(to);
            self.question_lost(here, peer, topic);
        }
    }
}
