//! `hivevpn up`: starts everything in order, runs the loop, undoes everything in reverse.
//!
//! What lives in the kernel (interface, addresses, routes) hangs on the interface, and the interface on this process:
//! it is gone however the process ends. What lies on the disk and may be stale after a crash, the control socket, is
//! replaced at the next start. A start that fails before this node is a member leaves nothing behind.

use std::{
    collections::{BTreeSet, VecDeque},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    num::NonZeroU16,
    num::NonZeroU64,
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use hivevpn_core::{
    membership::Invite,
    node::{Node, Start},
    relay, session,
};
use hivevpn_platform::{
    host_name::host_name,
    lock::InstanceLock,
    network_change::NetworkChanges,
    poll::Waker,
    privileges, secret_file,
    tun::{Tun, TunConfig, TunError},
    udp::{RecvBatch, UdpError, UdpSocket},
};
use libp2p::{Multiaddr, Transport, core::muxing::StreamMuxerBox, multiaddr::Protocol};
use tokio::{
    runtime::Runtime,
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    task::JoinHandle,
};

use crate::{
    administration::{desk::Desk, office::Office},
    config::Config,
    control_socket::ControlSocket,
    event_loop::{EventLoop, Local, Parts, Socket, now},
    footprint::Footprint,
    identity::{self, Identity},
    mailbox,
    membership::{self, Membership, Way},
    port_mapping::PortMapping,
    store::Store,
    swarm::{
        self, Command, Swarm,
        addresses::Overlay,
        quic::{QuicTransport, SharedSocket},
    },
};

/// Messages that may wait in each direction between loop and swarm.
const QUEUE: usize = 1024;
/// Connections get this long to say goodbye, so that peers need not wait for a timeout.
const GOODBYE: Duration = Duration::from_millis(500);

/// Brings the node up and runs until it is told to stop.
pub fn run(config: &Config, state: &Path, socket: &Path) -> Result<()> {
    ensure!(
        privileges::may_configure_interfaces(),
        "no permission to create a network interface: run as root (sudo hivevpn up …), or grant the program the \
         capability with 'setcap cap_net_admin+ep'"
    );
    if let Err(error) = privileges::disable_core_dumps() {
        tracing::debug!(%error, "core dumps stay enabled");
    }
    let state_is_new = !state.exists();
    secret_file::create_private_dir(state)?;
    // Whoever holds the lock owns what is in the directory: only then is anything made there, or taken away again.
    let _lock = InstanceLock::acquire(state)?;
    let footprint = Footprint::before(state, state_is_new);
    let result = up(config, state, socket, &footprint);
    footprint.undo();
    result
}

fn up(config: &Config, state: &Path, socket: &Path, footprint: &Footprint) -> Result<()> {
    let identity = Identity::load_or_create(state)?;
    let store = Store::open(state)?;
    let way = membership::way(&store, config, state)?;
    // Before joining, so that a machine without TUN does not use up an invite.
    let mut tun = Tun::open(&TunConfig {
        name: config.interface.clone(),
        ipv4: None,
        ipv6: None,
        mtu: config.mtu,
        offload: config.offload,
    })?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("hivevpn-swarm")
        .enable_all()
        .build()
        .context("cannot start the network side of this node")?;
    let mut network_side = NetworkSide::start(config, &identity, socket, &runtime)?;

    let Some(membership) = network_side.become_member(way, &identity, &store, config, footprint)?
    else {
        return Ok(());
    };
    let own = membership.addresses(&identity.signer()?);
    network_side.overlay.set(own.ranges().into());
    match tun.set_addresses(Some(own.ipv4), Some(own.ipv6)) {
        Err(error @ TunError::NoIpv6(_)) => tracing::warn!("{error}; going on with IPv4 alone"),
        result => result?,
    }
    // What a founder made is of use from here on; what a joiner got is kept since it asked.
    footprint.keep();
    let network = membership.network.genesis().name();
    tracing::info!(%network, interface = tun.name(), ipv4 = %own.ipv4.0, ipv6 = %own.ipv6.0, "up");
    let greet = membership.is_founded_now;
    let node = node(membership, &identity, &store, config)?;
    let (parts, rest) = network_side.into_parts(node, tun, store, config, greet)?;
    let result = EventLoop::new(parts).run();
    rest.end(&runtime);
    result
}

fn node(
    membership: Membership,
    identity: &Identity,
    store: &Store,
    config: &Config,
) -> Result<Node> {
    let start = Start {
        signer: identity.signer()?,
        wireguard: session::Identity::new(*identity.wireguard),
        network: membership.network,
        credential: membership.credential,
        delegation: membership.delegation,
        name: membership.name,
        mtu: config.mtu,
        seed: u64::from_be_bytes(
            identity::random_bytes()[..8]
                .try_into()
                .context("eight bytes")?,
        ),
        descriptor_seq: store.descriptor_seq()?,
        time_floor: membership.time_floor,
        records: membership.records,
        redemptions: membership.redemptions,
        relay_terms: relay::Terms {
            bytes_per_second: config.relay_rate.map(NonZeroU64::get),
            members: config.relay_members.as_ref().map(|_| BTreeSet::new()),
        },
        bootstrap: config.bootstrap.clone(),
    };
    Node::new(start, now()).map_err(|rejection| {
        anyhow::anyhow!(
            "this node's certificate is not good any more ({rejection}): join again with a new invite and a new \
             --state directory"
        )
    })
}

// ---- sockets, swarm, control socket ----------------------------------------------------------------------

/// Everything that talks to the network or to other processes, before there is a node.
struct NetworkSide {
    sockets: Vec<Socket>,
    commands: mpsc::Sender<Command>,
    swarm: mailbox::Receiver<swarm::Event>,
    swarm_task: JoinHandle<()>,
    port_mapping: Option<PortMapping>,
    overlay: Overlay,
    local: mailbox::Receiver<Local>,
    control_socket: ControlSocket,
    early: VecDeque<swarm::Event>,
    waker: Waker,
    desk: Desk,
}

impl NetworkSide {
    fn start(
        config: &Config,
        identity: &Identity,
        socket: &Path,
        runtime: &Runtime,
    ) -> Result<Self> {
        let waker = Waker::new().context("cannot make an event descriptor")?;
        let (to_loop, swarm_events) = mailbox::channel(QUEUE, waker.clone());
        let (to_loop_local, local) = mailbox::channel(QUEUE, waker.clone());
        let udp = bind(config.port, config.offload)?;
        let _inside = runtime.enter();
        let mut control_socket = ControlSocket::bind(socket)?;
        control_socket.serve(to_loop_local.clone());
        let desk = Desk::new(runtime.handle().clone(), to_loop_local.clone());
        forward_signals(to_loop_local)?;
        let mut sockets = Vec::new();
        let mut shared = Vec::new();
        for udp in udp {
            let (for_quic, quic) =
                SharedSocket::new(udp.try_clone().context("cannot share the UDP socket")?);
            sockets.push(Socket::new(udp, quic).context("cannot share the UDP socket")?);
            shared.push(for_quic);
        }
        let port = sockets.first().map_or(Ok(config.port), |socket| {
            socket.udp.local_addr().map(|a| a.port())
        })?;
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
            control_socket,
            early: VecDeque::new(),
            waker,
            desk,
        })
    }

    /// `None` when we were asked to stop while joining.
    fn become_member(
        &mut self,
        way: Way,
        identity: &Identity,
        store: &Store,
        config: &Config,
        footprint: &Footprint,
    ) -> Result<Option<Membership>> {
        let name = config.name.clone().unwrap_or_else(host_name);
        let join = |invite: &Invite| {
            crate::joining::Joining {
                invite,
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
                open: 0,
                footprint,
            }
            .run()
        };
        membership::obtain(way, &name, identity, store, config, join)
    }

    fn into_parts(
        self,
        node: Node,
        tun: Tun,
        store: Store,
        config: &Config,
        greet: bool,
    ) -> Result<(Parts, Rest)> {
        let network = NetworkChanges::open(tun.name())
            .inspect_err(|error| {
                tracing::warn!(%error, "changes of the network will be noticed late");
            })
            .ok();
        let office = Office::open(&store, &config.admin)?;
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
            office,
            desk: self.desk,
            urgent: config.realtime,
            relay_members: config.relay_members.clone(),
            relay_rate: config.relay_rate.map(NonZeroU64::get),
            greet,
        };
        Ok((
            parts,
            Rest {
                swarm_task: self.swarm_task,
                port_mapping: self.port_mapping,
                control_socket: self.control_socket,
            },
        ))
    }
}

/// What is left to undo after the loop.
struct Rest {
    swarm_task: JoinHandle<()>,
    port_mapping: Option<PortMapping>,
    control_socket: ControlSocket,
}

impl Rest {
    fn end(self, runtime: &Runtime) {
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

/// One socket per address family, on the same port. A system without IPv6 (or without IPv4) has one.
fn bind(port: u16, offload: bool) -> Result<Vec<UdpSocket>> {
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
                    socket.without_offload()?
                });
            }
            Err(error @ UdpError::FamilyUnavailable(_)) => missing = Some(error),
            Err(error) => return Err(error.into()),
        }
    }
    match missing {
        Some(error) if sockets.is_empty() => Err(error.into()),
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
