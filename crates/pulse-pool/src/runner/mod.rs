//! The node at work: one task that looks at what changed, decides, and has it done.
//!
//! The runner alone knows what runs on this node. For every key at most one step is under way, as a task of its own, so
//! that a handler that hangs holds up its own job and nothing else; when the step has ended the runner looks at that
//! key again. It looks at a key when its record changes, at all keys when the membership changes, and at all keys from
//! time to time in any case.
//!
//! The lease rules: all that the node runs hangs on one token, which is cancelled the moment the session is lost. Then
//! everything is stopped, and the node joins again with new worker ids.

mod later;
mod local;
mod membership;
mod start;
mod step;
mod workers;

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::FutureExt;
use pulse_core::{Session, Transaction, Version};
use pulse_rmap::{Changed, Changes, Snapshot, Update, Value};
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::{Instant, MissedTickBehavior, sleep_until},
};
use tokio_util::sync::CancellationToken;

use self::{
    later::Later,
    local::{Activation, Local, LocalJobs},
    start::Start,
    workers::{OurWorkers, Reply, WorkerState},
};
use crate::{
    Epoch, Error, JobHandler, JobKey, WorkerId, WorkerOptions,
    decide::{Members, Step, decide},
    meter::{Count, count},
    pool::Pool,
    record::{JobRecord, PlacedBy},
};

/// How often to look at everything although nothing seems to have changed.
const AUDIT: Duration = Duration::from_secs(5);

/// How many jobs change hands at once.
const MOVES: usize = 256;

/// What the owner of the node asks for.
pub(crate) enum Command {
    AddWorker { handler: Arc<dyn JobHandler>, options: WorkerOptions, reply: Reply<WorkerId> },
    RemoveWorker { worker: WorkerId, reply: Reply<()> },
    Close,
}

