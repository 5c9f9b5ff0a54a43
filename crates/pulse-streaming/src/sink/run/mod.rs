//! The loop that most consumers want: take events, handle them, acknowledge what went well, and try again what did not.
//!
//! [`Runner`] and [`BatchRunner`] are the options; awaiting them runs. [`crew`] handles single events side by side,
//! [`batches`] several at once; what both do with one [`attempt`] and its outcome is here.

mod attempt;
mod batches;
mod crew;
mod policy;

use std::{
    collections::HashSet,
    future::Future,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use futures::future::BoxFuture;

use self::attempt::{Failure, HandlerError};
pub use self::{attempt::Attempt, batches::BatchRunner, crew::Runner, policy::RetryPolicy};
use super::{Delivery, Settlement, Sink};
use crate::{Event, Notice, PartitionedSink};

/// What a run did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Ran {
    /// How many attempts went well.
    pub handled: u64,
    /// How many failed: errors, panics, time-outs.
    pub failed: u64,
    /// How many events were given up.
    pub dead_lettered: u64,
    /// How many outcomes did not reach the backend, so that the events are delivered again.
    pub unsettled: u64,
}

/// Where deliveries come from.
pub(super) trait Source: Send + 'static {
    /// What has to come one after the other if the user names no keys.
    const ORDER: Order;

    /// Waits for the next delivery of a stream that is not among these, which are numbered by [`number`].
    fn next(&mut self, but_of: &HashSet<u64>) -> impl Future<Output = Option<Result<Delivery, Notice>>> + Send;
    fn close(&self) -> impl Future<Output = ()> + Send;
    /// Keeps what waits to be handed out, although nothing is taken for a while.
    fn attend(&self);
    /// How often that has to be said.
    fn attend_every(&self) -> Duration;
}

/// Which events are handled one after the other.
pub(super) enum Order {
    /// None.
    Any,
    /// Those of one stream: the others of it are not even taken meanwhile.
    ByStream,
    /// Those of one key: others of it that were taken wait.
    ByKey(KeyOf),
}

/// The key of an event, as a number. Keys that share one wait for each other, which does no harm.
type KeyOf = Arc<dyn Fn(&Event) -> u64 + Send + Sync>;

fn number(key: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish()
}

impl Source for Sink {
    const ORDER: Order = Order::Any;

    async fn next(&mut self, _: &HashSet<u64>) -> Option<Result<Delivery, Notice>> {
        Self::next(self).await
    }

    async fn close(&self) {
        Self::close(self).await;
    }

    fn attend(&self) {
        self.buffer.attend();
    }

    fn attend_every(&self) -> Duration {
        self.shared.timing.touch_after()
    }
}

impl Source for PartitionedSink {
    const ORDER: Order = Order::ByStream;

    async fn next(&mut self, but_of: &HashSet<u64>) -> Option<Result<Delivery, Notice>> {
        self.next_of(|stream| but_of.is_empty() || !but_of.contains(&number(stream))).await
    }

    async fn close(&self) {
        Self::close(self).await;
    }

    // An owner keeps what waits for as long as it owns the partition.
    fn attend(&self) {}

    fn attend_every(&self) -> Duration {
        self.ack_grace() / 3
    }
}

type GiveUp<E> = Arc<dyn Fn(&E) -> bool + Send + Sync>;
type OnNotice = Box<dyn FnMut(Notice) + Send>;

/// The options that both ways of running have.
struct Options<E> {
    retry: RetryPolicy,
    give_up: Option<GiveUp<E>>,
    timeout: Option<Duration>,
    drain: Duration,
    until: BoxFuture<'static, ()>,
    on_notice: OnNotice,
}

impl<E> Options<E> {
    fn new() -> Self {
        Self {
            retry: RetryPolicy::new(),
            give_up: None,
            timeout: None,
            drain: Duration::from_secs(30),
            until: Box::pin(std::future::pending()),
            // What happened is logged where it was found out.
            on_notice: Box::new(drop),
        }
    }
}

/// The parts of the options that say what becomes of an attempt.
struct Terms<E> {
    retry: RetryPolicy,
    give_up: Option<GiveUp<E>>,
    timeout: Option<Duration>,
}

