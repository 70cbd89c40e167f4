//! Entries of the registry in the DHT: what is kept for others, and what those are told who read.

use std::{collections::BTreeSet, time::SystemTime};

use hivevpn_core::{
    membership::{Bundle, Credential, SignerKey},
    node::{Now, Start},
    output::Output,
    registry::{Key, Rules},
    relay, session,
};

use super::*;

type Core = hivevpn_core::node::Node;

fn now() -> Now {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    Now {
        instant: Instant::now(),
        unix: UnixTime(since.unwrap().as_secs()),
    }
}

/// What an admission and a founding have in common.
struct Papers {
    network: Network,
    credential: Credential,
    delegation: Option<Vec<u8>>,
    records: Vec<Vec<u8>>,
    notices: Vec<Vec<u8>>,
}

fn core(signer: Signer, papers: Papers) -> Core {
    let start = Start {
        wireguard: session::Identity::new(*signer.key().as_bytes()),
        signer,
        network: papers.network,
        credential: papers.credential,
        delegation: papers.delegation,
        name: Name::parse("node").unwrap(),
        mtu: 1420,
        seed: 1,
        secret_seed: Zeroizing::new([1; 32]),
        descriptor_seq: 0,
        time_floor: now().unix,
        records: papers.records,
        notices: papers.notices,
        redemptions: Vec::new(),
        password: None,
        random: Zeroizing::new([2; 32]),
        relay_terms: relay::Terms::default(),
        bootstrap: Vec::new(),
        entries: Vec::new(),
        rules: Rules::default(),
        registry_client: false,
    };
    Core::new(start, now()).unwrap()
}

/// The founder of a network of this number, and a member that it has admitted.
fn founder_and_member(number: u8) -> (Core, Core) {
    let founded = founded_at(number, now().unix);
    let papers = Papers {
        network: founded.network,
        credential: founded.credential,
        delegation: Some(founded.delegation),
        records: Vec::new(),
        notices: Vec::new(),
    };
    let mut founder = core(founder(), papers);
    let signer = Signer::from_seed(&[102; 32]);
    let key: SignerKey = signer.key();
    let name = Name::parse("member").unwrap();
    let admission = founder
        .admit_applicant(key, name, BTreeSet::new(), None, now())
        .unwrap();
    let bundle = Bundle::of_answer(&admission).unwrap();
    let joined = bundle.accept(&key, now().unix).unwrap();
    let papers = Papers {
        network: joined.network,
        credential: joined.credential,
        delegation: None,
        records: joined.records,
        notices: joined.notices,
    };
    (founder, core(signer, papers))
}

/// Writes an entry; how it travels.
fn sealed(owner: &mut Core, key: &str, value: &[u8]) -> Vec<u8> {
    let lifetime = Duration::from_secs(60);
    owner
        .put_entry(&Key::parse(key).unwrap(), value.to_vec(), lifetime, now())
        .unwrap();
    let outputs = std::iter::from_fn(|| owner.poll_output());
    let published = outputs.filter_map(|output| match output {
        Output::PublishEntry { sealed, .. } => Some(sealed),
        _ => None,
    });
    published.last().unwrap()
}

/// A node that keeps entries for others, and one that only reads.
async fn storer_and_client(network: &Network) -> (Node, Node) {
    let (mut storer, address) = Node::listening().await;
    let mut client = Node::start(|config| config.dht = DhtMode::Client);
    for node in [&storer, &client] {
        node.send(Command::EnterNetwork {
            network: network.clone(),
            credential: b"credential".to_vec(),
        })
        .await;
    }
    client.dial(storer.peer, &address).await;
    authenticate(&mut storer, &mut client).await;
    (storer, client)
}

/// Whoever looks into this slot finds that in the node's own part of the DHT.
async fn serve(node: &Node, slot: &[u8; 32], sealed: &[u8]) {
    let (key, value) = (slot.to_vec(), sealed.to_vec());
    node.send(Command::Publish { key, value }).await;
}

