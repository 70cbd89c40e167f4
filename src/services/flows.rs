//! Datagrams there and back.
//!
//! A *flow* is what goes between one source and the place that its first datagram went to. It has a socket of its own
//! there, so that what comes back is known to be its. Nobody says when it is over: it is when it has rested for a while.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    net::UdpSocket,
    task::{AbortHandle, JoinSet},
    time::Instant,
};

use super::splice::Buffer;

/// As long as a NAT should remember a flow (RFC 4787 §4.3).
const REST: Duration = Duration::from_secs(5 * 60);
/// How often those who rest are looked for.
pub const SWEEP: Duration = Duration::from_secs(15);
/// Flows of one port. When there is no room for another, the one goes that has rested longest.
pub const MOST: usize = 512;

/// The flows of one port.
#[derive(Default)]
pub struct Flows {
    flows: HashMap<Key, Flow>,
    tasks: JoinSet<()>,
}

/// Source, and which of our addresses it sends to.
type Key = (SocketAddr, IpAddr);

struct Flow {
    there: Arc<UdpSocket>,
    to: SocketAddr,
    stirred: Arc<Mutex<Instant>>,
    task: AbortHandle,
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Flows {
    /// Where the flow of this source goes, if there is one.
    pub fn destination(&self, from: SocketAddr, here: IpAddr) -> Option<SocketAddr> {
        self.flows.get(&(from, here)).map(|flow| flow.to)
    }

    /// Begins a flow from a source at our socket. Returns when it can carry its first datagram, which is at once.
    pub async fn begin(
        &mut self,
        from: SocketAddr,
        here: IpAddr,
        socket: Arc<UdpSocket>,
        to: SocketAddr,
    ) -> io::Result<()> {
        if self.flows.len() >= MOST {
            let rested = self.flows.iter().min_by_key(|(_, flow)| flow.stirred_at());
            if let Some(key) = rested.map(|(key, _)| *key) {
                self.flows.remove(&key);
            }
        }
        let any: IpAddr = match to {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let there = std::net::UdpSocket::bind((any, 0))?;
        there.connect(to)?;
        there.set_nonblocking(true)?;
        let there = Arc::new(UdpSocket::from_std(there)?);
        // A socket is not known to be writable before it was asked, and the datagram would be lost.
        there.writable().await?;
        let stirred = Arc::new(Mutex::new(Instant::now()));
        let back = bring_back(there.clone(), socket, from, stirred.clone());
        let task = self.tasks.spawn(back);
        let flow = Flow {
            there,
            to,
            stirred,
            task,
        };
        self.flows.insert((from, here), flow);
        Ok(())
    }

    /// Passes a datagram on. An error is one that an earlier datagram has met, such as nobody listening there.
    pub fn pass(&self, from: SocketAddr, here: IpAddr, datagram: &[u8]) -> io::Result<()> {
        let Some(flow) = self.flows.get(&(from, here)) else {
            return Ok(());
        };
        stir(&flow.stirred);
        match flow.there.try_send(datagram) {
            Ok(_) => Ok(()),
            // Like any full queue on the way of a datagram.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Ends those that rest, and those that may not go on.
    pub fn sweep(&mut self, may_go_on: impl Fn(SocketAddr, IpAddr, SocketAddr) -> bool) {
        let now = Instant::now();
        self.flows.retain(|&(from, here), flow| {
            now.duration_since(flow.stirred_at()) < REST && may_go_on(from, here, flow.to)
        });
        while self.tasks.try_join_next().is_some() {}
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.flows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.flows.is_empty()
    }

    /// How many come from there.
    pub fn of(&self, source: IpAddr) -> usize {
        let sources = self.flows.keys();
        sources.filter(|(from, _)| from.ip() == source).count()
    }
}

impl Flow {
    fn stirred_at(&self) -> Instant {
        *self.stirred.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn stir(stirred: &Mutex<Instant>) {
    *stirred.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
}

/// Sends what comes back to where the flow comes from, under the address that it was sent to.
async fn bring_back(
    there: Arc<UdpSocket>,
    socket: Arc<UdpSocket>,
    from: SocketAddr,
    stirred: Arc<Mutex<Instant>>,
) {
    loop {
        if there.readable().await.is_err() {
            return;
        }
        let mut buffer = Buffer::take();
        // Anything but a datagram is an error of one that was sent: the next may fare better.
        if let Ok(count) = there.try_recv(&mut buffer) {
            stir(&stirred);
            // What does not fit into the queue is lost, as anywhere on its way.
            let _ = socket.send_to(&buffer[..count], from).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    async fn socket() -> (Arc<UdpSocket>, SocketAddr) {
        let socket = UdpSocket::bind((HERE, 0)).await.unwrap();
        let address = socket.local_addr().unwrap();
        (Arc::new(socket), address)
    }

    /// Echoes what comes.
    async fn server() -> SocketAddr {
        let (socket, address) = socket().await;
        tokio::spawn(async move {
            let mut datagram = [0; 100];
            while let Ok((count, from)) = socket.recv_from(&mut datagram).await {
                let _ = socket.send_to(&datagram[..count], from).await;
            }
        });
        address
    }

    #[tokio::test]
    async fn each_source_gets_its_own_answers_from_where_it_sent_to() {
        let (server, (here, at)) = (server().await, socket().await);
        let mut flows = Flows::default();
        let clients = [socket().await, socket().await];
        for (text, (_, from)) in ["one", "two"].iter().zip(&clients) {
            flows
                .begin(*from, HERE, here.clone(), server)
                .await
                .unwrap();
            flows.pass(*from, HERE, text.as_bytes()).unwrap();
        }
        for (text, (client, _)) in ["one", "two"].iter().zip(&clients) {
            let mut answer = [0; 100];
            let (count, from) = client.recv_from(&mut answer).await.unwrap();
            assert_eq!((&answer[..count], from), (text.as_bytes(), at));
        }
        assert_eq!((flows.len(), flows.of(HERE)), (2, 2));
        let (_, kept) = clients[0];
        flows.sweep(|from, _, to| from == kept && to == server);
        assert_eq!(flows.len(), 1);
        assert_eq!(flows.destination(kept, HERE), Some(server));
    }

    #[tokio::test]
    async fn the_flow_that_has_rested_longest_makes_room() {
        let (here, _) = socket().await;
        let mut flows = Flows::default();
        let from = |port: u16| SocketAddr::new(HERE, port);
        let to = from(9);
        let most = MOST as u16;
        for port in 1..=most {
            flows
                .begin(from(port), HERE, here.clone(), to)
                .await
                .unwrap();
        }
        // Nobody need listen there for it to stir.
        let _ = flows.pass(from(1), HERE, b"x");
        flows.begin(from(most + 1), HERE, here, to).await.unwrap();
        assert_eq!(flows.len(), MOST);
        assert_eq!(flows.destination(from(1), HERE), Some(to));
        assert_eq!(flows.destination(from(2), HERE), None);
    }
}
