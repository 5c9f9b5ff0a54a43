//! What the parts of a node share.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64},
    },
    time::Duration,
};

use pulse_core::SweepGuard;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    Error, JobKey, JobState, NodeId,
    clock::Clock,
    decide::Members,
    fetching::Fetching,
    fresh::Fresh,
    group::Group,
    history::History,
    meter::Meter,
    order::Stamps,
    own_writes::OwnWrites,
    post::Waiting,
    record::{JobRecord, Phase, PlacedBy},
    tables::{KnownWorker, Tables},
    watch::Watches,
    writing::Writing,
};

/// The shortest time-out of a call, of a shutdown, and of an attempt of a worker's function.
pub(crate) const SHORTEST_TIMEOUT: Duration = Duration::from_millis(1);

/// How a node behaves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    /// How long the node may be silent before it is declared dead.
    pub(crate) worker_ttl: Duration,
    /// How many jobs may wait for their first start before dispatches of this node fail.
    pub(crate) max_queued: u64,
    /// How long a call may wait for other nodes and the backend.
    pub(crate) timeout: Duration,
    /// How long a close may take.
    pub(crate) shutdown_timeout: Duration,
    /// Whether the node holds the records of all jobs. One that does not has no workers.
    pub(crate) replicates: bool,
}

/// A pool as one node of it sees it.
#[derive(Debug)]
pub(crate) struct Pool {
    pub(crate) name: Arc<str>,
    pub(crate) node: NodeId,
    pub(crate) options: Options,
    pub(crate) tables: Arc<Tables>,
    pub(crate) writing: Group<Writing>,
    /// There was no room when a new job was last refused, and none was recorded alone since.
    pub(crate) is_full: Arc<AtomicBool>,
    pub(crate) fetching: Group<Fetching>,
    pub(crate) fresh: Fresh,
    pub(crate) watches: Arc<Watches>,
    /// Those who wait for answers from other nodes.
    pub(crate) waiting: Waiting,
    pub(crate) clock: Clock,
    /// Of the dispatches of this node.
    pub(crate) stamps: Stamps,
    pub(crate) history: History,
    /// By the calls of this node.
    pub(crate) own_writes: OwnWrites,
    pub(crate) meter: Meter,
    /// How many jobs of this node were lost.
    pub(crate) lost: AtomicU64,
    /// The whole pool is shut down.
    pub(crate) shut: AtomicBool,
    /// The node has lost its lease and has no other yet.
    pub(crate) cut_off: AtomicBool,
    /// The node has ended without handing over what was its workers'.
    pub(crate) left_behind: AtomicBool,
    /// Cancelled when the time is over that the node has to leave: nothing remote is waited for any more.
    pub(crate) gives_up: CancellationToken,
    /// Known from the beginning, and kept up to date by the runner.
    pub(crate) members: watch::Sender<Arc<Members>>,
    /// Removes the entries of dead nodes, this one's included, for as long as somebody is left.
    pub(crate) _swept: SweepGuard,
}

impl Pool {
    /// The worker that a key belongs to among those that have these labels, as it stands in the map, and the view that
    /// says so; `None` if there is none that is known well enough.
    pub(crate) fn owner(&self, key: &JobKey, needs: &[String]) -> Option<(KnownWorker, Option<PlacedBy>)> {
        let members = self.members.borrow().clone();
        Some((self.known(members.owner(key.as_str(), needs)?)?, members.version()))
    }

    /// A worker as it stands in the map.
    pub(crate) fn known(&self, worker: crate::WorkerId) -> Option<KnownWorker> {
        let snapshot = self.tables.workers.snapshot();
        Some((worker, snapshot.value(&worker.to_string())?.raw()))
    }

    /// How far a job is, `None` if the record is only the trace of one, and the node that has it.
    pub(crate) fn state_of(&self, record: &JobRecord, members: &Members) -> (Option<JobState>, Option<NodeId>) {
        let node = record.owner().and_then(|owner| members.get(owner)).map(|worker| worker.node);
        let state = match (&record.phase, record.owner(), node) {
            (Phase::Rejected, ..) => return (None, node),
            (Phase::Stopping, ..) => JobState::Stopping,
            (_, None, _) => JobState::Waiting,
            (_, Some(_), None) => JobState::Orphaned,
            (Phase::Assigned, ..) if record.not_before() > self.clock.now() => JobState::Delayed,
            (Phase::Assigned, ..) => JobState::Starting,
            (Phase::Running, ..) => JobState::Running,
        };
        (Some(state), node)
    }

    /// A record as it is to stand in the map.
    pub(crate) fn encode(&self, record: &JobRecord) -> Result<bytes::Bytes, Error> {
        self.tables.jobs.encode(record).map_err(|source| self.replica(source))
    }

    pub(crate) fn replica(&self, source: pulse_rmap::Error) -> Error {
        Error::Replica { pool: self.name.to_string(), source: Box::new(source) }
    }

    pub(crate) fn backend(&self, operation: &'static str) -> impl Fn(pulse_core::Error) -> Error {
        let pool = self.name.to_string();
        move |source| Error::Backend { operation, pool: pool.clone(), source }
    }

    pub(crate) fn timed_out(&self, operation: &'static str) -> Error {
        Error::TimedOut { operation, pool: self.name.to_string(), after: self.options.timeout }
    }

    pub(crate) fn shutting_down(&self) -> Error {
        Error::ShuttingDown { pool: self.name.to_string() }
    }

    pub(crate) fn closed(&self) -> Error {
        Error::Closed { pool: self.name.to_string() }
    }
}
