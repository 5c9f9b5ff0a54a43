//! What a node tells about its pool.

use std::time::{Duration, SystemTime};

use crate::{Epoch, JobKey, NodeId, WorkerId};

/// A job as the node's replica shows it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct JobInfo {
    /// Its key.
    pub key: JobKey,
    /// How far it is.
    pub state: JobState,
    /// The worker that it is assigned to, which may be dead; `None` while it waits for one.
    pub owner: Option<WorkerId>,
    /// The node of that worker, if it is alive.
    pub node: Option<NodeId>,
    /// Of the latest start that succeeded; `None` if none has.
    pub epoch: Option<Epoch>,
    /// When it was dispatched, by the server's clock.
    pub dispatched: SystemTime,
    /// How long ago that was, when it was looked at. Not compared by `==`.
    pub age: Duration,
    /// See [`NewJob::priority`](crate::NewJob::priority).
    pub priority: i32,
    /// The labels that its worker must have.
    pub requires: Vec<String>,
    /// How many attempts failed since it was dispatched.
    pub failed: u32,
}

impl PartialEq for JobInfo {
    fn eq(&self, other: &Self) -> bool {
        let parts = |info: &Self| {
            (
                info.key.clone(),
                info.state,
                info.owner,
                info.node,
                info.epoch,
                info.dispatched,
                info.priority,
                info.failed,
            )
        };
        parts(self) == parts(other) && self.requires == other.requires
    }
}

impl Eq for JobInfo {}

/// How far a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum JobState {
    /// There is no worker for it, or none with the labels that it requires.
    Waiting,
    /// It is to start later; see [`NewJob::run_in`](crate::NewJob::run_in).
    Delayed,
    /// It is assigned to a worker, which is about to start it, or has no room for it yet.
    Starting,
    /// Its worker's handler accepted it.
    Running,
    /// Its worker was told to stop it.
    Stopping,
    /// Its worker is dead, and another one is about to take it over.
    Orphaned,
}

/// A worker as the node's replica shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerInfo {
    /// The worker.
    pub id: WorkerId,
    /// Its node.
    pub node: NodeId,
    /// Its share of the jobs, compared with the other workers' weights.
    pub weight: u32,
    /// Whether it is handing its jobs over because it leaves.
    pub draining: bool,
    /// What jobs may require of it.
    pub labels: Vec<String>,
}
