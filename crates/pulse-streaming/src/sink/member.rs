//! What the parts of a sink instance share for one stream: who it is, its books, and the way to the settler.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use pulse_core::{
    Acks, Backend, Client, Consumer, Event, EventId, Group, GroupInfo, Once, ServerTime, StreamId, Transaction,
};
use tokio::{
    runtime::Handle,
    sync::{Notify, mpsc, oneshot},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{ledger::Ledger, ordered::Lane, plan::Timing};
use crate::{
    Error, Operation,
    backoff::Backoff,
    dead::{self, letter},
    meter::Meter,
};

/// How much later than asked for the backend may count a time, because it counts milliseconds.
const ROUNDING: Duration = Duration::from_millis(2);

/// One instance of a sink on one stream: a consumer of the group.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) client: Client,
    pub(super) stream: StreamId,
    pub(super) group: Group,
    pub(super) consumer: Consumer,
    pub(super) timing: Timing,
    /// How often an event is delivered at most.
    pub(super) max_deliveries: Option<u64>,
    pub(super) acks: Acks,
    pub(super) meter: Meter,
    ledger: Mutex<Ledger>,
    /// Read by the settler until it stops.
    requests: mpsc::UnboundedSender<Request>,
    /// Told when events may be claimed before the next tick; see [`Member::next_claim`].
    pub(super) claim_soon: Notify,
    /// Where the events wait of a partition that is handed out in order.
    pub(super) lane: Option<Arc<Lane>>,
    /// When events that were given back for a while may be claimed.
    claims: Mutex<BinaryHeap<Reverse<Instant>>>,
    /// Events that were given back for later, until they may be claimed.
    set_aside: Mutex<HashMap<EventId, Aside>>,
    /// Cancelled when the sink is closed.
    pub(super) closing: CancellationToken,
    /// Of the sink; whoever closes it waits for them.
    tasks: TaskTracker,
    /// Where they run: deliveries may be settled outside of any runtime.
    runtime: Handle,
}

/// An event that was given back for later.
#[derive(Debug, Clone, Copy)]
struct Aside {
    /// When it may be claimed.
    due: Instant,
    keeper: Keeper,
}

/// Who sees to it that an event is not claimed too early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keeper {
    /// The backend, for the grace period at most. This instance must only not release it when it leaves.
    Backend,
    /// This instance, because it is longer than the grace period.
    Instance,
}

/// What the members of one sink instance have in common.
#[derive(Debug, Clone)]
pub(super) struct Instance {
    pub(super) group: Group,
    pub(super) timing: Timing,
    /// How often an event is delivered at most.
    pub(super) max_deliveries: Option<u64>,
    pub(super) acks: Acks,
    /// Cancelled when the sink is closed.
    pub(super) closing: CancellationToken,
    /// Whoever closes the sink waits for them.
    pub(super) tasks: TaskTracker,
}

/// What is to happen with a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verdict {
    /// It is done.
    Ack,
    /// Somebody else may have it, after this time.
    Nack(Duration),
    /// It is being worked on: the grace period begins anew.
    Extend,
}

/// A verdict on its way to the backend.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) id: EventId,
    /// The delivery count of the delivery that it is about, if it must not touch a later one.
    pub(super) deliveries: Option<u64>,
    pub(super) verdict: Verdict,
    /// Whoever waits for the outcome.
    pub(super) reply: Option<oneshot::Sender<Result<(), Error>>>,
}

impl Member {
    pub(super) fn new(
        instance: Instance,
        client: &Client,
        stream: &StreamId,
        requests: mpsc::UnboundedSender<Request>,
    ) -> Result<Self, Error> {
        // Unique for each instance, so that a restarted process never takes over what another one holds.
        let consumer = Consumer::new(format!("{:016x}", rand::random::<u64>())).map_err(Error::name)?;
        let Instance { group, timing, max_deliveries, acks, closing, tasks } = instance;
        Ok(Self {
            client: client.clone(),
            stream: stream.clone(),
            meter: Meter::new(stream, group.as_str()),
            group,
            consumer,
            timing,
            max_deliveries,
            acks,
            ledger: Mutex::default(),
            requests,
            claim_soon: Notify::new(),
            lane: None,
            claims: Mutex::default(),
            set_aside: Mutex::default(),
            closing,
            tasks,
            runtime: Handle::current(),
        })
    }

