//! Schedules: a plan of jobs, made once per interval in the whole pool.

use std::{collections::HashSet, fmt, sync::Arc, time::Duration};

use futures::future::join_all;
use tokio::{sync::Semaphore, task::JoinHandle};

use crate::{Cadence, Error, HandlerError, JobKey, NewJob, Node, Tick, Ticker, contain::contain, write::BackOff};

/// How many jobs of a plan are stopped at once.
const STOPS: usize = 64;

/// How long to wait before what is left of a last plan is tried again, at first and at most, and how often.
const REST: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
const ATTEMPTS: usize = 10;

/// What jobs of the pool are to run: what a producer returns to [`Node::schedule`].
///
/// A plan is idempotent: a job that is there already is left alone, one that is not there need not be stopped. So a
/// producer may return the same plan each time, and what one tick could not do the next makes up for.
///
/// ```
/// use pulse_pool::{NewJob, Plan};
///
/// let plan = Plan::new()
///     .start(("crawl a.example", "https://a.example"))
///     .start(NewJob::new("crawl b.example", "https://b.example").requires("tor"))
///     .stop("crawl c.example");
/// # let _ = plan;
/// ```
#[derive(Debug, Default, Clone, PartialEq, Eq)]
#[must_use = "a plan does nothing until a schedule carries it out"]
pub struct Plan {
    start: Vec<NewJob>,
    stop: Vec<String>,
    only: Option<Among>,
    end: bool,
}

/// Among which jobs those that a plan does not start are stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Among {
    Its,
    All,
}

impl Plan {
    fn is_empty(&self) -> bool {
        self.start.is_empty() && self.stop.is_empty() && self.only.is_none()
    }

    /// A plan that changes nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts a job, unless there is one of that key.
    pub fn start(mut self, job: impl Into<NewJob>) -> Self {
        self.start.push(job.into());
        self
    }

    /// Starts jobs; see [`start`](Self::start).
    pub fn start_all<J: Into<NewJob>>(mut self, jobs: impl IntoIterator<Item = J>) -> Self {
        self.start.extend(jobs.into_iter().map(Into::into));
        self
    }

    /// Stops a job, if there is one of that key.
    pub fn stop(mut self, key: impl Into<String>) -> Self {
        self.stop.push(key.into());
        self
    }

    /// Stops every job that this schedule has started before and that this plan does not start. Jobs of other schedules,
    /// and those that were dispatched by hand, go on; a key that one of them has already counts as started, and stays
    /// theirs.
    ///
    /// A schedule is known by its name: one that is made again by the name of an earlier one owns what that has started.
    pub fn only(mut self) -> Self {
        self.only = Some(Among::Its);
        self
    }

    /// Stops every job of the pool that this plan does not start, whoever dispatched it. Two schedules that both do so
    /// fight each other.
    pub fn only_in_pool(mut self) -> Self {
        self.only = Some(Among::All);
        self
    }

    /// Ends the schedule, on every node, once this plan is carried out. What of it cannot be done for now, as where the
    /// queue is full, is tried again; if that is in vain for most of a minute, the schedule goes on, and the next tick
    /// makes a whole plan again.
    pub fn end(mut self) -> Self {
        self.end = true;
        self
    }
}

