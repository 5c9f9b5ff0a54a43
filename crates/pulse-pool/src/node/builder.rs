//! Joining a pool.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64},
    },
    time::Duration,
};

use pulse_core::{Client, MAX_LIFETIME, Session};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::Node;
use crate::{
    Error, NodeId,
    clock::Clock,
    fetching::Fetching,
    follow::follow,
    fresh::Fresh,
    group::Group,
    history::{History, verify},
    meter::Meter,
    order::Stamps,
    own_writes::OwnWrites,
    pool::{Options, Pool, SHORTEST_TIMEOUT},
    post::Waiting,
    runner::Runner,
    tables::{Refusal, Tables},
    watch::Watches,
    write::{Written, write},
    writing::Writing,
};

/// The shortest lifetime of a node's lease.
const SHORTEST_TTL: Duration = Duration::from_millis(100);

/// Joins a pool with options; made by [`Node::builder`]. [`guide::tuning`](crate::guide::tuning) says what they trade.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use pulse_pool::Node;
///
/// # let client = pulse_pool::connect("memory:").await?;
/// let node = Node::builder("sensors")
///     .worker_ttl(Duration::from_secs(15))
///     .shutdown_timeout(Duration::from_secs(25)) // less than until the process is killed
///     .join(&client)
///     .await?;
/// # node.close().await?;
/// # client.close().await;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until it joins"]
pub struct NodeBuilder {
    pool: String,
    options: Options,
}

impl NodeBuilder {
    pub(super) fn new(pool: String) -> Self {
        let options = Options {
            worker_ttl: Duration::from_secs(10),
            max_queued: 10_000,
            timeout: Duration::from_secs(30),
            shutdown_timeout: Duration::from_secs(60),
            replicates: true,
        };
        Self { pool, options }
    }

    /// Sets how long the node may be silent before it is declared dead and its jobs move. The node stops its jobs by
    /// itself a fifth of this time earlier. From a tenth of a second to a hundred years, default 10 s; short times find
    /// crashes sooner, and take slow networks for crashes.
    pub fn worker_ttl(mut self, ttl: Duration) -> Self {
        self.options.worker_ttl = ttl;
        self
    }

    /// Sets how many jobs may wait for their first start before dispatches of this node fail with
    /// [`Error::QueueFull`]; with 0 all of them do. Default 10,000.
    pub fn max_queued(mut self, jobs: u64) -> Self {
        self.options.max_queued = jobs;
        self
    }

    /// Sets how long a call may wait for workers, other nodes and the backend. From a millisecond to a hundred years,
    /// default 30 s.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.options.timeout = timeout;
        self
    }

    /// Sets how long [`Node::close`] may wait for handlers to stop their jobs. From a millisecond to a hundred years,
    /// default 60 s.
    pub fn shutdown_timeout(mut self, timeout: Duration) -> Self {
        self.options.shutdown_timeout = timeout;
        self
    }

    /// Makes it a node that dispatches, stops, notifies and asks, but runs nothing, and does not hold the records of
    /// the jobs in memory: for programs that hand in work and take no part in it. [`Node::add_worker`] is an error
    /// then, and [`Node::jobs`] and its like ask the backend.
    ///
    /// While it waits for jobs it follows the changes of all jobs of the pool, and half a minute longer.
    pub fn client_only(mut self) -> Self {
        self.options.replicates = false;
        self
    }

    /// Joins the pool: returns once the node knows its jobs and workers and holds its lease.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`]; [`Error::ShuttingDown`] while the pool is [shut down](Node::shutdown); and
    /// [`Error::Replica`] or [`Error::Backend`] if the pool's name is invalid or the backend fails. Nothing is left
    /// behind then.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, a lease may be left behind that runs out by itself.
    pub async fn join(self, client: &Client) -> Result<Node, Error> {
        let Options { worker_ttl, timeout, shutdown_timeout, .. } = self.options;
        let invalid = |reason| Err(Error::InvalidOption { pool: self.pool.clone(), reason });
        for (what, time, least) in [
            ("worker TTL", worker_ttl, SHORTEST_TTL),
            ("time-out", timeout, SHORTEST_TIMEOUT),
            ("shutdown time-out", shutdown_timeout, SHORTEST_TIMEOUT),
        ] {
            if !(least..=MAX_LIFETIME).contains(&time) {
                return invalid(format!("a {what} of {time:?} is not from {least:?} to a hundred years"));
            }
        }
        let node = NodeId::random();
        let tables = Arc::new(Tables::join(client, &self.pool, node, self.options.replicates).await?);
        let swept = client.keep_swept(tables.scope());
        let clock = Clock::read(client, tables.scope()).await.map_err(|source| Error::Backend {
            operation: "join",
            pool: self.pool.clone(),
            source,
        })?;
        let (commands, from_node) = mpsc::channel(16);
        let stop = CancellationToken::new();
        let name = Arc::from(self.pool);
        let meter = Meter::new(&name);
        let is_full = Arc::default();
        let pool = Arc::new(Pool {
            name,
            node,
            waiting: Waiting::default(),
            writing: Group::new(Writing {
                tables: tables.clone(),
                max_queued: self.options.max_queued,
                is_full: Arc::clone(&is_full),
            }),
            is_full,
            fetching: Group::new(Fetching::new(tables.clone())),
            options: self.options,
            fresh: Fresh::default(),
            watches: Watches::new(self.options.replicates),
            members: watch::Sender::new(Arc::new(tables.members())),
            meter,
            lost: AtomicU64::new(0),
            clock,
            stamps: Stamps::default(),
            own_writes: OwnWrites::default(),
            left_behind: AtomicBool::new(false),
            gives_up: CancellationToken::new(),
            history: History::new(self.options.worker_ttl),
            shut: AtomicBool::new(false),
            cut_off: AtomicBool::new(false),
            tables,
            _swept: swept,
        });
        let until = Instant::now() + pool.options.timeout;
        if pool.options.replicates {
            let verified = timeout_at(until, verify(&pool, pool.tables.jobs.snapshot().readings())).await;
            verified.map_err(|_| pool.timed_out("join"))?.map_err(pool.backend("join"))?;
        }
        let session = Session::open(client, pool.tables.scope(), self.options.worker_ttl);
        let session = session.await.map_err(pool.backend("join"))?;
        let mark = pool.tables.mark(pool.node).map_err(|source| pool.replica(source))?;
        let enter = pool.tables.enter(pool.node, mark, session.lease());
        match write(client, &enter, None, Some(until)).await.map_err(pool.backend("join"))? {
            Written::Refused(Refusal::ShuttingDown(_)) | Written::RefusedAfterUnknown(Refusal::ShuttingDown(_)) => {
                return Err(pool.shutting_down());
            }
            Written::Refused(_) | Written::RefusedAfterUnknown(_) => return Err(pool.timed_out("join")),
            Written::Done(_) => {}
        }
        let runner = Runner::new(pool.clone(), session, from_node, stop.clone());
        let tasks = TaskTracker::new();
        tasks.spawn(runner.run());
        if !pool.options.replicates {
            tasks.spawn(follow(pool.clone(), stop.clone()));
        }
        tasks.close();
        Ok(Node { pool, commands, stop, tasks, ends: true })
    }
}
