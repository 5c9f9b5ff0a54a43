//! What jobs leave behind: results, progress, and the dead.

use bytes::Bytes;
use serde::de::DeserializeOwned;

use super::Node;
use crate::{
    DeadJob, Error, JobKey, NewJob,
    order::Stamp,
    record::{DeadRecord, JobRecord},
    result::{JobResult, Outcome},
    tables::Refusal,
    watch::{Fate, Follow, Watch},
    write::{Written, write},
};

impl Node {
    /// Dispatches a job, and returns its result once it has ended by itself, on whichever node and after however many
    /// attempts.
    ///
    /// It waits for as long as that takes; put it under a `tokio::time::timeout` to wait less. A job that nobody ends
    /// never returns. `T` is what the job [ended with](crate::Job::finish_with), `()` if it ended with nothing.
    ///
    /// ```
    /// # use pulse_pool::{NewJob, Node};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let client = pulse_pool::connect("memory:").await?;
    /// # let node = Node::join(&client, "sums").await?;
    /// node.worker_fn(|job| async move {
    ///     let numbers: Vec<u64> = job.decode()?;
    ///     Ok(numbers.iter().sum::<u64>())
    /// })
    /// .await?;
    /// let sum: u64 = node.dispatch_and_wait(NewJob::with_value("sum", &[1, 2, 3])?).await?;
    /// assert_eq!(sum, 6);
    /// # client.close().await;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`dispatch`](Self::dispatch) that concern recording, and [`Error::Rejected`]; [`Error::Failed`] if the
    /// job was given up, [`Error::Stopped`] if somebody stopped it, [`Error::OutcomeGone`] if it has ended and its result
    /// had expired before this node could read it, [`Error::Lost`] if the backend has lost it, [`Error::Decode`] if the
    /// result is no `T`, [`Error::Closed`] if this node was closed meanwhile: the job goes on.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the job is either recorded and goes on, or is not there. [`result`](Self::result)
    /// tells later what came of it.
    pub async fn dispatch_and_wait<T: DeserializeOwned>(&self, job: impl Into<NewJob>) -> Result<T, Error> {
        let job = self.ready(job);
        let key = job.checked_key()?;
        let deadline = self.deadline();
        let watch = self.watch(&key, deadline, "dispatch").await?;
        let (dispatch, since) = self.record(&key, &job, deadline).await?;
        let mut follow = Follow::new(dispatch, since).since_call(self.begun_at(deadline));
        self.until_ended(&key, &mut follow, watch).await?;
        match self.result_of_ended(&key, "read a result").await? {
            Some(result) if result.dispatch == dispatch => self.outcome(&key, result),
            _ => Err(self.ended_unknown(&key, &follow)),
        }
    }

