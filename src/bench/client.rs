//! The near end of a measurement, in the command's process.

use std::{
    cell::Cell,
    convert::Infallible,
    future::Future,
    io,
    net::{Ipv6Addr, SocketAddrV6},
    pin::{Pin, pin},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use futures::future::try_join_all;
use serde::Serialize;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream, UdpSocket},
    task::yield_now,
    time::{interval, sleep, timeout, timeout_at},
};

use super::{
    BLOCK, Meter, Place, ZEROS,
    echoes::{Echoes, Pinger},
    wire::{Errand, Header, Total},
};

/// How long the peer may take to be reached. The first packet may have to wait for a handshake.
const REACH: Duration = Duration::from_secs(5);
/// Echoes while the peer is being reached.
const REACH_EVERY: Duration = Duration::from_millis(250);
/// How long the idle tunnel is measured.
const IDLE: Duration = Duration::from_secs(1);
/// Echoes on the idle tunnel.
const IDLE_EVERY: Duration = Duration::from_millis(20);
/// Echoes under load: too few to be a load themselves.
const LOAD_EVERY: Duration = Duration::from_millis(50);
/// A stream that brings nothing for this long has broken.
const STALL: Duration = Duration::from_secs(5);
/// How often progress is shown.
const SHOW_EVERY: Duration = Duration::from_millis(100);

/// What is measured.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// How long each direction is measured, 1 to [`MAX_SECONDS`](super::MAX_SECONDS).
    pub seconds: u8,
    /// TCP streams at once, 1 to [`MAX_STREAMS`](super::MAX_STREAMS).
    pub streams: u8,
}

/// The parts of a measurement, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Echoes alone.
    Idle,
    /// Streams to the peer.
    Upload,
    /// Streams from the peer.
    Download,
}

/// How far a phase has come.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// Which.
    pub phase: Phase,
    /// From 0 to 1.
    pub done: f64,
    /// Throughput so far.
    pub mbit_s: Option<f64>,
}

/// What was measured in one direction.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Load {
    /// Megabits of TCP payload in a second, as the receiver counts them.
    pub mbit_s: f64,
    /// TCP payload that arrived.
    pub bytes: u64,
    /// Within this time.
    pub seconds: f64,
    /// Echoes meanwhile.
    #[serde(flatten)]
    pub echoes: Echoes,
}

/// Everything that was measured; what was not is absent.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Figures {
    /// The idle tunnel.
    pub idle: Option<Echoes>,
    /// Towards the peer.
    pub up: Option<Load>,
    /// From the peer.
    pub down: Option<Load>,
}

/// Why a measurement is not complete.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// The user has seen enough.
    #[error("stopped before everything was measured")]
    Stopped,
    /// A stream broke.
    #[error("the measurement broke off: {0:#}")]
    Broken(anyhow::Error),
}

/// A peer that waits for us.
pub struct Client {
    place: Place,
    plan: Plan,
    socket: UdpSocket,
    next_echo: u32,
    /// The peer goes on waiting as long as this stream is open.
    _hold: TcpStream,
}

impl Client {
    /// Goes to the place and comes back with an echo.
    pub async fn reach(place: Place, plan: Plan) -> Result<Self> {
        let hold = connect(&place, plan, Errand::Hold).await?;
        let mut client = Self {
            socket: connected_socket(&place)
                .await
                .with_context(|| format!("no UDP socket on our overlay address {}", place.own))?,
            place,
            plan,
            next_echo: 0,
            _hold: hold,
        };
        if timeout(REACH, client.pinger(REACH_EVERY).first())
            .await
            .is_err()
        {
            bail!(
                "TCP goes through the tunnel but UDP does not: does a firewall on either side stop it?"
            );
        }
        Ok(client)
    }

    /// Measures, until `stop`.
    pub async fn measure(
        &mut self,
        stop: impl Future<Output = ()>,
        show: impl Fn(Progress),
    ) -> (Figures, Result<(), Ended>) {
        let mut figures = Figures::default();
        let ended = self.fill_in(&mut figures, pin!(stop), &show).await;
        (figures, ended)
    }

    async fn fill_in(
        &mut self,
        figures: &mut Figures,
        mut stop: Pin<&mut impl Future<Output = ()>>,
        show: &impl Fn(Progress),
    ) -> Result<(), Ended> {
        let (idle, ended) = self.idle(stop.as_mut(), show).await;
        figures.idle = idle.loss_percent.map(|_| idle);
        ended?;
        let (up, ended) = self.load(Phase::Upload, stop.as_mut(), show).await;
        figures.up = up;
        ended?;
        let (down, ended) = self.load(Phase::Download, stop, show).await;
        figures.down = down;
        ended
    }

