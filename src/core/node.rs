//! One node: its tunnels, its connections, the members it knows. Drives nothing by itself.
//!
//! **In:** packets ([`Node::handle_overlay_packet`]), datagrams ([`Node::handle_datagram`]), control events (the
//! other `handle_*`), time ([`Node::handle_timeout`]).
//! **Out:** batches ([`Node::outbox`], [`Node::inbox`]), [`Output`]s ([`Node::poll_output`]), the next moment at which
//! time matters ([`Node::poll_timeout`]).
//!
//! The shell calls one `handle_*`, then takes out everything that came out of it. What happens to members lives in
//! `members.rs`, to connections in `links.rs`, how others join in `joining.rs` and `passwords.rs`, what one member may cost the
//! others in `restraint.rs`, what people see in `status.rs`. What an authority and its delegates decide lives in `trust.rs`
//! and `delegates.rs`, how everybody learns it in `notices.rs`, what it means for ourselves in `standing.rs` and
//! `renewal.rs`.

use std::{
    collections::{BTreeMap, VecDeque},
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use libp2p_core::Multiaddr;
use libp2p_identity::PeerId;
use zeroize::Zeroizing;

use crate::{
    batch::{DatagramBatch, PacketBatch},
    connections::Connections,
    membership::{
        Certificate, Credential, Delegation, Directory, Issuer, MemberRecord, Name, Network,
        PasswordRecord, Redemption, Rejection, Rejections, Signer, SignerKey, TimeFloor, UnixTime,
        address,
    },
    output::Output,
    path::{Path, candidate::Candidate},
    registry::Rules,
    relay, session,
    tunnels::{OverlayAddresses, PingAnswer, Tunnels},
};

mod administration;
mod delegates;
mod joining;
mod links;
mod members;
mod notices;
mod passwords;
mod policy;
mod registry;
mod renewal;
mod restraint;
mod rotation;
mod standing;
mod status;
mod tries;
mod trust;

pub use delegates::{CannotDelegate, CannotUndelegate, DelegateStatus, Undelegated};
pub use joining::{CannotAdmit, InviteRequest, NoInvite};
pub use passwords::NoPassword;
pub use registry::ServiceStatus;
pub use standing::Standing;
pub use status::{MemberStatus, PeerStatus, Why};
pub use trust::{CannotRestore, CannotRevoke, CannotSetPolicy, RevokedStatus};

/// Certificates are looked through for expiry this often.
const EXPIRY_PERIOD: Duration = Duration::from_secs(60);
/// Directories are compared with a connected member this often, should an announcement have been lost.
const ANTI_ENTROPY_PERIOD: Duration = Duration::from_secs(300);
/// The DHT forgets records after a day or two; ours is put there again this often.
const PUBLISH_PERIOD: Duration = Duration::from_secs(3600);
/// After a sync message was lost with its connection, directories are compared again this much later.
const RESYNC_DELAY: Duration = Duration::from_secs(1);
/// Alone, a node tries its bootstrap addresses this often, and without a relay one of those that it knows.
const BOOTSTRAP_PERIOD: Duration = Duration::from_secs(15);

/// Who is called so late was stopped or asleep, and finds another network than the one it knew.
const OVERSLEPT: Duration = Duration::from_secs(5);

/// The two clocks, read together by the shell.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// For timers: never goes back.
    pub instant: Instant,
    /// For signed objects: the system clock.
    pub unix: UnixTime,
}

