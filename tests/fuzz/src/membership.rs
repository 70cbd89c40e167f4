//! Who belongs to us: everything signed, as it is and as somebody would have signed it.

use std::{
    cell::RefCell,
    time::{Duration, Instant},
};

use hivevpn_core::{
    connection::{ConnectionId, Link},
    membership::{
        Credential, Founding, Genesis, Invite, JoinAnswer, JoinMessage, JoinRequest, MemberRecord,
        Name, Network, Notice, PasswordRecord, PasswordStep, Redemption, Signer, SignerKey,
        SyncMessage, UnixTime, delegation::Delegation, descriptor::Descriptor, envelope::Domain,
        genesis,
    },
    node::{InviteRequest, Node, Now, Start},
    output::RequestId,
    policy::Policy,
    registry::Rules,
    relay, session,
};
use libp2p_core::SignedEnvelope;
use libp2p_identity::Keypair;
use zeroize::Zeroizing;

use crate::Acts;

pub(crate) const UNIX: UnixTime = UnixTime(1_800_000_000);
/// The kinds of objects that are signed.
const DOMAINS: [Domain; 5] = [
    Domain::Genesis,
    Domain::Delegation,
    Domain::Member,
    Domain::JoinRequest,
    Domain::Descriptor,
];
const AUTHORITY: u8 = 200;
pub(crate) const FOUNDER: u8 = 1;

struct Founded {
    network: Network,
    credential: Credential,
    delegation: Vec<u8>,
}

pub(crate) fn signer(number: u8) -> Signer {
    Signer::from_seed(&[number; 32])
}

fn founded() -> Founded {
    let founding = Founding {
        name: Name::parse("home").expect("a name"),
        ipv4_prefix: genesis::DEFAULT_IPV4_PREFIX,
        certificate_lifetime: genesis::DEFAULT_CERTIFICATE_LIFETIME,
        founder_name: Name::parse("founder").expect("a name"),
        founder_ipv4: None,
        policy_mode: None,
    };
    let (authority, founder) = (signer(AUTHORITY), signer(FOUNDER));
    let secret = Zeroizing::new([77; 32]);
    let founded = Network::found(founding, &authority, &founder, [9; 16], secret, UNIX)
        .expect("a network can be founded");
    Founded {
        network: founded.network,
        credential: founded.credential,
        delegation: founded.delegation,
    }
}

/// A network, for those who need one.
pub(crate) fn network() -> Network {
    founded().network
}

thread_local! {
    static FOUNDED: Founded = founded();
    static NODE: RefCell<Node> = RefCell::new(node());
}

fn node() -> Node {
    let founded = founded();
    let start = Start {
        signer: signer(FOUNDER),
        wireguard: session::Identity::new([1; 32]),
        network: founded.network,
        credential: founded.credential,
        delegation: Some(founded.delegation),
        name: Name::parse("founder").expect("a name"),
        mtu: 1420,
        seed: 1,
        descriptor_seq: 0,
        time_floor: UNIX,
        secret_seed: Zeroizing::new([2; 32]),
        random: Zeroizing::new([3; 32]),
        records: Vec::new(),
        notices: Vec::new(),
        redemptions: Vec::new(),
        password: None,
        relay_terms: relay::Terms::default(),
        bootstrap: Vec::new(),
        entries: Vec::new(),
        rules: Rules::new(),
        registry_client: false,
    };
    Node::new(start, now()).expect("its own certificate is good")
}

pub(crate) fn now() -> Now {
    Now {
        instant: Instant::now(),
        unix: UNIX,
    }
}

/// The founder's node, the same for all runs.
pub(crate) fn with_node<R>(act: impl FnOnce(&mut Node) -> R) -> R {
    NODE.with_borrow_mut(act)
}

fn invite() -> Invite {
    let request = InviteRequest {
        name: None,
        groups: Default::default(),
        ipv4: None,
        lifetime: Duration::from_secs(3600),
    };
    let secret = Zeroizing::new([5; 32]);
    NODE.with_borrow_mut(|node| node.invite(request, Vec::new(), secret, now()))
        .expect("the founder may invite")
}

