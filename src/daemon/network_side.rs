//! Everything of one network that talks to other processes: sockets, swarm, control socket.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    num::{NonZeroU16, NonZeroU64},
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use hivevpn_core::node::Node;
use hivevpn_platform::{
    host_name::host_name,
    network_change::NetworkChanges,
    poll::Waker,
    tun::Tun,
    udp::{RecvBatch, UdpError, UdpSocket},
};
use libp2p::{Multiaddr, Transport, core::muxing::StreamMuxerBox, multiaddr::Protocol};
use tokio::{
    runtime::{Handle, Runtime},
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    task::JoinHandle,
};

use crate::{
    administration::{desk::Desk, office::Office},
    audit::Audit,
    config::{Config, DEFAULT_PORT},
    control_socket::ControlSocket,
    event_loop::{Local, Parts, Socket},
    footprint::Footprint,
    identity::Identity,
    joining::Asking,
    mailbox,
    membership::{self, Membership, Way},
    port_mapping::PortMapping,
    roles::Access,
    services,
    store::Store,
    swarm::{
        self, Command, Swarm,
        addresses::Overlay,
        quic::{QuicTransport, SharedSocket},
    },
};

/// Ports after the usual one that are tried for the second and further networks of a daemon.
const MAX_TRIES: u16 = 64;
/// Messages that may wait in each direction between loop and swarm.
const QUEUE: usize = 1024;
/// Connections get this long to say goodbye, so that peers need not wait for a timeout.
const GOODBYE: Duration = Duration::from_millis(500);

/// Everything that talks to the network or to other processes, before there is a node.
pub(super) struct NetworkSide {
    sockets: Vec<Socket>,
    commands: mpsc::Sender<Command>,
    swarm: mailbox::Receiver<swarm::Event>,
    swarm_task: JoinHandle<()>,
    port_mapping: Option<PortMapping>,
    pub(super) overlay: Overlay,
    local: mailbox::Receiver<Local>,
    to_loop: mailbox::Sender<Local>,
    control_socket: ControlSocket,
    early: VecDeque<swarm::Event>,
    waker: Waker,
    audit: Audit,
    desk: Desk,
}

