//! What the storer speaks: `/hivevpn/auth/1` as every member does, Kademlia and `/hivevpn/registry/1` as it likes.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{AsyncReadExt, AsyncWriteExt, FutureExt};
use hivevpn_core::registry::sync::RegistryMessage;
use libp2p::core::upgrade::{InboundUpgrade, OutboundUpgrade, UpgradeInfo};
use libp2p::core::{Endpoint, transport::PortUse};
use libp2p::swarm::handler::{OneShotHandler, OneShotHandlerConfig};
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, NotifyHandler, SubstreamProtocol,
    THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId, Stream, StreamProtocol};

use super::storer::{Mind, NEVER};
use super::wire::{self, Message, Record};

const AUTH: StreamProtocol = StreamProtocol::new("/hivevpn/auth/1");
const REGISTRY: StreamProtocol = StreamProtocol::new("/hivevpn/registry/1");
const ADMITTED: u8 = 0;

/// How long others may take to answer.
const PATIENCE: Duration = Duration::from_secs(60);
/// The longest message about the registry.
const MAX_BODY: u64 = 1 << 20;

/// What the storer asks of another.
#[derive(Debug, Clone)]
pub enum Call {
    /// To be let in.
    Show,
    /// To keep this at this place.
    Put { slot: Vec<u8>, value: Vec<u8> },
    /// A message about the registry.
    Say { body: Vec<u8> },
}

/// The protocols on all connections.
pub struct Protocols {
    mind: Arc<Mind>,
    connections: BTreeMap<ConnectionId, PeerId>,
    pending: VecDeque<ToSwarm<(), Outgoing>>,
}

impl Protocols {
    pub fn new(mind: Arc<Mind>) -> Self {
        Self {
            mind,
            connections: BTreeMap::new(),
            pending: VecDeque::new(),
        }
    }

    /// Asks all who are connected, over each connection.
    pub fn call_all(&mut self, call: &Call) {
        let connections: Vec<_> = self
            .connections
            .iter()
            .map(|(id, peer)| (*id, *peer))
            .collect();
        for (id, peer) in connections {
            self.call(id, peer, call.clone());
        }
    }

    fn call(&mut self, id: ConnectionId, peer_id: PeerId, call: Call) {
        let end = self.end(peer_id);
        self.pending.push_back(ToSwarm::NotifyHandler {
            peer_id,
            handler: NotifyHandler::One(id),
            event: Outgoing { end, call },
        });
    }

    fn end(&self, peer: PeerId) -> End {
        let mind = Arc::clone(&self.mind);
        End { mind, peer }
    }

    fn handler(&self, peer: PeerId) -> Handler {
        let listen = SubstreamProtocol::new(Incoming(self.end(peer)), ()).with_timeout(NEVER);
        let config = OneShotHandlerConfig {
            outbound_substream_timeout: PATIENCE,
            max_dial_negotiated: u32::MAX,
        };
        OneShotHandler::new(listen, config)
    }
}

type Handler = OneShotHandler<Incoming, Outgoing, ()>;

impl NetworkBehaviour for Protocols {
    type ConnectionHandler = Handler;
    type ToSwarm = ();

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<Handler, ConnectionDenied> {
        Ok(self.handler(peer))
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<Handler, ConnectionDenied> {
        Ok(self.handler(peer))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(new) => {
                self.connections.insert(new.connection_id, new.peer_id);
                self.call(new.connection_id, new.peer_id, Call::Show);
            }
            FromSwarm::ConnectionClosed(old) => {
                self.connections.remove(&old.connection_id);
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(
        &mut self,
        _: PeerId,
        _: ConnectionId,
        _: THandlerOutEvent<Self>,
    ) {
        // Who refuses, or has gone, is asked again when it is connected again.
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<(), THandlerInEvent<Self>>> {
        match self.pending.pop_front() {
            Some(event) => Poll::Ready(event),
            None => Poll::Pending,
        }
    }
}

/// Our end of a connection with a peer.
#[derive(Clone)]
struct End {
    mind: Arc<Mind>,
    peer: PeerId,
}

/// Streams that a peer opens.
#[derive(Clone)]
pub struct Incoming(End);

/// A stream that we open.
pub struct Outgoing {
    end: End,
    call: Call,
}

impl std::fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.call.fmt(f)
    }
}

impl UpgradeInfo for Incoming {
    type Info = StreamProtocol;
    type InfoIter = [StreamProtocol; 3];

    fn protocol_info(&self) -> Self::InfoIter {
        [AUTH, REGISTRY, self.0.kad()]
    }
}

impl InboundUpgrade<Stream> for Incoming {
    type Output = ();
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<()>>;

    fn upgrade_inbound(self, stream: Stream, protocol: StreamProtocol) -> Self::Future {
        let Self(end) = self;
        if protocol == AUTH {
            end.judge(stream).boxed()
        } else if protocol == REGISTRY {
            end.answer(stream).boxed()
        } else {
            end.keep(stream).boxed()
        }
    }
}

impl UpgradeInfo for Outgoing {
    type Info = StreamProtocol;
    type InfoIter = std::iter::Once<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        std::iter::once(match self.call {
            Call::Show => AUTH,
            Call::Put { .. } => self.end.kad(),
            Call::Say { .. } => REGISTRY,
        })
    }
}

impl OutboundUpgrade<Stream> for Outgoing {
    type Output = ();
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<()>>;

