//! What the pool writes down: the records of workers and jobs.
//!
//! These are the values of the replicated maps, read by nodes of every version: fields may be added with a default, never
//! changed or removed. The names of the fields are written with every record, hence the short ones.

use pulse_core::Version;
use serde::{Deserialize, Serialize};

use crate::{
    Cadence, Epoch, NodeId, WorkerId,
    id::{AssignmentId, DispatchId},
};

/// How many attempts of a job may end with its node cut off before such count as failed.
const CUT_OFF_AT_MOST: u32 = 10;

/// A worker, bound to the lease of its node: it vanishes with the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WorkerRecord {
    #[serde(rename = "n")]
    pub(crate) node: NodeId,
    /// Its share of the jobs, compared with the others'.
    #[serde(rename = "w")]
    pub(crate) weight: u32,
    /// It hands its jobs over and gets no more.
    #[serde(rename = "d")]
    pub(crate) draining: bool,
    /// What a job may ask for, sorted.
    #[serde(rename = "l", default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) labels: Vec<String>,
}

impl WorkerRecord {
    /// The weight to place jobs by.
    pub(crate) fn placing_weight(&self) -> u32 {
        if self.draining { 0 } else { self.weight }
    }

    /// Whether it has all that a job asks for.
    pub(crate) fn has(&self, needs: &[String]) -> bool {
        needs.iter().all(|need| self.labels.binary_search(need).is_ok())
    }
}

/// A job. Its payload stands in a map of its own, which is not replicated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct JobRecord {
    #[serde(rename = "d")]
    pub(crate) dispatch: DispatchId,
    #[serde(rename = "a")]
    pub(crate) assignment: AssignmentId,
    /// Nobody but this worker may run the job; `None`: nobody may.
    #[serde(rename = "o")]
    pub(crate) owner: Option<WorkerId>,
    #[serde(rename = "p")]
    pub(crate) phase: Phase,
    /// Of the latest activation that came to run; `None` if none did yet.
    #[serde(rename = "e")]
    pub(crate) epoch: Option<Epoch>,
    /// What the owner was chosen by.
    #[serde(rename = "v")]
    pub(crate) placed_by: Option<PlacedBy>,
    #[serde(rename = "m", default)]
    pub(crate) terms: Terms,
}

/// What was said of a job when it was dispatched, and what became of it since.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Terms {
    /// When it was dispatched, by the server's clock, in milliseconds.
    #[serde(rename = "t", default)]
    pub(crate) at: u64,
    /// It is not started before this moment of the server's clock, in milliseconds; 0: at once.
    #[serde(rename = "b", default, skip_serializing_if = "is_default")]
    pub(crate) not_before: u64,
    /// Jobs of a greater one start first where a worker has not enough room for all.
    #[serde(rename = "i", default, skip_serializing_if = "is_default")]
    pub(crate) priority: i32,
    /// How many attempts failed since it was dispatched.
    #[serde(rename = "f", default, skip_serializing_if = "is_default")]
    pub(crate) failed: u32,
    /// How many attempts ended because their node was cut off and stopped them, and do not count as failed.
    #[serde(rename = "c", default, skip_serializing_if = "is_default")]
    pub(crate) cut_off: u32,
    /// The labels that its worker must have, sorted.
    #[serde(rename = "l", default, skip_serializing_if = "Option::is_none")]
    pub(crate) needs: Option<Box<[String]>>,
}

impl Terms {
    pub(crate) fn needs(&self) -> &[String] {
        self.needs.as_deref().unwrap_or_default()
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A job that was given up. Its payload stands beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DeadRecord {
    #[serde(rename = "r")]
    pub(crate) reason: String,
    /// By the server's clock, in milliseconds.
    #[serde(rename = "t")]
    pub(crate) at: u64,
    #[serde(rename = "m")]
    pub(crate) terms: Terms,
}

/// A ticker: when its next tick is due, and how it goes on from there. Whoever replaces the record when the tick is due has
/// the tick.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TickerRecord {
    /// Drawn at random for each record, so that whoever wrote it can tell.
    #[serde(rename = "i")]
    pub(crate) id: u64,
    #[serde(rename = "c")]
    pub(crate) cadence: Cadence,
    /// The number of the next tick, from 1.
    #[serde(rename = "n")]
    pub(crate) number: u64,
    /// When it is due, by the server's clock, in milliseconds; `None`: never.
    #[serde(rename = "d")]
    pub(crate) due: Option<u64>,
    /// It was stopped everywhere. The record only says so, and expires.
    #[serde(rename = "s", default, skip_serializing_if = "is_default")]
    pub(crate) stopped: bool,
}

/// The run of the server that the pool's nodes have seen, and what follows from the runs before it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ServerRecord {
    /// As the backend names it.
    #[serde(rename = "r")]
    pub(crate) run: String,
    /// When a node noticed that confirmed changes may be lost, by the server's clock, in milliseconds; 0: never.
    #[serde(rename = "s")]
    pub(crate) since: u64,
    /// What the epochs of starts exceed the revisions of the jobs by.
    #[serde(rename = "f")]
    pub(crate) floor: u64,
    /// The longest lifetime of a node's lease so far, in milliseconds.
    #[serde(rename = "t")]
    pub(crate) longest_ttl: u64,
}

