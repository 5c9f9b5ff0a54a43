//! Handling events several at once.

use std::{
    fmt,
    future::{Future, IntoFuture},
    time::Duration,
};

use futures::{StreamExt, future::BoxFuture};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::{
    Attempt, Next, Options, Ran, RetryPolicy, Settling, Source,
    attempt::{HandlerError, attend},
    common_options,
};
use crate::{Delivery, Notice, Sink, trace};

/// Options of a run in batches; made by [`Sink::run_batches`]. Awaiting it runs.
#[must_use = "a runner does nothing until it is awaited"]
pub struct BatchRunner<H, E> {
    source: Sink,
    max: usize,
    max_wait: Duration,
    handler: H,
    options: Options<E>,
}

impl Sink {
    /// Handles events in batches, one after the other: up to `max` events (at least one), or as many as came within
    /// `max_wait` (a year at most) of the first.
    ///
    /// `Ok` acknowledges all of a batch. Otherwise each event of it is handled again as [`run`](Self::run) does, maybe
    /// in another batch; so an event that always fails is a dead letter in the end, and the others of its batches come
    /// again until then.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    /// use pulse_streaming::{EventStream, NewEvent, Start};
    /// use tokio_util::sync::CancellationToken;
    ///
    /// let client = pulse_streaming::connect("memory:").await?;
    /// let readings = EventStream::new(&client, "readings")?;
    /// readings.add_batch((0..3).map(|n| NewEvent::new("reading", n.to_string()))).await?;
    ///
    /// let done = CancellationToken::new();
    /// let sink = readings.sink("store").start(Start::Oldest).join().await?;
    /// let end = done.clone();
    /// let ran = sink
    ///     .run_batches(100, Duration::from_millis(10), move |batch| {
    ///         let done = done.clone();
    ///         async move {
    ///             println!("INSERT of {} rows", batch.len());
    ///             done.cancel();
    ///             Ok::<_, std::io::Error>(())
    ///         }
    ///     })
    ///     .until(end.cancelled_owned())
    ///     .await;
    /// assert_eq!(ran.handled, 3);
    /// # Ok(()) }
    /// ```
    pub fn run_batches<H, F, E>(self, max: usize, max_wait: Duration, handler: H) -> BatchRunner<H, E>
    where
        H: Fn(Vec<Attempt>) -> F + Send + Sync + 'static,
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<HandlerError> + Send + 'static,
    {
        let max_wait = max_wait.min(crate::options::LONGEST);
        BatchRunner { source: self, max: max.max(1), max_wait, handler, options: Options::new() }
    }
}

impl<H, E> BatchRunner<H, E> {
    common_options!();
}

impl<H, F, E> IntoFuture for BatchRunner<H, E>
where
    H: Fn(Vec<Attempt>) -> F + Send + Sync + 'static,
    F: Future<Output = Result<(), E>> + Send + 'static,
    E: Into<HandlerError> + Send + 'static,
{
    type Output = Ran;
    type IntoFuture = BoxFuture<'static, Ran>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(run(self))
    }
}

impl<H, E> fmt::Debug for BatchRunner<H, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchRunner").field("max", &self.max).field("max_wait", &self.max_wait).finish_non_exhaustive()
    }
}

async fn run<H, F, E>(runner: BatchRunner<H, E>) -> Ran
where
    H: Fn(Vec<Attempt>) -> F + Send + Sync + 'static,
    F: Future<Output = Result<(), E>> + Send + 'static,
    E: Into<HandlerError> + Send + 'static,
{
    let BatchRunner { mut source, max, max_wait, handler, mut options } = runner;
    let terms = options.terms();
    let (mut ran, mut settling) = (Ran::default(), Settling::new());
    let mut ended = false;
    while !ended {
        let mut batch: Vec<Delivery> = Vec::new();
        let mut full_at = None;
        while batch.len() < max {
            let taken = tokio::select! {
                biased;
                () = &mut options.until => None,
                () = wait_until(full_at) => break,
                taken = source.next() => taken,
            };
            match taken {
                Some(Ok(delivery)) => {
                    full_at.get_or_insert_with(|| Instant::now() + max_wait);
                    batch.push(delivery);
                }
                Some(Err(notice)) => (options.on_notice)(notice),
                None => {
                    ended = true;
                    break;
                }
            }
        }
        if ended {
            settling.extend(batch.into_iter().map(Delivery::nack));
            break;
        }
        let cancelled = CancellationToken::new();
        let attempts = batch.iter().map(|delivery| Attempt::new(delivery, delivery.deliveries(), &cancelled)).collect();
        let handling = async { handler(attempts).await }.instrument(trace::handling(&batch));
        let attended = {
            let attended = attend(&batch, handling, terms.timeout, cancelled);
            tokio::pin!(attended);
            let mut keep = tokio::time::interval(source.attend_every());
            loop {
                tokio::select! {
                    biased;
                    attended = &mut attended => break Some(attended),
                    () = &mut options.until => {
                        ended = true;
                        break tokio::time::timeout(options.drain, attended).await.ok();
                    }
                    _ = keep.tick() => source.attend(),
                }
            }
        };
        match attended {
            Some(Ok(())) => {
                ran.handled += batch.len() as u64;
                settling.extend(batch.into_iter().map(Delivery::ack));
            }
            Some(Err(failure)) => {
                let failure = terms.judge(failure);
                tracing::debug!(events = batch.len(), failure = failure.reason, "the handler of a batch failed");
                for delivery in batch {
                    ran.failed += 1;
                    settling.push(match terms.next(delivery.deliveries(), &failure) {
                        Next::Again(pause) => delivery.nack_after(pause),
                        Next::GiveUp(reason) => {
                            ran.dead_lettered += 1;
                            delivery.dead_letter(reason)
                        }
                    });
                }
            }
            // The closing gives back what it had in hand.
            None => drop(batch),
        }
        // Before the next batch, so that no more than two are on their way.
        while let Some(settled) = settling.next().await {
            ran.settled(&settled);
        }
    }
    while let Some(settled) = settling.next().await {
        ran.settled(&settled);
    }
    source.close().await;
    ran
}

async fn wait_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}
