//! The directory: what replaces what, who holds what, and how two of them agree.

use std::net::Ipv4Addr;

use crate::membership::{
    certificate::{Certificate, Credential},
    descriptor::{Descriptor, Features},
    directory::{Admitted, Change, Directory},
    record::MemberRecord,
    rejection::Rejection,
    signer::Signer,
    sync::SyncMessage,
    testing::{Hive, NOW, applicant, founder, groups, later, name, signer},
    time::UnixTime,
};

const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 9, 9);

/// A credential as another delegate might have given it on the far side of a partition.
fn credential(hive: &Hive, node: &Signer, called: &str, admitted: u64) -> Credential {
    Credential {
        delegation: hive.delegation.clone(),
        certificate: Certificate {
            network: hive.network.id(),
            subject: node.key(),
            serial: 1,
            name: name(called),
            tier: 1,
            groups: groups(&[]),
            ipv4: ADDRESS,
            admitted_at: UnixTime(admitted),
            not_before: NOW,
            not_after: later(30),
            generation: 0,
            issuer: founder().key(),
        }
        .seal(&founder()),
    }
}

fn change(outcome: Result<Admitted, Rejection>) -> Change {
    outcome.unwrap().change
}

#[test]
fn a_replayed_older_descriptor_changes_nothing() {
    let mut hive = Hive::founded();
    let node = signer(1);
    let credential = hive.admit(&node, "gpu", None);
    let [two, three] = [2, 3].map(|seq| hive.record(&node, credential.clone(), "gpu", seq));
    assert_eq!(change(hive.directory.admit(&three, NOW)), Change::Updated);
    assert_eq!(change(hive.directory.admit(&two, NOW)), Change::Unchanged);
    assert_eq!(change(hive.directory.admit(&three, NOW)), Change::Unchanged);
    let known = hive.directory.get(&node.peer_id()).unwrap();
    assert_eq!(known.descriptor.seq, 3);
    assert_eq!(known.record.encode(), three);
}

#[test]
fn the_newer_half_of_each_record_is_kept() {
    let mut hive = Hive::founded();
    let node = signer(1);
    let old = hive.admit(&node, "gpu", None);
    let certificate = hive
        .directory
        .get(&node.peer_id())
        .unwrap()
        .certificate
        .clone();
    let new = hive.issuer.renew(&certificate, later(1)).unwrap();
    let renewed = hive.record(&node, new.clone(), "gpu", 1);
    let moved = hive.record(&node, old, "gpu", 5);
    for order in [[&renewed, &moved], [&moved, &renewed]] {
        let mut directory = hive.directory.clone();
        for record in order {
            assert_eq!(change(directory.admit(record, later(1))), Change::Updated);
        }
        let merged = hive.record(&node, new.clone(), "gpu", 5);
        assert_eq!(
            directory.get(&node.peer_id()).unwrap().record.encode(),
            merged
        );
    }
}

#[test]
fn two_descriptors_of_one_number_are_equivocation_and_the_first_stays() {
    let mut hive = Hive::founded();
    let node = signer(1);
    let credential = hive.admit(&node, "gpu", None);
    let other = hive.record(&node, credential, "another-name", 1);
    assert_eq!(
        hive.directory.admit(&other, NOW),
        Err(Rejection::DescriptorEquivocation)
    );
    let known = hive.directory.get(&node.peer_id()).unwrap();
    assert_eq!(known.descriptor.name, name("gpu"));
}

#[test]
fn two_certificates_of_one_number_are_equivocation_and_the_first_stays() {
    let mut hive = Hive::founded();
    let node = signer(1);
    for (admitted, verdict) in [(5, None), (4, Some(Rejection::CertificateEquivocation))] {
        let record = hive.record(&node, credential(&hive, &node, "gpu", admitted), "gpu", 1);
        assert_eq!(hive.directory.admit(&record, NOW).err(), verdict);
    }
}

