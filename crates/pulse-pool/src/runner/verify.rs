//! Looking whether the server is the one that it was, whenever the replica of the jobs was read anew.
//!
//! Until that is known, nothing begins on this node; see [`history`](crate::history). The server is looked at from time
//! to time as well: a node whose calls are answered by another one, and that is not shown what that one holds, runs
//! jobs by records that may be no more, and gives its lease up in time.

use std::panic::AssertUnwindSafe;

use futures::FutureExt;
use pulse_rmap::{Snapshot, Value};
use tokio::time::Instant;

use super::{Runner, TaskEnded, local::Local, workers::WorkerState};
use crate::{
    JobKey, WorkerId,
    decide::Here,
    history::{self, Begin},
    record::{JobRecord, Phase},
};

impl Runner {
    /// Has the history looked at that led to a snapshot, where it may have been undone.
    pub(super) fn watch_history(&mut self, jobs: &Snapshot<JobRecord>) {
        if self.members.is_shut_down() || !self.pool.options.replicates {
            return;
        }
        let history = &self.pool.history;
        if history.see_version(jobs.version()) {
            tracing::error!(
                pool = %self.pool.name, node = %self.pool.node,
                "the backend has lost confirmed changes of jobs: nothing begins here for the time of a lease"
            );
        }
        let reading = jobs.readings();
        if self.verifying || history.is_verified(reading) {
            return;
        }
        self.verifying = true;
        let pool = self.pool.clone();
        self.tasks.spawn(async move {
            // A panic would be a defect of the backend's, and must not hold this node up for ever.
            let verified = AssertUnwindSafe(history::verify(&pool, reading)).catch_unwind().await;
            let Ok(verified) = verified else {
                pool.history.set_verified(reading);
                return TaskEnded::Verified;
            };
            match verified {
                Ok(()) => TaskEnded::Verified,
                Err(pulse_core::Error::Closed) => TaskEnded::Nothing,
                Err(error) => {
                    // The same for as long as somebody does not mend it; what is known from the jobs' versions has to
                    // do.
                    tracing::error!(pool = %pool.name, %error, "cannot tell whether the backend has lost changes");
                    pool.history.set_verified(reading);
                    TaskEnded::Verified
                }
            }
        });
    }

    pub(super) fn on_verified(&mut self) {
        self.verifying = false;
        self.stand_again();
        self.look_at_all();
        self.confirm_again();
    }

    /// Looks at the server between two readings.
    pub(super) fn look_at_server(&mut self) {
        if !self.pool.options.replicates || self.members.is_shut_down() {
            return;
        }
        let (pool, reading) = (self.pool.clone(), self.pool.tables.jobs.snapshot().readings());
        self.tasks.spawn(async move {
            // If it fails, the next look will tell, or the lease runs out.
            history::learn(&pool).await;
            let run = pool.tables.client().backend().server_run(pool.tables.scope()).await.ok().flatten();
            match run {
                Some(run) if pool.history.see_run(&run, reading) => TaskEnded::Outdated,
                _ => TaskEnded::Nothing,
            }
        });
    }

    /// The jobs are known from a server that is another one now.
    pub(super) fn on_outdated(&mut self) {
        let time = self.pool.options.worker_ttl / 3;
        self.read_again_by.get_or_insert_with(|| Instant::now() + time);
    }

    /// The time is over in which the jobs had to be read from the server that it is now.
    pub(super) fn on_not_read_again(&mut self) {
        self.read_again_by = None;
        if self.pool.history.is_outdated(self.pool.tables.jobs.snapshot().readings()) {
            tracing::warn!(
                pool = %self.pool.name, node = %self.pool.node,
                "the server is another one, and does not show its jobs in time"
            );
            self.on_lease_lost();
        }
    }

    /// Whether what runs here has to wait before it moves.
    pub(super) fn moves_at(&self, jobs: &Snapshot<JobRecord>, key: &JobKey) -> Option<Begin> {
        let here = self.jobs.here(key.as_str());
        let record = jobs.value(key.as_str())?;
        // It is to end, or is not ours any more: that cannot wait.
        let is_only_a_move = matches!(here, Here::Running(assignment) if assignment == record.assignment)
            && record.phase != Phase::Stopping
            && record.owner().is_some_and(|owner| self.workers.ours().contains(&owner));
        let begin = self.pool.history.may_begin(jobs.readings());
        (is_only_a_move && !self.members.is_shut_down() && begin != Begin::Now).then_some(begin)
    }

    /// Writes down again what the backend has lost of this node and its workers.
    fn stand_again(&mut self) {
        if self.shutdown.begun {
            return;
        }
        let lost = |worker: WorkerId| {
            let own = self.workers.get(worker).map(|own| own.record(self.pool.node));
            own.as_ref() != self.members.get(worker)
        };
        let standing = |state| matches!(state, WorkerState::Active { .. } | WorkerState::Draining { .. });
        let workers: Vec<WorkerId> = self.workers.ids(standing).into_iter().filter(|worker| lost(*worker)).collect();
        self.register(workers);
        if !self.pool.tables.has_node(self.pool.node) {
            self.enter();
        }
    }

    /// Writes down again that jobs run, and with which epoch, of which the backend has lost that.
    fn confirm_again(&mut self) {
        let jobs = self.pool.tables.jobs.snapshot();
        let forgotten = |(key, record): (JobKey, &Value<JobRecord>)| {
            let epoch = self.jobs.running(&key, record.assignment)?.activity.epoch;
            let is_known = record.epoch() == Some(epoch) && record.phase == Phase::Running;
            (!is_known && record.phase != Phase::Stopping).then(|| (key, record.clone()))
        };
        let values = jobs.values().map(|(key, record)| (JobKey::from_map(key.clone()), record));
        let forgotten: Vec<_> = values.filter_map(forgotten).collect();
        for (key, record) in forgotten {
            let Some(activation) = self.jobs.take_running(&key) else { continue };
            match self.start_of(&key, &record, activation.clone()) {
                Some(start) => self.spawn_step(&key, start.confirm()),
                None => self.jobs.set(key, Some(Local::Running(activation))),
            }
        }
    }
}
