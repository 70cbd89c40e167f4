use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use super::*;
use crate::poll;

const PATIENCE: Option<Duration> = Some(Duration::from_secs(10));

fn loopback() -> UdpSocket {
    UdpSocket::bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap()
}

fn receive(socket: &UdpSocket, batch: &mut RecvBatch) {
    assert!(
        poll::wait(&[socket.as_fd()], PATIENCE).unwrap().contains(0),
        "nothing arrived"
    );
    socket.recv(batch).unwrap();
}

fn transmit(destination: SocketAddr, contents: &[u8], segment_size: Option<usize>) -> Transmit<'_> {
    Transmit {
        destination,
        ecn: None,
        contents,
        segment_size,
        src_ip: None,
    }
}

#[test]
fn an_empty_socket_would_block() {
    let mut batch = RecvBatch::new();
    assert_eq!(
        loopback().recv(&mut batch).unwrap_err().kind(),
        io::ErrorKind::WouldBlock
    );
    assert!(batch.is_empty());
    assert_eq!(batch.iter().len(), 0);
}

#[test]
fn a_datagram_arrives_with_sender_and_local_address_and_congestion_mark() {
    let (here, there) = (loopback(), loopback());
    let mut greeting = transmit(there.local_addr().unwrap(), b"greeting", None);
    greeting.ecn = Some(EcnCodepoint::Ect0);
    here.send(&greeting).unwrap();

    let mut batch = RecvBatch::new();
    receive(&there, &mut batch);
    let received = batch.iter().next().unwrap();
    assert_eq!(received.from, here.local_addr().unwrap());
    assert_eq!(received.local_ip, Some(Ipv4Addr::LOCALHOST.into()));
    assert_eq!(received.ecn, Some(EcnCodepoint::Ect0));
    assert_eq!(received.datagrams().collect::<Vec<_>>(), [b"greeting"]);
}

#[test]
fn a_segmented_run_arrives_glued_together_and_is_cut_by_its_stride() {
    let (here, there) = (loopback(), loopback());
    let contents: Vec<u8> = (0..10_100_u32).map(|byte| (byte / 1000) as u8).collect();
    here.send(&transmit(
        there.local_addr().unwrap(),
        &contents,
        Some(1000),
    ))
    .unwrap();

    let mut batch = RecvBatch::new();
    receive(&there, &mut batch);
    assert_eq!(batch.len(), 1, "the kernel did not glue the run");
    let received = batch.iter().next().unwrap();
    assert_eq!(received.stride, 1000);
    let datagrams: Vec<_> = received.datagrams().collect();
    assert_eq!(datagrams.len(), 11);
    assert_eq!(datagrams[9], [9; 1000]);
    assert_eq!(datagrams[10], [10; 100]);
}

#[test]
fn one_receive_takes_several_messages() {
    let (here, there) = (loopback(), loopback());
    let destination = there.local_addr().unwrap();
    // Sizes that grow cannot be glued together.
    let sizes = [1, 2, 3, 4, 5];
    for size in sizes {
        here.send(&transmit(destination, &[7; 5][..size], None))
            .unwrap();
    }
    let mut batch = RecvBatch::new();
    let mut seen = Vec::new();
    while seen.len() < sizes.len() {
        receive(&there, &mut batch);
        seen.extend(
            batch
                .iter()
                .flat_map(|received| received.datagrams())
                .map(<[u8]>::len),
        );
    }
    assert_eq!(seen, sizes);
}

#[test]
fn the_biggest_datagram_passes_and_a_bigger_one_is_refused() {
    let (here, there) = (loopback(), loopback());
    let destination = there.local_addr().unwrap();
    let contents = vec![3; 65_508];
    here.send(&transmit(destination, &contents[..65_507], None))
        .unwrap();
    let mut batch = RecvBatch::new();
    receive(&there, &mut batch);
    assert_eq!(batch.iter().next().unwrap().bytes.len(), 65_507);

    let error = here
        .send(&transmit(destination, &contents, None))
        .unwrap_err();
    assert_eq!(error.raw_os_error(), Some(Errno::EMSGSIZE as i32));
    here.send_lossy(&transmit(destination, &contents, None))
        .unwrap();
}