    /// What the latest job of this key that ended by itself left behind; `None` if there is nothing, or not any more.
    ///
    /// # Errors
    ///
    /// [`Error::Failed`] if the job was given up; [`Error::Decode`], [`Error::InvalidKey`], [`Error::Backend`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn result<T: DeserializeOwned>(&self, key: impl AsRef<str>) -> Result<Option<T>, Error> {
        let key = JobKey::new(key)?;
        let result = self.pool.tables.read_result(&key).await.map_err(self.pool.backend("read a result"))?;
        let result = result.filter(|result| result.is_kept(self.pool.clock.now()));
        result.map(|result| self.outcome(&key, result)).transpose()
    }

    /// What a running job said last of how far it is; `None` if it said nothing. See
    /// [`Job::progress`](crate::Job::progress).
    ///
    /// # Errors
    ///
    /// [`Error::Decode`], [`Error::InvalidKey`], [`Error::Backend`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn progress<T: DeserializeOwned>(&self, key: impl AsRef<str>) -> Result<Option<T>, Error> {
        let key = JobKey::new(key)?;
        let progress = self.pool.tables.read_progress(&key).await.map_err(self.pool.backend("read progress"))?;
        progress.map(|raw| decode(&key, &raw)).transpose()
    }

    /// The jobs that were given up, oldest first. A key stands there once, with the latest of its jobs.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn dead_jobs(&self) -> Result<Vec<DeadJob>, Error> {
        let all = self.pool.tables.all_dead().await.map_err(self.pool.backend("read dead jobs"))?;
        let dead = |(key, raw): (std::sync::Arc<str>, Bytes)| {
            let record: DeadRecord = pulse_core::message_pack::decode(&raw).ok()?;
            Some(DeadJob::new(JobKey::from_map(key), &record))
        };
        let mut dead: Vec<DeadJob> = all.into_iter().filter_map(dead).collect();
        dead.sort_by_key(|job| job.died);
        Ok(dead)
    }

    /// Dispatches a dead job anew, with the payload, the headers, the labels and the priority that it had, and returns
    /// once it is recorded. It is not among the dead any more then.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownJob`] if there is no dead job of that key; otherwise those of [`enqueue`](Self::enqueue).
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the job is either among the dead or recorded.
    pub async fn replay(&self, key: impl AsRef<str>) -> Result<(), Error> {
        let (key, deadline) = (JobKey::new(key)?, self.deadline());
        let (pool, failed) = (&self.pool, self.pool.backend("replay"));
        let unknown = || Error::UnknownJob { pool: pool.name.to_string(), key: key.clone() };
        let (mut trace, Stamp { at, dispatch }) = (None, pool.stamps.next(pool.clock.now()));
        // What an attempt took out of the dead, if it took effect.
        let mut perhaps_taken: Option<Bytes> = None;
        loop {
            let dead = pool.tables.read_dead(&key).await.map_err(&failed)?;
            if perhaps_taken.is_some() && perhaps_taken != dead {
                // Its answer was lost, and the job may have come to its end since.
                return Ok(());
            }
            let dead = dead.ok_or_else(unknown)?;
            let record: DeadRecord = decode(&key, &dead)?;
            let entry = pool.tables.read_dead_entry(&key).await.map_err(&failed)?.unwrap_or_default();
            let terms = crate::record::Terms { at, not_before: 0, failed: 0, cut_off: 0, ..record.terms };
            let owner = pool.owner(&key, terms.needs());
            let planned = self.planned(&key, entry, terms, dispatch, owner, trace.take())?;
            let change = pool.tables.replay(&planned, dead.clone(), pool.options.max_queued);
            let written = write(pool.tables.client(), &change, Some(&planned.record), Some(deadline));
            let written = written.await.map_err(&failed)?;
            if matches!(written, Written::RefusedAfterUnknown(_)) {
                perhaps_taken = Some(dead);
            }
            match written {
                Written::Done(version) => {
                    pool.own_writes.note(version);
                    return Ok(());
                }
                Written::Refused(refusal) | Written::RefusedAfterUnknown(refusal) => match refusal {
                    Refusal::Record(Some(found)) => {
                        let found_record = self.decode(&key, &found)?;
                        if found_record.dispatch == dispatch {
                            // An attempt whose answer was lost took effect, and the job has gone on since.
                            return Ok(());
                        }
                        if found_record.is_job() {
                            return Err(Error::Exists { pool: pool.name.to_string(), key });
                        }
                        trace = Some(found);
                    }
                    Refusal::QueueFull => {
                        return Err(Error::QueueFull { pool: pool.name.to_string(), limit: pool.options.max_queued });
                    }
                    Refusal::ShuttingDown(_) => return Err(pool.shutting_down()),
                    // Something has changed meanwhile: the workers, or the dead job.
                    Refusal::Record(None) | Refusal::InboxFull | Refusal::Membership
                        if tokio::time::Instant::now() < deadline =>
                    {
                        tokio::task::yield_now().await;
                    }
                    Refusal::Record(None) | Refusal::InboxFull | Refusal::Membership => {
                        return Err(pool.timed_out("replay"));
                    }
                },
            }
        }
    }

    /// Forgets a dead job. No error if there is none of that key.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidKey`], [`Error::Backend`].
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the job is forgotten or not.
    pub async fn forget_dead(&self, key: impl AsRef<str>) -> Result<(), Error> {
        let key = JobKey::new(key)?;
        let forgotten = self.pool.tables.client().commit(self.pool.tables.forget_dead(&key)).await;
        forgotten.map(|_| ()).map_err(self.pool.backend("forget a dead job"))
    }

    fn outcome<T: DeserializeOwned>(&self, key: &JobKey, result: JobResult) -> Result<T, Error> {
        match result.outcome {
            Outcome::Done(value) => decode(key, if value.is_empty() { NIL } else { &value }),
            Outcome::Failed(reason) => {
                Err(Error::Failed { pool: self.pool.name.to_string(), key: key.clone(), reason })
            }
        }
    }

    /// Of a job that is there no more and has left no result.
    pub(super) fn ended_unknown(&self, key: &JobKey, follow: &Follow) -> Error {
        let (pool, key) = (self.pool.name.to_string(), key.clone());
        if follow.was_stopped() { Error::Stopped { pool, key } } else { Error::OutcomeGone { pool, key } }
    }

    /// Waits until a job is there no more.
    async fn until_ended(&self, key: &JobKey, follow: &mut Follow, mut watch: Watch) -> Result<(), Error> {
        loop {
            let sighting = self.next_of(key, follow, &mut watch).await?;
            match (follow.judge(sighting.version, sighting.record.as_deref()), &sighting.record) {
                (Some(Fate::Rejected(message)), Some(trace)) => {
                    return Err(self.rejected(key, trace, message).await);
                }
                (Some(Fate::Stopped), record) if record.as_deref().is_none_or(|record| is_over(record, follow)) => {
                    return Ok(());
                }
                _ => {}
            }
        }
    }
}

/// Whether a record is that of another job.
fn is_over(record: &JobRecord, follow: &Follow) -> bool {
    !follow.is_of(record)
}

/// What `()` is as MessagePack.
const NIL: &[u8] = &[0xc0];

fn decode<T: DeserializeOwned>(key: &JobKey, raw: &[u8]) -> Result<T, Error> {
    pulse_core::message_pack::decode(raw).map_err(|source| Error::Decode { key: key.to_string(), source })
}
