//! libp2p's connection ids and ours are the same numbers.

use hivevpn_core::connection::ConnectionId;
use libp2p::swarm;

/// Our name for a connection.
pub fn ours(id: swarm::ConnectionId) -> ConnectionId {
    // The number is private; it is what is displayed.
    let number = id.to_string().parse();
    ConnectionId(number.expect("a connection id is displayed as its number"))
}

/// libp2p's name for a connection.
pub fn libp2ps(id: ConnectionId) -> swarm::ConnectionId {
    swarm::ConnectionId::new_unchecked(id.0 as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_keeps_its_number() {
        for number in [0, 1, 77, u32::MAX as usize] {
            let id = swarm::ConnectionId::new_unchecked(number);
            assert_eq!(ours(id), ConnectionId(number as u64));
            assert_eq!(libp2ps(ours(id)), id);
        }
    }
}
