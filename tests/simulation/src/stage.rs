//! The outside world, in which the jobs run: what is seen of a pool by what its handlers do.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use pulse_core::{Memory, entropy};
use pulse_pool::{Epoch, HandlerError, Job, JobHandler, JobKey, Tick, WorkerId};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};

use crate::store;

/// How long after a worker has come somebody may still place jobs without knowing of it.
const UNKNOWN_FOR: Duration = Duration::from_secs(6);

/// What everybody in a run writes to, and what is checked at every step.
#[derive(Clone)]
pub(crate) struct Stage(Arc<Mutex<State>>);

struct State {
    began: Instant,
    log: Vec<String>,
    violations: Vec<String>,
    /// What runs now: the node, and the epoch.
    running: BTreeMap<String, (String, Epoch)>,
    epochs: BTreeMap<String, Epoch>,
    /// Where a job was started last, and when.
    placed: BTreeMap<String, (WorkerId, Instant)>,
    /// The jobs that nobody dispatches or stops now, so that where they are is up to the pool alone.
    left_alone: BTreeSet<String>,
    workers: BTreeMap<WorkerId, Seen>,
    /// The tasks that came to their end, and those that were told to.
    done: BTreeSet<String>,
    notes: BTreeSet<(String, u64)>,
    ticks: BTreeMap<u64, (String, Instant)>,
}

/// What was seen of a worker in the store.
struct Seen {
    since: Instant,
    /// It is draining, or gone.
    leaves: bool,
}

impl Stage {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(State {
            began: Instant::now(),
            log: Vec::new(),
            violations: Vec::new(),
            running: BTreeMap::new(),
            epochs: BTreeMap::new(),
            placed: BTreeMap::new(),
            left_alone: BTreeSet::new(),
            workers: BTreeMap::new(),
            done: BTreeSet::new(),
            notes: BTreeSet::new(),
            ticks: BTreeMap::new(),
        })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes down what happened.
    pub(crate) fn note(&self, what: impl AsRef<str>) {
        let mut state = self.lock();
        let millis = state.began.elapsed().as_millis();
        state.log.push(format!("{:>3}.{:03} {}", millis / 1000, millis % 1000, what.as_ref()));
    }

    /// Writes down what must never happen.
    pub(crate) fn violation(&self, what: impl AsRef<str>) {
        self.note(format!("VIOLATION: {}", what.as_ref()));
        self.lock().violations.push(what.as_ref().to_owned());
    }

    pub(crate) fn violations(&self) -> Vec<String> {
        self.lock().violations.clone()
    }

    pub(crate) fn take_log(&self) -> Vec<String> {
        std::mem::take(&mut self.lock().log)
    }

    /// What runs now, and with which epoch.
    pub(crate) fn running(&self) -> BTreeMap<String, (String, Epoch)> {
        self.lock().running.clone()
    }

    /// On which worker each job that runs was started.
    pub(crate) fn places(&self) -> BTreeMap<String, WorkerId> {
        let state = self.lock();
        let place = |key: &String| Some((key.clone(), state.placed.get(key)?.0));
        state.running.keys().filter_map(place).collect()
    }

    pub(crate) fn is_done(&self, task: &str) -> bool {
        self.lock().done.contains(task)
    }

    pub(crate) fn was_told(&self, key: &str, number: u64) -> bool {
        self.lock().notes.contains(&(key.to_owned(), number))
    }

    /// Somebody is about to dispatch or to stop the job.
    pub(crate) fn takes_in_hand(&self, key: &str) {
        let mut state = self.lock();
        state.left_alone.remove(key);
        state.placed.remove(key);
    }

    /// The job is there, and left to the pool.
    pub(crate) fn leaves_alone(&self, key: &str) {
        self.lock().left_alone.insert(key.to_owned());
    }

    /// The server has lost what was written since then: ticks that were had since may come again, and jobs may go back.
    pub(crate) fn loses(&self, since: Instant) {
        let mut state = self.lock();
        state.ticks.retain(|_, (_, at)| *at < since);
        state.placed.clear();
    }

    /// Looks who is in the pool.
    pub(crate) async fn observe(&self, memory: &Memory) {
        let found = store::workers(memory).await;
        let (mut state, now) = (self.lock(), Instant::now());
        for (worker, seen) in &mut state.workers {
            seen.leaves |= found.get(worker).is_none_or(|draining| *draining);
        }
        for (worker, draining) in found {
            state.workers.entry(worker).or_insert(Seen { since: now, leaves: draining });
        }
    }

    pub(crate) fn tick(&self, node: &str, tick: &Tick) {
        self.note(format!("{node} has tick {}", tick.number));
        let other = self.lock().ticks.insert(tick.number, (node.to_owned(), Instant::now()));
        if let Some((other, _)) = other {
            self.violation(format!("tick {} reached {node} after {other}", tick.number));
        }
    }

