//! What other nodes say on streams, and where they say they are.

use hivevpn::{bench, reflect, swarm::fuzzing};
use libp2p_core::Multiaddr;

/// The proof of membership, before it is one.
pub fn exchange(bytes: &[u8]) {
    thread_local! {
        static NETWORK: hivevpn_core::membership::Network = crate::membership::network();
    }
    NETWORK.with(|network| fuzzing::exchange(network, bytes));
}

/// Datagrams on a stream.
pub fn carrier(bytes: &[u8]) {
    fuzzing::carrier(bytes);
}

/// Requests and responses.
pub fn messages(bytes: &[u8]) {
    fuzzing::message(bytes);
}

/// The small languages of measurements and reflections. What is understood is written as it was read.
pub fn wires(bytes: &[u8]) {
    use bench::wire as b;
    use reflect::wire as r;
    if let Some(ask) = b::Ask::decode(bytes) {
        assert_eq!(
            b::Ask::decode(&ask.encode()).map(b::Ask::encode),
            Some(ask.encode())
        );
    }
    if let Some(answer) = b::Answer::decode(bytes) {
        let _ = answer.encode();
    }
    if let Ok(bytes) = bytes.try_into()
        && let Some(header) = b::Header::decode(bytes)
    {
        let _ = header.encode();
    }
    if let Ok(bytes) = bytes.try_into() {
        let _ = b::Total::decode(bytes).encode();
    }
    if let Some(echo) = b::Echo::decode(bytes) {
        let _ = echo.encode();
    }
    let _ = r::Token::in_datagram(bytes);
    if let Some(ask) = r::Ask::decode(bytes) {
        let _ = ask.encode();
    }
    if let Some(answer) = r::Answer::decode(bytes) {
        let _ = answer.encode();
    }
    let _ = hivevpn_core::datagram::is_for_the_core(bytes);
}

/// Addresses, in binary and in text.
pub fn addresses(bytes: &[u8]) {
    if let Ok(address) = Multiaddr::try_from(bytes.to_vec()) {
        fuzzing::address(&address);
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        for part in text.split_whitespace() {
            if let Ok(address) = part.parse() {
                fuzzing::address(&address);
            }
        }
    }
}

pub(crate) fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let addresses = b"/ip4/192.0.2.1/udp/7777/quic-v1 /ip6/2001:db8::1/tcp/7777 \
        /ip4/192.0.2.1/tcp/1/p2p/12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN/p2p-circuit";
    vec![
        ("carrier", vec![0, 0, 3, 1, 2, 3, 0, 1, 9]),
        ("carrier", vec![9, 0xff, 0xff, 1]),
        ("messages", b"\0\0\0\x04four".to_vec()),
        (
            "wires",
            reflect::wire::Token([7; 16]).to_datagram().to_vec(),
        ),
        ("wires", vec![0; 16]),
        ("wires", vec![1; 32]),
        ("addresses", addresses.to_vec()),
        ("addresses", vec![4, 192, 0, 2, 1, 6, 0x1e, 0x61]),
    ]
}
