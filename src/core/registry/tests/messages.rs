//! Messages between members: any bytes, and two replicas page by page.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::{
    membership::{Name, SignerKey, wire},
    registry::{
        Load,
        sync::{LoadOf, MAX_RECORDS, Records, RegistryMessage, Versions, want},
    },
};

fn is_member(_: &SignerKey) -> bool {
    true
}

/// Brings `here` up to date by messages as they are encoded; returns how many it took and their bytes.
fn fetch(here: &mut Replica, there: &mut Replica, held: impl Fn(&[u8]) -> Held) -> (u32, usize) {
    let (mut messages, mut bytes) = (0, 0);
    let mut carry = |message: RegistryMessage| {
        let encoded = message.encode();
        assert!(encoded.len() <= wire::MAX_MESSAGE);
        (messages, bytes) = (messages + 1, bytes + encoded.len());
        RegistryMessage::decode(&encoded).unwrap()
    };
    let mut after = None;
    loop {
        let digest = carry(RegistryMessage::Digest(here.digest(after, is_member)));
        let RegistryMessage::Digest(digest) = digest else {
            panic!()
        };
        let versions = carry(RegistryMessage::Versions(
            there.versions(&digest, is_member),
        ));
        let RegistryMessage::Versions(Versions { owners, until }) = versions else {
            panic!()
        };
        let mut lacking = here.lacking(&owners);
        while !lacking.is_empty() {
            let asked: Vec<_> = lacking.iter().take(MAX_RECORDS).cloned().collect();
            let wanted = carry(RegistryMessage::Want(want(&lacking)));
            let RegistryMessage::Want(wanted) = wanted else {
                panic!()
            };
            let (records, looked_at) = there.records(&wanted);
            let records = carry(RegistryMessage::Records(records, looked_at));
            let RegistryMessage::Records(records, looked_at) = records else {
                panic!()
            };
            assert!(looked_at > 0);
            for sealed in records.iter() {
                here.put(held(sealed), NOW);
            }
            for entry in &asked[..looked_at as usize] {
                lacking.remove(entry);
            }
        }
        let Some(until) = until else {
            return (messages, bytes);
        };
        after = Some(until);
    }
}

/// A thousand owners with 64 entries each. Signing is not what is tested: the entries are made up.
#[test]
fn replicas_of_a_thousand_owners_with_64_entries_each_converge_page_by_page() {
    let owners: Vec<_> = (0..1000u32)
        .map(|n| {
            let mut seed = [7; 32];
            seed[..4].copy_from_slice(&n.to_be_bytes());
            Signer::from_seed(&seed).key()
        })
        .collect();
    let reader = Reader::new();
    let template = reader.judge(&reader.sealed(draft("a", b"1"))).unwrap();
    // What would be signed and sealed: owner, key and some more bytes.
    let made_up = |sealed: &[u8]| {
        let owner = SignerKey::from_bytes(sealed[..32].try_into().unwrap()).unwrap();
        let mut held = template.clone();
        held.owner = owner;
        held.entry.owner = owner.peer_id();
        held.entry.key = key(&format!("entry/number-{}", sealed[32]));
        held.sealed = sealed.to_vec();
        held.hash = sha2_of(sealed);
        held
    };
    let mut there = Replica::default();
    for owner in &owners {
        for n in 0..64u8 {
            let mut sealed = owner.as_bytes().to_vec();
            sealed.resize(500, n);
            there.put(made_up(&sealed), NOW);
        }
    }
    assert_eq!(there.len(), 64_000);
    let mut here = Replica::default();
    let (messages, bytes) = fetch(&mut here, &mut there, made_up);
    assert_eq!(here.summary(is_member), there.summary(is_member));
    println!("64 000 entries: {messages} messages, {bytes} bytes for 32 000 000");
    assert!(messages < 600 && bytes < 40_000_000, "{messages} {bytes}");
    let (messages, bytes) = fetch(&mut here, &mut there, made_up);
    println!("nothing new: {messages} messages, {bytes} bytes");
    assert_eq!(messages, 2);
}

fn sha2_of(bytes: &[u8]) -> [u8; 32] {
    use sha2::Digest as _;
    sha2::Sha256::digest(bytes).into()
}

