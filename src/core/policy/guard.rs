//! The filter: one [`Guard`] for each peer decides which of its packets pass, by what the [`Filter`] of the node says.
//!
//! Where the policy denies a pair nothing, no table is asked and nothing is answered: only the segments by which a TCP
//! connection lives (SYN, FIN, RST) are noted, so that a later policy knows who began what is there already.
//!
//! Otherwise a packet passes if its flow may go on, or if it may begin one:
//! - A flow is judged by the rules for whoever **began** it. When they change, at its next packet.
//! - A packet that only a beginner sends (a first SYN, an echo request) is always judged as a beginning, even if its ports
//!   are those of a flow that we began: nobody slips in by the way of an answer.
//! - A TCP segment from the middle of a connection that is not known here, after a restart for example, passes where the
//!   rules would let its sender begin. If it could belong to a connection of our own, which comes from a port that systems
//!   give to whoever asks for none, it is dropped without a reset: our next segment makes the connection known again.

use std::time::{Duration, Instant};

use super::{
    Exposed, Policy, Reachable, Subject,
    content::{Content, Conversation, Message, Step, turns_tcp},
    flows::{Flow, FlowKey, Flows, MAX_FLOWS, Origin, RESERVED_FLOWS},
};
use crate::{
    drop_reason::DropReason, icmp::Budget, ip_packet::IpPacket, policy::Traffic,
    policy::traffic::Protocol,
};

/// When there are too many flows, those that have ended are looked for at most this often.
const SWEEP_PERIOD: Duration = Duration::from_secs(10);

/// Systems take the local ports of connections from here on, or higher (Linux from here, RFC 6335 §6 from 49152).
const FIRST_EPHEMERAL_PORT: u16 = 32_768;

/// What all guards share.
#[derive(Debug)]
pub struct Filter {
    policy: Policy,
    us: Subject,
    exposed: Exposed,
    /// Grows with each change.
    version: u64,
    /// Of all guards together.
    flows: usize,
    next_sweep: Option<Instant>,
}

impl Default for Filter {
    fn default() -> Self {
        Self {
            policy: Policy::default(),
            us: Subject::default(),
            exposed: Exposed::new(),
            version: 1,
            flows: 0,
            next_sweep: None,
        }
    }
}

impl Filter {
    /// The policy in force.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Who we are.
    pub fn us(&self) -> &Subject {
        &self.us
    }

    /// What we publish.
    pub fn exposed(&self) -> &Exposed {
        &self.exposed
    }

    /// Flows that are remembered, of all peers.
    pub fn flows(&self) -> usize {
        self.flows
    }

    /// Another policy is in force.
    pub fn set_policy(&mut self, policy: Policy) {
        self.version += u64::from(self.policy != policy);
        self.policy = policy;
    }

    /// We have another name or other groups.
    pub fn set_us(&mut self, us: Subject) {
        self.version += u64::from(self.us != us);
        self.us = us;
    }

    /// We publish something else.
    pub fn set_exposed(&mut self, exposed: Exposed) {
        self.version += u64::from(self.exposed != exposed);
        self.exposed = exposed;
    }

    /// Whether it is time to let go of flows that have ended, because there are too many.
    pub fn wants_sweep(&mut self, now: Instant) -> bool {
        let is_due = self.flows >= MAX_FLOWS && self.next_sweep.is_none_or(|next| now >= next);
        if is_due {
            self.next_sweep = Some(now + SWEEP_PERIOD);
        }
        is_due
    }
}

/// A packet does not pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Denial {
    /// What it counts as.
    pub reason: DropReason,
    /// What its sender is told.
    pub answer: Answer,
}

/// What the sender of a packet is told that does not pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// That it is prohibited: TCP by a reset, anything else by an ICMP error.
    Refusal,
    /// The same, and to the other end of the connection a reset as well: it believes in it.
    RefusalToBoth,
    /// Nothing.
    Silence,
}

/// Which packets of one peer pass.
#[derive(Debug)]
pub struct Guard {
    subject: Subject,
    /// The version of the filter that the following was worked out for.
    seen: Option<u64>,
    /// Grows when something of the following changes.
    epoch: u32,
    inbound: Reachable,
    outbound: Reachable,
    /// Nothing is denied, either way. Not known before the first packet.
    is_open: Option<bool>,
    flows: Flows,
    /// For the answers that it gets.
    answers: Option<Budget>,
}

impl Guard {
    /// The guard for a peer.
    pub fn new(subject: Subject) -> Self {
        Self {
            subject,
            seen: None,
            epoch: 0,
            inbound: Reachable::nothing(),
            outbound: Reachable::nothing(),
            is_open: None,
            flows: Flows::default(),
            answers: None,
        }
    }