/// The attack: show a member's WireGuard key as one's own, so that its tunnels are taken for ours.
#[test]
fn a_wireguard_key_stays_with_the_first_who_showed_it() {
    let mut hive = Hive::founded();
    hive.admit(&signer(1), "victim", None);
    let thief = signer(2);
    let credential = credential(&hive, &thief, "thief", 1);
    let stolen = Descriptor {
        wireguard_key: hive.descriptor(&signer(1), "victim", 1).wireguard_key,
        ..hive.descriptor(&thief, "thief", 1)
    };
    let record = MemberRecord {
        credential: credential.clone(),
        descriptor: stolen.seal(&thief),
    };
    assert_eq!(
        hive.directory.admit(&record.encode(), NOW),
        Err(Rejection::TunnelKeyTaken)
    );
    let honest = hive.record(&thief, credential, "thief", 1);
    assert_eq!(change(hive.directory.admit(&honest, NOW)), Change::New);
}

#[test]
fn the_older_member_keeps_a_contested_address_whoever_comes_first() {
    let hive = Hive::founded();
    let (older, younger) = (signer(1), signer(2));
    let records = [
        hive.record(&older, credential(&hive, &older, "a", 10), "a", 1),
        hive.record(&younger, credential(&hive, &younger, "b", 11), "b", 1),
    ];
    for order in [[0, 1], [1, 0]] {
        let mut directory = hive.directory.clone();
        let first = directory.admit(&records[order[0]], NOW).unwrap();
        assert!(first.disturbed.is_empty());
        let second = directory.admit(&records[order[1]], NOW).unwrap();
        // The younger learns that it lost the address, if it had it.
        let lost = (order == [1, 0]).then_some(younger.peer_id());
        assert_eq!(second.disturbed, lost.into_iter().collect());

        assert_eq!(directory.owner_of(ADDRESS.into()), Some(older.peer_id()));
        assert_eq!(directory.ipv4_of(&older.peer_id()), Some(ADDRESS));
        assert_eq!(directory.ipv4_of(&younger.peer_id()), None);
        let ipv6 = directory.get(&younger.peer_id()).unwrap().ipv6;
        assert_eq!(directory.owner_of(ipv6.into()), Some(younger.peer_id()));
    }
}

