//! Who is asked first.

use super::{
    super::{
        catalog,
        tests::{named, network, serving},
    },
    *,
};

/// Two servers of one model, changed as the story wants.
fn two(change: impl Fn(&mut Offer, &mut Offer)) -> Vec<Offer> {
    let (us, gpu, desk) = (named("us").this(), named("gpu"), named("desk"));
    let services = [serving(&gpu, 1, &["llama"]), serving(&desk, 1, &["llama"])];
    let snapshot = network([us, gpu, desk], services);
    let mut offers = catalog::wanted(&snapshot, "llama", None).unwrap().offers;
    let [gpu, desk] = &mut offers[..] else {
        panic!("{offers:?}");
    };
    change(gpu, desk);
    offers
}

/// Whoever is asked first when chance says this for everybody.
fn first(balance: &Balance, offers: &[Offer]) -> String {
    let ordered = balance.order(offers.to_vec(), Instant::now(), || 0.5);
    assert_eq!(ordered.len(), offers.len(), "nobody is left out");
    ordered[0].node.clone()
}

fn load(active: u32, queued: u32, slots: u32) -> Option<Load> {
    Some(Load {
        active,
        queued,
        slots,
        ..Load::default()
    })
}

type Change = fn(&mut Offer, &mut Offer);

#[test]
fn the_less_busy_the_nearer_and_the_warm_one_is_asked_first() {
    let stories: [(&str, Change); 6] = [
        ("idle", |gpu, _| gpu.load = load(4, 0, 4)),
        ("has slots left", |gpu, desk| {
            (gpu.load, desk.load) = (load(2, 0, 2), load(4, 0, 8));
        }),
        ("no queue", |gpu, desk| {
            (gpu.load, desk.load) = (load(4, 9, 4), load(4, 0, 4));
        }),
        ("near", |gpu, desk| {
            gpu.rtt = Some(Duration::from_millis(150));
            desk.rtt = Some(Duration::from_millis(2));
        }),
        ("warm", |gpu, desk| {
            (gpu.loaded, desk.loaded) = (Some(false), Some(true))
        }),
        ("not degraded", |gpu, desk| {
            gpu.state = State::Degraded;
            desk.load = load(9, 9, 1);
        }),
    ];
    for (story, change) in stories {
        assert_eq!(first(&Balance::default(), &two(change)), "desk", "{story}");
    }
    // A warm model far away beats a queue next door.
    let offers = two(|gpu, desk| {
        gpu.load = load(3, 3, 2);
        desk.rtt = Some(Duration::from_millis(200));
    });
    assert_eq!(first(&Balance::default(), &offers), "desk");
}

#[test]
fn what_we_have_sent_there_counts_before_anybody_tells() {
    let balance = Balance::default();
    let offers = two(|gpu, desk| {
        gpu.rtt = Some(Duration::from_millis(1));
        desk.rtt = Some(Duration::from_millis(60));
    });
    assert_eq!(first(&balance, &offers), "gpu");
    let under_way = balance.begin(&offers[0]);
    assert_eq!(first(&balance, &offers), "desk");
    drop(under_way);
    assert_eq!(first(&balance, &offers), "gpu");
}

#[test]
fn what_is_told_is_not_counted_twice() {
    let balance = Balance::default();
    let mut offers = two(|_, _| ());
    let busy = |offer: &Offer| balance.standings()[&key(offer)].busy();
    let ours: Vec<_> = (0..3).map(|_| balance.begin(&offers[0])).collect();
    assert_eq!(busy(&offers[0]), 3);
    // Ours and one more.
    offers[0].load = load(4, 0, 8);
    first(&balance, &offers);
    assert_eq!(busy(&offers[0]), 4);
    let more = balance.begin(&offers[0]);
    assert_eq!(busy(&offers[0]), 5);
    drop((ours, more));
    assert_eq!(busy(&offers[0]), 1);
    // What it told may be old: ours are there for certain.
    let many: Vec<_> = (0..3).map(|_| balance.begin(&offers[0])).collect();
    offers[0].load = load(0, 0, 8);
    first(&balance, &offers);
    assert_eq!(busy(&offers[0]), 3);
    drop(many);
    assert_eq!(busy(&offers[0]), 0);
}

#[test]
fn who_failed_is_asked_last_until_it_answers_or_some_time_has_passed() {
    let balance = Balance::default();
    let offers = two(|_, desk| desk.rtt = Some(Duration::from_secs(1)));
    assert_eq!(first(&balance, &offers), "gpu");
    let now = Instant::now();
    balance.begin(&offers[0]).failed(now);
    assert_eq!(first(&balance, &offers), "desk");
    let later = balance.order(offers.clone(), now + DISTRUST, || 0.5);
    assert_eq!(later[0].node, "gpu");
    balance.begin(&offers[0]).answered();
    assert_eq!(first(&balance, &offers), "gpu");
}

#[test]
fn chance_parts_those_that_are_alike() {
    let offers = two(|_, _| ());
    let balance = Balance::default();
    let chosen: std::collections::BTreeSet<_> = [[0.0, 0.0, 1.0, 1.0], [1.0, 1.0, 0.0, 0.0]]
        .into_iter()
        .map(|chances| {
            let mut chances = chances.into_iter();
            let ordered = balance.order(offers.clone(), Instant::now(), || chances.next().unwrap());
            ordered[0].node.clone()
        })
        .collect();
    assert_eq!(chosen.len(), 2, "{chosen:?}");
}

#[test]
fn servers_that_are_gone_are_forgotten() {
    let balance = Balance::default();
    let offers = two(|_, _| ());
    let kept = balance.begin(&offers[0]);
    for _ in 0..=MAX_IDLE {
        first(&balance, &two(|_, _| ()));
    }
    assert!(balance.standings().len() <= MAX_IDLE + 2);
    assert!(balance.standings().contains_key(&key(&offers[0])));
    drop(kept);
}
