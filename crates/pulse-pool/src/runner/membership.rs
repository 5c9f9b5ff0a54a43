//! The node's place in the pool: its lease, and its workers coming and going under it.

use std::{sync::atomic::Ordering, time::Duration};

use pulse_core::{Session, SessionState};
use tokio_util::sync::CancellationToken;

use super::{Lease, Runner, TaskEnded, step, workers::WorkerState};
use crate::{
    Error, WorkerId,
    tables::KnownWorker,
    write::{BackOff, Written, write},
};

/// How long to wait between attempts to join again, at first and at most.
const REJOIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

impl Runner {
    /// Stops everything at once, and begins to join again.
    pub(super) fn on_lease_lost(&mut self) {
        let Some(lease) = self.lease.take() else { return };
        // First of all: this ends every job here, before any of the bookkeeping.
        lease.lost.cancel();
        self.pool.cut_off.store(true, Ordering::Relaxed);
        self.pool.meter.fenced();
        tracing::warn!(pool = %self.pool.name, node = %self.pool.node, "cut off from the pool: stopping all jobs");
        self.report_if_all_are_lost();
        if self.closing {
            self.leave_behind();
        } else {
            self.workers.lost();
        }
        self.later.clear();
        self.ended.clear();
        self.look_at_all();
        self.join_again();
    }

    /// Gives up the workers of a lease that is lost, at the end of the node: what is theirs by then is not handed over.
    pub(super) fn leave_behind(&mut self) {
        let jobs = &self.pool.tables.jobs;
        let is_ours = |owner: WorkerId| self.workers.get(owner).is_some() || self.workers.is_former(owner);
        let owns = || jobs.snapshot().iter().any(|(_, record)| record.owner().is_some_and(is_ours));
        if !self.workers.is_empty() && (!jobs.is_synced() || owns()) {
            self.pool.left_behind.store(true, Ordering::Relaxed);
        }
        self.workers.lost();
    }

    fn join_again(&mut self) {
        if self.closing {
            return;
        }
        let pool = self.pool.clone();
        self.tasks.spawn(async move {
            let mut back_off = BackOff::new(REJOIN.0, REJOIN.1);
            loop {
                let tables = &pool.tables;
                match Session::open(tables.client(), tables.scope(), pool.options.worker_ttl).await {
                    Ok(session) => return TaskEnded::Joined(session),
                    Err(pulse_core::Error::Closed) => return TaskEnded::Nothing,
                    Err(error) => {
                        tracing::debug!(pool = %pool.name, %error, "cannot join the pool again yet");
                        back_off.pause().await;
                    }
                }
            }
        });
    }

    pub(super) fn on_joined(&mut self, session: Session) {
        if session.state() != SessionState::Alive {
            // It was asked for so long ago that it is over. To begin with it would be to be cut off at once.
            return self.join_again();
        }
        tracing::info!(pool = %self.pool.name, node = %self.pool.node, "joined the pool again");
        self.lease = Some(Lease::new(session, &self.stop));
        self.pool.cut_off.store(false, Ordering::Relaxed);
        self.enter();
        self.register(self.workers.ids(|state| state == WorkerState::Joining));
        self.mark_shutdown();
    }

    /// Writes the node itself down under its new lease.
    pub(super) fn enter(&mut self) {
        let (Some(lease), Ok(mark)) = (&self.lease, self.pool.tables.mark(self.pool.node)) else {
            return;
        };
        let change = self.pool.tables.enter(self.pool.node, mark, lease.session.lease());
        let (client, lost) = (self.pool.tables.client().clone(), lease.lost.clone());
        self.tasks.spawn(async move {
            // It is refused if the pool is shut down, which the replica shows.
            while let Some(Err(error)) = until(&lost, write(&client, &change, None, None)).await {
                tracing::error!(scope = %change.scope(), %error, "cannot write the node down, trying again");
                step::pause_after_failure(&lost).await;
            }
            TaskEnded::Nothing
        });
    }

    /// Writes workers down under the lease; without one they wait for the next.
    pub(super) fn register(&mut self, workers: Vec<WorkerId>) {
        let Some(lease) = self.lease.as_ref().filter(|_| !workers.is_empty()) else { return };
        let records = match self.known(&workers) {
            Ok(records) => records,
            Err(error) => {
                for worker in workers {
                    self.workers.failed(worker, error.clone());
                }
                return;
            }
        };
        let change = self.pool.tables.register(&records, lease.session.lease());
        let (client, lost) = (self.pool.tables.client().clone(), lease.lost.clone());
        self.tasks.spawn(async move {
            let written = until(&lost, write(&client, &change, None, None)).await;
            match written {
                Some(Ok(Written::Done(_))) => TaskEnded::Registered(workers, Ok(())),
                Some(Err(error)) => TaskEnded::Registered(workers, Err(error)),
                // The lease is lost, which shows itself elsewhere.
                Some(Ok(Written::Refused(_) | Written::RefusedAfterUnknown(_))) | None => TaskEnded::Nothing,
            }
        });
    }

