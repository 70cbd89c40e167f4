//! Relaying datagrams between members whom no direct path joins, for two NATs that cannot be punched for example.
//!
//! A member that offers to relay passes WireGuard datagrams on, unopened, on the same UDP port on which it receives its
//! own: that keeps the loss, order and size of datagrams, which a stream through a circuit does not. Two members share a
//! *channel* on it, a number that stands before each datagram:
//!
//! ```text
//! 8 │ 3 zero │ channel (4, big endian) │ WireGuard datagram
//! ```
//!
//! A channel is asked for [inside the session](crate::signal) with the relay, so only by members. It leads from an
//! endpoint that one member's session has proven to one that the other's has: nobody else can use it, nothing is sent to
//! anybody who does not want it, and one byte in is one byte out. Whoever forges an endpoint can do no more than against
//! the direct path: the receiver's session drops what is not authentic.
//!
//! The [`Switchboard`] is the relay's half, [`Lines`] that of its customers.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::RangeInclusive,
    time::{Duration, Instant},
};

use libp2p_identity::PeerId;

use crate::peer::PeerIndex;

/// First bytes of a relayed datagram: no WireGuard message type, and no QUIC packet (bit 0x40 is clear).
const MARK: [u8; 4] = [8, 0, 0, 0];
/// Bytes before the WireGuard datagram.
pub const HEADER: usize = 8;

/// Pairs that one relay serves at once: a bound on memory.
const MAX_CHANNELS: usize = 4096;
/// Of these, what one member may take part in.
const MAX_CHANNELS_PER_MEMBER: usize = 256;
/// A channel that nothing passed for so long is closed. Idle customers exchange heartbeats every 22 s.
const CHANNEL_LIFE: Duration = Duration::from_secs(180);
/// A relay that declined is not asked again for so long.
const REFUSAL_LIFE: Duration = Duration::from_secs(30);
/// A relay that has not answered is asked again after this.
const ANSWER_PATIENCE: Duration = Duration::from_secs(2);
/// A limit on bytes is kept on average over about this long.
const BURST: Duration = Duration::from_millis(250);

/// Names a pair of members on one relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Channel(pub u32);

impl Channel {
    /// What stands before a datagram of this channel.
    pub fn header(self) -> [u8; HEADER] {
        let mut header = [0; HEADER];
        header[..4].copy_from_slice(&MARK);
        header[4..].copy_from_slice(&self.0.to_be_bytes());
        header
    }
}

/// The channel and the WireGuard datagram of a relayed datagram.
pub fn split(datagram: &[u8]) -> Option<(Channel, &[u8])> {
    let (header, inner) = datagram.split_first_chunk::<HEADER>()?;
    let (mark, channel) = header.split_first_chunk::<4>()?;
    let channel = u32::from_be_bytes(channel.try_into().ok()?);
    (*mark == MARK).then_some((Channel(channel), inner))
}

/// What the owner of a relay allows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Terms {
    /// Bytes that are passed on in a second, of all members together; any number if not set.
    pub bytes_per_second: Option<u64>,
    /// The members that may use it; all if not set. One of a pair is enough.
    pub members: Option<BTreeSet<PeerId>>,
}

impl Terms {
    /// Whether a pair of members may share a channel.
    pub fn allow(&self, one: &PeerId, other: &PeerId) -> bool {
        let members = self.members.as_ref();
        members.is_none_or(|members| members.contains(one) || members.contains(other))
    }
}

#[derive(Debug)]
struct Pair {
    members: [PeerIndex; 2],
    used: Instant,
}

/// Which members this node passes datagrams between.
#[derive(Debug)]
pub struct Switchboard {
    terms: Terms,
    channels: HashMap<Channel, Pair>,
    by_pair: HashMap<[PeerIndex; 2], Channel>,
    /// Bytes that may pass now.
    allowance: u64,
    refilled: Instant,
    passed: u64,
}

impl Switchboard {
    /// Nobody is connected yet.
    pub fn new(terms: Terms, now: Instant) -> Self {
        Self {
            terms,
            channels: HashMap::new(),
            by_pair: HashMap::new(),
            allowance: 0,
            refilled: now,
            passed: 0,
        }
    }

    /// What the owner allows.
    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// The owner changed its mind. Channels that are open stay.
    pub fn set_terms(&mut self, terms: Terms) {
        self.terms = terms;
    }

    /// Bytes passed on so far.
    pub fn passed(&self) -> u64 {
        self.passed
    }