/// The end of a task of the runner.
enum Ended {
    /// A step for a job, and what it left here.
    Step(JobKey, Option<Local>),
    /// The node holds a lease again.
    Joined(Session),
    /// Workers stand in the pool, or could not be written down.
    Registered(Vec<WorkerId>, Result<(), pulse_core::Error>),
    /// No job will be assigned to the worker any more, and the replica has all that were.
    Drained(WorkerId),
    /// The worker stands in the pool no more.
    Unregistered(WorkerId),
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
    members: Arc<Members>,
    /// `None` while the node is cut off.
    lease: Option<Lease>,
    workers: OurWorkers,
    jobs: LocalJobs,
    later: Later,
    /// Bounds how many jobs change hands at once.
    moves: Arc<Semaphore>,
    tasks: JoinSet<Ended>,
    closing: bool,
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
        let lease = Lease::new(session, &stop);
        Self {
            commands,
            job_changes,
            worker_changes,
            members: Arc::default(),
            lease: Some(lease),
            workers: OurWorkers::default(),
            jobs: LocalJobs::default(),
            later: Later::default(),
            moves: Arc::new(Semaphore::new(MOVES)),
            tasks: JoinSet::new(),
            closing: false,
            stop,
            pool,
        }
    }

    pub(crate) async fn run(mut self) {
        let mut audit = tokio::time::interval(AUDIT);
        audit.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let stop = self.stop.clone();
        self.on_members_changed();
        while !self.is_finished() {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = ended(self.lease.as_ref()) => self.on_lease_lost(),
                Some(ended) = self.tasks.join_next() => self.on_task_ended(ended.ok()),
                command = self.commands.recv(), if !self.closing => self.on_command(command),
                changed = self.worker_changes.wait() => match changed {
                    Ok(()) => self.on_members_changed(),
                    Err(_) => break,
                },
                update = self.job_changes.next() => match update {
                    Some(update) => self.on_job_update(update),
                    None => break,
                },
                () = until(self.later.next_due()) => self.look_at_due(),
                _ = audit.tick() => self.audit(),
            }
        }
        self.finish().await;
    }

    /// Whether the node was asked to close and nothing is left to do.
    fn is_finished(&self) -> bool {
        self.closing && self.workers.is_empty() && self.jobs.is_empty()
    }

    /// Leaves the pool. Where the node was dropped, or its client closed, its lease runs out instead, which gives what
    /// may still go on here the time to end.
    async fn finish(mut self) {
        self.pool.watches.end();
        self.tasks.shutdown().await;
        let orderly = self.is_finished();
        let session = self.lease.filter(|_| orderly).and_then(|lease| Arc::into_inner(lease.session));
        if let Some(session) = session
            && let Err(error) = session.close().await
        {
            tracing::debug!(pool = %self.pool.name, %error, "the lease runs out by itself");
        }
        self.stop.cancel();
        self.pool.tables.close().await;
    }

    fn on_command(&mut self, command: Option<Command>) {
        match command {
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
                    self.workers.lost();
                }
                for worker in self.workers.ids(|state| matches!(state, WorkerState::Active { .. })) {
                    self.drain(worker);
                }
            }
        }
    }

    fn on_task_ended(&mut self, ended: Option<Ended>) {
        match ended {
            Some(Ended::Step(key, local)) => {
                let worker = self.jobs.worker_of(&key);
                self.jobs.set(key.clone(), local);
                self.look_at(&self.pool.tables.jobs.snapshot(), &key);
                if let Some(worker) = worker {
                    self.fill(worker);
                }
                self.let_drained_workers_leave();
            }
            Some(Ended::Joined(session)) => self.on_joined(session),
            Some(Ended::Registered(workers, result)) => self.on_registered(&workers, &result),
            Some(Ended::Drained(worker)) => {
                self.workers.settled(worker);
                self.let_drained_workers_leave();
            }
            Some(Ended::Unregistered(worker)) => self.workers.left(worker),
            // A task of the runtime that shuts down, or one that its lease took with it.
            Some(Ended::Nothing) | None => {}
        }
    }

    fn on_job_update(&mut self, update: Update<JobRecord>) {
        let Update::Change(change) = update else {
            // The differences follow, one by one.
            tracing::debug!(pool = %self.pool.name, "the changes of jobs came faster than they could be looked at");
            return;
        };
        self.workers.count(change.previous.as_deref(), change.value.as_deref());
        self.pool.watches.announce(&change.key, change.version, change.value.as_ref());
        self.look_at(&self.pool.tables.jobs.snapshot(), &JobKey::from_map(change.key));
        self.let_drained_workers_leave();
    }

    fn on_members_changed(&mut self) {
        let snapshot = self.pool.tables.workers.snapshot();
        let workers = snapshot.iter().filter_map(|(worker, record)| Some((worker.parse().ok()?, record.clone())));
        self.members = Arc::new(Members::new(snapshot.version().map(PlacedBy::from), workers.collect()));
        self.pool.members.send_replace(self.members.clone());
        if self.workers.seen(&self.members) {
            self.look_at_all();
        } else {
            tracing::warn!(pool = %self.pool.name, node = %self.pool.node, "the pool has lost a worker of this node");
            self.on_lease_lost();
        }
    }

    /// Looks at everything, because who knows.
    fn audit(&mut self) {
        self.look_at_all();
        let pool = self.pool.clone();
        self.tasks.spawn(async move {
            pool.clock.adjust(pool.tables.client(), pool.tables.scope()).await;
            Ended::Nothing
        });
    }

    fn look_at_due(&mut self) {
        let jobs = self.pool.tables.jobs.snapshot();
        while let Some(key) = self.later.take_due() {
            self.look_at(&jobs, &key);
        }
    }

    /// Looks at those who wait for room that a worker has now.
    fn fill(&mut self, worker: WorkerId) {
        let jobs = self.pool.tables.jobs.snapshot();
        while self.has_room(worker)
            && let Some(key) = self.later.next_of(worker)
        {
            self.look_at(&jobs, &key);
        }
    }

    fn has_room(&self, worker: WorkerId) -> bool {
        self.workers.get(worker).is_some_and(|of| self.jobs.count_of(worker) < of.room())
    }

    /// Whether a job may start now. If not, it is looked at again when it may.
    fn may_start(&mut self, key: &JobKey, record: &JobRecord, worker: WorkerId) -> bool {
        let terms = &record.terms;
        if terms.not_before > self.pool.clock.now() {
            self.later.at(key, self.pool.clock.moment(terms.not_before));
            return false;
        }
        let room = self.has_room(worker);
        if !room {
            self.later.queue(worker, key, terms);
        }
        room
    }

    /// Looks at every job that is recorded or that is here.
    fn look_at_all(&mut self) {
        let jobs = self.pool.tables.jobs.snapshot();
        let gone: Vec<JobKey> = self.jobs.keys().filter(|key| !jobs.contains_key(key.as_str())).cloned().collect();
        for key in jobs.keys().map(|key| JobKey::from_map(key.clone())).chain(gone) {
            self.look_at(&jobs, &key);
        }
        self.pool.watches.announce_all(&jobs);
    }

    /// Decides on a job, and has the next step done.
    fn look_at(&mut self, jobs: &Snapshot<JobRecord>, key: &JobKey) {
        let record = jobs.value(key.as_str());
        let here = self.jobs.here(key.as_str());
        let step = decide(key.as_str(), record.map(|record| &**record), here, &self.members, self.workers.ours());
        if let Some(step) = step {
            tracing::trace!(pool = %self.pool.name, node = %self.pool.node, %key, ?step, "next step");
        }
        match step {
            None => {}
            Some(Step::Interrupt) => self.jobs.interrupt(key),
            Some(Step::Stop) => self.stop_job(key),
            Some(Step::Start(worker)) => {
                if !record.is_some_and(|record| self.may_start(key, record, worker)) {
                    return;
                }
                if let Some(start) = self.prepare_start(key, record, jobs.version(), worker) {
                    self.jobs.set(key.clone(), Some(Local::Starting(start.activation.clone())));
                    self.spawn_step(key, start.run());
                }
            }
            Some(change) => {
                if let Some((transaction, leaves, until)) = record.and_then(|record| self.prepare(key, record, change))
                {
                    self.jobs.set(key.clone(), Some(Local::Busy(None)));
                    let (pool, of) = (self.pool.clone(), key.clone());
                    let counted = match change {
                        Step::Pull { .. } => Some(Count::TakenOver),
                        Step::HandOver { .. } => Some(Count::HandedOver),
                        _ => None,
                    };
                    let moves = counted.map(|_| self.moves.clone());
                    self.spawn_step(key, async move {
                        let _one_of_few = match moves {
                            Some(moves) => moves.acquire_owned().await.ok(),
                            None => None,
                        };
                        let changed = step::change(&pool, &of, transaction, leaves, &until).await;
                        if let (true, Some(counted)) = (changed, counted) {
                            count(&pool.name, counted);
                        }
                        None
                    });
                }
            }
        }
    }

    fn prepare_start(
        &self,
        key: &JobKey,
        record: Option<&Value<JobRecord>>,
        version: Option<Version>,
        worker: WorkerId,
    ) -> Option<Start> {
        let (record, lease) = (record?.clone(), self.lease.as_ref()?);
        let activation = Activation {
            assignment: record.assignment,
            worker,
            handler: self.workers.get(worker)?.handler.clone(),
            stopped: lease.lost.child_token(),
        };
        Some(Start {
            pool: self.pool.clone(),
            key: key.clone(),
            record,
            // Whoever takes the job from us commits a later revision, and starts it at that or a later one.
            epoch: Epoch(version?.revision.0),
            activation,
            session: Arc::downgrade(&lease.session),
            lease: lease.session.lease(),
            lost: lease.lost.clone(),
        })
    }

    /// The transaction of a step, what it leaves at the key, and what makes it pointless.
    fn prepare(
        &self,
        key: &JobKey,
        record: &Value<JobRecord>,
        step: Step,
    ) -> Option<(Transaction, Option<Bytes>, CancellationToken)> {
        let tables = &self.pool.tables;
        let held = || self.lease.as_ref().map(|lease| (lease.session.lease(), lease.lost.clone()));
        let assigned_to = |owner| match self.pool.encode(&record.assigned_to(owner, self.members.version())) {
            Ok(record) => Some(record),
            Err(error) => {
                tracing::error!(pool = %self.pool.name, %key, %error, "cannot move a job");
                None
            }
        };
        match step {
            Step::Pull { to, dead } => {
                let ((lease, lost), to, new) = (held()?, self.pool.known(to)?, assigned_to(Some(to))?);
                Some((tables.pull(key, &record.raw(), dead, &to, lease, new.clone()), Some(new), lost))
            }
            Step::HandOver { to, .. } => {
                let (lease, lost) = held()?;
                let known = match to {
                    Some(to) => Some(self.pool.known(to)?),
                    None => None,
                };
                let new = assigned_to(to)?;
                Some((tables.hand_over(key, &record.raw(), known.as_ref(), lease, new.clone()), Some(new), lost))
            }
            Step::Remove { dead } => Some((tables.remove(key, &record.raw(), dead), None, self.stop.clone())),
            Step::Start(_) | Step::Interrupt | Step::Stop => None,
        }
    }

    fn stop_job(&mut self, key: &JobKey) {
        if let Some(activation) = self.jobs.begin_stop(key) {
            let (pool, of) = (self.pool.clone(), key.clone());
            self.spawn_step(key, async move {
                step::stop(&pool, &of, &activation).await;
                None
            });
        }
    }

    fn spawn_step(&mut self, key: &JobKey, step: impl Future<Output = Option<Local>> + Send + 'static) {
        let key = key.clone();
        self.tasks.spawn(async move {
            let local = AssertUnwindSafe(step).catch_unwind().await;
            // The handlers' panics are contained further in: this would be a defect of ours, and must not cost the key.
            let local = local.unwrap_or_else(|_| {
                tracing::error!(%key, "a step for a job panicked");
                None
            });
            Ended::Step(key, local)
        });
    }
}

async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// Waits for the end of a lease, for ever if there is none.
async fn ended(lease: Option<&Lease>) {
    match lease {
        Some(lease) => {
            lease.session.ended().await;
        }
        None => std::future::pending().await,
    }
}
