//! The underlay socket: datagrams in batches.
//!
//! One [`UdpSocket`] per address family carries everything hivevpn says to the outside: libp2p's QUIC and raw
//! WireGuard datagrams on the same port. System calls dominate the cost of a datagram, so both directions work in
//! bulk:
//!
//! - **Receiving**: one call fills a [`RecvBatch`] with several messages, and the kernel may have glued many equally
//!   sized datagrams of one sender into each (generic receive offload, GRO). [`Received::datagrams`] cuts them apart.
//! - **Sending**: a [`Transmit`] with a `segment_size` is a run of equally sized datagrams that the kernel cuts apart
//!   (generic segmentation offload, GSO); a [`SendBatch`] takes single datagrams to many endpoints.
//!
//! The socket never blocks and never lets the IP layer fragment: a datagram that is too big for the path is an error,
//! not a slow success.

mod send_batch;

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::slice;
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use nix::errno::Errno;
use quinn_udp::UdpSocketState;
pub use quinn_udp::{EcnCodepoint, RecvMeta, Transmit};
pub use send_batch::SendBatch;
use socket2::{Domain, Protocol, Socket, Type};

/// Bytes of kernel memory asked for in each direction of each socket.
///
/// The usual 212 KB hold three GRO messages: a burst that arrives while the loop is busy sealing would be lost. 7 MiB
/// are about 10 ms at 5 Gbit/s. The kernel takes memory only for what is really queued.
const SOCKET_BUFFER: usize = 7 * 1024 * 1024;

/// Messages taken from the kernel in one call. More buys nothing measurable and costs [`MESSAGE_SIZE`] each.
const MESSAGES: usize = 8;

/// Room for one message: the biggest UDP payload, and the most the kernel glues together under GRO.
const MESSAGE_SIZE: usize = 64 * 1024;

/// Why a socket could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum UdpError {
    /// Another socket has the port.
    #[error(
        "UDP port {port} on {ip} is already in use: stop the program that holds it \
         (`ss -lunp 'sport = :{port}'` names it) or choose another port",
        port = .0.port(), ip = .0.ip()
    )]
    PortTaken(SocketAddr),
    /// Ports below 1024 (Linux: `net.ipv4.ip_unprivileged_port_start`) are for privileged processes.
    #[error("no permission to use UDP port {port}: choose a port above 1023 or run as root", port = .0.port())]
    PortPrivileged(SocketAddr),
    /// No interface has the address.
    #[error("cannot listen on {ip}: no interface of this machine has that address", ip = .0.ip())]
    NotOurAddress(SocketAddr),
    /// IPv6 (or IPv4) is turned off.
    #[error("cannot listen on {0}: this system has that address family turned off")]
    FamilyUnavailable(SocketAddr),
    /// Anything else.
    #[error("cannot set up the UDP socket {address}")]
    Io {
        /// The address asked for.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

impl UdpError {
    fn new(address: SocketAddr, source: io::Error) -> Self {
        match source.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EADDRINUSE) => Self::PortTaken(address),
            Some(Errno::EACCES) => Self::PortPrivileged(address),
            Some(Errno::EADDRNOTAVAIL) => Self::NotOurAddress(address),
            Some(Errno::EAFNOSUPPORT) => Self::FamilyUnavailable(address),
            Some(_) | None => Self::Io { address, source },
        }
    }
}

/// A bound, non-blocking UDP socket.
///
/// All methods take `&self` and may be called from several threads at once.
#[derive(Debug)]
pub struct UdpSocket {
    socket: std::net::UdpSocket,
    /// What the kernel turned out to support. Shared by all handles: one that learns that GSO fails tells the others.
    state: Arc<UdpSocketState>,
    /// Whether to exchange runs of datagrams with the kernel, where it can.
    offload: bool,
    /// Whether [`send_run`](Self::send_run) has the kernel cut runs. Shared by all handles.
    cuts: Arc<AtomicBool>,
}

