//! Who runs what, as the jobs themselves report it, and the handler that reports it.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use pulse_pool::{Epoch, HandlerError, Job, JobHandler, JobKey};
use tests::eventually;
use tokio::{sync::Semaphore, task::JoinHandle};

/// Where every job of a test writes down that it runs, and that it has ended.
///
/// It stands for the outside world: it knows nothing of the pool's records. Two runners of one key at the same time,
/// and an epoch that is smaller than an earlier one of the key, are remembered, and fail the test at its end.
#[derive(Clone)]
pub(crate) struct Board(Arc<Mutex<State>>, Arc<Semaphore>);

#[derive(Debug, Default)]
struct State {
    running: HashMap<String, Vec<Run>>,
    epochs: HashMap<String, Epoch>,
    starts: HashMap<String, usize>,
    begun: Vec<String>,
    violations: Vec<String>,
}

/// One activation of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) node: String,
    pub(crate) payload: String,
    pub(crate) epoch: Epoch,
}

impl Default for Board {
    fn default() -> Self {
        Self(Arc::default(), Arc::new(Semaphore::new(0)))
    }
}

impl Board {
    /// Lets the jobs come to an end that are slow in stop.
    pub(crate) fn release(&self) {
        self.1.close();
    }

    /// A handler for a worker of that node.
    pub(crate) fn player(&self, node: &str) -> Player {
        Player { board: self.clone(), node: node.to_owned(), playing: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, key: &str, run: Run) {
        let mut state = self.lock();
        *state.starts.entry(key.to_owned()).or_default() += 1;
        state.begun.push(key.to_owned());
        if let Some(before) = state.epochs.insert(key.to_owned(), run.epoch).filter(|before| *before > run.epoch) {
            state.violations.push(format!("{key} began with epoch {} after {before}", run.epoch));
        }
        let others = state.running.entry(key.to_owned()).or_default();
        let overlap = (!others.is_empty()).then(|| format!("{key} began as {run:?} while {others:?} ran"));
        others.push(run);
        state.violations.extend(overlap);
    }

    fn end(&self, key: &str, epoch: Epoch) {
        let mut state = self.lock();
        if let Some(runs) = state.running.get_mut(key) {
            runs.retain(|run| run.epoch != epoch);
            if runs.is_empty() {
                state.running.remove(key);
            }
        }
    }

    /// What runs now.
    pub(crate) fn running(&self) -> HashMap<String, Run> {
        let state = self.lock();
        state.running.iter().filter_map(|(key, runs)| Some((key.clone(), runs.first()?.clone()))).collect()
    }

    /// The node that runs a key now.
    pub(crate) fn node_of(&self, key: &str) -> Option<String> {
        self.running().remove(key).map(|run| run.node)
    }

    /// The keys that a node runs now, sorted.
    pub(crate) fn keys_of(&self, node: &str) -> Vec<String> {
        let mut keys: Vec<_> =
            self.running().into_iter().filter(|(_, run)| run.node == node).map(|(key, _)| key).collect();
        keys.sort_unstable();
        keys
    }

    /// How often a key was started.
    pub(crate) fn starts(&self, key: &str) -> usize {
        self.lock().starts.get(key).copied().unwrap_or_default()
    }

    /// The keys in the order in which they were started.
    pub(crate) fn begun(&self) -> Vec<String> {
        self.lock().begun.clone()
    }

    /// Waits until exactly these keys run, on the node that `place` names for each.
    pub(crate) async fn settles<'a>(
        &self,
        keys: impl IntoIterator<Item = &'a String>,
        place: impl Fn(&str) -> Option<String>,
    ) {
        let expected: HashMap<String, Option<String>> = keys.into_iter().map(|key| (key.clone(), place(key))).collect();
        eventually("the jobs run where they belong", async || {
            let found = self.running().into_iter().map(|(key, run)| (key, run.node)).collect::<HashMap<_, _>>();
            let right = found.len() == expected.len()
                && expected
                    .iter()
                    .all(|(key, node)| found.get(key).is_some_and(|at| node.as_ref().is_none_or(|n| n == at)));
            if right { Ok(()) } else { Err(found) }
        })
        .await;
    }

    /// Waits until exactly these keys run, wherever.
    pub(crate) async fn runs_all<'a>(&self, keys: impl IntoIterator<Item = &'a String>) {
        self.settles(keys, |_| None).await;
    }

    /// Fails if ever a key was run by two at once.
    pub(crate) fn check(&self) {
        assert_eq!(self.lock().violations, Vec::<String>::new());
    }
}

impl fmt::Debug for Board {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lock().fmt(f)
    }
}

/// A handler that runs a task for each job. Payloads tell it to misbehave:
///
/// - `refuse`: start fails; `panic`: start panics; `hang`: start never returns; `hang in stop`: stop never returns;
///   `slow in stop`: stop returns when the board [releases](Board::release) it.
#[derive(Debug, Clone)]
pub(crate) struct Player {
    board: Board,
    node: String,
    playing: Arc<Mutex<HashMap<JobKey, Playing>>>,
}

/// The payload of a job, and what runs it.
type Playing = (String, JoinHandle<()>);

#[pulse_pool::async_trait]
impl JobHandler for Player {
    async fn start(&self, job: Job) -> Result<(), HandlerError> {
        let payload = String::from_utf8(job.payload().to_vec())?;
        match payload.as_str() {
            "refuse" => return Err("I do not play this".into()),
            "panic" => panic!("I broke a string"),
            "hang" => std::future::pending().await,
            _ => {}
        }
        let run = Run { node: self.node.clone(), payload: payload.clone(), epoch: job.epoch() };
        self.board.begin(job.key().as_str(), run);
        let (board, key) = (self.board.clone(), job.key().clone());
        let task = tokio::spawn(async move {
            job.stopped().await;
            board.end(job.key().as_str(), job.epoch());
        });
        self.playing.lock().unwrap_or_else(PoisonError::into_inner).insert(key, (payload, task));
        Ok(())
    }

    async fn stop(&self, key: &JobKey) -> Result<(), HandlerError> {
        let task = self.playing.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
        if let Some((payload, task)) = task {
            if payload == "slow in stop" {
                // It is only ever closed.
                let _ = self.board.1.acquire().await;
            }
            if payload == "hang in stop" {
                std::future::pending::<()>().await;
            }
            task.await?;
        }
        Ok(())
    }
}