    fn begin(&self, key: &str, node: &str, worker: WorkerId, epoch: Epoch) {
        self.note(format!("{key} begins on {node}, worker {worker}, epoch {epoch}"));
        let mut violations = Vec::new();
        {
            let mut state = self.lock();
            let other = state.running.insert(key.to_owned(), (node.to_owned(), epoch));
            violations.extend(other.map(|(other, other_epoch)| {
                format!("{key} began on {node} while it ran on {other}, with epoch {epoch} and {other_epoch}")
            }));
            let earlier = state.epochs.insert(key.to_owned(), epoch).filter(|earlier| *earlier > epoch);
            violations.extend(earlier.map(|earlier| format!("{key} began with epoch {epoch} after {earlier}")));
            let before = state.placed.insert(key.to_owned(), (worker, Instant::now()));
            if let Some((from, at)) = before.filter(|(from, _)| *from != worker && state.left_alone.contains(key)) {
                let must_move = state.workers.get(&from).is_none_or(|from| from.leaves);
                let is_drawn = state.workers.get(&worker).is_none_or(|to| to.since + UNKNOWN_FOR > at);
                if !must_move && !is_drawn {
                    violations.push(format!("{key} moved from {from} to {worker}, and neither came nor went"));
                }
            }
        }
        violations.iter().for_each(|violation| self.violation(violation));
    }

    fn end(&self, key: &str, node: &str, epoch: Epoch) {
        self.note(format!("{key} ends on {node}, epoch {epoch}"));
        let mut state = self.lock();
        if state.running.get(key).is_some_and(|(on, with)| on == node && *with == epoch) {
            state.running.remove(key);
        }
    }
}

/// Ends what it stands for when it is dropped, however that comes.
struct OnStage {
    stage: Stage,
    key: String,
    node: String,
    epoch: Epoch,
}

impl OnStage {
    fn begin(stage: &Stage, node: &str, job: &Job) -> Self {
        let (key, epoch) = (job.key().as_str().to_owned(), job.epoch());
        stage.begin(&key, node, job.worker(), epoch);
        Self { stage: stage.clone(), key, node: node.to_owned(), epoch }
    }
}

impl Drop for OnStage {
    fn drop(&mut self) {
        self.stage.end(&self.key, &self.node, self.epoch);
    }
}

/// Up to that many milliseconds.
async fn a_while(longest: u32) {
    sleep(Duration::from_millis((f64::from(longest) * entropy::fraction()) as u64)).await;
}

/// A handler that runs a task for each job. It takes its time, for stopping less than the margin of a lease.
#[derive(Clone)]
pub(crate) struct Player {
    stage: Stage,
    memory: Arc<Memory>,
    node: String,
    playing: Arc<Mutex<BTreeMap<JobKey, JoinHandle<()>>>>,
}

impl Player {
    pub(crate) fn new(stage: &Stage, memory: &Arc<Memory>, node: &str) -> Self {
        Self { stage: stage.clone(), memory: memory.clone(), node: node.to_owned(), playing: Arc::default() }
    }
}

#[pulse_pool::async_trait]
impl JobHandler for Player {
    async fn start(&self, job: Job) -> Result<(), HandlerError> {
        self.stage.observe(&self.memory).await;
        let on_stage = OnStage::begin(&self.stage, &self.node, &job);
        let key = job.key().clone();
        let task = tokio::spawn(async move {
            job.stopped().await;
            a_while(100).await;
            drop(on_stage);
        });
        self.playing.lock().unwrap_or_else(PoisonError::into_inner).insert(key, task);
        a_while(80).await;
        Ok(())
    }

    async fn stop(&self, key: &JobKey) -> Result<(), HandlerError> {
        let task = self.playing.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
        if let Some(task) = task {
            task.await?;
        }
        Ok(())
    }

    async fn notify(&self, key: &JobKey, payload: Bytes) -> Result<(), HandlerError> {
        let number: u64 = std::str::from_utf8(&payload)?.parse()?;
        self.stage.lock().notes.insert((key.as_str().to_owned(), number));
        Ok(())
    }
}

/// What a task does: it takes its time, and fails now and then.
pub(crate) async fn task(stage: Stage, node: String, job: Job) -> Result<String, HandlerError> {
    let _on_stage = OnStage::begin(&stage, &node, &job);
    a_while(1_200).await;
    if entropy::fraction() < 0.2 {
        return Err("it did not work out".into());
    }
    stage.note(format!("{} is done", job.key()));
    stage.lock().done.insert(job.key().as_str().to_owned());
    Ok(job.key().as_str().to_owned())
}
