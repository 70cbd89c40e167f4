//! Single datagrams, each to an endpoint of its own, in one system call.
//!
//! This is what remains when datagrams make no run: a node that talks to many peers at once, packets of many sizes, a
//! system without segmentation offload.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;

use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, sendmmsg};

use super::UdpSocket;

/// Datagrams of one call. With more the saving per datagram does not grow.
const DATAGRAMS: usize = 64;

/// Memory for sending, allocated once and reused.
pub struct SendBatch {
    headers: MultiHeaders<SockaddrStorage>,
    endpoints: Vec<Option<SockaddrStorage>>,
}

impl SendBatch {
    /// Room for one call.
    #[expect(
        clippy::new_without_default,
        reason = "it is memory to keep, not something to make in passing"
    )]
    pub fn new() -> Self {
        Self {
            headers: MultiHeaders::preallocate(DATAGRAMS, None),
            endpoints: Vec::with_capacity(DATAGRAMS),
        }
    }

    /// Sends the datagrams in order until one cannot be sent. Returns how many there were before that, at least one.
    ///
    /// Errors concern the first datagram only and leave the socket usable; they are those of [`UdpSocket::send`].
    pub fn send(
        &mut self,
        socket: &UdpSocket,
        datagrams: &[(SocketAddr, &[u8])],
    ) -> io::Result<usize> {
        let datagrams = &datagrams[..datagrams.len().min(DATAGRAMS)];
        self.endpoints.clear();
        self.endpoints.extend(
            datagrams
                .iter()
                .map(|(endpoint, _)| Some((*endpoint).into())),
        );
        let contents: [[IoSlice<'_>; 1]; DATAGRAMS] = std::array::from_fn(|at| {
            let bytes: &[u8] = datagrams.get(at).map_or(&[], |(_, bytes)| bytes);
            [IoSlice::new(bytes)]
        });
        let sent = sendmmsg(
            socket.as_raw_fd(),
            &mut self.headers,
            &contents[..datagrams.len()],
            &self.endpoints,
            [],
            MsgFlags::empty(),
        )?;
        Ok(sent.count())
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::os::fd::AsFd;
    use std::time::Duration;

    use super::*;
    use crate::poll;
    use crate::udp::RecvBatch;

    fn loopback() -> UdpSocket {
        UdpSocket::bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap()
    }

    /// The first byte of each of the next `count` datagrams.
    fn receive(socket: &UdpSocket, count: usize) -> Vec<u8> {
        let (mut batch, mut firsts) = (RecvBatch::new(), vec![]);
        while firsts.len() < count {
            let ready = poll::wait(&[socket.as_fd()], Some(Duration::from_secs(10))).unwrap();
            assert!(ready.contains(0), "{} of {count} arrived", firsts.len());
            socket.recv(&mut batch).unwrap();
            let datagrams = batch.iter().flat_map(|received| received.datagrams());
            firsts.extend(datagrams.map(|datagram| datagram[0]));
        }
        firsts
    }

    #[test]
    fn each_datagram_reaches_its_endpoint_in_order() {
        let (here, one, other) = (loopback(), loopback(), loopback());
        let contents: Vec<[u8; 9]> = (0..150).map(|number| [number; 9]).collect();
        let datagrams: Vec<(SocketAddr, &[u8])> = contents
            .iter()
            .enumerate()
            .map(|(number, bytes)| {
                let to = if number % 3 == 0 { &one } else { &other };
                (to.local_addr().unwrap(), &bytes[..1 + number % 9])
            })
            .collect();
        let mut batch = SendBatch::new();
        let mut rest = datagrams.as_slice();
        while !rest.is_empty() {
            let sent = batch.send(&here, rest).unwrap();
            rest = &rest[sent..];
        }
        let (to_one, to_other): (Vec<u8>, Vec<u8>) = (0..150).partition(|number| number % 3 == 0);
        assert_eq!(receive(&one, to_one.len()), to_one);
        assert_eq!(receive(&other, to_other.len()), to_other);
    }

    #[test]
    fn a_datagram_that_cannot_be_sent_stops_at_itself() {
        let (here, there) = (loopback(), loopback());
        let to = there.local_addr().unwrap();
        let too_big = vec![0; 65_536];
        let datagrams: [(SocketAddr, &[u8]); 3] = [(to, &[1]), (to, &too_big), (to, &[3])];
        let mut batch = SendBatch::new();
        assert_eq!(batch.send(&here, &datagrams).unwrap(), 1);
        assert!(batch.send(&here, &datagrams[1..]).is_err());
        assert_eq!(batch.send(&here, &datagrams[2..]).unwrap(), 1);
        assert_eq!(receive(&there, 2), [1, 3]);
    }
}
