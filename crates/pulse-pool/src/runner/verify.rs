//! Looking whether the server is the one that it was, whenever the replica of the jobs was read anew.
//!
//! Until that is known, nothing begins on this node; see [`history`](crate::history).

use pulse_rmap::{Snapshot, Value};

use super::{Runner, TaskEnded, local::Local};
use crate::{
    JobKey, history,
    record::{JobRecord, Phase},
};

impl Runner {
    /// Has the history looked at that led to a snapshot, where it may have been undone.
    pub(super) fn watch_history(&mut self, jobs: &Snapshot<JobRecord>) {
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
            match history::verify(&pool, reading).await {
                Ok(()) => TaskEnded::Verified,
                Err(pulse_core::Error::Closed) => TaskEnded::Nothing,
                Err(error) => {
                    // The same for as long as somebody does not mend it; what is known from the jobs' versions has to do.
                    tracing::error!(pool = %pool.name, %error, "cannot tell whether the backend has lost changes");
                    pool.history.set_verified(reading);
                    TaskEnded::Verified
                }
            }
        });
    }

    pub(super) fn on_verified(&mut self) {
        self.verifying = false;
        self.take_out_again(true);
        self.look_at_all();
        self.confirm_again();
    }

    /// Takes workers out of the pool again that were, where the backend has lost that.
    pub(super) fn take_out_again(&mut self, up_to_date: bool) {
        for worker in self.workers.come_back(&self.members, up_to_date) {
            self.unregister(worker);
        }
    }

    /// Writes down again that jobs run, and with which epoch, of which the backend has lost that.
    fn confirm_again(&mut self) {
        let jobs = self.pool.tables.jobs.snapshot();
        let forgotten = |(key, record): (JobKey, &Value<JobRecord>)| {
            let epoch = self.jobs.running(&key, record.assignment)?.activity.epoch;
            let is_known = record.epoch == Some(epoch) && record.phase == Phase::Running;
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