/// What a node starts from.
pub struct Start {
    /// Our identity.
    pub signer: Signer,
    /// Our WireGuard key.
    pub wireguard: session::Identity,
    /// The network.
    pub network: Network,
    /// Our certificate.
    pub credential: Credential,
    /// Our delegation, when we may admit others.
    pub delegation: Option<Vec<u8>>,
    /// What we call ourselves.
    pub name: Name,
    /// MTU of the overlay interface in bytes.
    pub mtu: u16,
    /// Feeds jitter and session indexes; nothing secret.
    pub seed: u64,
    /// Random and secret: ephemeral keys come from it.
    pub secret_seed: Zeroizing<[u8; 32]>,
    /// Sequence number of the last descriptor we signed.
    pub descriptor_seq: u64,
    /// The latest moment an earlier run has known.
    pub time_floor: UnixTime,
    /// Records of an earlier run or of the admission.
    pub records: Vec<Vec<u8>>,
    /// Notices of an earlier run or of the admission.
    pub notices: Vec<Vec<u8>>,
    /// Invites that were used.
    pub redemptions: Vec<Redemption>,
    /// The password that admits others, when we may.
    pub password: Option<PasswordRecord>,
    /// Fresh randomness, for all that must not be guessed.
    pub random: Zeroizing<[u8; 32]>,
    /// On which terms we pass datagrams on for others, should we offer to.
    pub relay_terms: relay::Terms,
    /// Members to contact as long as none is connected, besides those that the records tell of.
    pub bootstrap: Vec<(PeerId, Multiaddr)>,
    /// Entries of the registry of an earlier run, sealed.
    pub entries: Vec<Vec<u8>>,
    /// What entries must fulfil here, besides what all must.
    pub rules: Rules,
    /// Whether this node keeps nothing of the registry for others.
    pub registry_client: bool,
}

/// What we tell others about how to reach us.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reach {
    /// Where we listen, external and relayed addresses included, each ready to be dialled.
    pub addresses: Vec<Multiaddr>,
    /// The endpoints of our own UDP socket: of our interfaces, and of our router's mapping.
    pub candidates: Vec<Candidate>,
    /// Whether we carry circuits for other members, and pass their datagrams on.
    pub relays: bool,
    /// Whether we know how we are seen from outside, or need not, because anybody can dial us.
    pub is_seen: bool,
}

/// When directories are compared again with a peer to whom a sync message was lost, and how long after the next loss.
#[derive(Debug, Default)]
struct Resync {
    due: Option<Instant>,
    pause: Duration,
}

/// A node.
pub struct Node {
    signer: Signer,
    network: Network,
    credential: Credential,
    certificate: Certificate,
    /// What our certificate rests on.
    basis: Delegation,
    standing: Standing,
    issuer: Option<Issuer>,
    name: Name,
    wireguard_key: [u8; 32],
    reach: Reach,
    descriptor_seq: u64,
    time: TimeFloor,
    directory: Directory,
    redemptions: BTreeMap<SignerKey, Redemption>,
    tunnels: Tunnels,
    connections: Connections,
    outputs: VecDeque<Output>,
    relays: Vec<(PeerId, Vec<Multiaddr>)>,
    relay_terms: relay::Terms,
    joins: joining::JoinLimit,
    passwords: passwords::Passwords,
    strangers: BTreeMap<PeerId, Instant>,
    asking: renewal::Asking,
    restraint: restraint::Restraint,
    registry: registry::Registry,
    rejections: Rejections,
    bootstrap: Vec<(PeerId, Multiaddr)>,
    next_bootstrap: Instant,
    resync: BTreeMap<PeerId, Resync>,
    next_resync: Option<Instant>,
    next_expiry: Instant,
    next_anti_entropy: Instant,
    next_publish: Instant,
}

