//! What ties a running job to its node: the lease that it may run under, and the way to say that it has ended.

use std::sync::{
    Arc, Weak,
    atomic::{AtomicBool, Ordering},
};

use bytes::Bytes;
use pulse_core::{Session, SessionState};
use pulse_rmap::Value;
use tokio::sync::SetOnce;
use tokio_util::sync::CancellationToken;

use crate::{
    Epoch, Error, JobKey,
    handler::Ending,
    pool::Pool,
    record::JobRecord,
    runner::{Ended, Endings},
    tables::Refusal,
};

/// Of one start of a job.
#[derive(Debug)]
pub(crate) struct Lifeline {
    /// Holds the lease that the job may run under. The node owns it.
    session: Weak<Session>,
    /// Cancelled when the node has lost that lease, or gives it up.
    lost: CancellationToken,
    pool: Weak<Pool>,
    /// By which it was started.
    record: Value<JobRecord>,
    epoch: Epoch,
    endings: Endings,
    /// It has said how it ends, or has no say in its job any more.
    is_over: AtomicBool,
    /// Set once it is written down that the job runs.
    recorded: SetOnce<()>,
}

impl Lifeline {
    pub(crate) fn new(
        session: Weak<Session>,
        lost: CancellationToken,
        pool: Weak<Pool>,
        record: Value<JobRecord>,
        epoch: Epoch,
        endings: Endings,
    ) -> Self {
        let (is_over, recorded) = (AtomicBool::new(false), SetOnce::new());
        Self { session, lost, pool, record, epoch, endings, is_over, recorded }
    }

    /// Of the same start, which is tried again: whatever is left of the attempt before has no say any more.
    pub(crate) fn renewed(&self) -> Self {
        self.sever();
        let (session, lost, pool) = (self.session.clone(), self.lost.clone(), self.pool.clone());
        Self::new(session, lost, pool, self.record.clone(), self.epoch, self.endings.clone())
    }

    /// Nothing of this start goes on: whatever is left of it has no say any more.
    pub(crate) fn sever(&self) {
        self.is_over.store(true, Ordering::Relaxed);
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
        if !self.is_over.swap(true, Ordering::Relaxed) {
            // It fails only if the node is gone, and the job with it.
            let (key, assignment, epoch) = (key.clone(), self.record.assignment, self.epoch);
            let _ = self.endings.send(Ended { key, assignment, epoch, ending });
        }
    }

    pub(crate) async fn progress(&self, key: &JobKey, progress: Bytes) -> Result<(), Error> {
        let Some(pool) = self.pool.upgrade() else { return Err(Error::Closed { pool: String::new() }) };
        let over = || Error::RunOver { pool: pool.name.to_string(), key: key.clone() };
        let lease =
            self.session.upgrade().filter(|_| self.is_alive()).map(|session| session.lease()).ok_or_else(over)?;
        // As it should stand there. It may be to be stopped since, or not be written down yet that it runs.
        let mut stands =
            if self.is_recorded() { pool.encode(&self.record.running(self.epoch))? } else { self.record.raw() };
        while !self.is_over.load(Ordering::Relaxed) {
            let change = pool.tables.progress(key, &stands, lease, progress.clone());
            match pool.tables.client().commit(change).await {
                Ok(_) => return Ok(()),
                Err(error) => match error.failed_expectation().map(Refusal::of) {
                    Some(Refusal::Record(Some(found))) if found != stands && self.is_of_this_run(&found) => {
                        stands = found;
                    }
                    Some(_) => return Err(over()),
                    None if matches!(error, pulse_core::Error::LeaseLost { .. }) => return Err(over()),
                    None => return Err(pool.backend("note progress")(error)),
                },
            }
        }
        Err(over())
    }

    /// Whether a record is that of this run, however far that is. One that is damaged counts: it is about to be written
    /// anew.
    fn is_of_this_run(&self, found: &Bytes) -> bool {
        JobRecord::read(found).is_none_or(|found| {
            let before = self.record.epoch().filter(|_| !self.is_recorded());
            let is_expected = found.epoch() == Some(self.epoch) || found.epoch() == before;
            found.assignment == self.record.assignment && is_expected && found.is_job()
        })
    }
}
