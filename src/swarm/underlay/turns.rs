//! Circuits through one relay are opened a few at a time.
//!
//! libp2p lets ten requests for a circuit wait for one relay's answer, and fails those beyond them at once. Where a crowd
//! behind NATs meets, that is most of them, and each would be tried again only a while later.

use std::{collections::HashMap, io, sync::Arc};

use futures::{FutureExt, future::BoxFuture};
use libp2p::PeerId;
use tokio::sync::Semaphore;

/// Circuits that may be opened through a relay at the same time. Less than libp2p allows: a request that was given up
/// keeps its place there until the relay answers.
const AT_ONCE: usize = 8;

/// Who may open a circuit now, relay by relay.
#[derive(Default)]
pub struct Turns(HashMap<PeerId, Arc<Semaphore>>);

impl Turns {
    /// Begins to dial once it is this circuit's turn at its relay.
    pub fn wait<T: 'static>(
        &mut self,
        relay: PeerId,
        dial: BoxFuture<'static, io::Result<T>>,
    ) -> BoxFuture<'static, io::Result<T>> {
        self.0
            .retain(|known, turns| *known == relay || Arc::strong_count(turns) > 1);
        let turns = self
            .0
            .entry(relay)
            .or_insert_with(|| Arc::new(Semaphore::new(AT_ONCE)));
        let turns = turns.clone();
        async move {
            let _turn = turns.acquire().await.map_err(io::Error::other)?;
            dial.await
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use futures::{future::pending, task::noop_waker_ref};
    use std::task::Context;

    use super::*;

    fn poll<T>(dial: &mut BoxFuture<'static, io::Result<T>>) -> bool {
        dial.poll_unpin(&mut Context::from_waker(noop_waker_ref()))
            .is_ready()
    }

    fn answered() -> BoxFuture<'static, io::Result<()>> {
        async { Ok(()) }.boxed()
    }

    #[test]
    fn a_circuit_waits_until_one_of_those_before_it_is_done() {
        let (mut turns, relay) = (Turns::default(), PeerId::random());
        let mut waiting: Vec<_> = (0..AT_ONCE)
            .map(|_| turns.wait::<()>(relay, pending().boxed()))
            .collect();
        assert!(!waiting.iter_mut().any(poll));

        let mut next = turns.wait(relay, answered());
        assert!(!poll(&mut next));
        drop(waiting.pop());
        assert!(poll(&mut next));
    }

    #[test]
    fn a_relay_that_does_not_answer_delays_no_circuit_through_another() {
        let mut turns = Turns::default();
        let silent = PeerId::random();
        let mut waiting: Vec<_> = (0..2 * AT_ONCE)
            .map(|_| turns.wait::<()>(silent, pending().boxed()))
            .collect();
        assert!(!waiting.iter_mut().any(poll));
        assert!(poll(&mut turns.wait(PeerId::random(), answered())));
    }

    #[test]
    fn relays_that_are_not_used_any_more_are_forgotten() {
        let mut turns = Turns::default();
        for _ in 0..100 {
            assert!(poll(&mut turns.wait(PeerId::random(), answered())));
        }
        assert_eq!(turns.0.len(), 1);
    }
}
