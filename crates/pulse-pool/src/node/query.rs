//! Asking for the jobs of the pool.
//!
//! A node that replicates them answers from its replica, without a request, once that shows what the node's own calls have
//! written; another one asks the backend.

use std::{
    sync::atomic::Ordering,
    time::{Duration, UNIX_EPOCH},
};

use super::{JobInfo, JobState, Node};
use crate::{Error, JobKey, NodeId, PoolStats, record::JobRecord, watch::Seen};

impl Node {
    /// The jobs of the pool, in no particular order, as this node's replica shows them. What this node has dispatched or
    /// stopped before is seen: it waits for its replica, or reads from the backend where that takes longer than a second. A
    /// [client-only](crate::NodeBuilder::client_only) node reads all their records from the backend.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`] where the backend is asked.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn jobs(&self) -> Result<Vec<JobInfo>, Error> {
        let mut jobs = Vec::new();
        self.each_record(|key, record| jobs.extend(self.info(key, record))).await?;
        Ok(jobs)
    }

    /// One job of the pool, as this node's replica shows it, `None` if there is none of that key. What this node has
    /// dispatched or stopped before is seen, as in [`jobs`](Self::jobs). A
    /// [client-only](crate::NodeBuilder::client_only) node reads its record from the backend.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidKey`], and [`Error::Backend`] where the backend is asked.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn job(&self, key: impl AsRef<str>) -> Result<Option<JobInfo>, Error> {
        let (key, pool) = (JobKey::new(key)?, &self.pool);
        if self.answers_itself().await {
            let record = pool.tables.jobs.get(key.as_str());
            return Ok(record.and_then(|record| self.info(key, &record)));
        }
        let raw = pool.tables.read_record(&key).await.map_err(pool.backend("read a job"))?;
        Ok(raw.and_then(Seen::read).and_then(|record| self.info(key, &record)))
    }

    /// The keys of the pool's jobs, in no particular order, as this node's replica shows them. A
    /// [client-only](crate::NodeBuilder::client_only) node reads all their records from the backend.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`] where the backend is asked.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn job_keys(&self) -> Result<Vec<JobKey>, Error> {
        let mut keys = Vec::new();
        self.each_record(|key, record| keys.extend(record.is_job().then_some(key))).await?;
        Ok(keys)
    }

    /// Counts the nodes, workers and jobs of the pool, as this node's replica shows them. Goes over all jobs, which a
    /// [client-only](crate::NodeBuilder::client_only) node reads from the backend: meant for a status page, not for
    /// each request.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`] where the backend is asked.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn stats(&self) -> Result<PoolStats, Error> {
        let members = self.pool.members.borrow().clone();
        let mut stats = PoolStats::of(&members, self.pool.tables.nodes());
        self.each_record(|_, record| stats.count(&self.pool, &members, record)).await?;
        Ok(stats)
    }

    /// How many jobs this node has lost since it joined: jobs whose records vanished from the backend while they ran
    /// here, and which nobody stopped, because a failover undid what was confirmed, or somebody deleted them. The node
    /// stops such a job, and logs an error that names it.
    #[must_use]
    pub fn lost_jobs(&self) -> u64 {
        self.pool.lost.load(Ordering::Relaxed)
    }

    /// Whether the replica can tell: there is one, and it shows what was written here.
    async fn answers_itself(&self) -> bool {
        self.pool.options.replicates && self.pool.own_writes.are_shown(&self.pool.tables).await
    }

    /// The keys of the jobs that a schedule has started.
    pub(crate) async fn keys_of_schedule(&self, schedule: &str) -> Result<Vec<JobKey>, Error> {
        let mut keys = Vec::new();
        let is_its = |record: &JobRecord| record.is_job() && record.schedule() == Some(schedule);
        self.each_record(|key, record| keys.extend(is_its(record).then_some(key))).await?;
        Ok(keys)
    }

    async fn each_record(&self, mut see: impl FnMut(JobKey, &JobRecord) + Send) -> Result<(), Error> {
        let pool = &self.pool;
        if self.answers_itself().await {
            let jobs = pool.tables.jobs.snapshot();
            jobs.iter().for_each(|(key, record)| see(JobKey::from_map(key.clone()), record));
            return Ok(());
        }
        let all = pool.tables.all_records().await.map_err(pool.backend("read the jobs"))?;
        for (key, raw) in all {
            // What is damaged is skipped, as replicas do.
            if let Some(record) = Seen::read(raw) {
                see(JobKey::from_map(key), &record);
            }
        }
        Ok(())
    }

    pub(super) fn info(&self, key: JobKey, record: &JobRecord) -> Option<JobInfo> {
        let members = self.pool.members.borrow();
        let (state, node) = self.pool.state_of(record, &members);
        Some(self.info_in(key, record, state?, node))
    }

    /// Of a job that ran, and is there no more.
    pub(super) fn info_of_ended(&self, key: JobKey, record: &JobRecord) -> JobInfo {
        self.info_in(key, record, JobState::Running, None)
    }

    fn info_in(&self, key: JobKey, record: &JobRecord, state: JobState, node: Option<NodeId>) -> JobInfo {
        let (now, terms) = (self.pool.clock.now(), record.terms());
        JobInfo {
            key,
            state,
            owner: record.owner(),
            node,
            epoch: record.epoch(),
            dispatched: UNIX_EPOCH + Duration::from_millis(terms.at),
            age: Duration::from_millis(now.saturating_sub(terms.at)),
            priority: terms.priority,
            requires: terms.needs().to_vec(),
            failed: terms.failed,
        }
    }
}
