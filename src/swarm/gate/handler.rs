//! The gate on one connection: runs the exchanges, and lets the wrapped handler work as far as it may.
//!
//! Inputs: [`In`] from the gate, streams from the connection. Outputs: [`Out`] to the gate, stream requests.
//!
//! - our credential: *asleep* until we are in the network or the peer shows interest, then *asking* for a
//!   stream, *showing* on it, and *accepted* in the end, or asleep again;
//! - theirs: *reading* it, *waiting* for our core's verdict, *answering*;
//! - the wrapped handler: absent, then installed by [`In::Admit`]; its stream requests are held until accepted.

use std::{
    collections::VecDeque,
    fmt, io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use either::Either;
use futures::{
    FutureExt,
    future::{self, BoxFuture},
};
use libp2p::{
    PeerId, Stream, StreamProtocol,
    core::upgrade::ReadyUpgrade,
    swarm::{
        ConnectionHandler, ConnectionHandlerEvent, StreamUpgradeError, SubstreamProtocol,
        handler::{
            ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound,
            ListenUpgradeError, SendWrapper,
        },
    },
};
use tokio::time::{Sleep, sleep, timeout};

use super::exchange::{self, Failure, Membership, Verdict};
use doors::Doors;

mod doors;

/// The protocol of the exchange.
pub const PROTOCOL: StreamProtocol = StreamProtocol::new("/hivevpn/auth/1");

/// How long one exchange may take, the verdict of the other side's core included. Longer than any round trip
/// through a relay, shorter than the time after which an idle connection closes.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(15);

/// Exchanges that one side may start on one connection. A peer starts one when it connects, one when it enters
/// the network, and one when its credential is renewed, every few days.
const MAX_EXCHANGES: u32 = 16;

/// Streams that the wrapped handler may want before the peer has admitted us; then it is not asked any more.
const MAX_HELD: usize = 64;

/// What the gate tells the handler.
pub enum In<H: ConnectionHandler> {
    /// We are in the network (or our credential was renewed): show it.
    Enter(Arc<Membership>),
    /// The credential was accepted: here is the wrapped behaviour's handler.
    Admit(Box<H>),
    /// A renewed credential of an admitted peer was accepted.
    AdmitAgain,
    /// The credential was not accepted.
    Refuse,
    /// For the wrapped handler.
    Inner(H::FromBehaviour),
}

impl<H: ConnectionHandler> fmt::Debug for In<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            In::Enter(_) => f.write_str("Enter"),
            In::Admit(_) => f.write_str("Admit"),
            In::AdmitAgain => f.write_str("AdmitAgain"),
            In::Refuse => f.write_str("Refuse"),
            In::Inner(event) => f.debug_tuple("Inner").field(event).finish(),
        }
    }
}

/// What the handler tells the gate.
#[derive(Debug)]
pub enum Out<E> {
    /// The peer showed this.
    Credential(Vec<u8>),
    /// Both sides accepted each other.
    Authenticated,
    /// The peer does not accept our credential.
    Refused,
    /// The connection is of no use any more.
    Close,
    /// Of the wrapped handler.
    Inner(E),
}

