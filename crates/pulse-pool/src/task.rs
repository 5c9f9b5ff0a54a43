//! Jobs that are functions: they end by themselves, with a value or an error, and are tried again after an error.

use std::{
    collections::HashMap,
    fmt,
    future::{Future, IntoFuture, ready},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use pulse_core::MAX_LIFETIME;
use serde::Serialize;
use tokio::{task::JoinHandle, time::timeout};
use tracing::Instrument;

use crate::{
    Error, HandlerError, Job, JobHandler, JobKey, Node, RetryPolicy, WorkerId, WorkerOptions,
    contain::{Failure, contain, discard, guarded},
    handler::Ending,
    pool::SHORTEST_TIMEOUT,
    result::KEEP_FOR,
    trace,
};

/// A worker whose jobs are calls of a function; made by [`Node::worker_fn`]. Awaiting it adds the worker.
#[must_use = "a worker does nothing until it is awaited"]
pub struct FnWorker<'n, F> {
    node: &'n Node,
    function: F,
    options: WorkerOptions,
    terms: Terms,
}

/// How attempts are made.
#[derive(Debug, Clone, Copy)]
struct Terms {
    retry: RetryPolicy,
    timeout: Option<Duration>,
    keep_result: Duration,
    stop_grace: Duration,
}

impl Node {
    /// Adds a worker whose jobs are calls of a function: each job ends when the function returns.
    ///
    /// - `Ok` ends the job; the value is kept for a while ([`keep_result`](FnWorker::keep_result)) and is what
    ///   [`dispatch_and_wait`](Self::dispatch_and_wait) returns.
    /// - `Err`, a panic and a [time-out](FnWorker::timeout) are failures: the job is tried again after a pause that
    ///   grows with each failure ([`retry`](FnWorker::retry)), and after the last attempt it is a [dead
    ///   job](Self::dead_jobs). A panic counts wherever it comes from: the function, what it drops, the text of its
    ///   error.
    /// - `Err` of a [`Requeue`](crate::Requeue), also where it is the source of another error, puts the job back: it is
    ///   tried again without having failed.
    /// - When the job is stopped or moves, [`Job::stopped`] ends, and the function has a while
    ///   ([`stop_grace`](FnWorker::stop_grace)) to return; after that its future is dropped. What it returned with `Ok`
    ///   by then counts. Whatever else comes from it then is no failure, and not an attempt: a job that moves begins
    ///   again elsewhere, and one that somebody stops for good ends, also if the function wants it back.
    ///
    /// The function is called once it is written down that the job runs, so that an attempt counts whose node dies of
    /// it.
    ///
    /// A job is run **at least once**: a node that dies after the function has returned and before that is written down
    /// leaves the job to another one. [`Job::epoch`] tells stores which attempt is the later one.
    ///
    /// ```
    /// # use pulse_pool::{Node, RetryPolicy};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    ///
    /// # let client = pulse_pool::connect("memory:").await?;
    /// let node = Node::join(&client, "mails").await?;
    /// node.worker_fn(|job| async move {
    ///     println!("to {}: {:?}, attempt {}", job.key(), job.payload(), job.attempt());
    ///     Ok(())
    /// })
    /// .retry(RetryPolicy::new().attempts(5))
    /// .timeout(Duration::from_secs(30))
    /// .concurrency(16)
    /// .await?;
    /// node.enqueue("ada@example.org", "welcome").await?;
    /// # client.close().await;
    /// # Ok(()) }
    /// ```
    pub fn worker_fn<F, R, T>(&self, function: F) -> FnWorker<'_, F>
    where
        F: Fn(Job) -> R + Send + Sync + 'static,
        R: Future<Output = Result<T, HandlerError>> + Send + 'static,
        T: Serialize + Send + 'static,
    {
        let terms = Terms {
            retry: RetryPolicy::new(),
            timeout: None,
            keep_result: KEEP_FOR,
            stop_grace: Duration::from_secs(10),
        };
        FnWorker { node: self, function, options: WorkerOptions::default(), terms }
    }
}

