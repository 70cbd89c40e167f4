//! A small network to test with. Keys come from numbers: the authority's is 200, the founder's 100.

use std::{collections::BTreeSet, net::Ipv4Addr};

use zeroize::Zeroizing;

use super::{
    certificate::Credential,
    descriptor::{Descriptor, Features},
    directory::Directory,
    genesis::{DEFAULT_CERTIFICATE_LIFETIME, DEFAULT_IPV4_PREFIX},
    invite::Invite,
    issuer::{Applicant, Issuer, Offer, Redemption, TIER_INVITED},
    join::JoinRequest,
    name::Name,
    network::{Founding, Network},
    record::MemberRecord,
    refusal::JoinRefusal,
    signer::Signer,
    time::UnixTime,
};

pub const NOW: UnixTime = UnixTime(1_700_000_000);
pub const DAY: u64 = 24 * 60 * 60;

pub fn signer(n: u8) -> Signer {
    Signer::from_seed(&[n; 32])
}

pub fn authority() -> Signer {
    signer(200)
}

pub fn founder() -> Signer {
    signer(100)
}

pub fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

pub fn groups(names: &[&str]) -> BTreeSet<Name> {
    names.iter().map(|n| name(n)).collect()
}

pub fn later(days: u64) -> UnixTime {
    UnixTime(NOW.0 + days * DAY)
}

/// An invite for a day that leaves everything to the joiner.
pub fn offer() -> Offer {
    Offer {
        name: None,
        groups: BTreeSet::new(),
        ipv4: None,
        expires: later(1),
        addresses: vec!["/ip4/192.0.2.1/udp/4001/quic-v1".parse().unwrap()],
    }
}

pub fn applicant(node: &Signer, called: &str, ipv4: Option<Ipv4Addr>) -> Applicant {
    Applicant {
        key: node.key(),
        name: name(called),
        groups: BTreeSet::new(),
        ipv4,
        tier: TIER_INVITED,
    }
}

/// A network, seen from its founder, who is in the directory.
#[derive(Clone)]
pub struct Hive {
    pub network: Network,
    pub delegation: Vec<u8>,
    pub credential: Credential,
    pub issuer: Issuer,
    pub directory: Directory,
}

impl Hive {
    pub fn founded() -> Hive {
        Hive::founded_as(7)
    }

    /// Another number, another network.
    pub fn founded_as(salt: u8) -> Hive {
        let founding = Founding {
            name: name("home"),
            ipv4_prefix: DEFAULT_IPV4_PREFIX,
            certificate_lifetime: DEFAULT_CERTIFICATE_LIFETIME,
            founder_name: name("founder"),
            founder_ipv4: Some(Ipv4Addr::new(10, 77, 0, 1)),
            policy_mode: None,
        };
        let secret = Zeroizing::new([salt; 32]);
        let founded =
            Network::found(founding, &authority(), &founder(), [salt; 16], secret, NOW).unwrap();
        let genesis = founded.network.genesis().clone();
        let mut hive = Hive {
            issuer: Issuer::new(founder(), founded.delegation.clone(), genesis.clone()).unwrap(),
            directory: Directory::new(genesis),
            network: founded.network,
            delegation: founded.delegation,
            credential: founded.credential.clone(),
        };
        let record = hive.record(&founder(), founded.credential, "founder", 1);
        hive.directory.admit(&record, NOW).unwrap();
        hive
    }

    /// A descriptor with a WireGuard key of the node's own; no tunnel will ever use it.
    pub fn descriptor(&self, node: &Signer, called: &str, seq: u64) -> Descriptor {
        Descriptor {
            network: self.network.id(),
            seq,
            wireguard_key: *node.key().as_bytes(),
            name: name(called),
            addresses: vec![],
            features: Features::NONE,
        }
    }

    /// A record with a plain descriptor.
    pub fn record(&self, node: &Signer, credential: Credential, called: &str, seq: u64) -> Vec<u8> {
        MemberRecord {
            credential,
            descriptor: self.descriptor(node, called, seq).seal(node),
        }
        .encode()
    }

    /// Admits a node by hand and takes its first record in.
    pub fn admit(&mut self, node: &Signer, called: &str, ipv4: Option<Ipv4Addr>) -> Credential {
        let credential = self
            .issuer
            .admit(applicant(node, called, ipv4), NOW, &mut self.directory)
            .unwrap();
        let record = self.record(node, credential.clone(), called, 1);
        self.directory.admit(&record, NOW).unwrap();
        credential
    }

    pub fn invite(&self, offer: Offer, secret: u8) -> Invite {
        self.issuer
            .invite(offer, Zeroizing::new([secret; 32]), NOW)
            .unwrap()
    }

    /// A whole join at the issuer: the request travels, is opened and decided.
    pub fn join(
        &mut self,
        request: &[u8],
        from: &Signer,
        now: UnixTime,
        redeemed: Option<&Redemption>,
    ) -> Result<Redemption, JoinRefusal> {
        let request = JoinRequest::open(request, &from.peer_id())?;
        self.issuer
            .decide(&request, now, &mut self.directory, redeemed)
    }
}
