//! A member with a program of its own: valid WireGuard keys, and no scruples about addresses.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use base64::Engine;
use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519::{PublicKey, StaticSecret};

use crate::lab::Host;

/// In every ping, to be recognised.
pub const MARKER: &[u8] = b"forged by a member";

/// Room for a sealed packet and for what boringtun wants beside it.
const BUFFER: usize = 2048;

/// A WireGuard session in the name of a member that does not run.
pub struct Impostor {
    tunnel: Tunn,
    socket: UdpSocket,
}

impl Impostor {
    /// Takes the keys of the node that ran on `host`, and connects to the one that runs on `victim`.
    pub fn connect(host: &Host, victim: &Host) -> Self {
        Self::connect_with(host, victim, "state")
    }

    /// The same where the victim's state is elsewhere in its directory.
    pub fn connect_with(host: &Host, victim: &Host, state: &str) -> Self {
        let theirs = PublicKey::from(&secret(victim, state));
        let tunnel = Tunn::new(secret(host, "state"), theirs, None, None, 1, None);
        let target = SocketAddr::new(victim.address(), 7777);
        let socket = host.here(move || {
            let socket = UdpSocket::bind("0.0.0.0:7777").unwrap();
            socket.connect(target).unwrap();
            socket
        });
        socket
            .set_read_timeout(Some(Duration::from_secs(1)))
            .unwrap();
        Self { tunnel, socket }
    }

    /// Sends an echo request from `source`; whether an answer comes to us.
    pub fn ping(&mut self, source: IpAddr, target: IpAddr) -> bool {
        let packet = echo_request(source, target);
        let mut sealed = [0; BUFFER];
        // The first packet waits in the tunnel for the handshake, which it causes.
        if let TunnResult::WriteToNetwork(datagram) = self.tunnel.encapsulate(&packet, &mut sealed)
        {
            self.socket.send(datagram).unwrap();
        }
        let mut datagram = [0; BUFFER];
        while let Ok(length) = self.socket.recv(&mut datagram) {
            if self.opens(&datagram[..length]) {
                return true;
            }
        }
        false
    }

    /// Whether a datagram carries an echo reply. Sends what the handshake has to say.
    fn opens(&mut self, datagram: &[u8]) -> bool {
        let (mut datagram, mut buffer) = (datagram, [0; BUFFER]);
        loop {
            match self.tunnel.decapsulate(None, datagram, &mut buffer) {
                TunnResult::WriteToNetwork(answer) => {
                    self.socket.send(answer).unwrap();
                    datagram = &[]; // asks for what else there is to send
                }
                TunnResult::WriteToTunnelV4(packet, _) | TunnResult::WriteToTunnelV6(packet, _) => {
                    return packet.windows(MARKER.len()).any(|window| window == MARKER);
                }
                TunnResult::Done | TunnResult::Err(_) => return false,
            }
        }
    }
}

/// The WireGuard secret of the node on a host.
fn secret(host: &Host, state: &str) -> StaticSecret {
    let path = host.directory().join(state).join("wg.key");
    let text = std::fs::read_to_string(path).unwrap();
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(text.trim())
        .unwrap();
    StaticSecret::from(<[u8; 32]>::try_from(bytes).unwrap())
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