enum Ours {
    Asleep,
    /// A stream has been requested.
    Asking,
    Showing(BoxFuture<'static, Result<Verdict, Failure>>),
    Accepted,
    /// The peer is of another network. It will not change.
    Useless,
}

enum Theirs {
    Unknown,
    Reading(BoxFuture<'static, io::Result<(Vec<u8>, Stream)>>),
    Waiting(Stream, Pin<Box<Sleep>>),
    Answering(BoxFuture<'static, io::Result<()>>, Verdict),
}

type Request<H> = SubstreamProtocol<
    <H as ConnectionHandler>::OutboundProtocol,
    <H as ConnectionHandler>::OutboundOpenInfo,
>;

/// The gate's handler around the wrapped behaviour's handler `H`.
pub struct Handler<H: ConnectionHandler> {
    peer: PeerId,
    membership: Option<Arc<Membership>>,
    /// Whether our credential is to be shown (again).
    show: bool,
    ours: Ours,
    theirs: Theirs,
    shown: u32,
    examined: u32,
    inner: Option<H>,
    held: VecDeque<Request<H>>,
    mutual: bool,
    events: VecDeque<Out<H::ToBehaviour>>,
}

impl<H: ConnectionHandler> Handler<H> {
    pub(super) fn new(peer: PeerId, membership: Option<Arc<Membership>>) -> Self {
        Self {
            peer,
            show: membership.is_some(),
            membership,
            ours: Ours::Asleep,
            theirs: Theirs::Unknown,
            shown: 0,
            examined: 0,
            inner: None,
            held: VecDeque::new(),
            mutual: false,
            events: VecDeque::new(),
        }
    }

    fn start_to_show(&mut self, stream: Stream) {
        let Some(membership) = self.membership.clone() else {
            return;
        };
        let peer = self.peer;
        let show = async move {
            timeout(EXCHANGE_TIMEOUT, exchange::show(stream, &membership, peer))
                .await
                .unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()))
        };
        self.ours = Ours::Showing(show.boxed());
    }

    fn on_shown(&mut self, outcome: Result<Verdict, Failure>) {
        let peer = self.peer;
        self.ours = match outcome {
            Ok(Verdict::Admitted) => Ours::Accepted,
            Ok(Verdict::Refused) => {
                self.events.push_back(Out::Refused);
                Ours::Asleep
            }
            Err(failure @ Failure::OtherNetwork) => {
                tracing::debug!(%peer, "our credential was not shown: {failure}");
                Ours::Useless
            }
            Err(failure @ Failure::Broken(_)) => {
                tracing::debug!(%peer, "our credential was not judged: {failure}");
                // Half open, the connection would serve the peer for ever and us never.
                if self.inner.is_some() {
                    self.events.push_back(Out::Close);
                }
                Ours::Asleep
            }
        };
    }

    /// A stream for us could not be opened: the peer is not in the network yet, or the connection is failing.
    fn on_not_shown<E>(&mut self, error: &StreamUpgradeError<E>) {
        let peer = self.peer;
        self.ours = Ours::Asleep;
        match error {
            StreamUpgradeError::NegotiationFailed => {
                tracing::trace!(%peer, "the peer does not offer to judge credentials");
                // Unless it entered the network just then.
                self.show = self.examined > 0;
            }
            StreamUpgradeError::Timeout
            | StreamUpgradeError::Io(_)
            | StreamUpgradeError::Apply(_) => {
                tracing::debug!(%peer, "no stream for our credential");
                if self.inner.is_some() {
                    self.events.push_back(Out::Close);
                }
            }
        }
    }

    fn start_to_examine(&mut self, stream: Stream) {
        let Some(membership) = self.membership.clone() else {
            return;
        };
        let busy = !matches!(self.theirs, Theirs::Unknown);
        if busy || self.examined == MAX_EXCHANGES {
            return; // Dropping the stream resets it.
        }
        self.examined += 1;
        let peer = self.peer;
        let examine = async move {
            timeout(
                EXCHANGE_TIMEOUT,
                exchange::examine(stream, &membership, peer),
            )
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        };
        self.theirs = Theirs::Reading(examine.boxed());
        // A peer that shows itself is in the network by now, even if it was not when we asked.
        self.show |= matches!(self.ours, Ours::Asleep);
    }

    /// Sends the verdict, if the peer still waits for it.
    fn answer(&mut self, verdict: Verdict) -> bool {
        match std::mem::replace(&mut self.theirs, Theirs::Unknown) {
            Theirs::Waiting(stream, _) => {
                let answer = async move {
                    timeout(EXCHANGE_TIMEOUT, exchange::answer(stream, verdict))
                        .await
                        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
                };
                self.theirs = Theirs::Answering(answer.boxed(), verdict);
                true
            }
            other @ (Theirs::Unknown | Theirs::Reading(_) | Theirs::Answering(..)) => {
                self.theirs = other;
                false
            }
        }
    }

