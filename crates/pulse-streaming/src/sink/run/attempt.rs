//! One attempt to handle an event: what the handler gets, and what came of it.

use std::{future::Future, ops::Deref, panic::AssertUnwindSafe, time::Duration};

use futures::{FutureExt, StreamExt, stream::FuturesUnordered};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::{Delivery, Event};

/// An event in the hands of a handler. Dereferences to the [`Event`].
#[derive(Debug)]
pub struct Attempt {
    event: Event,
    number: u64,
    cancelled: CancellationToken,
}

impl Attempt {
    pub(super) fn new(delivery: &Delivery, number: u64, cancelled: &CancellationToken) -> Self {
        Self { event: delivery.event().clone(), number, cancelled: cancelled.clone() }
    }

    /// The event.
    #[must_use]
    pub fn event(&self) -> &Event {
        &self.event
    }

    /// The event, to keep.
    #[must_use]
    pub fn into_event(self) -> Event {
        self.event
    }

    /// The so-manieth attempt it is, from 1, those of other instances included.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Cancelled when the handler should stop: its time is up, the run does not wait any longer, or the event was
    /// taken over by another instance. The handler's future is dropped right after it in the first two cases; the token
    /// is for what it started elsewhere.
    #[must_use]
    pub fn cancelled(&self) -> &CancellationToken {
        &self.cancelled
    }
}

impl Deref for Attempt {
    type Target = Event;

    fn deref(&self) -> &Event {
        &self.event
    }
}

/// Why an attempt failed.
pub(super) enum Failure<E> {
    /// The handler said so.
    Error(E),
    Panicked(String),
    TimedOut(Duration),
}

/// What handlers fail with: any error, also `&str`, `String`, and those of `anyhow` and `eyre`.
pub(super) type HandlerError = Box<dyn std::error::Error + Send + Sync>;

impl<E: Into<HandlerError>> Failure<E> {
    /// What failed, with all causes.
    pub(super) fn into_reason(self) -> String {
        match self {
            Self::Error(error) => pulse_core::error_chain::describe(&*error.into()),
            Self::Panicked(message) => format!("the handler panicked: {message}"),
            Self::TimedOut(limit) => format!("the handler took longer than {limit:?}"),
        }
    }
}

/// Runs a handler's future to its end, or to the end of its time, and keeps the deliveries from being made again
/// meanwhile.
pub(super) async fn attend<E>(
    deliveries: &[Delivery],
    handling: impl Future<Output = Result<(), E>>,
    limit: Option<Duration>,
    cancelled: CancellationToken,
) -> Result<(), Failure<E>> {
    // However this ends, what the handler started elsewhere learns of it.
    let _ends = cancelled.clone().drop_guard();
    // The delivery is given back whatever the handler has left behind, so nothing broken is seen.
    let handling = AssertUnwindSafe(handling).catch_unwind();
    tokio::pin!(handling);
    let deadline = limit.map(|limit| Instant::now() + limit);
    let step = deliveries.first().map_or(Duration::from_secs(1), Delivery::keep_every);
    let mut keep = tokio::time::interval_at(Instant::now() + step, step);
    keep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The handler goes on while the backend takes its time.
    let mut keeping = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            handled = &mut handling => return match handled {
                Ok(Ok(())) => Ok(()),
                Ok(Err(error)) => Err(Failure::Error(error)),
                Err(panic) => Err(Failure::Panicked(message(&*panic))),
            },
            () = until(deadline) => return Err(Failure::TimedOut(limit.unwrap_or_default())),
            Some(kept) = keeping.next() => {
                if matches!(kept, Err(crate::Error::Superseded { .. })) {
                    cancelled.cancel();
                }
            }
            _ = keep.tick(), if keeping.is_empty() => {
                keeping.extend(deliveries.iter().map(Delivery::in_progress));
            }
        }
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}
