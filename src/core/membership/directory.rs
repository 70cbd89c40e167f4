//! All members a node knows of, itself included, and who holds which address and name.
//!
//! A record enters by [`Directory::admit`] alone, whoever delivered it, and only if every rule
//! holds. What is known of a member only gets newer, never older. Two directories that saw the same
//! records agree, in whatever order these came; the one exception is a WireGuard key that two
//! members show, where the first comer keeps it.
//!
//! The directory knows the [`Notices`] as well, and believes no certificate that they void. Who is no
//! member any more is remembered for a while ([`former`](super::former)).
//!
//! *Promises* are certificates that this node has issued and whose records have not come yet. Nobody
//! else is given their names and addresses in the meantime; they take nothing from a member.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use libp2p_identity::PeerId;
use sha2::{Digest, Sha256};

use super::{
    address,
    certificate::Certificate,
    claims::{Basis, Claim, Claims},
    former::Former,
    genesis::Genesis,
    name::Name,
    notice::Notice,
    notices::{Notices, Taken},
    record::{Member, MemberRecord},
    rejection::Rejection,
    signer::SignerKey,
    time::UnixTime,
};

/// The members a node can hold. A digest of as many still fits one sync message.
pub const MAX_MEMBERS: usize = 4096;

/// What a record did to the directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It introduced a member.
    New,
    /// It told something newer of a member.
    Updated,
    /// It told nothing new.
    Unchanged,
}

/// The outcome of [`Directory::admit`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admitted {
    /// Whose record it was.
    pub peer: PeerId,
    /// What it did.
    pub change: Change,
    /// The *other* members that gained or lost their IPv4 address by it.
    pub disturbed: BTreeSet<PeerId>,
}

/// The outcome of [`Directory::expire`] and [`Directory::enforce`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Departed {
    /// The members that are no more.
    pub gone: Vec<PeerId>,
    /// The members that gained an IPv4 address by it.
    pub disturbed: BTreeSet<PeerId>,
    /// Of whom nothing is remembered any more, not even that they were members.
    pub forgotten: Vec<PeerId>,
}

/// The members of one network.
#[derive(Debug, Clone)]
pub struct Directory {
    genesis: Genesis,
    members: BTreeMap<PeerId, Member>,
    promised: BTreeMap<PeerId, Certificate>,
    addresses: Claims<IpAddr>,
    names: Claims<Name>,
    tunnel_keys: BTreeMap<[u8; 32], PeerId>,
    /// Fingerprints of the records that are known.
    verified: BTreeMap<[u8; 32], PeerId>,
    notices: Notices,
    former: Former,
}

impl Directory {
    /// The directory of a network, nobody in it.
    pub fn new(genesis: Genesis) -> Directory {
        Directory {
            genesis,
            members: BTreeMap::new(),
            promised: BTreeMap::new(),
            addresses: Claims::new(),
            names: Claims::new(),
            tunnel_keys: BTreeMap::new(),
            verified: BTreeMap::new(),
            notices: Notices::default(),
            former: Former::default(),
        }
    }

    /// The network it is the directory of.
    pub fn genesis(&self) -> &Genesis {
        &self.genesis
    }

    /// Takes in what an encoded [`MemberRecord`] says, if it is valid and newer than what is known.
    pub fn admit(&mut self, record: &[u8], now: UnixTime) -> Result<Admitted, Rejection> {
        // Gossip brings the same record from many sides: what was verified once costs no signature again.
        if let Some(known) = self.verified(record) {
            known.certificate.check_time(now)?;
            return Ok(Admitted {
                peer: known.peer_id,
                change: Change::Unchanged,
                disturbed: BTreeSet::new(),
            });
        }
        let mut member = MemberRecord::decode(record)?.verify(&self.genesis, now)?;
        self.notices
            .check(&member.certificate, &member.delegation)?;
        let peer = member.peer_id;
        let mut change = Change::New;
        if let Some(known) = self.members.get(&peer) {
            let Some(merged) = known.merged_with(&member)? else {
                return Ok(Admitted {
                    peer,
                    change: Change::Unchanged,
                    disturbed: BTreeSet::new(),
                });
            };
            member = merged;
            change = Change::Updated;
        } else if self.members.len() >= MAX_MEMBERS {
            return Err(Rejection::DirectoryFull);
        }
        // First come, first served: a rule that looked at seniority would let an old member take
        // the tunnels of any younger one by showing its key.
        let tunnel_key = member.descriptor.wireguard_key;
        if self
            .tunnel_keys
            .get(&tunnel_key)
            .is_some_and(|p| *p != peer)
        {
            return Err(Rejection::TunnelKeyTaken);
        }
        let disturbed = self.put(member);
        Ok(Admitted {
            peer,
            change,
            disturbed,
        })
    }