impl NetworkSide {
    /// Binds everything. Nothing moves until somebody drives the runtime.
    pub(super) fn start(
        config: &Config,
        identity: &Identity,
        socket: &Path,
        audit: Audit,
        ports: &mut Ports,
        runtime: &Runtime,
    ) -> Result<Self> {
        let waker = Waker::new().context("cannot make an event descriptor")?;
        let (to_loop, swarm_events) = mailbox::channel(QUEUE, waker.clone());
        let (to_loop_local, local) = mailbox::channel(QUEUE, waker.clone());
        let udp = ports.bind(config)?;
        let _inside = runtime.enter();
        let mut control_socket = ControlSocket::bind(socket, Access::new(audit.clone()))?;
        control_socket.serve(to_loop_local.clone());
        let desk = Desk::new(
            runtime.handle().clone(),
            to_loop_local.clone(),
            control_socket.access(),
        );
        forward_signals(to_loop_local.clone())?;
        let mut sockets = Vec::new();
        let mut shared = Vec::new();
        for udp in udp {
            let (for_quic, quic) =
                SharedSocket::new(udp.try_clone().context("cannot share the UDP socket")?);
            sockets.push(Socket::new(udp, quic).context("cannot share the UDP socket")?);
            shared.push(for_quic);
        }
        let first = sockets.first().context("there is no UDP socket")?;
        let port = first.udp.local_addr()?.port();
        let quic = QuicTransport::new(&identity.keypair, shared)
            .context("cannot start QUIC")?
            .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)))
            .boxed();
        let (port_mapping, mapped) = NonZeroU16::new(port)
            .filter(|_| config.port_mapping)
            .map(|port| PortMapping::start(runtime.handle(), port))
            .unzip();
        let defaults = swarm::Config::new(identity.keypair.clone());
        let swarm = Swarm::new(
            swarm::Config {
                quic: Some(quic),
                listen: sockets
                    .iter()
                    .flat_map(|socket| listen_addresses(socket, port))
                    .collect(),
                external: config
                    .external
                    .iter()
                    .flat_map(|ip| transports(*ip, port))
                    .collect(),
                mapped: mapped.unwrap_or(defaults.mapped),
                relay: config.relay,
                // Nobody until the network is known, and with it the names.
                reservation: config.relay_reservation,
                relay_for: config.relay_members.as_ref().map(|_| BTreeSet::new()),
                mdns: true,
                dht: config.dht,
                ..defaults
            },
            to_loop,
        )?;
        let overlay = swarm.overlay();
        let (commands, to_swarm) = mpsc::channel(QUEUE);
        let swarm_task = runtime.spawn(swarm.run(to_swarm));
        Ok(Self {
            sockets,
            commands,
            swarm: swarm_events,
            swarm_task,
            port_mapping,
            overlay,
            local,
            to_loop: to_loop_local,
            control_socket,
            early: VecDeque::new(),
            waker,
            audit,
            desk,
        })
    }

    /// `None` when we were asked to stop while joining.
    pub(super) fn become_member(
        &mut self,
        way: Way,
        identity: &Identity,
        store: &Store,
        config: &Config,
        footprint: &Footprint,
    ) -> Result<Option<Membership>> {
        let name = config.name.clone().unwrap_or_else(host_name);
        let join = |ticket| {
            crate::joining::Joining {
                asking: Asking::with(ticket),
                signer: &identity.signer()?,
                name: &name,
                ipv4: config.address,
                commands: &self.commands,
                swarm: &mut self.swarm,
                local: &mut self.local,
                waker: &self.waker,
                sockets: &self.sockets,
                early: &mut self.early,
                received: RecvBatch::new(),
                open: BTreeMap::new(),
                footprint,
            }
            .run()
        };
        membership::obtain(way, &name, identity, store, config, join)
    }

    pub(super) fn into_parts(
        self,
        node: Node,
        tun: Tun,
        store: Store,
        state: &Path,
        config: &Config,
        greet: bool,
    ) -> Result<(Parts, services::Parts, Rest)> {
        let network = NetworkChanges::open(tun.name())
            .inspect_err(|error| {
                tracing::warn!(%error, "changes of the network will be noticed late");
            })
            .ok();
        let office = Office::open(&store, &config.admin)?;
        let (desk, services) = services::connect(self.to_loop, &store, config.services.clone())?;
        let parts = Parts {
            node,
            tun,
            sockets: self.sockets,
            commands: self.commands,
            swarm: self.swarm,
            early: self.early,
            local: self.local,
            waker: self.waker,
            network,
            store,
            state: state.to_owned(),
            office,
            desk: self.desk,
            services: desk,
            publish: config.publish.clone(),
            urgent: config.realtime,
            relay_members: config.relay_members.clone(),
            relay_rate: config.relay_rate.map(NonZeroU64::get),
            audit: self.audit,
            greet,
        };
        Ok((
            parts,
            services,
            Rest {
                swarm_task: self.swarm_task,
                port_mapping: self.port_mapping,
                control_socket: self.control_socket,
            },
        ))
    }
}

/// What is left to undo after the loop.
pub(super) struct Rest {
    swarm_task: JoinHandle<()>,
    port_mapping: Option<PortMapping>,
    control_socket: ControlSocket,
}

impl Rest {
    pub(super) fn end(self, runtime: &Handle) {
        drop(self.control_socket);
        // The loop has dropped its end of the commands, which ends the swarm.
        let goodbye = async {
            if tokio::time::timeout(GOODBYE, self.swarm_task)
                .await
                .is_err()
            {
                tracing::debug!("the swarm did not end in time");
            }
        };
        let router = async {
            if let Some(port_mapping) = self.port_mapping {
                port_mapping.end().await;
            }
        };
        runtime.block_on(async { tokio::join!(goodbye, router) });
    }
}

/// The ports of a daemon's networks.
pub(super) struct Ports {
    /// Named by one of them, so that the others leave it alone.
    named: BTreeSet<u16>,
    taken: BTreeSet<u16>,
}