impl UdpSocket {
    /// Binds `address`; port 0 lets the kernel choose. An IPv6 socket carries no IPv4: each family has its own socket.
    pub fn bind(address: SocketAddr) -> Result<Self, UdpError> {
        Self::open(address).map_err(|source| UdpError::new(address, source))
    }

    fn open(address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(
            Domain::for_address(address),
            Type::DGRAM,
            Some(Protocol::UDP),
        )?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        enlarge_buffers(&socket)?;
        socket.bind(&address.into())?;
        let socket = std::net::UdpSocket::from(socket);
        let state = UdpSocketState::new((&socket).into())?;
        log_buffers(&socket)?;
        Ok(Self {
            socket,
            cuts: Arc::new(AtomicBool::new(state.max_gso_segments() > 1)),
            state: Arc::new(state),
            offload: true,
        })
    }

    /// Has every datagram cross the kernel's border on its own: slow, for networks that mishandle runs of them.
    pub fn without_offload(mut self) -> io::Result<Self> {
        self.offload = false;
        self.cuts.store(false, Ordering::Relaxed);
        #[cfg(target_os = "linux")]
        nix::sys::socket::setsockopt(
            &self.socket,
            nix::sys::socket::sockopt::UdpGroSegment,
            &false,
        )?;
        Ok(self)
    }

