//! What all members must know, whatever the order in which they hear of it.

use proptest::{collection::vec, prelude::*, sample::Index};

use crate::membership::{
    certificate::{Certificate, Credential},
    delegation::{Delegation, GroupGrant, Powers},
    directory::Directory,
    issuer::Issuer,
    notice::{Author, DelegationEnd, Notice, PolicyUpdate, Revocation, Signing},
    notices::Notices,
    record::MemberRecord,
    rejection::Rejection,
    signer::{Signer, SignerKey},
    sync::SyncMessage,
    testing::{Hive, NOW, authority, founder, groups, later, name, signer},
    time::UnixTime,
};

fn delegation(hive: &Hive, to: &Signer, powers: Powers) -> Delegation {
    Delegation {
        network: hive.network.id(),
        delegate: to.key(),
        powers,
        groups: GroupGrant::Any,
        not_before: NOW,
        not_after: later(60),
    }
}

fn end(hive: &Hive, delegate: &Signer, until: UnixTime) -> DelegationEnd {
    DelegationEnd {
        network: hive.network.id(),
        delegate: delegate.key(),
        until,
    }
}

fn revocation(hive: &Hive, subject: &Signer, generation: u32) -> Revocation {
    Revocation {
        network: hive.network.id(),
        subject: subject.key(),
        generation,
        revoked_at: NOW,
        reason: "lost".to_owned(),
    }
}

fn update(hive: &Hive, version: u64, body: &[u8]) -> PolicyUpdate {
    PolicyUpdate {
        network: hive.network.id(),
        version,
        previous: [0; 32],
        body: body.to_vec(),
        set_at: NOW,
    }
}

fn take(hive: &mut Hive, notice: &Notice) -> Result<Option<Rejection>, Rejection> {
    let taken = hive.directory.take_notice(&notice.encode())?;
    Ok(taken.void)
}

/// A revocation of node 1 by node 50 under this delegation.
fn verdict(hive: &mut Hive, delegation: &Delegation, by: &Signer) -> Result<(), Rejection> {
    let envelope = delegation.seal(&authority());
    let notice = Notice::revocation(
        revocation(hive, &signer(1), 0),
        Signing::Delegate(by, &envelope),
    );
    take(hive, &notice).map(|_| ())
}

#[test]
fn a_delegate_that_exceeds_its_powers_is_refused() {
    let mut hive = Hive::founded();
    let delegate = signer(50);
    let all = delegation(&hive, &delegate, Powers::ALL);
    assert_eq!(verdict(&mut hive, &all, &delegate), Ok(()));
    let without = Delegation {
        powers: Powers::ADMIT | Powers::INVITE | Powers::POLICY | Powers::UPDATE,
        ..all.clone()
    };
    assert_eq!(
        verdict(&mut hive, &without, &delegate),
        Err(Rejection::MissingPower)
    );
    for (not_before, not_after) in [(UnixTime(NOW.0 + 1), later(60)), (NOW, UnixTime(NOW.0 - 1))] {
        let elsewhen = Delegation {
            not_before,
            not_after,
            ..all.clone()
        };
        assert_eq!(
            verdict(&mut hive, &elsewhen, &delegate),
            Err(Rejection::OutsideDelegation)
        );
    }
    assert_eq!(
        verdict(&mut hive, &all, &signer(51)),
        Err(Rejection::WrongIssuer)
    );

    let policy = delegation(&hive, &delegate, Powers::REVOKE).seal(&authority());
    let notice = Notice::policy(
        &update(&hive, 1, b"mine"),
        Signing::Delegate(&delegate, &policy),
    );
    assert_eq!(take(&mut hive, &notice), Err(Rejection::MissingPower));
}

#[test]
fn what_only_an_authority_may_sign_is_refused_from_others() {
    let mut hive = Hive::founded();
    let forged = Notice::end(&end(&hive, &founder(), NOW), &signer(66));
    assert_eq!(take(&mut hive, &forged), Err(Rejection::NotByAuthority));
    let forged = Notice::revocation(
        revocation(&hive, &founder(), 0),
        Signing::Authority(&signer(66)),
    );
    assert_eq!(take(&mut hive, &forged), Err(Rejection::NotByAuthority));
    let usurped = delegation(&hive, &signer(66), Powers::ALL).seal(&signer(66));
    assert_eq!(
        take(&mut hive, &Notice::Delegation(usurped)),
        Err(Rejection::DelegationNotByAuthority)
    );
}

