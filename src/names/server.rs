//! The sockets on which names are asked for: UDP and TCP port 53 of our overlay addresses.
//!
//! They answer this machine alone. A question comes from one of our own addresses, which the tunnel lets nobody else
//! use, or from loopback; whatever else arrives is refused.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use hickory_proto::{
    ProtoError,
    op::{Edns, Message, MessageType, Metadata, OpCode, ResponseCode},
    rr::DNSClass,
    serialize::binary::{BinEncodable, BinEncoder},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::{Semaphore, watch},
    task::JoinSet,
    time::timeout,
};

use super::{
    forward::{Carrier, Upstream},
    zone::{self, Answer, Zone},
};
use crate::services::Snapshot;

/// Where names are asked for.
const PORT: u16 = 53;
/// Longer questions are nobody's.
const MAX_QUESTION: usize = 4096;
/// Without EDNS, an answer by UDP is no longer (RFC 1035 §4.2.1).
const MIN_PAYLOAD: u16 = 512;
/// With it, no longer than what goes through any path in one piece.
const MAX_PAYLOAD: u16 = 1232;
/// The only version of EDNS (RFC 6891).
const EDNS_VERSION: u8 = 0;
/// TCP connections at once.
const MAX_CONNECTIONS: usize = 64;
/// How long one may be silent.
const IDLE: Duration = Duration::from_secs(10);
/// Questions by UDP that wait for somebody else's answer. Nobody notices the ones beyond: whoever asks, asks again.
const MAX_FORWARDED: usize = 256;
/// After an error of a socket that will not go away by itself.
const PAUSE: Duration = Duration::from_millis(100);

/// Answers questions with what a snapshot says.
pub struct Server {
    snapshots: watch::Receiver<Snapshot>,
    /// Who knows all other names; nobody, unless we stand in front of them.
    upstream: watch::Receiver<Option<Upstream>>,
    connections: Semaphore,
    forwarded: Arc<Semaphore>,
}

/// Both sockets of one address.
pub struct Sockets {
    udp: UdpSocket,
    tcp: TcpListener,
}

/// What comes of a question.
enum Outcome {
    /// This is the answer.
    Reply(Message),
    /// Somebody else knows.
    Forward(Upstream),
    /// It was no question.
    Nothing,
}

impl Sockets {
    /// Takes port 53 of an address.
    pub async fn bind(address: IpAddr) -> io::Result<Self> {
        let udp = UdpSocket::bind((address, PORT)).await?;
        let tcp = TcpListener::bind((address, PORT)).await?;
        Ok(Self { udp, tcp })
    }
}

