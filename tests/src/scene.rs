//! What goes on in one scope while its servers are harmed: writes that are counted, deliveries that are noted, and jobs.
//!
//! Everything uses the options that it has by default, except where a test would have to wait long for their effect.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use pulse_core::{Client, Scope};
use pulse_pool::Node;
use pulse_rmap::Map;
use pulse_streaming::{EventStream, Notice, Start};
use tokio_util::task::AbortOnDropHandle;

use crate::{Jobs, eventually, soon};

/// The name of the scope, which is that of the pool too.
pub const SCOPE: &str = "hosts";
/// The lease of the nodes of a pool.
pub const LEASE: Duration = Duration::from_secs(3);
/// The scope.
///
/// # Panics
///
/// Never: the name is valid.
#[must_use]
pub fn scope() -> Scope {
    Scope::new(SCOPE).expect("the name is valid")
}

/// A client with the options that it has by default.
///
/// # Panics
///
/// If it cannot connect.
pub async fn connect(url: &str) -> Client {
    pulse_core::connect(url).await.expect("a server answers")
}

/// The map of the scope.
///
/// # Panics
///
/// If it cannot be joined.
pub async fn map(client: &Client) -> Map<u64> {
    Map::builder("m").scope(scope()).join(client).await.expect("the map can be joined")
}

/// The stream of the scope.
///
/// # Panics
///
/// Never: the name is valid.
#[must_use]
pub fn stream(client: &Client) -> EventStream {
    EventStream::in_scope(client, &scope(), "s").expect("the name is valid")
}

/// Waits for a condition, and returns how long that took from a moment on.
///
/// # Panics
///
/// After [`PATIENCE`](crate::PATIENCE).
pub async fn since(begun: Instant, what: &str, mut holds: impl FnMut() -> bool) -> Duration {
    eventually(what, async || if holds() { Ok(()) } else { Err("not yet") }).await;
    println!("{:?} until {what}", begun.elapsed());
    begun.elapsed()
}

/// A task that writes one number after the other until it is ended, and what is known to be written.
#[derive(Debug)]
pub struct Writer {
    /// The number that is being written.
    begun: Arc<AtomicU64>,
    written: Arc<Mutex<BTreeSet<u64>>>,
    enough: Arc<AtomicBool>,
    task: AbortOnDropHandle<Vec<String>>,
}

impl Writer {
    /// Sets the key `n` to each number in turn.
    #[must_use]
    pub fn of_map(map: &Map<u64>) -> Self {
        let map = map.clone();
        Self::begin(move |number| {
            let map = map.clone();
            async move {
                match map.set("n", &number).await {
                    Ok(_) => Ok(()),
                    Err(error) if error.is_retryable() || error.is_outcome_unknown() => Err(format!("{error:?}")),
                    Err(error) => panic!("a write fails, and not because of the servers: {error:?}"),
                }
            }
        })
    }

    /// Adds an event for each number.
    #[must_use]
    pub fn of_stream(stream: &EventStream) -> Self {
        let stream = stream.clone();
        Self::begin(move |number| {
            let stream = stream.clone();
            async move {
                match stream.add("n", number.to_string()).await {
                    Ok(_) => Ok(()),
                    Err(error) if error.is_retryable() || error.is_outcome_unknown() => Err(format!("{error:?}")),
                    Err(error) => panic!("an add fails, and not because of the servers: {error:?}"),
                }
            }
        })
    }