    fn pinger(&mut self, every: Duration) -> Pinger<'_> {
        Pinger::new(&self.socket, self.place.ticket, every, &mut self.next_echo)
    }

    async fn idle(
        &mut self,
        stop: Pin<&mut impl Future<Output = ()>>,
        show: &impl Fn(Progress),
    ) -> (Echoes, Result<(), Ended>) {
        let mut pinger = self.pinger(IDLE_EVERY);
        let ended = tokio::select! {
            () = sleep(IDLE) => Ok(()),
            () = stop => Err(Ended::Stopped),
            never = pinger.run() => match never {},
            never = keep_showing(Phase::Idle, IDLE, || None, show) => match never {},
        };
        if ended.is_ok() {
            pinger.settle().await;
        }
        (pinger.result(), ended)
    }

    async fn load(
        &mut self,
        phase: Phase,
        stop: Pin<&mut impl Future<Output = ()>>,
        show: &impl Fn(Progress),
    ) -> (Option<Load>, Result<(), Ended>) {
        let (place, plan) = (self.place, self.plan);
        let window = Duration::from_secs(plan.seconds.into());
        let totals = vec![Cell::new(Total::default()); plan.streams.into()];
        let so_far = || Some(mbit_s(sum(&totals))).filter(|rate| rate.is_finite());
        let mut pinger = self.pinger(LOAD_EVERY);
        let streams = try_join_all(totals.iter().map(|total| async move {
            if phase == Phase::Upload {
                upload(&place, plan, total).await
            } else {
                download(&place, plan, total).await
            }
        }));
        let ended = tokio::select! {
            done = streams => done.map(drop).map_err(Ended::Broken),
            () = stop => Err(Ended::Stopped),
            never = pinger.run() => match never {},
            never = keep_showing(phase, window, so_far, show) => match never {},
        };
        if ended.is_ok() {
            pinger.settle().await;
        }
        let total = sum(&totals);
        let load = (total.bytes > 0 && !total.elapsed.is_zero()).then(|| Load {
            mbit_s: round(mbit_s(total)),
            bytes: total.bytes,
            seconds: round(total.elapsed.as_secs_f64()),
            echoes: pinger.result(),
        });
        (load, ended)
    }
}

/// Sends as fast as the stream takes it, until the peer reports that the window is full.
async fn upload(place: &Place, plan: Plan, total: &Cell<Total>) -> Result<()> {
    let window = Duration::from_secs(plan.seconds.into());
    let mut stream = connect(place, plan, Errand::Upload).await?;
    // What still waits in the kernel at the end is of no use to anybody.
    stream.set_zero_linger()?;
    let (mut read, mut write) = stream.split();
    let send = async {
        loop {
            write.write_all(&ZEROS).await?;
            yield_now().await;
        }
    };
    let listen = async {
        let mut bytes = [0; Total::LENGTH];
        loop {
            let read = timeout(STALL, read.read_exact(&mut bytes)).await;
            read.map_err(|_| stalled())??;
            total.set(Total::decode(bytes));
            if total.get().elapsed >= window {
                return Ok(());
            }
        }
    };
    let broken: Result<Infallible, io::Error> = tokio::select! {
        done = listen => return done,
        broken = send => broken,
    };
    match broken? {}
}

/// Counts what comes within the window.
async fn download(place: &Place, plan: Plan, total: &Cell<Total>) -> Result<()> {
    let mut stream = connect(place, plan, Errand::Download).await?;
    stream.set_zero_linger()?;
    let mut meter = Meter::new(Duration::from_secs(plan.seconds.into()));
    let mut block = vec![0; BLOCK];
    while !meter.is_over() {
        let stall = Instant::now() + STALL;
        let deadline = meter.end().map_or(stall, |end| end.min(stall));
        match timeout_at(deadline.into(), stream.read(&mut block)).await {
            Ok(count) => {
                let count = count?;
                ensure!(count > 0, "the peer ended the stream");
                meter.add(count);
            }
            Err(_) => ensure!(meter.is_over(), stalled()),
        }
        total.set(meter.total());
        yield_now().await;
    }
    Ok(())
}

fn stalled() -> anyhow::Error {
    anyhow!("nothing came for {} s", STALL.as_secs())
}

/// A stream to the place, with its header sent.
async fn connect(place: &Place, plan: Plan, errand: Errand) -> Result<TcpStream> {
    let socket = TcpSocket::new_v6()?;
    socket
        .bind(own(place.own).into())
        .with_context(|| format!("cannot use our overlay address {}", place.own))?;
    let there = SocketAddrV6::new(place.peer, place.tcp, 0, 0);
    let connected = timeout(REACH, socket.connect(there.into())).await;
    let mut stream = connected
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        .with_context(|| {
            format!("{there} was opened for us but is not reached through the tunnel: does a firewall there stop it?")
        })?;
    let header = Header {
        ticket: place.ticket,
        errand,
        seconds: plan.seconds,
    };
    stream.write_all(&header.encode()).await?;
    Ok(stream)
}

async fn connected_socket(place: &Place) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(own(place.own)).await?;
    socket
        .connect(SocketAddrV6::new(place.peer, place.udp, 0, 0))
        .await?;
    Ok(socket)
}

/// Our end of a connection, on any port.
fn own(address: Ipv6Addr) -> SocketAddrV6 {
    SocketAddrV6::new(address, 0, 0, 0)
}

async fn keep_showing(
    phase: Phase,
    length: Duration,
    rate: impl Fn() -> Option<f64>,
    show: &impl Fn(Progress),
) -> Infallible {
    let begin = Instant::now();
    let mut tick = interval(SHOW_EVERY);
    loop {
        tick.tick().await;
        show(Progress {
            phase,
            done: begin.elapsed().div_duration_f64(length).min(1.0),
            mbit_s: rate(),
        });
    }
}

/// Of all streams, which begin at about the same time.
fn sum(totals: &[Cell<Total>]) -> Total {
    let totals = totals.iter().map(Cell::get);
    totals.fold(Total::default(), |sum, total| Total {
        bytes: sum.bytes + total.bytes,
        elapsed: sum.elapsed.max(total.elapsed),
    })
}

fn mbit_s(total: Total) -> f64 {
    total.bytes as f64 * 8.0 / 1e6 / total.elapsed.as_secs_f64()
}

/// Three places behind the point are more than enough.
fn round(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

#[cfg(test)]
mod tests;