#[test]
fn a_notice_of_another_network_is_refused() {
    let (mut ours, theirs) = (Hive::founded(), Hive::founded_as(8));
    let signing = Signing::Authority(&authority());
    for notice in [
        Notice::end(&end(&theirs, &founder(), NOW), &authority()),
        Notice::revocation(revocation(&theirs, &signer(1), 0), signing),
        Notice::policy(&update(&theirs, 1, b""), signing),
        Notice::Delegation(theirs.delegation.clone()),
    ] {
        assert_eq!(take(&mut ours, &notice), Err(Rejection::WrongNetwork));
    }
}

#[test]
fn a_notice_cannot_be_used_as_storage() {
    let mut hive = Hive::founded();
    let signing = Signing::Authority(&authority());
    let long = Revocation {
        reason: "x".repeat(5000),
        ..revocation(&hive, &signer(1), 0)
    };
    assert_eq!(
        take(&mut hive, &Notice::revocation(long, signing)),
        Ok(None)
    );
    let (kept, _) = hive
        .directory
        .notices()
        .revocation_of(&signer(1).key())
        .unwrap();
    assert_eq!(kept.reason.len(), 200, "it was cut");
    let long = update(&hive, 1, &vec![0; 33_000]);
    assert!(matches!(
        take(&mut hive, &Notice::policy(&long, signing)),
        Err(Rejection::TooLarge { .. })
    ));
}

#[test]
fn a_revocation_voids_every_generation_up_to_its_own() {
    let mut hive = Hive::founded();
    hive.admit(&signer(1), "gpu", None);
    let signing = Signing::Authority(&authority());
    let notice = Notice::revocation(revocation(&hive, &signer(1), 3), signing);
    take(&mut hive, &notice).unwrap();
    assert_eq!(hive.directory.enforce(NOW).gone, [signer(1).peer_id()]);
    let with = |generation| {
        let certificate = Certificate {
            network: hive.network.id(),
            subject: signer(1).key(),
            serial: 99_999_999_999,
            name: name("gpu"),
            tier: 1,
            groups: groups(&[]),
            ipv4: [10, 77, 3, 4].into(),
            admitted_at: NOW,
            not_before: NOW,
            not_after: later(30),
            generation,
            issuer: founder().key(),
        };
        let record = MemberRecord {
            credential: Credential {
                delegation: hive.delegation.clone(),
                certificate: certificate.seal(&founder()),
            },
            descriptor: hive.descriptor(&signer(1), "gpu", 1).seal(&signer(1)),
        };
        let admitted = hive.directory.clone().admit(&record.encode(), NOW);
        admitted.map(|admitted| admitted.peer)
    };
    for generation in 0..=3 {
        assert_eq!(with(generation), Err(Rejection::Revoked), "{generation}");
    }
    assert_eq!(with(4), Ok(signer(1).peer_id()));
}

#[test]
fn a_name_and_an_address_are_free_once_their_owner_is_expelled() {
    let mut hive = Hive::founded();
    let ipv4 = Some([10, 77, 0, 9].into());
    hive.admit(&signer(1), "gpu", ipv4);
    let signing = Signing::Authority(&authority());
    let notice = Notice::revocation(revocation(&hive, &signer(1), 0), signing);
    take(&mut hive, &notice).unwrap();
    hive.directory.enforce(NOW);
    let next = hive.admit(&signer(2), "gpu", ipv4);
    let (next, _) = next.open(hive.network.genesis()).unwrap();
    assert_eq!((next.name, Some(next.ipv4)), (name("gpu"), ipv4));
}

