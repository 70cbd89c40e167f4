//! Of two entries of one owner under one key, which one counts.

use proptest::prelude::*;

use super::*;
use crate::registry::replica::{MAX_LIVE, MAX_MARKS, MAX_SERVICES};

fn numbered(seq: u64, value: &[u8], lifetime: Duration) -> Draft {
    let mut draft = draft("a", value);
    draft.seq = seq;
    draft.lifetime = lifetime;
    draft
}

#[test]
fn five_beats_four_whatever_their_lifetimes_and_in_whichever_order() {
    let minute = Duration::from_secs(60);
    for (four, five) in [(minute, HOUR), (HOUR, minute)] {
        for first in [4, 5] {
            let mut reader = Reader::new();
            let drafts = [numbered(4, b"4", four), numbered(5, b"5", five)];
            let [a, b] = match first {
                4 => drafts,
                _ => [drafts[1].clone(), drafts[0].clone()],
            };
            reader.take(a).unwrap();
            let second = reader.take(b);
            if first == 5 {
                assert_eq!(second.unwrap_err(), Rejection::Outdated);
            }
            assert_eq!(reader.read("a"), [b"5"]);
        }
    }
}

#[test]
fn the_old_entry_does_not_come_back_when_the_new_one_is_over() {
    let mut reader = Reader::new();
    let old = reader.sealed(numbered(4, b"4", 40 * HOUR));
    let new = reader.sealed(numbered(5, b"5", Duration::from_secs(60)));
    reader.take_sealed(&old).unwrap();
    reader.take_sealed(&new).unwrap();
    for hours in [1, 20, 39] {
        reader.now = NOW.plus(hours * HOUR);
        reader.replica.expire(reader.now);
        assert_eq!(
            reader.judge(&old).unwrap_err(),
            Rejection::Outdated,
            "{hours} h"
        );
        assert!(reader.read("a").is_empty(), "{hours} h");
    }
    reader.now = NOW.plus(50 * HOUR);
    let (forgotten, _) = reader.replica.expire(reader.now);
    assert_eq!(forgotten.len(), 1);
    assert!(reader.replica.is_empty());
    let _ = reader.take_sealed(&old);
    assert!(reader.read("a").is_empty(), "its own time is over by now");
    reader.now = NOW.plus(40 * HOUR + crate::registry::entry::RETENTION);
    reader.replica.expire(reader.now);
    assert_eq!(reader.judge(&old).unwrap_err(), Rejection::Expired);
}

#[test]
fn whoever_learns_late_of_the_new_one_stops_reading_the_old_one() {
    let mut reader = Reader::new();
    reader.take(numbered(4, b"4", 40 * HOUR)).unwrap();
    let new = reader.sealed(numbered(5, b"5", Duration::from_secs(60)));
    reader.now = NOW.plus(HOUR);
    assert!(reader.take_sealed(&new).unwrap().is_news);
    assert!(reader.read("a").is_empty());
}

#[test]
fn a_tombstone_ends_an_entry_and_is_remembered_for_two_days_after_its_own_end() {
    let mut reader = Reader::new();
    let old = reader.sealed(numbered(4, b"4", 48 * HOUR));
    reader.take_sealed(&old).unwrap();
    let mut tombstone = numbered(5, b"", HOUR);
    tombstone.value = None;
    reader.take(tombstone).unwrap();
    assert!(reader.read("a").is_empty());
    reader.now = NOW.plus(47 * HOUR);
    reader.replica.expire(reader.now);
    assert_eq!(reader.judge(&old).unwrap_err(), Rejection::Outdated);
    reader.now = NOW.plus(49 * HOUR);
    reader.replica.expire(reader.now);
    assert!(reader.replica.is_empty());
}

#[test]
fn of_two_with_one_number_all_keep_the_same_one_and_the_owner_is_found_out() {
    let [one, other] = [b"x", b"y"].map(|value| Reader::new().sealed(numbered(4, value, HOUR)));
    let read = |first: &[u8], second: &[u8]| {
        let mut reader = Reader::new();
        reader.take_sealed(first).unwrap();
        let second = reader.pipeline().arrival(second, None);
        let is_found_out = match second {
            Ok(passed) => {
                reader.replica.put(passed.held, NOW);
                passed.equivocates
            }
            Err(refused) => refused.reason == Rejection::EntryEquivocation,
        };
        assert!(is_found_out);
        reader.read("a")[0].to_vec()
    };
    assert_eq!(read(&one, &other), read(&other, &one));
}

#[test]
fn ten_owners_under_one_key_are_all_kept() {
    let mut reader = Reader::new();
    for n in 10..20 {
        let owner = signer(n);
        reader.hive.admit(&owner, &format!("n{n}"), None);
        let mut draft = draft("a", &[n]);
        draft.owner = owner;
        reader.take(draft).unwrap();
    }
    assert_eq!(reader.read("a").len(), 10);
}

