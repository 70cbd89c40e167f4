//! Listening at one port of each of our overlay addresses, which may change.
//!
//! A program of this machine may listen there already: one that is bound to all addresses can be reached over the overlay
//! without our help. Where that program is what is to be exposed, it is left alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use hivevpn_platform::listeners;
use tokio::net::{TcpListener, TcpSocket, UdpSocket};

/// Connections that wait to be accepted.
const BACKLOG: u32 = 1024;

/// A kind of socket that waits for others.
pub trait Listening: Sized {
    /// Begins to listen.
    fn open(at: SocketAddr) -> io::Result<Self>;

    /// What listens in this way on this machine.
    fn others() -> io::Result<Vec<SocketAddr>>;
}

impl Listening for TcpListener {
    fn open(at: SocketAddr) -> io::Result<Self> {
        let socket = match at {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        // Or connections of an earlier run that are not quite over would keep us from it.
        socket.set_reuseaddr(true)?;
        // A peer that has vanished is noticed by what it accepted: hours later, like everywhere.
        socket.set_keepalive(true)?;
        socket.bind(at)?;
        socket.listen(BACKLOG)
    }

    fn others() -> io::Result<Vec<SocketAddr>> {
        listeners::tcp()
    }
}

impl Listening for Arc<UdpSocket> {
    fn open(at: SocketAddr) -> io::Result<Self> {
        let socket = std::net::UdpSocket::bind(at)?;
        socket.set_nonblocking(true)?;
        UdpSocket::from_std(socket).map(Arc::new)
    }

    fn others() -> io::Result<Vec<SocketAddr>> {
        listeners::udp()
    }
}

/// Who listens at one of our addresses.
enum Place<S> {
    Ours(S),
    /// The program that is exposed.
    Its,
}

/// Why we cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// Another program does.
    #[error(
        "port {} of {} is taken{}: choose another with --port",
        .0.port(),
        .0.ip(),
        by_whom(.0.port())
    )]
    Taken(SocketAddr),
    /// Ports below 1024 take a capability.
    #[error(
        "no permission to listen on port {0}: choose one above 1023 with --port, or start the daemon as root or with \
         the capability CAP_NET_BIND_SERVICE (setcap cap_net_admin,cap_net_bind_service+ep)"
    )]
    NotPermitted(u16),
    /// The interface does not have the address, not yet perhaps.
    #[error("cannot listen on {at}: {error}")]
    Other {
        /// Where.
        at: SocketAddr,
        /// Why not.
        error: io::Error,
    },
}

/// This node itself answers for names and models.
fn by_whom(port: u16) -> &'static str {
    match port {
        53 => " (where the network has names, this node answers for them there)",
        80 => " (this node answers for the models of the network there)",
        _ => " by another program",
    }
}

impl Refused {
    /// Whether it may be another one in a moment.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Taken(_) | Self::NotPermitted(_) => false,
            Self::Other { .. } => true,
        }
    }
}

/// Sockets at one port of our overlay addresses.
pub struct Sockets<S> {
    port: u16,
    target: SocketAddr,
    /// What is exposed listens on all addresses, or did when it was exposed. Its place is left free for it.
    is_everywhere: bool,
    places: BTreeMap<IpAddr, Place<S>>,
}

impl<S: Listening> Sockets<S> {
    /// None yet. `is_everywhere` if it is known from an earlier run that the target listens there itself.
    pub fn new(port: u16, target: SocketAddr, is_everywhere: bool) -> Self {
        Self {
            port,
            target,
            is_everywhere,
            places: BTreeMap::new(),
        }
    }

    /// Listens on these addresses and no others. Says what was refused; an address that cannot be had does not keep us from
    /// the others.
    pub fn fit(&mut self, addresses: &BTreeSet<IpAddr>) -> Vec<Refused> {
        self.places.retain(|address, _| addresses.contains(address));
        let mut refused = Vec::new();
        for &address in addresses {
            if self.places.contains_key(&address) {
                continue;
            }
            match self.open(SocketAddr::new(address, self.port)) {
                Ok(place) => drop(self.places.insert(address, place)),
                Err(error) => refused.push(error),
            }
        }
        refused
    }

    fn open(&mut self, at: SocketAddr) -> Result<Place<S>, Refused> {
        // Our own listener would connect to itself.
        if at == self.target
            || self.is_everywhere && !is_missed(at, &S::others().unwrap_or_default())
        {
            return Ok(Place::Its);
        }
        match S::open(at) {
            Ok(socket) => Ok(Place::Ours(socket)),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                let others = S::others().unwrap_or_default();
                match serves_itself(at, self.target, &others) {
                    true => Ok(Place::Its),
                    false => Err(Refused::Taken(at)),
                }
            }
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                Err(Refused::NotPermitted(at.port()))
            }
            Err(error) => Err(Refused::Other { at, error }),
        }
    }

    /// Our sockets.
    pub fn ours(&self) -> impl Iterator<Item = &S> {
        self.places.values().filter_map(|place| match place {
            Place::Ours(socket) => Some(socket),
            Place::Its => None,
        })
    }

    /// Whether members reach what is exposed without us, at one of the addresses at least.
    pub fn serve_themselves(&self) -> bool {
        let mut places = self.places.values();
        places.any(|place| matches!(place, Place::Its))
    }

    /// Whether anything is to be reached at this address.
    pub fn include(&self, address: IpAddr) -> bool {
        self.places.contains_key(&address)
    }

    /// Whether nothing is to be reached.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }
}

