//! What ties a running job to its node: the lease that it may run under, and the way to say that it has ended.

use std::sync::{
    Arc, Weak,
    atomic::{AtomicBool, Ordering},
};

use bytes::Bytes;
use pulse_core::{Session, SessionState};
use tokio::sync::SetOnce;
use tokio_util::sync::CancellationToken;

use crate::{
    Error, JobKey,
    handler::Ending,
    id::AssignmentId,
    pool::Pool,
    runner::{Ended, Endings},
};

/// Of one start of a job.
#[derive(Debug)]
pub(crate) struct Lifeline {
    /// Holds the lease that the job may run under. The node owns it.
    session: Weak<Session>,
    /// Cancelled when the node has lost that lease, or gives it up.
    lost: CancellationToken,
    pool: Weak<Pool>,
    assignment: AssignmentId,
    endings: Endings,
    has_ended: AtomicBool,
    /// Set once it is written down that the job runs.
    recorded: SetOnce<()>,
}

impl Lifeline {
    pub(crate) fn new(
        session: Weak<Session>,
        lost: CancellationToken,
        pool: Weak<Pool>,
        assignment: AssignmentId,
        endings: Endings,
    ) -> Self {
        let (has_ended, recorded) = (AtomicBool::new(false), SetOnce::new());
        Self { session, lost, pool, assignment, endings, has_ended, recorded }
    }

    /// Whether the node holds its lease, and has not given it up. Compares clocks, so that it is right at any moment.
    pub(crate) fn is_alive(&self) -> bool {
        let is_held = || self.session.upgrade().is_some_and(|session| session.state() == SessionState::Alive);
        !self.lost.is_cancelled() && is_held()
    }

    /// Waits until the node has lost the lease, or gives it up.
    pub(crate) async fn lost(&self) {
        self.lost.cancelled().await;
    }

    /// Notes that it is written down that the job runs. Returns `false` if it was before, and the backend has lost it.
    pub(crate) fn set_recorded(&self) -> bool {
        self.recorded.set(()).is_ok()
    }

    /// Whether it is written down that the job runs.
    pub(crate) fn is_recorded(&self) -> bool {
        self.recorded.initialized()
    }

    /// Waits until it is written down that the job runs.
    pub(crate) async fn recorded(&self) {
        self.recorded.wait().await;
    }

    pub(crate) fn pool(&self) -> Option<Arc<Pool>> {
        self.pool.upgrade()
    }

    /// Says that the job has ended; only the first time counts.
    pub(crate) fn end(&self, key: &JobKey, ending: Ending) {
        if !self.has_ended.swap(true, Ordering::Relaxed) {
            // It fails only if the node is gone, and the job with it.
            let _ = self.endings.send(Ended { key: key.clone(), assignment: self.assignment, ending });
        }
    }

    pub(crate) async fn progress(&self, key: &JobKey, progress: Bytes) -> Result<(), Error> {
        let (Some(pool), Some(session)) = (self.pool.upgrade(), self.session.upgrade()) else {
            return Err(Error::Closed { pool: String::new() });
        };
        let lease = session.lease();
        drop(session);
        let written = pool.tables.client().commit(pool.tables.progress(key, lease, progress)).await;
        match written {
            Ok(_) => Ok(()),
            Err(error) if error.is_conflict() => Err(pool.closed()),
            Err(error) => Err(pool.backend("note progress")(error)),
        }
    }
}
