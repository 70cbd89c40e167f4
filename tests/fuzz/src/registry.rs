//! The registry: what members say about it, and what lies in the DHT.

use hivevpn_core::{
    membership::envelope::Domain,
    output::RequestId,
    registry::{Key, seal::Sealing, sync::RegistryMessage},
};
use libp2p_core::SignedEnvelope;
use libp2p_identity::Keypair;

use crate::{
    Acts,
    membership::{FOUNDER, network, now, signer, with_node},
};

thread_local! {
    static SEALING: Sealing = Sealing::of(&network());
}

/// Messages as requests and as answers, entries from the DHT, and payloads that a member has really signed and sealed.
pub fn registry(bytes: &[u8]) {
    let (founder, member) = (signer(FOUNDER).peer_id(), signer(2).peer_id());
    if let Ok(message) = RegistryMessage::decode(bytes) {
        assert_eq!(RegistryMessage::decode(&message.encode()), Ok(message));
    }
    let key = Key::parse("svc/a").expect("a key");
    with_node(|node| {
        let slot = node.entry_slot(&founder, &key);
        for (kind, body) in Acts(bytes).iter() {
            let peer = if kind & 8 == 0 { founder } else { member };
            match kind % 6 {
                0 => node.handle_registry_request(RequestId(1), peer, body, now()),
                1 => node.handle_registry_answer(peer, body, now()),
                2 => node.handle_found_entry(&slot, body, now()),
                3 => drop(node.judge_for_dht(peer, &slot, body, Some(body), now())),
                4 => node.handle_found_entry(&slot, &sealed(body), now()),
                5 => drop(node.judge_for_dht(peer, &slot, &signed(body), None, now())),
                _ => unreachable!("a remainder of six"),
            }
            while node.poll_output().is_some() {}
        }
        let entries = node.entries(None);
        assert!(entries.iter().all(|entry| entry.owner == founder));
        let _ = node.services();
    });
}

/// Any bytes, hidden as an entry is.
fn sealed(bytes: &[u8]) -> Vec<u8> {
    SEALING.with(|sealing| sealing.seal(bytes))
}

/// A payload with the founder's signature.
fn signed(payload: &[u8]) -> Vec<u8> {
    let keypair = Keypair::ed25519_from_bytes([FOUNDER; 32]).expect("any 32 bytes are a key");
    let domain = Domain::Entry.as_str().to_owned();
    let envelope = SignedEnvelope::new(
        &keypair,
        domain,
        b"/hivevpn/cbor".to_vec(),
        payload.to_vec(),
    )
    .expect("ed25519 signs everything");
    sealed(&envelope.into_protobuf_encoding())
}

/// Genuine messages and a genuine payload.
pub(crate) fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let act = |kind: u8, body: &[u8]| {
        let length = (body.len() as u16).to_be_bytes();
        ("registry", [&[kind][..], &length, body].concat())
    };
    let key = Key::parse("svc/a").expect("a key");
    let messages = [
        RegistryMessage::Taken,
        RegistryMessage::Summary([7; 32]),
        RegistryMessage::Get(key),
        RegistryMessage::Want(Vec::new()),
        RegistryMessage::Loads(Vec::new()),
    ];
    let messages = messages.iter().map(RegistryMessage::encode);
    let mut seeds: Vec<_> = messages
        .flat_map(|body| [act(0, &body), act(1, &body)])
        .collect();
    seeds.push(act(5, &[0xa1, 0x00, 0x01]));
    seeds
}