    /// Who the peer is.
    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    /// The peer has another name or other groups.
    pub fn set_subject(&mut self, subject: Subject) {
        if self.subject != subject {
            self.subject = subject;
            self.seen = None;
        }
    }

    /// Whether an answer to this peer may leave now that costs more than what it answers.
    pub fn may_answer(&mut self, now: Instant) -> bool {
        self.answers
            .get_or_insert_with(|| Budget::new(now))
            .pay(now)
    }

    /// Lets go of the flows that have ended.
    pub fn sweep(&mut self, filter: &mut Filter, now: Instant) {
        let before = self.flows.len();
        self.flows.drop_ended(now);
        filter.flows = filter.flows.saturating_sub(before - self.flows.len());
    }

    /// The peer is no more.
    pub fn leave(&mut self, filter: &mut Filter) {
        filter.flows = filter.flows.saturating_sub(self.flows.len());
        self.flows = Flows::default();
    }

    /// Whether a packet that the peer sent may come in.
    pub fn admit(
        &mut self,
        packet: &IpPacket<'_>,
        filter: &mut Filter,
        now: Instant,
    ) -> Result<(), Denial> {
        self.judge(packet, Origin::Peer, filter, now)
    }

    /// Whether a packet of ours may go to the peer, as far as is known here.
    pub fn release(
        &mut self,
        packet: &IpPacket<'_>,
        filter: &mut Filter,
        now: Instant,
    ) -> Result<(), Denial> {
        self.judge(packet, Origin::Us, filter, now)
    }

    #[inline]
    fn judge(
        &mut self,
        packet: &IpPacket<'_>,
        sender: Origin,
        filter: &mut Filter,
        now: Instant,
    ) -> Result<(), Denial> {
        if self.seen != Some(filter.version) {
            self.renew(filter, now);
        }
        if self.is_open != Some(true) {
            return self.inspect(packet, sender, filter, now);
        }
        if turns_tcp(packet) {
            self.note(packet, sender, filter, now);
        }
        Ok(())
    }

    /// Something has changed for this peer or for all.
    #[cold]
    fn renew(&mut self, filter: &Filter, now: Instant) {
        let Filter {
            policy,
            us,
            exposed,
            ..
        } = filter;
        self.seen = Some(filter.version);
        let inbound = policy.reachable(&self.subject, us, Some(exposed));
        let outbound = policy.reachable(us, &self.subject, None);
        let is_open = inbound.is_everything() && outbound.is_everything();
        if self.is_open.replace(is_open) != Some(is_open) {
            self.flows.watch((!is_open).then_some(now));
        }
        if (&self.inbound, &self.outbound) == (&inbound, &outbound) {
            return;
        }
        (self.inbound, self.outbound) = (inbound, outbound);
        self.epoch = self.epoch.wrapping_add(1);
    }

    fn includes(&self, traffic: Traffic, origin: Origin) -> bool {
        match origin {
            Origin::Peer => self.inbound.includes(traffic),
            Origin::Us => self.outbound.includes(traffic),
        }
    }

    /// Nothing is denied: remembers who began a connection, and that it ended.
    #[cold]
    fn note(&mut self, packet: &IpPacket<'_>, sender: Origin, filter: &mut Filter, now: Instant) {
        let Content::Message(Message { conversation, step }) = Content::of(packet) else {
            return;
        };
        let key = FlowKey::of(&conversation, sender);
        match step {
            Step::Begin => self.begin(key, sender, step, sender, filter, now),
            Step::Continue | Step::Finish | Step::Reset | Step::Either => {
                if let Some(flow) = self.flows.get_mut(&key, now) {
                    flow.pass(sender, step, now);
                }
            }
        }
    }

    /// Something may be denied: looks at what the packet is about.
    fn inspect(
        &mut self,
        packet: &IpPacket<'_>,
        sender: Origin,
        filter: &mut Filter,
        now: Instant,
    ) -> Result<(), Denial> {
        match Content::of(packet) {
            Content::Message(message) => self.inspect_message(&message, sender, filter, now),
            Content::LaterFragment => Ok(()),
            Content::Error(about) => {
                // It goes against the stream: who sends the error got the packet.
                let key = FlowKey::of(&about, other(sender));
                let (epoch, flow) = (self.epoch, self.flows.get_mut(&key, now));
                match flow {
                    Some(flow) if flow.epoch == epoch && flow.allowed => Ok(()),
                    Some(flow) => {
                        let (origin, traffic) = (flow.origin, asked(&about, other(sender), flow));
                        let allowed = self.includes(traffic, origin);
                        allowed.then_some(()).ok_or(silently(refused(sender)))
                    }
                    None => Err(silently(DropReason::NoFlow)),
                }
            }
            Content::OtherIcmp => {
                let traffic = Traffic::new(Protocol::Other, 0);
                let allowed = self.includes(traffic, sender);
                allowed.then_some(()).ok_or(silently(refused(sender)))
            }
            Content::Obscure(_) => Err(silently(refused(sender))),
        }
    }

