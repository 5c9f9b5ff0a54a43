//! Handling single events, several side by side, those of one key in order.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    fmt,
    future::{Future, IntoFuture},
    hash::Hash,
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt, future::BoxFuture};
use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::{
    Attempt, Next, Options, Order, Ran, RetryPolicy, Settling, Source, Terms,
    attempt::{HandlerError, attend},
    common_options, number,
};
use crate::{Delivery, Event, Notice, PartitionedSink, Settlement, Sink, trace};

/// How many outcomes may be on their way to the backend.
const SETTLING: usize = 4096;

/// Options of a run; made by [`Sink::run`]. Awaiting it runs.
#[must_use = "a runner does nothing until it is awaited"]
pub struct Runner<S, H, E> {
    source: S,
    concurrency: usize,
    handler: H,
    order: Order,
    options: Options<E>,
}

impl Sink {
    /// Handles events until the run is told to end or the client is closed: each is given to `handler`, up to
    /// `concurrency` of them side by side (at least one), each in a task of its own.
    ///
    /// - `Ok` acknowledges the event.
    /// - `Err`, a panic and a [time-out](Runner::timeout) are failures: the event is handled again after a pause that
    ///   grows with each failure ([`retry`](Runner::retry)), and after the last attempt it goes to the [dead
    ///   letters](crate::DeadLetters).
    /// - While a handler works, its event is not delivered again, however long it takes.
    ///
    /// Acknowledgements travel many at a time, and no handler waits for one. Returns when everything is settled.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future is like a crash: handlers are stopped, and what they had in hand comes again after the grace
    /// period. [`Runner::until`] ends a run in good order.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use pulse_streaming::{EventStream, RetryPolicy, Start};
    /// use tokio_util::sync::CancellationToken;
    ///
    /// let client = pulse_streaming::connect("memory:").await?;
    /// let orders = EventStream::new(&client, "orders")?;
    /// orders.add("placed", "order 7").await?;
    ///
    /// let done = CancellationToken::new();
    /// let sink = orders.sink("billing").start(Start::Oldest).join().await?;
    /// let end = done.clone();
    /// let ran = sink
    ///     .run(8, move |order| {
    ///         let done = done.clone();
    ///         async move {
    ///             println!("{} {:?}, attempt {}", order.name(), order.payload(), order.number());
    ///             done.cancel();
    ///             Ok::<_, std::io::Error>(())
    ///         }
    ///     })
    ///     .retry(RetryPolicy::new().attempts(3))
    ///     .until(end.cancelled_owned())
    ///     .await;
    /// assert_eq!((ran.handled, ran.failed), (1, 0));
    /// # Ok(()) }
    /// ```
    pub fn run<H, F, E>(self, concurrency: usize, handler: H) -> Runner<Self, H, E>
    where
        H: Fn(Attempt) -> F + Send + Sync + 'static,
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<HandlerError> + Send + 'static,
    {
        Runner { source: self, concurrency, handler, order: Self::ORDER, options: Options::new() }
    }
}

impl PartitionedSink {
    /// Handles events as [`Sink::run`] does, but those of a partition one after the other, in their order: where one
    /// has to be handled again, the others of its partition wait, and those of other partitions go on. So up to as many
    /// are handled side by side as the instance owns partitions. [`keyed_by`](Runner::keyed_by) keeps the order of keys
    /// instead, and with `|event| event.id()` none.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use pulse_streaming::{NewEvent, PartitionedStream, Start};
    /// use tokio_util::sync::CancellationToken;
    ///
    /// let client = pulse_streaming::connect("memory:").await?;
    /// let orders = PartitionedStream::new(&client, "orders", 8)?;
    /// let steps = ["placed", "paid", "sent"];
    /// orders.add_batch(steps.map(|step| ("order 7", NewEvent::new(step, "")))).await?;
    ///
    /// let done = CancellationToken::new();
    /// let sink = orders.sink("billing").start(Start::Oldest).join().await?;
    /// let end = done.clone();
    /// sink.run(8, move |event| {
    ///     let done = done.clone();
    ///     async move {
    ///         println!("{}", event.name()); // placed, paid, sent
    ///         if event.name() == "sent" {
    ///             done.cancel();
    ///         }
    ///         Ok::<_, std::io::Error>(())
    ///     }
    /// })
    /// .until(end.cancelled_owned())
    /// .await;
    /// # Ok(()) }
    /// ```
    pub fn run<H, F, E>(self, concurrency: usize, handler: H) -> Runner<Self, H, E>
    where
        H: Fn(Attempt) -> F + Send + Sync + 'static,
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<HandlerError> + Send + 'static,
    {
        Runner { source: self, concurrency, handler, order: Self::ORDER, options: Options::new() }
    }
}