    /// The channel of two members, made if need be from the numbers that `draw` yields; none if there are too many.
    pub fn open(
        &mut self,
        one: PeerIndex,
        other: PeerIndex,
        now: Instant,
        mut draw: impl FnMut() -> u32,
    ) -> Option<Channel> {
        let pair = if one < other {
            [one, other]
        } else {
            [other, one]
        };
        if let Some(channel) = self.by_pair.get(&pair) {
            return Some(*channel);
        }
        self.close_unused(now);
        let of = |member| self.by_pair.keys().filter(move |p| p.contains(member));
        let is_greedy = pair
            .iter()
            .any(|member| of(member).count() >= MAX_CHANNELS_PER_MEMBER);
        if is_greedy || self.channels.len() >= MAX_CHANNELS {
            return None;
        }
        let mut channel = Channel(draw());
        while self.channels.contains_key(&channel) {
            channel = Channel(draw());
        }
        let members = pair;
        self.channels.insert(channel, Pair { members, used: now });
        self.by_pair.insert(pair, channel);
        Some(channel)
    }

    /// The two members of a channel.
    pub fn members(&self, channel: Channel) -> Option<[PeerIndex; 2]> {
        self.channels.get(&channel).map(|pair| pair.members)
    }

    /// Whether so many bytes may pass now.
    pub fn pass(&mut self, channel: Channel, bytes: usize, now: Instant) -> bool {
        let bytes = bytes as u64;
        if let Some(rate) = self.terms.bytes_per_second {
            let since = now.saturating_duration_since(self.refilled);
            let earned = (rate as f64 * since.as_secs_f64()) as u64;
            let most = ((rate as f64 * BURST.as_secs_f64()) as u64).max(1 << 16);
            if earned > 0 {
                self.allowance = (self.allowance + earned).min(most);
                self.refilled = now;
            }
            if self.allowance < bytes {
                return false;
            }
            self.allowance -= bytes;
        }
        self.passed += bytes;
        if let Some(pair) = self.channels.get_mut(&channel) {
            pair.used = now;
        }
        true
    }

    /// A member is no more.
    pub fn remove(&mut self, member: PeerIndex) {
        self.retain(|pair| !pair.members.contains(&member));
    }

    fn close_unused(&mut self, now: Instant) {
        self.retain(|pair| now < pair.used + CHANNEL_LIFE);
    }

    fn retain(&mut self, keep: impl Fn(&Pair) -> bool) {
        self.channels.retain(|_, pair| keep(pair));
        let channels = &self.channels;
        self.by_pair
            .retain(|_, channel| channels.contains_key(channel));
    }
}

/// What became of asking one relay for one peer.
#[derive(Debug, Clone, Copy)]
enum Line {
    Asked(Instant),
    Refused(Instant),
    Open(Channel),
}

/// The channels that this node uses, each to a peer through a relay.
#[derive(Debug, Default)]
pub struct Lines(BTreeMap<(PeerIndex, PeerIndex), Line>);

impl Lines {
    /// Whether `relay` may be asked for a channel to `peer` now; if so, it counts as asked.
    pub fn ask(&mut self, peer: PeerIndex, relay: PeerIndex, now: Instant) -> bool {
        let may = match self.0.get(&(peer, relay)) {
            None => true,
            Some(Line::Asked(at)) => now >= *at + ANSWER_PATIENCE,
            Some(Line::Refused(at)) => now >= *at + REFUSAL_LIFE,
            Some(Line::Open(_)) => false,
        };
        if may {
            self.0.insert((peer, relay), Line::Asked(now));
        }
        may
    }

    /// The relay has opened a channel to the peer.
    pub fn opened(&mut self, peer: PeerIndex, relay: PeerIndex, channel: Channel) {
        self.0.insert((peer, relay), Line::Open(channel));
    }

    /// The relay declines, or has closed the channel; returns the one that was open.
    pub fn closed(&mut self, peer: PeerIndex, relay: PeerIndex, now: Instant) -> Option<Channel> {
        match self.0.insert((peer, relay), Line::Refused(now)) {
            Some(Line::Open(channel)) => Some(channel),
            Some(Line::Asked(_) | Line::Refused(_)) | None => None,
        }
    }

    /// The peer is reached well without: forgets its channels, and returns them with their relays.
    pub fn hang_up(&mut self, peer: PeerIndex) -> Vec<(PeerIndex, Channel)> {
        let lines: Vec<_> = self.of(peer).collect();
        self.0.extract_if(all_to(peer), |_, _| true).for_each(drop);
        lines
    }

    /// The open channels to a peer, with their relays.
    pub fn of(&self, peer: PeerIndex) -> impl Iterator<Item = (PeerIndex, Channel)> {
        self.0
            .range(all_to(peer))
            .filter_map(|((_, relay), line)| match line {
                Line::Open(channel) => Some((*relay, *channel)),
                Line::Asked(_) | Line::Refused(_) => None,
            })
    }

