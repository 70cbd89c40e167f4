use proptest::prelude::*;

use super::super::sample::Sample;
use super::*;

/// What the kernel writes for the packets of `run`: the first one's headers, flags of first and last, all payloads.
fn burst(run: &[Sample]) -> Vec<u8> {
    let whole = run[0].with(|whole| {
        whole.flags |= run[run.len() - 1].flags;
        whole.payload = run
            .iter()
            .flat_map(|packet| packet.payload.clone())
            .collect();
    });
    let kind = match (run[0].udp, run[0].v6) {
        (true, _) => BurstKind::Udp,
        (false, false) => BurstKind::Tcp4,
        (false, true) => BurstKind::Tcp6,
    };
    let header = VnetHeader::Burst(Burst {
        kind,
        headers: 0,
        payload: run[0].payload.len() as u16,
        checksum: Some(place(&run[0])),
    });
    [&header.to_bytes()[..], &whole.unsummed()].concat()
}

fn place(packet: &Sample) -> ChecksumPlace {
    ChecksumPlace {
        start: packet.ip_length() as u16,
        offset: if packet.udp { 6 } else { 16 },
    }
}

fn cut_all(mut frame: Vec<u8>) -> Result<Vec<Vec<u8>>, FrameError> {
    let mut packets = vec![];
    let count = segment(&mut frame, |packet| packets.push(packet.to_vec()))?;
    assert_eq!(packets.len(), count);
    Ok(packets)
}

fn bytes(run: &[Sample]) -> Vec<Vec<u8>> {
    run.iter().map(Sample::bytes).collect()
}

#[test]
fn a_whole_packet_is_left_alone() {
    for packet in Sample::kinds() {
        let frame = [&[0; 10][..], &packet.bytes()].concat();
        assert_eq!(cut_all(frame), Ok(vec![packet.bytes()]));
    }
}

#[test]
fn a_missing_checksum_is_added() {
    for packet in Sample::kinds() {
        let packet = packet.with(|packet| packet.payload = b"hello".to_vec());
        let frame = [
            &VnetHeader::Unsummed(place(&packet)).to_bytes()[..],
            &packet.unsummed(),
        ]
        .concat();
        assert_eq!(cut_all(frame), Ok(vec![packet.bytes()]));
    }
}

#[test]
fn a_burst_becomes_the_packets_it_stands_for_with_counters_running_over() {
    for packet in Sample::kinds() {
        let mut run = packet.run(44, 1380);
        let last = run[43].next(b"short".to_vec());
        run.push(last);
        assert_eq!(cut_all(burst(&run)), Ok(bytes(&run)), "{packet:?}");
    }
}

#[test]
fn payloads_shorter_than_the_headers_survive_the_cutting_in_place() {
    for packet in Sample::kinds() {
        for size in [1, 2, 7, 39] {
            let run = packet.run(50, size);
            assert_eq!(cut_all(burst(&run)), Ok(bytes(&run)), "{packet:?}");
        }
    }
}

#[test]
fn the_end_of_data_is_told_last_and_a_reduced_window_first() {
    for v6 in [false, true] {
        let mut run = Sample::new(v6, false).run(3, 100);
        run[0].flags |= CWR;
        run[2].flags |= PSH | FIN;
        assert_eq!(cut_all(burst(&run)), Ok(bytes(&run)));
    }
}

#[test]
fn a_udp_checksum_of_zero_is_sent_as_its_other_form() {
    for v6 in [false, true] {
        // The word that makes the sum complete is the checksum the packet has without it.
        let complete = |packet: &mut Sample| {
            packet.payload = vec![0; 4];
            let (bytes, at) = (packet.bytes(), packet.ip_length() + 6);
            packet.payload[..2].copy_from_slice(&bytes[at..at + 2]);
        };
        let first = Sample::new(v6, true).with(complete);
        let run = [first.clone(), first.next(vec![]).with(complete)];
        let expected = bytes(&run);
        let at = run[0].ip_length() + 6;
        assert!(
            expected
                .iter()
                .all(|packet| packet[at..at + 2] == [0xff; 2])
        );
        assert_eq!(cut_all(burst(&run)), Ok(expected.clone()));

        let frame = [
            &VnetHeader::Unsummed(place(&run[0])).to_bytes()[..],
            &run[0].unsummed(),
        ]
        .concat();
        assert_eq!(cut_all(frame), Ok(expected[..1].to_vec()));
    }
}