/// Whatever is read from the network or the store before anybody looks at a signature.
pub fn objects(bytes: &[u8]) {
    let us = signer(FOUNDER).peer_id();
    FOUNDED.with(|founded| {
        let genesis = founded.network.genesis();
        let _ = Genesis::open(bytes);
        let _ = Network::decode(bytes);
        let _ = Delegation::open(bytes, genesis);
        let _ = Descriptor::open(bytes, &genesis.id(), &signer(FOUNDER).key(), UNIX);
        let _ = Redemption::decode(bytes);
        if let Ok(JoinMessage::Password(step)) = JoinMessage::decode(bytes) {
            let _ = PasswordStep::decode(&step);
        }
        let _ = PasswordStep::decode(bytes);
        let _ = PasswordRecord::decode(bytes);
        let _ = Notice::decode(bytes);
        let _ = Policy::decode(bytes);
        let _ = JoinRequest::open(bytes, &us);
        if let Ok(credential) = Credential::decode(bytes) {
            let _ = credential.verify(genesis, UNIX, &us);
        }
        if let Ok(record) = MemberRecord::decode(bytes) {
            assert_eq!(record.encode(), bytes, "there is one encoding");
            let _ = record.verify(genesis, UNIX);
        }
        if let Ok(message) = SyncMessage::decode(bytes) {
            assert_eq!(SyncMessage::decode(&message.encode()), Ok(message));
        }
        let key = founded.network.record_key(&us);
        let _ = MemberRecord::verify_for_dht(&founded.network, &key, bytes, None, UNIX);
    });
    if let Ok(key) = <[u8; 32]>::try_from(bytes) {
        let _ = SignerKey::from_bytes(key);
    }
}

/// Payloads that an authority, the founder or a member has really signed: what is behind the signature.
pub fn signed(bytes: &[u8]) {
    let [who, kind, payload @ ..] = bytes else {
        return;
    };
    let number = [AUTHORITY, FOUNDER, 2][usize::from(who % 3)];
    let sealed = |domain: Domain, payload: &[u8]| {
        let keypair = Keypair::ed25519_from_bytes([number; 32]).expect("any 32 bytes are a key");
        let (domain, payload) = (domain.as_str().to_owned(), payload.to_vec());
        SignedEnvelope::new(&keypair, domain, b"/hivevpn/cbor".to_vec(), payload)
            .expect("ed25519 signs everything")
            .into_protobuf_encoding()
    };
    FOUNDED.with(|founded| {
        let genesis = founded.network.genesis();
        let subject = signer(number);
        match kind % 5 {
            0 => {
                if let Ok(genesis) = Genesis::open(&sealed(Domain::Genesis, payload)) {
                    let _ = genesis.name();
                }
            }
            1 => drop(Delegation::open(
                &sealed(Domain::Delegation, payload),
                genesis,
            )),
            2 => {
                let sealed = sealed(Domain::Descriptor, payload);
                if let Ok(descriptor) =
                    Descriptor::open(&sealed, &genesis.id(), &subject.key(), UNIX)
                {
                    assert!(descriptor.addresses.len() <= 64);
                }
                let record = MemberRecord {
                    credential: founded.credential.clone(),
                    descriptor: sealed,
                };
                let record = record.encode();
                NODE.with_borrow_mut(|node| {
                    node.handle_found_record(&record, now());
                    while node.poll_output().is_some() {}
                });
            }
            3 => drop(JoinRequest::open(
                &sealed(Domain::JoinRequest, payload),
                &subject.peer_id(),
            )),
            4 => {
                let bytes = sealed(Domain::Member, payload);
                let credential = Credential {
                    certificate: bytes,
                    delegation: founded.delegation.clone(),
                };
                let _ = credential.verify(genesis, UNIX, &subject.peer_id());
            }
            _ => unreachable!("a remainder of five"),
        }
    });
}

