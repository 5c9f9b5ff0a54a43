//! Waiting for events: for the doorbell, and looking now and then all the same.
//!
//! Some writers do not ring, and a ring can get lost, so whoever waits looks every [`LOOK`] anyway. Readers of one
//! client look in a few rounds, not each at a moment of its own: a row of looks travels in one packet and wakes the
//! process once.

use std::{
    future::Future,
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

use super::{Redis, errors::Ask, permissions::Needs};
use crate::{Error, StreamId};

/// How often a waiting reader looks although nobody rang.
const LOOK: Duration = Duration::from_secs(10);

/// Into how many rounds the looks of one such time are spread, so that a row of them stays short.
const ROUNDS: u64 = 16;

/// How long a reader waits for its doorbell to stand before it reads without one.
const UNHEARD: Duration = Duration::from_millis(500);

/// When the readers of one client look.
#[derive(Debug)]
pub(super) struct Rounds {
    zero: Instant,
    /// Places the rounds; by chance, so that clients that begin together do not look together.
    keys: RandomState,
}

impl Rounds {
    pub(super) fn new() -> Self {
        Self { zero: Instant::now(), keys: RandomState::new() }
    }

    /// The next look of those whose key this is.
    fn after(&self, key: &[u8], now: Instant) -> Instant {
        let turn = self.keys.hash_one(key) % ROUNDS;
        let whole = LOOK.as_nanos() as u64;
        let passed = now.saturating_duration_since(self.zero).as_nanos() as u64;
        let since_last = (passed + whole - whole / ROUNDS * turn) % whole;
        self.zero + Duration::from_nanos(passed + whole - since_last)
    }
}

impl Redis {
    /// Reads until enough is there, the wait is over, or the client closes. The wait has no effect by itself. A long
    /// one is over with the last look in it.
    pub(super) async fn wait_for<T, F>(
        &self,
        stream: &StreamId,
        wait: Duration,
        is_enough: impl Fn(&T) -> bool + Send + Sync,
        read: impl Fn() -> F + Send + Sync,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>> + Send,
    {
        if wait.is_zero() {
            return read().await;
        }
        let channel = self.keys.doorbell(stream);
        // A wait that no clock can measure lasts for ever.
        let deadline = Instant::now().checked_add(wait);
        let deadline = deadline.map(|end| if wait < 2 * LOOK { end } else { self.rounds.after(&channel, end - LOOK) });
        // Somebody who waits again and again finds the doorbell hung up already, and reads once.
        let mut hung = self.bells.existing(&channel);
        loop {
            let over = deadline.is_some_and(|deadline| Instant::now() >= deadline);
            let Some(bell) = &hung else {
                let found = read().await?;
                if is_enough(&found) || over {
                    return Ok(found);
                }
                self.permissions.require(Ask::new("wait for events", stream), stream.scope(), Needs::WAKE_UPS).await?;
                hung = Some(self.bells.at(&channel));
                continue;
            };
            // Whatever rings from here on is heard, so that reading after this misses nothing.
            let ring = bell.ring();
            tokio::pin!(ring);
            ring.as_mut().enable();
            tokio::select! {
                () = bell.stands() => {}
                () = until(deadline) => {}
                () = tokio::time::sleep(UNHEARD) => {}
                () = self.link.closed().cancelled() => return Err(Error::Closed),
            }
            let found = read().await?;
            if is_enough(&found) || over {
                return Ok(found);
            }
            tokio::select! {
                () = ring => {}
                () = until(deadline) => {}
                () = sleep_until(self.rounds.after(&channel, Instant::now())) => {}
                () = self.link.closed().cancelled() => return Err(Error::Closed),
            }
        }
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_comes_at_least_once_in_its_time_and_always_at_the_same_place_in_it() {
        let rounds = Rounds::new();
        let mut at: Option<Instant> = None;
        let mut now = Instant::now();
        let end = now + 20 * LOOK;
        while now < end {
            let next = rounds.after(b"a doorbell", now);
            assert!(next > now && next <= now + LOOK, "it is {:?} away", next - now);
            if let Some(before) = at.replace(next) {
                assert!((next == before && now < before) || next == before + LOOK);
            }
            now += LOOK / 7;
        }
        let all: std::collections::BTreeSet<Instant> =
            (0..1000_u32).map(|n| rounds.after(&n.to_be_bytes(), end)).collect();
        assert_eq!(all.len(), ROUNDS as usize);
    }
}
