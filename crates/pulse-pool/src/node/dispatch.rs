//! Dispatching jobs.

use std::{sync::atomic::Ordering, time::Duration};

use bytes::Bytes;
use pulse_core::Version;
use pulse_rmap::Packed;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::{JobInfo, Node};
use crate::{
    Error, JobKey, NewJob, WorkerId,
    id::DispatchId,
    new_job::Ready,
    record::{JobRecord, PlacedBy, Terms},
    result::JobResult,
    tables::{Dispatch, Entry, KnownWorker, Refusal},
    watch::{Fate, Follow, Seen, Sighting, Watch},
    write::{BackOff, Written, write},
    writing::Wrote,
};

/// Jobs whose keys and payloads are larger than this gain nothing from company.
const LARGE: usize = 8 << 10;

/// How to recognise a job, and the version of the jobs since when it is there, if known.
pub(super) type Recorded = (DispatchId, Option<Version>);

impl Node {
    /// Dispatches a job, and returns once it runs, on whichever node.
    ///
    /// With no worker in the pool the job waits for one, recorded, and so does this call until it times out.
    ///
    /// Where the job has ended before this node saw anything of it, the answer tells of it what is known here, which is
    /// not its priority and the labels that it requires.
    ///
    /// # Errors
    ///
    /// Nothing is left of the job: [`Error::Exists`], [`Error::QueueFull`], [`Error::InvalidKey`],
    /// [`Error::ShuttingDown`]; [`Error::Rejected`] with the handler's message; [`Error::Stopped`] if somebody stopped
    /// it before it ran; [`Error::OutcomeGone`] if it has ended before this node saw anything of it, and its result has
    /// expired; [`Error::Lost`] if the backend has lost it.
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
        self.dispatch_job(NewJob::new(key, payload)).await
    }

    /// Dispatches a job on terms of its own, and returns once it runs; see [`dispatch`](Self::dispatch).
    ///
    /// # Errors
    ///
    /// Those of [`dispatch`](Self::dispatch).
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the job is either recorded and will run, or is not there.
    pub async fn dispatch_job(&self, job: impl Into<NewJob>) -> Result<JobInfo, Error> {
        let (job, deadline) = (self.ready(job), self.deadline());
        let key = job.checked_key()?;
        let watch = self.watch(&key, deadline, "dispatch").await?;
        let recorded = self.record(&key, &job, deadline).await?;
        self.runs(&key, recorded, watch, deadline).await
    }

    pub(super) async fn runs(
        &self,
        key: &JobKey,
        (dispatch, since): Recorded,
        watch: Watch,
        deadline: Instant,
    ) -> Result<JobInfo, Error> {
        let key = key.clone();
        let follow = Follow::new(dispatch, since).since_call(self.begun_at(deadline));
        let runs = timeout_at(deadline, self.until_running(&key, follow, watch)).await;
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
        self.enqueue_job(NewJob::new(key, payload)).await
    }

    /// Dispatches a job on terms of its own, and returns once it is recorded for good; see [`enqueue`](Self::enqueue).
    ///
    /// # Errors
    ///
    /// Those of [`enqueue`](Self::enqueue).
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the job is either recorded and will run, or is not there.
    pub async fn enqueue_job(&self, job: impl Into<NewJob>) -> Result<(), Error> {
        let job = self.ready(job);
        self.record(&job.checked_key()?, &job, self.deadline()).await.map(|_| ())
    }

    /// A job that is dispatched now, within the current span.
    pub(super) fn ready(&self, job: impl Into<NewJob>) -> Ready {
        let stamp = self.pool.stamps.next(self.pool.clock.now());
        job.into().ready(self.pool.tables.client().backend().limits().value_bytes, stamp)
    }

    /// A job of a caller's as it is to be recorded. Its payload is kept if one of our workers is to start it now.
    pub(super) fn plan(
        &self,
        key: &JobKey,
        job: &Ready,
        terms: Terms,
        owner: Option<(KnownWorker, Option<PlacedBy>)>,
        trace: Option<Bytes>,
    ) -> Result<Dispatch, Error> {
        let dispatch = job.dispatch();
        if terms.not_before <= terms.at && owner.as_ref().is_some_and(|((worker, _), _)| self.is_ours(*worker)) {
            self.pool.fresh.keep(dispatch, &job.entry);
        }
        self.planned(key, job.entry.clone(), terms, dispatch, owner, trace)
    }

    fn is_ours(&self, worker: WorkerId) -> bool {
        self.pool.members.borrow().get(worker).is_some_and(|worker| worker.node == self.pool.node)
    }

    /// A job as it is to be recorded.
    pub(super) fn planned(
        &self,
        key: &JobKey,
        entry: Bytes,
        terms: Terms,
        dispatch: DispatchId,
        owner: Option<(KnownWorker, Option<PlacedBy>)>,
        trace: Option<Bytes>,
    ) -> Result<Dispatch, Error> {
        let (worker, placed_by) = owner.map_or((None, None), |(worker, placed_by)| (Some(worker), placed_by));
        let record = JobRecord::dispatched(dispatch, terms, worker.as_ref().map(|(worker, _)| *worker), placed_by);
        Ok(Dispatch { key: key.clone(), trace, record: self.pool.encode(&record)?, entry, owner: worker })
    }

    /// Records a job. Returns how to recognise it, and the version of the jobs since when it is there, if known.
    pub(super) async fn record(&self, key: &JobKey, job: &Ready, deadline: Instant) -> Result<Recorded, Error> {
        let recorded = self.try_to_record(key, job, deadline).await;
        match &recorded {
            Ok((_, version)) => self.pool.own_writes.note(*version),
            Err(_) => _ = self.pool.fresh.take(job.dispatch()),
        }
        recorded
    }

    async fn try_to_record(&self, key: &JobKey, job: &Ready, deadline: Instant) -> Result<Recorded, Error> {
        let (pool, dispatch, terms) = (&self.pool, job.dispatch(), job.terms());
        let mut owner = pool.owner(key, terms.needs());
        let mut trace = None;
        // What would be refused gets in the way of those that it goes with.
        let is_welcome = || {
            let is_full = pool.is_full.load(Ordering::Relaxed);
            !is_full && !pool.tables.jobs.snapshot().contains_key(key.as_str())
        };
        if key.as_str().len() + job.entry.len() <= LARGE && !self.is_closed() && is_welcome() {
            let planned = self.plan(key, job, terms.clone(), owner.clone(), None)?;
            let wrote = timeout_at(deadline, pool.writing.ask(Entry::Dispatched(planned))).await;
            match wrote.map_err(|_| pool.timed_out("dispatch"))? {
                Some(Wrote::Yes(version)) => return Ok((dispatch, version)),
                // If it is recorded, it is recognised.
                Some(Wrote::No | Wrote::Perhaps) | None => {}
            }
        }
        loop {
            if self.is_closed() {
                return Err(pool.closed());
            }
            let planned = self.plan(key, job, terms.clone(), owner.clone(), trace.clone())?;
            let change = pool.tables.dispatch(std::iter::once(&planned), pool.options.max_queued);
            let written =
                timeout_at(deadline, write(pool.tables.client(), &change, Some(&planned.record), Some(deadline)));
            let written = written.await.map_err(|_| pool.timed_out("dispatch"))?;
            match written.map_err(pool.backend("dispatch"))? {
                Written::Done(version) => {
                    pool.is_full.store(false, Ordering::Relaxed);
                    return Ok((dispatch, version));
                }
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
                        pool.is_full.store(true, Ordering::Relaxed);
                        return Err(Error::QueueFull { pool: pool.name.to_string(), limit: pool.options.max_queued });
                    }
                    Refusal::ShuttingDown(_) => return Err(pool.shutting_down()),
                    // Our view of the workers is stale. Let the one that the job belongs to take it by itself.
                    Refusal::InboxFull | Refusal::Membership => owner = None,
                },
            }
        }
    }

    async fn until_running(&self, key: &JobKey, mut follow: Follow, mut watch: Watch) -> Result<JobInfo, Error> {
        let pool = || self.pool.name.to_string();
        let at = self.pool.clock.now();
        let mut last_seen: Option<Seen> = None;
        loop {
            let sighting = self.next_of(key, &mut follow, &mut watch).await?;
            match (follow.judge(sighting.version, sighting.record.as_deref()), &sighting.record) {
                (Some(Fate::Running), Some(record)) => {
                    if let Some(info) = self.info(key.clone(), record) {
                        return Ok(info);
                    }
                }
                (Some(Fate::Rejected(message)), Some(trace)) => {
                    return Err(self.rejected(key, trace, message).await);
                }
                (Some(_), record) => {
                    let is_gone = record.as_ref().is_none_or(|record| !follow.is_of(record));
                    if is_gone && self.has_left_result(key, &follow).await? {
                        let info = |record: &JobRecord| self.info_of_ended(key.clone(), record);
                        return Ok(last_seen.map_or_else(|| info(&follow.record_from(at)), |seen| info(&seen)));
                    }
                    return Err(if is_gone {
                        self.ended_unknown(key, &follow)
                    } else {
                        Error::Stopped { pool: pool(), key: key.clone() }
                    });
                }
                (None, _) => {}
            }
            last_seen = sighting.record.filter(|record| follow.is_of(record)).or(last_seen);
        }
    }

    /// Whether a job that is there no more has ended by itself. Where changes were missed, or came too fast, a short one
    /// is gone before anybody here saw it run.
    async fn has_left_result(&self, key: &JobKey, follow: &Follow) -> Result<bool, Error> {
        let result = self.result_of_ended(key, "dispatch").await?;
        Ok(result.is_some_and(|result| follow.is_dispatch(result.dispatch)))
    }

    /// What a job has left that is there no more. Reads until the backend answers: to say that this failed would be to
    /// say that nothing has happened.
    pub(super) async fn result_of_ended(
        &self,
        key: &JobKey,
        operation: &'static str,
    ) -> Result<Option<JobResult>, Error> {
        let mut back_off = BackOff::new(Duration::from_millis(20), Duration::from_secs(2));
        loop {
            match self.pool.tables.read_result(key).await {
                Err(_) if self.is_closed() => return Err(self.pool.closed()),
                Err(error) if error.is_retryable() => back_off.pause().await,
                result => return result.map_err(self.pool.backend(operation)),
            }
        }
    }

    /// The next that is seen of a job. Where nothing is seen for long, the backend is asked whether it still knows of
    /// the dispatch that it has confirmed.
    pub(super) async fn next_of(
        &self,
        key: &JobKey,
        follow: &mut Follow,
        watch: &mut Watch,
    ) -> Result<Sighting, Error> {
        loop {
            tokio::select! {
                biased;
                sighting = watch.next() => return sighting.ok_or_else(|| self.pool.closed()),
                () = sleep_until(follow.ask_at()), if follow.is_in_the_dark() => follow.asks(),
            }
            let (tables, pool) = (&self.pool.tables, &self.pool.name);
            // The version first: what is read after it is of that version or a later one. If it fails, it is asked
            // again.
            let Ok(version) = tables.jobs_version().await else { continue };
            match follow.since() {
                Some(since) if !version.is_some_and(|version| version.includes(&since)) => {
                    return Err(Error::Lost { pool: pool.to_string(), key: key.clone() });
                }
                Some(_) => {}
                // A job that is recorded makes the map.
                None if version.is_none() => {
                    return Err(Error::Lost { pool: pool.to_string(), key: key.clone() });
                }
                None => {
                    let Ok(record) = tables.read_record(key).await else { continue };
                    follow.set_since(version);
                    return Ok(Sighting { version, record: record.and_then(Seen::read) });
                }
            }
        }
    }

    /// Watches a key, once the changes arrive.
    pub(super) async fn watch(&self, key: &JobKey, deadline: Instant, operation: &'static str) -> Result<Watch, Error> {
        let watch = self.pool.watches.watch(key);
        let followed = timeout_at(deadline, self.pool.watches.followed()).await;
        followed.map_err(|_| self.pool.timed_out(operation)).map(|()| watch)
    }

    /// Removes the trace of a refused job, which has reached whom it was for.
    pub(super) async fn rejected(&self, key: &JobKey, trace: &Seen, message: String) -> Error {
        let change = self.pool.tables.remove_trace(key, &trace.raw());
        if let Err(error) = self.pool.tables.client().commit(change).await {
            tracing::debug!(pool = %self.pool.name, %key, %error, "the trace of a refused job expires by itself");
        }
        Error::Rejected { pool: self.pool.name.to_string(), key: key.clone(), message }
    }

    /// A record as it came from the backend.
    pub(super) fn decode(&self, key: &JobKey, raw: &[u8]) -> Result<JobRecord, Error> {
        JobRecord::unpack(raw).map_err(|error| {
            let key = format!("{key} in {}", self.pool.tables.jobs.id());
            self.pool.backend("read a job")(pulse_core::Error::Corrupt { key, reason: error.to_string() })
        })
    }
}
