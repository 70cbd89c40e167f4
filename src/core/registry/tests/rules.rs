//! Predicates, for what arrives and for what is read.

use std::sync::Arc;

use super::*;
use crate::{
    membership::{
        Applicant, MemberRecord, Name,
        testing::{groups, name},
    },
    registry::{Candidate, KeyPattern, MaxBytes, Quota, Role, TimeWindow, Validator},
};

fn pattern(text: &str) -> KeyPattern {
    KeyPattern::parse(text).unwrap()
}

fn rules(keys: &str, predicates: Vec<Arc<dyn Validator>>) -> Rules {
    Rules::new().with(pattern(keys), predicates)
}

/// Two hours from now on.
fn window() -> TimeWindow {
    TimeWindow::Once {
        from: NOW,
        until: NOW.plus(2 * HOUR),
    }
}

/// Two readers with the same entries: the first has the rules when the entries arrive, the second only when they are read.
fn both(rules: &Rules, drafts: &[Draft]) -> [Reader; 2] {
    let [mut on_store, mut on_read] = [Reader::new(), Reader::new()];
    on_store.rules = rules.clone();
    for draft in drafts {
        // What is not taken cannot be read.
        let _ = on_store.take(draft.clone());
        on_read.take(draft.clone()).unwrap();
    }
    on_read.rules = rules.clone();
    [on_store, on_read]
}

#[test]
fn a_value_that_is_too_long_is_neither_stored_nor_read() {
    let rules = rules("a", vec![Arc::new(MaxBytes(3))]);
    for reader in both(&rules, &[draft("a", b"long")]) {
        assert!(reader.read("a").is_empty());
    }
    for reader in both(&rules, &[draft("a", b"str"), draft("b", b"whatever")]) {
        assert_eq!((reader.read("a").len(), reader.read("b").len()), (1, 1));
    }
}

#[test]
fn outside_its_window_nothing_is_stored_or_read() {
    let rules = rules("**", vec![Arc::new(window())]);
    for mut reader in both(&rules, &[draft("a", b"1")]) {
        assert_eq!(reader.read("a").len(), 1);
        reader.now = NOW.plus(2 * HOUR);
        assert!(reader.read("a").is_empty());
        let mut late = draft("b", b"1");
        late.issued = reader.now;
        assert_eq!(reader.take(late), Err(Rejection::OutsideWindow));
    }
}

#[test]
fn a_daily_window_may_reach_over_midnight() {
    let at = |hour: u64| UnixTime(1_700_006_400 / 86_400 * 86_400 + hour * 3600);
    let night = TimeWindow::Daily {
        from: 22 * 3600,
        until: 6 * 3600,
    };
    let open: Vec<u64> = (0..24).filter(|hour| night.is_open(at(*hour))).collect();
    assert_eq!(open, [0, 1, 2, 3, 4, 5, 22, 23]);
    let noon = TimeWindow::Daily {
        from: 12 * 3600,
        until: 13 * 3600,
    };
    assert!(noon.is_open(at(12)) && !noon.is_open(at(13)) && !noon.is_open(at(11)));
}

#[test]
fn a_quota_holds_for_each_owner_by_itself() {
    let quota = Quota {
        keys: pattern("w/*"),
        most: 2,
    };
    let rules = rules("**", vec![Arc::new(quota)]);
    let mut others = draft("w/1", b"");
    others.owner = signer(2);
    let all = [
        draft("w/1", b""),
        draft("w/2", b""),
        draft("w/3", b""),
        draft("x", b""),
        others,
    ];
    for mut reader in both(&rules, &all) {
        let read: Vec<_> = ["w/1", "w/2", "w/3", "x"]
            .map(|at| reader.read(at).len())
            .into();
        assert_eq!(read, [2, 1, 0, 1]);
        assert_eq!(
            reader.take(draft("w/4", b"")),
            Err(Rejection::QuotaExceeded)
        );
    }
    let [mut reader, _] = both(&rules, &all);
    let mut again = draft("w/1", b"again");
    again.seq += 1;
    reader.take(again).unwrap();
    assert!(
        reader.read("w/1").contains(&&b"again"[..]),
        "what is there may be replaced"
    );
}

#[test]
fn a_member_writes_below_its_own_name_only() {
    let rules = rules("homes/**", vec![Arc::new(pattern("homes/{owner}/**"))]);
    let all = [
        draft("homes/one/lamp", b"on"),
        draft("homes/two/lamp", b"off"),
    ];
    for mut reader in both(&rules, &all) {
        assert_eq!(reader.read("homes/one/lamp"), [b"on"]);
        assert!(reader.read("homes/two/lamp").is_empty());
        let elsewhere = reader.take(draft("homes/two/door", b""));
        assert_eq!(elsewhere, Err(Rejection::KeyForbidden));
    }
}

