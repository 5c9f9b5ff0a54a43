//! What runs the jobs: the user's handler, and what it is told about a job.

use std::{fmt, panic::AssertUnwindSafe, sync::Weak};

use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt;
use pulse_core::{Session, SessionState};
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use crate::{Epoch, Error, JobKey, WorkerId};

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
    /// pauses. Nothing of a job may go on after its start has failed.
    ///
    /// # Cancel safety
    ///
    /// The future is dropped at any point where it waits, if the job is to be stopped or to move while it starts.
    /// [`JobHandler::stop`] is called after that.
    async fn start(&self, job: Job) -> Result<(), HandlerError>;

    /// Stops a job, and returns when nothing of it goes on. Only then is it started elsewhere, or removed.
    ///
    /// [`Job::stopped`] has ended before this is called. An error or a panic is logged, and the job counts as stopped.
    /// It is not called when the whole node is dropped; [`Job::stopped`] ends then too.
    async fn stop(&self, key: &JobKey) -> Result<(), HandlerError>;
}

/// A job that a handler is to run. Cloning it is cheap.
#[derive(Clone)]
pub struct Job {
    key: JobKey,
    payload: Bytes,
    epoch: Epoch,
    worker: WorkerId,
    stopped: CancellationToken,
    /// Holds the lease that the job may run under. The node owns it.
    session: Weak<Session>,
}

impl Job {
    pub(crate) fn new(
        key: JobKey,
        payload: Bytes,
        epoch: Epoch,
        worker: WorkerId,
        stopped: CancellationToken,
        session: Weak<Session>,
    ) -> Self {
        Self { key, payload, epoch, worker, stopped, session }
    }

    /// Its key.
    #[must_use]
    pub fn key(&self) -> &JobKey {
        &self.key
    }

    /// What it was dispatched with.
    #[must_use]
    pub fn payload(&self) -> &Bytes {
        &self.payload
    }

    /// The value that it was dispatched with; see [`NewJob::with_value`](crate::NewJob::with_value).
    ///
    /// # Errors
    ///
    /// [`Error::Decode`] if the payload is no such value.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, Error> {
        let value = pulse_core::message_pack::decode(&self.payload);
        value.map_err(|source| Error::Decode { key: self.key.to_string(), source })
    }

    /// Greater than that of every earlier start of this key on another worker or of another dispatch: a fencing token for
    /// the world outside the pool.
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

    /// Whether the job may go on now. Right even in the first instant after a long pause of the process, because it
    /// compares clocks; ask before every step that must not be done twice.
    #[must_use]
    pub fn may_run(&self) -> bool {
        !self.stopped.is_cancelled()
            && self.session.upgrade().is_some_and(|session| session.state() == SessionState::Alive)
    }
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job")
            .field("key", &self.key)
            .field("epoch", &self.epoch)
            .field("worker", &self.worker)
            .field("payload_bytes", &self.payload.len())
            .finish_non_exhaustive()
    }
}

/// Calls a handler, and turns its error or panic into a message.
pub(crate) async fn contain(call: impl Future<Output = Result<(), HandlerError>>) -> Result<(), String> {
    // The handler is the user's: whatever state a panic leaves behind in it is the user's to judge.
    match AssertUnwindSafe(call).catch_unwind().await {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(panic) => {
            let said = panic.downcast_ref::<&str>().map(|said| (*said).to_owned());
            let said = said.or_else(|| panic.downcast_ref::<String>().cloned());
            Err(format!("the handler panicked: {}", said.unwrap_or_else(|| "no message".into())))
        }
    }
}