#[test]
fn an_owner_has_so_many_services_and_entries_and_may_replace_or_delete_them() {
    let mut reader = Reader::new();
    let service = crate::node::tests::registry::service(80);
    let value = crate::membership::wire::encode(&service);
    for n in 0..MAX_SERVICES {
        reader.take(draft(&format!("svc/s{n}"), &value)).unwrap();
    }
    let one_more = reader.take(draft("svc/more", &value));
    assert_eq!(one_more, Err(Rejection::OwnerFull));
    for n in MAX_SERVICES..MAX_LIVE {
        reader.take(draft(&format!("e{n}"), b"")).unwrap();
    }
    assert_eq!(reader.take(draft("more", b"")), Err(Rejection::OwnerFull));
    let mut again = draft("e100", b"again");
    again.seq += 1;
    reader.take(again).unwrap();
    let mut tombstone = draft("e101", b"");
    (tombstone.seq, tombstone.value) = (tombstone.seq + 1, None);
    reader.take(tombstone).unwrap();
    reader.take(draft("more", b"")).unwrap();
    let mut others = draft("svc/more", &value);
    others.owner = signer(2);
    reader.take(others).unwrap();
}

#[test]
fn an_owner_that_writes_and_deletes_without_end_runs_out_of_marks_not_we_out_of_memory() {
    let mut reader = Reader::new();
    let mut tombstone = draft("a", b"");
    tombstone.value = None;
    let tombstone = |n: usize| Draft {
        key: key(&format!("t{n}")),
        ..tombstone.clone()
    };
    for n in 0..MAX_MARKS {
        reader.take(tombstone(n)).unwrap();
    }
    assert_eq!(reader.take(tombstone(MAX_MARKS)), Err(Rejection::OwnerFull));
    assert_eq!(reader.replica.len(), MAX_MARKS);
}

#[test]
fn an_owner_has_so_many_bytes() {
    let mut reader = Reader::new();
    let taken = (0..MAX_LIVE)
        .take_while(|n| reader.take(draft(&format!("e{n}"), &[0; 6000])).is_ok())
        .count();
    assert!((80..86).contains(&taken), "{taken}");
    assert!(reader.replica.bytes() <= crate::registry::replica::MAX_BYTES);
}

#[test]
fn whoever_takes_most_of_a_full_registry_loses_first() {
    let mut reader = Reader::new();
    let mut full = Replica::default();
    let template = reader.judge(&reader.sealed(draft("a", b"1"))).unwrap();
    let mut put = |owner: &Signer, n: usize| {
        let mut held = template.clone();
        held.owner = owner.key();
        held.entry.owner = owner.peer_id();
        held.entry.key = key(&format!("e{n}"));
        held.hash = [0; 32];
        held.hash[..8].copy_from_slice(&(n as u64).to_be_bytes());
        held.hash[31] = owner.key().as_bytes()[0];
        full.put(held, NOW)
    };
    let (greedy, modest) = (signer(1), signer(2));
    for n in 0..crate::registry::replica::MAX_ALL {
        assert!(put(&greedy, n).is_news);
    }
    let newcomer = put(&modest, 0);
    assert!(newcomer.is_news);
    assert_eq!(newcomer.dropped.len(), 1);
    assert_eq!(newcomer.dropped[0].0, greedy.key());
    assert_eq!(full.len(), crate::registry::replica::MAX_ALL);
    reader.replica = full;
    assert_eq!(reader.replica.of_owner(&modest.key()).count(), 1);
}

/// A few owners, keys, numbers and values, so that they meet.
fn drafts() -> impl Strategy<Value = Vec<Draft>> {
    let one = (1u8..3, 0u8..3, 0u64..4, 0u8..3).prop_map(|(owner, place, seq, value)| {
        let mut draft = draft(&format!("k{place}"), &[value]);
        draft.owner = signer(owner);
        draft.seq = seq;
        if value == 0 {
            draft.value = None;
        }
        draft
    });
    proptest::collection::vec(one, 0..24)
}

fn merged<'a>(drafts: impl Iterator<Item = &'a Draft>) -> (Vec<Held>, [u8; 32]) {
    let mut reader = Reader::new();
    for draft in drafts {
        // What is refused is lower than what is there.
        let _ = reader.take(draft.clone());
    }
    let all = reader.replica.all().cloned().collect();
    (all, reader.replica.summary(|_| true))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn replicas_agree_whatever_the_order_and_however_often(drafts in drafts()) {
        let once = merged(drafts.iter());
        prop_assert_eq!(&once, &merged(drafts.iter().rev()));
        prop_assert_eq!(&once, &merged(drafts.iter().chain(&drafts)));
    }
}