    fn inspect_message(
        &mut self,
        message: &Message,
        sender: Origin,
        filter: &mut Filter,
        now: Instant,
    ) -> Result<(), Denial> {
        let Message { conversation, step } = *message;
        let key = FlowKey::of(&conversation, sender);
        let epoch = self.epoch;
        if let Some(flow) = self.flows.get_mut(&key, now)
            && (step != Step::Begin || flow.origin == sender)
        {
            if flow.epoch != epoch {
                let (origin, traffic) = (flow.origin, asked(&conversation, sender, flow));
                let allowed = match origin {
                    Origin::Peer => self.inbound.includes(traffic),
                    Origin::Us => self.outbound.includes(traffic),
                };
                (flow.epoch, flow.allowed) = (epoch, allowed);
            }
            if flow.allowed || step == Step::Reset {
                flow.pass(sender, step, now);
                return Ok(());
            }
            // Of two that merely send datagrams, the peer may begin anew where we no longer may. The other way round
            // a program of ours that goes on answering would let the peer in again.
            let is_anew =
                step == Step::Either && flow.origin == Origin::Us && sender == Origin::Peer;
            if !is_anew {
                flow.refuse(now);
                return Err(Denial {
                    reason: refused(sender),
                    answer: match sender {
                        Origin::Peer => Answer::RefusalToBoth,
                        Origin::Us => Answer::Refusal,
                    },
                });
            }
        }
        let origin = self.beginner(&conversation, step, sender)?;
        self.begin(key, origin, step, sender, filter, now);
        Ok(())
    }

    /// Who is taken to have begun a conversation that is not known here, if it may be.
    fn beginner(
        &self,
        conversation: &Conversation,
        step: Step,
        sender: Origin,
    ) -> Result<Origin, Denial> {
        let (there, back) = (conversation.traffic(), conversation.traffic_back());
        let denial = Denial {
            reason: refused(sender),
            // A reset gets no answer, or two refusers would go on for ever.
            answer: match step {
                Step::Reset => Answer::Silence,
                Step::Begin | Step::Continue | Step::Finish | Step::Either => Answer::Refusal,
            },
        };
        match (sender, step) {
            (_, Step::Begin | Step::Either) => {
                let allowed = self.includes(there, sender);
                allowed.then_some(sender).ok_or(denial)
            }
            // An answer to nothing.
            (_, Step::Continue) if conversation.kind() == Protocol::Icmp => {
                Err(silently(DropReason::NoFlow))
            }
            (Origin::Peer, Step::Continue | Step::Finish | Step::Reset) => {
                if self.inbound.includes(there) {
                    Ok(Origin::Peer)
                } else if self.outbound.includes(back) && is_ephemeral(there) {
                    Err(silently(DropReason::NoFlow))
                } else {
                    Err(denial)
                }
            }
            (Origin::Us, Step::Continue | Step::Finish | Step::Reset) => {
                if self.inbound.includes(back) {
                    Ok(Origin::Peer)
                } else if self.outbound.includes(there) && is_ephemeral(back) {
                    Ok(Origin::Us)
                } else {
                    Err(denial)
                }
            }
        }
    }

    /// Remembers a flow, if there is room.
    fn begin(
        &mut self,
        key: FlowKey,
        origin: Origin,
        step: Step,
        sender: Origin,
        filter: &mut Filter,
        now: Instant,
    ) {
        let before = self.flows.len();
        let may_grow = before < RESERVED_FLOWS || filter.flows < MAX_FLOWS;
        let flow = Flow::new(&key, origin, self.epoch, now);
        if let Some(flow) = self.flows.insert(key, flow, may_grow, now) {
            flow.pass(sender, step, now);
        }
        filter.flows = (filter.flows + self.flows.len()).saturating_sub(before);
    }
}

fn is_ephemeral(ours: Traffic) -> bool {
    ours.port() >= FIRST_EPHEMERAL_PORT
}

fn other(sender: Origin) -> Origin {
    match sender {
        Origin::Peer => Origin::Us,
        Origin::Us => Origin::Peer,
    }
}

/// What the one who began the flow asked for, told from a packet that `sender` sent.
fn asked(conversation: &Conversation, sender: Origin, flow: &Flow) -> Traffic {
    if flow.origin == sender {
        conversation.traffic()
    } else {
        conversation.traffic_back()
    }
}

fn refused(sender: Origin) -> DropReason {
    match sender {
        Origin::Peer => DropReason::PolicyDenied,
        Origin::Us => DropReason::PolicyRefused,
    }
}

fn silently(reason: DropReason) -> Denial {
    Denial {
        reason,
        answer: Answer::Silence,
    }
}
