//! What can go wrong in a pool, cut by what the caller can do about it.

use std::time::Duration;

use crate::{JobKey, WorkerId};

/// Why a call to a pool failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The key cannot name a job. Nothing was changed.
    #[error("invalid job key: {reason}")]
    InvalidKey {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A payload or a result cannot be encoded. Nothing was changed.
    #[error("the value for job {key:?} cannot be encoded")]
    Encode {
        /// The key.
        key: String,
        /// The cause.
        #[source]
        source: pulse_core::Source,
    },
    /// A payload or a result is no such value.
    #[error("what job {key:?} carries is no such value")]
    Decode {
        /// The key.
        key: String,
        /// The cause.
        #[source]
        source: pulse_core::Source,
    },
    /// An option makes no sense.
    #[error("invalid option of pool {pool}: {reason}")]
    InvalidOption {
        /// The pool.
        pool: String,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// There is a job of that key already. Nothing was changed.
    #[error("pool {pool} has a job {:?} already: stop it first, or use another key", key.as_str())]
    Exists {
        /// The pool.
        pool: String,
        /// The key.
        key: JobKey,
    },
    /// There is no job of that key.
    #[error("pool {pool} has no job {:?}", key.as_str())]
    UnknownJob {
        /// The pool.
        pool: String,
        /// The key.
        key: JobKey,
    },
    /// This node has no such worker.
    #[error("this node of pool {pool} has no worker {worker}")]
    UnknownWorker {
        /// The pool.
        pool: String,
        /// The worker.
        worker: WorkerId,
    },
    /// The node was made only to dispatch: see [`NodeBuilder::client_only`](crate::NodeBuilder::client_only).
    #[error("this node of pool {pool} has no workers: it joined with client_only")]
    ClientOnly {
        /// The pool.
        pool: String,
    },
    /// Too many jobs wait for their first start. Nothing was changed.
    #[error("pool {pool} has {limit} jobs or more waiting to be started: try again later, or add workers")]
    QueueFull {
        /// The pool.
        pool: String,
        /// The limit of the node that was asked.
        limit: u64,
    },
    /// The handler refused the job when it was started for the first time, or panicked. The job is gone.
    #[error("the handler of pool {pool} refused job {:?}: {message}", key.as_str())]
    Rejected {
        /// The pool.
        pool: String,
        /// The key.
        key: JobKey,
        /// What the handler said.
        message: String,
    },
    /// The job was stopped by somebody before it came to run.
    #[error("job {:?} of pool {pool} was stopped before it came to run", key.as_str())]
    Stopped {
        /// The pool.
        pool: String,
        /// The key.
        key: JobKey,
    },
    /// The backend confirmed the dispatch of the job, and has lost it, as in a failover that undoes writes.
    #[error("pool {pool} has lost job {key:?} although its dispatch was confirmed: dispatch it again")]
    Lost {
        /// The pool.
        pool: String,
        /// The key.
        key: JobKey,
    },
    /// The run of the job that said this is over: it has ended or was stopped, and another one may have begun, there or
    /// elsewhere. Nothing was written.
    #[error("this run of job {:?} of pool {pool} is over, and may write nothing more for it", key.as_str())]
    RunOver {
        /// The pool.
        pool: String,
        /// The key.
        key: JobKey,
    },
    /// The job is there no more, and what came of it is not known any more: its result, or that somebody stopped it. As
    /// where this node was cut off for longer than the result was kept.
    #[error("job {:?} of pool {pool} has ended, and what came of it is not kept any more", key.as_str())]
    OutcomeGone {
        /// The pool.
        pool: String,
        /// The key.
        key: JobKey,
    },
    /// The handler did not let the job be stopped and put it back: it goes on.
    #[error("the handler of pool {pool} put job {:?} back instead of stopping it for good", key.as_str())]
    Requeued {
        /// The pool.
        pool: String,
        /// The key.
        key: JobKey,
    },
    /// The job was given up; it stands among the dead jobs.
    #[error("job {:?} of pool {pool} was given up: {reason}", key.as_str())]
    Failed {
        /// The pool.
        pool: String,
        /// The key.
        key: JobKey,
        /// What its last attempt said.
        reason: String,
    },
    /// The handler of the job takes no notifications.
    #[error(
        "the handler of pool {pool} that runs job {:?} takes no notifications: implement JobHandler::notify",
        key.as_str()
    )]
    NotNotifiable {
        /// The pool.
        pool: String,
        /// The key.
        key: JobKey,
    },
    /// The handler of the job failed to deal with a notification, or panicked. The job goes on.
    #[error(
        "the handler of pool {pool} failed to deal with a notification for job {:?}: {message}",
        key.as_str()
    )]
    NotifyFailed {
        /// The pool.
        pool: String,
        /// The key.
        key: JobKey,
        /// What the handler said.
        message: String,
    },
    /// As many notifications as may wait for the jobs of one node were waiting there until this one's time was over. The
    /// job was not told.
    #[error("job {:?} of pool {pool} was not told: its node has {limit} notifications waiting", key.as_str())]
    TooManyNotifications {
        /// The pool.
        pool: String,
        /// The key.
        key: JobKey,
        /// How many may wait.
        limit: u64,
    },
    /// The job is recorded but did not come to run in time. It stays, and starts as soon as a worker can.
    #[error(
        "job {:?} of pool {pool} is recorded but does not run after {after:?}: it stays until it is stopped",
        key.as_str()
    )]
    NotStarted {
        /// The pool.
        pool: String,
        /// The key.
        key: JobKey,
        /// How long was waited.
        after: Duration,
    },
    /// The job's owner was told to stop it but did not finish in time. It stops as soon as the handler lets it.
    #[error(
        "job {:?} of pool {pool} has not stopped after {after:?}: its handler is still at it",
        key.as_str()
    )]
    NotStopped {
        /// The pool.
        pool: String,
        /// The key.
        key: JobKey,
        /// How long was waited.
        after: Duration,
    },
    /// The whole pool is shut down. Nothing was changed.
    #[error("pool {pool} is shut down: try again when that is done")]
    ShuttingDown {
        /// The pool.
        pool: String,
    },
    /// The node was cut off from the pool when it left, or its client was closed: it handed nothing over. Nothing of its
    /// jobs goes on here; they start elsewhere when its lease has run out.
    #[error("the node of pool {pool} has left without handing its jobs over: they move when its lease has run out")]
    NotHandedOver {
        /// The pool.
        pool: String,
    },
    /// The pool has nodes.
    #[error("pool {pool} has nodes: close them first, or wait until the leases of dead ones have run out")]
    InUse {
        /// The pool.
        pool: String,
    },
    /// The node could not do it in time, as while the backend is unavailable.
    #[error("{operation} in pool {pool} timed out after {after:?}")]
    TimedOut {
        /// What was asked.
        operation: &'static str,
        /// The pool.
        pool: String,
        /// How long was waited.
        after: Duration,
    },
    /// The node was closed.
    #[error("the node of pool {pool} is closed")]
    Closed {
        /// The pool.
        pool: String,
    },
    /// The replica of the pool's records failed.
    #[error("the records of pool {pool} cannot be replicated")]
    Replica {
        /// The pool.
        pool: String,
        /// The cause.
        #[source]
        source: Box<pulse_rmap::Error>,
    },
    /// The backend failed.
    #[error("{operation} in pool {pool} failed")]
    Backend {
        /// What was asked.
        operation: &'static str,
        /// The pool.
        pool: String,
        /// The cause.
        #[source]
        source: pulse_core::Error,
    },
}

