//! Whether what is offered answers, in the way its kind does.

use std::{io, net::SocketAddr, time::Duration};

use hivevpn_core::registry::{Kind, OpenAi, State};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout},
};

use crate::http;

/// More than any list of models has.
const MAX_BODY: u64 = 4 << 20;

/// What a probe found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Whether it answers.
    pub state: State,
    /// What is wrong, for people.
    pub problem: Option<String>,
    /// What a model server says.
    pub openai: Option<OpenAi>,
    /// Whether a model server answers those only who show a key, if it says.
    pub needs_key: Option<bool>,
    /// Requests that a model server works on at once, if it says.
    pub slots: Option<u32>,
}

impl Finding {
    fn of(state: State, problem: Option<String>) -> Self {
        Self {
            state,
            problem,
            openai: None,
            needs_key: None,
            slots: None,
        }
    }

    fn down(target: SocketAddr, why: &str) -> Self {
        let problem = format!("nothing answers on {target} ({why})");
        Self::of(State::Down, Some(problem))
    }
}

/// Looks at a service, no longer than `limit`. `api_key` is what a model server wants to see before it lists its models.
pub async fn probe(
    target: SocketAddr,
    kind: &Kind,
    api_key: Option<&str>,
    limit: Duration,
) -> Finding {
    match kind {
        // Nobody can tell whether anybody listens.
        Kind::Udp | Kind::Dns => return Finding::of(State::Up, None),
        Kind::OpenAi
        | Kind::Ssh
        | Kind::Postgres
        | Kind::Http
        | Kind::Https
        | Kind::Tcp
        | Kind::Metrics
        | Kind::Vendor(_) => {}
    }
    let began = Instant::now();
    let stream = match timeout(limit, connect(target)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Finding::down(target, &error.to_string()),
        Err(_) => return Finding::down(target, "no answer in time"),
    };
    let left = limit.saturating_sub(began.elapsed());
    let looking = look(target, kind, api_key, stream);
    timeout(left, looking).await.unwrap_or_else(|_| {
        let problem = format!("{target} did not answer within {} s", limit.as_secs());
        Finding::of(State::Degraded, Some(problem))
    })
}

/// Looks at a service that took this connection.
async fn look(
    target: SocketAddr,
    kind: &Kind,
    api_key: Option<&str>,
    stream: TcpStream,
) -> Finding {
    let spoken = match kind {
        Kind::Ssh => greets(stream).await,
        Kind::Postgres => knows_ssl_request(stream).await,
        // A server that takes one connection at a time must not wait for this one.
        Kind::OpenAi => {
            drop(stream);
            return model_server(target, api_key).await;
        }
        Kind::Http => {
            drop(stream);
            serves(target, "/").await
        }
        Kind::Metrics => {
            drop(stream);
            serves(target, "/metrics").await
        }
        Kind::Https | Kind::Tcp | Kind::Vendor(_) | Kind::Udp | Kind::Dns => Ok(None),
    };
    let problem = match spoken {
        Ok(None) => return Finding::of(State::Up, None),
        Ok(Some(what)) => format!("{target} {what}"),
        Err(error) => format!("{target} does not speak {kind} ({error})"),
    };
    Finding::of(State::Degraded, Some(problem))
}

async fn model_server(target: SocketAddr, api_key: Option<&str>) -> Finding {
    match http::read_models(target, api_key).await {
        Ok(found) => {
            let is_closed = found.needs_key && found.models.is_empty();
            let problem = is_closed.then(|| {
                "it answers only those who show a key, and has not seen the right one: expose it with --api-key-file"
                    .to_owned()
            });
            Finding {
                state: match is_closed {
                    true => State::Degraded,
                    false => State::Up,
                },
                problem,
                openai: Some(OpenAi {
                    models: found.models,
                    ..OpenAi::default()
                }),
                needs_key: Some(found.needs_key),
                slots: found.slots,
            }
        }
        Err(error) => Finding::of(State::Degraded, Some(format!("{target}: {error:#}"))),
    }
}

/// Connects. When nobody listens on a port of this machine, the system may pick that very port for our end: TCP then
/// connects the socket with itself (RFC 9293 §3.5).
pub async fn connect(target: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(target).await?;
    if stream.local_addr()? == stream.peer_addr()? {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    Ok(stream)
}

/// RFC 4253 §4.2: a server says its version, other lines may come first.
async fn greets(mut stream: TcpStream) -> io::Result<Option<String>> {
    let mut said = [0; 255];
    let mut count = 0;
    while count < said.len() {
        let read = stream.read(&mut said[count..]).await?;
        count += read;
        let lines = said[..count].split(|&byte| byte == b'\n');
        if lines.into_iter().any(|line| line.starts_with(b"SSH-")) {
            return Ok(None);
        }
        if read == 0 {
            break;
        }
    }
    Ok(Some("does not greet as an ssh server".to_owned()))
}

/// PostgreSQL, "SSL Session Encryption": asked for SSL, a server answers one byte.
async fn knows_ssl_request(mut stream: TcpStream) -> io::Result<Option<String>> {
    const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];
    stream.write_all(&SSL_REQUEST).await?;
    let mut answer = [0];
    stream.read_exact(&mut answer).await?;
    Ok(match &answer {
        b"S" | b"N" => None,
        _ => Some("does not answer as PostgreSQL does".to_owned()),
    })
}

