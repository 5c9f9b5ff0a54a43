//! How a worker behaves.

use std::{collections::BTreeSet, num::NonZeroUsize};

/// Options of a worker; see [`Node::add_worker_with`](crate::Node::add_worker_with).
///
/// ```
/// # use pulse_pool::{HandlerError, Job, JobHandler, JobKey, Node};
/// # struct Renderer;
/// # #[pulse_pool::async_trait]
/// # impl JobHandler for Renderer {
/// #     async fn start(&self, _: Job) -> Result<(), HandlerError> { Ok(()) }
/// #     async fn stop(&self, _: &JobKey) -> Result<(), HandlerError> { Ok(()) }
/// # }
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use pulse_pool::{NewJob, WorkerOptions};
///
/// # let client = pulse_pool::connect("memory:").await?;
/// # let node = Node::join(&client, "films").await?;
/// // Twice the share of an ordinary worker, four jobs at a time, and those that require a GPU.
/// let options = WorkerOptions::default().with_weight(2).with_concurrency(4).with_label("gpu");
/// node.add_worker_with(Renderer, options).await?;
/// node.dispatch_job(NewJob::new("film 7", "").requires("gpu")).await?;
/// # client.close().await;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerOptions {
    /// Its share of the jobs, compared with the other workers' weights; 0 takes none.
    pub weight: u32,
    /// How many of its jobs may run at once; the others wait for their turn. `None`: all.
    pub concurrency: Option<NonZeroUsize>,
    /// What jobs may [require](crate::NewJob::requires).
    pub labels: BTreeSet<String>,
}

impl Default for WorkerOptions {
    /// A weight of 1, no limit, no labels.
    fn default() -> Self {
        Self { weight: 1, concurrency: None, labels: BTreeSet::new() }
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

    /// Sets how many of its jobs may run at once. The others wait for their turn, by
    /// [priority](crate::NewJob::priority) and age. 0 stands for 1.
    #[must_use]
    pub fn with_concurrency(mut self, jobs: usize) -> Self {
        self.concurrency = Some(NonZeroUsize::new(jobs).unwrap_or(NonZeroUsize::MIN));
        self
    }

    /// Adds a label, which jobs may [require](crate::NewJob::requires). It gets jobs that require none all the same.
    #[must_use]
    pub fn with_label(mut self, label: impl Into<String>) -> Self {
        self.labels.insert(label.into());
        self
    }
}