    fn poll_theirs(&mut self, cx: &mut Context<'_>) {
        let peer = self.peer;
        match &mut self.theirs {
            Theirs::Unknown => {}
            Theirs::Reading(reading) => {
                let Poll::Ready(outcome) = reading.poll_unpin(cx) else {
                    return;
                };
                self.theirs = match outcome {
                    Ok((credential, stream)) => {
                        self.events.push_back(Out::Credential(credential));
                        Theirs::Waiting(stream, Box::pin(sleep(EXCHANGE_TIMEOUT)))
                    }
                    Err(error) => {
                        tracing::debug!(%peer, "the peer showed no credential: {error}");
                        Theirs::Unknown
                    }
                };
                cx.waker().wake_by_ref();
            }
            Theirs::Waiting(_, deadline) => {
                if deadline.poll_unpin(cx).is_ready() {
                    tracing::debug!(%peer, "nobody judged the peer's credential");
                    self.theirs = Theirs::Unknown;
                }
            }
            Theirs::Answering(answering, verdict) => {
                let Poll::Ready(outcome) = answering.poll_unpin(cx) else {
                    return;
                };
                let refused = *verdict == Verdict::Refused;
                if outcome.is_err() || refused {
                    self.events.push_back(Out::Close);
                }
                self.theirs = Theirs::Unknown;
            }
        }
    }

    fn poll_ours(&mut self, cx: &mut Context<'_>) {
        if let Ours::Showing(showing) = &mut self.ours
            && let Poll::Ready(outcome) = showing.poll_unpin(cx)
        {
            self.on_shown(outcome);
        }
        let both = self.inner.is_some() && matches!(self.ours, Ours::Accepted);
        if both && !self.mutual {
            self.mutual = true;
            self.events.push_back(Out::Authenticated);
        }
    }

    /// Whether to ask for a stream to show our credential on, now.
    fn asks(&mut self) -> bool {
        let idle = matches!(self.ours, Ours::Asleep | Ours::Accepted);
        let asks = self.show && idle && self.shown < MAX_EXCHANGES;
        if asks {
            self.show = false;
            self.shown += 1;
            self.ours = Ours::Asking;
        }
        asks
    }

    fn poll_inner(&mut self, cx: &mut Context<'_>) -> Poll<Event<H>> {
        if self.mutual
            && let Some(protocol) = self.held.pop_front()
        {
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest {
                protocol: outward(protocol),
            });
        }
        let Some(inner) = &mut self.inner else {
            return Poll::Pending;
        };
        while self.held.len() < MAX_HELD {
            let Poll::Ready(event) = inner.poll(cx) else {
                break;
            };
            return Poll::Ready(match event {
                ConnectionHandlerEvent::OutboundSubstreamRequest { protocol } => {
                    if !self.mutual {
                        self.held.push_back(protocol);
                        continue;
                    }
                    let protocol = outward(protocol);
                    ConnectionHandlerEvent::OutboundSubstreamRequest { protocol }
                }
                ConnectionHandlerEvent::NotifyBehaviour(event) => {
                    ConnectionHandlerEvent::NotifyBehaviour(Out::Inner(event))
                }
                ConnectionHandlerEvent::ReportRemoteProtocols(protocols) => {
                    ConnectionHandlerEvent::ReportRemoteProtocols(protocols)
                }
                // The enum may grow. What it says then is not for members only.
                _ => continue,
            });
        }
        Poll::Pending
    }
}

type Outbound<H> =
    Either<ReadyUpgrade<StreamProtocol>, SendWrapper<<H as ConnectionHandler>::OutboundProtocol>>;
type OutboundInfo<H> = Option<<H as ConnectionHandler>::OutboundOpenInfo>;
type Event<H> = ConnectionHandlerEvent<
    Outbound<H>,
    OutboundInfo<H>,
    Out<<H as ConnectionHandler>::ToBehaviour>,
>;

fn outward<P: libp2p::swarm::handler::OutboundUpgradeSend, I>(
    protocol: SubstreamProtocol<P, I>,
) -> SubstreamProtocol<Either<ReadyUpgrade<StreamProtocol>, SendWrapper<P>>, Option<I>> {
    protocol
        .map_upgrade(|upgrade| Either::Right(SendWrapper(upgrade)))
        .map_info(Some)
}

