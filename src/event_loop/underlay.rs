//! Datagrams between the loop and the underlay's sockets and carriers.

use std::{
    collections::HashMap,
    io::{self, ErrorKind},
    net::SocketAddr,
    os::fd::AsFd,
    time::Duration,
};

use hivevpn_core::{connection::ConnectionId, datagram::is_wireguard, node::Node, path::Path};
use hivevpn_platform::{
    poll,
    udp::{Received, RecvBatch, Transmit, UdpSocket},
};

use crate::swarm::{
    Carrier,
    quic::{QuicDatagram, QuicInbox},
};

/// How long a full send buffer is waited for before a run of datagrams is dropped. UDP drains in microseconds; longer
/// means the link is down.
const SEND_PATIENCE: Duration = Duration::from_millis(5);

/// One UDP socket of the underlay, and where its QUIC goes.
pub struct Socket {
    /// Bound and non-blocking.
    pub udp: UdpSocket,
    /// QUIC's share of what arrives.
    pub quic: QuicInbox,
    is_ipv4: bool,
}

impl Socket {
    /// Of the family of the address that `udp` is bound to.
    pub fn new(udp: UdpSocket, quic: QuicInbox) -> io::Result<Self> {
        Ok(Self {
            is_ipv4: udp.local_addr()?.is_ipv4(),
            udp,
            quic,
        })
    }

    /// Hands what has arrived to QUIC, as long as nobody here knows what to do with WireGuard.
    pub fn feed_quic(&self, batch: &mut RecvBatch) {
        if self.udp.recv(batch).is_ok() {
            for received in batch.iter() {
                demultiplex(&self.quic, &received, |_| ());
            }
        }
    }

    fn send(&self, endpoint: SocketAddr, run: &[u8], segment: usize) {
        let transmit = Transmit {
            destination: endpoint,
            ecn: None,
            contents: run,
            segment_size: (run.len() > segment).then_some(segment),
            src_ip: None,
        };
        let mut sent = self.udp.send(&transmit);
        if matches!(&sent, Err(error) if error.kind() == ErrorKind::WouldBlock)
            && poll::wait_writable(self.udp.as_fd(), Some(SEND_PATIENCE)).unwrap_or(false)
        {
            sent = self.udp.send(&transmit);
        }
        if let Err(error) = sent {
            tracing::trace!(%endpoint, %error, "datagrams not sent");
        }
    }
}

/// Every WireGuard datagram to `wireguard`, everything else to QUIC.
pub(super) fn demultiplex(
    quic: &QuicInbox,
    received: &Received<'_>,
    mut wireguard: impl FnMut(&[u8]),
) {
    let mut rest = Vec::new();
    for datagram in received.datagrams() {
        if is_wireguard(datagram) {
            wireguard(datagram);
        } else {
            if rest.is_empty() {
                rest.reserve_exact(received.bytes.len());
            }
            rest.extend_from_slice(datagram);
        }
    }
    if !rest.is_empty() {
        // A full inbox loses datagrams as any network does.
        let _ = quic.push(QuicDatagram {
            from: received.from,
            local_ip: received.local_ip,
            ecn: received.ecn,
            stride: received.stride,
            bytes: rest,
        });
    }
}

/// Lets the sealed datagrams leave, each over its path.
pub(super) fn send_datagrams(
    node: &mut Node,
    sockets: &[Socket],
    carriers: &HashMap<ConnectionId, Carrier>,
) {
    for (path, run, segment) in node.outbox().runs() {
        match path {
            Path::Direct(endpoint) => {
                let of_family = |socket: &&Socket| socket.is_ipv4 == endpoint.is_ipv4();
                if let Some(socket) = sockets.iter().find(of_family) {
                    socket.send(endpoint, run, segment);
                }
            }
            Path::Carrier(connection) => {
                if let Some(carrier) = carriers.get(&connection) {
                    // Dropped and counted by the carrier: its queue is short on purpose.
                    let _ = carrier.try_send(run, segment);
                }
            }
        }
    }
    node.outbox().clear();
}
