//! What runs the jobs: the user's handler, and what it is told about a job.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use tokio_util::sync::CancellationToken;

use crate::{
    Epoch, Error, JobKey, WorkerId,
    activation::Lifeline,
    headers::Content,
    pool::Pool,
    requeue::{NotTaken, SHORTEST},
    result::KEEP_FOR,
    trace::Origin,
};

/// What a handler says when it fails.
pub type HandlerError = Box<dyn std::error::Error + Send + Sync>;

/// Runs jobs for a worker.
///
/// The pool calls the methods for different jobs at the same time, and for one job one after the other. A method that
/// hangs or panics concerns its own job and no other.
///
/// ```
/// use pulse_pool::{HandlerError, Job, JobHandler, JobKey};
///
/// struct Beeper;
///
/// #[pulse_pool::async_trait]
/// impl JobHandler for Beeper {
///     async fn start(&self, job: Job) -> Result<(), HandlerError> {
///         if job.payload().is_empty() {
///             return Err("nothing to say".into()); // whoever dispatched the job gets this message
///         }
///         tokio::spawn(async move {
///             while job.may_run() {
///                 println!("{}: {}", job.key(), String::from_utf8_lossy(job.payload()));
///                 tokio::select! {
///                     () = job.stopped() => {}
///                     () = tokio::time::sleep(std::time::Duration::from_secs(1)) => {}
///                 }
///             }
///         });
///         Ok(())
///     }
///
///     async fn stop(&self, _key: &JobKey) -> Result<(), HandlerError> {
///         Ok(()) // `job.stopped()` has ended the loop
///     }
/// }
/// ```
#[async_trait]
pub trait JobHandler: Send + Sync + 'static {
    /// Starts a job, and returns as soon as it runs; the job goes on until it is stopped.
    ///
    /// An error, or a panic, of the first start of a job refuses it: the job is removed, and the one who dispatched it
    /// gets the message. A job that ran before and fails to start after it moved is kept and tried again, with growing
    /// pauses. With [`Requeue`](crate::Requeue) as the error the job is put back in any case. Nothing of a job may go on after its
    /// start has failed.
    ///
    /// # Cancel safety
    ///
    /// The future is dropped at any point where it waits, if the job is to be stopped or to move while it starts.
    /// [`JobHandler::stop`] is called after that.
    async fn start(&self, job: Job) -> Result<(), HandlerError>;

    /// Stops a job, and returns when nothing of it goes on. Only then is it started elsewhere, or removed.
    ///
    /// [`Job::stopped`] has ended before this is called. An error or a panic is logged, and the job counts as stopped;
    /// with [`Requeue`](crate::Requeue) as the error, a job that somebody stops for good is put back instead, and they get
    /// [`Error::Requeued`]. It is not called when the whole node is dropped; [`Job::stopped`] ends then too.
    async fn stop(&self, key: &JobKey) -> Result<(), HandlerError>;

    /// Takes a notification for a running job; see [`Node::notify`](crate::Node::notify). An error, or a panic, goes to
    /// the one who sent it, and the job goes on. By default every notification is refused with
    /// [`Error::NotNotifiable`].
    ///
    /// # Cancel safety
    ///
    /// The future is dropped at any point where it waits, if the job is to be stopped or to move meanwhile.
    async fn notify(&self, key: &JobKey, payload: Bytes) -> Result<(), HandlerError> {
        let _ = (key, payload);
        Err(NotTaken.into())
    }
}

/// How a job says that it has ended.
#[derive(Debug)]
pub(crate) enum Ending {
    /// With a value as MessagePack, empty for none, that is kept for some time.
    Done { value: Bytes, keep_for: Duration },
    /// To be started again, because of a failure if there is one.
    Again { after: Duration, failure: Option<String> },
    /// It is given up.
    Dead { reason: String, keep_for: Duration },
}

/// A job that a handler is to run. Cloning it is cheap.
#[derive(Clone)]
pub struct Job {
    key: JobKey,
    content: Content,
    epoch: Epoch,
    worker: WorkerId,
    attempt: u32,
    stopped: CancellationToken,
    lifeline: Arc<Lifeline>,
}

impl Job {
    pub(crate) fn new(
        key: JobKey,
        content: Content,
        epoch: Epoch,
        worker: WorkerId,
        attempt: u32,
        stopped: CancellationToken,
        lifeline: Arc<Lifeline>,
    ) -> Self {
        Self { key, content, epoch, worker, attempt, stopped, lifeline }
    }

    /// Its key.
    #[must_use]
    pub fn key(&self) -> &JobKey {
        &self.key
    }

    /// What it was dispatched with.
    #[must_use]
    pub fn payload(&self) -> &Bytes {
        &self.content.payload
    }

