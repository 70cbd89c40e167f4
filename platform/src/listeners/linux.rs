//! What listens on Linux: the tables of proc_net_tcp(5).

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};

/// States as these tables number them: a listening TCP socket, and a UDP socket without a peer.
const LISTEN: &str = "0A";
const UNCONNECTED: &str = "07";

pub(super) fn tcp() -> io::Result<Vec<SocketAddr>> {
    read("tcp", LISTEN)
}

pub(super) fn udp() -> io::Result<Vec<SocketAddr>> {
    read("udp", UNCONNECTED)
}

fn read(protocol: &str, state: &str) -> io::Result<Vec<SocketAddr>> {
    let mut found = in_state(&fs::read_to_string(format!("/proc/net/{protocol}"))?, state);
    // Without IPv6 there is no such table.
    if let Ok(table) = fs::read_to_string(format!("/proc/net/{protocol}6")) {
        found.extend(in_state(&table, state));
    }
    Ok(found)
}

fn in_state(table: &str, state: &str) -> Vec<SocketAddr> {
    let address = |line: &str| {
        let mut fields = line.split_whitespace();
        let local = fields.nth(1)?;
        (fields.nth(1)? == state).then(|| parse(local))?
    };
    table.lines().skip(1).filter_map(address).collect()
}

/// `0100007F:1F90`: the address in words of the machine's byte order, the port as a number.
fn parse(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| {
        let word = u32::from_str_radix(address.get(at..at + 8)?, 16).ok()?;
        Some(word.to_ne_bytes())
    };
    let ip: IpAddr = match address.len() {
        8 => word(0)?.into(),
        32 => {
            let mut bytes = [0_u8; 16];
            for (part, at) in bytes.chunks_exact_mut(4).zip([0, 8, 16, 24]) {
                part.copy_from_slice(&word(at)?);
            }
            bytes.into()
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip.to_canonical(), port))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};

    use super::*;

    #[test]
    fn a_listener_is_found_and_a_connection_is_none() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else {
                println!("skipped: {address} is not to be had");
                continue;
            };
            let listening = listener.local_addr().unwrap();
            let connection = TcpStream::connect(listening).unwrap();
            let found = tcp().unwrap();
            assert!(found.contains(&listening), "{listening} in {found:?}");
            assert!(!found.contains(&connection.local_addr().unwrap()));
        }
    }

    #[test]
    fn a_socket_for_datagrams_is_found_until_it_has_a_peer() {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        let address = socket.local_addr().unwrap();
        assert!(udp().unwrap().contains(&address));
        socket.connect("127.0.0.1:9").unwrap();
        assert!(!udp().unwrap().contains(&address));
    }

    #[test]
    fn what_is_no_table_is_empty() {
        assert_eq!(in_state("", LISTEN), []);
        assert_eq!(in_state("header\n 0: zz:1 00:0 0A\n 1: 0A\n", LISTEN), []);
    }
}
