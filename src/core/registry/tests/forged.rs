//! What nobody should believe.

use super::*;
use crate::membership::{
    envelope::{self, Domain},
    testing::later,
};

fn refusal(reader: &Reader, sealed: &[u8]) -> Rejection {
    reader.judge(sealed).expect_err("it is not to be believed")
}

#[test]
fn what_a_member_signed_is_believed_and_read() {
    let mut reader = Reader::new();
    assert!(reader.take(draft("a", b"1")).unwrap().is_news);
    assert_eq!(reader.read("a"), [b"1"]);
}

/// Member 2 signs an entry that names member 1 as its owner.
#[test]
fn an_entry_under_anothers_name_is_refused_wherever_it_comes_from() {
    let reader = Reader::new();
    let genuine = Entry::sign(
        &signer(1),
        reader.hive.network.id(),
        &key("a"),
        1,
        NOW,
        HOUR,
        Some(b"x".to_vec()),
    );
    let payload = envelope::open::<super::super::entry::Payload>(Domain::Entry, &genuine);
    let forged = envelope::seal(&signer(2), Domain::Entry, &payload.unwrap().payload);
    let sealed = reader.sealing.seal(&forged);
    assert_eq!(refusal(&reader, &sealed), Rejection::NotByOwner);
    let slot = (reader.hive.network).entry_slot(&signer(1).peer_id(), &key("a"));
    let refused = reader.pipeline().arrival(&sealed, Some(&slot)).unwrap_err();
    assert_eq!(refused.reason, Rejection::NotByOwner);
    assert!(refused.waiting.is_none(), "not even to wait for its owner");
}

#[test]
fn a_good_entry_in_anothers_place_is_refused() {
    let reader = Reader::new();
    let sealed = reader.sealed(draft("a", b"1"));
    let network = &reader.hive.network;
    let arrives = |slot: [u8; 32]| reader.pipeline().arrival(&sealed, Some(&slot)).map(drop);
    let refused = |slot| arrives(slot).unwrap_err().reason;
    let (one, two) = (signer(1).peer_id(), signer(2).peer_id());
    assert!(arrives(network.entry_slot(&one, &key("a"))).is_ok());
    for slot in [
        network.entry_slot(&one, &key("b")),
        network.entry_slot(&two, &key("a")),
    ] {
        assert_eq!(refused(slot), Rejection::WrongSlot);
    }
}

#[test]
fn every_flipped_bit_is_noticed_and_every_cut() {
    let reader = Reader::new();
    let sealed = reader.sealed(draft("a", b"1"));
    for at in 0..sealed.len() * 8 {
        let mut bent = sealed.clone();
        bent[at / 8] ^= 1 << (at % 8);
        refusal(&reader, &bent);
    }
    for end in 0..sealed.len() {
        refusal(&reader, &sealed[..end]);
    }
    let mut longer = sealed;
    longer.push(0);
    refusal(&reader, &longer);
}

#[test]
fn an_entry_has_one_sealed_form_and_tells_strangers_nothing() {
    let (reader, other) = (Reader::new(), Hive::founded_as(99));
    let sealed = reader.sealed(draft("weather", b"sunshine in the morning"));
    assert_eq!(
        sealed,
        reader.sealed(draft("weather", b"sunshine in the morning"))
    );
    assert!(
        !sealed
            .windows(7)
            .any(|bytes| bytes == b"weather" || bytes == b"sunshin")
    );
    let theirs = Sealing::of(&other.network);
    assert_eq!(theirs.unseal(&sealed), Err(Rejection::Unsealable));
}

#[test]
fn an_entry_for_another_network_is_refused() {
    let reader = Reader::new();
    let elsewhere = Hive::founded_as(99).network.id();
    let value = Some(b"1".to_vec());
    let signed = Entry::sign(&signer(1), elsewhere, &key("a"), 1, NOW, HOUR, value);
    let sealed = reader.sealing.seal(&signed);
    assert_eq!(refusal(&reader, &sealed), Rejection::WrongNetwork);
}

#[test]
fn a_signed_object_of_another_kind_is_no_entry() {
    let reader = Reader::new();
    let descriptor = reader
        .hive
        .descriptor(&signer(1), "one", 1)
        .seal(&signer(1));
    let sealed = reader.sealing.seal(&descriptor);
    assert_eq!(refusal(&reader, &sealed), Rejection::BadSignature);
}