    /// The address bound to, with the port the kernel chose.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// A second handle on the same socket, with a descriptor of its own (so that it can be registered with another
    /// reactor).
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            socket: self.socket.try_clone()?,
            state: Arc::clone(&self.state),
            offload: self.offload,
            cuts: Arc::clone(&self.cuts),
        })
    }

    /// Fills `batch` with what has arrived and returns the number of messages in it.
    ///
    /// Fails with [`io::ErrorKind::WouldBlock`] when nothing has arrived; the batch is then empty.
    pub fn recv(&self, batch: &mut RecvBatch) -> io::Result<usize> {
        batch.filled = 0;
        let mut buffers = batch.arena.chunks_exact_mut(MESSAGE_SIZE);
        let mut slices: [IoSliceMut<'_>; MESSAGES] =
            std::array::from_fn(|_| IoSliceMut::new(buffers.next().unwrap_or_default()));
        batch.filled = self
            .state
            .recv((&self.socket).into(), &mut slices, &mut batch.meta)?;
        Ok(batch.filled)
    }

    /// Sends one datagram, or a run of datagrams of `segment_size` bytes each (the last may be shorter).
    ///
    /// The run should have at most [`max_gso_segments`](Self::max_gso_segments) datagrams and 65 000 bytes. When the
    /// interface turns out to refuse segmentation, the run goes out datagram by datagram.
    ///
    /// Errors concern this transmit only and leave the socket usable. [`io::ErrorKind::WouldBlock`]: the send buffer
    /// is full, nothing was sent. `EMSGSIZE`: too big for the path. `ENETUNREACH` and friends: no route at the moment.
    pub fn send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        if is_run(transmit) && self.max_gso_segments() == 1 {
            return self.send_one_by_one(transmit);
        }
        match self.state.try_send((&self.socket).into(), transmit) {
            Err(error) if is_run(transmit) && refuses_segmentation(&error) => {
                self.send_one_by_one(transmit)
            }
            result => result,
        }
    }

    /// Like [`send`](Self::send), but only `WouldBlock` is an error: a datagram that cannot be sent counts as lost on
    /// the way.
    ///
    /// This is what quinn needs: it closes a connection on any other error, though the network may be back in a
    /// second.
    pub fn send_lossy(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        match self.send(transmit) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                tracing::trace!(destination = %transmit.destination, %error, "datagram not sent");
                Ok(())
            }
            result => result,
        }
    }

    /// Whether runs are best given to [`send_run`](Self::send_run). May become false at any time.
    pub fn cuts_runs(&self) -> bool {
        self.cuts.load(Ordering::Relaxed)
    }

    /// Sends a run of datagrams of `segment` bytes each (the last may be shorter): at most 64, at most 65 000 bytes.
    ///
    /// Unlike [`send`](Self::send) it can tell a run of datagrams that are too big for the interface, which says nothing
    /// of other runs, from an interface that takes none. Errors concern this run only.
    pub fn send_run(&self, to: SocketAddr, run: &[u8], segment: usize) -> io::Result<()> {
        let Err(errno) = self.send_cut(to, run, segment) else {
            return Ok(());
        };
        if !matches!(
            errno,
            Errno::EINVAL | Errno::EIO | Errno::EMSGSIZE | Errno::EOPNOTSUPP
        ) {
            return Err(errno.into());
        }
        let is_too_big = self.send_pieces(to, run, segment)?;
        if !is_too_big && self.cuts.swap(false, Ordering::Relaxed) {
            tracing::info!(
                error = %errno, %to,
                "an interface takes no runs of datagrams: a datagram costs more from now on"
            );
        }
        Ok(())
    }

    #[cfg(target_os = "linux")]
    fn send_cut(&self, to: SocketAddr, run: &[u8], segment: usize) -> nix::Result<()> {
        use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrStorage, sendmsg};

        let segment = u16::try_from(segment).map_err(|_| Errno::EMSGSIZE)?;
        sendmsg(
            self.socket.as_raw_fd(),
            &[IoSlice::new(run)],
            &[ControlMessage::UdpGsoSegments(&segment)],
            MsgFlags::empty(),
            Some(&SockaddrStorage::from(to)),
        )
        .map(drop)
    }

    #[cfg(not(target_os = "linux"))]
    fn send_cut(&self, _: SocketAddr, _: &[u8], _: usize) -> nix::Result<()> {
        Err(Errno::EOPNOTSUPP)
    }

    /// Returns whether one of them was too big. `WouldBlock` is reported only while nothing has been sent.
    fn send_pieces(&self, to: SocketAddr, run: &[u8], segment: usize) -> io::Result<bool> {
        let mut is_too_big = false;
        for (index, piece) in run.chunks(segment.max(1)).enumerate() {
            match self.socket.send_to(piece, to) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && index > 0 => break,
                Err(error) if error.raw_os_error() == Some(Errno::EMSGSIZE as i32) => {
                    is_too_big = true;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(is_too_big)
    }

    /// `WouldBlock` is reported only while nothing has been sent, so that a retry does not duplicate.
    fn send_one_by_one(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let segment_size = transmit
            .segment_size
            .unwrap_or(transmit.contents.len())
            .max(1);
        for (index, contents) in transmit.contents.chunks(segment_size).enumerate() {
            let single = Transmit {
                contents,
                segment_size: None,
                ..transmit.clone()
            };
            match self.state.try_send((&self.socket).into(), &single) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && index > 0 => {
                    return Ok(());
                }
                result => result?,
            }
        }
        Ok(())
    }

    /// How many datagrams one [`Transmit`] may carry; 1 when the system or the interface has no GSO. May fall at any
    /// time.
    pub fn max_gso_segments(&self) -> usize {
        if self.offload {
            self.state.max_gso_segments()
        } else {
            1
        }
    }

    /// How many datagrams one [`Received`] may carry at most; 1 when the system has no GRO.
    pub fn max_gro_segments(&self) -> usize {
        if self.offload {
            self.state.gro_segments()
        } else {
            1
        }
    }

    /// Whether the system cannot be kept from fragmenting datagrams, which makes path MTU probes meaningless.
    pub fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }
}

impl AsFd for UdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// For tokio's `AsyncFd`, which has not moved to [`AsFd`].
impl AsRawFd for UdpSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// More than one datagram in the transmit?
fn is_run(transmit: &Transmit<'_>) -> bool {
    transmit
        .segment_size
        .is_some_and(|size| size < transmit.contents.len())
}

/// An interface without checksum offload answers a segmented send with `EIO`, some drivers with `EINVAL`.
fn refuses_segmentation(error: &io::Error) -> bool {
    let code = error.raw_os_error().map(Errno::from_raw);
    matches!(code, Some(Errno::EIO | Errno::EINVAL))
}

