//! One UDP port, two readers.
//!
//! The node's UDP port carries WireGuard datagrams and QUIC. The data loop owns receiving: it reads
//! batches, keeps what is WireGuard's and pushes the rest into a [`QuicInbox`]. [`SharedSocket`] is
//! what quinn takes for its socket: it receives from that inbox and sends straight through a clone of
//! the same UDP socket, so both kinds of traffic leave by one port and share one NAT mapping.
//!
//! Nobody waits for anybody. The inbox is bounded and pushing never blocks: when quinn falls behind,
//! datagrams are lost as on any network, and QUIC recovers. A failing send is a lost datagram too: a
//! route that is gone for a second must not cost the connections that would outlive it.

use std::{
    fmt,
    io::{self, IoSliceMut},
    net::{IpAddr, SocketAddr},
    os::fd::AsFd,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use hivevpn_platform::udp::UdpSocket;
use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{EcnCodepoint, RecvMeta, Transmit},
};
use tokio::sync::mpsc;

/// Batches that wait for quinn, each up to a GRO buffer (64 KiB) large. Control traffic needs a few;
/// a transfer over a QUIC stream comes in bursts, which a shorter queue would drop. What it may cost is memory:
/// 64 MiB, when somebody floods us and quinn does not run at all.
const INBOX_BATCHES: usize = 1024;

/// How long to wait before trying to send again when the operating system cannot tell us (no file
/// descriptor left). Longer would stall every connection, shorter would spin.
const BLIND_RETRY: Duration = Duration::from_millis(5);

/// Received bytes for quinn: one datagram, or several of one sender in a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuicDatagram {
    /// Who sent it.
    pub from: SocketAddr,
    /// The address of ours that it was sent to, where the operating system tells.
    pub local_ip: Option<IpAddr>,
    /// Explicit congestion notification, where the operating system tells.
    pub ecn: Option<EcnCodepoint>,
    /// Length in bytes of each datagram in `bytes`; the last one may be shorter.
    pub stride: usize,
    /// The datagrams, back to back.
    pub bytes: Vec<u8>,
}

/// The sending half of a [`SharedSocket`]'s inbox, for the loop that receives.
#[derive(Clone, Debug)]
pub struct QuicInbox {
    datagrams: mpsc::Sender<QuicDatagram>,
    sent: Arc<AtomicU64>,
}

impl QuicInbox {
    /// Bytes that QUIC has sent so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Hands datagrams to quinn. Never blocks.
    ///
    /// `false` when they are lost: the inbox is full, or the transport is gone.
    pub fn push(&self, datagram: QuicDatagram) -> bool {
        self.datagrams.try_send(datagram).is_ok()
    }
}

/// The QUIC side of a UDP socket that somebody else reads.
pub struct SharedSocket {
    udp: UdpSocket,
    /// Only the endpoint's driver locks it.
    inbox: Mutex<mpsc::Receiver<QuicDatagram>>,
    /// The last send found the socket's buffer full.
    congested: AtomicBool,
    /// Bytes sent so far.
    sent: Arc<AtomicU64>,
}

impl SharedSocket {
    /// Sends through `udp`, receives what is pushed into the inbox.
    pub fn new(udp: UdpSocket) -> (Self, QuicInbox) {
        Self::with_inbox(udp, INBOX_BATCHES)
    }

    pub(super) fn with_inbox(udp: UdpSocket, batches: usize) -> (Self, QuicInbox) {
        let (datagrams, inbox) = mpsc::channel(batches);
        let sent = Arc::new(AtomicU64::new(0));
        let socket = Self {
            udp,
            inbox: Mutex::new(inbox),
            congested: AtomicBool::new(false),
            sent: Arc::clone(&sent),
        };
        (socket, QuicInbox { datagrams, sent })
    }

    /// Waits until the socket takes datagrams again.
    ///
    /// The registration with the reactor lives only as long as the wait. A lasting one would wake
    /// tokio for every datagram that the data loop sends: each that leaves frees buffer space, which
    /// is an edge to report.
    async fn writable(&self) {
        let outcome = match self.registered() {
            Ok(registered) => registered.writable().await,
            Err(error) => Err(error),
        };
        if let Err(error) = outcome {
            tracing::debug!(%error, "cannot wait for the UDP socket to be writable");
            tokio::time::sleep(BLIND_RETRY).await;
        }
        self.congested.store(false, Ordering::Relaxed);
    }

