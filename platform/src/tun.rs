//! The overlay's network interface: packets between the kernel and us.
//!
//! What programs on this machine send to overlay addresses comes out of [`Tun::recv_each`]; what peers sent goes into
//! [`Tun::send_packets`]. The kernel hands over TCP and UDP bursts in one frame of up to 64 KB (TSO, USO), and takes
//! them back the same way; here they are cut into packets of the interface's MTU and merged again, so that outside this
//! module a packet is a packet. Nothing is copied either way: packets are looked at where the frame lies, and written
//! from where they lie.
//!
//! The interface lives as long as the [`Tun`]. When the process ends, even by SIGKILL, the kernel removes the
//! interface and with it its addresses and routes: there is nothing to clean up.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, BorrowedFd};

use ipnet::{Ipv4Net, Ipv6Net};

use crate::routes::{self, Clash};

#[cfg(target_os = "linux")]
#[path = "tun/linux.rs"]
mod system;
#[cfg(not(target_os = "linux"))]
#[path = "tun/unsupported.rs"]
mod system;

/// Longest interface name Linux takes, in bytes.
const MAX_NAME: usize = 15;

/// Smallest MTU with which IPv6 works (RFC 8200, section 5).
const MIN_MTU_IPV6: u16 = 1280;

/// Size every IPv4 host must accept (RFC 791, section 3.1); a smaller MTU would be a mistake.
const MIN_MTU_IPV4: u16 = 576;

/// What the interface should look like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunConfig {
    /// Name of the interface, at most 15 of `A-Z a-z 0-9 _ . -`.
    pub name: String,
    /// Our IPv4 address and the prefix length of the overlay.
    pub ipv4: Option<(Ipv4Addr, u8)>,
    /// Our IPv6 address and the prefix length of the overlay.
    pub ipv6: Option<(Ipv6Addr, u8)>,
    /// Largest packet in bytes: what fits into one datagram of the underlay after sealing. 1420 suits a path of 1500.
    pub mtu: u16,
    /// Whether to exchange bursts with the kernel, where it can.
    pub offload: bool,
}

/// Why there is no interface.
#[derive(Debug, thiserror::Error)]
pub enum TunError {
    /// The name cannot be an interface's.
    #[error("{0:?} cannot name an interface: use 1 to 15 of the characters A-Z a-z 0-9 _ . -")]
    InvalidName(String),
    /// The MTU is too small for an address family in use.
    #[error("an MTU of {mtu} is too small: set at least {least}")]
    MtuTooSmall {
        /// The MTU asked for.
        mtu: u16,
        /// What the address families in use need.
        least: u16,
    },
    /// A prefix length is longer than an address.
    #[error("/{0} is longer than the address: correct the prefix length")]
    InvalidPrefix(u8),
    /// An interface of this name exists.
    #[error(
        "an interface named {0} exists already, of another hivevpn or another program: choose another name or remove \
         it with `ip link delete {0}`"
    )]
    NameTaken(String),
    /// Another interface uses addresses of the overlay.
    #[error(
        "the overlay's network {network} overlaps with {clash_network} on interface {clash_interface}, which would \
         become unreachable: take that interface down, or found the network with another prefix (`hivevpn up --prefix \
         10.78.0.0/16`)",
        clash_network = clash.network, clash_interface = clash.interface
    )]
    Clash {
        /// The overlay's network.
        network: Ipv4Net,
        /// What it overlaps with.
        clash: Clash,
    },
    /// The kernel has no TUN driver, or this container may not see it.
    #[error(
        "there is no TUN driver (/dev/net/tun): run `modprobe tun`, or start the container with `--device /dev/net/tun`"
    )]
    NoDriver,
    /// The container may see the driver but not open it.
    #[error("this container may not open /dev/net/tun: start it with `--device /dev/net/tun`")]
    DriverForbidden,
    /// This process may not create interfaces.
    #[error(
        "no permission to create a network interface: run as root, or grant it with `setcap cap_net_admin+ep` on the \
         program (in a container: `--cap-add NET_ADMIN`)"
    )]
    NotPermitted,
    /// The system has IPv6 turned off.
    #[error(
        "cannot give {0} an IPv6 address: IPv6 is turned off; turn it on with \
         `sysctl net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.default.disable_ipv6=0` (in a container: `--sysctl` \
         with the same settings)"
    )]
    NoIpv6(String),
    /// Anything else.
    #[error("cannot {action} interface {name}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// The interface.
        name: String,
        /// What the system said.
        source: io::Error,
    },
}

/// Finds out whether the TUN driver is there and may be opened, without making an interface. Says nothing of the
/// permission to make one, for which see [`privileges`](crate::privileges).
pub fn probe_driver() -> Result<(), TunError> {
    system::probe_driver()
}

