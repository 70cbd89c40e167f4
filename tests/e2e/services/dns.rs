//! A DNS server that knows one answer, and `dig`.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::lab::Host;

/// One question over UDP.
pub fn works(client: &Host, server: &Host, address: IpAddr) {
    let answering = serve(server, SocketAddr::new(address, 53));
    answers(client, address, 53);
    answering.join().unwrap();
}

/// Answers one question.
pub fn serve(server: &Host, address: SocketAddr) -> JoinHandle<()> {
    let socket = server.here(move || UdpSocket::bind(address).unwrap());
    socket
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    server.thread(move || {
        let mut query = [0; 1500];
        let (n, from) = socket.recv_from(&mut query).unwrap();
        socket.send_to(&answer(&query[..n]).unwrap(), from).unwrap();
    })
}

/// Asks.
pub fn answers(client: &Host, address: IpAddr, port: u16) {
    let shown = client
        .sh(&format!(
            "dig @{address} -p {port} +short +noedns +tries=1 +time=5 gpu.example A"
        ))
        .ok();
    assert_eq!(shown, "192.0.2.53");
}

/// Says 192.0.2.53 to any question for an A record (RFC 1035, section 4).
fn answer(query: &[u8]) -> Option<Vec<u8>> {
    let question = query.get(12..)?;
    let name = question.iter().position(|&byte| byte == 0)?;
    let question = question.get(..name + 5)?; // the name's end, type, class
    let mut answer = query.get(..2)?.to_vec();
    answer.extend([0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]); // a response without error: one question, one answer
    answer.extend(question);
    answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 53]); // its name, A, IN, a minute
    Some(answer)
}
