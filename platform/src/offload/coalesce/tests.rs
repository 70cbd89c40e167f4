use std::convert::Infallible;

use proptest::prelude::*;

use super::super::headers::set_number;
use super::super::sample::{Sample, checksum, timestamp};
use super::super::segment::segment;
use super::*;

/// A frame as the kernel would get it, and the packets in it by their index.
struct Merged {
    frame: Vec<u8>,
    packets: Vec<usize>,
}

fn merge_with(coalescer: &mut Coalescer, packets: &[Vec<u8>]) -> Vec<Merged> {
    let slices: Vec<&[u8]> = packets.iter().map(Vec::as_slice).collect();
    let mut frames = vec![];
    let result = coalescer.coalesce(&slices, |parts, count| {
        let payloads = &parts[parts.len() - count..];
        let origin = |part: &IoSlice<'_>| {
            let holds = |packet: &&[u8]| packet.as_ptr_range().contains(&part.as_ptr());
            slices
                .iter()
                .position(holds)
                .expect("payload is not copied")
        };
        frames.push(Merged {
            frame: parts.iter().flat_map(|part| part.to_vec()).collect(),
            packets: payloads.iter().map(origin).collect(),
        });
        Ok::<_, Infallible>(())
    });
    result.unwrap_or_else(|never| match never {});
    frames
}

fn merge(packets: &[Vec<u8>]) -> Vec<Merged> {
    merge_with(&mut Coalescer::new(true), packets)
}

/// The packets of each frame.
fn groups(packets: &[Vec<u8>]) -> Vec<Vec<usize>> {
    merge(packets)
        .into_iter()
        .map(|merged| merged.packets)
        .collect()
}

fn cut(mut frame: Vec<u8>) -> Vec<Vec<u8>> {
    let mut packets = vec![];
    segment(&mut frame, |packet| packets.push(packet.to_vec())).unwrap();
    packets
}

fn bytes(run: &[Sample]) -> Vec<Vec<u8>> {
    run.iter().map(Sample::bytes).collect()
}

#[test]
fn a_run_becomes_bursts_of_at_most_64_packets() {
    for kind in Sample::kinds() {
        let packets = bytes(&kind.run(100, 500));
        let merged = merge(&packets);
        let sizes: Vec<_> = merged.iter().map(|merged| merged.packets.len()).collect();
        assert_eq!(sizes, [64, 36], "{kind:?}");
        let back: Vec<_> = merged
            .into_iter()
            .flat_map(|merged| cut(merged.frame))
            .collect();
        assert_eq!(back, packets);
    }
}

#[test]
fn a_burst_never_outgrows_a_packet() {
    for kind in Sample::kinds() {
        let merged = merge(&bytes(&kind.run(60, 1380)));
        assert_eq!(merged.len(), 2);
        assert!(merged[0].frame.len() <= VnetHeader::LEN + 65_535);
        assert!(
            merged[0].frame.len() + 1380 > VnetHeader::LEN + 65_535,
            "there was room"
        );
    }
}

#[test]
fn the_frame_says_how_to_take_it_apart() {
    let run = Sample::new(false, false).run(3, 1000);
    let merged = merge(&bytes(&run));
    let mut whole = run[0].clone();
    whole.payload = run
        .iter()
        .flat_map(|packet| packet.payload.clone())
        .collect();
    let header = VnetHeader::Burst(Burst {
        kind: BurstKind::Tcp4,
        headers: 52,
        payload: 1000,
        checksum: Some(ChecksumPlace {
            start: 20,
            offset: 16,
        }),
    });
    assert_eq!(merged.len(), 1);
    assert_eq!(
        merged[0].frame,
        [&header.to_bytes()[..], &whole.unsummed()].concat()
    );
}

#[test]
fn a_shorter_packet_is_the_last_of_its_group() {
    for kind in Sample::kinds() {
        let mut run = kind.run(2, 100);
        for size in [99, 100, 100] {
            run.push(run[run.len() - 1].next(vec![3; size]));
        }
        assert_eq!(groups(&bytes(&run)), [vec![0, 1, 2], vec![3, 4]]);
    }
}

#[test]
fn a_pushed_packet_is_the_last_of_its_group() {
    let mut run = Sample::new(true, false).run(5, 100);
    for pushed in [0, 2] {
        run[pushed].flags |= PSH;
    }
    let packets = bytes(&run);
    assert_eq!(groups(&packets), [vec![0], vec![1, 2], vec![3, 4]]);
    assert!(
        merge(&packets)
            .into_iter()
            .flat_map(|merged| cut(merged.frame))
            .eq(packets)
    );
}