    /// Those that have this number: the peers at the other end, with the relays.
    pub fn with(&self, channel: Channel) -> impl Iterator<Item = (PeerIndex, PeerIndex)> {
        self.0.iter().filter_map(move |(ends, line)| {
            let is_it = matches!(line, Line::Open(open) if *open == channel);
            is_it.then_some(*ends)
        })
    }

    /// A member is no more.
    pub fn remove(&mut self, member: PeerIndex) {
        self.0
            .retain(|(peer, relay), _| *peer != member && *relay != member);
    }

    /// Forgets the channels that `is_used` says are not.
    pub fn retain(&mut self, peer: PeerIndex, is_used: impl Fn(Channel) -> bool) {
        let is_unused = |line: &Line| match line {
            Line::Open(channel) => !is_used(*channel),
            Line::Asked(_) | Line::Refused(_) => false,
        };
        self.0
            .extract_if(all_to(peer), |_, line| is_unused(line))
            .for_each(drop);
    }
}

/// The keys of all lines to a peer.
fn all_to(peer: PeerIndex) -> RangeInclusive<(PeerIndex, PeerIndex)> {
    (peer, PeerIndex::MIN)..=(peer, PeerIndex::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::epoch;

    fn member(number: u32) -> PeerIndex {
        PeerIndex::new(number)
    }

    fn switchboard(bytes_per_second: Option<u64>) -> Switchboard {
        let terms = Terms {
            bytes_per_second,
            members: None,
        };
        Switchboard::new(terms, epoch())
    }

    #[test]
    fn a_relayed_datagram_is_told_by_its_mark_and_split() {
        let datagram = [&Channel(7).header()[..], b"sealed"].concat();
        assert_eq!(split(&datagram), Some((Channel(7), &b"sealed"[..])));
        assert_eq!(split(&datagram[1..]), None);
        assert_eq!(split(&[8, 0, 0, 0, 1]), None);
        assert!(!crate::datagram::is_wireguard(&datagram));
    }

    #[test]
    fn both_ends_get_the_same_channel() {
        let mut board = switchboard(None);
        let mut next = 0;
        let mut draw = || {
            next += 1;
            next
        };
        let channel = board.open(member(1), member(2), epoch(), &mut draw);
        assert!(channel.is_some());
        assert_eq!(
            board.open(member(2), member(1), epoch(), &mut draw),
            channel
        );
        let other = board.open(member(1), member(3), epoch(), &mut draw);
        assert_ne!(other, channel);
    }

    #[test]
    fn a_channel_ends_with_its_member_or_when_nobody_uses_it() {
        let mut board = switchboard(None);
        let mut now = epoch();
        let one = board.open(member(1), member(2), now, || 1).unwrap();
        let two = board.open(member(3), member(4), now, || 2).unwrap();
        board.remove(member(2));
        assert_eq!(board.members(one), None);
        now += CHANNEL_LIFE;
        board.open(member(5), member(6), now, || 3);
        assert_eq!(board.members(two), None);
    }

    #[test]
    fn one_member_cannot_take_all_channels() {
        let mut board = switchboard(None);
        let opened = (2..2000)
            .filter(|n| board.open(member(1), member(*n), epoch(), || *n).is_some())
            .count();
        assert_eq!(opened, MAX_CHANNELS_PER_MEMBER);
        let others = board.open(member(5000), member(5001), epoch(), || 9999);
        assert!(others.is_some());
    }

    #[test]
    fn the_owners_limit_holds_on_average() {
        let mut board = switchboard(Some(1_000_000));
        let mut now = epoch();
        let channel = board.open(member(1), member(2), now, || 1).unwrap();
        for _ in 0..100_000 {
            now += Duration::from_micros(100);
            board.pass(channel, 1_000, now);
        }
        let per_second = board.passed() as f64 / 10.0;
        assert!(
            (950_000.0..1_050_000.0).contains(&per_second),
            "{per_second}"
        );
    }

    #[test]
    fn a_refusal_is_respected_for_a_while() {
        let mut lines = Lines::default();
        let mut now = epoch();
        let (peer, relay) = (member(1), member(9));
        assert!(lines.ask(peer, relay, now));
        assert!(!lines.ask(peer, relay, now));
        lines.closed(peer, relay, now);
        now += ANSWER_PATIENCE;
        assert!(!lines.ask(peer, relay, now));
        now += REFUSAL_LIFE;
        assert!(lines.ask(peer, relay, now));
        lines.opened(peer, relay, Channel(3));
        assert_eq!(lines.of(peer).collect::<Vec<_>>(), [(relay, Channel(3))]);
        assert_eq!(lines.with(Channel(3)).collect::<Vec<_>>(), [(peer, relay)]);
    }
}
