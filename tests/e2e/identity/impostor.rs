//! A member with a program of its own: valid keys, the network's secret, and no scruples about addresses.
//!
//! It is our own core, told that any address is ours and that any address is the victim's.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::Path as FilePath;
use std::time::{Duration, Instant};

use base64::Engine;
use hivevpn::identity::random_bytes;
use hivevpn::store::Store;
use hivevpn_core::membership::Network;
use hivevpn_core::path::{Path, PathKind};
use hivevpn_core::peer::PeerKeys;
use hivevpn_core::session::{Identity, WireGuardKey};
use hivevpn_core::tunnels::{OverlayAddresses, Tunnels};
use libp2p::PeerId;

use crate::lab::Host;

/// In every ping, to be recognised.
pub const MARKER: &[u8] = b"forged by a member";

/// How long an answer is waited for. Behind the first ping come two handshakes and an exchange of keys.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often the tunnel's timers run.
const TICK: Duration = Duration::from_millis(50);
/// The longest datagram.
const BUFFER: usize = 2048;

/// A tunnel in the name of a member that does not run.
pub struct Impostor {
    tunnels: Tunnels,
    socket: UdpSocket,
    victim: PeerKeys,
    target: SocketAddr,
}

impl Impostor {
    /// Takes the keys of the node that ran on `host`, and connects to the one that runs on `victim`.
    pub fn connect(host: &Host, victim: &Host) -> Self {
        Self::connect_with(host, victim, "state")
    }

    /// The same where the victim's state is elsewhere in its directory.
    pub fn connect_with(host: &Host, victim: &Host, state: &str) -> Self {
        let network = network(&host.directory().join("state"));
        let identity = identity(&host.directory().join("state"));
        let nobody = OverlayAddresses {
            ipv4: None,
            ipv6: Ipv6Addr::UNSPECIFIED,
        };
        let keyring = network.keyring(identity, random_bytes());
        let target = SocketAddr::new(victim.address(), 7777);
        let socket = host.here(move || UdpSocket::bind("0.0.0.0:7777").unwrap());
        socket.set_read_timeout(Some(TICK)).unwrap();
        Self {
            tunnels: Tunnels::new(nobody, keyring, 1420, 0, Instant::now()),
            socket,
            victim: PeerKeys {
                id: PeerId::random(),
                key: wireguard_key(&victim.directory().join(state)),
                ipv4: None,
                ipv6: Ipv6Addr::LOCALHOST,
            },
            target,
        }
    }

    /// Sends an echo request from `source`; whether an answer comes to us.
    pub fn ping(&mut self, source: IpAddr, target: IpAddr) -> bool {
        self.claim(source, target);
        let packet = echo_request(source, target);
        let begun = Instant::now();
        self.tunnels.handle_overlay_packet(&packet, begun);
        let mut datagram = [0; BUFFER];
        while begun.elapsed() < PATIENCE {
            self.send();
            if let Ok((length, from)) = self.socket.recv_from(&mut datagram) {
                let path = Path::Direct(from);
                self.tunnels
                    .handle_datagram(path, &datagram[..length], Instant::now());
            }
            self.tunnels.handle_timeout(Instant::now());
            if self.is_answered() {
                return true;
            }
        }
        false
    }

    /// Makes our core believe that `source` is ours and `target` the victim's.
    fn claim(&mut self, source: IpAddr, target: IpAddr) {
        let mut us = OverlayAddresses {
            ipv4: None,
            ipv6: Ipv6Addr::UNSPECIFIED,
        };
        match source {
            IpAddr::V4(source) => us.ipv4 = Some(source),
            IpAddr::V6(source) => us.ipv6 = source,
        }
        self.tunnels.set_addresses(us);
        match target {
            IpAddr::V4(target) => self.victim.ipv4 = Some(target),
            IpAddr::V6(target) => self.victim.ipv6 = target,
        }
        self.tunnels.upsert(self.victim);
        let (path, now) = (Path::Direct(self.target), Instant::now());
        self.tunnels
            .open_path(&self.victim.id, path, PathKind::Direct, now);
    }

    fn send(&mut self) {
        for (path, datagram) in self.tunnels.outbox().datagrams() {
            if let Path::Direct(to) = path {
                self.socket.send_to(datagram, to).unwrap();
            }
        }
        self.tunnels.outbox().clear();
    }

    fn is_answered(&mut self) -> bool {
        let is_ours = |packet: &[u8]| packet.windows(MARKER.len()).any(|part| part == MARKER);
        let answered = self.tunnels.inbox().iter().any(is_ours);
        self.tunnels.inbox().clear();
        answered
    }
}

/// The network that a node was in, secret included.
fn network(state: &FilePath) -> Network {
    let stored = Store::open(state).unwrap().membership().unwrap();
    Network::decode(&stored.expect("it was a member").network).unwrap()
}

fn identity(state: &FilePath) -> Identity {
    let text = std::fs::read_to_string(state.join("wg.key")).unwrap();
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(text.trim())
        .unwrap();
    Identity::new(bytes.try_into().unwrap())
}

fn wireguard_key(state: &FilePath) -> WireGuardKey {
    identity(state).public()
}

/// An ICMP echo request with [`MARKER`] in it.
fn echo_request(source: IpAddr, target: IpAddr) -> Vec<u8> {
    match (source, target) {
        (IpAddr::V4(source), IpAddr::V4(target)) => {
            let icmp = icmp(8, &[]);
            let length = u16::try_from(20 + icmp.len()).unwrap();
            let mut header = [
                &[0x45, 0][..],
                &length.to_be_bytes(),
                &[0, 0, 0, 0, 64, 1, 0, 0],
            ]
            .concat();
            header.extend(source.octets());
            header.extend(target.octets());
            let sum = checksum(&header);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            [header, icmp].concat()
        }
        (IpAddr::V6(source), IpAddr::V6(target)) => {
            let length = u16::try_from(8 + MARKER.len()).unwrap().to_be_bytes();
            let addresses = [source.octets(), target.octets()].concat();
            let pseudo = [&addresses[..], &[0, 0], &length, &[0, 0, 0, 58]].concat();
            [
                &[0x60, 0, 0, 0],
                &length[..],
                &[58, 64],
                &addresses,
                &icmp(128, &pseudo),
            ]
            .concat()
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {
            panic!("two families in one packet")
        }
    }
}

/// An ICMP message of this type, its checksum over `pseudo` too (RFC 4443, section 2.3).
fn icmp(kind: u8, pseudo: &[u8]) -> Vec<u8> {
    let mut message = [&[kind, 0, 0, 0, 0, 7, 0, 1], MARKER].concat();
    let sum = checksum(&[pseudo, &message].concat());
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes
        .chunks(2)
        .map(|word| u32::from(word[0]) << 8 | word.get(1).map_or(0, |&low| u32::from(low)));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap()
}