/// Looks until this is what lies in the slot.
async fn finds(node: &mut Node, slot: &[u8; 32], wanted: &[u8]) {
    loop {
        let key = slot.to_vec();
        node.send(Command::Lookup { key }).await;
        let mut found = None;
        node.wait("the end of the search", |event| match event {
            Event::FoundEntry { sealed, .. } => {
                found = Some(sealed.clone());
                None
            }
            Event::LookedUp { .. } => Some(()),
            _ => None,
        })
        .await;
        node.seen
            .retain(|event| !matches!(event, Event::FoundEntry { .. }));
        if found.as_deref() == Some(wanted) {
            return;
        }
    }
}

/// What is offered next to be kept.
async fn offered(node: &mut Node) -> (Vec<u8>, Option<Vec<u8>>) {
    node.wait("an offer", |event| match event {
        Event::EntryOffered { sealed, kept, .. } => Some((sealed.clone(), kept.clone())),
        _ => None,
    })
    .await
}

#[tokio::test]
async fn a_storer_that_serves_what_it_likes_fools_no_reader() {
    let (mut owner, mut reader) = founder_and_member(1);
    let (mut stranger, _) = founder_and_member(2);
    let key = Key::parse("weather/berlin").unwrap();
    let slot = reader.entry_slot(&owner.peer_id(), &key);
    let (mut storer, mut client) = storer_and_client(reader.network()).await;

    let old = sealed(&mut owner, "weather/berlin", b"rain");
    let new = sealed(&mut owner, "weather/berlin", b"sun");
    let elsewhere = sealed(&mut owner, "weather/paris", b"fog");
    let foreign = sealed(&mut stranger, "weather/berlin", b"hail");
    let own_word = sealed(&mut reader, "weather/berlin", b"mine");
    let mut flipped = new.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let lies = [
        vec![1],
        vec![1; 100],
        [&new[..], &[0]].concat(),
        new[..new.len() - 1].to_vec(),
        flipped,
        elsewhere,
        foreign,
        own_word,
        [&new[..], &vec![0; 12 << 10]].concat(),
    ];
    let value = |reader: &Core| {
        let entries = reader.entries_at(&key);
        let of_owner = entries.into_iter().find(|e| e.owner == owner.peer_id());
        of_owner.and_then(|entry| entry.value.clone())
    };
    let refused = |reader: &Core| {
        reader
            .rejections()
            .iter()
            .map(|(_, count)| count)
            .sum::<u64>()
    };
    for (number, lie) in lies.iter().enumerate() {
        serve(&storer, &slot, lie).await;
        finds(&mut client, &slot, lie).await;
        let before = refused(&reader);
        reader.handle_found_entry(&slot, lie, now());
        assert_eq!(value(&reader), None, "lie {number}");
        assert_eq!(refused(&reader), before + 1, "lie {number} is counted");
    }

    // The truth, and then what was true before it.
    for (served, read) in [(&old, b"rain".to_vec()), (&new, b"sun".to_vec())] {
        serve(&storer, &slot, served).await;
        finds(&mut client, &slot, served).await;
        reader.handle_found_entry(&slot, served, now());
        assert_eq!(value(&reader), Some(read));
    }
    reader.handle_found_entry(&slot, &old, now());
    assert_eq!(
        value(&reader),
        Some(b"sun".to_vec()),
        "nothing older comes back"
    );

    // Whoever served that is given what is better, and whoever served what does not belong there is given nothing.
    assert_eq!(reader.best_entry(&slot, &old), Some(&*new));
    for (number, lie) in lies.iter().enumerate() {
        assert_eq!(reader.best_entry(&slot, lie), None, "lie {number}");
    }

    // Served when its time is over, to a reader that has never seen it.
    let (_, mut late) = founder_and_member(1);
    let mut later = now();
    later.unix = later.unix.plus(Duration::from_secs(61));
    late.handle_found_entry(&slot, &new, later);
    assert_eq!(value(&late), None);
    reader.handle_found_entry(&slot, &new, later);
    assert_eq!(
        value(&reader),
        None,
        "it is over for those who had it as well"
    );
    assert_eq!(reader.best_entry(&slot, &old), None);

    // What a member answers to a message about entries is believed no more than what lies in the DHT.
    client
        .request(storer.peer, Protocol::Registry, 9, b"what do you have?")
        .await;
    let (request, protocol, body) = storer.requested().await;
    assert_eq!(
        (protocol, body.as_slice()),
        (Protocol::Registry, &b"what do you have?"[..])
    );
    let body = lies[1].clone();
    storer.send(Command::Respond { request, body }).await;
    let answer = client.response(9).await.unwrap();
    reader.handle_registry_answer(founder().peer_id(), &answer, now());
    assert_eq!(value(&reader), None);
}