impl<S, H, E> Runner<S, H, E> {
    common_options!();

    /// Handles events of one key one after the other, in the order in which they were handed out, also where one has to
    /// be handled again: the others of its key wait. When `concurrency` events wait, nothing more is taken until one of
    /// them has its turn. Holds for this instance; [`PartitionedStream`](crate::PartitionedStream) keeps the order
    /// across instances.
    pub fn keyed_by<K: Hash>(mut self, key: impl Fn(&Event) -> K + Send + Sync + 'static) -> Self {
        self.order = Order::ByKey(Arc::new(move |event| number(&key(event))));
        self
    }
}

impl<S, H, F, E> IntoFuture for Runner<S, H, E>
where
    S: Source,
    H: Fn(Attempt) -> F + Send + Sync + 'static,
    F: Future<Output = Result<(), E>> + Send + 'static,
    E: Into<HandlerError> + Send + 'static,
{
    type Output = Ran;
    type IntoFuture = BoxFuture<'static, Ran>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(Crew::of(self).run())
    }
}

impl<S, H, E> fmt::Debug for Runner<S, H, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runner").field("concurrency", &self.concurrency).finish_non_exhaustive()
    }
}

/// A run under way.
struct Crew<S, H, E> {
    source: S,
    concurrency: usize,
    handler: Arc<H>,
    order: Order,
    options: Options<E>,
    terms: Terms<E>,
    working: JoinSet<Worked>,
    /// The keys, or streams, of which an event is being handled.
    busy: HashSet<u64>,
    /// Events that wait for others of their key, and how many those are.
    waiting: HashMap<u64, VecDeque<Delivery>>,
    waits: usize,
    settling: Settling,
    /// Cancelled when handlers must come to an end.
    stop: CancellationToken,
    ran: Ran,
}

/// What came of an event.
struct Worked {
    key: Option<u64>,
    failed: u64,
    end: End,
}

enum End {
    Handled(Settlement),
    GivenBack(Settlement),
    DeadLettered(Settlement),
}

