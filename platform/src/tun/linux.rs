//! The TUN device on Linux: tun-rs opens it, we move its frames, netlink configures the interface.

use std::fs::OpenOptions;
use std::io::{self, IoSlice};
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};

use ipnet::IpNet;
use netlink_packet_route::link::{AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute};
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::sys::uio::writev;
use nix::unistd::read;
use tun_rs::{DeviceBuilder, Layer, SyncDevice};

use super::{TunConfig, TunError};
use crate::netlink::Conversation;
use crate::offload::{Coalescer, VnetHeader, segment};
use crate::privileges::may_configure_interfaces;

/// Every interface begins with this file.
const DRIVER: &str = "/dev/net/tun";

/// Packets the kernel keeps for us while we are busy. Fewer would drop from a burst of small packets; more would only
/// add delay.
const QUEUE_LENGTH: u32 = 1000;

/// Longest packet or burst from the kernel. An interface that does not ask for more gets at most this
/// (`GSO_LEGACY_MAX_SIZE`), and an IPv6 packet may have a header beyond its 65 535 bytes.
const MAX_BURST: usize = 65_536 + 40;

pub(super) struct Device {
    device: SyncDevice,
    framing: Framing,
    /// One frame as it comes from the kernel, and a byte more: a frame that fills it all has been cut short.
    frame: Vec<u8>,
}

/// What stands between a frame and its packets.
enum Framing {
    /// Every frame is a packet: the kernel has no offloads.
    Bare,
    /// A header tells. What goes to the kernel is merged.
    Vnet(Coalescer),
}

impl Device {
    pub(super) fn open(config: &TunConfig) -> Result<Self, TunError> {
        if if_nametoindex(config.name.as_str()).is_ok() {
            // The kernel would let us take over a persistent interface, with addresses and routes of its past.
            return Err(TunError::NameTaken(config.name.clone()));
        }
        let device = if config.offload {
            build_with_offloads(&config.name)
        } else {
            build(&config.name, false)
        };
        let device = device.map_err(|source| creation_error(&config.name, source))?;
        device
            .set_nonblocking(true)
            .map_err(|source| io_error("open", &config.name, source))?;
        configure(config)?;
        let framing = if device.tcp_gso() {
            Framing::Vnet(Coalescer::new(device.udp_gso()))
        } else {
            Framing::Bare
        };
        Ok(Self {
            device,
            framing,
            frame: vec![0; VnetHeader::LEN + MAX_BURST + 1],
        })
    }

    /// Brings the interface's addresses from what `before` says to what `after` says.
    pub(super) fn change_addresses(
        &self,
        before: &TunConfig,
        after: &TunConfig,
    ) -> Result<(), TunError> {
        let name = &after.name;
        let index =
            if_nametoindex(name.as_str()).map_err(|errno| io_error("find", name, errno.into()))?;
        let mut kernel =
            Conversation::open().map_err(|source| io_error("configure", name, source))?;
        let mut remove = |address: IpAddr, prefix_len| {
            kernel
                .remove_address(index, IpNet::new_assert(address, prefix_len))
                .map_err(|source| io_error("take an address from", name, source))
        };
        if let Some((address, prefix_len)) = before.ipv4.filter(|_| before.ipv4 != after.ipv4) {
            remove(address.into(), prefix_len)?;
        }
        if let Some((address, prefix_len)) = before.ipv6.filter(|_| before.ipv6 != after.ipv6) {
            remove(address.into(), prefix_len)?;
        }
        let added = TunConfig {
            ipv4: after.ipv4.filter(|_| before.ipv4 != after.ipv4),
            ipv6: after.ipv6.filter(|_| before.ipv6 != after.ipv6),
            ..after.clone()
        };
        add_addresses(&mut kernel, index, &added)
    }

    /// Reads a frame at a time, cuts it where it lies and hands over its packets.
    pub(super) fn recv_each(
        &mut self,
        frames: usize,
        bytes: usize,
        mut each: impl FnMut(&[u8]),
    ) -> io::Result<usize> {
        let mut taken = 0;
        for number in 0..frames {
            if taken >= bytes {
                return Ok(number);
            }
            let frame = match read(&self.device, &mut self.frame) {
                Ok(length) if length < self.frame.len() => {
                    taken += length;
                    &mut self.frame[..length]
                }
                Ok(_) => {
                    tracing::debug!("a frame longer than any burst from the kernel dropped");
                    continue;
                }
                // What has been handed over comes first; the error will be there again.
                Err(_) if number > 0 => return Ok(number),
                Err(errno) => return Err(classify(errno)),
            };
            match self.framing {
                Framing::Bare => each(frame),
                Framing::Vnet(_) => {
                    if let Err(error) = segment(frame, &mut each) {
                        tracing::debug!(%error, "a frame from the kernel dropped");
                    }
                }
            }
        }
        Ok(frames)
    }

