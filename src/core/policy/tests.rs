//! What policies mean, whatever way they are written down.

use proptest::{collection::vec, prelude::*, sample::subsequence};

use super::{
    testing::{policy, rule},
    *,
};
use crate::membership::Name;

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn member(name_: &str, groups: &[&str]) -> Subject {
    Subject {
        peer: None,
        name: Some(name(name_)),
        groups: groups.iter().map(|group| name(group)).collect(),
    }
}

fn allows(policy: &Policy, from: &Subject, to: &Subject, port: &str) -> bool {
    let traffic = port.parse().unwrap();
    policy.decide(from, to, traffic, None).allowed
}

#[test]
fn each_mode_says_what_may_begin_where_no_rule_does() {
    let (a, b) = (member("a", &[]), member("b", &[]));
    let ssh = "tcp/22".parse().unwrap();
    let exposed = Exposed::from([ssh]);
    let decide = |mode, port: &str, exposed| {
        let policy = Policy::of(mode);
        let verdict = policy.decide(&a, &b, port.parse().unwrap(), exposed);
        (verdict.allowed, verdict.by.to_string())
    };
    assert!(decide(Mode::Open, "tcp/22", None).0);
    assert!(!decide(Mode::Closed, "icmp", Some(&exposed)).0);
    for open in ["icmp", "udp/53", "tcp/53", "tcp/22"] {
        assert!(decide(Mode::Published, open, Some(&exposed)).0, "{open}");
    }
    assert!(!decide(Mode::Published, "tcp/80", Some(&exposed)).0);
    let (allowed, why) = decide(Mode::Published, "tcp/80", None);
    assert!(!allowed && why.contains("only the destination"), "{why}");
    // What only the destination can refuse, the source does not refuse.
    let reachable = Policy::of(Mode::Published).reachable(&a, &b, None);
    assert!(reachable.is_everything());
}

#[test]
fn a_denial_wins_and_the_verdict_names_it() {
    let policy = policy(
        Mode::Open,
        &["allow group:dev gpu tcp", "deny laptop gpu tcp/22"],
    );
    let (laptop, gpu) = (member("laptop", &["dev"]), member("gpu", &[]));
    assert!(!allows(&policy, &laptop, &gpu, "tcp/22"));
    assert!(allows(&policy, &laptop, &gpu, "tcp/23"));
    assert!(allows(&policy, &gpu, &laptop, "tcp/22"));
    let verdict = policy.decide(&laptop, &gpu, "tcp/22".parse().unwrap(), None);
    assert_eq!(
        verdict.by.to_string(),
        "rule: deny from laptop to gpu on tcp/22"
    );
}

#[test]
fn whom_a_rule_names_need_not_exist() {
    let policy = policy(Mode::Closed, &["allow group:nobody,ghost * any"]);
    assert!(!allows(&policy, &member("a", &[]), &member("b", &[]), "22"));
    assert!(allows(
        &policy,
        &member("ghost", &[]),
        &member("b", &[]),
        "22"
    ));
    assert_eq!(Policy::decode(&policy.encode()), Ok(policy));
}

#[test]
fn a_test_fails_when_the_policy_says_otherwise() {
    let test = |expect| Test {
        from: "group:dev".parse().unwrap(),
        to: "gpu".parse().unwrap(),
        port: "tcp/22".parse().unwrap(),
        expect,
    };
    let rules = [rule("allow group:dev gpu tcp/22")];
    let tests = [test(Action::Allow), test(Action::Deny)];
    let policy = Policy::new(Mode::Closed, rules, tests.clone()).unwrap();
    let failed = policy.failed_tests(|_| None);
    assert_eq!(failed.len(), 1);
    assert_eq!(failed[0].0, &tests[1]);
    // A member of that name may be in a group that the rule means not.
    let gpu_is_gone =
        |selector: &Selector| matches!(selector, Selector::Node(_)).then(|| member("other", &[]));
    assert_eq!(policy.failed_tests(gpu_is_gone)[0].0, &tests[0]);
}

#[test]
fn what_is_too_much_or_means_nothing_is_refused() {
    let many = (0..=MAX_RULES).map(|at| rule(&format!("deny n{at} * any")));
    let too_many = Policy::new(Mode::Open, many, []).unwrap_err();
    assert_eq!(too_many.to_string(), "a policy has at most 1024 rules");
    let mut empty = rule("deny a b any");
    empty.from.clear();
    assert!(matches!(
        Policy::new(Mode::Open, [empty], []),
        Err(PolicyError::Empty(_))
    ));
    let mut chatty = rule("deny a b any");
    chatty.note = Some("x".repeat(MAX_NOTE + 1));
    assert!(Policy::new(Mode::Open, [chatty], []).is_err());
}

