//! Acting on other nodes: what we ask them, and what they are asked by others.
//!
//! What others ask goes to the data loop like any request. What we ask knows who waits for its answer, and comes back to
//! the data loop with it.

use std::collections::HashMap;

use libp2p::{
    PeerId,
    request_response::{Event as Happened, Message, OutboundRequestId},
};

use super::{Event, Protocol, Swarm, bench, events::Requested};
use crate::{administration::asking::Asking, bench::asking::Unanswered};

/// What we asked, and is not answered yet.
pub(super) type Asked = HashMap<OutboundRequestId, Asking>;

impl Swarm {
    pub(super) fn ask_admin(&mut self, peer: PeerId, asking: Asking) {
        if !self.may_ask(&peer) {
            let outcome = Err(Unanswered::NotConnected);
            return self.tell(Event::AdminAnswer {
                peer,
                asking,
                outcome,
            });
        }
        let protocols = self.inner.behaviour_mut().gate.inner_mut();
        let id = protocols.admin.send_request(&peer, asking.ask.encode());
        self.admin_asked.insert(id, asking);
    }

    pub(super) fn on_admin(&mut self, event: Requested) {
        let (peer, id, outcome) = match event {
            Happened::Message {
                peer,
                message:
                    Message::Response {
                        request_id,
                        response,
                    },
                ..
            } => (peer, request_id, Ok(response)),
            Happened::OutboundFailure {
                peer,
                request_id,
                error,
                ..
            } => (peer, request_id, Err(bench::why(&error))),
            Happened::Message {
                message: Message::Request { .. },
                ..
            }
            | Happened::InboundFailure { .. }
            | Happened::ResponseSent { .. } => return self.on_request(Protocol::Admin, event),
        };
        if let Some(asking) = self.admin_asked.remove(&id) {
            self.tell(Event::AdminAnswer {
                peer,
                asking,
                outcome,
            });
        }
    }
}
