//! What the node does about members: taking in records, passing news on, letting go of what has expired.

use std::{net::IpAddr, time::Instant};

use libp2p_core::{Multiaddr, multiaddr::Protocol};
use libp2p_identity::PeerId;

use super::{
    ANTI_ENTROPY_PERIOD, Node, Now, RESYNC_DELAY, Resync,
    restraint::{DIGEST_WORK, work_to_read},
};
use crate::{
    connection::Link,
    membership::{
        Certificate, Change, Descriptor, Features, MemberRecord, Rejection, SignerKey, SyncMessage,
        UnixTime, descriptor::next_seq, sync::Records,
    },
    output::{Output, RequestId},
    path::{Path, PathKind, candidate::CandidateKind},
    peer::PeerKeys,
    session::WireGuardKey,
    tunnels::OverlayAddresses,
};

/// How many members news from others are passed on to. Each member tells as many, so a thousand are reached in three
/// or four steps; with n who tell k each, one in e^k is missed.
pub(super) const FAN_OUT: usize = 8;
/// Certificates renewed in one [`EXPIRY_PERIOD`](super::EXPIRY_PERIOD): each is news for everybody, and there are days
/// to renew them all.
const MAX_RENEWALS: usize = 16;

impl Node {
    /// Signs a new descriptor and tells everybody, if we are a member: nobody would believe us.
    pub(super) fn announce_ourselves(&mut self, now: Now) {
        if !self.is_member() {
            return;
        }
        let millis = self.time.now(now.unix).as_millis();
        self.descriptor_seq = next_seq(self.descriptor_seq, millis);
        self.outputs
            .push_back(Output::SaveDescriptorSeq(self.descriptor_seq));
        let descriptor = Descriptor {
            network: self.network.id(),
            seq: self.descriptor_seq,
            wireguard_key: self.wireguard_key,
            name: self.name.clone(),
            addresses: self.reach.addresses.clone(),
            features: if self.reach.relays {
                Features::RELAY
            } else {
                Features::NONE
            },
        };
        let record = self.member_record(descriptor.seal(&self.signer));
        if let Err(reason) = self.admit(&record, None, now) {
            tracing::error!(%reason, "our own record breaks a rule; the others will not learn what changed");
        }
        self.publish();
    }

    /// Takes in a record, whoever delivered it, and passes on what is new.
    pub(super) fn admit(
        &mut self,
        record: &[u8],
        from: Option<PeerId>,
        now: Now,
    ) -> Result<PeerId, Rejection> {
        let admitted = self.directory.admit(record, self.time.now(now.unix))?;
        let peer = admitted.peer;
        let Some(member) = self
            .directory
            .get(&peer)
            .filter(|_| admitted.change != Change::Unchanged)
        else {
            return Ok(peer);
        };
        self.time.saw(member.certificate.not_before);
        let may_relay = member.descriptor.features.include(Features::RELAY)
            || self.relays.iter().any(|(relay, _)| *relay == peer);
        if admitted.change == Change::New && peer != self.peer_id() {
            tracing::info!(member = %member.descriptor.name, %peer, "a member");
        }
        self.registry.changed();
        if admitted.change == Change::New
            && let Some(from) = from
        {
            // Entries of the newcomer that came before its record did were not taken.
            self.registry.compare_later(from, now.instant);
        }
        if peer == self.peer_id() {
            let record = member.record.encode();
            self.adopt_from_directory(now);
            self.outputs.push_back(Output::Introduce(record));
        }
        self.apply(&peer, now);
        for disturbed in &admitted.disturbed {
            self.apply(disturbed, now);
        }
        self.pass_on(peer, from, now.instant);
        if may_relay {
            self.offer_relays();
        }
        Ok(peer)
    }

    /// Brings tunnels and connections in line with what the directory says of a member.
    pub(super) fn apply(&mut self, peer: &PeerId, now: Now) {
        let Some(member) = self.directory.get(peer) else {
            return;
        };
        let ipv4 = self.directory.ipv4_of(peer);
        if *peer == self.peer_id() {
            self.tunnels.set_addresses(OverlayAddresses {
                ipv4,
                ipv6: member.ipv6,
            });
            self.outputs.push_back(Output::SetIpv4(ipv4));
            self.identify(peer);
            return;
        }
        let addresses = dialable(&member.descriptor.addresses, peer);
        self.remember_contact(*peer, addresses.clone());
        if !self.is_member() {
            return;
        }
        let Some(member) = self.directory.get(peer) else {
            return;
        };
        self.tunnels.upsert(PeerKeys {
            id: *peer,
            key: WireGuardKey(member.descriptor.wireguard_key),
            ipv4,
            ipv6: member.ipv6,
        });
        self.identify(peer);
        self.connections.want(*peer, addresses.clone(), now.instant);
        self.learn_endpoints(peer, &addresses, CandidateKind::Announced, now.instant);
        self.restore_paths(peer, now);
    }