    fn begin<F>(write: impl Fn(u64) -> F + Send + 'static) -> Self
    where
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        let (written, enough) = (Arc::<Mutex<BTreeSet<u64>>>::default(), Arc::<AtomicBool>::default());
        let begun = Arc::<AtomicU64>::default();
        let (current, notes, end) = (begun.clone(), written.clone(), enough.clone());
        let task = tokio::spawn(async move {
            let mut errors = Vec::new();
            for number in 1.. {
                current.store(number, Ordering::Relaxed);
                match write(number).await {
                    Ok(()) => drop(notes.lock().unwrap_or_else(PoisonError::into_inner).insert(number)),
                    Err(error) => errors.push(error),
                }
                if end.load(Ordering::Relaxed) {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            errors
        });
        Self { begun, written, enough, task: AbortOnDropHandle::new(task) }
    }

    /// The newest number whose write has begun, 0 if none has.
    #[must_use]
    pub fn begun(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }

    /// The newest number that is known to be written, 0 if there is none.
    #[must_use]
    pub fn newest(&self) -> u64 {
        self.written.lock().unwrap_or_else(PoisonError::into_inner).last().copied().unwrap_or_default()
    }

    /// Waits until so many more were written.
    ///
    /// # Panics
    ///
    /// After [`PATIENCE`](crate::PATIENCE).
    pub async fn goes_on(&self, by: usize) {
        let count = || self.written.lock().unwrap_or_else(PoisonError::into_inner).len();
        let before = count();
        eventually("the writes go on", async || {
            let more = count() - before;
            if more >= by { Ok(()) } else { Err(more) }
        })
        .await;
    }

    /// Ends it; returns what is known to be written, and the errors of the other writes.
    ///
    /// # Panics
    ///
    /// If a write failed for another reason than the servers.
    pub async fn end(self) -> (BTreeSet<u64>, Vec<String>) {
        self.enough.store(true, Ordering::Relaxed);
        let errors = soon("the end of the last write", self.task).await.expect("the writes do not panic");
        let written = std::mem::take(&mut *self.written.lock().unwrap_or_else(PoisonError::into_inner));
        (written, errors)
    }
}

/// A task that takes and acknowledges what a sink delivers, and the numbers that were delivered.
#[derive(Debug)]
pub struct Taker {
    taken: Arc<Mutex<BTreeSet<u64>>>,
    task: AbortOnDropHandle<()>,
}

impl Taker {
    /// Joins the sink `s` of a stream.
    ///
    /// # Panics
    ///
    /// If that fails.
    pub async fn join(stream: &EventStream) -> Self {
        // What the answer of a lost connection carried comes again soon.
        let sink = stream.sink("s").start(Start::Oldest).ack_grace(Duration::from_secs(2));
        let mut sink = sink.join().await.expect("the sink can be joined");
        let taken = Arc::<Mutex<BTreeSet<u64>>>::default();
        let notes = taken.clone();
        let task = tokio::spawn(async move {
            while let Some(next) = sink.next().await {
                let delivery = match next {
                    Ok(delivery) => delivery,
                    Err(notice @ Notice::CursorLost { .. }) => panic!("{notice}"),
                    // The newest events of a primary that is gone may be gone with it.
                    Err(_) => continue,
                };
                let number = std::str::from_utf8(delivery.payload()).expect("a text").parse().expect("a number");
                notes.lock().unwrap_or_else(PoisonError::into_inner).insert(number);
                drop(delivery.ack());
            }
        });
        Self { taken, task: AbortOnDropHandle::new(task) }
    }

    /// The newest number that was delivered, 0 if there is none.
    #[must_use]
    pub fn newest(&self) -> u64 {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).last().copied().unwrap_or_default()
    }

    /// Waits until all of these were delivered, and ends it.
    ///
    /// # Panics
    ///
    /// After [`PATIENCE`](crate::PATIENCE), or if the sink ended by itself.
    pub async fn has_all(self, numbers: &BTreeSet<u64>) {
        eventually("the sink has every event", async || {
            assert!(!self.task.is_finished(), "the sink ended by itself");
            let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
            let missing: Vec<u64> = numbers.difference(&taken).copied().collect();
            if missing.is_empty() { Ok(()) } else { Err(missing) }
        })
        .await;
    }
}

/// Nodes of a pool on clients of their own, and their running jobs.
#[derive(Debug)]
pub struct Pool {
    /// What the jobs say.
    pub jobs: Jobs,
    /// The nodes, each with one worker.
    pub nodes: Vec<Node>,
    /// The keys of the jobs.
    pub keys: BTreeSet<String>,
    clients: Vec<Client>,
}

impl Pool {
    /// Has that many nodes run that many jobs.
    ///
    /// # Panics
    ///
    /// If they do not.
    pub async fn start(url: &str, nodes: usize, jobs: usize) -> Self {
        let keys = (0..jobs).map(|number| format!("part {number}")).collect();
        let mut pool = Self { jobs: Jobs::default(), nodes: Vec::new(), keys, clients: Vec::new() };
        for number in 0..nodes {
            let client = connect(url).await;
            let node = Node::builder(SCOPE).worker_ttl(LEASE).join(&client).await.expect("the pool can be joined");
            node.add_worker(pool.jobs.handler(number)).await.expect("a worker can be added");
            pool.nodes.push(node);
            pool.clients.push(client);
        }
        for dispatched in pool.nodes[0].dispatch_batch(pool.keys.iter().map(|key| (key, ""))).await {
            dispatched.expect("the job is dispatched");
        }
        pool.all_run().await;
        pool
    }

    /// Waits until all jobs run.
    ///
    /// # Panics
    ///
    /// After [`PATIENCE`](crate::PATIENCE).
    pub async fn all_run(&self) {
        eventually("all jobs run", async || {
            let running = self.jobs.running();
            if running == self.keys { Ok(()) } else { Err(running.len()) }
        })
        .await;
    }

    /// Checks that no job ran twice at the same time, and closes the nodes.
    ///
    /// # Panics
    ///
    /// If one did, or a node cannot be closed.
    pub async fn end(self) {
        self.all_run().await;
        for (node, client) in self.nodes.into_iter().zip(self.clients) {
            node.close().await.expect("the node can be closed");
            client.close().await;
        }
        self.jobs.check();
    }
}