impl<F> FnWorker<'_, F> {
    /// Sets how often and after which pauses a job is tried again. Default: ten attempts, pauses from half a second to
    /// a minute.
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.terms.retry = policy;
        self
    }

    /// Sets how long one attempt may take: at least a millisecond. Its future is then dropped, and it has failed. More
    /// than a hundred years is for ever. Default: for ever.
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.terms.timeout = (limit <= MAX_LIFETIME).then_some(limit);
        self
    }

    /// Sets how long results are kept for [`Node::result`]: a hundred years at most, as which longer times act. Default: ten
    /// minutes. Those who wait for the end of the job in [`Node::dispatch_and_wait`] get it whatever is set here; the
    /// backend holds it for ten seconds at least for them.
    pub fn keep_result(mut self, time: Duration) -> Self {
        self.terms.keep_result = time;
        self
    }

    /// Sets how long a function that is to stop may take to return. When the node is cut off from the pool it gets no
    /// time at all. At most a hundred years. Default: 10 s.
    pub fn stop_grace(mut self, time: Duration) -> Self {
        self.terms.stop_grace = time.min(MAX_LIFETIME);
        self
    }

    /// Sets how many jobs run at once; see [`WorkerOptions::with_concurrency`]. Default: all.
    pub fn concurrency(mut self, jobs: usize) -> Self {
        self.options = self.options.with_concurrency(jobs);
        self
    }

    /// Sets the worker's share of the jobs; see [`WorkerOptions::with_weight`]. Default: 1.
    pub fn weight(mut self, weight: u32) -> Self {
        self.options = self.options.with_weight(weight);
        self
    }

    /// Adds a label; see [`WorkerOptions::with_label`].
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.options = self.options.with_label(label);
        self
    }
}

impl<'n, F, R, T> IntoFuture for FnWorker<'n, F>
where
    F: Fn(Job) -> R + Send + Sync + 'static,
    R: Future<Output = Result<T, HandlerError>> + Send + 'static,
    T: Serialize + Send + 'static,
{
    type Output = Result<WorkerId, Error>;
    type IntoFuture = BoxFuture<'n, Self::Output>;

    /// As [`Node::add_worker`]; [`Error::InvalidOption`] for a [`timeout`](FnWorker::timeout) below a millisecond.
    fn into_future(self) -> Self::IntoFuture {
        let Self { node, function, options, terms } = self;
        if let Some(limit) = terms.timeout.filter(|limit| *limit < SHORTEST_TIMEOUT) {
            let reason = format!("a time-out of {limit:?} for an attempt is less than {SHORTEST_TIMEOUT:?}");
            return Box::pin(ready(Err(Error::InvalidOption { pool: node.pool().to_owned(), reason })));
        }
        let handler = Functions { function: Arc::new(function), terms, running: Arc::default() };
        Box::pin(node.add_worker_with(handler, options))
    }
}

impl<F> fmt::Debug for FnWorker<'_, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FnWorker").field("options", &self.options).field("terms", &self.terms).finish_non_exhaustive()
    }
}

/// Runs a function for each job.
struct Functions<F> {
    function: Arc<F>,
    terms: Terms,
    running: Arc<Running>,
}

/// The attempts under way.
#[derive(Debug, Default)]
struct Running(Mutex<HashMap<JobKey, JoinHandle<()>>>);