    /// A new tunnel (first record, rotated key) starts with the paths that its connections vouch for.
    fn restore_paths(&mut self, peer: &PeerId, now: Now) {
        let links: Vec<_> = self.connections.of(peer).collect();
        for (connection, link) in links {
            if let Link::Quic(endpoint) = link {
                self.tunnels
                    .open_path(peer, Path::Direct(endpoint), PathKind::Direct, now.instant);
            }
            if self.connections.has_carrier(connection) {
                self.open_carrier_path(connection, now);
            }
        }
    }

    /// Tells the connected members, but the one it came from and the one it is about, unless it is we who have something
    /// to say about it: a new certificate. News from others are passed on
    /// to a few only: they told as many, and who is missed all the same learns it by anti-entropy.
    pub(super) fn announce(
        &mut self,
        news: SyncMessage,
        about: Option<PeerId>,
        from: Option<PeerId>,
    ) {
        let connected = self.connections.connected();
        let mut others: Vec<_> = connected
            .filter(|peer| Some(*peer) != from && (from.is_none() || Some(*peer) != about))
            .collect();
        if others.is_empty() {
            return;
        }
        if from.is_some() {
            self.tunnels.choose_some(&mut others, FAN_OUT);
        }
        let body = news.encode();
        self.outputs
            .extend(others.into_iter().map(|peer| Output::Sync {
                peer,
                body: body.clone(),
            }));
    }

    pub(super) fn offer_relays(&mut self) {
        let us = self.peer_id();
        let relays: Vec<_> = self
            .directory
            .members()
            .filter(|member| {
                member.peer_id != us && member.descriptor.features.include(Features::RELAY)
            })
            .map(|member| {
                let mut addresses = dialable(&member.descriptor.addresses, &member.peer_id);
                addresses
                    .retain(|address| !address.iter().any(|part| part == Protocol::P2pCircuit));
                (member.peer_id, addresses)
            })
            .filter(|(_, addresses)| !addresses.is_empty())
            .collect();
        let ids: Vec<_> = relays.iter().map(|(relay, _)| *relay).collect();
        self.tunnels.set_relays(&ids);
        if self.relays != relays {
            self.relays = relays.clone();
            self.outputs.push_back(Output::Relays(relays));
        }
    }

    // ---- anti-entropy ------------------------------------------------------------------------------------

    /// Asks a member whether it knows the same. If not, it begins to compare.
    pub(super) fn compare_summary_with(&mut self, peer: PeerId) {
        let body = SyncMessage::Summary(self.directory.summary()).encode();
        self.outputs.push_back(Output::Sync { peer, body });
    }

    /// Compares directories with a member: what one of us lacks, the other sends.
    fn compare_directory_with(&mut self, peer: PeerId) {
        let body = SyncMessage::Digest(self.directory.digest()).encode();
        self.outputs.push_back(Output::Sync { peer, body });
    }

    /// Compares directories with some connected member.
    pub(super) fn compare_directories(&mut self) {
        let connected: Vec<_> = self.connections.connected().collect();
        if let Some(peer) = self.tunnels.choose(&connected) {
            self.compare_summary_with(peer);
        }
    }

    /// A sync message was lost, with the connection it went by for example. What it said would otherwise be missing
    /// until the next round of anti-entropy.
    pub fn handle_sync_failed(&mut self, peer: PeerId, now: Now) {
        let resync = self.resync.entry(peer).or_default();
        resync.pause = (resync.pause * 2).clamp(RESYNC_DELAY, ANTI_ENTROPY_PERIOD);
        let due = now.instant + resync.pause;
        resync.due = Some(due);
        self.next_resync = Some(self.next_resync.map_or(due, |next| next.min(due)));
    }

    /// Compares directories with those to whom a message was lost. Who has gone is compared with when it is back.
    pub(super) fn resync(&mut self, now: Instant) {
        if self.next_resync.is_none_or(|next| now < next) {
            return;
        }
        let is_due = |resync: &Resync| resync.due.is_some_and(|due| now >= due);
        let due: Vec<_> = self
            .resync
            .iter_mut()
            .filter(|(_, resync)| is_due(resync))
            .map(|(peer, resync)| {
                resync.due = None;
                *peer
            })
            .collect();
        self.next_resync = self.resync.values().filter_map(|resync| resync.due).min();
        for peer in due {
            if self.connections.of(&peer).next().is_some() {
                self.compare_summary_with(peer);
            }
        }
    }