impl<S, H, F, E> Crew<S, H, E>
where
    S: Source,
    H: Fn(Attempt) -> F + Send + Sync + 'static,
    F: Future<Output = Result<(), E>> + Send + 'static,
    E: Into<HandlerError> + Send + 'static,
{
    fn of(runner: Runner<S, H, E>) -> Self {
        let Runner { source, concurrency, handler, order, options } = runner;
        Self {
            source,
            concurrency: concurrency.max(1),
            handler: Arc::new(handler),
            order,
            terms: options.terms(),
            options,
            working: JoinSet::new(),
            busy: HashSet::new(),
            waiting: HashMap::new(),
            waits: 0,
            settling: Settling::new(),
            stop: CancellationToken::new(),
            ran: Ran::default(),
        }
    }

    async fn run(mut self) -> Ran {
        let mut until = std::mem::replace(&mut self.options.until, Box::pin(std::future::pending()));
        let step = self.source.attend_every();
        let mut keep = tokio::time::interval_at(Instant::now() + step, step);
        keep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let none = HashSet::new();
        loop {
            let but_of = if matches!(self.order, Order::ByStream) { &self.busy } else { &none };
            let room = self.working.len() < self.concurrency
                && self.waits < self.concurrency
                && self.settling.len() < SETTLING;
            tokio::select! {
                () = &mut until => break,
                Some(worked) = self.working.join_next() => self.worked(worked),
                Some(settled) = self.settling.next() => self.ran.settled(&settled),
                taken = self.source.next(but_of), if room => match taken {
                    Some(Ok(delivery)) => self.accept(delivery),
                    Some(Err(notice)) => (self.options.on_notice)(notice),
                    None => break,
                },
                _ = keep.tick() => {
                    self.source.attend();
                    for delivery in self.waiting.values().flatten() {
                        // If this fails, so will what is said of the event later.
                        drop(delivery.in_progress());
                    }
                }
            }
        }
        self.drain().await;
        self.ran
    }

    /// Begins to handle an event, or lets it wait for the one before it.
    fn accept(&mut self, delivery: Delivery) {
        let key = match &self.order {
            Order::Any => None,
            Order::ByStream => Some(number(delivery.stream())),
            Order::ByKey(key_of) => Some(key_of(&delivery)),
        };
        match key.filter(|key| !self.busy.insert(*key)) {
            None => self.begin(key, delivery),
            Some(busy) => {
                self.waits += 1;
                self.waiting.entry(busy).or_default().push_back(delivery);
            }
        }
    }

    fn begin(&mut self, key: Option<u64>, delivery: Delivery) {
        let (handler, terms, stop) = (self.handler.clone(), self.terms.clone(), self.stop.clone());
        // What must not be overtaken is not given back in between.
        let in_place = key.is_some();
        self.working.spawn(work(key, delivery, handler, terms, stop, in_place));
    }

    fn worked(&mut self, worked: Result<Worked, tokio::task::JoinError>) {
        // Panics of handlers are caught inside, so it was stopped.
        let Ok(Worked { key, failed, end }) = worked else { return };
        self.ran.failed += failed;
        let settlement = match end {
            End::Handled(settlement) => {
                self.ran.handled += 1;
                settlement
            }
            End::GivenBack(settlement) => settlement,
            End::DeadLettered(settlement) => {
                self.ran.dead_lettered += 1;
                settlement
            }
        };
        self.settling.push(settlement);
        let Some(key) = key else { return };
        if let Some(next) = self.waiting.get_mut(&key).and_then(VecDeque::pop_front) {
            self.waits -= 1;
            self.begin(Some(key), next);
        } else {
            self.waiting.remove(&key);
            self.busy.remove(&key);
        }
    }

    /// Ends in good order.
    async fn drain(&mut self) {
        for delivery in std::mem::take(&mut self.waiting).into_values().flatten() {
            self.settling.push(delivery.nack());
        }
        let end = Instant::now() + self.options.drain;
        while let Ok(Some(worked)) = tokio::time::timeout_at(end, self.working.join_next()).await {
            self.worked(worked);
        }
        self.stop.cancel();
        // What they had in hand is given back by the closing.
        self.working.shutdown().await;
        while let Some(settled) = self.settling.next().await {
            self.ran.settled(&settled);
        }
        self.source.close().await;
    }
}

/// Handles one event, again and again if it has to be handled in place.
async fn work<H, F, E>(
    key: Option<u64>,
    delivery: Delivery,
    handler: Arc<H>,
    terms: Terms<E>,
    stop: CancellationToken,
    in_place: bool,
) -> Worked
where
    H: Fn(Attempt) -> F,
    F: Future<Output = Result<(), E>>,
    E: Into<HandlerError>,
{
    let (mut number, mut failed) = (delivery.deliveries(), 0);
    let delivery = [delivery];
    let (end, [delivery]) = loop {
        let cancelled = stop.child_token();
        let attempt = Attempt::new(&delivery[0], number, &cancelled);
        let handling = async { handler(attempt).await }.instrument(trace::handling(&delivery));
        let Err(failure) = attend(&delivery, handling, terms.timeout, cancelled).await else {
            break (None, delivery);
        };
        failed += 1;
        let failure = terms.judge(failure);
        tracing::debug!(id = %delivery[0].id(), attempt = number, failure = failure.reason, "a handler failed");
        match terms.next(number, &failure) {
            Next::Again(pause) if in_place => {
                // Nobody else handles it meanwhile.
                let pausing = async {
                    tokio::time::sleep(pause).await;
                    Ok::<(), E>(())
                };
                let _ = attend(&delivery, pausing, None, CancellationToken::new()).await;
                number += 1;
            }
            next => break (Some(next), delivery),
        }
    };
    let end = match end {
        None => End::Handled(delivery.ack()),
        Some(Next::Again(pause)) => End::GivenBack(delivery.nack_after(pause)),
        Some(Next::GiveUp(reason)) => End::DeadLettered(delivery.dead_letter(reason)),
    };
    Worked { key, failed, end }
}
