//! What members keep in the registry, as others deliver it.

use std::time::Duration;

use hivevpn_core::{
    membership::envelope::Domain,
    node::Node,
    output::{Output, RequestId},
    registry::{Key, seal::Sealing},
};
use libp2p_core::SignedEnvelope;

use crate::{
    Acts,
    membership::{FOUNDER, NODE, enveloped, network, now, signer},
};

/// What a member says about the registry, and what the DHT serves: as bytes, as envelopes, and as what is really signed.
pub fn registry(bytes: &[u8]) {
    let (founder, member) = (signer(FOUNDER).peer_id(), signer(2).peer_id());
    let sealing = Sealing::of(&network());
    NODE.with_borrow_mut(|node| {
        let slot = node.entry_slot(&founder, &key());
        for (kind, body) in Acts(bytes).iter() {
            let (peer, number) = match kind & 8 {
                0 => (founder, FOUNDER),
                _ => (member, 2),
            };
            match kind % 6 {
                0 => node.handle_registry_request(RequestId(1), peer, body, now()),
                1 => node.handle_registry_answer(peer, body, now()),
                2 => node.handle_found_entry(&slot, body, now()),
                3 => drop(node.judge_for_dht(peer, &slot, body, None, now())),
                4 => node.handle_found_entry(&slot, &sealing.seal(body), now()),
                5 => {
                    let envelope = enveloped(number, Domain::Entry, body);
                    node.handle_found_entry(&slot, &sealing.seal(&envelope), now());
                }
                _ => unreachable!("a remainder of six"),
            }
            while node.poll_output().is_some() {}
        }
        let foreign = node
            .entries(None)
            .into_iter()
            .find(|entry| entry.owner != founder);
        assert_eq!(foreign, None, "nobody else is a member");
    });
}

fn key() -> Key {
    Key::parse("a/b").expect("it is one")
}

/// Entries that a node has really written, and the payload inside.
pub(crate) fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let sealing = Sealing::of(&network());
    let sealed = NODE.with_borrow_mut(written);
    let act = |kind: u8, body: &[u8]| {
        let length = (body.len() as u16).to_be_bytes();
        ("registry", [&[kind][..], &length, body].concat())
    };
    let mut seeds = vec![act(2, &sealed), act(3, &sealed)];
    if let Ok(envelope) = sealing.unseal(&sealed) {
        seeds.push(act(4, &envelope));
        if let Ok(envelope) = SignedEnvelope::from_protobuf_encoding(&envelope) {
            let domain = Domain::Entry.as_str().to_owned();
            if let Ok((payload, _)) = envelope.payload_and_signing_key(domain, b"/hivevpn/cbor") {
                seeds.push(act(5, payload));
            }
        }
    }
    seeds
}

fn written(node: &mut Node) -> Vec<u8> {
    let hour = Duration::from_secs(3600);
    let _ = node.put_entry(&key(), b"value".to_vec(), hour, now());
    let mut sealed = Vec::new();
    while let Some(output) = node.poll_output() {
        if let Output::SaveEntry { sealed: saved, .. } = output {
            sealed = saved;
        }
    }
    sealed
}
