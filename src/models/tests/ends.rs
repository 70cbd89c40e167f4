//! Both ends, by hand: servers that do what the story says, and clients that see every byte.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::*;

/// A member's server, which the story drives.
pub(super) struct Server {
    listener: TcpListener,
}

impl Server {
    /// At a free port of a loopback address.
    pub async fn at(address: [u8; 4]) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::from(address), 0)).await;
        Self {
            listener: listener.unwrap(),
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    /// The member whose server this is, and its service with these models.
    pub fn of(&self, name: &str, models: &[&str]) -> (Told, ServiceStatus) {
        let SocketAddr::V4(address) = self.address() else {
            unreachable!("it is IPv4");
        };
        let member = named(name).at(*address.ip());
        let service = serving(&member, address.port(), models);
        (member, service)
    }

    pub async fn accept(&self) -> End {
        End::of(self.listener.accept().await.unwrap().0)
    }

    /// Accepts a connection, reads a request and answers it; the request.
    pub async fn answer(&self, answer: &str) -> (String, End) {
        let mut end = self.accept().await;
        let request = end.message().await;
        end.say(answer).await;
        (request, end)
    }
}

/// One end of a connection.
pub(super) struct End {
    stream: TcpStream,
    read: Vec<u8>,
}

impl End {
    fn of(stream: TcpStream) -> Self {
        Self {
            stream,
            read: Vec::new(),
        }
    }

    /// A client.
    pub async fn to(address: SocketAddr) -> Self {
        Self::of(TcpStream::connect(address).await.unwrap())
    }

    pub async fn say(&mut self, text: impl AsRef<[u8]>) {
        self.stream.write_all(text.as_ref()).await.unwrap();
    }

    /// As [`say`](Self::say), to somebody who may have gone.
    pub async fn try_say(&mut self, text: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(text.as_ref()).await.is_ok()
    }

    /// Sends a request with a JSON body.
    pub async fn post(&mut self, path: &str, json: &str) {
        self.post_with(path, "", json).await;
    }

    pub async fn post_with(&mut self, path: &str, headers: &str, json: &str) {
        let length = json.len();
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n{headers}\r\n{json}"
        );
        self.say(request).await;
    }

    /// Whether there was more before the end.
    async fn more(&mut self) -> bool {
        let mut buffer = vec![0; 65536];
        match self.stream.read(&mut buffer).await {
            Ok(0) | Err(_) => false,
            Ok(length) => {
                self.read.extend_from_slice(&buffer[..length]);
                true
            }
        }
    }

    /// Reads until there is this, and takes all up to there.
    pub async fn until(&mut self, text: &str) -> String {
        let text = text.as_bytes();
        loop {
            let found = self.read.windows(text.len()).position(|part| part == text);
            if let Some(start) = found {
                let rest = self.read.split_off(start + text.len());
                return into_text(std::mem::replace(&mut self.read, rest));
            }
            let read = || String::from_utf8_lossy(&self.read).into_owned();
            let so_far = read();
            assert!(self.more().await, "the end came after {so_far:?}");
        }
    }

    /// A message with a length, or without a body.
    pub async fn message(&mut self) -> String {
        let mut message = self.until("\r\n\r\n").await;
        let length = message
            .to_lowercase()
            .split_once("content-length: ")
            .map_or(0, |(_, rest)| {
                rest.split("\r\n").next().unwrap().parse().unwrap()
            });
        while self.read.len() < length {
            assert!(self.more().await, "the end came within a body");
        }
        let rest = self.read.split_off(length);
        message += &into_text(std::mem::replace(&mut self.read, rest));
        message
    }

    /// Everything up to the end of the connection.
    pub async fn all(&mut self) -> String {
        while self.more().await {}
        into_text(std::mem::take(&mut self.read))
    }
}

fn into_text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

/// A message of JSON.
pub(super) fn message(status: &str, json: &str) -> String {
    let length = json.len();
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{json}"
    )
}

/// The head of a stream of events.
pub(super) const EVENTS: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

pub(super) fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

pub(super) const LAST: &str = "0\r\n\r\n";

pub(super) const STREAMED: &str = r#"{"model":"llama","stream":true}"#;
pub(super) const WHOLE: &str = r#"{"model":"llama"}"#;
pub(super) const CHAT: &str = "/v1/chat/completions";
