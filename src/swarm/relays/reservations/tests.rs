use super::*;

const NOW: fn() -> Instant = Instant::now;

fn relay(number: u8) -> (PeerId, Vec<Multiaddr>) {
    let address = format!("/ip4/203.0.113.{number}/udp/1/quic-v1");
    (PeerId::random(), vec![address.parse().unwrap()])
}

fn way(connection: Connection) -> Way {
    Way {
        connection,
        rtt: None,
    }
}

fn supervisor(relays: u8) -> Reservations {
    let mut reservations = Reservations::new(PeerId::random());
    reservations.offer((0..relays).map(relay).collect());
    reservations
}

fn dialed(step: Option<Step>) -> PeerId {
    let Some(Step::Dial { relay, .. }) = step else {
        panic!("{step:?} is no dial")
    };
    relay
}

fn reserve_with(reservations: &mut Reservations, now: Instant) -> (PeerId, ListenerId) {
    let step = reservations.next(now, true, |_| way(Connection::Ready));
    let Some(Step::Reserve { relay, .. }) = step else {
        panic!("{step:?} is no reservation")
    };
    let listener = ListenerId::next();
    reservations.on_listening(relay, listener);
    reservations.on_reserved(relay);
    (relay, listener)
}

#[test]
fn two_reservations_are_made_with_different_relays() {
    let (mut reservations, now) = (supervisor(5), NOW());
    let (first, _) = reserve_with(&mut reservations, now);
    let (second, _) = reserve_with(&mut reservations, now);
    assert_ne!(first, second);
    assert_eq!(
        reservations.next(now, true, |_| way(Connection::Ready)),
        None
    );
}

#[test]
fn a_node_with_a_public_address_reserves_nothing() {
    let mut reservations = supervisor(5);
    assert_eq!(
        reservations.next(NOW(), false, |_| way(Connection::Ready)),
        None
    );
}

#[test]
fn the_relay_is_connected_and_identified_before_it_is_asked() {
    let (mut reservations, now) = (supervisor(1), NOW());
    let relay = dialed(reservations.next(now, true, |_| way(Connection::None)));
    reservations.on_dialing(relay, ConnectionId::new_unchecked(7));
    assert_eq!(
        reservations.next(now, true, |_| way(Connection::Fresh)),
        None
    );
    assert_eq!(reserve_with(&mut reservations, now).0, relay);
}

#[test]
fn after_a_failed_dial_the_next_relay_has_its_turn() {
    let (mut reservations, now) = (supervisor(2), NOW());
    let first = dialed(reservations.next(now, true, |_| way(Connection::None)));
    reservations.on_dialing(first, ConnectionId::new_unchecked(1));
    assert!(reservations.on_dial_failed(ConnectionId::new_unchecked(1), now));
    assert!(!reservations.on_dial_failed(ConnectionId::new_unchecked(1), now));
    let second = dialed(reservations.next(now, true, |_| way(Connection::None)));
    assert_ne!(first, second);
    assert_eq!(
        reservations.next(now, true, |_| way(Connection::None)),
        None
    );
    let later = now + FIRST_PAUSE;
    assert_eq!(
        dialed(reservations.next(later, true, |_| way(Connection::None))),
        first
    );
}

#[test]
fn a_relay_that_neither_fails_nor_answers_is_given_up() {
    let (mut reservations, now) = (supervisor(3), NOW());
    let hung = dialed(reservations.next(now, true, |_| way(Connection::None)));
    dialed(reservations.next(now, true, |_| way(Connection::None)));
    assert_eq!(
        reservations.next(now, true, |_| way(Connection::None)),
        None
    );
    let other = dialed(reservations.next(now + PATIENCE, true, |_| way(Connection::None)));
    assert_ne!(hung, other);
}

#[test]
fn a_lost_reservation_is_made_again() {
    let (mut reservations, now) = (supervisor(1), NOW());
    let (relay, listener) = reserve_with(&mut reservations, now);
    reservations.on_listener_closed(listener, now);
    assert_eq!(
        reservations.next(now, true, |_| way(Connection::None)),
        None,
        "not at once"
    );
    let later = now + FIRST_PAUSE;
    assert_eq!(
        dialed(reservations.next(later, true, |_| way(Connection::None))),
        relay
    );
}

#[test]
fn pauses_grow_to_their_bound() {
    let (mut reservations, mut now) = (supervisor(1), NOW());
    for _ in 0..40 {
        let (relay, listener) = {
            let step = reservations.next(now, true, |_| way(Connection::Ready));
            let Some(Step::Reserve { relay, .. }) = step else {
                panic!("{step:?}")
            };
            (relay, ListenerId::next())
        };
        reservations.on_listening(relay, listener);
        reservations.on_listener_closed(listener, now); // refused
        now += LONGEST_PAUSE;
    }
    let relay = reservations.relays.values().next().unwrap();
    assert_eq!(relay.not_before, Some(now));
}

#[test]
fn a_relay_that_is_offered_no_more_is_kept_until_it_is_lost() {
    let (mut reservations, now) = (supervisor(1), NOW());
    let (_, listener) = reserve_with(&mut reservations, now);
    reservations.offer(vec![]);
    assert_eq!(reservations.relays.len(), 1);
    reservations.on_listener_closed(listener, now);
    assert_eq!(
        reservations.next(now + LONGEST_PAUSE, true, |_| way(Connection::None)),
        None
    );
    assert!(reservations.relays.is_empty());
}

#[test]
fn a_lost_reservation_is_replaced_by_another_relay_at_once() {
    let (mut reservations, now) = (supervisor(3), NOW());
    let (first, listener) = reserve_with(&mut reservations, now);
    let (second, _) = reserve_with(&mut reservations, now);
    reservations.on_listener_closed(listener, now);
    let (third, _) = reserve_with(&mut reservations, now);
    assert!(third != first && third != second);
}

