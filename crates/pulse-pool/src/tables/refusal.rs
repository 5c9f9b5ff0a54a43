//! Why a transaction of the pool was refused.

use bytes::Bytes;
use pulse_core::{Expectation, FailedExpectation, Found};

use super::{JOBS, QUEUE, SHUTDOWN, WORKERS};

/// What was not as a transaction expected it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The job's record is another one, `None`: absent.
    Record(Option<Bytes>),
    /// The queue has no room.
    QueueFull,
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
            _ => Self::Membership,
        }
    }
}
