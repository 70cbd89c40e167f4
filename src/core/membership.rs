//! Who belongs to a network, proven by signatures alone.
//!
//! A network begins with a **genesis**, signed by an authority; its hash is the network's id. The
//! authority gives a **delegation** to a node, and that node signs a **certificate** for each
//! member: its name, groups and IPv4 address, for a month. With its certificate a member publishes a
//! **descriptor**, signed by itself: where it is and which WireGuard key it has. Certificate and
//! descriptor together are the member's **record**. A record proves itself, so it may come from
//! anybody, and is believed only when the whole chain up to the genesis holds.
//!
//! The **directory** holds the records a node knows and decides who has which address and name.
//! Members bring their directories together by exchanging digests ([`sync`]).
//!
//! What an authority and its delegates decide later travels as **notices**: more delegations and their
//! ends, expulsions, the policy. All members hold the same ones ([`notices`]) and believe no certificate
//! that these void.
//!
//! A node becomes a member by an **invite**: a printable string with which it asks the node that
//! made it ([`join`]); that node's [`issuer`] decides. Or a node is admitted without being there, by
//! its key, and is handed the answer as a [`bundle`]. Nobody needs to be asked afterwards. Where a node that may admit
//! has a **password** ([`password`]), whoever proves it may join as well, and is worth less.
//!
//! Nothing here reads a clock or draws a random number: the caller passes both in. Everything that
//! is refused is refused for one named reason, a [`Rejection`] or a [`JoinRefusal`].
//!
//! Reading order: [`genesis`], [`delegation`], [`certificate`], [`descriptor`], [`record`],
//! [`notice`], [`notices`], [`directory`]; then [`invite`], [`join`], [`issuer`]. The encoding is in [`envelope`] and `wire`.

pub mod address;
pub mod administration;
pub mod bundle;
pub mod capability;
pub mod certificate;
mod claims;
pub mod delegation;
pub mod descriptor;
pub mod directory;
pub mod envelope;
pub mod former;
pub mod genesis;
pub mod invite;
pub mod issuer;
pub mod join;
pub mod name;
pub mod network;
pub mod notice;
pub mod notices;
pub mod password;
pub mod record;
pub mod refusal;
pub mod rejection;
pub mod signer;
pub mod sync;
mod tag;
pub mod time;
pub(crate) mod wire;

pub use administration::{Admin, Administration};
pub use bundle::{Bundle, BundleError};
pub use capability::{Capability, Roles};
pub use certificate::{Certificate, Credential};
pub use delegation::{Delegation, GroupGrant, Powers};
pub use descriptor::{Descriptor, Features};
pub use directory::{Admitted, Change, Directory};
pub use genesis::{Genesis, NetworkId};
pub use invite::{Invite, InviteError};
pub use issuer::{Applicant, Issuer, Offer, Redemption};
pub use join::by_password::{PasswordJoin, PasswordProven, PasswordStep};
pub use join::{JoinAnswer, JoinError, JoinMessage, JoinRequest, Joined, Renewal};
pub use name::Name;
pub use network::{Founded, Founding, Network};
pub use notice::{DelegationEnd, Notice, NoticeId, PolicyUpdate, Revocation};
pub use notices::Notices;
pub use password::{PasswordRecord, UnusablePassword};
pub use record::{DhtVerdict, Member, MemberRecord};
pub use refusal::JoinRefusal;
pub use rejection::{Rejection, Rejections};
pub use signer::{Signer, SignerKey};
pub use sync::SyncMessage;
pub use time::{TimeFloor, UnixTime};

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests {
    mod admission;
    mod conflicts;
    mod decoders;
    mod notices;
    mod trust;
}