impl Node {
    /// A member of a network, with what it remembers. Fails when our own certificate never was good; one that has run
    /// out or was taken back leaves a node that asks for a new one ([`Standing`]).
    pub fn new(start: Start, now: Now) -> Result<Self, Rejection> {
        let mut time = TimeFloor::new(start.time_floor);
        let unix = time.now(now.unix);
        let genesis = start.network.genesis().clone();
        let us = start.signer.peer_id();
        let (certificate, basis) = start.credential.open(&genesis)?;
        if certificate.subject != start.signer.key() {
            return Err(Rejection::WrongSubject);
        }
        if unix < certificate.not_before {
            return Err(Rejection::NotYetValid);
        }
        let addresses = OverlayAddresses {
            ipv4: Some(certificate.ipv4),
            ipv6: address::ipv6(&genesis.id(), &start.signer.key()),
        };
        let wireguard_key = start.wireguard.public().0;
        let registry = registry::Registry::new(
            &start.network,
            start.rules,
            start.registry_client,
            now.instant,
        );
        let decoy = PasswordRecord::decoy(&start.network.decoy_seed(&us));
        let mut node = Self {
            tunnels: Tunnels::new(
                addresses,
                start.network.keyring(start.wireguard, start.secret_seed),
                start.mtu,
                start.seed,
                now.instant,
            ),
            connections: Connections::new(us, now.instant),
            directory: Directory::new(genesis),
            signer: start.signer,
            network: start.network,
            credential: start.credential,
            certificate,
            basis,
            standing: Standing::Member,
            issuer: None,
            name: start.name,
            wireguard_key,
            reach: Reach::default(),
            descriptor_seq: start.descriptor_seq,
            time,
            redemptions: BTreeMap::new(),
            outputs: VecDeque::new(),
            relays: Vec::new(),
            relay_terms: start.relay_terms,
            joins: joining::JoinLimit::default(),
            passwords: passwords::Passwords::new(start.password, decoy, &start.random),
            strangers: BTreeMap::new(),
            asking: renewal::Asking::default(),
            restraint: restraint::Restraint::new(),
            registry,
            rejections: Rejections::default(),
            bootstrap: start.bootstrap,
            next_bootstrap: now.instant,
            resync: BTreeMap::new(),
            next_resync: None,
            next_expiry: now.instant + EXPIRY_PERIOD,
            next_anti_entropy: now.instant + ANTI_ENTROPY_PERIOD,
            next_publish: now.instant,
        };
        node.restore_notices(start.notices, start.delegation, now)?;
        node.announce_ourselves(now);
        node.restore_records(&start.records, now);
        for redemption in start.redemptions {
            if let Some(issuer) = &node.issuer {
                issuer.remember(&redemption, unix, &mut node.directory);
            }
            node.redemptions.insert(redemption.invite, redemption);
        }
        node.restore_entries(start.entries, now);
        Ok(node)
    }

    // ---- packets and datagrams ---------------------------------------------------------------------------

    /// A packet from the overlay interface.
    pub fn handle_overlay_packet(&mut self, packet: &[u8], now: Instant) {
        if let Some(wanted) = self.tunnels.handle_overlay_packet(packet, now) {
            self.connections.hurry(&wanted, now);
        }
    }

    /// A WireGuard datagram from the underlay.
    pub fn handle_datagram(&mut self, from: Path, datagram: &[u8], now: Instant) {
        self.tunnels.handle_datagram(from, datagram, now);
    }

    /// Datagrams that must leave now; the shell sends and clears them.
    pub fn outbox(&mut self) -> &mut DatagramBatch {
        self.tunnels.outbox()
    }

    /// Packets for the overlay interface; the shell writes and clears them.
    pub fn inbox(&mut self) -> &mut PacketBatch {
        self.tunnels.inbox()
    }

    /// Asks a peer for a sign of life. Returns whether such a member is known.
    pub fn ping(&mut self, peer: &PeerId, token: u64, now: Instant) -> bool {
        self.connections.hurry(peer, now);
        self.tunnels.ping(peer, token, now)
    }

    /// The next answered ping.
    pub fn poll_ping(&mut self) -> Option<PingAnswer> {
        self.tunnels.poll_ping()
    }

    /// The next peer that packets go another way to now, or no way that answers.
    pub fn poll_moved(&mut self, now: Instant) -> Option<PeerStatus> {
        let peer = self.tunnels.poll_moved()?;
        let status = self.peer(&peer)?;
        match status.path {
            Some(_) => self.connections.found(&peer),
            None => self.connections.lost(&peer, now),
        }
        Some(status)
    }

    // ---- time and outputs --------------------------------------------------------------------------------

    /// When [`handle_timeout`](Self::handle_timeout) is wanted next.
    pub fn poll_timeout(&self) -> Instant {
        let rare = self
            .next_expiry
            .min(self.next_anti_entropy)
            .min(self.next_publish)
            .min(self.next_bootstrap)
            .min(self.registry.next());
        let others = [
            self.tunnels.poll_timeout(),
            self.connections.poll_timeout(),
            self.restraint.next(),
            self.next_resync,
            self.passwords.poll_timeout(),
        ];
        others.into_iter().flatten().fold(rare, Instant::min)
    }

