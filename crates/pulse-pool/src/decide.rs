//! What a node does about a job: a pure decision from what it sees.
//!
//! A node sees the record of a job in its replica, what runs here, and who is in the pool. [`decide`] names the one
//! next step, if any; when the step is done the node looks again. A stale view can only lead to a step that its
//! transaction refuses, because every step expects the state that it was decided on. So nothing here needs to be
//! remembered, and a change that was missed is made up for by the next look.
//!
//! Nodes that see different workers must not throw a job to and fro. Every record says by which version of the workers
//! it was placed, and its owner gives it away only by a later one; so a job moves at most once for each version.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, PoisonError, RwLock},
};

use crate::{
    WorkerId,
    id::AssignmentId,
    placement::Ring,
    record::{JobRecord, Phase, PlacedBy, WorkerRecord},
};

/// The pool's workers, as a node sees them.
#[derive(Debug, Default)]
pub(crate) struct Members {
    version: Option<PlacedBy>,
    workers: BTreeMap<WorkerId, WorkerRecord>,
    /// The pool is shut down: nothing may run.
    shut_down: bool,
    /// All workers.
    ring: Ring,
    /// The workers that have certain labels, made when they are first asked for.
    special: RwLock<HashMap<Box<[String]>, Arc<Ring>>>,
}

impl Members {
    pub(crate) fn new(version: Option<PlacedBy>, workers: BTreeMap<WorkerId, WorkerRecord>) -> Self {
        let ring = ring_of(&workers, &[]);
        Self { version, workers, shut_down: false, ring, special: RwLock::default() }
    }

    /// The same, in a pool that is shut down or not.
    pub(crate) fn shut_down(self, shut_down: bool) -> Self {
        Self { shut_down, ..self }
    }

    pub(crate) fn is_shut_down(&self) -> bool {
        self.shut_down
    }

    /// What a record that is placed by this view says of it.
    pub(crate) fn version(&self) -> Option<PlacedBy> {
        self.version
    }

    /// The record of a worker that is in the pool, be it draining or not.
    pub(crate) fn get(&self, worker: WorkerId) -> Option<&WorkerRecord> {
        self.workers.get(&worker)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (WorkerId, &WorkerRecord)> {
        self.workers.iter().map(|(worker, record)| (*worker, record))
    }

    /// The worker that a key belongs to, among those that have all these labels.
    pub(crate) fn owner(&self, key: &str, needs: &[String]) -> Option<WorkerId> {
        if needs.is_empty() {
            return self.ring.owner(key);
        }
        let known = self.special.read().unwrap_or_else(PoisonError::into_inner).get(needs).cloned();
        let ring = known.unwrap_or_else(|| {
            let ring = Arc::new(ring_of(&self.workers, needs));
            self.special.write().unwrap_or_else(PoisonError::into_inner).insert(needs.into(), ring.clone());
            ring
        });
        ring.owner(key)
    }

    /// Whether a job is to stay with its owner, as far as this view may say otherwise.
    fn stays_with(&self, key: &str, record: &JobRecord, owner: WorkerId) -> bool {
        self.owner(key, record.needs()) == Some(owner) || !self.is_later_than(record.placed_by())
    }

    /// Whether the workers have changed since a job was placed. Versions that cannot be compared, because the workers'
    /// map began anew, count as changed.
    fn is_later_than(&self, placed_by: Option<PlacedBy>) -> bool {
        match (self.version, placed_by) {
            (Some(now), Some(then)) if now.incarnation == then.incarnation => now.revision > then.revision,
            (now, then) => now != then,
        }
    }
}

fn ring_of(workers: &BTreeMap<WorkerId, WorkerRecord>, needs: &[String]) -> Ring {
    let able = workers.iter().filter(|(_, record)| record.has(needs));
    Ring::new(able.map(|(worker, record)| (*worker, record.placing_weight())))
}

/// What a node has of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Here {
    /// Nothing.
    Nothing,
    /// The handler's start is under way for this assignment.
    Starting(AssignmentId),
    /// The handler has this assignment running.
    Running(AssignmentId),
    /// The handler has this assignment, which was told to stop: whatever is decided since, there is no way back.
    Ending(AssignmentId),
    /// A step that is not to be disturbed is under way.
    Busy,
}

/// The next step for a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Call the handler's start: the job is ours and nothing runs here.
    Start(WorkerId),
    /// Break off the start that is under way.
    Interrupt,
    /// Call the handler's stop: what runs here is not ours any more, or is to end or to move.
    Stop,
    /// Take a job that nobody has, or whose owner is dead, for a worker of ours.
    Pull {
        /// Our worker.
        to: WorkerId,
        /// The owner that has to be gone.
        dead: Option<WorkerId>,
    },
    /// Give our job, which does not run any more, to another worker, or to nobody if there is none.
    HandOver {
        /// Our worker.
        from: WorkerId,
        /// The worker that it belongs to now.
        to: Option<WorkerId>,
    },
    /// Remove a job that was asked to stop and does not run any more.
    Remove {
        /// The owner that has to be gone, if it is not ours.
        dead: Option<WorkerId>,
    },
}

/// Decides the next step for the job of that key. `ours` are the workers of this node, as long as it holds its lease.
pub(crate) fn decide(
    key: &str,
    record: Option<&JobRecord>,
    here: Here,
    members: &Members,
    ours: &HashSet<WorkerId>,
) -> Option<Step> {
    let record = record.filter(|record| record.is_job() && !members.shut_down);
    match here {
        Here::Busy => None,
        Here::Starting(assignment) => (!stays(key, record, assignment, members, ours)).then_some(Step::Interrupt),
        Here::Running(assignment) => (!stays(key, record, assignment, members, ours)).then_some(Step::Stop),
        Here::Ending(_) => Some(Step::Stop),
        Here::Nothing => settle(key, record?, members, ours),
    }
}

/// Whether what runs here is to go on.
fn stays(
    key: &str,
    record: Option<&JobRecord>,
    assignment: AssignmentId,
    members: &Members,
    ours: &HashSet<WorkerId>,
) -> bool {
    record.is_some_and(|record| {
        record.assignment == assignment
            && record.phase != Phase::Stopping
            && record.owner().is_some_and(|owner| ours.contains(&owner) && members.stays_with(key, record, owner))
    })
}

/// The step for a job that does not run here.
fn settle(key: &str, record: &JobRecord, members: &Members, ours: &HashSet<WorkerId>) -> Option<Step> {
    let belongs_to = members.owner(key, record.needs());
    let stopping = record.phase == Phase::Stopping;
    match record.owner() {
        Some(owner) if ours.contains(&owner) => Some(if stopping {
            Step::Remove { dead: None }
        } else if members.stays_with(key, record, owner) {
            Step::Start(owner)
        } else {
            Step::HandOver { from: owner, to: belongs_to }
        }),
        Some(owner) if members.get(owner).is_some() => None,
        dead => match belongs_to {
            Some(worker) if !ours.contains(&worker) => None,
            _ if stopping => Some(Step::Remove { dead }),
            Some(worker) => Some(Step::Pull { to: worker, dead }),
            None => None,
        },
    }
}

#[cfg(test)]
mod tests;
