//! A DNS server that knows one answer, and `dig`.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
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

/// A server that has the one answer for every question, by UDP and TCP, and remembers the names that were asked for.
pub struct NameServer {
    asked: Arc<Mutex<Vec<String>>>,
    ends: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl NameServer {
    /// Answers on this host's address until it is dropped.
    pub fn on(host: &Host) -> Self {
        const LOOK: Duration = Duration::from_millis(50);
        let address = host.address();
        let (udp, tcp) = host.here(move || {
            let udp = UdpSocket::bind((address, 53)).unwrap();
            (udp, TcpListener::bind((address, 53)).unwrap())
        });
        udp.set_read_timeout(Some(LOOK)).unwrap();
        tcp.set_nonblocking(true).unwrap();
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let ends = Arc::<AtomicBool>::default();
        let note = {
            let asked = asked.clone();
            move |query: &[u8]| {
                asked.lock().unwrap().push(name(query));
                answer(query).unwrap()
            }
        };
        let (for_udp, udp_ends, tcp_ends) = (note.clone(), ends.clone(), ends.clone());
        let by_udp = host.thread(move || {
            let mut query = [0; 1500];
            while !udp_ends.load(Ordering::Relaxed) {
                if let Ok((n, from)) = udp.recv_from(&mut query) {
                    udp.send_to(&for_udp(&query[..n]), from).unwrap();
                }
            }
        });
        let by_tcp = host.thread(move || {
            while !tcp_ends.load(Ordering::Relaxed) {
                let Ok((mut stream, _)) = tcp.accept() else {
                    std::thread::park_timeout(LOOK);
                    continue;
                };
                stream.set_nonblocking(false).unwrap();
                let mut length = [0; 2];
                stream.read_exact(&mut length).unwrap();
                let mut query = vec![0; u16::from_be_bytes(length).into()];
                stream.read_exact(&mut query).unwrap();
                let answer = note(&query);
                let length = u16::try_from(answer.len()).unwrap().to_be_bytes();
                stream.write_all(&[&length, &answer[..]].concat()).unwrap();
            }
        });
        Self {
            asked,
            ends,
            threads: vec![by_udp, by_tcp],
        }
    }

    /// The names that it was asked for so far.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // Its panic is in the test's output.
            let _ = thread.join();
        }
    }
}

/// The name in a question, with dots.
fn name(query: &[u8]) -> String {
    let mut labels = Vec::new();
    let mut rest = &query[12..];
    while let [length, following @ ..] = rest
        && *length > 0
    {
        let (label, next) = following.split_at((*length).into());
        labels.push(String::from_utf8_lossy(label).to_lowercase());
        rest = next;
    }
    labels.join(".")
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