/// What a member says to a node: questions, answers, records, credentials.
pub fn sync(bytes: &[u8]) {
    let (founder, member) = (signer(FOUNDER).peer_id(), signer(2).peer_id());
    NODE.with_borrow_mut(|node| {
        for (kind, body) in Acts(bytes).iter() {
            let peer = if kind & 8 == 0 { founder } else { member };
            let connection = ConnectionId(7);
            match kind % 5 {
                0 => node.handle_sync_request(RequestId(1), peer, body, now()),
                1 => node.handle_sync_answer(peer, body, now()),
                2 => node.handle_found_record(body, now()),
                3 => {
                    let link = Link::Tcp(([192, 0, 2, 9], 9).into());
                    node.handle_connection_opened(connection, peer, link, now());
                    node.handle_credential(connection, peer, body, now());
                    node.handle_connection_closed(connection, now());
                }
                4 => {
                    let message = SyncMessage::announcement(body.to_vec()).encode();
                    node.handle_sync_request(RequestId(1), peer, &message, now());
                }
                _ => unreachable!("a remainder of five"),
            }
            while node.poll_output().is_some() {}
        }
        assert!(node.members().len() <= 2, "nobody came in");
    });
}

/// What a stranger that joins says, and what it is told.
pub fn joins(bytes: &[u8]) {
    let stranger = signer(3);
    NODE.with_borrow_mut(|node| {
        node.handle_join_request(RequestId(1), stranger.peer_id(), bytes, now());
        let message = JoinMessage::Invite(bytes.to_vec()).encode();
        node.handle_join_request(RequestId(2), stranger.peer_id(), &message, now());
        while node.poll_output().is_some() {}
    });
    let answer = JoinAnswer::accept(bytes, &invite(), &stranger.key(), UNIX);
    assert!(answer.is_err(), "nobody admitted it");
}

/// Invites, as people paste them, and with a checksum that is right.
pub fn invites(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(invite) = Invite::parse(text)
    {
        let again = Invite::parse(&invite.to_printable());
        assert!(again.is_ok_and(|again| again.id() == invite.id()));
    }
    let genuine = invite().to_printable();
    let head: String = genuine.chars().take_while(|c| *c != '1').collect();
    let summed = bs58::encode(bytes).with_check().into_string();
    let _ = Invite::parse(&format!("{head}1{summed}"));
}

/// Genuine objects to begin with, by the name of their corpus.
pub(crate) fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let founded = founded();
    let record = NODE.with_borrow(Node::own_record);
    let record = record.expect("a node knows itself");
    let invite = invite();
    let request = JoinRequest::seal(&invite, &signer(3), "n3", None);
    let genesis = founded.network.genesis();
    let mut seeds = vec![
        ("objects", genesis.envelope().to_vec()),
        ("objects", founded.network.encode().to_vec()),
        ("objects", founded.credential.encode()),
        ("objects", founded.delegation.clone()),
        ("objects", record.clone()),
        (
            "objects",
            SyncMessage::announcement(record.clone()).encode(),
        ),
        ("joins", request.clone()),
        ("joins", JoinMessage::Invite(request.clone()).encode()),
        ("invites", invite.to_printable().as_bytes().to_vec()),
        ("exchange", [&[7; 32][..], &[0, 4], b"cred"].concat()),
    ];
    let descriptor = MemberRecord::decode(&record).map(|record| record.descriptor);
    let envelopes = [
        (0, 0, genesis.envelope().to_vec()),
        (0, 1, founded.delegation.clone()),
        (1, 2, descriptor.unwrap_or_default()),
        (2, 3, request),
        (1, 4, founded.credential.certificate.clone()),
    ];
    for (who, kind, envelope) in envelopes {
        if let Ok(envelope) = SignedEnvelope::from_protobuf_encoding(&envelope) {
            for domain in DOMAINS {
                let opened =
                    envelope.payload_and_signing_key(domain.as_str().to_owned(), b"/hivevpn/cbor");
                if let Ok((payload, _)) = opened {
                    seeds.push(("signed", [&[who, kind], payload].concat()));
                }
            }
        }
    }
    let act = |kind: u8, body: &[u8]| {
        let length = (body.len() as u16).to_be_bytes();
        [&[kind][..], &length, body].concat()
    };
    seeds.push(("sync", act(3, &record)));
    seeds.push(("sync", act(4, &record)));
    seeds.push(("sync", act(2, &record)));
    seeds.push(("sync", act(0, &SyncMessage::announcement(record).encode())));
    seeds
}
