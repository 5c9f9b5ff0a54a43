//! How a worker behaves.

/// Options of a worker; see [`Node::add_worker_with`](crate::Node::add_worker_with).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerOptions {
    /// Its share of the jobs, compared with the other workers' weights; 0 takes none.
    pub weight: u32,
}

impl Default for WorkerOptions {
    /// A weight of 1.
    fn default() -> Self {
        Self { weight: 1 }
    }
}

impl WorkerOptions {
    /// Sets its share of the jobs, compared with the other workers' weights: a worker of weight 2 gets twice as many as
    /// one of weight 1. 0 takes none.
    #[must_use]
    pub fn with_weight(mut self, weight: u32) -> Self {
        self.weight = weight;
        self
    }
}