#[test]
fn an_empty_datagram_is_no_datagram_at_all() {
    let (here, there) = (loopback(), loopback());
    here.send(&transmit(there.local_addr().unwrap(), b"", None))
        .unwrap();
    let mut batch = RecvBatch::new();
    receive(&there, &mut batch);
    assert_eq!(batch.iter().next().unwrap().datagrams().count(), 0);
}

#[test]
fn a_run_the_interface_refuses_to_segment_goes_out_datagram_by_datagram() {
    let (here, there) = (loopback(), loopback());
    here.send_one_by_one(&transmit(
        there.local_addr().unwrap(),
        b"aaaabbbbcc",
        Some(4),
    ))
    .unwrap();
    let mut batch = RecvBatch::new();
    let mut seen = Vec::new();
    while seen.len() < 3 {
        receive(&there, &mut batch);
        seen.extend(
            batch
                .iter()
                .flat_map(|received| received.datagrams())
                .map(<[u8]>::to_vec),
        );
    }
    assert_eq!(seen, [&b"aaaa"[..], b"bbbb", b"cc"]);
}

#[test]
fn a_run_that_is_too_big_loses_its_big_datagrams_only_and_says_nothing_of_others() {
    let (here, there) = (loopback(), loopback());
    let to = there.local_addr().unwrap();
    let could = here.cuts_runs();
    let run = vec![7; 65_510 + 3];
    here.send_run(to, &run, 65_510).unwrap();
    let mut batch = RecvBatch::new();
    receive(&there, &mut batch);
    assert_eq!(batch.iter().next().unwrap().bytes, [7; 3]);
    assert_eq!(here.cuts_runs(), could);
    here.send_run(to, b"aaaabbbbcc", 4).unwrap();
    let mut bytes = vec![];
    while bytes.len() < 10 {
        receive(&there, &mut batch);
        bytes.extend(batch.iter().flat_map(|received| received.bytes.to_vec()));
    }
    assert_eq!(bytes, b"aaaabbbbcc");
}

#[test]
fn both_handles_of_a_socket_send_from_the_same_port() {
    let (here, there) = (loopback(), loopback());
    let second = here.try_clone().unwrap();
    assert_ne!(here.as_raw_fd(), second.as_raw_fd());
    second
        .send(&transmit(there.local_addr().unwrap(), b"x", None))
        .unwrap();
    let mut batch = RecvBatch::new();
    receive(&there, &mut batch);
    assert_eq!(
        batch.iter().next().unwrap().from,
        here.local_addr().unwrap()
    );
}

#[test]
fn a_taken_port_is_named() {
    let holder = loopback();
    let address = holder.local_addr().unwrap();
    let error = UdpSocket::bind(address).unwrap_err();
    assert!(matches!(error, UdpError::PortTaken(taken) if taken == address));
    assert!(
        error
            .to_string()
            .contains(&format!("UDP port {} on 127.0.0.1", address.port())),
        "{error}"
    );
}

#[test]
fn an_address_of_another_machine_cannot_be_bound() {
    let error = UdpSocket::bind("192.0.2.1:0".parse().unwrap()).unwrap_err();
    assert!(matches!(error, UdpError::NotOurAddress(_)), "{error}");
}

#[test]
fn both_families_share_a_port_number() {
    let v4 = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0).into()).unwrap();
    let port = v4.local_addr().unwrap().port();
    match UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port).into()) {
        Ok(v6) => assert_eq!(v6.local_addr().unwrap().port(), port),
        Err(UdpError::FamilyUnavailable(_)) => println!("skipped: no IPv6 here"),
        Err(error) => panic!("{error}"),
    }
}