impl<E> Clone for Terms<E> {
    fn clone(&self) -> Self {
        Self { retry: self.retry, give_up: self.give_up.clone(), timeout: self.timeout }
    }
}

/// What is to happen after an attempt that failed.
enum Next {
    /// Another one, after this time.
    Again(Duration),
    /// None: it was the last, or the error is of a kind that no attempt mends.
    GiveUp(String),
}

/// An attempt that failed, and whether another one could do better.
struct Failed {
    reason: String,
    is_hopeless: bool,
}

impl<E: Into<HandlerError>> Terms<E> {
    fn judge(&self, failure: Failure<E>) -> Failed {
        let is_hopeless = match (&failure, &self.give_up) {
            (Failure::Error(error), Some(give_up)) => give_up(error),
            _ => false,
        };
        Failed { reason: failure.into_reason(), is_hopeless }
    }

    fn next(&self, attempt: u64, failed: &Failed) -> Next {
        match self.retry.after(attempt, rand::random()) {
            Some(pause) if !failed.is_hopeless => Next::Again(pause),
            _ => Next::GiveUp(failed.reason.clone()),
        }
    }
}

/// Writes the methods of a runner that set the common options.
macro_rules! common_options {
    () => {
        /// Sets how often and after which pauses an event is handled again. Default: ten attempts, pauses from half a
        /// second to a minute.
        pub fn retry(mut self, policy: RetryPolicy) -> Self {
            self.options.retry = policy;
            self
        }

        /// Gives an event up at once where this is true of the handler's error, because no other attempt would do
        /// better.
        pub fn give_up_if(mut self, is_hopeless: impl Fn(&E) -> bool + Send + Sync + 'static) -> Self {
            self.options.give_up = Some(std::sync::Arc::new(is_hopeless));
            self
        }

        /// Sets how long one call of the handler may take. Its future is then dropped, and the attempt has failed. A time
        /// below a millisecond acts as one, and more than a year as for ever. Default: for ever.
        pub fn timeout(mut self, limit: Duration) -> Self {
            self.options.timeout = (limit <= crate::options::LONGEST).then_some(limit.max(crate::options::SHORTEST));
            self
        }

        /// Ends the run in good order when this future resolves: nothing more is taken, handlers that run come to their
        /// end ([`drain`](Self::drain)), what they did is settled, and the sink is closed.
        ///
        /// ```no_run
        /// # async fn run(sink: pulse_streaming::Sink) {
        /// let ctrl_c = async { drop(tokio::signal::ctrl_c().await) };
        /// sink.run(8, |_| async { Ok::<_, std::convert::Infallible>(()) }).until(ctrl_c).await;
        /// # }
        /// ```
        pub fn until(mut self, end: impl Future<Output = ()> + Send + 'static) -> Self {
            self.options.until = Box::pin(end);
            self
        }

        /// Sets how long handlers that run may go on when the run ends. After it their futures are dropped, and their
        /// events go back at once; with a time of zero, that is when the run ends. At most a year. Default: 30 s.
        pub fn drain(mut self, limit: Duration) -> Self {
            self.options.drain = limit.min(crate::options::LONGEST);
            self
        }

        /// Is told what the sink has to say besides events.
        pub fn on_notice(mut self, told: impl FnMut(Notice) + Send + 'static) -> Self {
            self.options.on_notice = Box::new(told);
            self
        }
    };
}
use common_options;

impl<E> Options<E> {
    fn terms(&self) -> Terms<E> {
        Terms { retry: self.retry, give_up: self.give_up.clone(), timeout: self.timeout }
    }
}

impl Ran {
    fn settled(&mut self, outcome: &Result<(), crate::Error>) {
        if let Err(error) = outcome {
            // Somebody else has the event, which is what the settlement asked for or is too late for.
            self.unsettled += u64::from(!matches!(error, crate::Error::Superseded { .. }));
            tracing::debug!(%error, "an outcome did not reach the backend");
        }
    }
}

/// Outcomes on their way to the backend.
type Settling = futures::stream::FuturesUnordered<Settlement>;
