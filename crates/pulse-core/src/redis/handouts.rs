//! Hands out events to consumers so that nothing is lost when the reader goes away in the middle.
//!
//! Once the server has handed out events, they are pending and will not be handed out again for a while. So the command
//! runs in a task of its own; what comes back to nobody is kept, and the next read of that consumer gets it first,
//! unless somebody else took it over meanwhile. Reads without acknowledgements promise less, and are sent as they are.

use std::{
    collections::{HashMap, VecDeque},
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use tokio::{runtime::Handle, sync::Notify};
use tokio_util::task::TaskTracker;

use super::Backend;
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

/// A read under way. Dropping it lets it come to its end elsewhere, and keeps what comes.
struct UnderWay {
    /// `None` once it has ended.
    call: Option<BoxFuture<'static, Result<Vec<Delivery>, Error>>>,
    /// Whether anything may have been sent.
    begun: bool,
    stash: Arc<Stash>,
    tasks: TaskTracker,
    runtime: Handle,
}

impl Future for UnderWay {
    type Output = Result<Vec<Delivery>, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.begun = true;
        // It is not polled again after its end.
        let Some(call) = &mut self.call else { return Poll::Pending };
        let outcome = ready!(call.as_mut().poll(cx));
        self.call = None;
        Poll::Ready(outcome)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let Some(call) = self.call.take().filter(|_| self.begun) else { return };
        self.stash.lock().abandoned += 1;
        let stash = self.stash.clone();
        self.tasks.spawn_on(async move { stash.settle(call.await) }, &self.runtime);
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
            self.read_in_any_case(reader, stash, limit).await
        };
        self.redis.wait_for(stream, wait, found, read).await
    }

    /// Of what was kept, that which is still the reader's: meanwhile others may have taken it over, and acknowledged
    /// it. Its idle time begins now, as it would if it had been handed out now.
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

    async fn read_in_any_case(
        &self,
        reader: &Reader,
        stash: &Arc<Stash>,
        limit: usize,
    ) -> Result<Vec<Delivery>, Error> {
        let (redis, (stream, group, consumer)) = (self.redis.clone(), reader.clone());
        let call = async move { redis.hand_out(&stream, &group, &consumer, limit, Acks::Explicit).await };
        UnderWay {
            call: Some(call.boxed()),
            begun: false,
            stash: stash.clone(),
            tasks: self.redis.tasks.clone(),
            runtime: Handle::current(),
        }
        .await
    }
}
