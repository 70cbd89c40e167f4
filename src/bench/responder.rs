//! The far end of a measurement, in the peer's daemon.
//!
//! Each measurement is a [`Session`]: two ports on our overlay address that serve one peer. It lives on a thread of its
//! own, so that streams at full speed hold up neither packets nor the swarm. It ends with the stream that the asker
//! holds open, or with its time; its ports, streams and memory end with it.
//!
//! Nothing that arrives makes it send to anybody but the asker, and an echo is as long as what it answers.

use std::{
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::Semaphore,
    task::{JoinSet, yield_now},
    time::{interval, timeout},
};

use super::{
    BLOCK, Meter, ZEROS,
    wire::{Answer, Ask, Echo, Errand, Header, MAX_STREAMS, Opened, Ticket},
};
use crate::identity;

/// Measurements at once: each may fill the link.
const SESSIONS: usize = 2;
/// How long the asker may take to open its first stream, and to say what a stream is for.
const ARRIVAL: Duration = Duration::from_secs(10);
/// What a measurement takes besides its two directions: idle echoes, late echoes, what waits in queues.
const AROUND: Duration = Duration::from_secs(20);
/// How much longer than its window a stream may take before its first byte.
const SLACK: Duration = Duration::from_secs(5);
/// How often an upload's total is reported.
const REPORT: Duration = Duration::from_millis(200);
/// How long we wait for the client to hear the last total.
const FAREWELL: Duration = Duration::from_secs(3);
/// Streams at once: those of the next direction may come before we hear that those of the last are gone.
const STREAMS: usize = 2 * MAX_STREAMS as usize;

/// Opens sessions, a few at a time.
pub struct Responder {
    free: Arc<Semaphore>,
}

impl Default for Responder {
    fn default() -> Self {
        Self {
            free: Arc::new(Semaphore::new(SESSIONS)),
        }
    }
}

impl Responder {
    /// Answers a member's request. `own` is our overlay address and `asker` the member's.
    pub fn answer(&self, body: &[u8], own: Ipv6Addr, asker: Ipv6Addr) -> Answer {
        let Some(ask) = Ask::decode(body) else {
            return Answer::NotUnderstood;
        };
        let Ok(permit) = Arc::clone(&self.free).try_acquire_owned() else {
            return Answer::Busy;
        };
        let started = Session::open(own, asker, ask).and_then(|(session, opened)| {
            std::thread::Builder::new()
                .name("hivevpn-bench".to_owned())
                .spawn(move || {
                    if let Err(error) = session.run() {
                        tracing::debug!(%asker, %error, "a measurement ended early");
                    }
                    drop(permit);
                })?;
            Ok(opened)
        });
        match started {
            Ok(opened) => Answer::Opened(opened),
            Err(error) => {
                tracing::warn!(%own, %error, "no port can be opened to be measured with");
                Answer::Unable
            }
        }
    }
}

/// One measurement.
struct Session {
    listener: std::net::TcpListener,
    socket: std::net::UdpSocket,
    asker: IpAddr,
    ticket: Ticket,
    lifetime: Duration,
}

impl Session {
    fn open(own: Ipv6Addr, asker: Ipv6Addr, ask: Ask) -> io::Result<(Self, Opened)> {
        let listener = std::net::TcpListener::bind((own, 0))?;
        listener.set_nonblocking(true)?;
        let socket = std::net::UdpSocket::bind((own, 0))?;
        socket.set_nonblocking(true)?;
        let mut ticket = [0; 16];
        ticket.copy_from_slice(&identity::random_bytes()[..16]);
        let opened = Opened {
            tcp: listener.local_addr()?.port(),
            udp: socket.local_addr()?.port(),
            ticket: Ticket(ticket),
        };
        let session = Self {
            listener,
            socket,
            asker: asker.into(),
            ticket: opened.ticket,
            lifetime: 2 * Duration::from_secs(ask.seconds.into()) + AROUND,
        };
        Ok((session, opened))
    }

    /// Blocks until the measurement is over.
    fn run(self) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()?;
        let lifetime = self.lifetime;
        runtime.block_on(async move {
            timeout(lifetime, self.serve())
                .await
                .map_err(io::Error::from)?
        })
    }

    async fn serve(self) -> io::Result<()> {
        let Self {
            asker,
            ticket,
            lifetime: _,
            listener,
            socket,
        } = self;
        let door = Door {
            listener: TcpListener::from_std(listener)?,
            asker,
            ticket,
        };
        let socket = UdpSocket::from_std(socket)?;
        let mut held = timeout(ARRIVAL, door.held()).await??;
        tokio::select! {
            // The end of the stream, however it comes, is the end of the measurement.
            _ = held.read_u8() => Ok(()),
            ended = door.serve_streams() => ended,
            ended = echo(&socket, asker, ticket) => ended,
        }
    }
}