impl Node {
    /// Runs a producer once per interval, on one of all the nodes that have joined the schedule, and carries out the
    /// plan that it makes. It goes on until it is [stopped](Schedule::stop) or the node closed; dropping what is
    /// returned does not end it.
    ///
    /// Plans are carried out in the order of their ticks. Where a producer takes longer than the interval, the next tick
    /// may be another node's; as soon as a later plan is carried out, an earlier one is dropped, finished or not, and the
    /// future of its producer too.
    ///
    /// Joining with another cadence replaces it for everybody; every node runs its own producer. An error of the
    /// producer, or a panic, is logged, and it is asked again at the next tick. A plan is carried out by enqueuing, so
    /// that it does not wait for workers.
    ///
    /// ```
    /// # use pulse_pool::Node;
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    /// use pulse_pool::Plan;
    ///
    /// # let client = pulse_pool::connect("memory:").await?;
    /// let node = Node::join(&client, "crawlers").await?;
    /// let schedule = node
    ///     .schedule("sites", Duration::from_secs(60), |_tick| async {
    ///         let sites = ["a.example", "b.example"]; // from a database, say
    ///         Ok(Plan::new().start_all(sites.map(|site| (site, ""))).only())
    ///     })
    ///     .await?;
    /// schedule.stop().await?; // on every node
    /// # client.close().await;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`ticker`](Self::ticker), whose names schedules share.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the schedule is there or not, and does not run here.
    pub async fn schedule<P, F>(
        &self,
        name: impl Into<String>,
        cadence: impl Into<Cadence>,
        producer: P,
    ) -> Result<Schedule, Error>
    where
        P: Fn(Tick) -> F + Send + Sync + 'static,
        F: Future<Output = Result<Plan, HandlerError>> + Send + 'static,
    {
        let (name, cadence) = (name.into(), cadence.into());
        let ticker = self.ticker(name.clone(), cadence.clone()).await?;
        let (node, end) = (self.handle(), self.end());
        let task = self.spawn(async move {
            tokio::select! {
                biased;
                () = end.cancelled() => {}
                () = follow(&node, ticker, producer) => {}
            }
        });
        Ok(Schedule { node: self.handle(), name, cadence, task })
    }

    /// Carries out a plan. Returns what of it could not be done for now.
    async fn carry_out(&self, schedule: &Arc<str>, plan: &Plan) -> Plan {
        let (pool, name) = (self.pool(), schedule);
        let schedule = &**name;
        let planned: HashSet<&str> = plan.start.iter().map(|job| &*job.key).collect();
        let mut stop: Vec<String> = plan.stop.clone();
        let mut knows_jobs = true;
        let keys = match plan.only {
            None => None,
            Some(Among::Its) => Some(self.keys_of_schedule(schedule).await),
            Some(Among::All) => Some(self.job_keys().await),
        };
        if let Some(keys) = keys {
            match keys {
                Ok(keys) => {
                    stop.extend(
                        keys.iter().map(JobKey::as_str).filter(|key| !planned.contains(key)).map(str::to_owned),
                    );
                }
                Err(error) => {
                    knows_jobs = !error.is_retryable();
                    tracing::warn!(pool, schedule, %error, "a plan stops nothing: the jobs are not known");
                }
            }
        }
        let few = Semaphore::new(STOPS);
        let mut stops = Vec::new();
        for key in &stop {
            stops.push(self.stop_planned(schedule, key, &few));
        }
        let started = async {
            let mut rest = Plan::new();
            let jobs = plan.start.iter().map(|job| job.clone().of_schedule(name));
            for (job, outcome) in plan.start.iter().zip(self.enqueue_batch(jobs).await) {
                match outcome {
                    Ok(()) | Err(Error::Exists { .. }) => {}
                    Err(error) => {
                        tracing::warn!(pool, schedule, key = &*job.key, %error, "a job of a plan could not be started");
                        if error.is_retryable() {
                            rest = rest.start(job.clone());
                        }
                    }
                }
            }
            rest
        };
        let (stopped, mut rest) = tokio::join!(join_all(stops), started);
        if !knows_jobs {
            return plan.clone();
        }
        rest.stop = stop.into_iter().zip(stopped).filter(|(_, stopped)| !stopped).map(|(key, _)| key).collect();
        rest
    }

    /// Returns whether that is all that can be done.
    async fn stop_planned(&self, schedule: &str, key: &str, few: &Semaphore) -> bool {
        let _one_of_few = few.acquire().await;
        match self.stop(key).await {
            Ok(()) | Err(Error::UnknownJob { .. }) => true,
            Err(error) => {
                tracing::warn!(pool = self.pool(), schedule, key, %error, "a job of a plan could not be stopped");
                !error.is_retryable()
            }
        }
    }

