//! The front, with real sockets on loopback. Both client and backend are written by hand, byte by byte: what is tested is
//! what goes over the wire.

use std::time::Duration;

use hivevpn_core::membership::UnixTime;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;
use crate::services::snapshot::{Member, Taken};

mod counts;
mod framing;
mod identity;
mod passing;

/// Nothing here takes long; what never comes is given up.
const DEADLINE: Duration = Duration::from_secs(20);

/// Where the member `a` calls from.
const A: &str = "10.77.0.2:40000";

fn member(name: &str, last: u8, groups: &[&str], this: bool) -> Member {
    Member {
        name: name.parse().unwrap(),
        certified: Some(name.parse().unwrap()),
        peer_id: PeerId::random(),
        ipv4: Some([10, 77, 0, last].into()),
        ipv6: format!("fd00::{last}").parse().unwrap(),
        groups: groups.iter().map(|group| group.parse().unwrap()).collect(),
        online: true,
        rtt: None,
        this,
    }
}

fn snapshot() -> Snapshot {
    Snapshot {
        network: "hive".to_owned(),
        interface: "hive0".to_owned(),
        members: Arc::new(vec![
            member("us", 1, &[], true),
            member("a", 2, &["gpu", "dev"], false),
            member("b", 3, &[], false),
        ]),
        taken: Taken(UnixTime(0)),
        ..Snapshot::default()
    }
}

/// A front, its backend's listener, and what the front knows.
struct Stand {
    front: Front,
    /// What is used of it is written down there.
    ledger: Ledger,
    /// Dropped, the front knows nobody new.
    snapshots: watch::Sender<Snapshot>,
    backend: TcpListener,
}

impl Stand {
    async fn new(kind: Kind, limits: Limits) -> Self {
        Self::with(|name, target, snapshots, ledger| {
            Front::new(name, target, kind, snapshots, limits, None, ledger)
        })
        .await
    }

    async fn with(
        front: impl FnOnce(Name, SocketAddr, watch::Receiver<Snapshot>, Ledger) -> Front,
    ) -> Self {
        let backend = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (snapshots, told) = watch::channel(snapshot());
        let name = "llm".parse().unwrap();
        let ledger = Ledger::default();
        let target = backend.local_addr().unwrap();
        Self {
            front: front(name, target, told, ledger.clone()),
            ledger,
            snapshots,
            backend,
        }
    }

    /// A connection from this address.
    async fn client(&self, from: &str) -> Wire {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let (front, from) = (self.front.clone(), from.parse().unwrap());
        tokio::spawn(async move { front.serve(stream, from).await });
        Wire(client)
    }

    /// Where the next request comes in, on this connection or another one, and its head.
    async fn next(&self, mut kept: Wire) -> (Wire, String) {
        tokio::select! {
            head = kept.head_or_end() => if !head.is_empty() {
                return (kept, head);
            },
            accepted = self.backend.accept() => {
                let mut wire = Wire(accepted.unwrap().0);
                let head = wire.head().await;
                return (wire, head);
            }
        }
        let mut wire = self.accept().await;
        let head = wire.head().await;
        (wire, head)
    }

    /// The backend's next connection.
    async fn accept(&self) -> Wire {
        let accepted = within(self.backend.accept()).await.unwrap();
        accepted.0.set_nodelay(true).unwrap();
        Wire(accepted.0)
    }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future)
        .await
        .expect("it comes in time")
}

/// One end of a connection.
struct Wire(TcpStream);

impl Wire {
    async fn send(&mut self, text: &str) {
        within(self.0.write_all(text.as_bytes())).await.unwrap();
    }

    /// Everything up to and including this.
    async fn until(&mut self, end: &str) -> String {
        let mut read = Vec::new();
        while !read.ends_with(end.as_bytes()) {
            let byte = within(self.0.read_u8()).await;
            let byte = byte
                .unwrap_or_else(|error| panic!("{error} after {}", String::from_utf8_lossy(&read)));
            read.push(byte);
        }
        String::from_utf8_lossy(&read).into_owned()
    }

    async fn head(&mut self) -> String {
        self.until("\r\n\r\n").await
    }

    /// A head, or nothing if the other end hangs up before.
    async fn head_or_end(&mut self) -> String {
        let mut read = Vec::new();
        while !read.ends_with(b"\r\n\r\n") {
            match within(self.0.read_u8()).await {
                Ok(byte) => read.push(byte),
                Err(_) => break,
            }
        }
        String::from_utf8_lossy(&read).into_owned()
    }

    /// Everything up to the end, however it ends.
    async fn rest(&mut self) -> String {
        let mut read = Vec::new();
        // A reset is an end too.
        let _ = within(self.0.read_to_end(&mut read)).await;
        String::from_utf8_lossy(&read).into_owned()
    }
}

/// The values of a header in a head.
fn values<'a>(head: &'a str, name: &str) -> Vec<&'a str> {
    let lines = head.lines().filter_map(|line| line.split_once(':'));
    lines
        .filter(|(found, _)| found.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim())
        .collect()
}

fn status(head: &str) -> u16 {
    head.split(' ')
        .nth(1)
        .unwrap_or_default()
        .parse()
        .unwrap_or(0)
}