    /// The header of that name that it was dispatched with; see [`NewJob::header`](crate::NewJob::header).
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.content.headers.get(name)
    }

    /// All headers that it was dispatched with, in the order in which they were first set.
    pub fn headers(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.content.headers.iter()
    }

    /// The span in which it was dispatched, if its headers tell (`traceparent`, `tracestate`): to link to it, or to go
    /// on as its child. The spans around the calls of handlers link by themselves.
    #[cfg(feature = "opentelemetry")]
    #[cfg_attr(docsrs, doc(cfg(feature = "opentelemetry")))]
    #[must_use]
    pub fn trace_context(&self) -> Option<opentelemetry::trace::SpanContext> {
        crate::trace::w3c::read(&self.content.headers)
    }

    /// The value that it was dispatched with; see [`NewJob::with_value`](crate::NewJob::with_value).
    ///
    /// # Errors
    ///
    /// [`Error::Decode`] if the payload is no such value.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, Error> {
        let value = pulse_core::message_pack::decode(&self.content.payload);
        value.map_err(|source| Error::Decode { key: self.key.to_string(), source })
    }

    /// The epoch of this start, which is greater than that of every earlier start of this key on another worker or of
    /// another dispatch: a [fencing token](Epoch) for the world outside the pool.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The worker that runs it.
    #[must_use]
    pub fn worker(&self) -> WorkerId {
        self.worker
    }

    /// Waits until the job must stop: it was stopped or moves, or its node was closed, dropped or cut off.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub async fn stopped(&self) {
        self.stopped.cancelled().await;
    }

    /// Cancelled when the job must stop; for what takes a token. It is the job's own: cancel only children of it.
    ///
    /// ```
    /// use pulse_pool::{CancellationToken, Job};
    ///
    /// /// Ends with the job, or before.
    /// fn part_of(job: &Job) -> CancellationToken {
    ///     job.cancelled().child_token()
    /// }
    /// ```
    #[must_use]
    pub fn cancelled(&self) -> &CancellationToken {
        &self.stopped
    }

    /// Whether the job may go on now. Right even in the first instant after a long pause of the process, because it
    /// compares clocks; ask before every step that must not be done twice.
    #[must_use]
    pub fn may_run(&self) -> bool {
        !self.stopped.is_cancelled() && self.lifeline.is_alive()
    }

    /// The number of this attempt since the job was dispatched, from 1. Attempts count that failed, or that ran, by the
    /// job's record, when their node died; see [`RetryPolicy`](crate::RetryPolicy).
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Says that the job has ended by itself, and nothing of it goes on: it is removed from the pool. Whoever waits in
    /// [`Node::dispatch_and_wait`](crate::Node::dispatch_and_wait) is told.
    ///
    /// This and the other ways to end are requests: they are carried out soon, for as long as the job is this worker's,
    /// and only the first of an activation counts. [`JobHandler::stop`] may still be called if the job was to stop
    /// anyway.
    pub fn finish(&self) {
        self.end(Ending::Done { value: Bytes::new(), keep_for: KEEP_FOR });
    }

    /// Says that the job has ended by itself, with a result that is kept for ten minutes; see [`finish`](Self::finish).
    ///
    /// # Errors
    ///
    /// [`Error::Encode`]: the job has not ended then.
    pub fn finish_with<T: Serialize + ?Sized>(&self, result: &T) -> Result<(), Error> {
        let value = self.encode(result)?;
        self.end(Ending::Done { value, keep_for: KEEP_FOR });
        Ok(())
    }

    /// Says that the job cannot go on now and is to be started again after a pause, of ten milliseconds at least; see
    /// [`finish`](Self::finish).
    pub fn requeue(&self, after: Duration) {
        self.end(Ending::Again { after: after.max(SHORTEST), failure: None });
    }

    /// Says that the job cannot go on at all: it is removed from the pool and kept among the [dead
    /// jobs](crate::Node::dead_jobs); see [`finish`](Self::finish).
    pub fn give_up(&self, reason: impl Into<String>) {
        self.end(Ending::Dead { reason: reason.into(), keep_for: KEEP_FOR });
    }

    /// Notes how far the job is, for [`Node::progress`](crate::Node::progress) to read. Kept for an hour, but no longer
    /// than the job is there. One write to the backend: say it now and then, not in every loop.
    ///
    /// ```
    /// # use pulse_pool::Node;
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let client = pulse_pool::connect("memory:").await?;
    /// # let node = Node::join(&client, "films").await?;
    /// node.worker_fn(|job| async move {
    ///     for percent in (0..100).step_by(10) {
    ///         job.progress(&percent).await?; // `node.progress::<u32>("film 7")` reads it, on any node
    ///         // a tenth of the work
    ///     }
    ///     Ok(())
    /// })
    /// .await?;
    /// # node.dispatch_and_wait::<()>(("film 7", "")).await?;
    /// # client.close().await;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Encode`], [`Error::Backend`]; [`Error::RunOver`] if this run of the job is over: it has ended, or its node
    /// has lost the lease, and another run may have begun; [`Error::Closed`] if the node is gone.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, it is noted or not.
    pub async fn progress<T: Serialize + ?Sized>(&self, progress: &T) -> Result<(), Error> {
        self.lifeline.progress(&self.key, self.encode(progress)?).await
    }

    pub(crate) fn encode<T: Serialize + ?Sized>(&self, value: &T) -> Result<Bytes, Error> {
        let value = pulse_core::message_pack::encode(value);
        value.map_err(|source| Error::Encode { key: self.key.to_string(), source })
    }

    pub(crate) fn end(&self, ending: Ending) {
        self.lifeline.end(&self.key, ending);
    }

    pub(crate) fn origin(&self) -> Origin {
        Origin::of(&self.content.headers)
    }

    /// The pool that runs it; `None` once its node is gone.
    pub(crate) fn pool(&self) -> Option<Arc<Pool>> {
        self.lifeline.pool()
    }

    /// Waits until nothing of the job may go on: its node has lost the lease, or gives it up.
    pub(crate) async fn lost(&self) {
        self.lifeline.lost().await;
    }

    /// Waits until it is written down that the job runs; `false` if it must stop before.
    pub(crate) async fn is_recorded(&self) -> bool {
        tokio::select! {
            biased;
            () = self.stopped() => false,
            () = self.lifeline.recorded() => true,
        }
    }
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job")
            .field("key", &self.key)
            .field("epoch", &self.epoch)
            .field("worker", &self.worker)
            .field("payload_bytes", &self.content.payload.len())
            .finish_non_exhaustive()
    }
}
