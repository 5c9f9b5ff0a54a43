//! What a pool keeps in the backend, and the transactions that change it.
//!
//! Everything lies in the scope that the pool is named after, so that any of it can be changed together:
//!
//! | map | key → value | |
//! |---|---|---|
//! | `pool:workers` | worker → [`WorkerRecord`], bound to the node's lease; beside the workers the nodes, and the mark of a shutdown | replicated to every node |
//! | `pool:jobs` | job key → [`JobRecord`] | replicated to every node |
//! | `pool:payloads` | job key → payload, with its [headers](crate::headers) | read by whoever starts the job |
//! | `pool:queue` | keys of the jobs that never ran yet | counted by dispatches |
//! | `pool:results` | job key → [`JobResult`](crate::result::JobResult), for some time | read by those who wait for it |
//! | `pool:progress` | job key → what a running job says of itself, for some time | read on demand |
//! | `pool:inbox:…` | id → [`Post`](crate::post::Post), for some time | replicated to its node |
//! | `pool:tickers` | ticker → [`TickerRecord`] | replicated to the nodes that have tickers |
//! | `pool:server` | one [`ServerRecord`](crate::record::ServerRecord) | read when a node joins and when its link was cut |
//! | `pool:dead` | job key → [`DeadRecord`](crate::record::DeadRecord) | read on demand |
//! | `pool:dead-payloads` | job key → what stood in `pool:payloads` | read by replays |
//!
//! This module says what a transaction expects and writes, and [`reads`] what is read; who decides on one, and what
//! follows if it is refused, is elsewhere. Every change of a job expects the record that it was decided on, so that of
//! two changes one is refused.

mod entries;
mod inbox;
mod name;
mod reads;
mod refusal;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use pulse_core::{Binding, Client, LeaseId, MapId, Scope, Transaction, Version};
use pulse_rmap::Map;
use tokio::sync::OnceCell;

pub(crate) use self::{
    entries::{Done, Entry, Started},
    inbox::MOST_POSTS,
    refusal::{Blame, Refusal},
};
use self::{
    inbox::{INBOX, inbox_of},
    name::Name,
};
use crate::{
    Error, JobKey, NodeId, WorkerId,
    record::{JobRecord, TickerRecord, WorkerRecord},
};

static WORKERS: Name = Name::new("pool:workers");
/// Stands among the workers while the pool is shut down; no worker's name.
static SHUTDOWN: Name = Name::new("shutdown");
/// What the names of nodes begin with among the workers; no worker's name does.
const NODE: &str = "node ";
static JOBS: Name = Name::new("pool:jobs");
/// What a node that does not replicate the jobs joins in their place: nobody writes it.
static NO_JOBS: Name = Name::new("pool:no-jobs");
static PAYLOADS: Name = Name::new("pool:payloads");
static QUEUE: Name = Name::new("pool:queue");
static RESULTS: Name = Name::new("pool:results");
static PROGRESS: Name = Name::new("pool:progress");
static TICKERS: Name = Name::new("pool:tickers");
static SERVER: Name = Name::new("pool:server");
/// The one key there.
const RUN: &str = "run";
static DEAD: Name = Name::new("pool:dead");
static DEAD_PAYLOADS: Name = Name::new("pool:dead-payloads");

/// The label of a node that does not replicate the jobs.
const CLIENT: &str = "client";

/// How long the trace of a refused job waits for whoever dispatched it.
const TRACE_TTL: Duration = Duration::from_secs(60);

/// How long what a job said of itself is kept.
const PROGRESS_TTL: Duration = Duration::from_secs(3600);

/// How long it is known that a ticker was stopped.
const STOPPED_TTL: Duration = Duration::from_secs(24 * 3600);

/// The pool's data: two replicas, and the names of the rest.
#[derive(Debug, Clone)]
pub(crate) struct Tables {
    client: Client,
    scope: Scope,
    pub(crate) workers: Map<WorkerRecord>,
    /// Without any on a node that does not replicate them.
    pub(crate) jobs: Map<JobRecord>,
    jobs_id: MapId,
    /// What others send to this node.
    pub(crate) inbox: Map<Bytes>,
    /// Joined by the first ticker.
    tickers: OnceCell<Tickers>,
}

