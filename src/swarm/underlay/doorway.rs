//! Connections that are being set up by others, before anybody has shown who he is: so many and no more.
//!
//! Whoever opens connections and says nothing on them fills the doorway. Nobody is turned away for that: the one
//! that has stood there longest has to go, of the source from which most came. So a flood from one address, or from
//! a few, pushes out itself, and who comes from elsewhere has the time that an honest handshake needs.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use futures::{
    FutureExt,
    future::{BoxFuture, Either, select},
};
use hivevpn_core::allowance::Allowances;
use tokio::sync::oneshot;

use crate::swarm::source::Source;

/// Handshakes under way, from everywhere. Each costs a socket and some ten kilobytes.
pub const MOST: usize = 256;
/// Of these, from one source.
pub const MOST_FROM_ONE: usize = 32;
/// Handshakes that one source may begin at once: as many machines as come back together behind one NAT.
pub const BURST: u32 = 64;
/// And one more in this time. Each costs about a millisecond of cryptography.
pub const PRICE: Duration = Duration::from_millis(125);
/// Sources whose handshakes are counted.
pub const SOURCES: usize = 4096;

/// Who stands in it. Clones share it.
#[derive(Clone)]
pub struct Doorway(Arc<Mutex<Room>>);

struct Room {
    next: u64,
    count: usize,
    /// By source, the one that came first at the front.
    waiting: BTreeMap<Source, VecDeque<(u64, oneshot::Sender<()>)>>,
    allowances: Allowances<Source>,
}

impl Doorway {
    /// Empty.
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(Room {
            next: 0,
            count: 0,
            waiting: BTreeMap::new(),
            allowances: Allowances::new(BURST, PRICE, SOURCES),
        })))
    }

    /// Lets a handshake begin, which ends when others need its place; none if its source begins too many.
    pub fn enter<T: Send + 'static>(
        &self,
        source: Source,
        handshake: BoxFuture<'static, io::Result<T>>,
        now: Instant,
    ) -> Option<BoxFuture<'static, io::Result<T>>> {
        let (place, pushed_out) = self.take_place(source, now)?;
        let bounded = async move {
            let _place = place;
            match select(handshake, pushed_out).await {
                Either::Left((outcome, _)) => outcome,
                Either::Right(_) => Err(io::Error::new(
                    io::ErrorKind::ConnectionAborted,
                    "others needed the place of a handshake that took too long",
                )),
            }
        };
        Some(bounded.boxed())
    }

    fn take_place(&self, source: Source, now: Instant) -> Option<(Place, oneshot::Receiver<()>)> {
        let mut room = self.lock();
        if !room.allowances.take(source, 1, now) {
            return None;
        }
        if room.waiting.get(&source).map_or(0, VecDeque::len) >= MOST_FROM_ONE {
            room.push_out(source);
        } else if room.count >= MOST {
            let most = room.waiting.iter().max_by_key(|(_, of_one)| of_one.len());
            if let Some(source) = most.map(|(source, _)| *source) {
                room.push_out(source);
            }
        }
        room.next += 1;
        room.count += 1;
        let number = room.next;
        let (push_out, pushed_out) = oneshot::channel();
        let of_one = room.waiting.entry(source).or_default();
        of_one.push_back((number, push_out));
        let place = Place {
            doorway: self.clone(),
            source,
            number,
        };
        Some((place, pushed_out))
    }

    fn lock(&self) -> MutexGuard<'_, Room> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Room {
    fn push_out(&mut self, source: Source) {
        let first = self.waiting.get_mut(&source).and_then(VecDeque::pop_front);
        if let Some((_, push_out)) = first {
            self.count -= 1;
            // Its handshake may have ended just now.
            let _ = push_out.send(());
        }
        self.tidy(source);
    }

    fn leave(&mut self, source: Source, number: u64) {
        if let Some(of_one) = self.waiting.get_mut(&source)
            && let Some(at) = of_one.iter().position(|(other, _)| *other == number)
        {
            of_one.remove(at);
            self.count -= 1;
        }
        self.tidy(source);
    }

    fn tidy(&mut self, source: Source) {
        if self.waiting.get(&source).is_some_and(VecDeque::is_empty) {
            self.waiting.remove(&source);
        }
    }
}

/// Free again when it is dropped.
struct Place {
    doorway: Doorway,
    source: Source,
    number: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.doorway.lock().leave(self.source, self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    type Handshake = BoxFuture<'static, io::Result<()>>;

    fn silent(doorway: &Doorway, last: u8, now: Instant) -> Option<Handshake> {
        let source = Source::Ipv4([198, 51, 100, last].into());
        doorway.enter(source, pending().boxed(), now)
    }

    fn is_over(handshake: &mut Handshake) -> bool {
        handshake.now_or_never().is_some()
    }

    #[test]
    fn one_source_pushes_out_itself_alone() {
        let (doorway, now) = (Doorway::new(), Instant::now());
        let mut honest = silent(&doorway, 1, now).unwrap();
        let mut flood: Vec<_> = (0..5000)
            .filter_map(|_| silent(&doorway, 66, now))
            .collect();
        assert_eq!(flood.len(), BURST as usize, "and no more in this moment");
        let over = flood
            .iter_mut()
            .filter_map(|one| is_over(one).then_some(()));
        assert_eq!(over.count(), BURST as usize - MOST_FROM_ONE);
        assert!(!is_over(&mut honest));
        assert_eq!(doorway.lock().count, MOST_FROM_ONE + 1);
    }

    #[test]
    fn many_sources_push_out_each_other() {
        let (doorway, now) = (Doorway::new(), Instant::now());
        let mut honest = silent(&doorway, 1, now).unwrap();
        let flood: Vec<_> = (0..5000_u32)
            .filter_map(|n| silent(&doorway, 100 + (n % 50) as u8, now))
            .collect();
        assert!(flood.len() > MOST);
        assert!(!is_over(&mut honest), "one of the fewest of its source");
        assert_eq!(doorway.lock().count, MOST);
        drop((honest, flood));
        let room = doorway.lock();
        assert_eq!((room.count, room.waiting.len()), (0, 0));
    }

    #[test]
    fn who_is_done_has_left() {
        let (doorway, now) = (Doorway::new(), Instant::now());
        let source = Source::Ipv4([198, 51, 100, 1].into());
        let handshake = doorway.enter(source, ready(Ok(7)).boxed(), now).unwrap();
        assert_eq!(handshake.now_or_never().unwrap().unwrap(), 7);
        assert_eq!(doorway.lock().count, 0);
    }
}