impl Error {
    /// Whether the same call may succeed later without anybody changing anything.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::QueueFull { .. }
            | Self::TooManyNotifications { .. }
            | Self::Lost { .. }
            | Self::TimedOut { .. }
            | Self::ShuttingDown { .. } => true,
            Self::Backend { source, .. } => source.is_retryable(),
            _ => false,
        }
    }

    /// Whether the request may have taken effect although it failed.
    #[must_use]
    pub fn is_outcome_unknown(&self) -> bool {
        match self {
            Self::TimedOut { .. } | Self::OutcomeGone { .. } => true,
            Self::Backend { source, .. } => source.is_outcome_unknown(),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_quotes_the_key_as_the_text_that_it_is() {
        let (pool, key) = ("orchestra".to_owned(), JobKey::new("part \"1\"").unwrap());
        let exists = Error::Exists { pool: pool.clone(), key: key.clone() }.to_string();
        assert_eq!(exists, r#"pool orchestra has a job "part \"1\"" already: stop it first, or use another key"#);
        let (after, message) = (Duration::from_secs(1), String::new());
        let all = [
            Error::UnknownJob { pool: pool.clone(), key: key.clone() },
            Error::Rejected { pool: pool.clone(), key: key.clone(), message: message.clone() },
            Error::Stopped { pool: pool.clone(), key: key.clone() },
            Error::OutcomeGone { pool: pool.clone(), key: key.clone() },
            Error::RunOver { pool: pool.clone(), key: key.clone() },
            Error::Requeued { pool: pool.clone(), key: key.clone() },
            Error::Failed { pool: pool.clone(), key: key.clone(), reason: String::new() },
            Error::NotNotifiable { pool: pool.clone(), key: key.clone() },
            Error::NotifyFailed { pool: pool.clone(), key: key.clone(), message },
            Error::TooManyNotifications { pool: pool.clone(), key: key.clone(), limit: 7 },
            Error::NotStarted { pool: pool.clone(), key: key.clone(), after },
            Error::NotStopped { pool, key, after },
        ];
        for error in all.map(|error| error.to_string()) {
            assert!(error.contains(r#"job "part \"1\"""#), "{error}");
        }
    }
}
