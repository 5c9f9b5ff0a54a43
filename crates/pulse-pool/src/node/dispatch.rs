//! Dispatching jobs.

use bytes::Bytes;
use pulse_core::Version;
use tokio::time::{Instant, timeout_at};

use super::{JobInfo, Node};
use crate::{
    Error, JobKey,
    id::DispatchId,
    record::JobRecord,
    tables::Refusal,
    watch::{Fate, Follow, Watch},
    write::{Written, write},
};

impl Node {
    /// Dispatches a job, and returns once it runs, on whichever node.
    ///
    /// With no worker in the pool the job waits for one, recorded, and so does this call until it times out.
    ///
    /// # Errors
    ///
    /// Nothing is left of the job: [`Error::Exists`], [`Error::QueueFull`], [`Error::InvalidKey`]; [`Error::Rejected`]
    /// with the handler's message; [`Error::Stopped`] if somebody stopped it before it ran.
    ///
    /// The job is recorded, and will run: [`Error::NotStarted`]; [`Error::Closed`] if this node was closed meanwhile.
    ///
    /// [`Error::Backend`] and [`Error::TimedOut`] say by [`Error::is_outcome_unknown`] whether it may be recorded;
    /// [`Node::jobs`] shows it if so.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the job is either recorded and will run, or is not there.
    pub async fn dispatch(&self, key: impl AsRef<str>, payload: impl Into<Bytes>) -> Result<JobInfo, Error> {
        let (key, deadline) = (JobKey::new(key)?, self.deadline());
        let watch = self.pool.watches.watch(&key);
        let (dispatch, since) = self.record(&key, payload.into(), deadline).await?;
        let runs = timeout_at(deadline, self.until_running(&key, Follow::new(dispatch, since), watch)).await;
        runs.unwrap_or_else(|_| {
            let (pool, after) = (self.pool.name.to_string(), self.pool.options.timeout);
            Err(Error::NotStarted { pool, key, after })
        })
    }

    /// Dispatches a job, and returns once it is recorded for good: it will run, unless its handler refuses it.
    ///
    /// # Errors
    ///
    /// Those of [`Node::dispatch`] that concern recording.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the job is either recorded and will run, or is not there.
    pub async fn enqueue(&self, key: impl AsRef<str>, payload: impl Into<Bytes>) -> Result<(), Error> {
        self.record(&JobKey::new(key)?, payload.into(), self.deadline()).await.map(|_| ())
    }

    /// Records a job. Returns how to recognise it, and the version of the jobs since when it is there, if known.
    async fn record(
        &self,
        key: &JobKey,
        payload: Bytes,
        deadline: Instant,
    ) -> Result<(DispatchId, Option<Version>), Error> {
        let (pool, dispatch) = (&self.pool, DispatchId::random());
        let mut owner = pool.owner(key);
        let mut trace = None;
        loop {
            if self.is_closed() {
                return Err(pool.closed());
            }
            let (worker, placed_by) = match &owner {
                Some((worker, placed_by)) => (Some(worker), *placed_by),
                None => (None, None),
            };
            let record = JobRecord::dispatched(dispatch, worker.map(|(worker, _)| *worker), placed_by);
            let record = pool.encode(&record)?;
            let (payload, max_queued) = (payload.clone(), pool.options.max_queued);
            let change = pool.tables.dispatch(key, trace.as_ref(), record.clone(), payload, worker, max_queued);
            let written = timeout_at(deadline, write(pool.tables.client(), &change, Some(&record), Some(deadline)));
            let written = written.await.map_err(|_| pool.timed_out("dispatch"))?;
            match written.map_err(pool.backend("dispatch"))? {
                Written::Done(version) => return Ok((dispatch, version)),
                Written::Refused(refusal) | Written::RefusedAfterUnknown(refusal) => match refusal {
                    Refusal::Record(None) => trace = None,
                    Refusal::Record(Some(found)) => match self.decode(key, &found)? {
                        // An attempt whose answer was lost took effect, and the job has gone on since.
                        ours if ours.dispatch == dispatch => return Ok((dispatch, None)),
                        other if other.is_job() => {
                            return Err(Error::Exists { pool: pool.name.to_string(), key: key.clone() });
                        }
                        _ => trace = Some(found),
                    },
                    Refusal::QueueFull => {
                        return Err(Error::QueueFull { pool: pool.name.to_string(), limit: pool.options.max_queued });
                    }
                    // Our view of the workers is stale. Let the one that the job belongs to take it by itself.
                    Refusal::Membership => owner = None,
                },
            }
        }
    }

    async fn until_running(&self, key: &JobKey, mut follow: Follow, mut watch: Watch) -> Result<JobInfo, Error> {
        let pool = || self.pool.name.to_string();
        loop {
            let sighting = watch.next().await.ok_or_else(|| self.pool.closed())?;
            match (follow.judge(sighting.version, sighting.record.as_deref()), &sighting.record) {
                (Some(Fate::Running), Some(record)) => {
                    if let Some(info) = self.info(key.clone(), record) {
                        return Ok(info);
                    }
                }
                (Some(Fate::Rejected(message)), Some(trace)) => {
                    let change = self.pool.tables.remove_trace(key, &trace.raw());
                    if let Err(error) = self.pool.tables.client().commit(change).await {
                        tracing::debug!(pool = %self.pool.name, %key, %error, "the trace of a refused job expires by itself");
                    }
                    return Err(Error::Rejected { pool: pool(), key: key.clone(), message });
                }
                (Some(_), _) => return Err(Error::Stopped { pool: pool(), key: key.clone() }),
                (None, _) => {}
            }
        }
    }

    /// A record as it came from the backend.
    pub(super) fn decode(&self, key: &JobKey, raw: &[u8]) -> Result<JobRecord, Error> {
        pulse_core::message_pack::decode(raw).map_err(|error| {
            let key = format!("{key} in {}", self.pool.tables.jobs.id());
            self.pool.backend("read a job")(pulse_core::Error::Corrupt { key, reason: error.to_string() })
        })
    }
}