/// Where streams come in.
struct Door {
    listener: TcpListener,
    asker: IpAddr,
    ticket: Ticket,
}

impl Door {
    /// The next stream from the asker's address; others are closed at once.
    async fn accept(&self) -> io::Result<TcpStream> {
        loop {
            let (stream, from) = self.listener.accept().await?;
            if from.ip() == self.asker {
                return Ok(stream);
            }
            tracing::debug!(%from, "a stranger at a port for a measurement");
        }
    }

    /// Waits for the stream that the asker holds open.
    async fn held(&self) -> io::Result<TcpStream> {
        loop {
            let mut stream = self.accept().await?;
            let header = header(&mut stream, self.ticket).await;
            if header.is_ok_and(|header| header.errand == Errand::Hold) {
                return Ok(stream);
            }
        }
    }

    async fn serve_streams(&self) -> io::Result<()> {
        let mut open = JoinSet::new();
        loop {
            let stream = self.accept().await?;
            while open.try_join_next().is_some() {}
            if open.len() < STREAMS {
                let ticket = self.ticket;
                open.spawn(async move {
                    if let Err(error) = serve_stream(stream, ticket).await {
                        tracing::debug!(%error, "a measured stream ended early");
                    }
                });
            }
        }
    }
}

/// What the stream is for, if it shows our ticket.
async fn header(stream: &mut TcpStream, ticket: Ticket) -> io::Result<Header> {
    let mut bytes = [0; Header::LENGTH];
    timeout(ARRIVAL, stream.read_exact(&mut bytes)).await??;
    Header::decode(&bytes)
        .filter(|header| header.ticket == ticket)
        .ok_or_else(|| io::ErrorKind::PermissionDenied.into())
}

async fn serve_stream(mut stream: TcpStream, ticket: Ticket) -> io::Result<()> {
    let header = header(&mut stream, ticket).await?;
    let window = Duration::from_secs(header.seconds.into());
    match header.errand {
        Errand::Hold => Ok(()),
        Errand::Upload => {
            stream.set_nodelay(true)?;
            timeout(window + SLACK, count(&mut stream, window)).await??;
            // Closing with unread bytes would reset the stream, perhaps before the last total got through.
            let rest = async { while stream.read(&mut [0; 4096]).await.is_ok_and(|n| n > 0) {} };
            timeout(FAREWELL, rest).await.map_err(io::Error::from)
        }
        Errand::Download => {
            // What still waits in the kernel at the end is of no use to anybody.
            stream.set_zero_linger()?;
            // The client hangs up when it has seen enough.
            timeout(window + SLACK, fill(&mut stream)).await?
        }
    }
}

/// Counts what arrives within the window and reports it, at its end for the last time.
async fn count(stream: &mut TcpStream, window: Duration) -> io::Result<()> {
    let (mut read, mut write) = stream.split();
    let mut meter = Meter::new(window);
    let mut block = vec![0; BLOCK];
    let mut report = interval(REPORT);
    while !meter.is_over() {
        tokio::select! {
            count = read.read(&mut block) => match count? {
                0 => return Ok(()),
                count => {
                    meter.add(count);
                    yield_now().await;
                }
            },
            _ = report.tick() => write.write_all(&meter.total().encode()).await?,
        }
    }
    write.write_all(&meter.total().encode()).await
}

/// Sends as fast as the stream takes it.
async fn fill(stream: &mut TcpStream) -> io::Result<()> {
    loop {
        stream.write_all(&ZEROS).await?;
        yield_now().await;
    }
}

/// Returns the asker's datagrams.
async fn echo(socket: &UdpSocket, asker: IpAddr, ticket: Ticket) -> io::Result<()> {
    // One byte more, so that a longer datagram does not look like one of ours.
    let mut datagram = [0; Echo::LENGTH + 1];
    loop {
        let (length, from): (usize, SocketAddr) = socket.recv_from(&mut datagram).await?;
        let datagram = &datagram[..length];
        if from.ip() == asker && Echo::decode(datagram).is_some_and(|echo| echo.ticket == ticket) {
            // One that is lost here counts as lost, which it is.
            let _ = socket.send_to(datagram, from).await;
        }
    }
}

#[cfg(test)]
mod tests;
