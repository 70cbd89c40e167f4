//! Routes where nobody has written them yet.

use std::io;
use std::net::Ipv4Addr;

use ipnet::IpNet;

use super::Clash;

pub(super) fn add(_interface: &str, _network: IpNet) -> io::Result<()> {
    Err(unsupported())
}

pub(super) fn remove(_interface: &str, _network: IpNet) -> io::Result<()> {
    Err(unsupported())
}

pub(super) fn visit_routes(_visit: impl FnMut(Clash)) -> io::Result<()> {
    Err(unsupported())
}

pub(super) fn default_gateway() -> io::Result<Option<Ipv4Addr>> {
    Err(unsupported())
}

fn unsupported() -> io::Error {
    io::Error::new(
        io::ErrorKind::Unsupported,
        "hivevpn cannot look at or change routes on this system yet",
    )
}
