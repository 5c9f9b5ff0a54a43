//! The node at work: one task that looks at what changed, decides, and has it done.
//!
//! The runner alone knows what runs on this node. For every key at most one step is under way, as a task of its own, so
//! that a handler that hangs holds up its own job and nothing else; when the step has ended the runner looks at that
//! key again. It looks at a key when its record changes, at all keys when the membership changes, and at all keys from
//! time to time in any case.
//!
//! The lease rules: all that the node runs hangs on one token, which is cancelled the moment the session is lost. Then
//! everything is stopped, and the node joins again with new worker ids.

mod damage;
mod finish;
mod later;
mod local;
mod look;
mod lost;
mod membership;
mod notes;
mod panics;
mod shutdown;
mod start;
mod step;
mod verify;
mod workers;

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use pulse_core::Session;
use pulse_rmap::{Changed, Changes, Update};
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::{Instant, MissedTickBehavior, sleep_until},
};
use tokio_util::sync::CancellationToken;

pub(crate) use self::finish::{Ended, Endings};
use self::{
    later::Later,
    local::{Local, LocalJobs},
    membership::{ended, until},
    notes::Inbox,
    panics::Panics,
    shutdown::Shutdown,
    workers::{OurWorkers, Reply, WorkerState},
};
use crate::{
    Error, JobKey, WorkerId, WorkerOptions, contain::Handler, decide::Members, pool::Pool, record::JobRecord,
    watch::Seen,
};

/// How often to look at everything although nothing seems to have changed.
const AUDIT: Duration = Duration::from_secs(5);

/// How long a node that leaves may take to remove what nobody needs any more.
const TIDYING: Duration = Duration::from_secs(2);

/// How many events of one kind are dealt with before the others are looked for.
const AT_ONCE: usize = 32;

/// How many jobs change hands at once.
const MOVES: usize = 256;

/// What the owner of the node asks for.
pub(crate) enum Command {
    AddWorker { handler: Handler, options: WorkerOptions, reply: Reply<WorkerId> },
    RemoveWorker { worker: WorkerId, reply: Reply<()> },
    Close,
    Shutdown { reply: Reply<()> },
}

/// The end of a task of the runner.
enum TaskEnded {
    /// A step for a job, and what it left here.
    Step(JobKey, Option<Local>),
    /// A step for a job panicked, and nothing is left of it here.
    Panicked(JobKey),
    /// The node holds a lease again.
    Joined(Session),
    /// Workers stand in the pool, or could not be written down.
    Registered(Vec<WorkerId>, Result<(), pulse_core::Error>),
    /// It is time to try again to write workers down.
    NotRegistered(Vec<WorkerId>),
    /// No job will be assigned to the worker any more, and the replica has all that were.
    Drained(WorkerId),
    /// The worker stands in the pool no more.
    Unregistered(WorkerId),
    /// A job was notified.
    Noted(JobKey),
    /// The pool is marked as shut down.
    Marked { is_ours: bool },
    /// Everything of the pool is removed, or could not be yet.
    Removed(bool),
    /// It is known whether the backend may have lost something.
    Verified,
    /// The server is another one than the jobs were read from.
    Outdated,
    /// The lease was lost meanwhile.
    Nothing,
}

/// A node's lease on life.
struct Lease {
    session: Arc<Session>,
    /// Cancelled when the session is lost. The tokens of all jobs of this node are children of it.
    lost: CancellationToken,
}

impl Lease {
    fn new(session: Session, stop: &CancellationToken) -> Self {
        Self { session: Arc::new(session), lost: stop.child_token() }
    }
}

/// Runs the jobs of one node.
pub(crate) struct Runner {
    pool: Arc<Pool>,
    /// From the node.
    commands: mpsc::Receiver<Command>,
    /// Every change of a record of a job.
    job_changes: Changes<JobRecord>,
    /// That some worker came, went or changed.
    worker_changes: Changed,
    inbox: Inbox,
    members: Arc<Members>,
    /// `None` while the node is cut off.
    lease: Option<Lease>,
    workers: OurWorkers,
    jobs: LocalJobs,
    later: Later,
    panics: Panics,
    /// Bounds how many jobs change hands at once.
    moves: Arc<Semaphore>,
    tasks: JoinSet<TaskEnded>,
    /// From the jobs.
    endings: mpsc::UnboundedReceiver<Ended>,
    to_endings: Endings,
    /// What jobs of this node said of their end, until it is written down.
    ended: HashMap<JobKey, Ended>,
    closing: bool,
    shutdown: Shutdown,
    /// A look at the server's run is under way.
    verifying: bool,
    /// When the jobs must have been read from the server that it is now.
    read_again_by: Option<Instant>,
    #[cfg(feature = "metrics")]
    standing: crate::standing::Standing,
    /// Cancelled when the node is dropped.
    stop: CancellationToken,
}

