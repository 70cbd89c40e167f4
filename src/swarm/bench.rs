//! Measurements: asking a member to be the far end of one, and being it.
//!
//! This is between two daemons and a command. The data loop only says whom to ask.

use std::{collections::HashMap, net::Ipv6Addr};

use hivevpn_core::membership::{SignerKey, address};
use libp2p::{
    PeerId,
    request_response::{Event as Happened, Message, OutboundFailure, OutboundRequestId},
};

use super::{Swarm, events::Requested};
use crate::bench::{
    asking::{Asking, Unanswered},
    responder::Responder,
    wire::Answer,
};

/// Ours of others, and others' of us.
#[derive(Default)]
pub(super) struct Measurements {
    responder: Responder,
    asked: HashMap<OutboundRequestId, Asking>,
}

impl Swarm {
    pub(super) fn ask_bench(&mut self, peer: PeerId, asking: Asking) {
        if !self.may_ask(&peer) {
            return asking.unanswered(Unanswered::NotConnected);
        }
        let protocols = self.inner.behaviour_mut().gate.inner_mut();
        let id = protocols.bench.send_request(&peer, asking.body());
        self.measurements.asked.insert(id, asking);
    }

    pub(super) fn on_bench(&mut self, event: Requested) {
        match event {
            Happened::Message {
                peer,
                message:
                    Message::Request {
                        request, channel, ..
                    },
                ..
            } => {
                let answer = self.answer_bench(&peer, &request).encode();
                let protocols = self.inner.behaviour_mut().gate.inner_mut();
                if protocols.bench.send_response(channel, answer).is_err() {
                    tracing::debug!(%peer, "nobody waits to measure any more");
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
                if let Some(asking) = self.measurements.asked.remove(&request_id) {
                    asking.answered(&response);
                }
            }
            Happened::OutboundFailure {
                request_id, error, ..
            } => {
                if let Some(asking) = self.measurements.asked.remove(&request_id) {
                    asking.unanswered(why(&error));
                }
            }
            Happened::InboundFailure { peer, error, .. } => {
                tracing::debug!(%peer, "a request to measure was not answered: {error}");
            }
            Happened::ResponseSent { .. } => {}
        }
    }

    fn answer_bench(&mut self, asker: &PeerId, body: &[u8]) -> Answer {
        let local = *self.inner.local_peer_id();
        match (self.overlay_ipv6(&local), self.overlay_ipv6(asker)) {
            (Some(own), Some(asker)) => self.measurements.responder.answer(body, own, asker),
            (None, _) | (_, None) => Answer::Unable,
        }
    }

    /// It follows from the key, so that nobody need be asked. Of no use before the network is known.
    fn overlay_ipv6(&mut self, peer: &PeerId) -> Option<Ipv6Addr> {
        let membership = self.inner.behaviour_mut().gate.membership()?;
        let key = SignerKey::of_peer(peer).ok()?;
        Some(address::ipv6(&membership.network().id(), &key))
    }
}

/// What kept a member from answering.
pub(super) fn why(error: &OutboundFailure) -> Unanswered {
    match error {
        OutboundFailure::UnsupportedProtocols => Unanswered::Unsupported,
        OutboundFailure::DialFailure => Unanswered::NotConnected,
        OutboundFailure::Timeout | OutboundFailure::ConnectionClosed | OutboundFailure::Io(_) => {
            Unanswered::Lost(error.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_without_the_protocol_is_told_from_one_that_is_lost() {
        let unsupported = why(&OutboundFailure::UnsupportedProtocols);
        assert_eq!(unsupported, Unanswered::Unsupported);
        assert!(matches!(
            why(&OutboundFailure::Timeout),
            Unanswered::Lost(_)
        ));
    }
}
