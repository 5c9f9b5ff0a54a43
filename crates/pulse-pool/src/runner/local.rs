//! What runs on this node, or is about to, or is being stopped.

use std::{collections::HashMap, fmt, sync::Arc};

use tokio_util::sync::CancellationToken;

use crate::{JobHandler, JobKey, WorkerId, decide::Here, id::AssignmentId};

/// What the node has of one job.
#[derive(Debug)]
pub(super) enum Local {
    /// The handler's start is under way.
    Starting(Activation),
    /// The handler has it.
    Running(Activation),
    /// The handler's stop is under way, for this worker, or a transaction.
    Busy(Option<WorkerId>),
}

/// A job in the hands of a handler.
#[derive(Clone)]
pub(super) struct Activation {
    pub(super) assignment: AssignmentId,
    pub(super) worker: WorkerId,
    pub(super) handler: Arc<dyn JobHandler>,
    /// Cancelled when the job is to stop. Breaks off the handler's start, and is what the job sees.
    pub(super) stopped: CancellationToken,
}

impl fmt::Debug for Activation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Activation")
            .field("assignment", &self.assignment)
            .field("worker", &self.worker)
            .finish_non_exhaustive()
    }
}

/// The jobs that the node has something of.
#[derive(Debug, Default)]
pub(super) struct LocalJobs(HashMap<JobKey, Local>);

impl LocalJobs {
    pub(super) fn here(&self, key: &str) -> Here {
        match self.0.get(key) {
            None => Here::Nothing,
            Some(Local::Starting(activation)) => Here::Starting(activation.assignment),
            Some(Local::Running(activation)) => Here::Running(activation.assignment),
            Some(Local::Busy(_)) => Here::Busy,
        }
    }

    pub(super) fn set(&mut self, key: JobKey, local: Option<Local>) {
        match local {
            Some(local) => self.0.insert(key, local),
            None => self.0.remove(&key),
        };
    }

    /// Breaks off the start that is under way.
    pub(super) fn interrupt(&self, key: &JobKey) {
        if let Some(Local::Starting(activation)) = self.0.get(key) {
            activation.stopped.cancel();
        }
    }

    /// Takes out what runs, to be stopped.
    pub(super) fn begin_stop(&mut self, key: &JobKey) -> Option<Activation> {
        match self.0.get_mut(key) {
            Some(local @ Local::Running(_)) => {
                let Local::Running(activation) = std::mem::replace(local, Local::Busy(None)) else { return None };
                *local = Local::Busy(Some(activation.worker));
                Some(activation)
            }
            _ => None,
        }
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &JobKey> {
        self.0.keys()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the worker's handler has anything in hand.
    pub(super) fn any_of(&self, worker: WorkerId) -> bool {
        self.0.values().any(|local| match local {
            Local::Starting(activation) | Local::Running(activation) => activation.worker == worker,
            Local::Busy(of) => *of == Some(worker),
        })
    }
}