impl Running {
    fn lock(&self) -> MutexGuard<'_, HashMap<JobKey, JoinHandle<()>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How an attempt came out.
enum Came {
    /// With a value as MessagePack.
    Through(Bytes),
    Failed(String),
    /// It wants to be made again after this time.
    Requeued(Duration),
    /// It returned a value that cannot be encoded, for this reason.
    Unusable(String),
    /// It was stopped before it came to its end.
    Stopped,
}

#[async_trait]
impl<F, R, T> JobHandler for Functions<F>
where
    F: Fn(Job) -> R + Send + Sync + 'static,
    R: Future<Output = Result<T, HandlerError>> + Send + 'static,
    T: Serialize + Send + 'static,
{
    async fn start(&self, job: Job) -> Result<(), HandlerError> {
        let (function, terms, running) = (self.function.clone(), self.terms, self.running.clone());
        let (key, attempt) = (job.key().clone(), job.attempt());
        // Held until the attempt is noted, so that it cannot be through before that.
        let mut attempts = self.running.lock();
        let task = tokio::spawn(async move {
            let ending = if !terms.retry.allows(attempt) {
                // The nodes of all attempts died: it may well be what kills them.
                let reason = format!("its node died in each of {} attempts", attempt - 1);
                Some(Ending::Dead { reason, keep_for: terms.keep_result })
            } else if job.is_recorded().await {
                attempt_of(&job, &*function, terms).instrument(trace::attempt(&job)).await
            } else {
                None
            };
            // At once, so that whoever stops the job and finds no attempt can know what came of it.
            let mut attempts = running.lock();
            attempts.remove(job.key());
            if let Some(ending) = ending {
                job.end(ending);
            }
        });
        attempts.insert(key, task);
        Ok(())
    }

    async fn stop(&self, key: &JobKey) -> Result<(), HandlerError> {
        let task = self.running.lock().remove(key);
        let Some(mut task) = task else { return Ok(()) };
        // The attempt sees by itself that it is to stop, and for how long it may go on.
        let slack = Duration::from_secs(1);
        if timeout(self.terms.stop_grace.saturating_add(slack), &mut task).await.is_err() {
            task.abort();
            let _ = task.await;
        }
        Ok(())
    }
}

/// Makes an attempt. Returns what follows from it; nothing if the job is somebody else's business now.
async fn attempt_of<F, R, T>(job: &Job, function: &F, terms: Terms) -> Option<Ending>
where
    F: Fn(Job) -> R + Sync,
    R: Future<Output = Result<T, HandlerError>> + Send,
    T: Serialize + Send,
{
    ending(job, call(job, function, terms).await, terms)
}

/// Calls the function, for as long as it may run.
async fn call<F, R, T>(job: &Job, function: &F, terms: Terms) -> Came
where
    F: Fn(Job) -> R + Sync,
    R: Future<Output = Result<T, HandlerError>> + Send,
    T: Serialize + Send,
{
    // Encoded within the call, so that what is the user's stays there.
    let mut call = Box::pin(contain(async {
        let value = function(job.clone()).await?;
        let encoded = guarded(|| job.encode(&value).map_err(|error| error.to_string())).unwrap_or_else(Err);
        discard(value);
        Ok(encoded)
    }));
    let limit = async {
        match terms.timeout {
            Some(limit) => tokio::time::sleep(limit).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        returned = &mut call => came(job, returned),
        () = job.stopped() => tokio::select! {
            biased;
            // Without the lease somebody else may have the job at any moment.
            () = job.lost() => Came::Stopped,
            returned = timeout(terms.stop_grace, call) => returned.map_or(Came::Stopped, |returned| came(job, returned)),
        },
        () = limit => Came::Failed(format!("the job took longer than {:?}", terms.timeout.unwrap_or_default())),
    }
}

/// What a function returned comes to.
fn came(job: &Job, returned: Result<Result<Bytes, String>, Failure>) -> Came {
    match returned {
        Ok(Ok(value)) => Came::Through(value),
        Ok(Err(reason)) => Came::Unusable(reason),
        // It may have come to its end for no other reason than that it was told to.
        Err(_) if job.cancelled().is_cancelled() => Came::Stopped,
        Err(Failure { requeue: Some(after), .. }) => Came::Requeued(after),
        Err(failure) => Came::Failed(failure.message),
    }
}

/// What follows from how an attempt came out; nothing if the job is somebody else's business now.
fn ending(job: &Job, came: Came, terms: Terms) -> Option<Ending> {
    let keep_for = terms.keep_result;
    let failure = match came {
        Came::Through(value) => return Some(Ending::Done { value, keep_for }),
        // No other attempt would do better.
        Came::Unusable(reason) => return Some(Ending::Dead { reason: format!("its result: {reason}"), keep_for }),
        Came::Requeued(after) => return Some(Ending::Again { after, failure: None }),
        Came::Failed(failure) => failure,
        Came::Stopped => return None,
    };
    tracing::debug!(failure, "an attempt failed");
    Some(match terms.retry.after(job.attempt(), pulse_core::entropy::fraction()) {
        Some(after) => Ending::Again { after, failure: Some(failure) },
        None => Ending::Dead { reason: failure, keep_for },
    })
}