    pub(super) fn on_registered(&mut self, workers: &[WorkerId], result: &Result<(), pulse_core::Error>) {
        let mut again = Vec::new();
        for &worker in workers {
            match result {
                // It came too late.
                Ok(()) if self.shutdown.begun => self.unregister(worker),
                Ok(()) => {
                    if self.workers.registered(worker) == Some(true) {
                        self.drain(worker);
                    }
                }
                Err(error) if self.workers.is_being_added(worker) => {
                    self.workers.failed(worker, self.pool.backend("add a worker")(error.clone()));
                }
                Err(error) => {
                    tracing::error!(pool = %self.pool.name, %worker, %error, "cannot write a worker down, trying again");
                    again.push(worker);
                }
            }
        }
        self.register_later(again);
        // The replica may have been faster than the answer.
        self.on_members_changed();
    }

    /// Writes workers down again that somebody counts on, after what cannot have healed at once.
    fn register_later(&mut self, workers: Vec<WorkerId>) {
        let Some(lease) = self.lease.as_ref().filter(|_| !workers.is_empty()) else { return };
        let lost = lease.lost.clone();
        self.tasks.spawn(async move {
            step::pause_after_failure(&lost).await;
            TaskEnded::NotRegistered(workers)
        });
    }

    /// Takes up again what [`register_later`](Self::register_later) was left with; those that leave meanwhile stay out.
    pub(super) fn on_not_registered(&mut self, workers: Vec<WorkerId>) {
        for worker in self.workers.never_in(&workers) {
            self.workers.left(worker);
        }
        let stays =
            |worker: &WorkerId| self.workers.get(*worker).is_some_and(|worker| worker.state != WorkerState::Leaving);
        self.register(workers.into_iter().filter(stays).collect());
    }

    /// Lets no more jobs come to a worker, so that it hands over those that it has.
    pub(super) fn drain(&mut self, worker: WorkerId) {
        if self.lease.is_none() {
            self.workers.left(worker);
            return;
        }
        if self.workers.drain(worker) {
            self.say_draining(worker);
        }
    }

    /// Says again of workers that they drain, where a failover has undone that.
    pub(super) fn drain_again(&mut self) {
        for worker in self.workers.drain_again(&self.members) {
            self.say_draining(worker);
        }
    }

    /// Takes workers of this node out of the pool again that have left it, where a failover has undone that: nobody
    /// would ever run what belongs to them.
    pub(super) fn unregister_again(&mut self) {
        if self.lease.is_none() {
            return;
        }
        let members = self.members.clone();
        let ours = members.iter().filter(|(_, record)| record.node == self.pool.node).map(|(worker, _)| worker);
        // Those of a lease that was lost go with it, when what they had in hand has had its time to end.
        let is_gone = |worker: &WorkerId| {
            self.workers.get(*worker).is_none() && !self.workers.is_former(*worker) && !self.jobs.any_of(*worker)
        };
        let gone: Vec<WorkerId> = ours.filter(is_gone).collect();
        gone.into_iter().for_each(|worker| self.unregister(worker));
    }

    fn say_draining(&mut self, worker: WorkerId) {
        let Some(lease) = &self.lease else { return };
        let records = match self.known(&[worker]) {
            Ok(records) => records,
            Err(error) => {
                tracing::error!(pool = %self.pool.name, %worker, %error, "cannot drain a worker");
                return;
            }
        };
        let change = self.pool.tables.register(&records, lease.session.lease());
        let (pool, lost) = (self.pool.clone(), lease.lost.clone());
        self.tasks.spawn(async move {
            let drained = until(&lost, async {
                loop {
                    match write(pool.tables.client(), &change, None, None).await {
                        Ok(Written::Done(_)) => break,
                        Ok(Written::Refused(_) | Written::RefusedAfterUnknown(_)) | Err(_) => {
                            step::pause_after_failure(&lost).await;
                        }
                    }
                }
                // Nobody can assign it a job any more; those that were assigned before are in the replica then.
                step::caught_up(&pool, None).await;
            });
            drained.await.map_or(TaskEnded::Nothing, |()| TaskEnded::Drained(worker))
        });
    }

    /// Takes workers that have handed over everything out of the pool.
    pub(super) fn let_drained_workers_leave(&mut self) {
        if self.shutdown.begun {
            return self.let_idle_workers_leave();
        }
        for worker in self.workers.drained() {
            // The count may lag behind the replica, by the changes that this task has not looked at yet.
            let jobs = self.pool.tables.jobs.snapshot();
            let owns = jobs.iter().any(|(_, record)| record.owner() == Some(worker) && record.is_job());
            // What is damaged names nobody, until the change that is under way for it puts that right.
            let has_any = owns || self.jobs.any_of(worker) || self.jobs.changes_any_of(worker);
            if self.lease.is_some() && !has_any {
                self.workers.leave(worker);
                self.unregister(worker);
            }
        }
    }

    /// Our workers as they are to stand in the map.
    fn known(&self, workers: &[WorkerId]) -> Result<Vec<KnownWorker>, Error> {
        let records = workers.iter().filter_map(|&id| Some((id, self.workers.get(id)?.record(self.pool.node))));
        let encode = |record| self.pool.tables.workers.encode(&record).map_err(|source| self.pool.replica(source));
        records.map(|(id, record)| Ok((id, encode(record)?))).collect()
    }
}

/// The result of a future, `None` if the lease is lost first.
pub(super) async fn until<T>(lost: &CancellationToken, future: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        () = lost.cancelled() => None,
        value = future => Some(value),
    }
}

/// Waits for the end of a lease, for ever if there is none.
pub(super) async fn ended(lease: Option<&Lease>) {
    match lease {
        Some(lease) => {
            lease.session.ended().await;
        }
        None => std::future::pending().await,
    }
}