    /// Whether exactly this record is known, so that taking it in again costs nothing.
    pub fn knows(&self, record: &[u8]) -> bool {
        self.verified(record).is_some()
    }

    /// The member of whom exactly this record is known.
    fn verified(&self, record: &[u8]) -> Option<&Member> {
        self.members.get(self.verified.get(&fingerprint(record))?)
    }

    /// Replaces what is known of a member; answers whom that deprived of or left an address.
    fn put(&mut self, member: Member) -> BTreeSet<PeerId> {
        let peer = member.peer_id;
        let mut contested = BTreeSet::from([member.ipv4]);
        contested.extend(self.members.get(&peer).map(|known| known.ipv4));
        let before = self.holders(&contested);

        let serial = member.certificate.serial;
        self.promised
            .retain(|to, promise| *to != peer || promise.serial > serial);
        self.take_out(&peer);
        self.former.came_back(&peer);
        self.learn_delegation(&member);
        let (certified, chosen) = claims_of(&member);
        self.addresses.add(member.ipv4.into(), certified);
        self.addresses.add(member.ipv6.into(), certified);
        self.names.add(member.certificate.name.clone(), certified);
        self.names.add(member.descriptor.name.clone(), chosen);
        self.tunnel_keys
            .insert(member.descriptor.wireguard_key, peer);
        self.verified
            .insert(fingerprint(&member.record.encode()), peer);
        self.members.insert(peer, member);

        let mut disturbed = changed_hands(&before, &self.holders(&contested));
        disturbed.remove(&peer);
        disturbed
    }

    /// Forgets a member and all that it claims.
    fn take_out(&mut self, peer: &PeerId) {
        let Some(member) = self.members.remove(peer) else {
            return;
        };
        let (certified, chosen) = claims_of(&member);
        self.addresses.remove(&member.ipv4.into(), &certified);
        self.addresses.remove(&member.ipv6.into(), &certified);
        self.names.remove(&member.certificate.name, &certified);
        self.names.remove(&member.descriptor.name, &chosen);
        self.tunnel_keys.remove(&member.descriptor.wireguard_key);
        self.verified.remove(&fingerprint(&member.record.encode()));
    }

    fn holders(&self, addresses: &BTreeSet<Ipv4Addr>) -> BTreeMap<Ipv4Addr, Option<PeerId>> {
        let holder = |address: &Ipv4Addr| self.owner_of((*address).into());
        addresses.iter().map(|a| (*a, holder(a))).collect()
    }

    /// Drops the members and promises whose certificates have expired. Our own is no exception.
    pub fn expire(&mut self, now: UnixTime) -> Departed {
        let over = |certificate: &Certificate| now > certificate.not_after;
        self.promised.retain(|_, promise| !over(promise));
        let mut departed = self.drop_members(|member| over(&member.certificate), now);
        departed.forgotten.extend(self.former.expire(now));
        departed
    }

    /// Drops the members and promises whose certificates the notices void. Our own is no exception.
    pub fn enforce(&mut self, now: UnixTime) -> Departed {
        let notices = std::mem::take(&mut self.notices);
        let is_void = |member: &Member| {
            notices
                .check(&member.certificate, &member.delegation)
                .is_err()
        };
        let departed = self.drop_members(is_void, now);
        self.promised
            .retain(|_, promise| !notices.is_revoked(&promise.subject, promise.generation));
        self.notices = notices;
        departed
    }

    fn drop_members(&mut self, is_over: impl Fn(&Member) -> bool, now: UnixTime) -> Departed {
        let over: Vec<Member> = self.members().filter(|m| is_over(m)).cloned().collect();
        let contested = over.iter().map(|member| member.ipv4).collect();
        let before = self.holders(&contested);
        let mut departed = Departed::default();
        for member in over {
            self.take_out(&member.peer_id);
            departed.gone.push(member.peer_id);
            departed.forgotten.extend(self.former.remember(member, now));
        }
        departed.disturbed = changed_hands(&before, &self.holders(&contested));
        departed
            .disturbed
            .retain(|peer| self.members.contains_key(peer));
        departed
    }