#[test]
fn options_and_extension_headers_are_repeated_in_every_packet() {
    for udp in [false, true] {
        let protocol = if udp { 17 } else { 6 };
        let router_alert = vec![60, 0, 5, 2, 0, 0, 1, 0];
        let padding = vec![protocol, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let mut packet = Sample::new(true, udp);
        packet.ip_options = Some((0, [router_alert, padding].concat()));
        let run = packet.run(5, 1000);
        assert_eq!(cut_all(burst(&run)), Ok(bytes(&run)));

        let mut packet = Sample::new(false, udp);
        packet.ip_options = Some((0, vec![0x94, 4, 0, 0]));
        let run = packet.run(5, 1000);
        assert_eq!(cut_all(burst(&run)), Ok(bytes(&run)));
    }
}

#[test]
fn a_burst_that_cannot_be_cut_is_refused_before_anything_is_handed_over() {
    let refused = |change: &dyn Fn(&mut Sample)| {
        cut_all(burst(&Sample::new(true, false).with(change).run(2, 100))).unwrap_err()
    };
    let extension = |kind| {
        move |packet: &mut Sample| packet.ip_options = Some((kind, vec![6, 0, 0, 0, 0, 0, 0, 0]))
    };
    assert_eq!(refused(&extension(43)), HeadersError::Protocol(43).into());
    assert_eq!(refused(&extension(44)), HeadersError::Fragment.into());
    let long =
        |packet: &mut Sample| packet.ip_options = Some((0, [&[6, 30][..], &[0; 246]].concat()));
    assert_eq!(refused(&long), HeadersError::TooLong.into());

    let fragment = Sample::new(false, true).with(|packet| packet.ip_flags = 0x20);
    assert_eq!(
        cut_all(burst(&fragment.run(2, 100))),
        Err(HeadersError::Fragment.into())
    );
}

#[test]
fn a_frame_that_contradicts_itself_is_refused() {
    let good = burst(&Sample::new(false, false).run(2, 100));
    let changed = |at: usize, value: u8| {
        let mut frame = good.clone();
        frame[at] = value;
        cut_all(frame)
    };
    assert!(changed(1, 0x81).is_ok(), "congestion marks");
    assert!(changed(0, 0).is_ok(), "no checksum asked for");
    assert_eq!(changed(1, 4), Err(FrameError::Contradiction));
    assert_eq!(changed(1, 5), Err(FrameError::Contradiction));
    assert_eq!(changed(6, 21), Err(FrameError::Contradiction));
    assert_eq!(changed(8, 6), Err(FrameError::Contradiction));
    assert_eq!(changed(10, 0x50), Err(HeadersError::NotIp.into()));
    assert_eq!(changed(10, 0x44), Err(HeadersError::Truncated.into()));
    assert_eq!(changed(10 + 9, 1), Err(HeadersError::Protocol(1).into()));

    let headers_only = good[..10 + 20 + 32].to_vec();
    assert_eq!(cut_all(headers_only), Err(FrameError::PayloadSize));
    assert_eq!(
        cut_all(good[..10 + 51].to_vec()),
        Err(HeadersError::Truncated.into())
    );
    assert_eq!(
        cut_all(good[..10].to_vec()),
        Err(HeadersError::NotIp.into())
    );
}

#[test]
fn a_packet_longer_than_any_packet_is_never_made() {
    let mut frame = burst(&Sample::new(false, false).run(2, 1000));
    frame.resize(10 + 70_000, 0);
    frame[4..6].copy_from_slice(&65_500_u16.to_ne_bytes());
    assert_eq!(cut_all(frame), Err(FrameError::PayloadSize));
}

#[test]
fn a_checksum_outside_the_packet_is_refused() {
    for (start, offset) in [(0, 19), (19, 0), (u16::MAX, u16::MAX), (20, 0)] {
        let frame = [
            &VnetHeader::Unsummed(ChecksumPlace { start, offset }).to_bytes()[..],
            &[7; 20],
        ]
        .concat();
        assert_eq!(cut_all(frame), Err(FrameError::ChecksumOutside));
    }
}

/// Some frame: a good one with a few bytes changed and perhaps cut short.
fn damaged() -> impl Strategy<Value = Vec<u8>> {
    let changes = prop::collection::vec((0..140_usize, any::<u8>()), 0..6);
    (0..4_usize, 1..300_usize, changes, 0..1000_usize).prop_map(|(kind, size, changes, end)| {
        let mut frame = burst(&Sample::kinds()[kind].run(4, size));
        for (at, byte) in changes {
            let at = at % frame.len();
            frame[at] = byte;
        }
        frame.truncate(end.max(frame.len() / 2));
        frame
    })
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(frame in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = cut_all(frame);
    }

    #[test]
    fn no_damage_makes_it_panic_or_lose_count_of_the_payload(frame in damaged()) {
        let behind = frame.len().saturating_sub(VnetHeader::LEN);
        match cut_all(frame).as_deref() {
            Ok([packet]) => prop_assert_eq!(packet.len(), behind),
            Ok(packets) => {
                let headers = Headers::locate(&packets[0]).expect("it was just rebuilt").all;
                let payload: usize = packets.iter().map(|packet| packet.len() - headers).sum();
                prop_assert_eq!(headers + payload, behind);
            }
            Err(_) => {}
        }
    }

    #[test]
    fn any_burst_becomes_the_packets_it_stands_for(
        kind in 0..4_usize, count in 2..60_usize, size in 1..1000_usize, last in 1..1000_usize, flags: u8,
        id: u16, sequence: u32, seed: u8,
    ) {
        let mut first = Sample::kinds()[kind].clone();
        (first.id, first.sequence) = (id, sequence);
        let mut run = first.run(count, size);
        for (index, packet) in run.iter_mut().enumerate() {
            packet.payload.iter_mut().for_each(|byte| *byte = byte.wrapping_mul(31).wrapping_add(seed));
            if index > 0 { packet.flags = (flags | 0x10) & !CWR; } else { packet.flags = flags | 0x10; }
            if index + 1 < count { packet.flags &= !(PSH | FIN); }
        }
        run[count - 1].payload.truncate(last);
        prop_assert_eq!(cut_all(burst(&run)), Ok(bytes(&run)));
    }
}
