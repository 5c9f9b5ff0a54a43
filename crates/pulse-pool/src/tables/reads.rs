//! What is read of a pool's tables: from the backend, and of the nodes from the replica of the workers.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use pulse_core::{MapFeed, MapId, Version};

use super::{
    DEAD, DEAD_PAYLOADS, NODE, Name, PAYLOADS, PROGRESS, RESULTS, RUN, SERVER, SHUTDOWN, TICKERS, Tables, WORKERS,
    node_key,
};
use crate::{JobKey, NodeId, WorkerId, decide::Members, headers::Content, record::PlacedBy, result::JobResult};

/// How many dead jobs are read in one round trip.
const PAGE: usize = 500;

impl Tables {
    /// The record of a job as the backend has it now.
    pub(crate) async fn read_record(&self, key: &JobKey) -> Result<Option<Bytes>, pulse_core::Error> {
        let values = self.client.backend().map_get(&self.jobs_id, &[key.as_str()]).await?;
        Ok(values.into_iter().next().flatten())
    }

    /// What stands beside the records of jobs.
    pub(crate) async fn read_entries(&self, keys: &[&str]) -> Result<Vec<Option<Bytes>>, pulse_core::Error> {
        self.client.backend().map_get(&self.scope.map(PAYLOADS.text())?, keys).await
    }

    /// What stands beside the record of a job: its payload, with its headers.
    pub(crate) async fn read_entry(&self, key: &JobKey) -> Result<Option<Bytes>, pulse_core::Error> {
        self.read(&PAYLOADS, key.as_str()).await
    }

    /// Whether the node stands in the pool, as the replica shows it.
    pub(crate) fn has_node(&self, node: NodeId) -> bool {
        self.workers.snapshot().contains_key(&node_key(node))
    }

    /// What is known of the server's run.
    pub(crate) async fn read_server(&self) -> Result<Option<Bytes>, pulse_core::Error> {
        self.read(&SERVER, RUN).await
    }

    /// What a job of this key left behind.
    pub(crate) async fn read_result(&self, key: &JobKey) -> Result<Option<JobResult>, pulse_core::Error> {
        Ok(self.read(&RESULTS, key.as_str()).await?.and_then(|raw| JobResult::decode(&raw)))
    }

    /// What a job said last of how far it is.
    pub(crate) async fn read_progress(&self, key: &JobKey) -> Result<Option<Bytes>, pulse_core::Error> {
        self.read(&PROGRESS, key.as_str()).await
    }

    pub(crate) async fn read_dead(&self, key: &JobKey) -> Result<Option<Bytes>, pulse_core::Error> {
        self.read(&DEAD, key.as_str()).await
    }

    pub(crate) async fn read_dead_entry(&self, key: &JobKey) -> Result<Option<Bytes>, pulse_core::Error> {
        self.read(&DEAD_PAYLOADS, key.as_str()).await
    }

    /// All dead jobs.
    pub(crate) async fn all_dead(&self) -> Result<BTreeMap<Arc<str>, Bytes>, pulse_core::Error> {
        self.read_all(&self.scope.map(DEAD.text())?).await
    }

    /// The records of all jobs as the backend has them now.
    pub(crate) async fn all_records(&self) -> Result<BTreeMap<Arc<str>, Bytes>, pulse_core::Error> {
        self.read_all(&self.jobs_id).await
    }

    /// The records of some jobs as the backend has them now.
    pub(crate) async fn read_records(&self, keys: &[&str]) -> Result<Vec<Option<Bytes>>, pulse_core::Error> {
        self.client.backend().map_get(&self.jobs_id, keys).await
    }

    /// The changes of the records from now on.
    pub(crate) async fn jobs_feed(&self) -> Result<MapFeed, pulse_core::Error> {
        self.client.backend().map_feed(&self.jobs_id).await
    }

    async fn read_all(&self, map: &MapId) -> Result<BTreeMap<Arc<str>, Bytes>, pulse_core::Error> {
        let (mut cursor, mut all) = (None, BTreeMap::new());
        loop {
            let page = self.client.backend().map_page(map, cursor.as_ref(), PAGE).await?;
            all.extend(page.entries);
            cursor = page.next;
            if cursor.is_none() {
                return Ok(all);
            }
        }
    }

    async fn read(&self, map: &Name, key: &str) -> Result<Option<Bytes>, pulse_core::Error> {
        let values = self.client.backend().map_get(&self.scope.map(map.text())?, &[key]).await?;
        Ok(values.into_iter().next().flatten())
    }

    /// The version of the jobs as the backend has them now.
    pub(crate) async fn jobs_version(&self) -> Result<Option<Version>, pulse_core::Error> {
        self.client.backend().map_version(&self.jobs_id).await
    }

    /// The record of a ticker as the backend has it now.
    pub(crate) async fn read_ticker(&self, name: &str) -> Result<Option<Bytes>, pulse_core::Error> {
        self.read(&TICKERS, name).await
    }

    /// The version of the tickers as the backend has them now.
    pub(crate) async fn tickers_version(&self) -> Result<Option<Version>, pulse_core::Error> {
        self.client.backend().map_version(&self.scope.map(TICKERS.text())?).await
    }

    /// The workers as the replica shows them.
    pub(crate) fn members(&self) -> Members {
        let snapshot = self.workers.snapshot();
        // No worker is called 0, which stands for nobody.
        let id = |worker: &str| worker.parse().ok().filter(|id: &WorkerId| id.0 != 0);
        let workers = snapshot.iter().filter_map(|(worker, record)| Some((id(worker)?, record.clone())));
        Members::new(snapshot.version().map(PlacedBy::from), workers.collect())
    }

    /// Whether the pool is shut down.
    pub(crate) fn is_marked(&self) -> bool {
        self.workers.snapshot().contains_key(SHUTDOWN.text())
    }

    /// Whether there is nobody in the pool but that node, without workers, and maybe the mark of a shutdown.
    pub(crate) fn is_alone(&self, node: NodeId) -> bool {
        let own = node_key(node);
        self.workers.snapshot().keys().all(|key| SHUTDOWN.is(key) || **key == *own)
    }

    /// How many nodes are in the pool.
    pub(crate) fn nodes(&self) -> usize {
        self.workers.snapshot().keys().filter(|key| key.starts_with(NODE)).count()
    }

    /// The node with the smallest id among those that hold the jobs.
    #[cfg(feature = "metrics")]
    pub(crate) fn first_node(&self) -> Option<NodeId> {
        let workers = self.workers.snapshot();
        let nodes = workers.iter().filter(|(key, _)| key.starts_with(NODE));
        nodes
            .filter(|(_, record)| !record.labels.iter().any(|label| label == super::CLIENT))
            .map(|(_, record)| record.node)
            .min()
    }

    /// Whether a worker is in the pool, as the backend has it now.
    pub(crate) async fn has_worker(&self, worker: WorkerId) -> Result<bool, pulse_core::Error> {
        Ok(self.read(&WORKERS, &worker.to_string()).await?.is_some())
    }

    /// Reads what stood beside the record of a job.
    ///
    /// # Errors
    ///
    /// [`pulse_core::Error::Corrupt`] if it is damaged.
    pub(crate) fn open(&self, key: &JobKey, entry: Bytes) -> Result<Content, pulse_core::Error> {
        Content::open(entry).map_err(|damaged| {
            let key = self.scope.map(PAYLOADS.text()).map_or_else(|_| key.to_string(), |map| format!("{key} in {map}"));
            pulse_core::Error::Corrupt { key, reason: damaged.to_string() }
        })
    }
}