/// A version of the workers' map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PlacedBy {
    #[serde(rename = "i")]
    pub(crate) incarnation: u64,
    #[serde(rename = "r")]
    pub(crate) revision: u64,
}

impl From<Version> for PlacedBy {
    fn from(version: Version) -> Self {
        Self { incarnation: version.incarnation.0, revision: version.revision.0 }
    }
}

/// How far a job is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Phase {
    /// Recorded, and to be started by its owner, or by whoever pulls it.
    #[serde(rename = "a")]
    Assigned,
    /// Its owner's handler accepted it.
    #[serde(rename = "r")]
    Running,
    /// To be stopped by its owner and then removed.
    #[serde(rename = "s")]
    Stopping,
    /// Its owner's handler refused it. The record only carries the message to whoever dispatched it, and expires; for
    /// everybody else there is no such job.
    #[serde(rename = "x")]
    Rejected(String),
}

impl JobRecord {
    /// A job that nobody has run yet.
    pub(crate) fn dispatched(
        dispatch: DispatchId,
        terms: Terms,
        owner: Option<WorkerId>,
        placed_by: Option<PlacedBy>,
    ) -> Self {
        let assignment = AssignmentId::random();
        Self { dispatch, assignment, owner, phase: Phase::Assigned, epoch: None, placed_by, terms }
    }

    /// The same job given to another worker, or to nobody.
    pub(crate) fn assigned_to(&self, owner: Option<WorkerId>, placed_by: Option<PlacedBy>) -> Self {
        Self { assignment: AssignmentId::random(), owner, phase: Phase::Assigned, placed_by, ..self.clone() }
    }

    /// The same assignment, running.
    pub(crate) fn running(&self, epoch: Epoch) -> Self {
        Self { phase: Phase::Running, epoch: Some(epoch), ..self.clone() }
    }

    /// The same job after its owner was found dead. If it ran, that was an attempt, which has failed.
    pub(crate) fn pulled_by(&self, owner: WorkerId, placed_by: Option<PlacedBy>) -> Self {
        let mut pulled = self.assigned_to(Some(owner), placed_by);
        if self.phase == Phase::Running && self.owner.is_some() {
            pulled.terms.failed = pulled.terms.failed.saturating_add(1);
        }
        pulled
    }

    /// The same job after its owner's node was cut off, which has stopped it and takes it back now. That attempt has not
    /// failed, up to a number: a job must not go on for ever that blocks its node each time until that is cut off.
    pub(crate) fn taken_back_by(&self, owner: WorkerId, placed_by: Option<PlacedBy>) -> Self {
        if self.phase != Phase::Running || self.terms.cut_off >= CUT_OFF_AT_MOST {
            return self.pulled_by(owner, placed_by);
        }
        let mut pulled = self.assigned_to(Some(owner), placed_by);
        pulled.terms.cut_off += 1;
        pulled
    }

    /// The same job of the same owner, to be started again at that time of the server's clock.
    pub(crate) fn again(&self, not_before: u64, failed: bool) -> Self {
        let failures = self.terms.failed.saturating_add(u32::from(failed));
        let terms = Terms { not_before, failed: failures, ..self.terms.clone() };
        Self { assignment: AssignmentId::random(), phase: Phase::Assigned, terms, ..self.clone() }
    }

    /// The same assignment, to be stopped.
    pub(crate) fn stopping(&self) -> Self {
        Self { phase: Phase::Stopping, ..self.clone() }
    }

    /// The same assignment, refused with a message.
    pub(crate) fn rejected(&self, message: &str) -> Self {
        const LONGEST: usize = 1024;
        let message = message.chars().take(LONGEST).collect();
        Self { phase: Phase::Rejected(message), ..self.clone() }
    }

    /// Whether there is a job, rather than only the trace of a refused one.
    pub(crate) fn is_job(&self) -> bool {
        !matches!(self.phase, Phase::Rejected(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_counts_that_ran_when_its_node_died() {
        let assigned = JobRecord::dispatched(DispatchId(1), Terms::default(), Some(WorkerId(1)), None);
        let pulled = assigned.pulled_by(WorkerId(2), None);
        assert_eq!(pulled.terms.failed, 0, "it was never begun");
        let pulled = pulled.running(Epoch(1)).pulled_by(WorkerId(3), None);
        assert_eq!((pulled.terms.failed, pulled.owner), (1, Some(WorkerId(3))));
    }

    #[test]
    fn an_attempt_does_not_count_that_its_node_stopped_and_takes_back_unless_that_happens_again_and_again() {
        let mut job = JobRecord::dispatched(DispatchId(1), Terms::default(), Some(WorkerId(1)), None);
        for _ in 0..3 {
            job = job.taken_back_by(WorkerId(2), None);
        }
        assert_eq!(job.terms.cut_off, 0, "it was never begun");
        for _ in 0..CUT_OFF_AT_MOST {
            job = job.running(Epoch(1)).taken_back_by(WorkerId(2), None);
        }
        assert_eq!(job.terms.failed, 0);
        job = job.running(Epoch(1)).taken_back_by(WorkerId(2), None);
        assert_eq!((job.terms.failed, job.terms.cut_off), (1, CUT_OFF_AT_MOST));
    }
}
