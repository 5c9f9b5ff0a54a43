//! The pool that is measured: jobs with payloads of 100 bytes, whose handler only notes that they run.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use pulse_core::Client;
use pulse_pool::{HandlerError, Job, JobHandler, JobKey, Node, NodeBuilder};

use crate::harness::{Bench, PAYLOAD};

/// Longer than anything here takes.
const LIMIT: Duration = Duration::from_secs(120);

pub(super) async fn connect(bench: &Bench) -> Client {
    pulse_pool::connect(&bench.options.url).await.expect("cannot connect")
}

/// A node of the pool, as its users make it.
pub(super) fn node() -> NodeBuilder {
    Node::builder("bench").max_queued(1_000_000).timeout(LIMIT).shutdown_timeout(LIMIT)
}

pub(super) fn key(number: usize) -> String {
    format!("job {number:09}")
}

/// Where the handlers of all nodes note what runs.
#[derive(Debug, Clone, Default)]
pub(super) struct Running(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// The worker's name, and how often the key was started.
    jobs: HashMap<JobKey, (Option<usize>, usize)>,
    running: usize,
    starts: usize,
}

impl Running {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A handler for the worker of that name.
    pub(super) fn handler(&self, worker: usize) -> Noting {
        Noting { all: self.clone(), worker }
    }

    /// How many starts there were.
    pub(super) fn starts(&self) -> usize {
        self.lock().starts
    }

    /// How many jobs run on that worker.
    pub(super) fn of(&self, worker: usize) -> usize {
        self.lock().jobs.values().filter(|(at, _)| *at == Some(worker)).count()
    }

    /// A node died, and what it ran runs no more.
    pub(super) fn died(&self, worker: usize) {
        let mut state = self.lock();
        let died = state.jobs.values_mut().filter(|(at, _)| *at == Some(worker)).map(|(at, _)| *at = None).count();
        state.running -= died;
    }

    /// Waits until so many jobs run that were started so often all together. Returns when that was.
    pub(super) async fn settles(&self, running: usize, starts: usize) -> Instant {
        let begun = Instant::now();
        loop {
            let (runs, started) = {
                let state = self.lock();
                (state.running, state.starts)
            };
            if runs == running && started >= starts {
                return Instant::now();
            }
            assert!(begun.elapsed() < LIMIT, "{runs} of {running} jobs run, {started} of {starts} starts");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

/// Notes what it is told to do.
#[derive(Debug, Clone)]
pub(super) struct Noting {
    all: Running,
    worker: usize,
}

#[pulse_pool::async_trait]
impl JobHandler for Noting {
    async fn start(&self, job: Job) -> Result<(), HandlerError> {
        let mut state = self.all.lock();
        state.starts += 1;
        state.running += 1;
        let (at, starts) = state.jobs.entry(job.key().clone()).or_default();
        (*at, *starts) = (Some(self.worker), *starts + 1);
        Ok(())
    }

    async fn stop(&self, key: &JobKey) -> Result<(), HandlerError> {
        let mut state = self.all.lock();
        state.running -= 1;
        if let Some((at, _)) = state.jobs.get_mut(key) {
            *at = None;
        }
        Ok(())
    }
}

/// Two nodes on clients of their own, each with two workers.
pub(super) struct Pool {
    pub(super) clients: [Client; 2],
    pub(super) nodes: [Arc<Node>; 2],
    pub(super) running: Running,
}

impl Pool {
    pub(super) async fn begin(bench: &Bench) -> Self {
        Self::begin_with(bench, node()).await
    }

    pub(super) async fn begin_with(bench: &Bench, node: NodeBuilder) -> Self {
        let clients = [connect(bench).await, connect(bench).await];
        let running = Running::default();
        let mut nodes = Vec::new();
        for (number, client) in clients.iter().enumerate() {
            let node = node.clone().join(client).await.expect("cannot join");
            for worker in [2 * number, 2 * number + 1] {
                node.add_worker(running.handler(worker)).await.expect("cannot add a worker");
            }
            nodes.push(Arc::new(node));
        }
        let nodes = nodes.try_into().unwrap_or_else(|_| unreachable!("there are two clients"));
        Self { clients, nodes, running }
    }

    /// Has jobs run from that number on.
    pub(super) async fn fill(&self, from: usize, jobs: usize) {
        let keys: Vec<usize> = (from..from + jobs).collect();
        for page in keys.chunks(5_000) {
            let batch = page.iter().map(|number| (key(*number), PAYLOAD.as_slice()));
            for outcome in self.nodes[0].dispatch_batch(batch).await {
                outcome.expect("a job was not dispatched");
            }
        }
    }

    pub(super) async fn end(self) {
        self.nodes[0].shutdown().await.expect("the pool does not shut down");
        for client in self.clients {
            client.close().await;
        }
    }
}
