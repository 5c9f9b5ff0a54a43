//! What becomes of jobs, and the transactions that write it down, of each alone or of many together: that they are
//! dispatched, that they have started, and that they have ended.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use pulse_core::{Binding, LeaseId, MAX_LIFETIME, Transaction};

use super::{Dispatch, JOBS, PAYLOADS, QUEUE, RESULTS, SHUTDOWN, Tables, WORKERS, expect_worker, remove_job};
use crate::{JobKey, WorkerId, result::FOR_WAITERS};

/// What is written down of a job.
#[derive(Debug)]
pub(crate) enum Entry {
    /// It is recorded.
    Dispatched(Dispatch),
    /// Its handler has accepted it.
    Started(Started),
    /// It has ended well.
    Done(Done),
}

/// A job that its handler has accepted.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) key: JobKey,
    pub(crate) old: Bytes,
    pub(crate) new: Bytes,
    pub(crate) lease: LeaseId,
}

/// A job that has ended well, and what is kept of it for some time.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) key: JobKey,
    pub(crate) old: Bytes,
    pub(crate) result: Bytes,
    pub(crate) keep_for: Duration,
    pub(crate) lease: LeaseId,
}

impl Entry {
    pub(crate) fn key(&self) -> &JobKey {
        match self {
            Self::Dispatched(job) => &job.key,
            Self::Started(job) => &job.key,
            Self::Done(job) => &job.key,
        }
    }

    /// What has to stand at its key.
    pub(crate) fn expects(&self) -> Option<&Bytes> {
        match self {
            Self::Dispatched(job) => job.trace.as_ref(),
            Self::Started(job) => Some(&job.old),
            Self::Done(job) => Some(&job.old),
        }
    }

    /// Under which lease it is written.
    pub(crate) fn lease(&self) -> Option<LeaseId> {
        match self {
            Self::Dispatched(_) => None,
            Self::Started(job) => Some(job.lease),
            Self::Done(job) => Some(job.lease),
        }
    }

    /// Whom a new job is assigned to.
    pub(crate) fn owner(&self) -> Option<WorkerId> {
        match self {
            Self::Dispatched(job) => job.owner.as_ref().map(|(worker, _)| *worker),
            Self::Started(_) | Self::Done(_) => None,
        }
    }

    pub(crate) fn is_new(&self) -> bool {
        matches!(self, Self::Dispatched(_))
    }
}

impl Tables {
    /// Records new jobs of different keys, each in place of the trace of a refused one if there is one, as long as the
    /// queue has room for all and the workers that they are assigned to stand as they are known.
    pub(crate) fn dispatch<'a>(
        &self,
        jobs: impl Iterator<Item = &'a Dispatch> + Clone,
        max_queued: u64,
    ) -> Transaction {
        dispatch(self.begin(), jobs, max_queued)
    }

    /// Says that the handler accepted a job.
    pub(crate) fn running(&self, lease: LeaseId, key: &JobKey, old: &Bytes, new: &Bytes) -> Transaction {
        run(self.begin().expect_lease_alive(lease), key, old, new)
    }

    /// Removes a job that has ended, and leaves its result for some time, which is no less than those need who wait.
    pub(crate) fn finish(
        &self,
        lease: LeaseId,
        key: &JobKey,
        old: &Bytes,
        result: Bytes,
        keep_for: Duration,
    ) -> Transaction {
        finish(self.begin().expect_lease_alive(lease), key, old, result, keep_for)
    }

    /// Writes down what became of jobs of different keys, those that this node has all under the same lease.
    pub(crate) fn write_down(&self, entries: &[&Entry], max_queued: u64) -> Transaction {
        let jobs = entries.iter().filter_map(|entry| match entry {
            Entry::Dispatched(job) => Some(job),
            Entry::Started(_) | Entry::Done(_) => None,
        });
        let transaction = self.begin();
        let transaction =
            if jobs.clone().next().is_some() { dispatch(transaction, jobs, max_queued) } else { transaction };
        let transaction = match entries.iter().find_map(|entry| entry.lease()) {
            Some(lease) => transaction.expect_lease_alive(lease),
            None => transaction,
        };
        // Into no map anything is put after something was deleted there: for that, the backend has no short way.
        let transaction = entries.iter().fold(transaction, |transaction, entry| match entry {
            Entry::Started(job) => run(transaction, &job.key, &job.old, &job.new),
            Entry::Dispatched(_) | Entry::Done(_) => transaction,
        });
        entries.iter().fold(transaction, |transaction, entry| match entry {
            Entry::Done(job) => finish(transaction, &job.key, &job.old, job.result.clone(), job.keep_for),
            Entry::Dispatched(_) | Entry::Started(_) => transaction,
        })
    }
}

fn dispatch<'a>(
    transaction: Transaction,
    jobs: impl Iterator<Item = &'a Dispatch> + Clone,
    max_queued: u64,
) -> Transaction {
    // Without room for all, one after the other is refused.
    let room = max_queued.saturating_add(1).saturating_sub(jobs.clone().count() as u64);
    let transaction = jobs.clone().fold(transaction, |transaction, job| match &job.trace {
        None => transaction.expect_absent(&JOBS, job.key.shared()),
        Some(trace) => transaction.expect_equals(&JOBS, job.key.shared(), trace.clone()),
    });
    let transaction = transaction.expect_absent(&WORKERS, &SHUTDOWN).expect_fewer_than(&QUEUE, room);
    let owners: BTreeMap<_, _> = jobs.clone().filter_map(|job| job.owner.clone()).collect();
    let transaction =
        owners.into_iter().fold(transaction, |transaction, owner| expect_worker(transaction, Some(&owner)));
    jobs.fold(transaction, |transaction, job| {
        transaction
            .put(&JOBS, job.key.shared(), job.record.clone())
            .put(&PAYLOADS, job.key.shared(), job.entry.clone())
            .put(&QUEUE, job.key.shared(), Bytes::new())
    })
}

fn run(transaction: Transaction, key: &JobKey, old: &Bytes, new: &Bytes) -> Transaction {
    transaction
        .expect_equals(&JOBS, key.shared(), old.clone())
        .put(&JOBS, key.shared(), new.clone())
        .delete(&QUEUE, key.shared())
}

fn finish(transaction: Transaction, key: &JobKey, old: &Bytes, result: Bytes, keep_for: Duration) -> Transaction {
    let keep_for = Binding::Ttl(keep_for.clamp(FOR_WAITERS, MAX_LIFETIME));
    remove_job(transaction.expect_equals(&JOBS, key.shared(), old.clone()), key).put_bound(
        &RESULTS,
        key.shared(),
        result,
        keep_for,
    )
}