/// Whether a program that listens everywhere does so in the other family only. One that does not run is not there yet.
fn is_missed(at: SocketAddr, others: &[SocketAddr]) -> bool {
    let mut everywhere = others
        .iter()
        .filter(|other| other.port() == at.port() && other.ip().is_unspecified())
        .peekable();
    everywhere.peek().is_some() && everywhere.all(|other| other.is_ipv4() && at.is_ipv6())
}

/// Whether what listens at `at` is what listens at `target`: it is bound to all addresses, and nothing to the target's own.
fn serves_itself(at: SocketAddr, target: SocketAddr, others: &[SocketAddr]) -> bool {
    let is_there = |other: &SocketAddr| other.port() == at.port() && other.ip() == at.ip();
    let is_everywhere =
        |other: &SocketAddr| other.port() == at.port() && other.ip().is_unspecified();
    target.port() == at.port()
        && target.ip().is_loopback()
        && !others.contains(&target)
        && others.iter().any(is_everywhere)
        && !others.iter().any(is_there)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_program_on_all_addresses_serves_itself_and_others_do_not() {
        let overlay = at("10.77.0.1:8000");
        let target = at("127.0.0.1:8000");
        let serves = |target, others: &[&str]| {
            let others: Vec<_> = others.iter().map(|text| at(text)).collect();
            serves_itself(overlay, target, &others)
        };
        assert!(serves(target, &["0.0.0.0:8000"]));
        assert!(serves(target, &["[::]:8000"]));
        assert!(!serves(target, &["0.0.0.0:8001"]));
        assert!(!serves(at("127.0.0.1:9000"), &["0.0.0.0:8000"]));
        assert!(!serves(target, &["10.77.0.1:8000", "127.0.0.1:8000"]));
        assert!(!serves(target, &["10.77.0.1:8000", "0.0.0.0:8000"]));
        assert!(!serves(at("192.0.2.1:8000"), &["0.0.0.0:8000"]));
    }

    #[test]
    fn the_place_of_a_program_that_listens_everywhere_is_left_free_for_it() {
        let (ipv4, ipv6) = (at("10.77.0.1:8000"), at("[fd00::1]:8000"));
        assert!(!is_missed(ipv4, &[]) && !is_missed(ipv6, &[]));
        assert!(!is_missed(ipv4, &[at("0.0.0.0:8000")]));
        assert!(is_missed(ipv6, &[at("0.0.0.0:8000")]));
        assert!(!is_missed(ipv6, &[at("[::]:8000")]));
        assert!(!is_missed(ipv4, &[at("[::]:8000")]));
    }

    /// Loopback addresses stand in for those of the overlay.
    #[tokio::test]
    async fn sockets_follow_our_addresses() {
        let free = std::net::TcpListener::bind("127.0.0.3:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let address = |last: u8| IpAddr::from([127, 0, 0, last]);
        let mut sockets = Sockets::<TcpListener>::new(port, at("127.0.0.1:1"), false);
        assert!(sockets.fit(&[address(3), address(4)].into()).is_empty());
        assert_eq!(sockets.ours().count(), 2);
        assert!(sockets.fit(&[address(4), address(5)].into()).is_empty());
        let open: Vec<_> = sockets.ours().map(|s| s.local_addr().unwrap()).collect();
        assert_eq!(
            open,
            [
                SocketAddr::new(address(4), port),
                SocketAddr::new(address(5), port)
            ]
        );
        std::net::TcpListener::bind((address(3), port)).expect("it was given back");
    }

    #[tokio::test]
    async fn a_target_that_listens_everywhere_is_left_alone_and_another_program_is_a_conflict() {
        let server = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
        let port = server.local_addr().unwrap().port();
        let overlay = IpAddr::from([127, 0, 0, 3]);
        let target = SocketAddr::from(([127, 0, 0, 1], port));
        let mut sockets = Sockets::<TcpListener>::new(port, target, false);
        assert!(sockets.fit(&[overlay].into()).is_empty());
        assert!(sockets.serve_themselves());
        assert_eq!(sockets.ours().count(), 0);

        let mut sockets = Sockets::<TcpListener>::new(port, at("127.0.0.1:1"), false);
        let refused = sockets.fit(&[overlay].into());
        assert!(matches!(refused[..], [Refused::Taken(_)]), "{refused:?}");
        assert!(refused[0].to_string().contains("--port"));
        assert!(sockets.is_empty());
    }
}
