//! The handle that users hold.

mod batch;
mod builder;
mod destroy;
mod dispatch;
mod info;
mod leave;
mod notify;
mod outcome;
mod query;
mod stop;

use std::{
    fmt,
    sync::{Arc, atomic::Ordering},
};

use bytes::Bytes;
use pulse_core::Client;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::{Instant, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::{
    builder::NodeBuilder,
    destroy::destroy,
    info::{JobInfo, JobState, WorkerInfo},
};
use crate::{
    Error, JobHandler, JobKey, NodeId, WorkerId, WorkerOptions, contain::Handler, pool::Pool, runner::Command,
};

/// A member of a pool: it dispatches and stops jobs, and runs those that belong to its workers.
///
/// [`Node::close`] hands its jobs over to the others. Dropping it without that is like a crash, as far as the rest of
/// the pool can tell: its jobs end at once ([`Job::stopped`](crate::Job::stopped)), and move when its lease has run
/// out.
///
/// ```
/// # use pulse_pool::{HandlerError, Job, JobHandler, JobKey, Node};
/// # struct Beeper;
/// # #[pulse_pool::async_trait]
/// # impl JobHandler for Beeper {
/// #     async fn start(&self, _: Job) -> Result<(), HandlerError> { Ok(()) }
/// #     async fn stop(&self, _: &JobKey) -> Result<(), HandlerError> { Ok(()) }
/// # }
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let client = pulse_pool::connect("memory:").await?;
/// let node = Node::join(&client, "beepers").await?;
/// node.add_worker(Beeper).await?;
/// node.dispatch("kitchen", "beep").await?; // it runs now
/// assert_eq!(node.jobs().await?.len(), 1);
/// node.stop("kitchen").await?; // it has ended
/// node.close().await?;
/// # client.close().await;
/// # Ok(()) }
/// ```
pub struct Node {
    pool: Arc<Pool>,
    /// To the runner.
    commands: mpsc::Sender<Command>,
    /// Ends the runner at once, with all jobs of this node.
    stop: CancellationToken,
    /// Holds the runner.
    tasks: TaskTracker,
    /// Whether the node ends when this is dropped: not what its own tasks hold.
    ends: bool,
}

impl Node {
    /// Joins the pool of that name with the default options. There is no pool apart from its nodes and jobs: the first
    /// to join makes it.
    ///
    /// Everything of a pool lies in the [scope](pulse_core::Scope) of its name.
    ///
    /// # Errors
    ///
    /// Those of [`NodeBuilder::join`].
    pub async fn join(client: &Client, pool: impl Into<String>) -> Result<Self, Error> {
        Self::builder(pool).join(client).await
    }

    /// Begins to join a pool.
    pub fn builder(pool: impl Into<String>) -> NodeBuilder {
        NodeBuilder::new(pool.into())
    }

    /// Identifies this node among those of the pool.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.pool.node
    }

    /// The name of the pool.
    #[must_use]
    pub fn pool(&self) -> &str {
        &self.pool.name
    }

    /// Adds a worker with the default options, and returns once it takes jobs. The jobs that belong to it from now on
    /// move here.
    ///
    /// The id is another one after the node was cut off from the pool and joined again; [`Node::remove_worker`] still
    /// knows the worker by the old one.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`] if the backend does not answer in time: the worker takes jobs as soon as it does;
    /// [`Error::Closed`], [`Error::Backend`]; [`Error::ClientOnly`] on a node that was made without workers.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the worker may be added all the same.
    pub async fn add_worker(&self, handler: impl JobHandler) -> Result<WorkerId, Error> {
        self.add_worker_with(handler, WorkerOptions::default()).await
    }

    /// Adds a worker; see [`Node::add_worker`].
    ///
    /// # Errors
    ///
    /// Those of [`Node::add_worker`].
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the worker may be added all the same.
    pub async fn add_worker_with(&self, handler: impl JobHandler, options: WorkerOptions) -> Result<WorkerId, Error> {
        if !self.pool.options.replicates {
            return Err(Error::ClientOnly { pool: self.pool.name.to_string() });
        }
        let handler = Handler::new(handler);
        self.ask("add a worker", |reply| Command::AddWorker { handler, options, reply }).await
    }

    /// Removes a worker of this node, and returns once its jobs are handed over, or, where it was the pool's last, wait
    /// for another one. Jobs of other workers do not move. [`Node::workers`] does not show it any more then, unless the
    /// node is cut off or its replica far behind.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownWorker`]; [`Error::TimedOut`] if handlers or the backend take too long: it goes on; and
    /// [`Error::Closed`].
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the worker is removed all the same once the request has been made.
    pub async fn remove_worker(&self, worker: WorkerId) -> Result<(), Error> {
        self.ask("remove a worker", |reply| Command::RemoveWorker { worker, reply }).await
    }

    /// What a job was dispatched with, read from the backend; `None` if there is no job of that key.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidKey`], [`Error::Backend`]; the latter also if what stands beside the job's record is damaged.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn job_payload(&self, key: impl AsRef<str>) -> Result<Option<Bytes>, Error> {
        let key = JobKey::new(key)?;
        let failed = self.pool.backend("read a payload");
        let entry = self.pool.tables.read_entry(&key).await.map_err(&failed)?;
        let content = entry.map(|entry| self.pool.tables.open(&key, entry)).transpose().map_err(&failed)?;
        Ok(content.map(|content| content.payload))
    }

    /// The workers of this node as its replica shows them, by id.
    #[must_use]
    pub fn workers(&self) -> Vec<WorkerInfo> {
        let mut workers = self.pool_workers();
        workers.retain(|worker| worker.node == self.id());
        workers
    }

    /// The workers of the pool as this node's replica shows them, by id.
    #[must_use]
    pub fn pool_workers(&self) -> Vec<WorkerInfo> {
        let members = self.pool.members.borrow().clone();
        let info = |(id, record): (WorkerId, &crate::record::WorkerRecord)| WorkerInfo {
            id,
            node: record.node,
            weight: record.weight,
            draining: record.draining,
            labels: record.labels.clone(),
        };
        members.iter().map(info).collect()
    }

    /// Whether the pool was [shut down](Self::shutdown), or is about to be.
    #[must_use]
    pub fn is_shutdown(&self) -> bool {
        self.pool.shut.load(Ordering::Relaxed)
    }

    /// Whether the node is cut off from the pool: its lease was lost, so that all its jobs were stopped, and it has not
    /// joined again yet. It does so by itself, with new workers, as soon as the backend lets it.
    #[must_use]
    pub fn is_cut_off(&self) -> bool {
        self.pool.cut_off.load(Ordering::Relaxed)
    }

    /// Whether the node was closed, or its client was.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.commands.is_closed()
    }

    /// Sends the runner a request and waits for the answer.
    async fn ask<T>(
        &self,
        operation: &'static str,
        request: impl FnOnce(oneshot::Sender<Result<T, Error>>) -> Command,
    ) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        let asked = async {
            self.commands.send(request(reply)).await.map_err(|_| self.pool.closed())?;
            answer.await.map_err(|_| self.pool.closed())?
        };
        timeout(self.pool.options.timeout, asked).await.map_err(|_| self.pool.timed_out(operation))?
    }

    /// The same node, for a task of its own.
    pub(crate) fn handle(&self) -> Self {
        Self {
            pool: self.pool.clone(),
            commands: self.commands.clone(),
            stop: self.stop.clone(),
            tasks: self.tasks.clone(),
            ends: false,
        }
    }

    pub(crate) fn shared_pool(&self) -> Arc<Pool> {
        self.pool.clone()
    }

    /// Cancelled when the node has ended.
    pub(crate) fn end(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Runs a task of the node, which has to end with it.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        self.tasks.spawn(task)
    }

    /// When a call that begins now has to give up.
    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.pool.options.timeout
    }

    /// When a call began that has to give up then.
    fn begun_at(&self, deadline: Instant) -> Instant {
        deadline.checked_sub(self.pool.options.timeout).unwrap_or(deadline)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if self.ends {
            self.stop.cancel();
        }
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("pool", &self.pool.name).field("id", &self.id()).finish_non_exhaustive()
    }
}
