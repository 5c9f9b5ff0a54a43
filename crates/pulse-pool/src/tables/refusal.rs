//! Why a transaction of the pool was refused.

use bytes::Bytes;
use pulse_core::{Expectation, FailedExpectation, Found};

use super::{INBOX, JOBS, QUEUE, SHUTDOWN, WORKERS};

/// What was not as a transaction expected it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The job's record is another one, `None`: absent.
    Record(Option<Bytes>),
    /// The queue has no room.
    QueueFull,
    /// The inbox of a node has no room.
    InboxFull,
    /// The pool is shut down, by this mark.
    ShuttingDown(Option<Bytes>),
    /// A worker is other than it was known, or our lease is not alive.
    Membership,
}

impl Refusal {
    pub(crate) fn of(failed: &FailedExpectation) -> Self {
        match (&failed.expected, &failed.found) {
            (Expectation::Equals { map, .. } | Expectation::Absent { map, .. }, Found::Value(found))
                if JOBS.is(map) =>
            {
                Self::Record(found.clone())
            }
            (Expectation::Absent { map, key }, Found::Value(found)) if WORKERS.is(map) && SHUTDOWN.is(key) => {
                Self::ShuttingDown(found.clone())
            }
            (Expectation::FewerThan { map, .. }, _) if QUEUE.is(map) => Self::QueueFull,
            (Expectation::FewerThan { map, .. }, _) if map.starts_with(INBOX) => Self::InboxFull,
            _ => Self::Membership,
        }
    }
}

/// Who is the reason that many are refused together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blame<'a> {
    /// The job of this key, whose record is not as expected.
    Record(&'a str),
    /// As many new jobs as are too many beside those that are queued.
    Queue {
        queued: u64,
    },
    /// The new jobs of the worker of this name.
    Worker(&'a str),
    /// All new jobs, as where the pool is shut down.
    AllNew,
    /// All that is written under the lease.
    Lease,
    Nobody,
}

impl<'a> Blame<'a> {
    pub(crate) fn of(failed: &'a FailedExpectation) -> Self {
        match (&failed.expected, &failed.found) {
            (Expectation::Equals { map, key, .. } | Expectation::Absent { map, key }, _) if JOBS.is(map) => {
                Self::Record(key)
            }
            (Expectation::FewerThan { map, .. }, Found::Count(queued)) if QUEUE.is(map) => {
                Self::Queue { queued: *queued }
            }
            (Expectation::Absent { map, key }, _) if WORKERS.is(map) && SHUTDOWN.is(key) => Self::AllNew,
            (Expectation::Equals { map, key, .. }, _) if WORKERS.is(map) => Self::Worker(key),
            (Expectation::LeaseAlive { .. }, _) => Self::Lease,
            _ => Self::Nobody,
        }
    }

    /// Whether it is because of new jobs, other than by the record of one.
    pub(crate) fn concerns_new(self) -> bool {
        matches!(self, Self::Queue { .. } | Self::Worker(_) | Self::AllNew)
    }
}