#[test]
fn who_is_no_member_writes_nothing_and_who_was_one_is_not_read_any_more() {
    let mut reader = Reader::new();
    let mut stranger = draft("a", b"1");
    stranger.owner = signer(9);
    let sealed = reader.sealed(stranger);
    assert_eq!(refusal(&reader, &sealed), Rejection::UnknownOwner);

    reader.take(draft("a", b"1")).unwrap();
    let certificate_ends = later(31);
    reader.hive.directory.expire(certificate_ends);
    assert!(reader.read("a").is_empty());
}

#[test]
fn a_certificate_that_has_run_out_ends_what_its_owner_wrote_before_anybody_cleans_up() {
    let mut reader = Reader::new();
    let peer = signer(1).peer_id();
    let member = reader.hive.directory.get(&peer).unwrap();
    let last_second = member.certificate.not_after;
    reader.now = last_second;
    let mut last = draft("a", b"1");
    last.issued = reader.now;
    let sealed = reader.sealed(last);
    reader.take_sealed(&sealed).unwrap();
    assert_eq!(reader.read("a").len(), 1);
    reader.now = last_second.plus(Duration::from_secs(1));
    assert!(reader.read("a").is_empty());
    let mut late = draft("b", b"1");
    late.issued = reader.now;
    assert_eq!(refusal(&reader, &reader.sealed(late)), Rejection::Expired);
}

#[test]
fn times_out_of_bounds_are_refused() {
    let mut reader = Reader::new();
    let refused = |reader: &Reader, change: fn(&mut Draft)| {
        let mut draft = draft("a", b"1");
        change(&mut draft);
        refusal(reader, &reader.sealed(draft))
    };
    let from_tomorrow = |draft: &mut Draft| draft.issued = later(1);
    assert_eq!(refused(&reader, from_tomorrow), Rejection::NotYetValid);
    let far_ahead = |draft: &mut Draft| draft.seq = u64::MAX;
    assert_eq!(refused(&reader, far_ahead), Rejection::FromTheFuture);
    let long_ago = |draft: &mut Draft| draft.issued = UnixTime(NOW.0 - 50 * 3600);
    assert_eq!(refused(&reader, long_ago), Rejection::Expired);
    let skewed = UnixTime(NOW.0 + 300);
    let mut ahead = draft("b", b"1");
    ahead.issued = skewed;
    reader.take(ahead).unwrap();
    assert_eq!(reader.read("b").len(), 1, "clocks may be minutes apart");
}

#[test]
fn a_lifetime_is_clamped_when_it_is_signed_and_refused_when_somebody_signed_another() {
    let reader = Reader::new();
    for (asked, given) in [(0, 60), (59, 60), (61, 61), (48 * 3600 + 1, 48 * 3600)] {
        let mut draft = draft("a", b"1");
        draft.lifetime = Duration::from_secs(asked);
        let held = reader.judge(&reader.sealed(draft)).unwrap();
        assert_eq!(held.entry.expires.since(held.entry.issued).as_secs(), given);
    }
    for lifetime in [0, 59, 48 * 3600 + 1, u64::MAX] {
        let genuine = draft("a", b"1");
        let payload =
            super::super::entry::Payload::forged(&genuine.owner, &reader.hive.network, lifetime);
        let signed = envelope::seal(&genuine.owner, Domain::Entry, &payload);
        let sealed = reader.sealing.seal(&signed);
        assert_eq!(refusal(&reader, &sealed), Rejection::LifetimeOutOfBounds);
    }
}

#[test]
fn what_is_too_large_is_refused_before_it_is_unsealed() {
    let reader = Reader::new();
    let most = draft("a", &[0; 6 * 1024]);
    assert!(reader.judge(&reader.sealed(most)).is_ok());
    let longer = reader.sealed(draft("a", &[0; 6 * 1024 + 1]));
    assert_eq!(
        refusal(&reader, &longer),
        Rejection::TooLarge { limit: 6 * 1024 }
    );
    let limit = 8 * 1024;
    assert_eq!(
        refusal(&reader, &vec![1; limit + 1]),
        Rejection::TooLarge { limit }
    );
    assert_eq!(refusal(&reader, &[2; 80]), Rejection::UnknownVersion);
    assert_eq!(refusal(&reader, &[]), Rejection::Unsealable);
}

#[test]
fn the_longest_entry_there_can_be_fits() {
    let reader = Reader::new();
    let part = "k".repeat(63);
    let longest = [part.as_str(), &part, &part, &part[..61]].join("/");
    let mut draft = draft(&longest, &[0; 6 * 1024]);
    draft.owner = founder();
    reader.judge(&reader.sealed(draft)).unwrap();
}