#[tokio::test]
async fn an_entry_is_kept_when_the_core_says_so_and_offered_again_when_another_came_before() {
    let (mut owner, reader) = founder_and_member(1);
    let key = Key::parse("a").unwrap();
    let slot = owner.entry_slot(&owner.peer_id(), &key);
    let (mut storer, client) = storer_and_client(reader.network()).await;
    let (one, two) = (sealed(&mut owner, "a", b"1"), sealed(&mut owner, "a", b"2"));
    let three = sealed(&mut owner, "a", b"3");
    let publish = |sealed: &Vec<u8>| Command::Publish {
        key: slot.to_vec(),
        value: sealed.clone(),
    };
    let keep = |from: PeerId, sealed: &Vec<u8>, kept: Option<&Vec<u8>>| Command::KeepEntry {
        from,
        slot: slot.to_vec(),
        sealed: sealed.clone(),
        kept: kept.cloned(),
    };

    // At first the two may not have found each other in the DHT.
    let offer = loop {
        client.send(publish(&one)).await;
        let offer = timeout(Duration::from_millis(500), offered(&mut storer)).await;
        if let Ok(offer) = offer {
            break offer;
        }
    };
    assert_eq!(offer, (one.clone(), None));
    client.send(publish(&two)).await;
    while offered(&mut storer).await.0 != two {}

    storer.send(keep(client.peer, &two, None)).await;
    storer.send(keep(client.peer, &one, None)).await;
    assert_eq!(
        offered(&mut storer).await,
        (one, Some(two.clone())),
        "it was judged beside something else"
    );
    finds(&mut storer, &slot, &two).await;

    // What a reader mends is judged like everything else.
    client
        .send(Command::WriteBack {
            slot: slot.to_vec(),
            sealed: three.clone(),
            to: vec![storer.peer],
        })
        .await;
    while offered(&mut storer).await != (three.clone(), Some(two.clone())) {}

    storer.send(Command::Unpublish { key: slot.to_vec() }).await;
    storer.send(Command::Lookup { key: slot.to_vec() }).await;
    storer
        .wait("the end of the search", |event| match event {
            Event::LookedUp { .. } => Some(()),
            _ => None,
        })
        .await;
    let is_found = |event: &Event| matches!(event, Event::FoundEntry { from: None, .. });
    assert!(!storer.has_seen(is_found));
}

#[tokio::test]
async fn a_client_is_asked_to_keep_nothing() {
    let (mut owner, reader) = founder_and_member(1);
    let key = Key::parse("a").unwrap();
    let slot = owner.entry_slot(&owner.peer_id(), &key);
    let (mut storer, mut client) = storer_and_client(reader.network()).await;
    let one = sealed(&mut owner, "a", b"1");
    // It reads what the other publishes, so the two have found each other.
    serve(&storer, &slot, &one).await;
    finds(&mut client, &slot, &one).await;

    let (answer, routes) = tokio::sync::oneshot::channel();
    let names = BTreeMap::new();
    storer.send(Command::Routes { names, answer }).await;
    let crate::control::Reply::Ok(routes) = routes.await.unwrap() else {
        panic!("no routes")
    };
    assert_eq!(routes["mode"], "server");
    assert_eq!(routes["buckets"].as_array().map(Vec::len), Some(0));
    assert_eq!(routes["records"]["ours"], 1);

    // Put into its part by force, it is not taken.
    let (slot, sealed, to) = (slot.to_vec(), one.clone(), vec![client.peer]);
    storer.send(Command::WriteBack { slot, sealed, to }).await;
    client
        .request(storer.peer, Protocol::Sync, 1, b"after that")
        .await;
    let (request, ..) = storer.requested().await;
    let body = Vec::new();
    storer.send(Command::Respond { request, body }).await;
    client.response(1).await.unwrap();
    assert!(!client.has_seen(|event| matches!(event, Event::EntryOffered { .. })));
}
