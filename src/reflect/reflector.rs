//! The answering daemon's part.
//!
//! Nothing that a member asks makes us send to anybody but itself: the endpoint must lie at an address that one of its
//! own authenticated connections comes from. And not often, because behind a NAT of many customers the port could be
//! somebody else's.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use libp2p::PeerId;

use super::wire::{Answer, Ask, Token};

/// Tokens sent to one member within [`INTERVAL`]: for a command or two in both address families.
const TOKENS: u32 = 8;
const INTERVAL: Duration = Duration::from_secs(60);

/// Answers members.
#[derive(Default)]
pub struct Reflector {
    since: Option<Instant>,
    /// Tokens sent since then. Only members get here, so there are not more entries than members.
    sent: BTreeMap<PeerId, u32>,
}

impl Reflector {
    /// Answers the request of a member whose direct connections come from `seen_at`.
    pub fn answer(
        &mut self,
        asker: &PeerId,
        body: &[u8],
        seen_at: &[IpAddr],
        now: Instant,
    ) -> Answer {
        match Ask::decode(body) {
            None => Answer::NotUnderstood,
            Some(Ask::Clock) => clock().map_or(Answer::Unable, Answer::Clock),
            Some(Ask::Send { endpoint, .. })
                if !seen_at.contains(&endpoint.ip()) || endpoint.port() == 0 =>
            {
                Answer::NotYours
            }
            Some(Ask::Send { .. }) if !self.admit(asker, now) => Answer::TooOften,
            Some(Ask::Send { endpoint, token }) => match send(endpoint, token) {
                Ok(()) => Answer::Sent,
                Err(error) => {
                    tracing::debug!(peer = %asker, %endpoint, %error, "a token was not sent");
                    Answer::Unable
                }
            },
        }
    }

    fn admit(&mut self, asker: &PeerId, now: Instant) -> bool {
        let is_over = |since: Instant| now.saturating_duration_since(since) >= INTERVAL;
        if self.since.is_none_or(is_over) {
            self.since = Some(now);
            self.sent.clear();
        }
        let sent = self.sent.entry(*asker).or_default();
        *sent = sent.saturating_add(1);
        *sent <= TOKENS
    }
}

/// Milliseconds since 1970 by the system clock; none for a clock before that.
pub fn clock() -> Option<u64> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    u64::try_from(since.as_millis()).ok()
}

/// From a port that the system chooses, which is closed again at once.
fn send(endpoint: SocketAddr, token: Token) -> io::Result<()> {
    let any = match endpoint.ip() {
        IpAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::from(Ipv6Addr::UNSPECIFIED),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_nonblocking(true)?;
    socket.send_to(&token.to_datagram(), endpoint).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn send_to(endpoint: SocketAddr) -> Vec<u8> {
        let token = Token([3; 16]);
        Ask::Send { endpoint, token }.encode()
    }

    #[test]
    fn a_token_comes_from_another_port_than_any_before() {
        let socket = UdpSocket::bind((HERE, 0)).unwrap();
        let ask = send_to(socket.local_addr().unwrap());
        let mut reflector = Reflector::default();
        let answer = reflector.answer(&PeerId::random(), &ask, &[HERE], Instant::now());
        assert_eq!(answer, Answer::Sent);
        let mut datagram = [0; 64];
        let (length, from) = socket.recv_from(&mut datagram).unwrap();
        assert_eq!(
            Token::in_datagram(&datagram[..length]),
            Some(Token([3; 16]))
        );
        assert_eq!(from.ip(), HERE);
    }

    #[test]
    fn nothing_is_sent_to_a_third_party() {
        let victim = UdpSocket::bind((HERE, 0)).unwrap();
        victim.set_nonblocking(true).unwrap();
        let ask = send_to(victim.local_addr().unwrap());
        let mut reflector = Reflector::default();
        let (asker, now) = (PeerId::random(), Instant::now());
        for seen_at in [&[][..], &["203.0.113.9".parse().unwrap()]] {
            let answer = reflector.answer(&asker, &ask, seen_at, now);
            assert_eq!(answer, Answer::NotYours);
        }
        let error = victim.recv(&mut [0; 64]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_member_gets_a_few_tokens_a_minute() {
        let socket = UdpSocket::bind((HERE, 0)).unwrap();
        let ask = send_to(socket.local_addr().unwrap());
        let mut reflector = Reflector::default();
        let (asker, start) = (PeerId::random(), Instant::now());
        let mut ask_at = |asker, now| reflector.answer(asker, &ask, &[HERE], now);
        for _ in 0..TOKENS {
            assert_eq!(ask_at(&asker, start), Answer::Sent);
        }
        assert_eq!(ask_at(&asker, start), Answer::TooOften);
        let other = PeerId::random();
        assert_eq!(
            ask_at(&other, start),
            Answer::Sent,
            "others are not held liable"
        );
        assert_eq!(ask_at(&asker, start + INTERVAL), Answer::Sent);
    }

    #[test]
    fn the_clock_is_told_and_gibberish_refused() {
        let mut reflector = Reflector::default();
        let (asker, now) = (PeerId::random(), Instant::now());
        let answer = reflector.answer(&asker, &Ask::Clock.encode(), &[], now);
        assert!(matches!(answer, Answer::Clock(time) if time > 1_700_000_000_000));
        let answer = reflector.answer(&asker, b"gibberish", &[], now);
        assert_eq!(answer, Answer::NotUnderstood);
    }
}
