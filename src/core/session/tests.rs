//! Each edge of boringtun that `session.rs` keeps inside has its story here.

use proptest::prelude::*;
use zeroize::Zeroizing;

use super::*;

const MTU: usize = 1420;

struct End {
    identity: Identity,
    session: Session,
}

fn pair() -> (End, End) {
    let (a, b) = (Identity::new([1; 32]), Identity::new([2; 32]));
    let psk = Zeroizing::new([3; 32]);
    let (to_b, to_a) = (
        Session::new(&a, b.public(), &psk, 7),
        Session::new(&b, a.public(), &psk, 9),
    );
    (
        End {
            identity: a,
            session: to_b,
        },
        End {
            identity: b,
            session: to_a,
        },
    )
}

impl End {
    fn open(&mut self, datagram: &[u8]) -> (Result<Opened, DropReason>, Vec<u8>, Vec<Vec<u8>>) {
        let mut output = vec![0; datagram.len().max(MIN_BUFFER)];
        let mut replies = Vec::new();
        let opened = self.session.open(None, datagram, &mut output, |reply| {
            replies.push(reply.to_vec())
        });
        (opened, output, replies)
    }

    fn seal(&mut self, packet: &[u8]) -> Result<Vec<u8>, DropReason> {
        let mut output = vec![0; sealed_length(packet.len())];
        let length = self
            .session
            .seal(packet, MTU, &mut Vec::new(), &mut output)?;
        output.truncate(length);
        Ok(output)
    }

    fn initiate(&mut self) -> Vec<u8> {
        let mut sent = Vec::new();
        self.session
            .initiate(false, &mut [0; MIN_BUFFER], |datagram| {
                sent.push(datagram.to_vec())
            });
        sent.pop().expect("an initiation")
    }
}

fn connected() -> (End, End) {
    let (mut a, mut b) = pair();
    let initiation = a.initiate();
    let (_, _, response) = b.open(&initiation);
    let (_, _, confirmation) = a.open(&response[0]);
    b.open(&confirmation[0])
        .0
        .expect("the initiator's keepalive confirms the keys");
    assert!(a.session.can_seal() && b.session.can_seal());
    (a, b)
}

fn ipv4_packet(length: usize) -> Vec<u8> {
    let mut packet = vec![0xab; length];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
    packet
}

#[test]
fn a_packet_crosses_the_tunnel_unchanged() {
    let (mut a, mut b) = connected();
    for length in [20, 21, 1419, 1420, 9000] {
        let packet = ipv4_packet(length);
        let datagram = a.seal(&packet).unwrap();
        let (opened, output, _) = b.open(&datagram);
        assert_eq!(opened, Ok(Opened::Packet(length)));
        assert_eq!(&output[..length], packet);
    }
}

#[test]
fn short_packets_are_padded_to_sixteen_but_never_beyond_the_mtu() {
    let (mut a, _) = connected();
    let sealed = |a: &mut End, length| a.seal(&ipv4_packet(length)).unwrap().len() - OVERHEAD;
    assert_eq!(sealed(&mut a, 20), 32);
    assert_eq!(sealed(&mut a, 32), 32);
    assert_eq!(sealed(&mut a, 1417), 1420);
    assert_eq!(sealed(&mut a, 1420), 1420);
}

/// A stranger who knows nothing sends a frame larger than our buffers. boringtun copies before it
/// authenticates, and panics if the copy does not fit.
#[test]
fn an_unauthenticated_frame_larger_than_the_output_is_refused_not_a_panic() {
    let (_, mut b) = connected();
    let mut frame = vec![0; 4000];
    frame[0] = 4;
    let refused = b.session.open(None, &frame, &mut [0; 2000], |_| ());
    assert_eq!(refused, Err(DropReason::TooLong));
    assert_eq!(
        b.session.open(None, &[], &mut [0; 2000], |_| ()),
        Err(DropReason::TooLong)
    );
}

#[test]
fn nothing_is_queued_inside_boringtun_before_there_are_keys() {
    let (mut a, mut b) = pair();
    assert_eq!(a.seal(&ipv4_packet(100)), Err(DropReason::QueueFull));
    let (_, _, response) = {
        let initiation = a.initiate();
        b.open(&initiation)
    };
    let (_, _, replies) = a.open(&response[0]);
    assert_eq!(
        replies.len(),
        1,
        "only the keepalive that confirms the keys"
    );
    assert_eq!(replies[0].len(), OVERHEAD);
}

