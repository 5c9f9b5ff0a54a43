//! Jobs that say themselves when they run, and the proof that none ran twice at the same time.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use pulse_pool::{Epoch, HandlerError, Job, JobHandler, JobKey};

/// How often a job says that it runs.
const EVERY: Duration = Duration::from_millis(20);

/// Where every job of a test writes down that it runs, all the time and only while its lease says that it may.
///
/// It stands for the outside world and knows nothing of the pool's records.
#[derive(Debug, Clone, Default)]
pub struct Jobs(Arc<Mutex<BTreeMap<String, Runs>>>);

/// The activations of a job, by epoch and node.
type Runs = BTreeMap<(Epoch, usize), Run>;

/// One activation of a job, and when it said first and last that it runs.
#[derive(Debug)]
struct Run {
    job: Job,
    first: Instant,
    last: Instant,
}

impl Jobs {
    /// A handler for a worker of that node.
    #[must_use]
    pub fn handler(&self, node: usize) -> impl JobHandler {
        Noting { jobs: self.clone(), node }
    }

    /// The keys of the jobs that may run at this moment.
    #[must_use]
    pub fn running(&self) -> BTreeSet<String> {
        let runs = self.lock();
        let runs = runs.iter().filter(|(_, runs)| runs.values().any(|run| run.job.may_run()));
        runs.map(|(key, _)| key.clone()).collect()
    }

    /// Watches until that moment, and returns the last one at which not all of these jobs ran; `None` if all of them
    /// ran all the time.
    pub async fn last_gap_until(&self, end: Instant, keys: &BTreeSet<String>) -> Option<Instant> {
        let mut gap = None;
        while Instant::now() < end {
            if self.running() != *keys {
                gap = Some(Instant::now());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        gap
    }

    /// Fails if a job was ever run by two nodes at once, or by an epoch after a greater one.
    ///
    /// # Panics
    ///
    /// Then.
    pub fn check(&self) {
        for (key, runs) in &*self.lock() {
            for (((epoch, node), before), ((next, other), after)) in runs.iter().zip(runs.iter().skip(1)) {
                assert!(epoch < next, "{key} ran under epoch {epoch} on node {node} and on node {other}");
                assert!(
                    before.last < after.first,
                    "{key} ran under epoch {epoch} on node {node} until {:?} after epoch {next} began on node {other}",
                    before.last - after.first
                );
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Runs>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, node: usize, job: &Job, at: Instant) {
        let mut runs = self.lock();
        let runs = runs.entry(job.key().to_string()).or_default();
        let run = runs.entry((job.epoch(), node)).or_insert_with(|| Run { job: job.clone(), first: at, last: at });
        (run.job, run.last) = (job.clone(), run.last.max(at));
    }
}

struct Noting {
    jobs: Jobs,
    node: usize,
}

#[pulse_pool::async_trait]
impl JobHandler for Noting {
    async fn start(&self, job: Job) -> Result<(), HandlerError> {
        let (jobs, node) = (self.jobs.clone(), self.node);
        tokio::spawn(async move {
            loop {
                // The moment from before the question, so that an answer that comes late counts for then.
                let at = Instant::now();
                if !job.may_run() {
                    return;
                }
                jobs.note(node, &job, at);
                tokio::time::sleep(EVERY).await;
            }
        });
        Ok(())
    }

    async fn stop(&self, _key: &JobKey) -> Result<(), HandlerError> {
        // The loop asks before it says anything more.
        Ok(())
    }
}