#[test]
fn flows_are_merged_side_by_side() {
    let flows: Vec<_> = Sample::kinds()
        .iter()
        .map(|kind| kind.run(5, 100))
        .collect();
    let packets: Vec<_> = (0..5)
        .flat_map(|index| flows.iter().map(move |flow| flow[index].bytes()))
        .collect();
    let expected: Vec<Vec<usize>> = (0..4)
        .map(|flow| (0..5).map(|index| 4 * index + flow).collect())
        .collect();
    assert_eq!(groups(&packets), expected);
}

#[test]
fn more_flows_than_are_kept_open_lose_merging_but_no_order() {
    let flow = |port: usize| {
        Sample::new(false, true)
            .with(|packet| packet.port = port as u16)
            .run(3, 100)
    };
    let flows: Vec<_> = (0..MAX_OPEN + 1).map(flow).collect();
    let packets: Vec<_> = (0..3)
        .flat_map(|index| flows.iter().map(move |flow| flow[index].bytes()))
        .collect();
    assert!(
        groups(&packets)
            .into_iter()
            .eq((0..packets.len()).map(|index| vec![index]))
    );
}

#[test]
fn udp_stays_as_it_is_when_the_kernel_takes_no_udp_bursts() {
    let packets = [
        bytes(&Sample::new(false, true).run(3, 100)),
        bytes(&Sample::new(false, false).run(3, 100)),
    ]
    .concat();
    let merged = merge_with(&mut Coalescer::new(false), &packets);
    let groups: Vec<_> = merged.iter().map(|merged| merged.packets.clone()).collect();
    assert_eq!(groups, [vec![0], vec![1], vec![2], vec![3, 4, 5]]);
}

#[test]
fn nothing_is_left_over_for_the_next_batch() {
    let mut coalescer = Coalescer::new(true);
    let packets = bytes(&Sample::new(false, false).run(4, 100));
    for half in packets.chunks(2) {
        let merged = merge_with(&mut coalescer, half);
        assert_eq!(merged.len(), 1);
        assert_eq!(cut(merged[0].frame.clone()), half);
    }
    assert!(merge_with(&mut coalescer, &[]).is_empty());
}

#[test]
fn an_id_that_never_counts_is_no_obstacle_where_it_means_nothing() {
    let fixed = |ip_flags| {
        let run = Sample::new(false, false).run(3, 100).into_iter();
        bytes(
            &run.map(|packet| packet.with(|packet| (packet.id, packet.ip_flags) = (0, ip_flags)))
                .collect::<Vec<_>>(),
        )
    };
    assert_eq!(groups(&fixed(DONT_FRAGMENT)), [[0, 1, 2]]);
    assert_eq!(
        groups(&fixed(0)),
        [[0], [1], [2]],
        "each may be cut into fragments told apart by their id"
    );

    let mut half = Sample::new(false, false).run(4, 100);
    (half[1].id, half[3].id) = (half[0].id, half[2].id);
    assert_eq!(
        groups(&bytes(&half)),
        [[0, 1], [2, 3]],
        "neither fixed nor counted up"
    );
}

