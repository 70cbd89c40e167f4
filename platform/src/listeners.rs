//! What listens on this machine.

use std::io;
use std::net::SocketAddr;

#[cfg(target_os = "linux")]
#[path = "listeners/linux.rs"]
mod system;
#[cfg(not(target_os = "linux"))]
#[path = "listeners/unsupported.rs"]
mod system;

/// The addresses that TCP sockets listen on; unspecified ones stand for all addresses of their family, and `[::]` perhaps
/// for those of IPv4 too.
pub fn tcp() -> io::Result<Vec<SocketAddr>> {
    system::tcp()
}

/// The addresses of UDP sockets that take datagrams from everybody.
pub fn udp() -> io::Result<Vec<SocketAddr>> {
    system::udp()
}