impl Ports {
    /// Sees to it that no network takes a port that another one asks for.
    pub(super) fn wanted_by<'a>(configs: impl Iterator<Item = &'a Config>) -> Self {
        Self {
            named: configs.filter_map(|config| config.port).collect(),
            taken: BTreeSet::new(),
        }
    }

    /// The port that is named; else the usual one, or the next that is free when a sibling has that.
    fn bind(&mut self, config: &Config) -> Result<Vec<UdpSocket>> {
        let sockets = match config.port {
            Some(port) => {
                ensure!(
                    !self.taken.contains(&port),
                    "port {port} is another network's of this daemon: write another 'port' under [underlay], or leave \
                     it out"
                );
                bind(port, config.offload)?
            }
            None => self.bind_next(config.offload)?,
        };
        for socket in &sockets {
            self.taken.insert(socket.local_addr()?.port());
        }
        Ok(sockets)
    }

    fn bind_next(&self, offload: bool) -> Result<Vec<UdpSocket>> {
        let is_ours = |port: &u16| self.taken.contains(port) || self.named.contains(port);
        let mut free = (DEFAULT_PORT..DEFAULT_PORT + MAX_TRIES).filter(|port| !is_ours(port));
        loop {
            let port = free
                .next()
                .context("no UDP port is free: name one as 'port' under [underlay]")?;
            match bind(port, offload) {
                // The usual port is what people forward and open: its loss is told, not passed over.
                Err(UdpError::PortTaken(_)) if port != DEFAULT_PORT => {}
                result => return Ok(result?),
            }
        }
    }
}

/// One socket per address family, on the same port. A system without IPv6 (or without IPv4) has one.
fn bind(port: u16, offload: bool) -> Result<Vec<UdpSocket>, UdpError> {
    let mut sockets = Vec::new();
    let mut port = port;
    let mut missing = None;
    for ip in [
        IpAddr::from(Ipv4Addr::UNSPECIFIED),
        IpAddr::from(Ipv6Addr::UNSPECIFIED),
    ] {
        match UdpSocket::bind(SocketAddr::new(ip, port)) {
            Ok(socket) => {
                port = socket.local_addr().map_or(port, |address| address.port());
                sockets.push(if offload {
                    socket
                } else {
                    let address = SocketAddr::new(ip, port);
                    let plain = socket.without_offload();
                    plain.map_err(|source| UdpError::Io { address, source })?
                });
            }
            Err(error @ UdpError::FamilyUnavailable(_)) => missing = Some(error),
            Err(error) => return Err(error),
        }
    }
    match missing {
        Some(error) if sockets.is_empty() => Err(error),
        Some(_) | None => Ok(sockets),
    }
}

fn listen_addresses(socket: &Socket, port: u16) -> Vec<Multiaddr> {
    let ip = match socket.udp.local_addr() {
        Ok(SocketAddr::V6(_)) => IpAddr::from(Ipv6Addr::UNSPECIFIED),
        Ok(SocketAddr::V4(_)) | Err(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
    };
    transports(ip, port).into()
}

fn transports(ip: IpAddr, port: u16) -> [Multiaddr; 2] {
    let host = Multiaddr::from(ip);
    [
        host.clone()
            .with(Protocol::Udp(port))
            .with(Protocol::QuicV1),
        host.with(Protocol::Tcp(port)),
    ]
}

fn forward_signals(to_loop: mailbox::Sender<Local>) -> Result<()> {
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot watch for Ctrl-C")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot watch for SIGTERM")?;
    let mut hang_up = signal(SignalKind::hangup()).context("cannot watch for SIGHUP")?;
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hang_up.recv() => {}
            }
            if to_loop.send(Local::Stop).await.is_err() {
                return;
            }
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(port: Option<u16>) -> Config {
        Config {
            port,
            ..Config::default()
        }
    }

    fn port(sockets: &[UdpSocket]) -> u16 {
        sockets[0].local_addr().unwrap().port()
    }

    #[test]
    fn a_port_that_a_sibling_has_is_refused_by_name_and_passed_over_otherwise() {
        let free = port(&bind(0, true).unwrap());
        let mut ports = Ports::wanted_by([config(Some(free))].iter());
        let first = ports.bind(&config(Some(free))).unwrap();
        assert_eq!(port(&first), free);
        let error = ports.bind(&config(Some(free))).unwrap_err().to_string();
        assert!(error.contains("another network's"), "{error}");
        ports.named.insert(DEFAULT_PORT);
        let next = ports.bind(&config(None)).unwrap();
        assert_ne!(port(&next), DEFAULT_PORT);
        let any = [ports.bind(&config(Some(0))), ports.bind(&config(Some(0)))];
        assert!(any.iter().all(Result::is_ok), "0 is no port");
    }
}
