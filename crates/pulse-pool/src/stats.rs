//! A pool in figures.

use crate::{JobState, Node};

/// How many of everything there is in a pool, as one node's replica shows it; see [`Node::stats`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct PoolStats {
    /// Nodes that are alive, or whose lease has not run out yet.
    pub nodes: usize,
    /// Workers of all nodes.
    pub workers: usize,
    /// Jobs in all states.
    pub jobs: usize,
    /// Jobs that belong to workers of this node.
    pub jobs_here: usize,
    /// See [`JobState::Waiting`].
    pub waiting: usize,
    /// See [`JobState::Delayed`].
    pub delayed: usize,
    /// See [`JobState::Starting`].
    pub starting: usize,
    /// See [`JobState::Running`].
    pub running: usize,
    /// See [`JobState::Stopping`].
    pub stopping: usize,
    /// See [`JobState::Orphaned`].
    pub orphaned: usize,
}

impl Node {
    /// Counts the nodes, workers and jobs of the pool as this node's replica shows them. Goes over all jobs: meant for a
    /// status page or a gauge, not for each request.
    #[must_use]
    pub fn stats(&self) -> PoolStats {
        self.shared_pool().stats()
    }
}

impl crate::pool::Pool {
    pub(crate) fn stats(&self) -> PoolStats {
        let members = self.members.borrow().clone();
        let workers = members.iter().count();
        let mut stats = PoolStats { nodes: self.tables.nodes(), workers, ..PoolStats::default() };
        for (_, record) in self.tables.jobs.snapshot().iter() {
            let (Some(state), node) = self.state_of(record, &members) else { continue };
            stats.jobs += 1;
            stats.jobs_here += usize::from(node == Some(self.node));
            *match state {
                JobState::Waiting => &mut stats.waiting,
                JobState::Delayed => &mut stats.delayed,
                JobState::Starting => &mut stats.starting,
                JobState::Running => &mut stats.running,
                JobState::Stopping => &mut stats.stopping,
                JobState::Orphaned => &mut stats.orphaned,
            } += 1;
        }
        stats
    }
}