    // ---- notices and former members ----------------------------------------------------------------------

    /// Takes in an encoded notice. What follows from it for the members is for
    /// [`enforce`](Directory::enforce) to say.
    pub fn take_notice(&mut self, notice: &[u8]) -> Result<Taken, Rejection> {
        self.notices.take(notice, &self.genesis)
    }

    /// All notices that are known.
    pub fn notices(&self) -> &Notices {
        &self.notices
    }

    /// A delegation that is in use must be known as such, so that no delegate can expel its owner.
    fn learn_delegation(&mut self, member: &Member) {
        let notice = Notice::Delegation(member.record.credential.delegation.clone()).encode();
        // It has just been verified with the certificate.
        let _ = self.take_notice(&notice);
    }

    /// A member that is none any more, as far as it is remembered.
    pub fn former(&self, peer: &PeerId) -> Option<&Member> {
        self.former.get(peer)
    }

    /// All that are remembered.
    pub fn formers(&self) -> impl Iterator<Item = &Member> {
        self.former.iter()
    }

    /// Remembers a former member by a stored record that is not good any more. Answers who is
    /// forgotten.
    pub fn remember(&mut self, record: &[u8], now: UnixTime) -> Result<Option<PeerId>, Rejection> {
        let member = MemberRecord::decode(record)?.verify_untimed(&self.genesis, now)?;
        Ok(self.former.remember(member, now))
    }

    /// Keeps the name and the address of a certificate for its subject until its record comes.
    pub(super) fn promise(&mut self, certificate: Certificate) {
        let known = self.certificate_of(&certificate.subject);
        if known.is_none_or(|known| known.serial < certificate.serial) {
            self.promised
                .insert(certificate.subject.peer_id(), certificate);
        }
    }

    /// The newest certificate that was issued to a node, as far as is known here.
    pub(super) fn certificate_of(&self, node: &SignerKey) -> Option<&Certificate> {
        let peer = node.peer_id();
        let member = self.members.get(&peer).map(|member| &member.certificate);
        self.promised.get(&peer).or(member)
    }

    /// The same, of a former member as well.
    pub(crate) fn last_certificate_of(&self, node: &SignerKey) -> Option<&Certificate> {
        let former = || Some(&self.former(&node.peer_id())?.certificate);
        self.certificate_of(node).or_else(former)
    }

    /// Whether the node's key was expelled, and not restored since.
    pub(crate) fn is_expelled(&self, node: &SignerKey) -> bool {
        let last = self.last_certificate_of(node);
        let generation = last.map_or(0, |last| last.generation);
        self.notices.is_revoked(node, generation)
    }

    /// Whether there is room for one more member.
    pub(super) fn is_full(&self) -> bool {
        self.members.len() + self.promised.len() >= MAX_MEMBERS
    }

    /// Whether `address` is someone else's, or promised to someone else.
    pub(super) fn is_address_taken(&self, address: Ipv4Addr, node: &SignerKey) -> bool {
        self.addresses.taken_from(&node.peer_id(), &address.into())
            || self.is_promised_to_other(node, |promise| promise.ipv4 == address)
    }

    /// `name`, or `name-2`, `name-3`… if others have it.
    pub(super) fn free_name(&self, name: &Name, node: &SignerKey) -> Name {
        let peer = node.peer_id();
        let numbered = (2u32..).map(|n| name.with_suffix(&n.to_string()));
        std::iter::once(name.clone())
            .chain(numbered)
            .find(|name| {
                !self.names.taken_from(&peer, name)
                    && !self.is_promised_to_other(node, |promise| promise.name == *name)
            })
            .expect("fewer members than numbers")
    }

    fn is_promised_to_other(&self, node: &SignerKey, is_it: impl Fn(&Certificate) -> bool) -> bool {
        let mut promises = self.promised.values();
        promises.any(|promise| promise.subject != *node && is_it(promise))
    }

    /// The first automatic address that nobody has.
    pub(super) fn free_ipv4(&self, node: &SignerKey) -> Option<Ipv4Addr> {
        address::ipv4_candidates(&self.genesis.id(), self.genesis.ipv4_prefix(), node)
            .find(|address| !self.is_address_taken(*address, node))
    }

