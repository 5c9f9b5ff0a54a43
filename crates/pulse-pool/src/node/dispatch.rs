//! Dispatching jobs.

use std::{collections::HashSet, pin::pin, time::Duration};

use bytes::Bytes;
use futures::future::{join, join_all};
use pulse_core::Version;
use pulse_rmap::Packed;
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep_until, timeout_at},
};

use super::{JobInfo, Node};
use crate::{
    Error, JobKey, NewJob,
    group::Turn,
    id::DispatchId,
    new_job::Ready,
    record::{JobRecord, PlacedBy, Terms},
    tables::{Dispatch, KnownWorker, Refusal, jobs_version},
    watch::{Fate, Follow, Seen, Sighting, Watch},
    write::{Written, write},
};

/// The most jobs of a batch that are recorded in one transaction, and how many such are under way.
const TOGETHER: usize = 100;
const AT_ONCE: usize = 4;

/// Payloads larger than this gain nothing from company.
const LARGE: usize = 8 << 10;

/// How long the jobs of a batch are waited for in turn.
const IN_TURN: Duration = Duration::from_secs(2);

/// The most bytes of payloads of a batch that are recorded in one transaction.
const TOGETHER_BYTES: usize = 1 << 20;

/// How to recognise a job, and the version of the jobs since when it is there, if known.
type Recorded = (DispatchId, Option<Version>);

/// A job of a batch: its place there, its key, and how to recognise it.
type Planned = (usize, JobKey, DispatchId);