    /// The network below may have changed: another address, another route, a link that came back, or a machine that
    /// was asleep. Everything is tried anew, at once.
    pub fn handle_network_change(&mut self, now: Now) {
        self.connections.begin_anew(now.instant);
        self.tunnels.suspect_all(now.instant);
        self.next_bootstrap = now.instant;
        self.time.now(now.unix);
        self.plan_registry(now);
    }

    /// Lets everything act on the time that passed.
    pub fn handle_timeout(&mut self, now: Now) {
        if now.instant >= self.poll_timeout() + OVERSLEPT {
            self.handle_network_change(now);
        }
        self.time.now(now.unix);
        self.tunnels.handle_timeout(now.instant);
        self.outputs
            .extend(self.connections.handle_timeout(now.instant));
        self.passwords.handle_timeout(now.instant);
        if now.instant >= self.next_expiry {
            self.next_expiry = now.instant + EXPIRY_PERIOD;
            self.expire(now);
            // The wall clock may have been set since.
            self.plan_registry(now);
        }
        if now.instant >= self.next_anti_entropy {
            self.next_anti_entropy = now.instant + ANTI_ENTROPY_PERIOD;
            self.compare_directories();
            self.compare_registries(now.instant);
        }
        self.resync(now.instant);
        self.pass_on_held(now.instant);
        if now.instant >= self.next_bootstrap {
            self.next_bootstrap = now.instant + BOOTSTRAP_PERIOD;
            match self.standing {
                Standing::Member => self.contact_bootstrap(),
                Standing::Lapsed | Standing::Unsupported | Standing::Expelled { .. } => {
                    self.contact_for_renewal(now);
                }
            }
        }
        if now.instant >= self.next_publish {
            self.next_publish = now.instant + PUBLISH_PERIOD;
            self.publish();
            self.publish_entries();
        }
        if now.instant >= self.registry.next() {
            self.tend_registry(now);
        }
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    // ---- who we are --------------------------------------------------------------------------------------

    /// Our peer id.
    pub fn peer_id(&self) -> PeerId {
        self.signer.peer_id()
    }

    /// The network.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Our overlay IPv4 address, unless an older member holds it.
    pub fn ipv4(&self) -> Option<Ipv4Addr> {
        self.directory.ipv4_of(&self.peer_id())
    }

    /// Our own record: what we show to whoever proves that it knows the network.
    pub fn own_record(&self) -> Option<Vec<u8>> {
        self.directory
            .get(&self.peer_id())
            .map(|member| member.record.encode())
    }

    /// The member that `text` names: by name, overlay address or peer id.
    pub fn resolve(&self, text: &str) -> Option<PeerId> {
        self.directory.resolve(text)
    }

    /// Where or how we are reached has changed.
    pub fn handle_reach(&mut self, reach: Reach, now: Now) {
        if self.reach != reach {
            let terms = reach.relays.then(|| self.relay_terms.clone());
            self.tunnels.set_relaying(terms, now.instant);
            self.tunnels
                .set_candidates(reach.candidates.clone(), now.instant);
            self.reach = reach;
            self.announce_ourselves(now);
            if self.reach.is_seen {
                self.connections.seen(now.instant);
            }
        }
    }

    /// On which terms we pass datagrams on for others, when we offer to.
    pub fn set_relay_terms(&mut self, terms: relay::Terms, now: Now) {
        self.relay_terms = terms;
        let terms = self.reach.relays.then(|| self.relay_terms.clone());
        self.tunnels.set_relaying(terms, now.instant);
    }

    fn publish(&mut self) {
        if let Some(record) = self.own_record() {
            let key = self.network.record_key(&self.peer_id());
            self.outputs.push_back(Output::Publish { key, record });
        }
    }

    fn member_record(&self, descriptor: Vec<u8>) -> Vec<u8> {
        MemberRecord {
            credential: self.credential.clone(),
            descriptor,
        }
        .encode()
    }
}

#[cfg(test)]
pub(crate) mod tests;