/// Everything that a quarrelsome network could say: three delegates, their ends, everybody expelling everybody.
fn quarrel(hive: &Hive) -> Vec<Vec<u8>> {
    let delegates = [signer(50), signer(51), founder()];
    let envelopes: Vec<_> = delegates
        .iter()
        .map(|delegate| delegation(hive, delegate, Powers::ALL).seal(&authority()))
        .collect();
    let authority = authority();
    let mut signers = vec![Signing::Authority(&authority)];
    signers.extend(
        delegates
            .iter()
            .zip(&envelopes)
            .map(|(delegate, envelope)| Signing::Delegate(delegate, envelope)),
    );
    let mut all: Vec<_> = envelopes.iter().cloned().map(Notice::Delegation).collect();
    for until in [NOW.0 - 1, NOW.0] {
        all.push(Notice::end(
            &end(hive, &delegates[0], UnixTime(until)),
            &authority,
        ));
    }
    for (number, signing) in signers.into_iter().enumerate() {
        for subject in [1, 2, 50, 51, 100] {
            for generation in 0..2 {
                all.push(Notice::revocation(
                    revocation(hive, &signer(subject), generation),
                    signing,
                ));
            }
        }
        for version in 1..3 {
            let body = [number as u8];
            all.push(Notice::policy(&update(hive, version, &body), signing));
        }
    }
    all.iter().map(Notice::encode).collect()
}

/// What can be told apart from outside.
type Judgement = (
    Vec<[u8; 32]>,
    Vec<(SignerKey, u32, Author)>,
    Vec<SignerKey>,
    Option<PolicyUpdate>,
);

fn judgement(notices: &Notices) -> Judgement {
    let revoked = notices.revocations();
    let delegates = notices.delegations();
    (
        notices.ids().copied().collect(),
        revoked
            .map(|(revocation, author)| (revocation.subject, revocation.generation, author))
            .collect(),
        delegates
            .filter(|(_, _, has_ended)| !has_ended)
            .map(|(delegation, ..)| delegation.delegate)
            .collect(),
        notices.policy().map(|(policy, _)| policy.clone()),
    )
}

fn after(hive: &Hive, given: &[Vec<u8>]) -> Notices {
    let mut notices = Notices::default();
    for notice in given {
        notices.take(notice, hive.network.genesis()).unwrap();
    }
    notices
}

/// Two members compare until both know the same.
fn synchronise(one: &mut Directory, other: &mut Directory) {
    for _ in 0..4 {
        let answer =
            match SyncMessage::decode(&SyncMessage::Answer(other.answer(&one.digest())).encode()) {
                Ok(SyncMessage::Answer(answer)) => answer,
                other => panic!("{other:?}"),
            };
        for notice in answer.news.notices() {
            one.take_notice(notice).unwrap();
        }
        let wanted = one.records_wanted(&answer);
        for notice in wanted.notices() {
            other.take_notice(notice).unwrap();
        }
        if one.summary() == other.summary() {
            return;
        }
    }
    panic!("they do not agree");
}

#[test]
fn a_delegates_word_counts_until_its_delegation_ends_and_not_against_a_delegate() {
    let hive = Hive::founded();
    let notices = after(&hive, &quarrel(&hive));
    // 50 was ended and may be expelled by anybody, 51 and the founder by an authority only.
    assert_eq!(
        notices.delegations().filter(|(_, _, ended)| !ended).count(),
        2
    );
    assert!(notices.has_ended(&signer(50).key(), NOW));
    for (revocation, author) in notices.revocations() {
        assert_eq!((revocation.generation, author), (1, Author::Authority));
    }
    let without_authority: Vec<_> = quarrel(&hive)
        .into_iter()
        .filter(|notice| {
            let opened = Notice::decode(notice).unwrap();
            let is_by_authority = after(&hive, std::slice::from_ref(notice))
                .revocations()
                .any(|(_, author)| author == Author::Authority);
            !(matches!(opened, Notice::Revocation(_)) && is_by_authority)
        })
        .collect();
    let notices = after(&hive, &without_authority);
    let expelled: Vec<_> = notices.revocations().map(|(r, _)| r.subject).collect();
    let mut expected = [1, 2, 50].map(|n| signer(n).key());
    expected.sort();
    assert_eq!(expelled, expected);
}