    /// All members, in the order of their peer ids.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    /// How many members there are.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there is no member, not even this node.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// What is known of a member.
    pub fn get(&self, peer: &PeerId) -> Option<&Member> {
        self.members.get(peer)
    }

    /// The member that holds an overlay address: the exact one, there are no others behind it.
    pub fn owner_of(&self, address: IpAddr) -> Option<PeerId> {
        self.addresses.holder(&address)
    }

    /// The member's IPv4 address; None when a conflict gave it to another.
    pub fn ipv4_of(&self, peer: &PeerId) -> Option<Ipv4Addr> {
        let ipv4 = self.members.get(peer)?.ipv4;
        (self.owner_of(ipv4.into()) == Some(*peer)).then_some(ipv4)
    }

    /// What a member is called here: what it calls itself if that is its own, or else that name
    /// with the first digits of its key.
    pub fn name_of(&self, peer: &PeerId) -> Option<Name> {
        let member = self.members.get(peer)?;
        let name = &member.descriptor.name;
        if self.names.holder(name) == Some(*peer) {
            return Some(name.clone());
        }
        let digits = hex(member.certificate.subject.as_bytes());
        let suffixed = |len: usize| name.with_suffix(&digits[..len]);
        let clashes = |len: usize| {
            let digits_of = |p: &PeerId| self.members.get(p).map(digits_of);
            self.names.holder(&suffixed(len)).is_some()
                || self.names.claimants(name).any(|other| {
                    other != *peer && digits_of(&other).is_some_and(|d| d[..len] == digits[..len])
                })
        };
        let len = [4, 8, 16].into_iter().find(|len| !clashes(*len));
        Some(suffixed(len.unwrap_or(24)))
    }

    /// The member that `text` means: a name, an overlay address or a peer id.
    pub fn resolve(&self, text: &str) -> Option<PeerId> {
        let text = text.trim();
        if let Ok(address) = text.parse() {
            return self.owner_of(address);
        }
        if let Ok(name) = Name::parse(&text.to_ascii_lowercase())
            && let Some(peer) = self.resolve_name(&name)
        {
            return Some(peer);
        }
        text.parse()
            .ok()
            .filter(|peer| self.members.contains_key(peer))
    }

    /// Whether a member has this name by its certificate, and no older one does.
    pub fn is_named(&self, peer: &PeerId, name: &Name) -> bool {
        let member = self.members.get(peer);
        member.is_some_and(|member| member.certificate.name == *name)
            && self.names.holder(name) == Some(*peer)
    }

    /// Everybody who has this name or calls itself so, the one first who holds it.
    pub fn namesakes(&self, name: &Name) -> impl Iterator<Item = PeerId> {
        self.names.claimants(name)
    }

    fn resolve_name(&self, name: &Name) -> Option<PeerId> {
        match self.names.holder(name) {
            Some(holder) => Some(holder),
            None => self
                .members
                .keys()
                .find(|peer| self.name_of(peer).as_ref() == Some(name))
                .copied(),
        }
    }
}

/// What a member may claim by its certificate, and by its own word.
fn claims_of(member: &Member) -> (Claim, Claim) {
    let certificate = &member.certificate;
    let lot = Sha256::new()
        .chain_update("hivevpn/v1/lot")
        .chain_update(certificate.network.as_bytes())
        .chain_update(certificate.subject.as_bytes());
    let certified = Claim {
        basis: Basis::Certified,
        admitted_at: certificate.admitted_at,
        lot: lot.finalize().into(),
        peer: member.peer_id,
    };
    let chosen = Claim {
        basis: Basis::Chosen,
        ..certified
    };
    (certified, chosen)
}

/// Everyone who had an address before or has one after that the other did not have.
fn changed_hands(
    before: &BTreeMap<Ipv4Addr, Option<PeerId>>,
    after: &BTreeMap<Ipv4Addr, Option<PeerId>>,
) -> BTreeSet<PeerId> {
    before
        .iter()
        .zip(after)
        .filter(|((_, was), (_, is))| was != is)
        .flat_map(|((_, was), (_, is))| was.iter().chain(is))
        .copied()
        .collect()
}

fn digits_of(member: &Member) -> String {
    hex(member.certificate.subject.as_bytes())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
fn fingerprint(record: &[u8]) -> [u8; 32] {
    Sha256::digest(record).into()
}
