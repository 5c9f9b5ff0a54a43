//! What runs on this node, or is about to, or is being stopped.

use std::{collections::HashMap, fmt, sync::Arc};

use bytes::Bytes;
use pulse_rmap::Value;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::lost::InHand;
use crate::{
    JobKey, WorkerId, activation::Lifeline, contain::Handler, decide::Here, id::AssignmentId, pool::Pool,
    record::JobRecord, trace::Activity,
};

/// What the node has of one job.
#[derive(Debug)]
pub(super) enum Local {
    /// The handler's start is under way.
    Starting(Activation),
    /// The handler has it.
    Running(Activation),
    /// The handler's stop is under way, for this worker, or what follows from it.
    Busy(Option<WorkerId>),
    /// It does not run. A transaction is under way for it, whose record names that owner.
    Changing(Option<WorkerId>),
}

impl Local {
    /// The worker whose handler has the job in hand.
    fn worker(&self) -> Option<WorkerId> {
        match self {
            Self::Starting(activation) | Self::Running(activation) => Some(activation.activity.worker),
            Self::Busy(worker) => *worker,
            Self::Changing(_) => None,
        }
    }
}

/// A job in the hands of a handler.
#[derive(Clone)]
pub(super) struct Activation {
    pub(super) assignment: AssignmentId,
    /// By which it was started.
    pub(super) record: Value<JobRecord>,
    pub(super) job: InHand,
    pub(super) activity: Activity,
    pub(super) handler: Handler,
    /// For the job to hold on to.
    pub(super) lifeline: Arc<Lifeline>,
    /// Cancelled when the job is to stop. Breaks off the handler's start, and is what the job sees.
    pub(super) stopped: CancellationToken,
    /// Held by each call of the handler for the running job.
    pub(super) turn: Arc<Mutex<()>>,
}

impl Activation {
    /// The record as it has to stand in the map while the job runs.
    pub(super) fn running_record(&self, pool: &Pool) -> Option<Bytes> {
        pool.encode(&self.record.running(self.activity.epoch)).ok()
    }
}

impl fmt::Debug for Activation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Activation")
            .field("assignment", &self.assignment)
            .field("activity", &self.activity)
            .finish_non_exhaustive()
    }
}

/// The jobs that the node has something of.
#[derive(Debug, Default)]
pub(super) struct LocalJobs {
    jobs: HashMap<JobKey, Local>,
    /// How many of them each worker's handler has in hand.
    in_hand: HashMap<WorkerId, usize>,
}

impl LocalJobs {
    pub(super) fn here(&self, key: &str) -> Here {
        match self.jobs.get(key) {
            None => Here::Nothing,
            Some(Local::Starting(activation)) => Here::Starting(activation.assignment),
            // The start was through when it was broken off.
            Some(Local::Running(activation)) if activation.stopped.is_cancelled() => {
                Here::Ending(activation.assignment)
            }
            Some(Local::Running(activation)) => Here::Running(activation.assignment),
            Some(Local::Busy(_) | Local::Changing(_)) => Here::Busy,
        }
    }

    pub(super) fn set(&mut self, key: JobKey, local: Option<Local>) {
        let after = local.as_ref().and_then(Local::worker);
        let before = match local {
            Some(local) => self.jobs.insert(key, local),
            None => self.jobs.remove(&key),
        };
        let before = before.as_ref().and_then(Local::worker);
        if before == after {
            return;
        }
        if let Some(count) = before.and_then(|worker| self.in_hand.get_mut(&worker)) {
            *count -= 1;
        }
        self.in_hand.retain(|_, count| *count > 0);
        if let Some(worker) = after {
            *self.in_hand.entry(worker).or_default() += 1;
        }
    }

    /// The worker that has something of a job in hand.
    pub(super) fn worker_of(&self, key: &JobKey) -> Option<WorkerId> {
        self.jobs.get(key).and_then(Local::worker)
    }

    /// How many jobs the worker's handler has in hand.
    pub(super) fn count_of(&self, worker: WorkerId) -> usize {
        self.in_hand.get(&worker).copied().unwrap_or(0)
    }

    /// What runs, if it is that activation.
    pub(super) fn running(&self, key: &JobKey, assignment: AssignmentId) -> Option<&Activation> {
        match self.jobs.get(key) {
            Some(Local::Running(activation)) if activation.assignment == assignment => Some(activation),
            _ => None,
        }
    }

    /// All that runs.
    pub(super) fn all_running(&self) -> impl Iterator<Item = &Activation> {
        self.jobs.values().filter_map(|local| match local {
            Local::Running(activation) => Some(activation),
            _ => None,
        })
    }

    /// Breaks off the start that is under way. One that is written down is through: its end is looked at in a moment.
    pub(super) fn interrupt(&self, key: &JobKey) {
        if let Some(Local::Starting(activation)) = self.jobs.get(key)
            && !activation.lifeline.is_recorded()
        {
            activation.stopped.cancel();
        }
    }

    /// Takes out what runs, to be stopped or to be written down again.
    pub(super) fn take_running(&mut self, key: &JobKey) -> Option<Activation> {
        match self.jobs.get_mut(key) {
            Some(local @ Local::Running(_)) => {
                let Local::Running(activation) = std::mem::replace(local, Local::Busy(None)) else { return None };
                *local = Local::Busy(Some(activation.activity.worker));
                Some(activation)
            }
            _ => None,
        }
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &JobKey> {
        self.jobs.keys()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// Whether a transaction is under way for a job of that worker.
    pub(super) fn changes_any_of(&self, worker: WorkerId) -> bool {
        self.jobs.values().any(|local| matches!(local, Local::Changing(Some(owner)) if *owner == worker))
    }

    /// Whether the worker's handler has anything in hand.
    pub(super) fn any_of(&self, worker: WorkerId) -> bool {
        self.count_of(worker) > 0
    }
}