    /// Merges what belongs together and writes it from where it lies.
    pub(super) fn send_packets<'a>(
        &mut self,
        packets: impl IntoIterator<Item = &'a [u8]>,
    ) -> io::Result<usize> {
        let device = &self.device;
        let mut taken = 0;
        let mut write = |parts: &[IoSlice<'_>], count: usize| {
            match writev(device, parts).map_err(classify) {
                Ok(_) => taken += count,
                Err(error) if is_fatal(&error) => return Err(error),
                Err(error) => tracing::trace!(%error, packets = count, "refused by the kernel"),
            }
            Ok(())
        };
        let mut packets = packets.into_iter();
        match &mut self.framing {
            Framing::Bare => packets.try_for_each(|packet| write(&[IoSlice::new(packet)], 1))?,
            Framing::Vnet(coalescer) => coalescer.coalesce(&packets.collect::<Vec<_>>(), write)?,
        }
        Ok(taken)
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}

/// Says once what the kernel does not have: any since 2.6.27 takes TCP bursts apart, since 6.2 UDP bursts too.
fn build_with_offloads(name: &str) -> io::Result<SyncDevice> {
    let device = match build(name, true) {
        Err(error) if error.raw_os_error() == Some(Errno::EINVAL as i32) => build(name, false)?,
        result => result?,
    };
    if !device.tcp_gso() {
        tracing::info!(
            interface = name,
            "this kernel hands over every packet on its own: a packet costs twice as much"
        );
    } else if !device.udp_gso() {
        tracing::info!(
            interface = name,
            "this kernel hands over every UDP packet on its own: newer ones do not"
        );
    }
    Ok(device)
}

fn build(name: &str, offloads: bool) -> io::Result<SyncDevice> {
    let builder = DeviceBuilder::new()
        .name(name)
        .layer(Layer::L3)
        .inherit_enable_state();
    builder
        .with(|linux| _ = linux.offload(offloads))
        .build_sync()
}

/// Opening the driver makes no interface yet: that is asked for afterwards.
pub(super) fn probe_driver() -> Result<(), TunError> {
    let opened = OpenOptions::new().read(true).write(true).open(DRIVER);
    opened
        .map(drop)
        .map_err(|source| match source.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ENOENT | Errno::ENODEV | Errno::ENXIO) => TunError::NoDriver,
            Some(Errno::EPERM | Errno::EACCES) => TunError::DriverForbidden,
            Some(_) | None => io_error("open /dev/net/tun for", "of any name", source),
        })
}

fn creation_error(name: &str, source: io::Error) -> TunError {
    match source.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOENT | Errno::ENODEV | Errno::ENXIO) => TunError::NoDriver,
        Some(Errno::EPERM | Errno::EACCES) if may_configure_interfaces() => {
            TunError::DriverForbidden
        }
        Some(Errno::EPERM | Errno::EACCES) => TunError::NotPermitted,
        Some(Errno::EBUSY | Errno::EEXIST) => TunError::NameTaken(name.to_owned()),
        Some(_) | None => io_error("create", name, source),
    }
}

fn configure(config: &TunConfig) -> Result<(), TunError> {
    let name = &config.name;
    let fail = |action| move |source| io_error(action, name, source);
    let index =
        if_nametoindex(name.as_str()).map_err(|errno| io_error("find", name, errno.into()))?;
    let mut kernel = Conversation::open().map_err(fail("configure"))?;

    // No link-local address, which would bring solicitations and reports that no peer wants. Refused where IPv6 is
    // turned off, and then there is none anyway.
    let no_link_local = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]);
    let _ = kernel.change_link(
        index,
        vec![LinkAttribute::AfSpecUnspec(vec![no_link_local])],
    );

    let size = vec![
        LinkAttribute::Mtu(config.mtu.into()),
        LinkAttribute::TxQueueLen(QUEUE_LENGTH),
    ];
    kernel
        .change_link(index, size)
        .map_err(fail("set the MTU of"))?;
    kernel.set_link_up(index).map_err(fail("bring up"))?;

    add_addresses(&mut kernel, index, config)
}

fn add_addresses(
    kernel: &mut Conversation,
    index: u32,
    config: &TunConfig,
) -> Result<(), TunError> {
    let name = &config.name;
    let fail = |action| move |source| io_error(action, name, source);
    if let Some((address, prefix_len)) = config.ipv4 {
        let network = IpNet::new_assert(address.into(), prefix_len);
        kernel
            .add_address(index, network)
            .map_err(fail("give an IPv4 address to"))?;
    }
    if let Some((address, prefix_len)) = config.ipv6 {
        let network = IpNet::new_assert(address.into(), prefix_len);
        kernel.add_address(index, network).map_err(|source| {
            match source.raw_os_error().map(Errno::from_raw) {
                Some(Errno::EACCES | Errno::EAFNOSUPPORT | Errno::EOPNOTSUPP) => {
                    TunError::NoIpv6(name.clone())
                }
                Some(_) | None => io_error("give an IPv6 address to", name, source),
            }
        })?;
    }
    Ok(())
}

fn io_error(action: &'static str, name: &str, source: io::Error) -> TunError {
    TunError::Io {
        action,
        name: name.to_owned(),
        source,
    }
}

/// Gives the two ways an interface can go away a kind of their own.
fn classify(errno: Errno) -> io::Error {
    if matches!(errno, Errno::EBADFD | Errno::ENODEV) {
        io::ErrorKind::NotConnected.into()
    } else if matches!(errno, Errno::EIO | Errno::ENETDOWN) {
        io::ErrorKind::NetworkDown.into()
    } else {
        errno.into()
    }
}

fn is_fatal(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotConnected | io::ErrorKind::NetworkDown
    )
}