#[test]
fn a_datagram_is_opened_once() {
    let (mut a, mut b) = connected();
    let datagram = a.seal(&ipv4_packet(100)).unwrap();
    assert!(b.open(&datagram).0.is_ok());
    assert_eq!(b.open(&datagram).0, Err(DropReason::Replayed));
}

#[test]
fn a_flipped_bit_anywhere_is_refused() {
    let (mut a, mut b) = connected();
    let datagram = a.seal(&ipv4_packet(100)).unwrap();
    for byte in 0..datagram.len() {
        let mut flipped = datagram.clone();
        flipped[byte] ^= 1;
        assert!(b.open(&flipped).0.is_err(), "byte {byte}");
    }
    assert!(b.open(&datagram).0.is_ok());
}

#[test]
fn an_initiation_names_its_sender_and_only_to_the_right_key() {
    let (mut a, b) = pair();
    let initiation = a.initiate();
    assert_eq!(
        b.identity.initiator(None, &initiation, |_| ()),
        Ok((a.identity.public(), 7))
    );
    let stranger = Identity::new([3; 32]);
    assert_eq!(
        stranger.initiator(None, &initiation, |_| ()),
        Err(DropReason::Unauthentic)
    );
}

#[test]
fn a_flood_of_handshakes_is_answered_with_cookies_and_a_returned_cookie_is_let_in() {
    let (mut a, b) = pair();
    let from = Some(IpAddr::from([192, 0, 2, 1]));
    let initiation = a.initiate();
    let mut cookie = None;
    for _ in 0..=HANDSHAKES_PER_SECOND {
        let outcome = b
            .identity
            .initiator(from, &initiation, |reply| cookie = Some(reply.to_vec()));
        assert!(matches!(outcome, Ok(_) | Err(DropReason::UnderLoad)));
    }
    let cookie = cookie.expect("a cookie reply once the limit is passed");
    assert_eq!(a.open(&cookie).0, Ok(Opened::Handshake));
    // A retransmission carries the cookie's proof and passes even under load.
    let TunnResult::WriteToNetwork(_) = a
        .session
        .tunnel
        .format_handshake_initiation(&mut [0; MIN_BUFFER], true)
    else {
        panic!("a retransmission");
    };
    let mut second = vec![0; MIN_BUFFER];
    let TunnResult::WriteToNetwork(second) = a
        .session
        .tunnel
        .format_handshake_initiation(&mut second, true)
    else {
        panic!("a retransmission");
    };
    assert_eq!(
        b.identity.initiator(from, second, |_| ()),
        Ok((a.identity.public(), 7))
    );
}

/// A member seals something whose length field lies; boringtun truncates to it. Parsing again must cope.
#[test]
fn an_inner_length_below_the_header_is_left_for_the_parser_to_refuse() {
    let (mut a, mut b) = connected();
    let mut lying = ipv4_packet(60);
    lying[2..4].copy_from_slice(&3u16.to_be_bytes());
    let datagram = a.seal(&lying).unwrap();
    let (opened, output, _) = b.open(&datagram);
    let Ok(Opened::Packet(length)) = opened else {
        panic!("{opened:?}")
    };
    assert_eq!(length, 3);
    assert!(crate::ip_packet::IpPacket::parse(&output[..length]).is_none());
}

#[test]
fn both_sides_may_start_the_handshake_at_once() {
    let (mut a, mut b) = pair();
    let (from_a, from_b) = (a.initiate(), b.initiate());
    let (_, _, answer_of_b) = b.open(&from_a);
    let (_, _, answer_of_a) = a.open(&from_b);
    let (_, _, keepalive_of_a) = a.open(&answer_of_b[0]);
    let (_, _, keepalive_of_b) = b.open(&answer_of_a[0]);
    for keepalive in &keepalive_of_a {
        b.open(keepalive).0.unwrap();
    }
    for keepalive in &keepalive_of_b {
        a.open(keepalive).0.unwrap();
    }
    let packet = ipv4_packet(100);
    let (there, back) = (a.seal(&packet).unwrap(), b.seal(&packet).unwrap());
    assert_eq!(b.open(&there).0, Ok(Opened::Packet(100)));
    assert_eq!(a.open(&back).0, Ok(Opened::Packet(100)));
}

proptest! {
    #[test]
    fn no_datagram_from_anybody_panics(mut datagram: Vec<u8>, kind in 0..6_u8) {
        let (_, mut b) = connected();
        if let Some(first) = datagram.first_mut() { *first = kind; }
        let _ = b.identity.initiator(None, &datagram, |_| ());
        prop_assert!(b.open(&datagram).0.is_err());
    }
}
