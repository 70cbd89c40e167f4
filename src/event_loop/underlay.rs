//! Datagrams between the loop and the underlay's sockets and carriers.

use std::{
    collections::HashMap,
    io::{self, ErrorKind},
    net::SocketAddr,
    os::fd::AsFd,
    time::Duration,
};

use hivevpn_core::{connection::ConnectionId, datagram::is_for_the_core, node::Node, path::Path};
use hivevpn_platform::{
    poll,
    udp::{Received, RecvBatch, SendBatch, UdpSocket},
};

use crate::{
    reflect::wire::Token,
    swarm::{
        Carrier,
        quic::{QuicDatagram, QuicInbox},
    },
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
                demultiplex(&self.quic, &received, |_| (), |_| ());
            }
        }
    }

    /// Sends runs of datagrams: those that the kernel cuts up in one piece, single ones together.
    fn send<'a>(
        &self,
        runs: impl Iterator<Item = (SocketAddr, &'a [u8], usize)>,
        batch: &mut SendBatch,
    ) {
        let cuts = self.udp.cuts_runs();
        let mut singles = Vec::new();
        for (endpoint, run, segment) in runs {
            if cuts && run.len() > segment {
                self.send_each(&singles, batch);
                singles.clear();
                self.send_run(endpoint, run, segment);
            } else {
                singles.extend(run.chunks(segment).map(|datagram| (endpoint, datagram)));
            }
        }
        self.send_each(&singles, batch);
    }

    fn send_run(&self, endpoint: SocketAddr, run: &[u8], segment: usize) {
        if let Err(error) = self.patiently(|udp| udp.send_run(endpoint, run, segment)) {
            tracing::trace!(%endpoint, %error, "datagrams not sent");
        }
    }

    fn send_each(&self, datagrams: &[(SocketAddr, &[u8])], batch: &mut SendBatch) {
        let mut rest = datagrams;
        while let Some((endpoint, _)) = rest.first() {
            let gone = match self.patiently(|udp| batch.send(udp, rest)) {
                Ok(sent) => sent,
                Err(error) => {
                    tracing::trace!(%endpoint, %error, "a datagram not sent");
                    1
                }
            };
            rest = &rest[gone..];
        }
    }

    /// Tries once more when the send buffer was full.
    fn patiently<T>(&self, mut send: impl FnMut(&UdpSocket) -> io::Result<T>) -> io::Result<T> {
        let sent = send(&self.udp);
        let is_full = matches!(&sent, Err(error) if error.kind() == ErrorKind::WouldBlock);
        if is_full && poll::wait_writable(self.udp.as_fd(), Some(SEND_PATIENCE)).unwrap_or(false) {
            return send(&self.udp);
        }
        sent
    }
}

/// Every datagram of a tunnel to `wireguard`, every token to `token`, everything else to QUIC.
pub(super) fn demultiplex(
    quic: &QuicInbox,
    received: &Received<'_>,
    mut wireguard: impl FnMut(&[u8]),
    mut token: impl FnMut(Token),
) {
    let mut rest = Vec::new();
    for datagram in received.datagrams() {
        if is_for_the_core(datagram) {
            wireguard(datagram);
        } else if let Some(found) = Token::in_datagram(datagram) {
            token(found);
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

/// Lets the sealed datagrams leave, each over its path, those of one path in their order.
pub(super) fn send_datagrams(
    node: &mut Node,
    sockets: &[Socket],
    carriers: &HashMap<ConnectionId, Carrier>,
    batch: &mut SendBatch,
) {
    for socket in sockets {
        let of_family = |(path, run, segment): (Path, _, _)| match path {
            Path::Direct(to) | Path::Relayed { via: to, .. } => {
                (to.is_ipv4() == socket.is_ipv4).then_some((to, run, segment))
            }
            Path::Carrier(_) => None,
        };
        socket.send(node.outbox().runs().filter_map(of_family), batch);
    }
    for (path, run, segment) in node.outbox().runs() {
        if let Path::Carrier(connection) = path
            && let Some(carrier) = carriers.get(&connection)
        {
            // Dropped and counted by the carrier: its queue is short on purpose.
            let _ = carrier.try_send(run, segment);
        }
    }
    node.outbox().clear();
}