/// Past the system's limit when we are allowed to, else up to it.
#[cfg(target_os = "linux")]
fn enlarge_buffers(socket: &Socket) -> io::Result<()> {
    use nix::sys::socket::{setsockopt, sockopt};

    if setsockopt(socket, sockopt::RcvBufForce, &SOCKET_BUFFER).is_err() {
        socket.set_recv_buffer_size(SOCKET_BUFFER)?;
    }
    if setsockopt(socket, sockopt::SndBufForce, &SOCKET_BUFFER).is_err() {
        socket.set_send_buffer_size(SOCKET_BUFFER)?;
    }
    Ok(())
}

/// Other systems refuse a size above their limit altogether: keep their default then.
#[cfg(not(target_os = "linux"))]
fn enlarge_buffers(socket: &Socket) -> io::Result<()> {
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
    Ok(())
}

fn log_buffers(socket: &std::net::UdpSocket) -> io::Result<()> {
    // Linux reports twice what was asked for: the other half is its own bookkeeping.
    let share = if cfg!(target_os = "linux") { 2 } else { 1 };
    let reference = socket2::SockRef::from(socket);
    let receive = reference.recv_buffer_size()? / share;
    let send = reference.send_buffer_size()? / share;
    let address = socket.local_addr()?;
    if receive.min(send) >= SOCKET_BUFFER {
        tracing::info!(%address, receive_bytes = receive, send_bytes = send, "listening for datagrams");
    } else {
        tracing::info!(
            %address, receive_bytes = receive, send_bytes = send, wanted_bytes = SOCKET_BUFFER,
            "listening for datagrams with small socket buffers: expect loss in bursts; grant CAP_NET_ADMIN or raise \
             net.core.rmem_max and net.core.wmem_max"
        );
    }
    Ok(())
}

/// Buffers for one [`UdpSocket::recv`], allocated once and reused. Memory becomes resident as far as it is ever filled.
pub struct RecvBatch {
    arena: Vec<u8>,
    meta: [RecvMeta; MESSAGES],
    filled: usize,
}

impl RecvBatch {
    /// An empty batch.
    #[expect(
        clippy::new_without_default,
        reason = "half a megabyte is not something to make in passing"
    )]
    pub fn new() -> Self {
        Self {
            arena: vec![0; MESSAGES * MESSAGE_SIZE],
            meta: [RecvMeta::default(); MESSAGES],
            filled: 0,
        }
    }

    /// Number of messages received last.
    pub fn len(&self) -> usize {
        self.filled
    }

    /// Whether the last receive brought nothing.
    pub fn is_empty(&self) -> bool {
        self.filled == 0
    }

    /// The messages received last, in order of arrival.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Received<'_>> {
        let messages = self.meta.iter().zip(self.arena.chunks_exact(MESSAGE_SIZE));
        messages.take(self.filled).map(|(meta, buffer)| Received {
            from: meta.addr,
            local_ip: meta.dst_ip,
            ecn: meta.ecn,
            stride: meta.stride,
            bytes: buffer.get(..meta.len).unwrap_or(buffer),
        })
    }
}

/// One message: one or more datagrams of one sender.
#[derive(Clone, Copy, Debug)]
pub struct Received<'a> {
    /// The sender.
    pub from: SocketAddr,
    /// Our address the datagrams were sent to, where the system tells: an answer should come from it.
    pub local_ip: Option<IpAddr>,
    /// Congestion mark of all the datagrams.
    pub ecn: Option<EcnCodepoint>,
    /// Size of each datagram but the last, which may be shorter.
    pub stride: usize,
    /// The datagrams back to back.
    pub bytes: &'a [u8],
}

impl<'a> Received<'a> {
    /// The single datagrams. An empty datagram yields none: nothing we speak uses them.
    pub fn datagrams(&self) -> slice::Chunks<'a, u8> {
        self.bytes.chunks(self.stride.max(1))
    }
}

#[cfg(test)]
mod tests;