#[test]
fn more_than_fits_a_message_is_cut_and_the_asker_knows_where() {
    let mut reader = Reader::new();
    for n in 0..150u32 {
        let mut draft = draft(&format!("e{n:03}"), &[0; 6000]);
        draft.owner = [signer(1), signer(2)][n as usize % 2].clone();
        reader.take(draft).unwrap();
    }
    let everything: BTreeSet<_> = reader
        .replica
        .all()
        .map(|held| (held.owner, held.entry.key.clone()))
        .collect();
    let (records, looked_at) = reader.replica.records(&want(&everything));
    assert_eq!(records.len(), looked_at as usize);
    assert!(records.len() < everything.len() && records.len() > 100);
    let encoded = RegistryMessage::Records(records, looked_at).encode();
    assert!(encoded.len() <= wire::MAX_MESSAGE);
}

#[test]
fn a_message_with_more_than_it_may_have_is_refused() {
    let one = LoadOf {
        name: Name::parse("a").unwrap(),
        load: Load::default(),
    };
    let decoded = |count| {
        let loads = RegistryMessage::Loads(vec![one.clone(); count]);
        RegistryMessage::decode(&loads.encode())
    };
    assert!(decoded(64).is_ok());
    assert!(decoded(65).is_err());
    let sealed = [b"x".as_slice(); 2 * MAX_RECORDS];
    let (records, is_all) = Records::pick(sealed);
    assert_eq!((records.len(), is_all), (MAX_RECORDS, false));
    let many: BTreeSet<_> = (0..400)
        .map(|n| (signer(1).key(), key(&format!("k{n}"))))
        .collect();
    let mut wanted = want(&many);
    assert!(RegistryMessage::decode(&RegistryMessage::Want(wanted.clone()).encode()).is_ok());
    wanted[0].keys.push(key("one-more"));
    assert!(RegistryMessage::decode(&RegistryMessage::Want(wanted).encode()).is_err());
}

proptest! {
    #[test]
    fn no_bytes_make_a_message_or_an_entry_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = RegistryMessage::decode(&bytes);
        prop_assert!(Reader::new().judge(&bytes).is_err());
    }

    #[test]
    fn sealed_rubbish_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let reader = Reader::new();
        prop_assert!(reader.judge(&reader.sealing.seal(&bytes)).is_err());
    }

    #[test]
    fn what_is_written_is_read_back(
        value in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..200)),
        place in "[a-z0-9._-]{1,20}(/[a-z0-9._-]{1,20}){0,4}",
        seq in 0..NOW.0 * 1000,
        lifetime in 60u64..172_800,
    ) {
        prop_assume!(!key(&place).is_for_services());
        let reader = Reader::new();
        let lifetime = Duration::from_secs(lifetime);
        let written = Draft { value: value.clone(), seq, lifetime, ..draft(&place, b"") };
        let entry = reader.judge(&reader.sealed(written)).unwrap().entry;
        prop_assert_eq!(entry, Entry {
            owner: signer(1).peer_id(),
            key: key(&place),
            seq,
            issued: NOW,
            expires: NOW.plus(lifetime),
            value,
        });
    }

    #[test]
    fn messages_survive_their_encoding(message in message()) {
        prop_assert_eq!(RegistryMessage::decode(&message.encode()), Ok(message));
    }
}

fn message() -> impl Strategy<Value = RegistryMessage> {
    let entries = proptest::collection::btree_set((1u8..9, "[a-z]{1,9}(/[a-z]{1,9})?"), 0..20);
    (entries, any::<[u8; 32]>(), 0u8..8).prop_map(|(entries, hash, kind)| {
        let mut reader = Reader::new();
        for (owner, place) in &entries {
            let mut draft = draft(place, b"value");
            draft.owner = signer(*owner);
            // Only members 1 and 2 are taken.
            let _ = reader.take(draft);
        }
        let all: BTreeSet<_> = entries
            .iter()
            .map(|(owner, place)| (signer(*owner).key(), key(place)))
            .collect();
        let replica = &mut reader.replica;
        let digest = replica.digest(None, is_member);
        let (records, _) = replica.records(&want(&all));
        let list: Vec<_> = all.iter().cloned().collect();
        match kind {
            0 => RegistryMessage::Announce(records),
            1 => RegistryMessage::Have(replica.versions_at(&list)),
            2 => RegistryMessage::Summary(hash),
            3 => RegistryMessage::Digest(digest),
            4 => {
                let nothing = Replica::default().digest(None, is_member);
                RegistryMessage::Versions(replica.versions(&nothing, is_member))
            }
            5 => RegistryMessage::Want(want(&all)),
            6 => RegistryMessage::Records(records, 7),
            _ => RegistryMessage::Get(key("a/b")),
        }
    })
}