    /// A sync message from an authenticated member. It always gets an answer, if only an empty one.
    pub fn handle_sync_request(&mut self, request: RequestId, peer: PeerId, body: &[u8], now: Now) {
        let answer = match self.sync_message(peer, body, now) {
            Ok(SyncMessage::Digest(digest)) if self.works_for(peer, DIGEST_WORK, now) => {
                SyncMessage::Answer(self.directory.answer(&digest))
            }
            Ok(SyncMessage::Digest(_)) => SyncMessage::Records(Records::default()),
            Ok(SyncMessage::Records(records)) => {
                let is_news = self.admit_all(&records, peer, now);
                if records.more && is_news {
                    self.compare_directory_with(peer);
                }
                SyncMessage::Records(Records::default())
            }
            Ok(SyncMessage::Summary(theirs)) => {
                if theirs != self.directory.summary() {
                    self.compare_directory_with(peer);
                }
                SyncMessage::Records(Records::default())
            }
            Ok(SyncMessage::Answer(_)) => {
                tracing::debug!(%peer, "an answer to no question");
                SyncMessage::Records(Records::default())
            }
            Err(reason) => {
                tracing::debug!(%peer, %reason, "a sync message is not taken");
                self.rejections.count(&reason);
                SyncMessage::Records(Records::default())
            }
        };
        self.outputs.push_back(Output::Respond {
            request,
            body: answer.encode(),
        });
    }

    fn sync_message(
        &mut self,
        peer: PeerId,
        body: &[u8],
        now: Now,
    ) -> Result<SyncMessage, Rejection> {
        if self.directory.get(&peer).is_none() {
            // Its connection outlived its certificate.
            return Err(Rejection::Expired);
        }
        if !self.works_for(peer, work_to_read(body), now) {
            return Ok(SyncMessage::Records(Records::default()));
        }
        SyncMessage::decode(body)
    }

    /// A member's answer to our sync message.
    pub fn handle_sync_answer(&mut self, peer: PeerId, body: &[u8], now: Now) {
        self.resync.remove(&peer);
        let answer = match SyncMessage::decode(body) {
            Ok(SyncMessage::Answer(answer)) => answer,
            Ok(SyncMessage::Records(_)) => return,
            Ok(SyncMessage::Digest(_) | SyncMessage::Summary(_)) => {
                return tracing::debug!(%peer, "a question for an answer");
            }
            Err(reason) => {
                self.rejections.count(&reason);
                return tracing::debug!(%peer, %reason, "a sync answer is not taken");
            }
        };
        let learnt = self.admit_all(&answer.news, peer, now);
        let wanted = self.directory.records_wanted(&answer);
        if !wanted.is_empty() {
            let body = SyncMessage::Records(wanted).encode();
            self.outputs.push_back(Output::Sync { peer, body });
        }
        if answer.news.more && learnt {
            self.compare_directory_with(peer);
        }
    }

    /// A record from the DHT, served by anybody.
    pub fn handle_found_record(&mut self, record: &[u8], now: Now) {
        if let Err(reason) = self.admit(record, None, now) {
            tracing::debug!(%reason, "a record from the DHT is not taken");
            self.rejections.count(&reason);
        }
    }

    /// The swarm did not keep what a member put into the DHT.
    pub fn handle_rejected(&mut self, reason: Rejection) {
        self.rejections.count(&reason);
    }

    /// Returns whether there was any news. Notices come first: they may void a record.
    fn admit_all(&mut self, records: &Records, from: PeerId, now: Now) -> bool {
        let mut is_news = false;
        let notices = records.notices();
        let has_notices = self.take_notices_with(notices, Some(from), now, |node| {
            for record in records.iter() {
                if !node.directory.knows(record) && !node.works_for(from, 1, now) {
                    tracing::debug!(peer = %from, "it sends more than it may: the rest is not read");
                    break;
                }
                let before = node.outputs.len();
                match node.admit(record, Some(from), now) {
                    Ok(_) => is_news |= node.outputs.len() > before,
                    Err(reason) => {
                        tracing::debug!(peer = %from, %reason, "a record is not taken");
                        node.rejections.count(&reason);
                    }
                }
            }
        });
        is_news || has_notices
    }

    // ---- expiry ------------------------------------------------------------------------------------------