/// The overlay's network interface.
///
/// The thread that opens it decides the network namespace. It never blocks: wait for [`AsFd`] to become readable.
pub struct Tun {
    device: system::Device,
    config: TunConfig,
}

impl Tun {
    /// Creates the interface, gives it its addresses and brings it up.
    pub fn open(config: &TunConfig) -> Result<Self, TunError> {
        check(config)?;
        let device = system::Device::open(config)?;
        Ok(Self {
            device,
            config: config.clone(),
        })
    }

    /// Name of the interface.
    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// What the interface looks like now.
    pub fn config(&self) -> &TunConfig {
        &self.config
    }

    /// Replaces the interface's addresses. Those that stay are not touched, so that connections over them live on.
    pub fn set_addresses(
        &mut self,
        ipv4: Option<(Ipv4Addr, u8)>,
        ipv6: Option<(Ipv6Addr, u8)>,
    ) -> Result<(), TunError> {
        let after = TunConfig {
            ipv4,
            ipv6,
            ..self.config.clone()
        };
        check(&after)?;
        self.device.change_addresses(&self.config, &after)?;
        self.config = after;
        Ok(())
    }

    /// Takes frames from the kernel, up to `frames` of them or until they make `bytes`, and gives each packet in them to
    /// `each`, in order. Returns the number of
    /// frames.
    ///
    /// A frame holds one packet or a burst of up to 64 KB of them. The packet's bytes are gone when `each` returns.
    /// Fails with [`io::ErrorKind::WouldBlock`] when the kernel has nothing, with [`io::ErrorKind::NotConnected`] when the
    /// interface has been removed; an error that comes after the first frame comes up with the next call.
    pub fn recv_each(
        &mut self,
        frames: usize,
        bytes: usize,
        each: impl FnMut(&[u8]),
    ) -> io::Result<usize> {
        self.device
            .recv_each(frames, bytes, each)
            .map_err(|error| self.explain(error))
    }

    /// Hands the packets to the kernel. The packets of a flow keep their order. Returns how many it took for certain.
    ///
    /// A packet the kernel refuses is lost without harm to the others, but cannot be told from those it was merged with,
    /// which then are lost too. Fails with [`io::ErrorKind::NotConnected`] when the interface has been removed, with
    /// [`io::ErrorKind::NetworkDown`] when it has been taken down, each with a message that says so.
    pub fn send_packets<'a>(
        &mut self,
        packets: impl IntoIterator<Item = &'a [u8]>,
    ) -> io::Result<usize> {
        self.device
            .send_packets(packets)
            .map_err(|error| self.explain(error))
    }

    fn explain(&self, error: io::Error) -> io::Error {
        let (name, kind) = (&self.config.name, error.kind());
        if kind == io::ErrorKind::NotConnected {
            io::Error::new(
                kind,
                format!("interface {name} was removed by someone else: restart hivevpn"),
            )
        } else if kind == io::ErrorKind::NetworkDown {
            io::Error::new(
                kind,
                format!("interface {name} is down: run `ip link set {name} up`"),
            )
        } else {
            error
        }
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}

/// Finds what can be found without touching the system, and a clash with another interface.
fn check(config: &TunConfig) -> Result<(), TunError> {
    if !is_interface_name(&config.name) {
        return Err(TunError::InvalidName(config.name.clone()));
    }
    let least = if config.ipv6.is_some() {
        MIN_MTU_IPV6
    } else {
        MIN_MTU_IPV4
    };
    if config.mtu < least {
        return Err(TunError::MtuTooSmall {
            mtu: config.mtu,
            least,
        });
    }
    if let Some((address, prefix_len)) = config.ipv6 {
        Ipv6Net::new(address, prefix_len).map_err(|_| TunError::InvalidPrefix(prefix_len))?;
    }
    if let Some((address, prefix_len)) = config.ipv4 {
        let network = Ipv4Net::new(address, prefix_len)
            .map_err(|_| TunError::InvalidPrefix(prefix_len))?
            .trunc();
        let clash = routes::clash(network, &config.name).map_err(|source| TunError::Io {
            action: "compare the networks in use with those of",
            name: config.name.clone(),
            source,
        })?;
        if let Some(clash) = clash {
            return Err(TunError::Clash { network, clash });
        }
    }
    Ok(())
}

/// Stricter than the kernel, which takes anything but slashes, colons and spaces (and counts `%d` up).
fn is_interface_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(allowed) && name != "." && name != ".."
}

#[cfg(test)]
#[cfg(target_os = "linux")]
#[path = "tun/tests.rs"]
mod tests;
