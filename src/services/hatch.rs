//! Where datagrams of members to an exposed UDP service come in.

use std::{
    future::poll_fn,
    io,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    task::Poll,
};

use tokio::{io::ReadBuf, net::UdpSocket, time::Instant};

use super::{
    door::{RETRY, until},
    flows::{Flows, SWEEP},
    room::OF_ONE_MEMBER,
    scope::Scope,
    sockets::Sockets,
    splice::Buffer,
    standing::Standing,
};

/// A hatch, and the flows through it.
pub struct Hatch {
    sockets: Sockets<Arc<UdpSocket>>,
    scope: Scope,
    target: SocketAddr,
    standing: Arc<Standing>,
    flows: Flows,
}

impl Hatch {
    /// A hatch at sockets that may be open already.
    pub fn new(
        sockets: Sockets<Arc<UdpSocket>>,
        scope: Scope,
        target: SocketAddr,
        standing: Arc<Standing>,
    ) -> Self {
        Self {
            sockets,
            scope,
            target,
            standing,
            flows: Flows::default(),
        }
    }

    /// Serves, until it is dropped and every flow with it.
    pub async fn serve(mut self) {
        let mut retry = self.fit();
        let mut sweep = tokio::time::interval(SWEEP);
        let mut buffer = Buffer::take();
        loop {
            tokio::select! {
                (socket, received) = receive(&self.sockets, &mut buffer) => match received {
                    Ok((count, from)) => self.pass(&socket, from, &buffer[..count]).await,
                    Err(error) => tracing::trace!(%error, "receiving"),
                },
                () = self.scope.changed() => {
                    retry = self.fit();
                    self.sweep();
                }
                _ = sweep.tick() => self.sweep(),
                () = until(retry) => retry = self.fit(),
            }
            self.standing
                .carried
                .store(self.flows.len() as u64, Ordering::Relaxed);
        }
    }

    fn fit(&mut self) -> Option<Instant> {
        let refused = self.sockets.fit(&self.scope.addresses());
        self.standing.closed(&refused, !self.sockets.is_empty());
        (!refused.is_empty()).then(|| Instant::now() + RETRY)
    }

    fn sweep(&mut self) {
        let (scope, sockets) = (&self.scope, &self.sockets);
        self.flows
            .sweep(|from, here, _| sockets.include(here) && scope.guest(from, here).is_some());
    }

    async fn pass(&mut self, socket: &Arc<UdpSocket>, from: SocketAddr, datagram: &[u8]) {
        let Ok(here) = socket.local_addr() else {
            return;
        };
        let here = here.ip();
        if self.flows.destination(from, here).is_none() {
            let is_welcome =
                self.scope.guest(from, here).is_some() && self.flows.of(from.ip()) < OF_ONE_MEMBER;
            if !is_welcome {
                return;
            }
            let begun = self.flows.begin(from, here, socket.clone(), self.target);
            if let Err(error) = begun.await {
                tracing::debug!(%from, target = %self.target, %error, "no socket for a flow");
                return;
            }
        }
        if let Err(error) = self.flows.pass(from, here, datagram) {
            tracing::trace!(%from, target = %self.target, %error, "a datagram did not get through");
        }
    }
}

/// The next datagram at any of the sockets.
async fn receive(
    sockets: &Sockets<Arc<UdpSocket>>,
    buffer: &mut Buffer,
) -> (Arc<UdpSocket>, io::Result<(usize, SocketAddr)>) {
    poll_fn(|context| {
        for socket in sockets.ours() {
            let mut room = ReadBuf::new(buffer);
            if let Poll::Ready(received) = socket.poll_recv_from(context, &mut room) {
                let received = received.map(|from| (room.filled().len(), from));
                return Poll::Ready((socket.clone(), received));
            }
        }
        Poll::Pending
    })
    .await
}