    /// Lets go of members whose certificates have run out, and renews our own if that is ours to do.
    pub(super) fn expire(&mut self, now: Now) {
        let unix = self.time.now(now.unix);
        self.outputs
            .push_back(Output::SaveTimeFloor(self.time.floor()));
        self.renew(now);
        let departed = self.directory.expire(unix);
        for peer in departed.gone.iter().filter(|peer| **peer != self.peer_id()) {
            tracing::info!(%peer, "the member's certificate has expired");
        }
        self.let_go(departed, now);
        self.judge_ourselves(now);
        self.renew_ourselves(now);
    }

    /// Renews the certificates that are past half their life, our own and those of the other members, if it is ours
    /// to do: several that may do not disturb each other, the highest serial counts.
    fn renew(&mut self, now: Now) {
        let unix = self.time.now(now.unix);
        let Some(issuer) = &self.issuer else { return };
        let us = self.signer.key();
        let renewed: Vec<_> = self
            .directory
            .members()
            .filter(|member| is_ours_to_renew(&member.certificate, &us, unix))
            .filter_map(|member| {
                let renewed = issuer.renew(&member.certificate, unix);
                // Groups that we may not give are another delegate's to renew.
                let credential = renewed.inspect_err(|reason| {
                    tracing::debug!(peer = %member.peer_id, %reason, "a certificate cannot be renewed");
                });
                Some(MemberRecord {
                    credential: credential.ok()?,
                    descriptor: member.record.descriptor.clone(),
                })
            })
            .take(MAX_RENEWALS)
            .collect();
        for record in renewed {
            if let Err(reason) = self.admit(&record.encode(), None, now) {
                tracing::warn!(%reason, "a renewed certificate is not taken");
            }
        }
    }

    /// Takes over a newer certificate of our own, whoever brought it: the directory has verified it.
    fn adopt_from_directory(&mut self, now: Now) {
        let Some(member) = self.directory.get(&self.peer_id()) else {
            return;
        };
        let credential = member.record.credential.clone();
        match self.adopt(credential, now) {
            Ok(true) => self.judge_ourselves(now),
            Ok(false) => {}
            Err(reason) => {
                tracing::error!(%reason, "the directory's certificate of ours is not good");
            }
        }
    }

    /// Where a member was whose record is not good any more: it may know of a newer certificate of ours.
    fn restore_contact(&mut self, record: &[u8]) {
        let genesis = self.network.genesis();
        let Ok(record) = MemberRecord::decode(record) else {
            return;
        };
        let unix = self.time.floor();
        if let Ok(member) = record.verify_untimed(genesis, unix) {
            let addresses = dialable(&member.descriptor.addresses, &member.peer_id);
            self.remember_contact(member.peer_id, addresses);
        }
    }

    /// What an earlier run knew of the members.
    pub(super) fn restore_records(&mut self, records: &[Vec<u8>], now: Now) {
        let unix = self.time.now(now.unix);
        for record in records {
            let Err(reason) = self.admit(record, None, now) else {
                continue;
            };
            tracing::debug!(%reason, "a stored record is not taken");
            self.restore_contact(record);
            let Ok(forgotten) = self.directory.remember(record, unix) else {
                continue;
            };
            self.outputs
                .extend(forgotten.into_iter().map(Output::ForgetRecord));
        }
    }
}

/// Whose certificate we renew: of those that rest on our delegation at half its life, of the others when its issuer has
/// let half of the rest pass. So a delegate that is gone is replaced, and two do not do the same at the same time.
fn is_ours_to_renew(certificate: &Certificate, us: &SignerKey, now: UnixTime) -> bool {
    let life = certificate.not_after.since(certificate.not_before);
    let age = now.since(certificate.not_before);
    match certificate.issuer == *us {
        true => age >= life / 2,
        false => age >= life / 4 * 3,
    }
}

/// The addresses as the swarm dials them: each names the peer that must answer, and none is of a kind that many have
/// or that reaches many. The swarm and the tunnels keep the overlay's own out.
fn dialable(addresses: &[Multiaddr], peer: &PeerId) -> Vec<Multiaddr> {
    addresses
        .iter()
        .filter(|address| match address.iter().next() {
            Some(Protocol::Ip4(ip)) => !ip.is_broadcast() && is_somebody(ip.into()),
            Some(Protocol::Ip6(ip)) => is_somebody(ip.into()),
            Some(_) => true,
            None => false,
        })
        .filter_map(|address| address.clone().with_p2p(*peer).ok())
        .collect()
}

fn is_somebody(ip: IpAddr) -> bool {
    !ip.is_unspecified() && !ip.is_loopback() && !ip.is_multicast()
}