#[test]
fn equals_in_age_are_decided_the_same_everywhere() {
    let hive = Hive::founded();
    let nodes = [signer(1), signer(2), signer(3)];
    let records = nodes
        .each_ref()
        .map(|n| hive.record(n, credential(&hive, n, "a", 10), "a", 1));
    let holder = |order: [usize; 3]| {
        let mut directory = hive.directory.clone();
        for at in order {
            directory.admit(&records[at], NOW).unwrap();
        }
        (directory.owner_of(ADDRESS.into()), directory.resolve("a"))
    };
    let first = holder([0, 1, 2]);
    assert!(first.0.is_some() && first.0 == first.1);
    for order in [[0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        assert_eq!(holder(order), first);
    }
}

/// An invite was used here and its node never came; elsewhere the address was given to another.
#[test]
fn a_promise_takes_nothing_from_a_member() {
    let mut hive = Hive::founded();
    let absent = applicant(&signer(1), "gpu", Some(ADDRESS));
    hive.issuer.admit(absent, NOW, &mut hive.directory).unwrap();
    let member = signer(2);
    let certified = credential(&hive, &member, "gpu", NOW.0 + 1);
    let record = hive.record(&member, certified, "gpu", 1);
    hive.directory.admit(&record, NOW).unwrap();
    assert_eq!(hive.directory.ipv4_of(&member.peer_id()), Some(ADDRESS));
    assert_eq!(hive.directory.resolve("gpu"), Some(member.peer_id()));
}

#[test]
fn when_the_holder_expires_the_next_one_has_the_address() {
    let mut hive = Hive::founded();
    let (older, younger) = (signer(1), signer(2));
    let long = hive.issuer.clone();
    for (node, admitted) in [(&older, 10), (&younger, 11)] {
        let record = hive.record(node, credential(&hive, node, "a", admitted), "a", 1);
        hive.directory.admit(&record, NOW).unwrap();
    }
    let certificate = hive
        .directory
        .get(&younger.peer_id())
        .unwrap()
        .certificate
        .clone();
    let renewed = long.renew(&certificate, later(20)).unwrap();
    let record = hive.record(&younger, renewed, "a", 2);
    hive.directory.admit(&record, later(20)).unwrap();

    let expired = hive.directory.expire(later(31));
    assert!(expired.gone.contains(&older.peer_id()));
    assert!(expired.disturbed.contains(&younger.peer_id()));
    assert_eq!(
        hive.directory.owner_of(ADDRESS.into()),
        Some(younger.peer_id())
    );
    assert_eq!(hive.directory.resolve("a"), Some(younger.peer_id()));
    assert!(hive.directory.get(&older.peer_id()).is_none());
}

#[test]
fn a_contested_name_stays_with_the_older_and_both_can_be_reached() {
    let mut hive = Hive::founded();
    let (older, younger) = (signer(1), signer(2));
    for (node, admitted) in [(&younger, 11), (&older, 10)] {
        let record = hive.record(node, credential(&hive, node, "gpu", admitted), "gpu", 1);
        hive.directory.admit(&record, NOW).unwrap();
    }
    let shown = |node: &Signer| hive.directory.name_of(&node.peer_id()).unwrap();
    let digits = younger.key().as_bytes()[..2]
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect::<String>();
    assert_eq!(shown(&older), name("gpu"));
    assert_eq!(shown(&younger).to_string(), format!("gpu-{digits}"));
    assert_eq!(hive.directory.resolve("gpu"), Some(older.peer_id()));
    assert_eq!(
        hive.directory.resolve(shown(&younger).as_str()),
        Some(younger.peer_id())
    );
}

/// The attack: rename oneself to a member that others trust by its name.
#[test]
fn a_self_chosen_name_never_beats_a_certified_one() {
    let mut hive = Hive::founded();
    let (old, new) = (signer(1), signer(2));
    let old_credential = hive.admit(&old, "old", None);
    hive.admit(&new, "bank", None);
    let renamed = hive.record(&old, old_credential, "bank", 2);
    assert_eq!(change(hive.directory.admit(&renamed, NOW)), Change::Updated);
    assert_eq!(hive.directory.resolve("bank"), Some(new.peer_id()));
    // Its certified name still finds it.
    assert_eq!(hive.directory.resolve("old"), Some(old.peer_id()));
}

#[test]
fn a_rename_is_seen_at_once() {
    let mut hive = Hive::founded();
    let node = signer(1);
    let credential = hive.admit(&node, "gpu", None);
    let renamed = hive.record(&node, credential, "render", 2);
    hive.directory.admit(&renamed, NOW).unwrap();
    assert_eq!(
        hive.directory.name_of(&node.peer_id()),
        Some(name("render"))
    );
    assert_eq!(hive.directory.resolve("Render"), Some(node.peer_id()));
}

#[test]
fn members_are_found_by_name_address_and_peer_id() {
    let mut hive = Hive::founded();
    let node = signer(1);
    hive.admit(&node, "gpu", Some(ADDRESS));
    let member = hive.directory.get(&node.peer_id()).unwrap();
    for text in [
        "gpu",
        " GPU ",
        "10.77.9.9",
        &member.ipv6.to_string(),
        &node.peer_id().to_string(),
    ] {
        assert_eq!(hive.directory.resolve(text), Some(node.peer_id()), "{text}");
    }
    for text in [
        "",
        "cpu",
        "10.77.9.8",
        "::1",
        &signer(9).peer_id().to_string(),
    ] {
        assert_eq!(hive.directory.resolve(text), None, "{text}");
    }
}

#[test]
fn an_expired_record_is_refused_and_a_known_one_forgotten() {
    let mut hive = Hive::founded();
    let credential = hive.admit(&signer(1), "gpu", None);
    let record = hive.record(&signer(1), credential, "gpu", 2);
    assert!(hive.directory.expire(later(29)).gone.is_empty());
    assert_eq!(hive.directory.expire(later(31)).gone.len(), 2);
    assert!(hive.directory.is_empty());
    assert_eq!(hive.directory.resolve("gpu"), None);
    assert_eq!(
        hive.directory.admit(&record, later(31)),
        Err(Rejection::Expired)
    );
}

/// One round, as the shell would carry it out.
fn synchronise(asking: &mut Directory, answering: &mut Directory) {
    let carry = |message: SyncMessage| SyncMessage::decode(&message.encode()).unwrap();
    let SyncMessage::Digest(digest) = carry(SyncMessage::Digest(asking.digest())) else {
        panic!("a digest was sent");
    };
    let SyncMessage::Answer(answer) = carry(SyncMessage::Answer(answering.answer(&digest))) else {
        panic!("an answer was sent");
    };
    for record in answer.news.iter() {
        asking.admit(record, NOW).unwrap();
    }
    let wanted = SyncMessage::Records(asking.records_wanted(&answer));
    let SyncMessage::Records(records) = carry(wanted) else {
        panic!("records were sent");
    };
    for record in records.iter() {
        answering.admit(record, NOW).unwrap();
    }
}

fn records(directory: &Directory) -> Vec<Vec<u8>> {
    directory.members().map(|m| m.record.encode()).collect()
}

#[test]
fn two_directories_with_different_halves_agree_after_one_exchange() {
    let mut left = Hive::founded();
    let mut right = left.clone();
    for n in 1..=20 {
        let hive = if n % 2 == 0 { &mut left } else { &mut right };
        hive.admit(&signer(n), &format!("node-{n}"), None);
    }
    // Of one member each side knows something newer: here the certificate, there the descriptor.
    let shared = signer(30);
    let credential = left.admit(&shared, "shared", None);
    let certificate = left
        .directory
        .get(&shared.peer_id())
        .unwrap()
        .certificate
        .clone();
    let newer = right.record(&shared, credential.clone(), "shared", 7);
    right.directory.admit(&newer, NOW).unwrap();
    let soon = UnixTime(NOW.0 + 1);
    let renewed = left.issuer.renew(&certificate, soon).unwrap();
    let renewed = left.record(&shared, renewed, "shared", 1);
    left.directory.admit(&renewed, soon).unwrap();

    synchronise(&mut left.directory, &mut right.directory);
    assert_eq!(left.directory.len(), 22);
    assert_eq!(records(&left.directory), records(&right.directory));
    let settled = left.directory.answer(&right.directory.digest());
    assert!(settled.is_settled(), "{settled:?}");
}

#[test]
fn what_does_not_fit_one_message_comes_with_the_next() {
    let mut full = Hive::founded();
    let mut empty = Directory::new(full.network.genesis().clone());
    // Records that are as large as they may be: 32 addresses of 200 bytes.
    let address = format!("/dns4/{}.example/udp/4001/quic-v1", "x".repeat(180));
    for n in (1..=180).filter(|n| *n != 100) {
        let node = signer(n);
        let credential = full.admit(&node, &format!("node-{n}"), None);
        let descriptor = Descriptor {
            addresses: vec![address.parse().unwrap(); 32],
            features: Features::RELAY,
            ..full.descriptor(&node, "big", 2)
        };
        let record = MemberRecord {
            credential,
            descriptor: descriptor.seal(&node),
        };
        let outcome = full.directory.admit(&record.encode(), NOW);
        assert_eq!(change(outcome), Change::Updated);
    }
    let answer = full.directory.answer(&empty.digest());
    assert!(answer.news.more, "{} records fit", answer.news.len());
    let mut rounds = 0;
    while !full.directory.answer(&empty.digest()).is_settled() {
        synchronise(&mut empty, &mut full.directory);
        rounds += 1;
        assert!(rounds < 10, "no progress");
    }
    assert_eq!(records(&empty), records(&full.directory));
}

#[test]
fn a_member_without_news_sends_nothing() {
    let hive = Hive::founded();
    let answer = hive.directory.answer(&hive.directory.digest());
    assert!(answer.is_settled());
}
