//! Jobs that were given up.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::{JobKey, record::DeadRecord};

/// A job that was given up; see [`Node::dead_jobs`](crate::Node::dead_jobs). Its payload stands beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeadJob {
    /// Its key.
    pub key: JobKey,
    /// What its last attempt said.
    pub reason: String,
    /// How many attempts failed before that one.
    pub failed: u32,
    /// When it was dispatched, by the server's clock.
    pub dispatched: SystemTime,
    /// When it was given up, by the server's clock.
    pub died: SystemTime,
}

impl DeadJob {
    pub(crate) fn new(key: JobKey, record: &DeadRecord) -> Self {
        let time = |millis| UNIX_EPOCH + Duration::from_millis(millis);
        Self {
            key,
            reason: record.reason.clone(),
            failed: record.terms.failed,
            dispatched: time(record.terms.at),
            died: time(record.at),
        }
    }
}
