//! A pool in figures.

use crate::{JobState, decide::Members, pool::Pool, record::JobRecord};

/// How many of everything there is in a pool; see [`Node::stats`](crate::Node::stats).
///
/// ```
/// # use pulse_pool::Node;
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let client = pulse_pool::connect("memory:").await?;
/// let node = Node::join(&client, "mails").await?;
/// node.enqueue("ada@example.org", "welcome").await?;
/// let stats = node.stats().await?;
/// println!("{} jobs, of which {} wait for one of {} workers", stats.jobs, stats.waiting, stats.workers);
/// # client.close().await;
/// # Ok(()) }
/// ```
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

impl PoolStats {
    /// Of a pool without jobs.
    pub(crate) fn of(members: &Members, nodes: usize) -> Self {
        Self { nodes, workers: members.iter().count(), ..Self::default() }
    }

    pub(crate) fn count(&mut self, pool: &Pool, members: &Members, record: &JobRecord) {
        let (Some(state), node) = pool.state_of(record, members) else { return };
        self.jobs += 1;
        self.jobs_here += usize::from(node == Some(pool.node));
        *match state {
            JobState::Waiting => &mut self.waiting,
            JobState::Delayed => &mut self.delayed,
            JobState::Starting => &mut self.starting,
            JobState::Running => &mut self.running,
            JobState::Stopping => &mut self.stopping,
            JobState::Orphaned => &mut self.orphaned,
        } += 1;
    }
}