/// Changes to a packet, each with its name.
type Obstacles = Vec<(&'static str, Box<dyn Fn(&mut Sample)>)>;

/// What makes the middle packet of a run one that must not join the packets before it.
fn obstacles(packet: &Sample) -> Obstacles {
    let mut all: Obstacles = vec![
        ("another sender", Box::new(|packet| packet.source += 1)),
        ("another port", Box::new(|packet| packet.port += 1)),
        ("another protocol", Box::new(|packet| packet.udp ^= true)),
        ("another version", Box::new(|packet| packet.v6 ^= true)),
        ("congestion", Box::new(|packet| packet.class ^= 3)),
        ("another class", Box::new(|packet| packet.class ^= 0x80)),
        ("another hop count", Box::new(|packet| packet.hops -= 1)),
        ("more payload", Box::new(|packet| packet.payload.push(0))),
        ("no payload", Box::new(|packet| packet.payload.clear())),
    ];
    let v4: Obstacles = vec![
        ("may be fragmented", Box::new(|packet| packet.ip_flags = 0)),
        ("more fragments", Box::new(|packet| packet.ip_flags |= 0x20)),
        ("fragment", Box::new(|packet| packet.ip_flags = 1)),
        ("reserved flag", Box::new(|packet| packet.ip_flags |= 0x80)),
        (
            "id jumps",
            Box::new(|packet| packet.id = packet.id.wrapping_add(2)),
        ),
        (
            "id goes back",
            Box::new(|packet| packet.id = packet.id.wrapping_sub(2)),
        ),
        (
            "options",
            Box::new(|packet| packet.ip_options = Some((0, vec![1, 1, 1, 1]))),
        ),
    ];
    let v6: Obstacles = vec![
        ("flow label", Box::new(|packet| packet.flow_label += 1)),
        (
            "extension",
            Box::new(|packet| {
                packet.ip_options = Some((
                    60,
                    vec![if packet.udp { 17 } else { 6 }, 0, 1, 4, 0, 0, 0, 0],
                ));
            }),
        ),
    ];
    all.extend(if packet.v6 { v6 } else { v4 });
    if !packet.udp {
        for flag in [0x01, 0x02, 0x04, 0x20, 0x40, 0x80] {
            all.push(("flag", Box::new(move |packet| packet.flags |= flag)));
        }
        let tcp: Obstacles = vec![
            ("no acknowledgement", Box::new(|packet| packet.flags = 0)),
            ("reserved bits", Box::new(|packet| packet.reserved = 1)),
            (
                "acknowledges more",
                Box::new(|packet| packet.acknowledged += 1),
            ),
            ("window", Box::new(|packet| packet.window += 1)),
            ("urgent pointer", Box::new(|packet| packet.urgent += 1)),
            (
                "timestamp",
                Box::new(|packet| packet.options = timestamp(2)),
            ),
            ("fewer options", Box::new(|packet| packet.options.clear())),
            (
                "more options",
                Box::new(|packet| packet.options.extend([1; 4])),
            ),
            (
                "gap",
                Box::new(|packet| packet.sequence = packet.sequence.wrapping_add(1)),
            ),
            (
                "again",
                Box::new(|packet| packet.sequence = packet.sequence.wrapping_sub(100)),
            ),
        ];
        all.extend(tcp);
    }
    all
}

fn together(groups: &[Vec<usize>], one: usize, other: usize) -> bool {
    groups
        .iter()
        .any(|group| group.contains(&one) && group.contains(&other))
}

#[test]
fn what_cutting_would_not_give_back_is_not_merged() {
    for kind in Sample::kinds() {
        let run = kind.run(5, 100);
        assert_eq!(groups(&bytes(&run)), [[0, 1, 2, 3, 4]]);
        for (obstacle, change) in obstacles(&kind) {
            let mut run = run.clone();
            change(&mut run[2]);
            let groups = groups(&bytes(&run));
            assert!(!together(&groups, 1, 2), "{obstacle}: {groups:?} {kind:?}");
            // A shorter packet may follow the longer one.
            assert!(
                obstacle == "more payload" || !together(&groups, 2, 3),
                "{obstacle}: {groups:?} {kind:?}"
            );
            let positions: Vec<_> = groups.concat();
            let same_flow = !obstacle.starts_with("another ")
                || ["another class", "another hop count"].contains(&obstacle);
            if same_flow {
                assert_eq!(positions, [0, 1, 2, 3, 4], "{obstacle} changed the order");
            }
        }
    }
}

/// Damage that the fields of a packet do not show.
type Damage = Box<dyn Fn(&mut Vec<u8>)>;

#[test]
fn a_packet_with_a_wrong_checksum_or_length_stays_alone() {
    for kind in Sample::kinds() {
        let good = bytes(&kind.run(5, 100));
        let transport = kind.ip_length();
        let checksum = transport + if kind.udp { 6 } else { 16 };
        let mut damages: Vec<Damage> = vec![
            Box::new(|packet| packet[99] ^= 1),
            Box::new(move |packet| packet[checksum] ^= 1),
            Box::new(|packet| packet.push(0)),
            Box::new(|packet| packet.truncate(packet.len() - 1)),
        ];
        if !kind.v6 {
            damages.push(Box::new(|packet| packet[10] ^= 1));
        }
        if kind.udp {
            damages.push(Box::new(move |packet| {
                packet[checksum..checksum + 2].fill(0)
            }));
            // Less length, as much more checksum.
            damages.push(Box::new(move |packet| {
                let (length, sum) = (number(packet, transport + 4), number(packet, checksum));
                set_number(packet, transport + 4, length - 1);
                set_number(packet, checksum, sum + 1);
            }));
        }
        for (number, damage) in damages.iter().enumerate() {
            for place in 0..5 {
                let mut packets = good.clone();
                damage(&mut packets[place]);
                let groups = groups(&packets);
                assert!(
                    groups.contains(&vec![place]),
                    "damage {number} at {place}: {groups:?} {kind:?}"
                );
                assert_eq!(groups.concat(), [0, 1, 2, 3, 4]);
            }
        }
    }
}

/// A ones' complement sum has two zeros. Cutting writes the usual one; for UDP the other one means no checksum at all.
#[test]
fn a_checksum_in_its_unusual_form_stays_alone() {
    for kind in Sample::kinds() {
        let (usual, unusual) = if kind.udp { (0xff, 0) } else { (0, 0xff) };
        let mut run = kind.run(3, 100);
        let at = kind.ip_length() + if kind.udp { 6 } else { 16 };
        // The word that makes the sum complete is the checksum the packet has without it.
        run[1].payload[..2].fill(0);
        let without = run[1].bytes();
        run[1].payload[..2].copy_from_slice(&without[at..at + 2]);
        let mut packets = bytes(&run);
        assert_eq!(packets[1][at..at + 2], [usual; 2]);
        assert_eq!(groups(&packets), [[0, 1, 2]]);
        packets[1][at..at + 2].fill(unusual);
        assert_eq!(groups(&packets), [[0], [1], [2]]);
    }
}

#[test]
fn an_ip_checksum_in_its_unusual_form_stays_alone() {
    for udp in [false, true] {
        let first = Sample::new(false, udp).with(|packet| packet.id = 0);
        // The id makes the sum complete.
        let id = number(&first.run(1, 100)[0].bytes(), 10);
        let mut packets = bytes(&first.with(|packet| packet.id = id).run(2, 100));
        assert_eq!(packets[0][10..12], [0; 2]);
        assert_eq!(groups(&packets), [[0, 1]]);
        packets[0][10..12].fill(0xff);
        assert_eq!(groups(&packets), [[0], [1]]);
    }
}

/// Even if every packet has it, and cutting would give it back.
#[test]
fn what_is_unusual_is_not_merged() {
    let unusual = [
        "options",
        "extension",
        "reserved flag",
        "reserved bits",
        "flag",
        "no acknowledgement",
    ];
    for kind in Sample::kinds() {
        for (name, change) in obstacles(&kind) {
            if unusual.contains(&name) {
                let mut run = kind.run(3, 100);
                run.iter_mut().for_each(&change);
                assert_eq!(groups(&bytes(&run)), [[0], [1], [2]], "{name} {kind:?}");
            }
        }
    }
}

#[test]
fn a_pure_acknowledgement_stays_between_the_data_around_it() {
    let mut run = Sample::new(false, false).run(4, 100);
    run[2] = run[2].with(|ack| ack.payload.clear());
    run[3].sequence = run[2].sequence;
    assert_eq!(groups(&bytes(&run)), [vec![0, 1], vec![2], vec![3]]);
}

#[test]
fn what_belongs_to_no_flow_stays_between_everything_around_it() {
    let run = bytes(&Sample::new(false, true).run(4, 100));
    let echo = [
        &[0x45, 0, 0, 28, 0, 0, 0, 0, 64, 1, 0, 0][..],
        &[10; 8],
        &[8, 0, 0, 0, 0, 0, 0, 0],
    ]
    .concat();
    let fragment = Sample::new(false, true)
        .with(|packet| (packet.ip_flags, packet.port) = (1, 6000))
        .bytes();
    for odd in [echo, fragment, vec![0x45], vec![0xff; 60], vec![0x60; 45]] {
        let packets = [&run[..2], &[odd], &run[2..]].concat();
        assert_eq!(groups(&packets), [vec![0, 1], vec![2], vec![3, 4]]);
    }
}

/// One packet of a batch: which flow, how long, and what is odd about it.
#[derive(Clone, Debug)]
struct Step {
    flow: usize,
    size: usize,
    obstacle: Option<usize>,
    pushed: bool,
    damage: Option<(usize, u8)>,
    noise: Option<Vec<u8>>,
}

fn step() -> impl Strategy<Value = Step> {
    let size = prop_oneof![6 => Just(100_usize), 1 => 0..100_usize, 1 => Just(120_usize)];
    let obstacle = prop::option::weighted(0.1, 0..40_usize);
    let damage = prop::option::weighted(0.05, (0..140_usize, any::<u8>()));
    let noise = prop::option::weighted(0.03, prop::collection::vec(any::<u8>(), 1..80));
    (
        0..6_usize,
        size,
        obstacle,
        prop::bool::weighted(0.1),
        damage,
        noise,
    )
        .prop_map(|(flow, size, obstacle, pushed, damage, noise)| Step {
            flow,
            size,
            obstacle,
            pushed,
            damage,
            noise,
        })
}

/// The batch that the steps describe: six flows side by side.
fn batch(steps: &[Step]) -> Vec<Vec<u8>> {
    let mut flows: Vec<_> = Sample::kinds().into();
    flows.push(Sample::new(false, false).with(|packet| (packet.port, packet.ip_flags) = (6000, 0)));
    flows.push(Sample::new(true, true).with(|packet| packet.port = 6000));
    let packets = steps.iter().enumerate().map(|(number, step)| {
        let flow = &mut flows[step.flow];
        *flow = flow.next(vec![number as u8; step.size]);
        let mut sample = flow.clone();
        if step.pushed {
            sample.flags |= PSH;
        }
        if let Some(obstacle) = step.obstacle {
            let obstacles = obstacles(&sample);
            obstacles[obstacle % obstacles.len()].1(&mut sample);
        }
        let mut packet = sample.bytes();
        if let Some((at, byte)) = step.damage {
            let at = at % packet.len();
            packet[at] = byte;
        }
        step.noise.clone().unwrap_or(packet)
    });
    packets.collect()
}

/// What names a packet's flow; nothing for a packet whose order counts among all flows.
fn flow(packet: &[u8]) -> Option<Vec<u8>> {
    let headers = Headers::locate(packet).ok()?;
    let kind = [headers.version as u8, headers.transport as u8];
    Some([&kind, headers.addresses(packet), headers.ports(packet)].concat())
}

/// Packets of a group whose IPv4 ids are all equal come back with ids that count up.
fn counted_up(mut group: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let fixed = |pair: &[Vec<u8>]| pair[0][0] >> 4 == 4 && pair[0][4..6] == pair[1][4..6];
    if group.len() > 1 && group.windows(2).all(fixed) {
        let first = number(&group[0], 4);
        for (index, packet) in group.iter_mut().enumerate() {
            packet[4..6].copy_from_slice(&first.wrapping_add(index as u16).to_be_bytes());
            packet[10..12].fill(0);
            let sum = checksum(&packet[..20]).to_be_bytes();
            packet[10..12].copy_from_slice(&sum);
        }
    }
    group
}

proptest! {
    #[test]
    fn cutting_gives_back_what_was_merged_and_no_flow_changes_order(
        steps in prop::collection::vec(step(), 0..150)
    ) {
        let packets = batch(&steps);
        let merged = merge(&packets);
        for Merged { frame, packets: indexes } in &merged {
            prop_assert!(indexes.len() <= MAX_PACKETS && frame.len() <= VnetHeader::LEN + 65_535);
            let before: Vec<_> = indexes.iter().map(|index| packets[*index].clone()).collect();
            prop_assert_eq!(cut(frame.clone()), counted_up(before));
        }
        let order: Vec<usize> = merged.into_iter().flat_map(|merged| merged.packets).collect();
        let mut place = vec![usize::MAX; packets.len()];
        order.iter().enumerate().for_each(|(at, index)| place[*index] = at);
        prop_assert!(order.len() == packets.len() && !place.contains(&usize::MAX), "lost or doubled");
        let flows: Vec<_> = packets.iter().map(|packet| flow(packet)).collect();
        for later in 0..packets.len() {
            for earlier in 0..later {
                let ordered = flows[earlier] == flows[later] || flows[earlier].is_none() || flows[later].is_none();
                prop_assert!(!ordered || place[earlier] < place[later], "{earlier} and {later} changed places");
            }
        }
    }

    #[test]
    fn no_bytes_make_it_panic(packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..120), 0..20)) {
        merge(&packets);
    }
}