async fn serves(target: SocketAddr, path: &str) -> io::Result<Option<String>> {
    let (status, _) = get(target, path, None).await?;
    Ok((status >= 500).then(|| format!("answers GET {path} with {status}")))
}

/// Status and body of a GET. HTTP/1.0, so that the body ends with the connection.
pub async fn get(
    target: SocketAddr,
    path: &str,
    bearer: Option<&str>,
) -> io::Result<(u16, Vec<u8>)> {
    let mut stream = connect(target).await?;
    let bearer = bearer.map_or_else(String::new, |key| {
        format!("Authorization: Bearer {key}\r\n")
    });
    let request =
        format!("GET {path} HTTP/1.0\r\nHost: {target}\r\n{bearer}Connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(MAX_BODY).read_to_end(&mut answer).await?;
    let wrong = || io::Error::new(io::ErrorKind::InvalidData, "no answer in HTTP");
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
    let end = end.ok_or_else(wrong)?;
    let status = answer
        .strip_prefix(b"HTTP/1.")
        .and_then(|rest| std::str::from_utf8(rest.get(2..5)?).ok()?.parse().ok())
        .ok_or_else(wrong)?;
    Ok((status, answer.split_off(end + 4)))
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    /// Something that says `first` to everybody, and `then` after it was asked something.
    async fn server(first: &'static [u8], then: &'static [u8]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.write_all(first).await;
                if stream
                    .read(&mut [0; 1024])
                    .await
                    .is_ok_and(|count| count > 0)
                {
                    let _ = stream.write_all(then).await;
                }
            }
        });
        address
    }

    #[tokio::test]
    async fn a_service_is_up_when_it_answers_as_its_kind_does() {
        let ssh = server(b"Welcome\r\nSSH-2.0-OpenSSH_9.9\r\n", b"").await;
        let postgres = server(b"", b"N").await;
        let http = server(b"", b"HTTP/1.1 404 Not Found\r\n\r\n").await;
        let broken = server(b"", b"HTTP/1.1 502 Bad Gateway\r\n\r\n").await;
        for (target, kind, state) in [
            (ssh, Kind::Ssh, State::Up),
            (ssh, Kind::Tcp, State::Up),
            (ssh, Kind::Postgres, State::Degraded),
            (postgres, Kind::Postgres, State::Up),
            (http, Kind::Http, State::Up),
            (http, Kind::Metrics, State::Up),
            (http, Kind::OpenAi, State::Degraded),
            (broken, Kind::Http, State::Degraded),
        ] {
            let finding = probe(target, &kind, None, LIMIT).await;
            assert_eq!(finding.state, state, "{kind}: {:?}", finding.problem);
            assert_eq!(finding.problem.is_some(), state != State::Up);
        }
    }

    #[tokio::test]
    async fn a_service_that_is_not_there_is_down_unless_nobody_can_tell() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = listener.local_addr().unwrap();
        drop(listener);
        let finding = probe(target, &Kind::Ssh, None, LIMIT).await;
        assert_eq!(finding.state, State::Down);
        assert!(finding.problem.unwrap().contains(&target.to_string()));
        assert_eq!(
            probe(target, &Kind::Dns, None, LIMIT).await.state,
            State::Up
        );
    }

    #[tokio::test]
    async fn a_model_server_tells_its_models() {
        let open = server(
            b"",
            b"HTTP/1.1 200 OK\r\n\r\n{\"data\":[{\"id\":\"llama\"}]}",
        )
        .await;
        let finding = probe(open, &Kind::OpenAi, None, LIMIT).await;
        assert_eq!((finding.state, finding.needs_key), (State::Up, Some(false)));
        assert_eq!(finding.openai.unwrap().models[0].id, "llama");
        let closed = server(b"", b"HTTP/1.1 401 Unauthorized\r\n\r\n").await;
        let finding = probe(closed, &Kind::OpenAi, None, LIMIT).await;
        assert_eq!(
            (finding.state, finding.needs_key),
            (State::Degraded, Some(true))
        );
    }
}
