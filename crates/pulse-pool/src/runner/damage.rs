//! Damaged records: what stands at the key of a job is no record, since somebody has written there who is no node.
//!
//! The node that has a job in hand knows its record, and writes it down again, so that the job is not lost and holds up
//! nothing. It expects the very bytes of the damage, and its lease to be alive, or its worker to stand in the pool,
//! which is as much: as long as that is so, nobody else may have taken the job over. So of two nodes one at most can do
//! this, and none that was declared dead.
//!
//! While the damage stands there, no node can change the record, because all that nodes write expects one. What was
//! there before is what the node knows: nobody but itself gives its jobs away, and it decides on nothing before its
//! replica shows whatever it may have written. Others ask a job to stop; if the replica shows that, it is kept.

use bytes::Bytes;
use pulse_rmap::Snapshot;

use super::{
    Runner,
    local::{Activation, Local},
    step,
};
use crate::{
    JobKey, WorkerId,
    pool::Pool,
    record::JobRecord,
    tables::Refusal,
    write::{BackOff, Written, write},
};

/// What a change found in the place of a record, if it was refused because that is none.
pub(super) fn found(written: &Written) -> Option<Bytes> {
    match written {
        Written::Refused(Refusal::Record(Some(found))) | Written::RefusedAfterUnknown(Refusal::Record(Some(found)))
            if JobRecord::read(found).is_none() =>
        {
            Some(found.clone())
        }
        _ => None,
    }
}

/// What stands in the place of a record, if the replica shows that it is none.
pub(super) fn shown(pool: &Pool, key: &JobKey) -> Option<Bytes> {
    shown_in(&pool.tables.jobs.snapshot(), key)
}

/// The same for what the replica showed at one moment, to be judged together with whatever else it showed then.
pub(super) fn shown_in(jobs: &Snapshot<JobRecord>, key: &JobKey) -> Option<Bytes> {
    if jobs.contains_key(key.as_str()) { None } else { jobs.get_raw(key.as_str()) }
}

/// The record of a job that is about to be stopped here, if the replica shows it, or something that is none.
pub(super) fn as_it_was(
    pool: &Pool,
    jobs: &Snapshot<JobRecord>,
    key: &JobKey,
    activation: &Activation,
) -> Option<Bytes> {
    match jobs.value(key.as_str()) {
        Some(record) => (record.assignment == activation.assignment).then(|| record.raw()),
        None => shown_in(jobs, key).and_then(|_| activation.running_record(pool)),
    }
}

pub(super) fn report(pool: &Pool, key: &JobKey) {
    tracing::error!(
        pool = %pool.name, node = %pool.node, %key,
        "the record of a job was damaged in the backend, and is replaced"
    );
}

/// Writes the record of a job down again that this worker of ours has, and that nothing is done for but this. Returns
/// when the replica shows it, or, if it is not written, after a pause.
pub(super) async fn restore(pool: &Pool, key: &JobKey, worker: WorkerId, damaged: &Bytes, record: Bytes) {
    let change = pool.tables.restore(key, damaged, worker, record.clone());
    match write(pool.tables.client(), &change, Some(&record), None).await {
        Ok(Written::Done(version)) => {
            report(pool, key);
            step::caught_up(pool, version).await;
        }
        Ok(Written::Refused(refusal) | Written::RefusedAfterUnknown(refusal)) => {
            tracing::debug!(pool = %pool.name, %key, ?refusal, "what stands in the place of a record has changed");
            BackOff::new(step::AFTER_REFUSAL, step::AFTER_REFUSAL).pause().await;
        }
        Err(error) => {
            tracing::error!(pool = %pool.name, %key, %error, "cannot write a damaged record anew, trying again later");
            BackOff::new(step::AFTER_FAILURE, step::AFTER_FAILURE).pause().await;
        }
    }
}

/// Restores what a change expected that found this damage instead at the first attempt, if it is the record of a job of
/// ours.
pub(super) async fn mend(pool: &Pool, key: &JobKey, old: &Bytes, damaged: &Bytes) {
    let Some(worker) = JobRecord::read(old).and_then(|record| record.owner()) else { return };
    let is_ours = pool.members.borrow().get(worker).is_some_and(|record| record.node == pool.node);
    if !is_ours {
        return;
    }
    // Somebody may have asked it to stop.
    step::caught_up(pool, None).await;
    if pool.tables.jobs.get_raw(key.as_str()).is_some_and(|shown| shown == old || shown == damaged) {
        restore(pool, key, worker, damaged, old.clone()).await;
    }
}

impl Runner {
    /// Has it written down again that a job runs here, if the replica shows that its record is damaged. Returns whether
    /// that is so. What does not run, or has to end, is seen to when it has ended.
    pub(super) fn restore_running(&mut self, jobs: &Snapshot<JobRecord>, key: &JobKey) -> bool {
        if self.lease.is_none() || self.members.is_shut_down() {
            return false;
        }
        let Some(damaged) = shown_in(jobs, key) else { return false };
        let Some(activation) = self.jobs.take_running(key) else { return false };
        match self.start_of(key, &activation.record, activation.clone()) {
            Some(start) if !activation.stopped.is_cancelled() => {
                self.spawn_step(key, start.confirm_over(Some(damaged)));
                true
            }
            _ => {
                self.jobs.set(key.clone(), Some(Local::Running(activation)));
                false
            }
        }
    }
}