#[test]
fn only_who_is_in_the_group_writes() {
    let rules = rules("models/*", vec![Arc::new(Role(name("gpu")))]);
    for mut reader in both(&rules, &[draft("models/a", b"")]) {
        assert!(reader.read("models/a").is_empty());
        assert_eq!(
            reader.take(draft("models/b", b"")),
            Err(Rejection::RoleMissing)
        );
        let owner = signer(5);
        let applicant = Applicant {
            key: owner.key(),
            name: name("five"),
            groups: groups(&["gpu"]),
            ipv4: None,
            tier: 1,
        };
        let hive = &mut reader.hive;
        let credential = hive.issuer.admit(applicant, NOW, &mut hive.directory);
        let record = MemberRecord {
            credential: credential.unwrap(),
            descriptor: hive.descriptor(&owner, "five", 1).seal(&owner),
        };
        hive.directory.admit(&record.encode(), NOW).unwrap();
        let mut good = draft("models/b", b"");
        good.owner = owner;
        reader.take(good).unwrap();
        assert_eq!(reader.read("models/b").len(), 1);
    }
}

/// Where others lose the second one of two.
#[test]
fn all_predicates_of_all_rules_must_hold() {
    let first: Arc<dyn Validator> = Arc::new(MaxBytes(100));
    let second: Arc<dyn Validator> = Arc::new(MaxBytes(3));
    let sets = [
        rules("a", vec![first.clone(), second.clone()]),
        rules("a", vec![second.clone(), first.clone()]),
        rules("a", vec![first]).with(pattern("*"), vec![second]),
    ];
    for rules in sets {
        for mut reader in both(&rules, &[draft("a", b"long")]) {
            assert!(reader.read("a").is_empty());
            let taken = reader.take(Draft {
                owner: signer(2),
                ..draft("a", b"long")
            });
            assert_eq!(taken, Err(Rejection::TooLarge { limit: 3 }));
        }
    }
}

/// What an application would add.
#[derive(Debug)]
struct EvenLength;

impl Validator for EvenLength {
    fn name(&self) -> &str {
        "even-length"
    }

    fn validate(&self, candidate: &Candidate<'_>) -> Result<(), Rejection> {
        let length = candidate.entry.value.as_ref().map_or(0, Vec::len);
        (length % 2 == 0)
            .then_some(())
            .ok_or(Rejection::Unwanted("its length is odd"))
    }
}

#[test]
fn an_application_adds_a_validator_of_its_own() {
    let rules = rules("**", vec![Arc::new(EvenLength)]);
    for reader in both(&rules, &[draft("a", b"odd"), draft("b", b"even")]) {
        assert_eq!((reader.read("a").len(), reader.read("b").len()), (0, 1));
    }
}

#[test]
fn whoever_may_not_write_any_more_may_still_delete() {
    let mut reader = Reader::new();
    reader.take(draft("a", b"1")).unwrap();
    reader.rules = rules("**", vec![Arc::new(Role(name("gpu")))]);
    let mut tombstone = draft("a", b"");
    (tombstone.seq, tombstone.value) = (tombstone.seq + 1, None);
    assert!(reader.take(tombstone).unwrap().is_news);
}

#[test]
fn patterns_match_as_they_are_written() {
    let owner = Name::parse("one").unwrap();
    let matches = |text: &str, at: &str| pattern(text).matches(at, Some(&owner));
    for (text, good, bad) in [
        ("a", vec!["a"], vec!["b", "a/b", "aa"]),
        ("a/*", vec!["a/b", "a/bc"], vec!["a", "a/b/c", "b/a"]),
        ("a/**", vec!["a", "a/b", "a/b/c"], vec!["ab", "b/a"]),
        ("**", vec!["a", "a/b/c"], vec![]),
        ("**/x", vec!["x", "a/x", "a/b/x"], vec!["a/b", "x/a", "ax"]),
        (
            "a*c/*d",
            vec!["ac/d", "abbc/xd", "acc/dd"],
            vec!["ab/d", "abc/de", "ac"],
        ),
        (
            "a/**/z/**/b",
            vec!["a/z/b", "a/1/z/2/3/b", "a/z/z/b"],
            vec!["a/b", "a/z", "a/zz/b"],
        ),
        (
            "x/{owner}-*",
            vec!["x/one-", "x/one-1"],
            vec!["x/two-1", "x/one", "x/{owner}-1"],
        ),
    ] {
        assert!(good.iter().all(|at| matches(text, at)), "{text}: {good:?}");
        assert!(!bad.iter().any(|at| matches(text, at)), "{text}: {bad:?}");
    }
    assert!(!pattern("{owner}").matches("one", None));
    for bad in ["", "/", "a//b", "A", "a/***", "a/b**", "{name}", "a b"] {
        assert!(KeyPattern::parse(bad).is_err(), "{bad}");
    }
}
