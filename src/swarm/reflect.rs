//! Reflections: asking a member what we cannot see by ourselves, and telling members.
//!
//! This is between two daemons and a command. The data loop only says whom to ask, and that a token came.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    time::Instant,
};

use libp2p::{
    PeerId,
    request_response::{Event as Happened, Message, OutboundFailure, OutboundRequestId},
};

use super::{Swarm, events::Requested};
use crate::reflect::{asking::Asking, reflector::Reflector};

/// Ours of others, and others' of us.
#[derive(Default)]
pub(super) struct Reflections {
    reflector: Reflector,
    asked: HashMap<OutboundRequestId, Asking>,
}

impl Swarm {
    pub(super) fn ask_reflection(&mut self, peer: PeerId, asking: Asking) {
        if !self.may_ask(&peer) {
            return asking.unanswered("is not connected at the moment: look at 'hivevpn status'");
        }
        let protocols = self.inner.behaviour_mut().gate.inner_mut();
        let id = protocols.reflect.send_request(&peer, asking.body());
        self.reflections.asked.insert(id, asking);
    }

    pub(super) fn on_reflect(&mut self, event: Requested) {
        match event {
            Happened::Message {
                peer,
                message:
                    Message::Request {
                        request, channel, ..
                    },
                ..
            } => {
                let seen_at = self.seen_at(&peer);
                let reflector = &mut self.reflections.reflector;
                let answer = reflector.answer(&peer, &request, &seen_at, Instant::now());
                let protocols = self.inner.behaviour_mut().gate.inner_mut();
                let sent = protocols.reflect.send_response(channel, answer.encode());
                if sent.is_err() {
                    tracing::debug!(%peer, "nobody waits for a reflection any more");
                }
            }
            Happened::Message {
                message:
                    Message::Response {
                        request_id,
                        response,
                    },
                ..
            } => {
                if let Some(asking) = self.reflections.asked.remove(&request_id) {
                    // It waits for the token.
                    tokio::spawn(async move { asking.answered(&response).await });
                }
            }
            Happened::OutboundFailure {
                request_id, error, ..
            } => {
                if let Some(asking) = self.reflections.asked.remove(&request_id) {
                    asking.unanswered(&why(&error));
                }
            }
            Happened::InboundFailure { peer, error, .. } => {
                tracing::debug!(%peer, "a member was not answered: {error}");
            }
            Happened::ResponseSent { .. } => {}
        }
    }

    /// The addresses that a member's own connections come from; not those of its relays.
    fn seen_at(&self, peer: &PeerId) -> Vec<IpAddr> {
        let connections = self.connections.values();
        let links = connections
            .filter(|connection| connection.peer == *peer && connection.authenticated)
            .filter_map(|connection| connection.link.endpoint())
            .map(|endpoint| endpoint.ip());
        links.collect::<BTreeSet<_>>().into_iter().collect()
    }
}

fn why(error: &OutboundFailure) -> String {
    match error {
        OutboundFailure::UnsupportedProtocols => {
            "runs a version of hivevpn without reflections: update it".to_owned()
        }
        OutboundFailure::DialFailure
        | OutboundFailure::Timeout
        | OutboundFailure::ConnectionClosed
        | OutboundFailure::Io(_) => format!("did not answer: {error}"),
    }
}