impl Server {
    /// Says what `snapshots` say, and asks whoever is `upstream` for the rest.
    pub fn new(
        snapshots: watch::Receiver<Snapshot>,
        upstream: watch::Receiver<Option<Upstream>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            snapshots,
            upstream,
            connections: Semaphore::new(MAX_CONNECTIONS),
            forwarded: Arc::new(Semaphore::new(MAX_FORWARDED)),
        })
    }

    /// Serves the sockets of one address until it is aborted.
    pub async fn serve(self: Arc<Self>, sockets: Sockets) {
        tokio::join!(
            self.clone().serve_udp(Arc::new(sockets.udp)),
            self.serve_tcp(sockets.tcp)
        );
    }

    async fn serve_udp(self: Arc<Self>, socket: Arc<UdpSocket>) {
        let mut buffer = [0; MAX_QUESTION];
        let mut forwarding = JoinSet::new();
        loop {
            let (length, from) = match socket.recv_from(&mut buffer).await {
                Ok(received) => received,
                Err(error) => {
                    tracing::debug!(%error, "cannot receive questions for names");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            while forwarding.try_join_next().is_some() {}
            let question = &buffer[..length];
            match self.outcome(question, from.ip()) {
                Outcome::Reply(reply) => {
                    if let Ok(reply) = fitting(reply) {
                        // Whoever asked may have gone.
                        let _ = socket.try_send_to(&reply, from);
                    }
                }
                Outcome::Forward(upstream) => {
                    let Ok(permit) = self.forwarded.clone().try_acquire_owned() else {
                        continue;
                    };
                    let (socket, question) = (socket.clone(), question.to_vec());
                    forwarding.spawn(async move {
                        let answer = upstream.ask(&question, Carrier::Udp).await;
                        let answer = answer.or_else(|| failure(&question));
                        if let Some(answer) = answer {
                            let _ = socket.send_to(&answer, from).await;
                        }
                        drop(permit);
                    });
                }
                Outcome::Nothing => {}
            }
        }
    }

    async fn serve_tcp(self: Arc<Self>, listener: TcpListener) {
        let mut conversing = JoinSet::new();
        loop {
            let (stream, from) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::debug!(%error, "cannot accept questions for names");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            while conversing.try_join_next().is_some() {}
            if !self.snapshots.borrow().is_here(from.ip()) {
                continue;
            }
            let server = self.clone();
            conversing.spawn(async move {
                let Ok(_permit) = server.connections.try_acquire() else {
                    return;
                };
                // The other end sees that it is over; it has no other use for the reason.
                let _ = server.converse(stream, from).await;
            });
        }
    }

    /// Answers question after question (RFC 7766).
    async fn converse(&self, mut stream: TcpStream, from: SocketAddr) -> io::Result<()> {
        loop {
            let length = timeout(IDLE, stream.read_u16()).await??;
            let mut question = vec![0; usize::from(length).min(MAX_QUESTION)];
            if question.len() < usize::from(length) {
                return Ok(());
            }
            timeout(IDLE, stream.read_exact(&mut question)).await??;
            let answer = match self.outcome(&question, from.ip()) {
                Outcome::Reply(reply) => encoded(&reply, u16::MAX).ok(),
                Outcome::Forward(upstream) => {
                    let answer = upstream.ask(&question, Carrier::Tcp).await;
                    answer.or_else(|| failure(&question))
                }
                Outcome::Nothing => return Ok(()),
            };
            let Some(answer) = answer else { return Ok(()) };
            let Ok(length) = u16::try_from(answer.len()) else {
                return Ok(());
            };
            let message = [&length.to_be_bytes(), answer.as_slice()].concat();
            timeout(IDLE, stream.write_all(&message)).await??;
        }
    }

    fn outcome(&self, question: &[u8], from: IpAddr) -> Outcome {
        let Ok(question) = Message::from_vec(question) else {
            return failed(question, ResponseCode::FormErr);
        };
        if question.metadata.message_type != MessageType::Query {
            return Outcome::Nothing;
        }
        let upstream = self.upstream.borrow().clone();
        let reply = Reply::to(&question, upstream.is_some());
        if !self.snapshots.borrow().is_here(from) {
            return reply.fails(ResponseCode::Refused);
        }
        if question.version() > EDNS_VERSION {
            return reply.fails(ResponseCode::BADVERS);
        }
        if question.metadata.op_code != OpCode::Query {
            return reply.fails(ResponseCode::NotImp);
        }
        let [query] = question.queries.as_slice() else {
            return reply.fails(ResponseCode::FormErr);
        };
        let snapshot = self.snapshots.borrow().clone();
        let ours = match query.query_class {
            DNSClass::IN | DNSClass::ANY => Zone::of(&snapshot).and_then(|zone| zone.answer(query)),
            DNSClass::CH
            | DNSClass::HS
            | DNSClass::NONE
            | DNSClass::OPT(_)
            | DNSClass::Unknown(_) => None,
        };
        match (ours, upstream) {
            (Some(answer), _) => reply.with(answer),
            (None, Some(upstream)) if !zone::is_private(&query.name) => Outcome::Forward(upstream),
            // Who is refused asks the next server: that of another network, but nobody who need not know.
            (None, Some(upstream)) if upstream.is_next() => reply.fails(ResponseCode::NXDomain),
            (None, _) => reply.fails(ResponseCode::Refused),
        }
    }
}

/// An answer in the making.
struct Reply(Message);

impl Reply {
    fn to(question: &Message, knows_others: bool) -> Self {
        let mut reply = Message::new(question.metadata.id, MessageType::Response, OpCode::Query);
        reply.metadata = Metadata::response_from_request(&question.metadata);
        reply.metadata.recursion_available = knows_others;
        reply.queries = question.queries.clone();
        if question.edns.is_some() {
            let mut edns = Edns::new();
            edns.set_max_payload(question.max_payload().clamp(MIN_PAYLOAD, MAX_PAYLOAD));
            reply.edns = Some(edns);
        }
        Self(reply)
    }

    fn fails(mut self, code: ResponseCode) -> Outcome {
        self.0.metadata.response_code = code;
        Outcome::Reply(self.0)
    }

    fn with(mut self, answer: Answer) -> Outcome {
        self.0.metadata.response_code = answer.code;
        self.0.metadata.authoritative = true;
        self.0.answers = answer.answers;
        self.0.authorities = answer.authority;
        self.0.additionals = answer.additional;
        Outcome::Reply(self.0)
    }
}

/// The answer to what cannot be read beyond its id, or to a question that nobody could answer.
fn failed(question: &[u8], code: ResponseCode) -> Outcome {
    let Some(&[high, low, flags, ..]) = question.first_chunk::<12>() else {
        return Outcome::Nothing;
    };
    // An answer to an answer would be the beginning of a long talk.
    if flags & 0x80 != 0 {
        return Outcome::Nothing;
    }
    let id = u16::from_be_bytes([high, low]);
    Outcome::Reply(Message::error_msg(id, OpCode::Query, code))
}

fn failure(question: &[u8]) -> Option<Vec<u8>> {
    let question = Message::from_vec(question).ok()?;
    let Outcome::Reply(reply) = Reply::to(&question, true).fails(ResponseCode::ServFail) else {
        return None;
    };
    fitting(reply).ok()
}

/// The answer in bytes for UDP: without what is only of use later, or cut short, if it is too long.
fn fitting(mut reply: Message) -> Result<Vec<u8>, ProtoError> {
    let room = reply.edns.as_ref().map_or(MIN_PAYLOAD, Edns::max_payload);
    let whole = encoded(&reply, room)?;
    if !is_cut(&whole) {
        return Ok(whole);
    }
    reply.additionals.clear();
    let necessary = encoded(&reply, room)?;
    if !is_cut(&necessary) {
        return Ok(necessary);
    }
    encoded(&reply.truncate(), room)
}

fn encoded(reply: &Message, room: u16) -> Result<Vec<u8>, ProtoError> {
    let mut bytes = Vec::with_capacity(usize::from(MIN_PAYLOAD));
    let mut encoder = BinEncoder::new(&mut bytes);
    encoder.set_max_size(room);
    reply.emit(&mut encoder)?;
    Ok(bytes)
}

/// Whether the bit TC is set.
fn is_cut(message: &[u8]) -> bool {
    message.get(2).is_some_and(|flags| flags & 0x02 != 0)
}

#[cfg(test)]
mod tests;