impl Runner {
    /// Made before the session, so that no change of a job of this node can be missed.
    pub(crate) fn new(
        pool: Arc<Pool>,
        session: Session,
        commands: mpsc::Receiver<Command>,
        stop: CancellationToken,
    ) -> Self {
        let job_changes = pool.tables.jobs.subscribe();
        let worker_changes = pool.tables.workers.changed();
        let inbox = Inbox::new(pool.tables.inbox.subscribe());
        let lease = Lease::new(session, &stop);
        #[cfg(feature = "metrics")]
        let standing = crate::standing::Standing::new(&pool.name);
        let (to_endings, endings) = mpsc::unbounded_channel();
        Self {
            inbox,
            endings,
            to_endings,
            ended: HashMap::new(),
            commands,
            job_changes,
            worker_changes,
            members: Arc::default(),
            lease: Some(lease),
            workers: OurWorkers::default(),
            jobs: LocalJobs::default(),
            later: Later::default(),
            panics: Panics::default(),
            moves: Arc::new(Semaphore::new(MOVES)),
            tasks: JoinSet::new(),
            closing: false,
            shutdown: Shutdown::default(),
            verifying: false,
            read_again_by: None,
            #[cfg(feature = "metrics")]
            standing,
            stop,
            pool,
        }
    }

