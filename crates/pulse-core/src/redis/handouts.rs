//! Hands out events to consumers so that nothing is lost when the reader goes away in the middle.
//!
//! Once the server has handed out events, they are pending and will not be handed out again for a while. So the command
//! runs in a task of its own; what comes back to nobody is kept, and the next read of that consumer gets it first, unless
//! somebody else took it over meanwhile. Reads without acknowledgements promise less, and are sent as they are.

use std::{
    collections::{HashMap, VecDeque},
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::{Notify, oneshot};

use super::{Backend, Redis};
use crate::{Acks, Consumer, Delivery, Error, EventId, Group, StreamId};

type Reader = (StreamId, Group, Consumer);

/// What was handed out and reached nobody, by consumer.
#[derive(Debug, Default)]
pub(super) struct Handouts {
    stashes: Mutex<HashMap<Reader, Arc<Stash>>>,
}

#[derive(Debug, Default)]
struct Stash {
    state: Mutex<Kept>,
    /// Told whenever an abandoned read has ended.
    settled: Notify,
}

#[derive(Debug, Default)]
struct Kept {
    deliveries: VecDeque<Delivery>,
    /// How many reads are under way that nobody waits for.
    abandoned: usize,
}

impl Handouts {
    fn of(&self, reader: &Reader) -> Arc<Stash> {
        let mut stashes = lock(&self.stashes);
        if let Some(stash) = stashes.get(reader) {
            return stash.clone();
        }
        let unused = |stash: &Arc<Stash>| Arc::strong_count(stash) == 1 && stash.lock().is_empty();
        if stashes.len() % 64 == 63 {
            stashes.retain(|_, stash| !unused(stash));
        }
        let stash = Arc::<Stash>::default();
        stashes.insert(reader.clone(), stash.clone());
        stash
    }
}

impl Kept {
    fn is_empty(&self) -> bool {
        self.deliveries.is_empty() && self.abandoned == 0
    }
}

impl Stash {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        lock(&self.state)
    }

    /// Takes what is kept, after waiting for reads that were abandoned.
    async fn take(&self, limit: usize) -> Vec<Delivery> {
        loop {
            let mut settled = pin!(self.settled.notified());
            settled.as_mut().enable();
            {
                let mut kept = self.lock();
                if !kept.deliveries.is_empty() || kept.abandoned == 0 {
                    let count = limit.max(1).min(kept.deliveries.len());
                    return kept.deliveries.drain(..count).collect();
                }
            }
            settled.await;
        }
    }

    fn settle(&self, outcome: Result<Vec<Delivery>, Error>) {
        {
            let mut kept = self.lock();
            kept.abandoned = kept.abandoned.saturating_sub(1);
            kept.deliveries.extend(outcome.unwrap_or_default());
        }
        self.settled.notify_waiters();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while holding it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The reader's end of a read under way. Dropping it keeps what comes.
struct Awaited {
    outcome: oneshot::Receiver<Result<Vec<Delivery>, Error>>,
    stash: Arc<Stash>,
    done: bool,
}

impl Drop for Awaited {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        // Counted before the channel closes, because the task settles as soon as it finds it closed.
        self.stash.lock().abandoned += 1;
        self.outcome.close();
        if let Ok(outcome) = self.outcome.try_recv() {
            self.stash.settle(outcome);
        }
    }
}

/// Deliveries taken from what is kept, which go back there unless they are taken out.
struct PutBack<'a> {
    stash: &'a Stash,
    deliveries: Vec<Delivery>,
}

impl Drop for PutBack<'_> {
    fn drop(&mut self) {
        let mut kept = self.stash.lock();
        for delivery in self.deliveries.drain(..).rev() {
            kept.deliveries.push_front(delivery);
        }
    }
}

impl Backend {
    pub(super) async fn read_group(
        &self,
        stream: &StreamId,
        group: &Group,
        consumer: &Consumer,
        limit: usize,
        wait: Duration,
        acks: Acks,
    ) -> Result<Vec<Delivery>, Error> {
        let found = |deliveries: &Vec<Delivery>| !deliveries.is_empty();
        if acks == Acks::None {
            let read = || self.redis.hand_out(stream, group, consumer, limit, Acks::None);
            return self.redis.wait_for(stream, wait, found, read).await;
        }
        let reader = (stream.clone(), group.clone(), consumer.clone());
        let stash = self.redis.handouts.of(&reader);
        let (reader, stash) = (&reader, &stash);
        let read = || async move {
            let kept = stash.take(limit).await;
            if !kept.is_empty() {
                let held = self.still_held(reader, stash, kept).await?;
                if !held.is_empty() {
                    return Ok(held);
                }
            }
            self.read_in_task(reader, stash, limit).await
        };
        self.redis.wait_for(stream, wait, found, read).await
    }

    /// Of what was kept, that which is still the reader's: meanwhile others may have taken it over, and acknowledged it.
    /// Its idle time begins now, as it would if it had been handed out now.
    async fn still_held(
        &self,
        (stream, group, consumer): &Reader,
        stash: &Arc<Stash>,
        kept: Vec<Delivery>,
    ) -> Result<Vec<Delivery>, Error> {
        let ids: Vec<EventId> = kept.iter().map(|delivery| delivery.entry.id).collect();
        let mut kept = PutBack { stash, deliveries: kept };
        match self.redis.set_idle(stream, group, consumer, &ids, Duration::ZERO).await {
            Ok(held) => {
                let mut deliveries = std::mem::take(&mut kept.deliveries);
                deliveries.retain(|delivery| held.contains(&delivery.entry.id));
                Ok(deliveries)
            }
            Err(error) => {
                if matches!(error, Error::NoGroup { .. }) {
                    kept.deliveries.clear();
                }
                Err(error)
            }
        }
    }

    async fn read_in_task(&self, reader: &Reader, stash: &Arc<Stash>, limit: usize) -> Result<Vec<Delivery>, Error> {
        let (done, outcome) = oneshot::channel();
        let task = HandOut { redis: self.redis.clone(), reader: reader.clone(), limit, stash: stash.clone(), done };
        self.redis.tasks.spawn(task.run());
        let mut awaited = Awaited { outcome, stash: stash.clone(), done: false };
        let outcome = (&mut awaited.outcome).await;
        awaited.done = true;
        // The task ends without a word only when the runtime shuts down.
        outcome.unwrap_or(Err(Error::Closed))
    }
}

/// One read on behalf of a consumer.
struct HandOut {
    redis: Arc<Redis>,
    reader: Reader,
    limit: usize,
    stash: Arc<Stash>,
    /// Whoever waits for the outcome.
    done: oneshot::Sender<Result<Vec<Delivery>, Error>>,
}

impl HandOut {
    async fn run(self) {
        let (stream, group, consumer) = &self.reader;
        let outcome = self.redis.hand_out(stream, group, consumer, self.limit, Acks::Explicit).await;
        if let Err(outcome) = self.done.send(outcome) {
            self.stash.settle(outcome);
        }
    }
}
