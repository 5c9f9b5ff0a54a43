//! Jobs that are lost: their records have vanished from the backend while they were in hand here.
//!
//! Nobody but the node of a worker removes the records of its jobs, as long as the worker is in the pool; and the node
//! does so only after it has stopped the job, or the job has ended. So where the record of a job that is in hand is
//! gone, or has become that of another dispatch, either the worker was taken for dead, and others have had the job
//! since and ended it; or the backend has lost the record, as in a failover that undoes writes; or somebody has deleted
//! it. The backend tells these apart: in the first case, and only there, the worker is gone while the map of the jobs
//! is the one that it was. A worker that is gone never comes back.
//!
//! A backend that loses everything loses the node's lease as well, so that the node may be cut off before it sees that
//! its jobs are gone. Therefore it asks then too, once it can, whether the map is the one that it was.

use std::{sync::atomic::Ordering, time::Duration};

use pulse_core::{Incarnation, Version};

use super::{Runner, TaskEnded, local::Activation};
use crate::{JobKey, WorkerId, id::DispatchId, pool::Pool, record::JobRecord, tables::Tables, write::BackOff};

/// How long to wait before the backend is asked again, at first and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(2));

/// A job that this node has in hand, as it has to be there.
#[derive(Debug, Clone)]
pub(super) struct InHand {
    key: JobKey,
    dispatch: DispatchId,
    worker: WorkerId,
    /// Of the map of the jobs.
    incarnation: Incarnation,
}

impl InHand {
    /// A job of that worker whose record was seen in that version of the jobs.
    pub(super) fn new(key: JobKey, record: &JobRecord, worker: WorkerId, version: Version) -> Self {
        Self { key, dispatch: record.dispatch, worker, incarnation: version.incarnation }
    }

    /// Whether what stands under its key now is something else.
    pub(super) fn has_vanished(&self, record: Option<&JobRecord>) -> bool {
        record.is_none_or(|record| record.dispatch != self.dispatch)
    }

    /// Finds out whether the job, which has vanished, was lost, and says so.
    pub(super) async fn report_if_lost(&self, pool: &Pool) {
        let mut back_off = BackOff::new(PAUSE.0, PAUSE.1);
        loop {
            match self.is_lost(&pool.tables).await {
                Ok(true) => return self.report(pool),
                Err(error) if error.is_retryable() => back_off.pause().await,
                Ok(false) | Err(_) => return,
            }
        }
    }

    async fn is_lost(&self, tables: &Tables) -> Result<bool, pulse_core::Error> {
        let version = tables.jobs_version().await?;
        let is_the_same = version.is_some_and(|version| version.incarnation == self.incarnation);
        Ok(!is_the_same || tables.has_worker(self.worker).await?)
    }

    fn report(&self, pool: &Pool) {
        // The end of the pool takes the records along.
        if pool.shut.load(Ordering::Relaxed) {
            return;
        }
        pool.lost.fetch_add(1, Ordering::Relaxed);
        pool.meter.lost();
        let (name, node, worker, key) = (&pool.name, pool.node, self.worker, &self.key);
        tracing::error!(pool = %name, %node, %worker, %key, "a job is lost: its record has vanished from the backend while it ran");
    }
}

impl Runner {
    /// What of a job is running here, if its record has vanished under the lease that the node holds.
    pub(super) fn vanished(&self, activation: &Activation, record: Option<&JobRecord>) -> Option<InHand> {
        let watches = self.lease.is_some() && !self.members.is_shut_down();
        (watches && activation.job.has_vanished(record)).then(|| activation.job.clone())
    }

    /// Finds out whether the jobs that run here were lost with everything else, now that the lease is.
    pub(super) fn report_if_all_are_lost(&mut self) {
        let jobs: Vec<InHand> = self.jobs.all_running().map(|activation| activation.job.clone()).collect();
        if jobs.is_empty() || self.members.is_shut_down() {
            return;
        }
        let pool = self.pool.clone();
        self.tasks.spawn(async move {
            let mut back_off = BackOff::new(PAUSE.0, PAUSE.1);
            loop {
                match pool.tables.jobs_version().await {
                    Ok(now) => {
                        let lost = |job: &&InHand| now.is_none_or(|now| now.incarnation != job.incarnation);
                        jobs.iter().filter(lost).for_each(|job| job.report(&pool));
                        return TaskEnded::Nothing;
                    }
                    Err(error) if error.is_retryable() => back_off.pause().await,
                    Err(_) => return TaskEnded::Nothing,
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use pulse_core::Transaction;

    use super::*;
    use crate::{NodeId, record::Terms};

    const WORKER: WorkerId = WorkerId(1);

    fn in_hand(record: &JobRecord, version: Version) -> InHand {
        InHand::new(JobKey::new("key").unwrap(), record, WORKER, version)
    }

    fn record(dispatch: u64) -> JobRecord {
        JobRecord::dispatched(DispatchId(dispatch), Terms::default(), Some(WORKER), None)
    }

    #[test]
    fn a_job_has_vanished_when_its_dispatch_is_not_the_one_that_stands_there() {
        let record = record(7);
        let job = in_hand(&record, Version { incarnation: Incarnation(1), revision: pulse_core::Revision(1) });
        assert!(job.has_vanished(None));
        assert!(job.has_vanished(Some(&self::record(8))));
        for same in [record.stopping(), record.assigned_to(None, None), record.rejected("no"), record.again(7, true)] {
            assert!(!job.has_vanished(Some(&same)), "{same:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_vanished_was_lost_unless_its_worker_is_gone_and_the_map_is_the_same() {
        let client = pulse_core::connect("memory:").await.unwrap();
        let tables = Tables::join(&client, "pool", NodeId(1), true).await.unwrap();
        let change = || Transaction::new(tables.scope());
        let worker = WORKER.to_string();
        let began = change().put("pool:jobs", "another", "").put("pool:workers", worker.clone(), "");
        client.commit(began).await.unwrap();
        let job = in_hand(&record(7), tables.jobs_version().await.unwrap().unwrap());
        assert!(job.is_lost(&tables).await.unwrap(), "nobody else may have removed it");
        client.commit(change().delete("pool:workers", worker)).await.unwrap();
        assert!(!job.is_lost(&tables).await.unwrap(), "others may have had it");
        client.commit(change().destroy_map("pool:jobs")).await.unwrap();
        assert!(job.is_lost(&tables).await.unwrap(), "all are gone");
        client.commit(change().put("pool:jobs", "another", "")).await.unwrap();
        assert!(job.is_lost(&tables).await.unwrap(), "all of that time are gone");
    }
}
