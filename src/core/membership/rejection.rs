//! Why something signed, or something that claims to be, was not believed.

use std::collections::BTreeMap;

/// The rule that an object from the network or a file broke.
///
/// Each is counted under its [`code`](Rejection::code).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Rejection {
    // The shape.
    /// More bytes than any object of its kind needs.
    #[error("it is larger than {limit} bytes")]
    TooLarge {
        /// What is allowed, in bytes.
        limit: usize,
    },
    /// Not the CBOR that this version of the protocol speaks.
    #[error("it is malformed: {0}")]
    Malformed(&'static str),
    /// Not a signed envelope (libp2p RFC 0002) in its one canonical encoding.
    #[error("it is not a signed envelope")]
    NotAnEnvelope,

    // The signature.
    /// Signed with a key of a type other than ed25519.
    #[error("it is not signed with an ed25519 key")]
    WrongKeyType,
    /// An object of another kind was presented.
    #[error("it is a signed object of another kind")]
    WrongKind,
    /// The signature does not belong to these bytes, this kind of object and the key it names.
    #[error("its signature is wrong")]
    BadSignature,

    // The network.
    /// It belongs to another network.
    #[error("it belongs to another network")]
    WrongNetwork,
    /// The genesis is not signed by an authority it names, or names none or too many.
    #[error("the genesis is not signed by one of its own authorities")]
    NotAnAuthority,
    /// The IPv4 prefix of the network is not private, or of a useless size.
    #[error(
        "the IPv4 prefix must lie in 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16 or 100.64.0.0/10 and be a /8 to /30"
    )]
    UnusablePrefix,

    // The chain of trust.
    /// The delegation is not signed by an authority of the network.
    #[error("the delegation is not signed by an authority of this network")]
    DelegationNotByAuthority,
    /// The delegation does not include the power that was used.
    #[error("the issuer was not given the power to do this")]
    MissingPower,
    /// The certificate is signed by someone other than the delegate, or names another issuer.
    #[error("the certificate is not signed by the delegate that the delegation names")]
    WrongIssuer,
    /// The certificate, or the peer's, is about somebody else.
    #[error("the certificate belongs to another node")]
    WrongSubject,
    /// A group was given that the delegate may not give.
    #[error("the issuer may not give one of the groups")]
    GroupNotGranted,
    /// The address is outside the network's IPv4 prefix, or its first or last one.
    #[error("the IPv4 address is not a usable one of this network")]
    AddressUnusable,

    // What was taken back.
    /// The key was expelled, in this generation of its certificates.
    #[error("the node has been expelled from the network")]
    Revoked,
    /// An authority has ended the delegation that it rests on.
    #[error("the delegation that it rests on has been ended by an authority")]
    DelegationEnded,
    /// Something only an authority may sign was signed by somebody else.
    #[error("it is not signed by an authority of this network, as it must be")]
    NotByAuthority,
    /// A delegate expelled another delegate.
    #[error("only an authority may expel a delegate: its delegation must be ended first")]
    RevokesDelegate,

    // Time.
    /// Its validity has not begun.
    #[error("it is not valid yet; is this machine's clock right?")]
    NotYetValid,
    /// Its validity is over.
    #[error("it has expired")]
    Expired,
    /// The certificate is valid when its delegation is not.
    #[error("the certificate's validity reaches outside its delegation's")]
    OutsideDelegation,
    /// The certificate lives longer than the genesis lets any.
    #[error("the certificate is valid for longer than this network allows")]
    LifetimeTooLong,

    // The node's own word.
    /// The descriptor is signed by a node other than the certificate's subject.
    #[error("the descriptor is signed by another node than the certificate is for")]
    ForeignDescriptor,
    /// The sequence number of a descriptor or an entry is more than a day ahead.
    #[error("its sequence number is more than a day in the future")]
    FromTheFuture,
    /// Two descriptors of one node carry the same sequence number; the first one stays.
    #[error("the node signed two descriptors with one sequence number")]
    DescriptorEquivocation,
    /// Two certificates of one node carry the same serial; the first one stays.
    #[error("two certificates of the node have one serial number")]
    CertificateEquivocation,
    /// The WireGuard key is another member's, or the all-zero key.
    #[error("the WireGuard key is another member's, or no key at all")]
    TunnelKeyTaken,

    // Bounds.
    /// The directory holds as many members as it may.
    #[error("the network has as many members as this version can hold")]
    DirectoryFull,
    /// A member says more than it may.
    #[error("the member says more than it may in this time")]
    TooMuch,

    // The registry.
    /// Sealed for another network, or not at all.
    #[error("it cannot be unsealed with what the members of this network know")]
    Unsealable,
    /// A version that this one does not know.
    #[error("it is of a version that this node does not know: is this node up to date?")]
    UnknownVersion,
    /// It lies in the DHT where something else belongs.
    #[error("it does not belong where it was found")]
    WrongSlot,
    /// Signed by another node than it names as its owner.
    #[error("it is not signed by the member that it names as its owner")]
    NotByOwner,
    /// No member that is known here owns it.
    #[error("its owner is not a member of this network, as far as this node knows")]
    UnknownOwner,
    /// This node itself is no member now.
    #[error(
        "this node is not a member at the moment, so nobody would take it: 'hivevpn status' tells why"
    )]
    NotAMember,
    /// It lives for too short or too long a time.
    #[error("its lifetime is not between one minute and 48 hours")]
    LifetimeOutOfBounds,
    /// Its sequence number is below one that is known.
    #[error("its owner has signed a newer one")]
    Outdated,
    /// Two entries of one owner under one key carry the same sequence number; the one with the lower hash stays.
    #[error("its owner signed two entries with one sequence number")]
    EntryEquivocation,
    /// A rule has a time window, which is not open.
    #[error("a rule of this node forbids it at this time")]
    OutsideWindow,
    /// A rule has a quota, which is used up.
    #[error("a rule of this node lets its owner have no more entries there")]
    QuotaExceeded,
    /// A rule has a pattern, which the key does not match.
    #[error("a rule of this node does not let its owner use this key")]
    KeyForbidden,
    /// A rule names a group, which the owner is not in.
    #[error("a rule of this node wants its owner to be in another group")]
    RoleMissing,
    /// The owner has as much as one member may.
    #[error(
        "its owner has as many entries as a member may have: delete some, or wait until they are forgotten"
    )]
    OwnerFull,
    /// What is to be deleted is not there.
    #[error("this node has nothing under that key")]
    NothingThere,
    /// The registry has no room, and nobody takes more of it than this owner.
    #[error("the registry holds as much as it may")]
    RegistryFull,
    /// The value is not what lies under such a key.
    #[error("it is not what belongs under its key: {0}")]
    WrongSchema(&'static str),
    /// A validator of an application does not want it.
    #[error("an application on this node does not take it: {0}")]
    Unwanted(&'static str),
}

impl Rejection {
    /// A short, stable name for counters and logs.
    pub fn code(&self) -> &'static str {
        match self {
            Rejection::TooLarge { .. } => "too-large",
            Rejection::Malformed(_) => "malformed",
            Rejection::NotAnEnvelope => "not-an-envelope",
            Rejection::WrongKeyType => "wrong-key-type",
            Rejection::WrongKind => "wrong-kind",
            Rejection::BadSignature => "bad-signature",
            Rejection::WrongNetwork => "wrong-network",
            Rejection::NotAnAuthority => "not-an-authority",
            Rejection::UnusablePrefix => "unusable-prefix",
            Rejection::DelegationNotByAuthority => "delegation-not-by-authority",
            Rejection::MissingPower => "missing-power",
            Rejection::WrongIssuer => "wrong-issuer",
            Rejection::WrongSubject => "wrong-subject",
            Rejection::GroupNotGranted => "group-not-granted",
            Rejection::AddressUnusable => "address-unusable",
            Rejection::Revoked => "revoked",
            Rejection::DelegationEnded => "delegation-ended",
            Rejection::NotByAuthority => "not-by-authority",
            Rejection::RevokesDelegate => "revokes-delegate",
            Rejection::NotYetValid => "not-yet-valid",
            Rejection::Expired => "expired",
            Rejection::OutsideDelegation => "outside-delegation",
            Rejection::LifetimeTooLong => "lifetime-too-long",
            Rejection::ForeignDescriptor => "foreign-descriptor",
            Rejection::FromTheFuture => "from-the-future",
            Rejection::DescriptorEquivocation => "descriptor-equivocation",
            Rejection::CertificateEquivocation => "certificate-equivocation",
            Rejection::TunnelKeyTaken => "tunnel-key-taken",
            Rejection::DirectoryFull => "directory-full",
            Rejection::TooMuch => "too-much",
            Rejection::Unsealable => "unsealable",
            Rejection::UnknownVersion => "unknown-version",
            Rejection::WrongSlot => "wrong-slot",
            Rejection::NotByOwner => "not-by-owner",
            Rejection::UnknownOwner => "unknown-owner",
            Rejection::NotAMember => "not-a-member",
            Rejection::LifetimeOutOfBounds => "lifetime-out-of-bounds",
            Rejection::Outdated => "outdated",
            Rejection::EntryEquivocation => "entry-equivocation",
            Rejection::OutsideWindow => "outside-window",
            Rejection::QuotaExceeded => "quota-exceeded",
            Rejection::KeyForbidden => "key-forbidden",
            Rejection::RoleMissing => "role-missing",
            Rejection::OwnerFull => "owner-full",
            Rejection::NothingThere => "nothing-there",
            Rejection::RegistryFull => "registry-full",
            Rejection::WrongSchema(_) => "wrong-schema",
            Rejection::Unwanted(_) => "unwanted",
        }
    }
}

/// How often each rule was broken, by its [`code`](Rejection::code).
#[derive(Debug, Clone, Default)]
pub struct Rejections(BTreeMap<&'static str, u64>);

impl Rejections {
    /// Counts one.
    pub fn count(&mut self, reason: &Rejection) {
        *self.0.entry(reason.code()).or_default() += 1;
    }

    /// How often this rule was broken.
    pub fn of(&self, reason: &Rejection) -> u64 {
        self.0.get(reason.code()).copied().unwrap_or_default()
    }

    /// The rules that were broken, with how often.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.0.iter().map(|(code, count)| (*code, *count))
    }
}
