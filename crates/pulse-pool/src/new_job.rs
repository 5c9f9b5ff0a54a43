//! What is said of a job when it is dispatched.

use std::{
    ops::Deref,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use serde::Serialize;

use crate::{Error, JobKey, headers::Headers, id::DispatchId, order::Stamp, record::Terms, trace};

/// A job to be dispatched: its key, its payload, and on which terms it is to run.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # use pulse_pool::Node;
/// use std::time::Duration;
/// use pulse_pool::NewJob;
///
/// # let client = pulse_pool::connect("memory:").await?;
/// # let node = Node::join(&client, "films").await?;
/// let job = NewJob::new("render-7", "film 7").requires("gpu").priority(5).run_in(Duration::from_secs(60));
/// node.enqueue_job(job).await?; // waits for a worker that has a GPU, and for a minute
/// # client.close().await;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a job does nothing until it is dispatched"]
pub struct NewJob {
    pub(crate) key: Arc<str>,
    payload: Bytes,
    headers: Headers,
    needs: Vec<String>,
    priority: i32,
    when: When,
    /// The schedule that starts it.
    schedule: Option<Arc<str>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    Now,
    In(Duration),
    At(SystemTime),
}

impl NewJob {
    /// A job that runs at once, on any worker. The key is checked when it is dispatched.
    pub fn new(key: impl AsRef<str>, payload: impl Into<Bytes>) -> Self {
        let (key, payload) = (key.as_ref().into(), payload.into());
        let (headers, needs) = (Headers::default(), Vec::new());
        Self { key, payload, headers, needs, priority: 0, when: When::Now, schedule: None }
    }

    /// A job whose payload is a value, as MessagePack with the names of fields. [`Job::decode`](crate::Job::decode)
    /// gives it back.
    ///
    /// # Errors
    ///
    /// [`Error::Encode`].
    pub fn with_value<T: Serialize + ?Sized>(key: impl AsRef<str>, value: &T) -> Result<Self, Error> {
        let key = key.as_ref();
        let payload = pulse_core::message_pack::encode(value);
        let payload = payload.map_err(|source| Error::Encode { key: key.to_owned(), source })?;
        Ok(Self::new(key, payload))
    }

    /// Adds a header, or replaces the one of that name: something about the job that is not its payload, such as who
    /// wants it. It goes wherever the job goes, also to the dead and back; [`Job::header`](crate::Job::header) reads
    /// it. Costs nothing where there is none.
    ///
    /// With the feature `opentelemetry`, `traceparent` and `tracestate` are set to the context of the span that
    /// dispatches the job, unless it has a `traceparent` already or would become too large.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.set(name.into(), value.into());
        self
    }

    /// Only a worker that has this label may run it; see
    /// [`WorkerOptions::with_label`](crate::WorkerOptions::with_label). May be said several times: it must have all.
    /// While no worker has, the job waits.
    pub fn requires(mut self, label: impl Into<String>) -> Self {
        self.needs.push(label.into());
        self
    }

    /// Sets which jobs start first where a worker has [not enough room](crate::WorkerOptions::with_concurrency) for
    /// all: those of a greater priority, and among equals those that were dispatched first. Default 0.
    pub fn priority(mut self, priority: i32) -> Self {
        self.priority = priority;
        self
    }

    /// Starts it that long after its dispatch, at the earliest. Dispatch such a job with
    /// [`Node::enqueue_job`](crate::Node::enqueue_job), which does not wait for it.
    pub fn run_in(mut self, delay: Duration) -> Self {
        self.when = When::In(delay);
        self
    }

    /// Starts it at this time of the server's clock, at the earliest. At a resolution of one millisecond.
    pub fn run_at(mut self, time: SystemTime) -> Self {
        self.when = When::At(time);
        self
    }

    /// Of a plan of that schedule.
    pub(crate) fn of_schedule(self, schedule: &Arc<str>) -> Self {
        Self { schedule: Some(schedule.clone()), ..self }
    }

    /// Within the span that dispatches it. `most`: how long an entry may be.
    pub(crate) fn ready(mut self, most: usize, stamp: Stamp) -> Ready {
        let room = most.saturating_sub(self.headers.entry_size(&self.payload));
        self.headers = trace::carrying(self.headers, room);
        Ready { entry: self.headers.seal(&self.payload), job: self, stamp }
    }

    pub(crate) fn checked_key(&self) -> Result<JobKey, Error> {
        JobKey::checked(self.key.clone())
    }

    /// What stands in its record of a job that is dispatched now.
    fn terms(&self, now: u64) -> Terms {
        let not_before = match self.when {
            When::Now => 0,
            When::In(delay) => now.saturating_add(millis(delay)),
            When::At(time) => time.duration_since(UNIX_EPOCH).map_or(0, millis),
        };
        let mut needs = self.needs.clone();
        needs.sort_unstable();
        needs.dedup();
        let needs = (!needs.is_empty()).then(|| needs.into());
        let schedule = self.schedule.as_deref().map(Into::into);
        Terms { at: now, not_before, priority: self.priority, failed: 0, cut_off: 0, needs, schedule }
    }
}

/// A job that is about to be recorded: what stands beside its record is put together once, however often it is sent.
#[derive(Debug)]
pub(crate) struct Ready {
    job: NewJob,
    /// Its payload, with its headers.
    pub(crate) entry: Bytes,
    /// Where it stands among those that are dispatched, however long it takes to record it.
    stamp: Stamp,
}

impl Ready {
    /// What it is recognised by once it is recorded.
    pub(crate) fn dispatch(&self) -> DispatchId {
        self.stamp.dispatch
    }

    /// What stands of it in its record.
    pub(crate) fn terms(&self) -> Terms {
        self.job.terms(self.stamp.at)
    }
}

impl Deref for Ready {
    type Target = NewJob;

    fn deref(&self) -> &NewJob {
        &self.job
    }
}

impl<K: AsRef<str>, P: Into<Bytes>> From<(K, P)> for NewJob {
    fn from((key, payload): (K, P)) -> Self {
        Self::new(key, payload)
    }
}

/// Whole milliseconds, rounded up, so that nothing happens too early.
pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}