impl<H: ConnectionHandler> ConnectionHandler for Handler<H> {
    type FromBehaviour = In<H>;
    type ToBehaviour = Out<H::ToBehaviour>;
    type InboundProtocol = Doors<H::InboundProtocol>;
    type OutboundProtocol = Outbound<H>;
    type InboundOpenInfo = Option<H::InboundOpenInfo>;
    type OutboundOpenInfo = OutboundInfo<H>;

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol, Self::InboundOpenInfo> {
        let auth = self.membership.is_some().then_some(PROTOCOL);
        match &self.inner {
            None => SubstreamProtocol::new(Doors { auth, inner: None }, None),
            Some(handler) => handler
                .listen_protocol()
                .map_upgrade(|inner| Doors {
                    auth,
                    inner: Some(inner),
                })
                .map_info(Some),
        }
    }

    fn connection_keep_alive(&self) -> bool {
        self.mutual
    }

    fn on_behaviour_event(&mut self, event: In<H>) {
        match event {
            In::Enter(membership) => {
                self.membership = Some(membership);
                self.show = true;
            }
            In::Admit(inner) => {
                self.inner = Some(*inner);
                // A verdict that comes too late would leave the connection half open.
                if !self.answer(Verdict::Admitted) {
                    self.events.push_back(Out::Close);
                }
            }
            In::AdmitAgain => {
                self.answer(Verdict::Admitted);
            }
            In::Refuse => {
                if !self.answer(Verdict::Refused) {
                    self.events.push_back(Out::Close);
                }
            }
            In::Inner(event) => {
                if let Some(inner) = &mut self.inner {
                    inner.on_behaviour_event(event);
                }
            }
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Event<H>> {
        self.poll_theirs(cx);
        self.poll_ours(cx);
        if let Some(event) = self.events.pop_front() {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(event));
        }
        if self.asks() {
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest {
                protocol: SubstreamProtocol::new(Either::Left(ReadyUpgrade::new(PROTOCOL)), None),
            });
        }
        self.poll_inner(cx)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Option<Self::ToBehaviour>> {
        match &mut self.inner {
            Some(inner) => inner.poll_close(cx).map(|event| event.map(Out::Inner)),
            None => Poll::Ready(None),
        }
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<
            '_,
            Self::InboundProtocol,
            Self::OutboundProtocol,
            Self::InboundOpenInfo,
            Self::OutboundOpenInfo,
        >,
    ) {
        let event = match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol, info }) => {
                match (protocol, info) {
                    (future::Either::Left(stream), _) => return self.start_to_examine(stream),
                    (future::Either::Right(protocol), Some(info)) => {
                        ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                            protocol,
                            info,
                        })
                    }
                    (future::Either::Right(_), None) => return,
                }
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol,
                info,
            }) => match (protocol, info) {
                (future::Either::Left(stream), _) => return self.start_to_show(stream),
                (future::Either::Right(protocol), Some(info)) => {
                    ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                        protocol,
                        info,
                    })
                }
                (future::Either::Right(_), None) => return,
            },
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info, error }) => {
                let Some(info) = info else {
                    return self.on_not_shown(&error);
                };
                let error = error.map_upgrade_err(|error| match error {
                    Either::Left(never) => libp2p::core::util::unreachable(never),
                    Either::Right(error) => error,
                });
                ConnectionEvent::DialUpgradeError(DialUpgradeError { info, error })
            }
            ConnectionEvent::ListenUpgradeError(ListenUpgradeError { info, error }) => {
                let Some(info) = info else { return };
                ConnectionEvent::ListenUpgradeError(ListenUpgradeError { info, error })
            }
            ConnectionEvent::AddressChange(change) => ConnectionEvent::AddressChange(change),
            ConnectionEvent::LocalProtocolsChange(change) => {
                ConnectionEvent::LocalProtocolsChange(change)
            }
            ConnectionEvent::RemoteProtocolsChange(change) => {
                ConnectionEvent::RemoteProtocolsChange(change)
            }
            _ => return,
        };
        if let Some(inner) = &mut self.inner {
            inner.on_connection_event(event);
        }
    }
}