/// The replica of the tickers.
pub(crate) type Tickers = Map<TickerRecord>;

/// A new job as it is to be recorded.
#[derive(Debug)]
pub(crate) struct Dispatch {
    pub(crate) key: JobKey,
    /// What a refused job of the key has left.
    pub(crate) trace: Option<Bytes>,
    pub(crate) record: Bytes,
    /// Its payload, with its headers.
    pub(crate) entry: Bytes,
    pub(crate) owner: Option<KnownWorker>,
}

/// A worker, and its record as it stands in the map.
pub(crate) type KnownWorker = (WorkerId, Bytes);

impl Tables {
    pub(crate) async fn join(client: &Client, pool: &str, node: NodeId, replicates: bool) -> Result<Self, Error> {
        let backend = |source| Error::Backend { operation: "join", pool: pool.to_owned(), source };
        let replica = |source| Error::Replica { pool: pool.to_owned(), source: Box::new(source) };
        let scope = Scope::new(pool).map_err(backend)?;
        let workers = Map::builder(WORKERS.text()).scope(scope.clone()).join(client).await.map_err(replica)?;
        let jobs_id = scope.map(JOBS.text()).map_err(backend)?;
        let jobs = if replicates { &JOBS } else { &NO_JOBS };
        let jobs = Map::packed(jobs.text()).scope(scope.clone()).join(client).await.map_err(replica)?;
        let inbox = Map::raw(inbox_of(node)).scope(scope.clone()).join(client).await.map_err(replica)?;
        Ok(Self { client: client.clone(), scope, workers, jobs, jobs_id, inbox, tickers: OnceCell::new() })
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) fn scope(&self) -> &Scope {
        &self.scope
    }

    fn begin(&self) -> Transaction {
        begin(&self.scope)
    }

    /// Ends the replication.
    pub(crate) async fn close(&self) {
        self.workers.close().await;
        self.jobs.close().await;
        self.inbox.close().await;
        if let Some(tickers) = self.tickers.get() {
            tickers.close().await;
        }
    }

    /// The replica of the tickers, which is joined when it is first asked for.
    pub(crate) async fn tickers(&self) -> Result<&Tickers, pulse_rmap::Error> {
        let join = async || Map::builder(TICKERS.text()).scope(self.scope.clone()).join(&self.client).await;
        self.tickers.get_or_try_init(join).await
    }

    /// Makes or replaces a ticker, as long as the node is in the pool: none is made of a pool that was shut down.
    pub(crate) fn put_ticker(&self, name: &Arc<str>, old: Option<&Bytes>, new: Bytes, node: NodeId) -> Transaction {
        let change = self.begin().expect_present(&WORKERS, node_key(node));
        expect_value(change, &TICKERS, name, old).put(&TICKERS, name.clone(), new)
    }

    /// Leaves word for some time that a ticker is stopped.
    pub(crate) fn stop_ticker(&self, name: &str, old: Option<&Bytes>, new: Bytes) -> Transaction {
        let change = expect_value(self.begin(), &TICKERS, name, old);
        change.put_bound(&TICKERS, name, new, Binding::Ttl(STOPPED_TTL))
    }

    /// Writes down what is known of the server's run.
    pub(crate) fn put_server(&self, old: Option<&Bytes>, new: Bytes) -> Transaction {
        expect_value(self.begin(), &SERVER, RUN, old).put(&SERVER, RUN, new)
    }

    /// Replaces the record of a job.
    pub(crate) fn replace(&self, key: &JobKey, old: &Bytes, new: Bytes) -> Transaction {
        self.expect_record(key, old).put(&JOBS, key.shared(), new)
    }

    /// Writes the record of a job of that worker over what stands in its place and is no record, as long as the worker
    /// is in the pool.
    pub(crate) fn restore(&self, key: &JobKey, damaged: &Bytes, worker: WorkerId, record: Bytes) -> Transaction {
        self.replace(key, damaged, record).expect_present(&WORKERS, worker.to_string())
    }