    pub(crate) async fn run(mut self) {
        let mut audit = tokio::time::interval(AUDIT);
        audit.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut server = tokio::time::interval(self.pool.options.worker_ttl / 3);
        server.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let stop = self.stop.clone();
        self.on_members_changed();
        while !self.is_finished() {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = ended(self.lease.as_ref()) => self.on_lease_lost(),
                Some(ended) = self.tasks.join_next() => self.on_tasks_ended(ended.ok()),
                Some(ended) = self.endings.recv() => self.on_job_ended(ended),
                command = self.commands.recv(), if self.listens() => self.on_command(command),
                changed = self.worker_changes.wait() => match changed {
                    Ok(()) => self.on_members_changed(),
                    Err(_) => break,
                },
                update = self.job_changes.next() => match update {
                    Some(update) => self.on_job_updates(update),
                    None => break,
                },
                post = self.inbox.changes.next() => match post {
                    Some(post) => self.on_post(post),
                    None => break,
                },
                () = at(self.read_again_by) => self.on_not_read_again(),
                _ = server.tick() => self.look_at_server(),
                () = at(self.shutdown.deadline) => break,
                () = at(self.later.next_due()) => self.look_at_due(),
                _ = audit.tick() => self.audit(),
            }
        }
        self.finish().await;
    }

    /// Whether the node was asked to close and nothing is left to do.
    fn is_finished(&self) -> bool {
        self.closing && self.workers.is_empty() && self.jobs.is_empty() && self.shutdown.is_over()
    }

    /// Whether requests are taken: of a node that closes because of a shutdown, to be told how that ends.
    fn listens(&self) -> bool {
        !self.closing || (self.shutdown.begun && !self.commands.is_closed())
    }

    /// Leaves the pool. Where the node was dropped, or its client closed, its lease runs out instead, which gives what
    /// may still go on here the time to end.
    async fn finish(mut self) {
        self.pool.watches.end();
        self.tasks.shutdown().await;
        let orderly = self.is_finished();
        self.tell_shut_down(orderly);
        if !(self.workers.is_empty() && self.jobs.is_empty()) {
            self.pool.left_behind.store(true, Ordering::Relaxed);
        }
        let session = self.lease.filter(|_| orderly).and_then(|lease| Arc::into_inner(lease.session));
        let gives_up = &self.pool.gives_up;
        if let Some(session) = session
            && let Some(Err(error)) = until(gives_up, session.close()).await
        {
            tracing::debug!(pool = %self.pool.name, %error, "the lease runs out by itself");
        }
        self.stop.cancel();
        if orderly {
            // If it fails, or takes too long, the inbox expires by itself.
            let tidy = tokio::time::timeout(TIDYING, self.pool.tables.remove_inbox(self.pool.node));
            let _ = until(gives_up, tidy).await;
        }
        self.pool.tables.close().await;
    }

    fn on_command(&mut self, command: Option<Command>) {
        match command {
            Some(Command::Shutdown { reply }) => self.on_shutdown_asked(reply),
            // Whoever asked is told so by the end of the reply.
            _ if self.closing => {}
            Some(Command::AddWorker { handler, options, reply }) => {
                let worker = self.workers.add(handler, options, reply);
                self.register(vec![worker]);
            }
            Some(Command::RemoveWorker { worker, reply }) => match self.workers.ask_to_leave(worker, reply) {
                Ok(worker) => self.drain(worker),
                Err(reply) => {
                    let pool = self.pool.name.to_string();
                    // Whoever asked may not wait for the answer any more.
                    let _ = reply.send(Err(Error::UnknownWorker { pool, worker }));
                }
            },
            Some(Command::Close) | None => {
                self.closing = true;
                self.workers.ask_all_to_leave();
                if self.lease.is_none() {
                    self.leave_behind();
                }
                for worker in self.workers.ids(|state| matches!(state, WorkerState::Active { .. })) {
                    self.drain(worker);
                }
            }
        }
    }

    /// Takes what else has ended as well: to look for everything else between any two costs more than they do.
    fn on_tasks_ended(&mut self, ended: Option<TaskEnded>) {
        self.on_task_ended(ended);
        for _ in 1..AT_ONCE {
            let Some(ended) = self.tasks.try_join_next() else { return };
            self.on_task_ended(ended.ok());
        }
    }

    fn on_task_ended(&mut self, ended: Option<TaskEnded>) {
        match ended {
            Some(TaskEnded::Step(key, local)) => {
                self.panics.forget(&key);
                self.on_step_ended(&key, local);
            }
            Some(TaskEnded::Panicked(key)) => {
                self.panics.count(&key);
                self.on_step_ended(&key, None);
            }
            Some(TaskEnded::Noted(key)) => self.on_noted(&key),
            Some(TaskEnded::Joined(session)) => self.on_joined(session),
            Some(TaskEnded::Registered(workers, result)) => self.on_registered(&workers, &result),
            Some(TaskEnded::NotRegistered(workers)) => self.on_not_registered(workers),
            Some(TaskEnded::Drained(worker)) => {
                self.workers.settled(worker);
                self.let_drained_workers_leave();
            }
            Some(TaskEnded::Unregistered(worker)) => {
                self.workers.left(worker);
                self.remove_if_alone();
            }
            Some(TaskEnded::Marked { is_ours }) => self.on_marked(is_ours),
            Some(TaskEnded::Verified) => self.on_verified(),
            Some(TaskEnded::Outdated) => self.on_outdated(),
            Some(TaskEnded::Removed(removed)) => self.on_removed(removed),
            // A task of the runtime that shuts down, or one that its lease took with it.
            Some(TaskEnded::Nothing) | None => {}
        }
    }

    fn on_job_updates(&mut self, update: Update<JobRecord>) {
        self.on_job_update(update);
        for _ in 1..AT_ONCE {
            // What a step has left here counts before what has changed since.
            while let Some(ended) = self.tasks.try_join_next() {
                self.on_task_ended(ended.ok());
            }
            let Some(update) = self.job_changes.try_next() else { break };
            self.on_job_update(update);
        }
        self.let_drained_workers_leave();
    }

    fn on_job_update(&mut self, update: Update<JobRecord>) {
        let Update::Change(change) = update else {
            // The differences follow, one by one.
            tracing::debug!(pool = %self.pool.name, "the changes of jobs came faster than they could be looked at");
            return;
        };
        self.workers.count(change.previous.as_deref(), change.value.as_deref());
        let value = || change.value.clone().map(Seen::Shown);
        self.pool.watches.announce(&change.key, change.version, value);
        self.look_at(&self.pool.tables.jobs.snapshot(), &JobKey::from_map(change.key));
    }

    fn on_members_changed(&mut self) {
        let members = self.pool.tables.members();
        self.members = Arc::new(members.shut_down(self.pool.tables.is_marked() || self.shutdown.begun));
        self.pool.members.send_replace(self.members.clone());
        if self.members.is_shut_down() {
            self.begin_shutdown();
            self.look_at_all();
            self.let_idle_workers_leave();
            self.remove_if_alone();
        } else if self.workers.seen(&self.members) {
            self.look_at_all();
            self.drain_again();
        } else {
            tracing::warn!(pool = %self.pool.name, node = %self.pool.node, "the pool has lost a worker of this node");
            self.on_lease_lost();
        }
    }
}

async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