    fn upgrade_outbound(self, stream: Stream, _: StreamProtocol) -> Self::Future {
        let Self { end, call } = self;
        match call {
            Call::Show => end.show(stream).boxed(),
            Call::Put { slot, value } => put(stream, slot, value).boxed(),
            Call::Say { body } => say(stream, body).boxed(),
        }
    }
}

impl End {
    fn kad(&self) -> StreamProtocol {
        let suffix = self.mind.network.kad_protocol_suffix();
        StreamProtocol::try_from_owned(format!("/hivevpn/kad/{suffix}/1")).unwrap()
    }

    /// Shows that we are a member.
    async fn show(self, mut stream: Stream) -> io::Result<()> {
        stream.write_all(&[7; 32]).await?;
        stream.flush().await?;
        stream.read_exact(&mut [0; 32]).await?;
        let credential = &self.mind.credential;
        stream
            .write_all(&(credential.len() as u16).to_be_bytes())
            .await?;
        stream.write_all(credential).await?;
        stream.flush().await?;
        let mut verdict = [!ADMITTED];
        stream.read_exact(&mut verdict).await?;
        if verdict == [ADMITTED] {
            let peer = self.peer.to_string();
            self.mind.state().heard.admitted_by.insert(peer);
        }
        stream.close().await
    }

    /// Lets everybody in.
    async fn judge(self, mut stream: Stream) -> io::Result<()> {
        let mut nonce = [0; 32];
        stream.read_exact(&mut nonce).await?;
        let tag = self
            .mind
            .network
            .auth_tag(&self.mind.us, &self.peer, &nonce);
        stream.write_all(&tag).await?;
        stream.flush().await?;
        let mut length = [0; 2];
        stream.read_exact(&mut length).await?;
        let mut credential = vec![0; u16::from_be_bytes(length).into()];
        stream.read_exact(&mut credential).await?;
        stream.write_all(&[ADMITTED]).await?;
        stream.close().await
    }

    /// Answers questions to the DHT.
    async fn keep(self, mut stream: Stream) -> io::Result<()> {
        while let Some(question) = Message::read(&mut stream).await? {
            let (answer, after) = self.said_of(question);
            tokio::time::sleep(after).await;
            answer.write(&mut stream).await?;
        }
        Ok(())
    }

    fn said_of(&self, question: Message) -> (Message, Duration) {
        let Message { kind, key, record } = question;
        let mut state = self.mind.state();
        let mut after = Duration::ZERO;
        let said = match (kind, record) {
            (wire::PUT, Some(record)) => {
                let put = (
                    record.key.clone(),
                    record.value.clone(),
                    self.peer.to_string(),
                );
                state.heard.put.push(put);
                if state.keeps_honestly.contains(&record.key) {
                    let answer = super::storer::Answer::of(&record.value);
                    state.serves.insert(record.key.clone(), answer);
                }
                Some(record)
            }
            (wire::GET, _) => {
                state.heard.asked_for.push(key.clone());
                state.serves.get(&key).cloned().map(|answer| {
                    after = answer.after;
                    Record {
                        key: answer.place.unwrap_or_else(|| key.clone()),
                        value: answer.value,
                    }
                })
            }
            _ => None, // It knows nobody.
        };
        let record = said;
        (Message { kind, key, record }, after)
    }

    /// Answers a message about the registry.
    async fn answer(self, mut stream: Stream) -> io::Result<()> {
        let body = read_body(&mut stream).await?;
        let answer = self.said_to(RegistryMessage::decode(&body).ok());
        match answer {
            Some(answer) => write_body(&mut stream, &answer).await?,
            None => tokio::time::sleep(NEVER).await,
        }
        stream.close().await
    }

    fn said_to(&self, message: Option<RegistryMessage>) -> Option<Vec<u8>> {
        let mut state = self.mind.state();
        match message {
            Some(RegistryMessage::Summary(_)) if state.versions.is_empty() => {
                Some(RegistryMessage::Same.encode())
            }
            // Nobody has what it has: all compare.
            Some(RegistryMessage::Summary(_)) => Some(RegistryMessage::Summary([7; 32]).encode()),
            Some(RegistryMessage::Digest(_)) => Some(state.versions.clone()),
            Some(RegistryMessage::Want(_) | RegistryMessage::Get(_)) => {
                if state.records.is_none() {
                    state.heard.waiting.insert(self.peer.to_string());
                }
                state.records.clone()
            }
            _ => Some(RegistryMessage::Taken.encode()),
        }
    }
}

/// Has the peer keep something in its part of the DHT.
async fn put(mut stream: Stream, slot: Vec<u8>, value: Vec<u8>) -> io::Result<()> {
    let record = Record {
        key: slot.clone(),
        value,
    };
    let message = Message {
        kind: wire::PUT,
        key: slot,
        record: Some(record),
    };
    message.write(&mut stream).await?;
    Message::read(&mut stream).await?;
    stream.close().await
}

async fn say(mut stream: Stream, body: Vec<u8>) -> io::Result<()> {
    write_body(&mut stream, &body).await?;
    read_body(&mut stream).await?;
    stream.close().await
}

async fn write_body(stream: &mut Stream, body: &[u8]) -> io::Result<()> {
    stream.write_all(&(body.len() as u32).to_be_bytes()).await?;
    stream.write_all(body).await?;
    stream.flush().await
}

async fn read_body(stream: &mut Stream) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).await?;
    let length = u64::from(u32::from_be_bytes(length));
    let mut body = Vec::new();
    stream
        .take(length.min(MAX_BODY))
        .read_to_end(&mut body)
        .await?;
    Ok(body)
}