#[test]
fn a_policy_of_a_later_format_is_refused_as_a_whole() {
    let mut body = Policy::of(Mode::Open).encode();
    assert_eq!(body[..3], [0xa4, 0, FORMAT]);
    body[2] = 2;
    assert_eq!(Policy::decode(&body), Err(PolicyError::OtherFormat(2)));
}

fn selectors() -> impl Strategy<Value = Selector> {
    let words = ["*", "a", "b", "c", "group:x", "group:y"];
    proptest::sample::select(words.to_vec()).prop_map(|word| word.parse().unwrap())
}

fn ports() -> impl Strategy<Value = Service> {
    let words = ["any", "tcp", "udp", "icmp", "tcp/22", "tcp/20-30", "any/53"];
    proptest::sample::select(words.to_vec()).prop_map(|word| word.parse().unwrap())
}

fn rules() -> impl Strategy<Value = Rule> {
    (
        any::<bool>(),
        vec(selectors(), 1..3),
        vec(selectors(), 1..3),
        vec(ports(), 1..3),
    )
        .prop_map(|(allow, from, to, ports)| Rule {
            action: if allow { Action::Allow } else { Action::Deny },
            from: from.into_iter().collect(),
            to: to.into_iter().collect(),
            ports: ports.into_iter().collect(),
            note: None,
        })
}

fn modes() -> impl Strategy<Value = Mode> {
    prop_oneof![Just(Mode::Open), Just(Mode::Published), Just(Mode::Closed)]
}

fn subjects() -> impl Strategy<Value = Subject> {
    let name = proptest::sample::select(vec!["a", "b", "c"]);
    (name, subsequence(vec!["x", "y"], 0..=2)).prop_map(|(name, groups)| member(name, &groups))
}

const ASKED: [&str; 7] = [
    "tcp/22", "tcp/25", "tcp/53", "udp/53", "udp/9", "icmp", "tcp/80",
];

proptest! {
    #[test]
    fn the_order_of_rules_means_nothing(
        mode in modes(), rules in vec(rules(), 0..8).prop_flat_map(|rules| (Just(rules.clone()), Just(rules).prop_shuffle())),
        from in subjects(), to in subjects(),
    ) {
        let (one, other) = rules;
        let one = Policy::new(mode, one, []).unwrap();
        let other = Policy::new(mode, other, []).unwrap();
        prop_assert_eq!(one.encode(), other.encode());
        for port in ASKED {
            let traffic = port.parse().unwrap();
            prop_assert_eq!(one.decide(&from, &to, traffic, None), other.decide(&from, &to, traffic, None));
        }
    }

    #[test]
    fn one_more_denial_never_opens_anything(
        mode in modes(), rules in vec(rules(), 0..8), denial in rules(), from in subjects(), to in subjects(),
    ) {
        let before = Policy::new(mode, rules.clone(), []).unwrap();
        let denial = Rule { action: Action::Deny, ..denial };
        let after = Policy::new(mode, rules.into_iter().chain([denial]), []).unwrap();
        for port in ASKED {
            prop_assert!(allows(&before, &from, &to, port) || !allows(&after, &from, &to, port));
        }
    }

    #[test]
    fn what_is_worked_out_for_a_pair_agrees_with_the_rules(
        mode in modes(), rules in vec(rules(), 0..8), from in subjects(), to in subjects(), knows: bool,
    ) {
        let policy = Policy::new(mode, rules, []).unwrap();
        let exposed = Exposed::from(["tcp/80".parse().unwrap()]);
        let exposed = knows.then_some(&exposed);
        let reachable = policy.reachable(&from, &to, exposed);
        for port in ASKED {
            let traffic = port.parse().unwrap();
            let verdict = policy.decide(&from, &to, traffic, exposed);
            let may_be = verdict.allowed || verdict.by == Reason::UpToDestination;
            prop_assert_eq!(reachable.includes(traffic), may_be, "{}", port);
        }
    }

    #[test]
    fn every_policy_survives_its_encoding(mode in modes(), rules in vec(rules(), 0..20), note in "\\PC{0,40}") {
        let noted = rules.into_iter().map(|rule| Rule { note: Some(note.clone()), ..rule });
        let policy = Policy::new(mode, noted, []).unwrap();
        prop_assert_eq!(Policy::decode(&policy.encode()), Ok(policy));
    }

    #[test]
    fn a_damaged_policy_is_refused_or_another_one_but_never_a_panic(
        rules in vec(rules(), 1..4), at: prop::sample::Index, byte: u8,
    ) {
        let mut body = Policy::new(Mode::Closed, rules, []).unwrap().encode();
        let at = at.index(body.len());
        body[at] = byte;
        if let Ok(policy) = Policy::decode(&body) {
            prop_assert_eq!(Policy::decode(&policy.encode()), Ok(policy));
        }
    }

    #[test]
    fn random_bytes_are_no_policy(bytes: Vec<u8>) {
        prop_assert!(Policy::decode(&bytes).is_err());
    }
}