    fn registered(&self) -> io::Result<tokio::net::UdpSocket> {
        let fd = self.udp.as_fd().try_clone_to_owned()?;
        tokio::net::UdpSocket::from_std(fd.into())
    }
}

#[cfg(test)]
impl SharedSocket {
    /// As if the last send had found the buffer full: the loopback interface never lets it come to that.
    pub(super) fn pretend_congestion(&self, congested: bool) {
        self.congested.store(congested, Ordering::Relaxed);
    }

    pub(super) fn is_congested(&self) -> bool {
        self.congested.load(Ordering::Relaxed)
    }
}

impl AsyncUdpSocket for SharedSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(SendPoller {
            socket: self,
            wait: None,
        })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let outcome = self.udp.send_lossy(transmit);
        self.sent
            .fetch_add(transmit.contents.len() as u64, Ordering::Relaxed);
        if let Err(error) = &outcome
            && error.kind() == io::ErrorKind::WouldBlock
        {
            self.congested.store(true, Ordering::Relaxed);
        }
        outcome
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        let mut filled = 0;
        while filled < buffers.len().min(metas.len()) {
            // A closed inbox means that nothing will ever come: connections end by their idle timeout,
            // and until then can still say goodbye. To report it would end them unheard.
            let Poll::Ready(Some(datagram)) = inbox.poll_recv(cx) else {
                break;
            };
            if let Some(meta) = fill(&mut buffers[filled], &datagram) {
                metas[filled] = meta;
                filled += 1;
            }
        }
        if filled == 0 {
            return Poll::Pending;
        }
        Poll::Ready(Ok(filled))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.udp.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.udp.max_gso_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.udp.max_gro_segments()
    }

    fn may_fragment(&self) -> bool {
        self.udp.may_fragment()
    }
}

impl fmt::Debug for SharedSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedSocket")
            .field("local", &self.udp.local_addr().ok())
            .finish_non_exhaustive()
    }
}

/// Copies as many whole datagrams as fit. `None` if there are none.
///
/// quinn walks the buffer in steps of `stride` and would not end with a step of zero.
fn fill(buffer: &mut [u8], datagram: &QuicDatagram) -> Option<RecvMeta> {
    let QuicDatagram {
        from,
        local_ip,
        ecn,
        stride,
        ref bytes,
    } = *datagram;
    let stride = match stride {
        0 => bytes.len(),
        _ => stride.min(bytes.len()),
    };
    let len = if bytes.len() <= buffer.len() {
        bytes.len()
    } else {
        buffer.len() - buffer.len().checked_rem(stride)?
    };
    if len == 0 {
        return None;
    }
    buffer[..len].copy_from_slice(&bytes[..len]);
    Some(RecvMeta {
        addr: from,
        len,
        stride,
        ecn,
        dst_ip: local_ip,
    })
}

type Wait = Pin<Box<dyn Future<Output = ()> + Send + Sync>>;

/// One sender's turn to wait for room in the socket's buffer; there is one for each connection.
struct SendPoller {
    socket: Arc<SharedSocket>,
    wait: Option<Wait>,
}

impl UdpPoller for SendPoller {
    /// quinn asks before every send, so the answer is yes until a send has failed.
    fn poll_writable(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.wait.is_none() && !self.socket.congested.load(Ordering::Relaxed) {
            return Poll::Ready(Ok(()));
        }
        let Self { socket, wait } = &mut *self;
        let wait = wait.get_or_insert_with(|| {
            let socket = Arc::clone(socket);
            Box::pin(async move { socket.writable().await })
        });
        ready!(wait.as_mut().poll(cx));
        self.wait = None;
        Poll::Ready(Ok(()))
    }
}

impl fmt::Debug for SendPoller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendPoller")
            .field("waiting", &self.wait.is_some())
            .finish_non_exhaustive()
    }
}
