//! Dispatching many jobs at once.

use std::{collections::HashSet, pin::pin, time::Duration};

use futures::future::{join, join_all};
use pulse_core::Version;
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout_at},
};

use super::{JobInfo, Node, dispatch::Recorded};
use crate::{
    Error, JobKey, NewJob,
    new_job::Ready,
    tables::{Dispatch, jobs_version},
    watch::Watch,
};

/// The most jobs of a batch that are recorded in one transaction, and how many such are under way.
const TOGETHER: usize = 100;
const AT_ONCE: usize = 4;

/// The most bytes of payloads of a batch that are recorded in one transaction.
const TOGETHER_BYTES: usize = 1 << 20;

/// How long the jobs of a batch are waited for in turn.
const IN_TURN: Duration = Duration::from_secs(2);

/// A job of a batch: its place there, and its key.
type Planned = (usize, JobKey);

impl Node {
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

    /// Waits for each in turn: while it waits for one, what becomes of the others is kept for it. If that takes long,
    /// for all at once, so that each can look for what became of its own.
    async fn all_run(
        &self,
        mut jobs: impl Iterator<Item = (Result<(JobKey, Recorded), Error>, Option<Watch>)> + Send,
        deadline: Instant,
    ) -> Vec<Result<JobInfo, Error>> {
        let mut outcomes = Vec::with_capacity(jobs.size_hint().0);
        // What is left of the time has to do for what follows from a refusal.
        let now = Instant::now();
        let patience = now + IN_TURN.min(deadline.saturating_duration_since(now) / 2);
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
                Ok(key) if seen.insert(key.clone()) => together.push((index, key)),
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
            self.pool.own_writes.note(version);
            let recorded = |(index, key): &Planned| (*index, Ok((key.clone(), (jobs[*index].dispatch(), version))));
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
        (index, key): &Planned,
        deadline: Instant,
    ) -> (usize, Result<(JobKey, Recorded), Error>) {
        let recorded = self.record(key, &jobs[*index], deadline).await;
        (*index, recorded.map(|recorded| (key.clone(), recorded)))
    }

    /// Tries to record jobs in one transaction. Returns the version of the jobs since when they are there; `None` if it
    /// is not certain that all are.
    async fn record_together(&self, jobs: &[Ready], chunk: &[Planned], deadline: Instant) -> Option<Option<Version>> {
        let pool = &self.pool;
        let plan = |(index, key): &Planned| {
            let job = &jobs[*index];
            let terms = job.terms();
            let owner = pool.owner(key, terms.needs());
            self.plan(key, job, terms, owner, None).ok()
        };
        let planned: Vec<Dispatch> = chunk.iter().map(plan).collect::<Option<_>>()?;
        if self.is_closed() || planned.len() < 2 {
            return None;
        }
        let change = pool.tables.dispatch(planned.iter(), pool.options.max_queued);
        let written = timeout_at(deadline, pool.tables.client().commit(change)).await;
        written.ok()?.ok().map(|committed| jobs_version(&committed))
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