    pub(super) fn backend(&self) -> &dyn Backend {
        &**self.client.backend()
    }

    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        lock(&self.ledger)
    }

    /// Sends a verdict to the settler; gives it back if the settler has stopped.
    pub(super) fn request(&self, request: Request) -> Result<(), Request> {
        self.requests.send(request).map_err(|mpsc::error::SendError(request)| request)
    }

    /// Acknowledges an event without waiting for the outcome. If it gets lost, the event is delivered again.
    pub(super) fn ack_quietly(&self, id: EventId) {
        // A settler that has stopped means that the sink is closed; the event is then released anyway.
        let _ = self.request(Request { id, deliveries: None, verdict: Verdict::Ack, reply: None });
    }

    /// Begins the grace period of a delivery anew without waiting for the outcome.
    pub(super) fn extend_quietly(&self, id: EventId, deliveries: u64) {
        let _ = self.request(Request { id, deliveries: Some(deliveries), verdict: Verdict::Extend, reply: None });
    }

    /// Runs something that whoever closes the sink waits for.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn_on(task, &self.runtime);
    }

    /// Sets the gauges, where there are some.
    pub(super) async fn gauge(&self, info: &GroupInfo) -> Result<(), pulse_core::Error> {
        let age = match info.oldest_pending {
            Some(oldest) if cfg!(feature = "metrics") => {
                self.backend().server_time(self.stream.scope()).await?.since(ServerTime(oldest.millis))
            }
            _ => Duration::ZERO,
        };
        self.meter.stands(info, age);
        Ok(())
    }

    /// Acknowledges events, all in one round trip, and returns how many of them were pending. Repeating it changes
    /// nothing.
    pub(super) async fn ack(&self, ids: Vec<EventId>) -> Result<u64, pulse_core::Error> {
        let count = ids.len();
        let transaction = Transaction::new(self.stream.scope()).ack(self.stream.name().clone(), &self.group, ids);
        let committed = self.client.commit(transaction).await?;
        self.meter.acked(count);
        Ok(committed.count(0).unwrap_or(count as u64))
    }

    /// Whether somebody else has removed this instance from the group, and with it all that was pending for it. It is
    /// there again with the next read.
    pub(super) async fn is_struck_off(&self) -> bool {
        let info = self.backend().group_info(&self.stream, &self.group).await;
        let struck_off = |info: GroupInfo| info.consumers.iter().all(|consumer| consumer.name != self.consumer);
        info.ok().flatten().is_some_and(struck_off)
    }

    /// Acknowledges an event and puts it among the dead letters, all or nothing. Repeating it changes nothing.
    pub(super) async fn bury(&self, event: &Event, reason: &str, deliveries: u64) -> Result<(), pulse_core::Error> {
        let once = Once::new(event.id.to_string(), dead::REMEMBERED);
        let letter = letter::bury(event, reason, deliveries, self.backend().limits().event_bytes);
        let transaction = Transaction::new(self.stream.scope())
            .append_once(letter::stream_name(&self.stream, &self.group), letter, once)
            .ack(self.stream.name().clone(), &self.group, vec![event.id]);
        self.client.commit(transaction).await?;
        self.meter.acked(1);
        self.meter.dead_lettered(1);
        tracing::warn!(stream = %self.stream, sink = %self.group, id = %event.id, reason, "event given up");
        Ok(())
    }

    /// As [`Member::bury`], tried again while that can still keep the event from being delivered again.
    pub(super) async fn bury_surely(
        &self,
        event: &Event,
        reason: &str,
        deliveries: u64,
    ) -> Result<(), pulse_core::Error> {
        self.surely(|| self.bury(event, reason, deliveries)).await
    }

    /// Puts an event that was delivered often enough among the dead letters, in a task of its own.
    pub(super) fn give_up(self: &Arc<Self>, event: Event, deliveries: u64) {
        let member = self.clone();
        self.spawn(async move {
            let reason = format!("delivered {deliveries} times without an acknowledgement");
            // Should it fail, the event is claimed again, and given up then.
            let _ = member.bury_surely(&event, &reason, deliveries).await;
        });
    }

    /// Tries until it succeeds, the grace period is over, or the sink is closed.
    pub(super) async fn surely<F>(&self, attempt: impl Fn() -> F) -> Result<(), pulse_core::Error>
    where
        F: Future<Output = Result<(), pulse_core::Error>>,
    {
        let give_up = Instant::now() + self.timing.grace;
        let mut backoff = Backoff::default();
        loop {
            let Err(error) = attempt().await else { return Ok(()) };
            let pause = backoff.next(rand::random());
            let again = error.is_retryable() || error.is_outcome_unknown();
            if !again || self.closing.is_cancelled() || Instant::now() + pause >= give_up {
                tracing::warn!(stream = %self.stream, sink = %self.group, %error, "an acknowledgement failed");
                return Err(error);
            }
            tracing::debug!(stream = %self.stream, %error, ?pause, "an acknowledgement failed, trying again");
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.closing.cancelled() => {}
            }
        }
    }

    /// Offers events to the next claim, whoever makes it, and returns those that were this instance's to offer.
    pub(super) async fn release(&self, ids: &[EventId]) -> Result<Vec<EventId>, pulse_core::Error> {
        let held = self.set_idle(ids, self.timing.released()).await?;
        self.claim_at(Instant::now());
        Ok(held)
    }

    /// Gives events back after a delay, and returns those that were this instance's to give. The backend keeps one of up
    /// to the grace period; of a longer one, the rest is kept here until then, and ends early if this instance does.
    pub(super) async fn release_after(
        &self,
        ids: &[EventId],
        delay: Duration,
    ) -> Result<Vec<EventId>, pulse_core::Error> {
        if delay.is_zero() {
            return self.release(ids).await;
        }
        let due = Instant::now() + delay;
        let held = self.set_idle(ids, self.timing.grace.saturating_sub(delay)).await?;
        // The backend began to count when it was told.
        let kept_until = Instant::now() + delay + ROUNDING;
        let aside = if delay > self.timing.grace {
            Aside { due, keeper: Keeper::Instance }
        } else {
            Aside { due: kept_until, keeper: Keeper::Backend }
        };
        lock(&self.set_aside).extend(held.iter().map(|id| (*id, aside)));
        self.claim_at(kept_until);
        Ok(held)
    }

    /// Keeps what was given back for long from being claimed too early.
    pub(super) async fn keep_aside(&self, now: Instant) -> Result<(), pulse_core::Error> {
        let grace = self.timing.grace;
        let (due, later): (Vec<_>, Vec<_>) = {
            let mut set_aside = lock(&self.set_aside);
            set_aside.retain(|_, aside| aside.keeper == Keeper::Instance || aside.due > now);
            let own = set_aside.iter().filter(|(_, aside)| aside.keeper == Keeper::Instance);
            own.map(|(id, aside)| (*id, aside.due)).partition(|(_, due)| due.duration_since(now) <= grace)
        };
        for (id, due) in due {
            // From here on the backend keeps the time.
            let left = due.saturating_duration_since(now);
            self.set_idle(&[id], grace.saturating_sub(left)).await?;
            let kept_until = Instant::now() + left + ROUNDING;
            if let Some(aside) = lock(&self.set_aside).get_mut(&id) {
                *aside = Aside { due: kept_until, keeper: Keeper::Backend };
            }
            self.claim_at(kept_until);
        }
        let later: Vec<EventId> = later.into_iter().map(|(id, _)| id).collect();
        if !later.is_empty() {
            let held = self.touch(&later).await?;
            // Whoever took one over, or acknowledged it, did so although it was not due.
            lock(&self.set_aside).retain(|id, _| held.contains(id) || !later.contains(id));
        }
        Ok(())
    }

    /// An event was delivered to this instance again, so that it waits no more.
    pub(super) fn not_aside(&self, id: EventId) {
        lock(&self.set_aside).remove(&id);
    }

    /// Whether an event waits here for the time when it may be claimed.
    pub(super) fn is_set_aside(&self, id: EventId) -> bool {
        lock(&self.set_aside).get(&id).is_some_and(|aside| aside.due > Instant::now())
    }

    fn claim_at(&self, due: Instant) {
        lock(&self.claims).push(Reverse(due));
        self.claim_soon.notify_one();
    }

    /// When something may be claimed that was given back, if that is known.
    pub(super) fn next_claim(&self) -> Option<Instant> {
        lock(&self.claims).peek().map(|Reverse(due)| *due)
    }

    /// Forgets the times that have passed, because the next claim takes care of them.
    pub(super) fn claims_now(&self, now: Instant) {
        let mut claims = lock(&self.claims);
        while claims.peek().is_some_and(|Reverse(due)| *due <= now) {
            claims.pop();
        }
    }

    async fn set_idle(&self, ids: &[EventId], idle: Duration) -> Result<Vec<EventId>, pulse_core::Error> {
        self.backend().group_set_idle(&self.stream, &self.group, &self.consumer, ids, idle).await
    }

    /// Begins the grace period of events anew, and returns those that are still this instance's.
    pub(super) async fn touch(&self, ids: &[EventId]) -> Result<Vec<EventId>, pulse_core::Error> {
        self.set_idle(ids, Duration::ZERO).await
    }

    /// Carries out one verdict without the settler.
    pub(super) async fn settle(&self, id: EventId, verdict: Verdict) -> Result<(), Error> {
        match verdict {
            Verdict::Ack => self.ack(vec![id]).await.map(drop).map_err(self.failed(verdict)),
            Verdict::Nack(_) | Verdict::Extend => {
                let held = match verdict {
                    Verdict::Nack(delay) => self.release_after(&[id], delay).await,
                    _ => self.touch(&[id]).await,
                };
                let held = held.map_err(self.failed(verdict))?;
                if held.contains(&id) { Ok(()) } else { Err(self.superseded(id)) }
            }
        }
    }

    pub(super) fn superseded(&self, id: EventId) -> Error {
        Error::Superseded { stream: self.stream.clone(), id }
    }

    /// Makes the error of a verdict; for `map_err`.
    pub(super) fn failed(&self, verdict: Verdict) -> impl Fn(pulse_core::Error) -> Error {
        let operation = match verdict {
            Verdict::Ack => Operation::Ack,
            Verdict::Nack(_) => Operation::Nack,
            Verdict::Extend => Operation::Extend,
        };
        Error::on(operation, &self.stream)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while holding it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