    /// Takes over a job that nobody has, or whose owner is gone.
    pub(crate) fn pull(
        &self,
        key: &JobKey,
        old: &Bytes,
        dead: Option<WorkerId>,
        to: &KnownWorker,
        lease: LeaseId,
        new: Bytes,
    ) -> Transaction {
        let transaction = expect_worker(expect_gone(self.expect_record(key, old), dead), Some(to));
        transaction.expect_lease_alive(lease).put(&JOBS, key.shared(), new)
    }

    /// Gives a job to another worker, or to nobody.
    pub(crate) fn hand_over(
        &self,
        key: &JobKey,
        old: &Bytes,
        to: Option<&KnownWorker>,
        lease: LeaseId,
        new: Bytes,
    ) -> Transaction {
        expect_worker(self.expect_record(key, old), to).expect_lease_alive(lease).put(&JOBS, key.shared(), new)
    }

    /// What stands among the workers for a node itself, or for its mark of a shutdown.
    pub(crate) fn mark(&self, node: NodeId) -> Result<Bytes, pulse_rmap::Error> {
        let labels = if self.replicates() { Vec::new() } else { vec![CLIENT.to_owned()] };
        self.workers.encode(&WorkerRecord { node, weight: 0, draining: true, labels })
    }

    fn replicates(&self) -> bool {
        *self.jobs.id() == self.jobs_id
    }

    /// Marks that the pool is shut down, for as long as the lease lives.
    pub(crate) fn begin_shutdown(&self, mark: Bytes, lease: LeaseId) -> Transaction {
        self.begin().expect_absent(&WORKERS, &SHUTDOWN).put_bound(&WORKERS, &SHUTDOWN, mark, Binding::Lease(lease))
    }

    /// Writes a node down for as long as its lease lives, unless the pool is shut down.
    pub(crate) fn enter(&self, node: NodeId, mark: Bytes, lease: LeaseId) -> Transaction {
        self.begin().expect_absent(&WORKERS, &SHUTDOWN).put_bound(&WORKERS, node_key(node), mark, Binding::Lease(lease))
    }

    /// Keeps a job that was given up among the dead.
    pub(crate) fn bury(&self, finish: Transaction, key: &JobKey, dead: Bytes, entry: Bytes) -> Transaction {
        finish.put(&DEAD, key.shared(), dead).put(&DEAD_PAYLOADS, key.shared(), entry)
    }

    /// Puts a job back that is to be started again.
    pub(crate) fn put_back(&self, key: &JobKey, old: &Bytes, lease: LeaseId, new: Bytes) -> Transaction {
        self.replace(key, old, new).expect_lease_alive(lease)
    }

    /// Notes how far a run of a job is, whose record is that.
    pub(crate) fn progress(&self, key: &JobKey, record: &Bytes, lease: LeaseId, progress: Bytes) -> Transaction {
        self.expect_record(key, record).expect_lease_alive(lease).put_bound(
            &PROGRESS,
            key.shared(),
            progress,
            Binding::Ttl(PROGRESS_TTL),
        )
    }

    /// Dispatches a dead job anew.
    pub(crate) fn replay(&self, job: &Dispatch, dead: Bytes, max_queued: u64) -> Transaction {
        let key = job.key.clone();
        self.dispatch(std::iter::once(job), max_queued)
            .expect_equals(&DEAD, key.shared(), dead)
            .delete(&DEAD, key.shared())
            .delete(&DEAD_PAYLOADS, key.shared())
    }

    /// Forgets a dead job.
    pub(crate) fn forget_dead(&self, key: &JobKey) -> Transaction {
        self.begin().delete(&DEAD, key.shared()).delete(&DEAD_PAYLOADS, key.shared())
    }