/// The attack: fill every place, so that nobody else can be expelled.
#[test]
fn a_delegate_fills_no_more_places_than_are_reserved_for_one() {
    let mut hive = Hive::founded();
    let envelope = delegation(&hive, &signer(50), Powers::ALL).seal(&authority());
    let delegate = signer(50);
    let flood: Vec<_> = (0..1030u32)
        .map(|n| {
            let mut seed = [9; 32];
            seed[..4].copy_from_slice(&n.to_be_bytes());
            let victim = revocation(&hive, &Signer::from_seed(&seed), 0);
            Notice::revocation(victim, Signing::Delegate(&delegate, &envelope)).encode()
        })
        .collect();
    let forwards = after(&hive, &flood);
    let backwards: Vec<_> = flood.iter().rev().cloned().collect();
    assert_eq!(forwards.len(), 1024);
    assert!(forwards.ids().eq(after(&hive, &backwards).ids()));

    for notice in &flood {
        hive.directory.take_notice(notice).unwrap();
    }
    let founder = hive.issuer.signing(Powers::REVOKE, NOW).unwrap();
    let notice = Notice::revocation(revocation(&hive, &signer(1), 0), founder);
    take(&mut hive, &notice).unwrap();
    assert!(hive.directory.notices().is_revoked(&signer(1).key(), 0));
    // What does not fit one message comes with the next.
    let mut empty = Directory::new(hive.network.genesis().clone());
    for _ in 0..6 {
        let answer = hive.directory.answer(&empty.digest());
        assert!(SyncMessage::Answer(answer.clone()).encode().len() < 1024 * 1024);
        for notice in answer.news.notices() {
            empty.take_notice(notice).unwrap();
        }
    }
    assert!(empty.notices().ids().eq(hive.directory.notices().ids()));
}

/// Two delegates renew one certificate in the same second.
#[test]
fn two_renewals_with_one_serial_are_settled_the_same_way_everywhere() {
    let mut hive = Hive::founded();
    let first = hive.admit(&signer(1), "gpu", None);
    let (certificate, _) = first.open(hive.network.genesis()).unwrap();
    let genesis = hive.network.genesis().clone();
    let second = delegation(&hive, &signer(50), Powers::ALL);
    let second = Issuer::new(signer(50), second.seal(&authority()), genesis).unwrap();
    let renewed =
        [&hive.issuer, &second].map(|issuer| issuer.renew(&certificate, later(16)).unwrap());
    let records = renewed.map(|credential| hive.record(&signer(1), credential, "gpu", 1));
    let after = |order: [usize; 2]| {
        let mut directory = hive.directory.clone();
        for at in order {
            directory.admit(&records[at], later(16)).unwrap();
        }
        directory.get(&signer(1).peer_id()).unwrap().clone()
    };
    assert_eq!(after([0, 1]), after([1, 0]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_order_of_arrival_never_matters(
        picks in vec(any::<Index>(), 0..60),
        order in vec(any::<Index>(), 60),
    ) {
        let hive = Hive::founded();
        let all = quarrel(&hive);
        let given: Vec<_> = picks.iter().map(|pick| pick.get(&all).clone()).collect();
        let mut shuffled = given.clone();
        for (at, with) in order.iter().enumerate().take(given.len()) {
            shuffled.swap(at, with.index(given.len()));
        }
        prop_assert_eq!(judgement(&after(&hive, &given)), judgement(&after(&hive, &shuffled)));
    }

    #[test]
    fn members_that_compare_end_with_the_union(
        ours in vec(any::<Index>(), 0..40),
        theirs in vec(any::<Index>(), 0..40),
    ) {
        let hive = Hive::founded();
        let all = quarrel(&hive);
        let pick = |picks: &[Index]| picks.iter().map(|pick| pick.get(&all).clone()).collect::<Vec<_>>();
        let (ours, theirs) = (pick(&ours), pick(&theirs));
        let [mut one, mut other] = [&ours, &theirs].map(|given| {
            let mut directory = hive.directory.clone();
            given.iter().for_each(|notice| drop(directory.take_notice(notice)));
            directory
        });
        synchronise(&mut one, &mut other);
        let mut union = hive.directory.clone();
        ours.iter().chain(&theirs).for_each(|notice| drop(union.take_notice(notice)));
        prop_assert_eq!(judgement(one.notices()), judgement(union.notices()));
        prop_assert_eq!(judgement(other.notices()), judgement(union.notices()));
    }
}