    /// Carries out what is left of the last plan of a schedule, which no later one would make up for. Returns whether
    /// it is done; it is given up after some time.
    async fn carry_out_rest(&self, schedule: &Arc<str>, mut rest: Plan) -> bool {
        let mut back_off = BackOff::new(REST.0, REST.1);
        for _ in 0..ATTEMPTS {
            if rest.is_empty() {
                return true;
            }
            back_off.pause().await;
            rest = self.carry_out(schedule, &rest).await;
        }
        rest.is_empty()
    }
}

async fn follow<P, F>(node: &Node, mut ticker: Ticker, producer: P)
where
    P: Fn(Tick) -> F + Send + Sync,
    F: Future<Output = Result<Plan, HandlerError>> + Send,
{
    while let Some(tick) = ticker.next().await {
        let (pool, schedule) = (node.pool(), ticker.name().to_owned());
        let ends = tokio::select! {
            biased;
            // What this one would do is of yesterday.
            () = ticker.is_overtaken(tick.number) => {
                tracing::debug!(pool, schedule, tick = tick.number, "a plan is dropped: a later one is carried out");
                false
            }
            ends = plan_of(node, &ticker, tick, &producer) => ends,
        };
        if ends {
            if let Err(error) = ticker.stop().await {
                tracing::error!(pool, schedule, %error, "a schedule could not be ended");
            }
            return;
        }
    }
}

/// Makes the plan of a tick and carries it out. Returns whether it ends the schedule.
async fn plan_of<P, F>(node: &Node, ticker: &Ticker, tick: Tick, producer: &P) -> bool
where
    P: Fn(Tick) -> F + Sync,
    F: Future<Output = Result<Plan, HandlerError>> + Send,
{
    let (pool, schedule) = (node.pool(), ticker.shared_name());
    let plan = match contain(async { producer(tick).await }).await {
        Ok(plan) => plan,
        Err(failure) => {
            let reason = failure.message;
            tracing::warn!(pool, schedule = &*schedule, reason, "a producer failed, asked again at the next tick");
            return false;
        }
    };
    match ticker.overtake(tick.number).await {
        Ok(true) => {}
        // Which is what ends it, too.
        Ok(false) => return false,
        Err(error) => {
            tracing::warn!(pool, schedule = &*schedule, %error, "a plan cannot be carried out, the next tick makes another");
            return false;
        }
    }
    let rest = node.carry_out(&schedule, &plan).await;
    let ends = plan.end && node.carry_out_rest(&schedule, rest).await;
    if plan.end && !ends {
        tracing::warn!(pool, schedule = &*schedule, "a schedule goes on: its last plan cannot be carried out yet");
    }
    ends
}

/// A node's part in a schedule; see [`Node::schedule`]. It goes on when this is dropped.
pub struct Schedule {
    node: Node,
    name: String,
    cadence: Cadence,
    task: JoinHandle<()>,
}

impl Schedule {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it has ended here: it was stopped, or its producer ended it, or the node was closed.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.task.is_finished()
    }

    /// Waits until it has ended here; see [`is_finished`](Self::is_finished).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn finished(&mut self) {
        if !self.task.is_finished() {
            // However it ended.
            let _ = (&mut self.task).await;
        }
    }

    /// Ends this node's part. The others go on.
    pub fn close(self) {
        self.task.abort();
    }

    /// Stops the schedule on every node. The jobs that it has started go on.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`], [`Error::Closed`].
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the schedule is stopped or not.
    pub async fn stop(self) -> Result<(), Error> {
        crate::ticker::stop(&self.node.shared_pool(), &self.node.end(), &self.name).await
    }
}

impl fmt::Debug for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Schedule")
            .field("pool", &self.node.pool())
            .field("name", &self.name)
            .field("cadence", &self.cadence)
            .finish_non_exhaustive()
    }
}