    /// Removes the job and leaves a trace of why.
    pub(crate) fn reject(&self, key: &JobKey, old: &Bytes, lease: LeaseId, trace: Bytes) -> Transaction {
        self.expect_record(key, old)
            .expect_lease_alive(lease)
            .put_bound(&JOBS, key.shared(), trace, Binding::Ttl(TRACE_TTL))
            .delete(&PAYLOADS, key.shared())
            .delete(&QUEUE, key.shared())
            .delete(&PROGRESS, key.shared())
    }

    /// Removes the job, if its owner is gone where one is named.
    pub(crate) fn remove(&self, key: &JobKey, old: &Bytes, dead: Option<WorkerId>) -> Transaction {
        remove_job(expect_gone(self.expect_record(key, old), dead), key)
    }

    /// Removes the trace of a refused job.
    pub(crate) fn remove_trace(&self, key: &JobKey, trace: &Bytes) -> Transaction {
        self.begin().expect_equals(&JOBS, key.shared(), trace.clone()).delete(&JOBS, key.shared())
    }

    /// Writes workers down for as long as the lease lives.
    pub(crate) fn register(&self, workers: &[KnownWorker], lease: LeaseId) -> Transaction {
        workers.iter().fold(self.begin(), |transaction, (worker, record)| {
            transaction.put_bound(&WORKERS, worker.to_string(), record.clone(), Binding::Lease(lease))
        })
    }

    /// Takes a worker out of the pool.
    pub(crate) fn unregister(&self, worker: WorkerId) -> Transaction {
        self.begin().delete(&WORKERS, worker.to_string())
    }

    fn expect_record(&self, key: &JobKey, old: &Bytes) -> Transaction {
        self.begin().expect_equals(&JOBS, key.shared(), old.clone())
    }
}

fn expect_value(change: Transaction, map: &Name, key: &str, value: Option<&Bytes>) -> Transaction {
    match value {
        Some(value) => change.expect_equals(map, key, value.clone()),
        None => change.expect_absent(map, key),
    }
}

/// Under what a node itself stands among the workers; no worker's name.
fn node_key(node: NodeId) -> String {
    format!("{NODE}{node}")
}

fn remove_job(transaction: Transaction, key: &JobKey) -> Transaction {
    [&JOBS, &PAYLOADS, &QUEUE, &PROGRESS]
        .into_iter()
        .fold(transaction, |transaction, map| transaction.delete(map, key.shared()))
}

/// Nobody asks what is replaced: a job is known by its record, which is expected.
fn begin(scope: &Scope) -> Transaction {
    Transaction::new(scope).without_previous()
}

fn expect_worker(transaction: Transaction, worker: Option<&KnownWorker>) -> Transaction {
    match worker {
        Some((worker, record)) => transaction.expect_equals(&WORKERS, worker.to_string(), record.clone()),
        None => transaction,
    }
}

fn expect_gone(transaction: Transaction, worker: Option<WorkerId>) -> Transaction {
    match worker {
        Some(worker) => transaction.expect_absent(&WORKERS, worker.to_string()),
        None => transaction,
    }
}

/// Removes all maps of a pool without nodes.
pub(crate) fn destroy(pool: &str) -> Result<Transaction, pulse_core::Error> {
    Ok(remove_all(begin(&Scope::new(pool)?).expect_fewer_than(&WORKERS, 1)))
}

/// Removes all maps of a pool in which there is nothing left but the mark of its shutdown and the node that set it.
pub(crate) fn end_shutdown(scope: &Scope) -> Transaction {
    remove_all(begin(scope).expect_present(&WORKERS, &SHUTDOWN).expect_fewer_than(&WORKERS, 3))
}

fn remove_all(transaction: Transaction) -> Transaction {
    let maps = [&WORKERS, &JOBS, &PAYLOADS, &QUEUE, &RESULTS, &PROGRESS, &TICKERS, &SERVER, &DEAD, &DEAD_PAYLOADS];
    maps.into_iter().fold(transaction, Transaction::destroy_map)
}

/// The version of the jobs after a commit.
pub(crate) fn jobs_version(committed: &pulse_core::Committed) -> Option<Version> {
    committed.version(JOBS.text())
}

#[cfg(test)]
mod tests;