impl Node {
    /// Dispatches a job, and returns once it runs, on whichever node.
    ///
    /// With no worker in the pool the job waits for one, recorded, and so does this call until it times out.
    ///
    /// # Errors
    ///
    /// Nothing is left of the job: [`Error::Exists`], [`Error::QueueFull`], [`Error::InvalidKey`],
    /// [`Error::ShuttingDown`]; [`Error::Rejected`] with the handler's message; [`Error::Stopped`] if somebody stopped
    /// it before it ran; [`Error::Lost`] if the backend has lost it.
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
        let recorded = self.record(&key, &job, DispatchId::random(), deadline).await?;
        self.runs(&key, recorded, watch, deadline).await
    }

    /// Dispatches many jobs, and returns once each of them runs or has failed, with what became of each, in their
    /// order.
    ///
    /// They are recorded in a few transactions, by hundreds; each is dispatched or refused for itself.
    ///
    /// # Errors
    ///
    /// Each job has its own: those of [`dispatch`](Self::dispatch).
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, each job is either recorded and will run, or is not there.
    ///
    /// ```
    /// # use pulse_pool::{HandlerError, Job, JobHandler, JobKey, Node};
    /// # struct Beeper;
    /// # #[pulse_pool::async_trait]
    /// # impl JobHandler for Beeper {
    /// #     async fn start(&self, _: Job) -> Result<(), HandlerError> { Ok(()) }
    /// #     async fn stop(&self, _: &JobKey) -> Result<(), HandlerError> { Ok(()) }
    /// # }
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let client = pulse_pool::connect("memory:").await?;
    /// # let node = Node::join(&client, "beepers").await?;
    /// # node.add_worker(Beeper).await?;
    /// let outcomes = node.dispatch_batch((0..1000).map(|room| (format!("room {room}"), "beep"))).await;
    /// assert!(outcomes.iter().all(Result::is_ok));
    /// # client.close().await;
    /// # Ok(()) }
    /// ```
    pub async fn dispatch_batch<J: Into<NewJob>>(
        &self,
        jobs: impl IntoIterator<Item = J>,
    ) -> Vec<Result<JobInfo, Error>> {
        let deadline = self.deadline();
        let jobs: Vec<Ready> = jobs.into_iter().map(|job| self.ready(job)).collect();
        let watches: Vec<Option<Watch>> =
            jobs.iter().map(|job| Some(self.pool.watches.watch(&job.checked_key().ok()?))).collect();
        // If it takes too long, nothing is recorded in time either.
        let _ = timeout_at(deadline, self.pool.watches.followed()).await;
        let recorded = self.record_all(jobs, deadline).await;
        self.all_run(recorded.into_iter().zip(watches), deadline).await
    }

    /// Waits for each in turn: while it waits for one, what becomes of the others is kept for it. If that takes long, for
    /// all at once, so that each can look for what became of its own.
    async fn all_run(
        &self,
        mut jobs: impl Iterator<Item = (Result<(JobKey, Recorded), Error>, Option<Watch>)> + Send,
        deadline: Instant,
    ) -> Vec<Result<JobInfo, Error>> {
        let mut outcomes = Vec::with_capacity(jobs.size_hint().0);
        let patience = Instant::now() + IN_TURN;
        while let Some((recorded, watch)) = jobs.next() {
            let mut run = pin!(self.recorded_runs(recorded, watch, deadline));
            if let Ok(outcome) = timeout_at(patience, &mut run).await {
                outcomes.push(outcome);
                continue;
            }
            // Futures of closures could not be spawned: the compiler does not see that they are Send.
            let mut others = Vec::new();
            for (recorded, watch) in jobs.by_ref() {
                others.push(self.recorded_runs(recorded, watch, deadline));
            }
            let (outcome, others) = join(run, join_all(others)).await;
            outcomes.push(outcome);
            outcomes.extend(others);
        }
        outcomes
    }

    async fn recorded_runs(
        &self,
        recorded: Result<(JobKey, Recorded), Error>,
        watch: Option<Watch>,
        deadline: Instant,
    ) -> Result<JobInfo, Error> {
        let (key, recorded) = recorded?;
        let watch = watch.unwrap_or_else(|| self.pool.watches.watch(&key));
        self.runs(&key, recorded, watch, deadline).await
    }

    async fn runs(
        &self,
        key: &JobKey,
        (dispatch, since): Recorded,
        watch: Watch,
        deadline: Instant,
    ) -> Result<JobInfo, Error> {
        let key = key.clone();
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
        self.record(&job.checked_key()?, &job, DispatchId::random(), self.deadline()).await.map(|_| ())
    }

    /// Dispatches many jobs, and returns once each is recorded for good or refused, with what became of each, in their
    /// order.
    ///
    /// They are recorded in a few transactions, by hundreds; each is recorded or refused for itself.
    ///
    /// # Errors
    ///
    /// Each job has its own: those of [`enqueue`](Self::enqueue).
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, each job is either recorded and will run, or is not there.
    pub async fn enqueue_batch<J: Into<NewJob>>(&self, jobs: impl IntoIterator<Item = J>) -> Vec<Result<(), Error>> {
        let jobs = jobs.into_iter().map(|job| self.ready(job)).collect();
        self.record_all(jobs, self.deadline()).await.into_iter().map(|recorded| recorded.map(|_| ())).collect()
    }

    /// A job that is dispatched now, within the current span.
    pub(super) fn ready(&self, job: impl Into<NewJob>) -> Ready {
        job.into().ready(self.pool.tables.client().backend().limits().value_bytes)
    }

    /// Records jobs, many in one transaction; those that cannot be recorded together, one by one.
    async fn record_all(&self, jobs: Vec<Ready>, deadline: Instant) -> Vec<Result<(JobKey, Recorded), Error>> {
        let mut recorded: Vec<Option<Result<(JobKey, Recorded), Error>>> = Vec::new();
        recorded.resize_with(jobs.len(), || None);
        let mut seen = HashSet::new();
        // Those that go together: each key once.
        let mut together = Vec::new();
        for (index, job) in jobs.iter().enumerate() {
            match job.checked_key() {
                Err(error) => recorded[index] = Some(Err(error)),
                Ok(key) if seen.insert(key.clone()) => together.push((index, key, DispatchId::random())),
                Ok(_) => {}
            }
        }
        let few = Semaphore::new(AT_ONCE);
        let mut at_once = Vec::new();
        for chunk in chunks(&together, &jobs) {
            at_once.push(self.record_chunk(&jobs, chunk, deadline, &few));
        }
        for (index, outcome) in join_all(at_once).await.into_iter().flatten() {
            recorded[index] = Some(outcome);
        }
        // What is left has the key of one before it.
        let exists = |job: &Ready| match job.checked_key() {
            Ok(key) => Error::Exists { pool: self.pool.name.to_string(), key },
            Err(error) => error,
        };
        recorded.into_iter().zip(&jobs).map(|(outcome, job)| outcome.unwrap_or_else(|| Err(exists(job)))).collect()
    }

    /// Records jobs together if that can be, or else one by one. Returns each with its place.
    async fn record_chunk(
        &self,
        jobs: &[Ready],
        chunk: &[Planned],
        deadline: Instant,
        few: &Semaphore,
    ) -> Vec<(usize, Result<(JobKey, Recorded), Error>)> {
        let together = {
            let _one_of_few = few.acquire().await;
            self.record_together(jobs, chunk, deadline).await
        };
        if let Some(version) = together {
            let recorded = |(index, key, dispatch): &Planned| (*index, Ok((key.clone(), (*dispatch, version))));
            return chunk.iter().map(recorded).collect();
        }
        let mut one_by_one = Vec::with_capacity(chunk.len());
        for planned in chunk {
            one_by_one.push(self.record_planned(jobs, planned, deadline));
        }
        join_all(one_by_one).await
    }

    async fn record_planned(
        &self,
        jobs: &[Ready],
        (index, key, dispatch): &Planned,
        deadline: Instant,
    ) -> (usize, Result<(JobKey, Recorded), Error>) {
        let recorded = self.record(key, &jobs[*index], *dispatch, deadline).await;
        (*index, recorded.map(|recorded| (key.clone(), recorded)))
    }

    /// Tries to record jobs in one transaction. Returns the version of the jobs since when they are there; `None` if it
    /// is not certain that all are.
    async fn record_together(&self, jobs: &[Ready], chunk: &[Planned], deadline: Instant) -> Option<Option<Version>> {
        let pool = &self.pool;
        let plan = |(index, key, dispatch): &Planned| {
            let job = &jobs[*index];
            let terms = job.terms(&pool.clock);
            self.plan(key, job, *dispatch, pool.owner(key, terms.needs()), None).ok().map(|(planned, _)| planned)
        };
        let planned: Vec<Dispatch> = chunk.iter().map(plan).collect::<Option<_>>()?;
        if self.is_closed() || planned.len() < 2 {
            return None;
        }
        let change = pool.tables.dispatch(planned.iter(), pool.options.max_queued);
        let written = timeout_at(deadline, pool.tables.client().commit(change)).await;
        written.ok()?.ok().map(|committed| jobs_version(&committed))
    }

    fn plan(
        &self,
        key: &JobKey,
        job: &Ready,
        dispatch: DispatchId,
        owner: Option<(KnownWorker, Option<PlacedBy>)>,
        trace: Option<Bytes>,
    ) -> Result<(Dispatch, Bytes), Error> {
        self.planned(key, job.entry.clone(), job.terms(&self.pool.clock), dispatch, owner, trace)
    }

    /// A job as it is to be recorded, and its record.
    pub(super) fn planned(
        &self,
        key: &JobKey,
        entry: Bytes,
        terms: Terms,
        dispatch: DispatchId,
        owner: Option<(KnownWorker, Option<PlacedBy>)>,
        trace: Option<Bytes>,
    ) -> Result<(Dispatch, Bytes), Error> {
        let (worker, placed_by) = owner.map_or((None, None), |(worker, placed_by)| (Some(worker), placed_by));
        let record = JobRecord::dispatched(dispatch, terms, worker.as_ref().map(|(worker, _)| *worker), placed_by);
        let members = self.pool.members.borrow();
        if record.not_before() <= record.at()
            && record.owner().and_then(|owner| members.get(owner)).is_some_and(|owner| owner.node == self.pool.node)
        {
            self.pool.fresh.keep(dispatch, &entry);
        }
        drop(members);
        let record = self.pool.encode(&record)?;
        Ok((Dispatch { key: key.clone(), trace, record: record.clone(), entry, owner: worker }, record))
    }

    /// Records a job. Returns how to recognise it, and the version of the jobs since when it is there, if known.
    pub(super) async fn record(
        &self,
        key: &JobKey,
        job: &Ready,
        dispatch: DispatchId,
        deadline: Instant,
    ) -> Result<Recorded, Error> {
        let pool = &self.pool;
        let mut owner = pool.owner(key, job.terms(&pool.clock).needs());
        let mut trace = None;
        let mut _flight = None;
        if job.entry.len() <= LARGE && !self.is_closed() {
            let (planned, _) = self.plan(key, job, dispatch, owner.clone(), None)?;
            let turn = timeout_at(deadline, pool.recording.turn(planned));
            match turn.await.map_err(|_| pool.timed_out("dispatch"))? {
                Turn::Together(Some(version)) => return Ok((dispatch, version)),
                // It may be recorded; if so, it is recognised.
                Turn::Together(None) => {}
                Turn::Alone(_, flight) => _flight = Some(flight),
                Turn::Nobody => return Err(pool.closed()),
            }
        }
        loop {
            if self.is_closed() {
                return Err(pool.closed());
            }
            let (planned, record) = self.plan(key, job, dispatch, owner.clone(), trace.clone())?;
            let change = pool.tables.dispatch(std::iter::once(&planned), pool.options.max_queued);
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
                    Refusal::ShuttingDown(_) => return Err(pool.shutting_down()),
                    // Our view of the workers is stale. Let the one that the job belongs to take it by itself.
                    Refusal::Membership => owner = None,
                },
            }
        }
    }

    async fn until_running(&self, key: &JobKey, mut follow: Follow, mut watch: Watch) -> Result<JobInfo, Error> {
        let pool = || self.pool.name.to_string();
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
                (Some(_), _) => return Err(Error::Stopped { pool: pool(), key: key.clone() }),
                (None, _) => {}
            }
        }
    }

    /// The next that is seen of a job. Where nothing is seen for long, the backend is asked whether it still knows of the
    /// dispatch that it has confirmed.
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
            // The version first: what is read after it is of that version or a later one. If it fails, it is asked again.
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

/// Cuts a batch into what is recorded together.
fn chunks<'a>(mut planned: &'a [Planned], jobs: &[Ready]) -> Vec<&'a [Planned]> {
    let mut chunks = Vec::new();
    while !planned.is_empty() {
        let mut bytes = 0;
        let fits = |(index, ..): &&Planned| {
            bytes += jobs[*index].entry.len();
            bytes <= TOGETHER_BYTES
        };
        let count = planned.iter().take(TOGETHER).take_while(fits).count().max(1);
        let (chunk, rest) = planned.split_at(count);
        chunks.push(chunk);
        planned = rest;
    }
    chunks
}
