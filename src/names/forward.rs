//! Names of others, while we stand in front of the servers that know them.
//!
//! Questions and answers are passed on as they are but for their id: what neither end has to understand, we need not
//! either.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

use super::resolv_conf::ResolvConf;

/// How long a server may take, before the next one is asked.
const PATIENCE: Duration = Duration::from_secs(2);
/// A DNS message's header (RFC 1035 §4.1.1).
const HEADER: usize = 12;
/// The longest answer by UDP that anybody asks for.
const MAX_ANSWER: usize = 65_535;

/// The servers that know all other names, the first to be asked first.
#[derive(Debug, Clone)]
pub struct Upstream {
    servers: Arc<[SocketAddr]>,
    front: Option<(ResolvConf, IpAddr)>,
}

/// How a question came, and goes on.
#[derive(Debug, Clone, Copy)]
pub enum Carrier {
    /// UDP.
    Udp,
    /// TCP.
    Tcp,
}

impl Upstream {
    /// Asks these servers.
    pub fn new(servers: impl IntoIterator<Item = SocketAddr>) -> Self {
        Self {
            servers: servers.into_iter().collect(),
            front: None,
        }
    }

    /// Says that our server stands before them in this file, perhaps among those of other networks.
    pub fn behind(self, file: ResolvConf, server: IpAddr) -> Self {
        Self {
            front: Some((file, server)),
            ..self
        }
    }

    /// Whether they are who is asked next by whom we refuse to answer, and not another network of this machine.
    pub fn is_next(&self) -> bool {
        let front = self.front.as_ref();
        front.is_none_or(|(file, server)| file.is_last(*server))
    }

    /// What the first server says that says something.
    pub async fn ask(&self, question: &[u8], carrier: Carrier) -> Option<Vec<u8>> {
        for server in self.servers.iter() {
            let answer = match carrier {
                Carrier::Udp => timeout(PATIENCE, by_udp(*server, question)).await,
                Carrier::Tcp => timeout(PATIENCE, by_tcp(*server, question)).await,
            };
            match answer {
                Ok(Ok(answer)) => return Some(answer),
                Ok(Err(error)) => {
                    tracing::debug!(%server, %error, "the name server does not answer")
                }
                Err(_) => tracing::debug!(%server, "the name server does not answer in time"),
            }
        }
        None
    }
}

async fn by_udp(server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    // A port of its own for each question, and an id: who does not see it has to guess both.
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    let (question, id) = with_own_id(question);
    socket.send(&question).await?;
    let mut answer = vec![0; MAX_ANSWER];
    loop {
        let length = socket.recv(&mut answer).await?;
        if is_answer(&answer[..length], &question) {
            answer.truncate(length);
            return Ok(with_id(answer, id));
        }
    }
}

async fn by_tcp(server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let (question, id) = with_own_id(question);
    let length = u16::try_from(question.len()).map_err(io::Error::other)?;
    let message = [&length.to_be_bytes(), question.as_slice()].concat();
    stream.write_all(&message).await?;
    let mut answer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut answer).await?;
    match is_answer(&answer, &question) {
        true => Ok(with_id(answer, id)),
        false => Err(io::Error::other("it answers another question")),
    }
}

/// The question under an id of ours, and the id that it had.
fn with_own_id(question: &[u8]) -> (Vec<u8>, [u8; 2]) {
    let mut id = [0; 2];
    id.copy_from_slice(&question[..2]);
    (with_id(question.to_vec(), rand::random()), id)
}

fn with_id(mut message: Vec<u8>, id: [u8; 2]) -> Vec<u8> {
    message[..2].copy_from_slice(&id);
    message
}

/// Whether this is a response with the question's id that repeats the question, in whatever case.
fn is_answer(answer: &[u8], question: &[u8]) -> bool {
    let (Some(header), Some(end)) = (answer.first_chunk::<HEADER>(), end_of_question(question))
    else {
        return false;
    };
    let repeats = || {
        let asked = &question[HEADER..end];
        answer
            .get(HEADER..end)
            .is_some_and(|repeated| repeated.eq_ignore_ascii_case(asked))
    };
    let repeats_nothing = header[4..6] == [0, 0];
    header[..2] == question[..2] && header[2] & 0x80 != 0 && (repeats_nothing || repeats())
}

/// Where the first question of a message ends: behind its name, its type and its class.
fn end_of_question(message: &[u8]) -> Option<usize> {
    let mut at = HEADER;
    loop {
        match usize::from(*message.get(at)?) {
            0 => break,
            length if length < 64 => at += 1 + length,
            _ => return None,
        }
    }
    let end = at + 5;
    (end <= message.len()).then_some(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(id: [u8; 2], name: &[u8]) -> Vec<u8> {
        [
            &id,
            &[1, 0, 0, 1, 0, 0, 0, 0, 0, 0][..],
            name,
            &[0, 1, 0, 1],
        ]
        .concat()
    }

    #[test]
    fn only_the_answer_to_the_question_asked_is_taken() {
        let asked = question([7, 7], b"\x03gpu\x04home\0");
        let mut answer = question([7, 7], b"\x03GPU\x04home\0");
        assert!(!is_answer(&answer, &asked), "it is a question");
        answer[2] |= 0x80;
        assert!(is_answer(&answer, &asked));
        let mut other_id = answer.clone();
        other_id[0] = 8;
        assert!(!is_answer(&other_id, &asked));
        let mut other_name = answer.clone();
        other_name[14] = b'x';
        assert!(!is_answer(&other_name, &asked));
        assert!(!is_answer(&answer[..20], &asked));
        assert!(!is_answer(b"", &asked));
    }

    #[tokio::test]
    async fn a_server_that_is_silent_is_passed_over_and_the_id_is_the_asker_s() {
        let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let upstream = Upstream::new([silent.local_addr().unwrap(), server.local_addr().unwrap()]);
        let serving = tokio::spawn(async move {
            let mut buffer = [0; 512];
            let (length, from) = server.recv_from(&mut buffer).await.unwrap();
            buffer[2] |= 0x80;
            server.send_to(&buffer[..length], from).await.unwrap();
        });
        let asked = question([1, 2], b"\x07example\0");
        let answer = upstream.ask(&asked, Carrier::Udp).await.unwrap();
        assert_eq!(answer[..2], [1, 2]);
        assert_eq!(answer[HEADER..], asked[HEADER..]);
        serving.await.unwrap();
    }
}