/// Ready ways; the round trips of the relays in milliseconds.
fn ways(rtts: &BTreeMap<PeerId, u64>) -> impl Fn(&PeerId) -> Way {
    move |relay| Way {
        connection: Connection::Ready,
        rtt: rtts.get(relay).copied().map(Duration::from_millis),
    }
}

fn reserve_by(
    reservations: &mut Reservations,
    now: Instant,
    rtts: &BTreeMap<PeerId, u64>,
) -> (PeerId, ListenerId) {
    let step = reservations.next(now, true, ways(rtts));
    let Some(Step::Reserve { relay, .. }) = step else {
        panic!("{step:?} is no reservation")
    };
    let listener = ListenerId::next();
    reservations.on_listening(relay, listener);
    reservations.on_reserved(relay);
    (relay, listener)
}

fn peers(reservations: &Reservations) -> Vec<PeerId> {
    reservations.relays.keys().copied().collect()
}

#[test]
fn the_quickest_relays_are_preferred_but_not_for_three_milliseconds() {
    let mut reservations = supervisor(4);
    let relays = peers(&reservations);
    let mut rtts: BTreeMap<_, _> = relays.iter().map(|relay| (*relay, 200)).collect();
    rtts.insert(relays[1], 12);
    rtts.insert(relays[3], 15);
    let now = NOW();
    let nearest = [relays[1], relays[3]]
        .into_iter()
        .min_by_key(|relay| distance(reservations.local, *relay));
    assert_eq!(
        reserve_by(&mut reservations, now, &rtts).0,
        nearest.unwrap()
    );
    let second = reserve_by(&mut reservations, now, &rtts).0;
    assert!([relays[1], relays[3]].contains(&second));
}

#[test]
fn a_much_quicker_relay_takes_the_place_of_the_slowest_after_a_minute() {
    let (mut reservations, now) = (supervisor(3), NOW());
    let relays = peers(&reservations);
    let mut rtts: BTreeMap<_, _> = [(relays[0], 50), (relays[1], 70)].into();
    reservations.relays.get_mut(&relays[2]).unwrap().failures = 1; // has no turn yet
    let made: BTreeMap<_, _> = (0..2)
        .map(|_| reserve_by(&mut reservations, now, &rtts))
        .collect();
    let slowest = made[&relays[1]];
    rtts.insert(relays[2], 30);
    assert_eq!(reservations.next(now, true, ways(&rtts)), None);
    let soon = now + PROBATION - Duration::from_secs(1);
    assert_eq!(reservations.next(soon, true, ways(&rtts)), None);

    let (third, _) = reserve_by(&mut reservations, now + PROBATION, &rtts);
    assert_eq!(third, relays[2], "a third one comes before the second goes");
    let step = reservations.next(now + PROBATION, true, ways(&rtts));
    let Some(Step::Release(released)) = step else {
        panic!("{step:?} gives nothing up")
    };
    assert_eq!(released, slowest);
    reservations.on_listener_closed(released, now + PROBATION);
    assert!(
        reservations.relays[&relays[1]].is_free(now + PROBATION),
        "no failure"
    );
    let later = now + PROBATION * 10;
    assert_eq!(reservations.next(later, true, ways(&rtts)), None);
}

#[test]
fn a_relay_that_is_a_little_quicker_or_only_for_moments_changes_nothing() {
    let (mut reservations, now) = (supervisor(3), NOW());
    let relays = peers(&reservations);
    let mut rtts: BTreeMap<_, _> = [(relays[0], 30), (relays[1], 30)].into();
    reservations.relays.get_mut(&relays[2]).unwrap().failures = 1;
    reserve_by(&mut reservations, now, &rtts);
    reserve_by(&mut reservations, now, &rtts);
    for (second, rtt) in [(0, 12), (100, 12), (200, 5), (259, 40), (260, 5), (319, 5)] {
        rtts.insert(relays[2], rtt);
        let at = now + Duration::from_secs(second);
        assert_eq!(reservations.next(at, true, ways(&rtts)), None, "{second} s");
    }
}

#[test]
fn nodes_spread_over_the_relays() {
    let relays: Vec<_> = (0..4).map(relay).collect();
    let first_choice = || {
        let mut reservations = Reservations::new(PeerId::random());
        reservations.offer(relays.clone());
        dialed(reservations.next(NOW(), true, |_| way(Connection::None)))
    };
    let chosen: std::collections::BTreeSet<_> = (0..200).map(|_| first_choice()).collect();
    assert_eq!(chosen.len(), relays.len());
}

#[test]
fn a_relay_that_others_relay_for_is_reserved_with_directly() {
    let mut reservations = Reservations::new(PeerId::random());
    let (peer, direct) = relay(1);
    let circuit = addresses::circuit(&relay(2).1[0], PeerId::random());
    reservations.offer(vec![(peer, vec![circuit.clone(), direct[0].clone()])]);
    let step = reservations.next(NOW(), true, |_| way(Connection::Ready));
    let expected = Step::Reserve {
        relay: peer,
        circuit: addresses::circuit(&direct[0], peer),
    };
    assert_eq!(step, Some(expected));
    reservations.offer(vec![(PeerId::random(), vec![circuit])]);
    assert_eq!(reservations.relays.len(), 1, "nobody can be dialed there");
}

#[test]
fn a_node_is_no_relay_of_its_own() {
    let mut reservations = Reservations::new(PeerId::random());
    reservations.offer(vec![(reservations.local, relay(1).1)]);
    assert_eq!(
        reservations.next(NOW(), true, |_| way(Connection::None)),
        None
    );
}
