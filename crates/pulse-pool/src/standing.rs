//! The gauge `pulse_pool_jobs`: how many jobs are in which state (feature `metrics`), with the labels `pool` and
//! `state`: `waiting`, `delayed`, `starting`, `running`, `stopping`, `orphaned`.
//!
//! Every node answers for the jobs of its own workers, and one of all nodes for those that no living node has: the one
//! with the smallest id among those that hold the jobs. So each job is told of by one node, and the sum over all
//! processes is that of the pool. It is taken when the runner looks at everything, every five seconds; while jobs move,
//! or the node that answers for the rest changes, the sum may be off for as long.
//!
//! Nodes of one pool in one process add to the same gauge; a node that ends takes back what it has told.

use std::sync::Arc;

use metrics::{Gauge, SharedString, gauge};
use pulse_rmap::Snapshot;

use crate::{JobState, decide::Members, pool::Pool, record::JobRecord};

const STATES: [(JobState, &str); 6] = [
    (JobState::Waiting, "waiting"),
    (JobState::Delayed, "delayed"),
    (JobState::Starting, "starting"),
    (JobState::Running, "running"),
    (JobState::Stopping, "stopping"),
    (JobState::Orphaned, "orphaned"),
];

type Counts = [u32; STATES.len()];

/// What a node has told of where the jobs stand that it answers for.
pub(crate) struct Standing {
    gauges: [Gauge; STATES.len()],
    told: Counts,
}

impl Standing {
    pub(crate) fn new(pool: &Arc<str>) -> Self {
        let pool = || SharedString::from(pool.clone());
        Self {
            gauges: STATES.map(|(_, state)| gauge!("pulse_pool_jobs", "pool" => pool(), "state" => state)),
            told: Counts::default(),
        }
    }

    /// Looks at all jobs, and tells.
    pub(crate) fn take(&mut self, pool: &Pool, members: &Members, jobs: &Snapshot<JobRecord>) {
        let answers_for_the_rest = pool.tables.first_node().is_some_and(|node| node == pool.node);
        let mut counts = Counts::default();
        for (_, record) in jobs.iter() {
            let (Some(state), node) = pool.state_of(record, members) else { continue };
            if node.map_or(answers_for_the_rest, |node| node == pool.node) {
                let of_state = STATES.iter().zip(&mut counts).find(|((of, _), _)| *of == state);
                of_state.into_iter().for_each(|(_, count)| *count += 1);
            }
        }
        self.tell(counts);
    }

    /// Answers for nothing any more.
    pub(crate) fn end(&mut self) {
        self.tell(Counts::default());
    }

    fn tell(&mut self, counts: Counts) {
        for ((gauge, before), now) in self.gauges.iter().zip(self.told).zip(counts) {
            if before != now {
                gauge.increment(f64::from(now) - f64::from(before));
            }
        }
        self.told = counts;
    }
}

impl Drop for Standing {
    fn drop(&mut self) {
        self.end();
    }
}
