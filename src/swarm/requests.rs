//! The numbers of requests: libp2p's, which each protocol counts for itself, and those of the data loop.

use std::collections::{BTreeMap, HashMap};

use libp2p::request_response::{InboundRequestId, OutboundRequestId, ResponseChannel};

use super::interface::{Protocol, RequestId};

/// Which requests are open, both ways.
#[derive(Default)]
pub(super) struct Requests {
    last: u64,
    to_answer: BTreeMap<RequestId, (Protocol, ResponseChannel<Vec<u8>>)>,
    /// The way back from libp2p's number, to forget what nobody waits for any more.
    numbers: HashMap<(Protocol, InboundRequestId), RequestId>,
    tokens: HashMap<(Protocol, OutboundRequestId), u64>,
}

impl Requests {
    /// A peer asks.
    pub fn received(
        &mut self,
        protocol: Protocol,
        id: InboundRequestId,
        channel: ResponseChannel<Vec<u8>>,
    ) -> RequestId {
        self.last += 1;
        let request = RequestId(self.last);
        self.to_answer.insert(request, (protocol, channel));
        self.numbers.insert((protocol, id), request);
        request
    }

    /// Where to put the answer; none if it comes too late.
    pub fn answer(&mut self, request: RequestId) -> Option<(Protocol, ResponseChannel<Vec<u8>>)> {
        self.to_answer.remove(&request)
    }

    /// The peer has its answer, or does not wait for one any more. Returns whether it was known to wait.
    pub fn finished(&mut self, protocol: Protocol, id: InboundRequestId) -> bool {
        let request = self.numbers.remove(&(protocol, id));
        if let Some(request) = &request {
            self.to_answer.remove(request);
        }
        request.is_some()
    }

    /// We asked.
    pub fn sent(&mut self, protocol: Protocol, id: OutboundRequestId, token: u64) {
        self.tokens.insert((protocol, id), token);
    }

    /// The result is here; whose request it was.
    pub fn resolved(&mut self, protocol: Protocol, id: OutboundRequestId) -> Option<u64> {
        self.tokens.remove(&(protocol, id))
    }
}
