//! Payloads that are fetched at the same moment, with one request.
//!
//! It only saves requests. Where it fails, whoever asked asks again.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use bytes::Bytes;
use pulse_core::Error;

use crate::{JobKey, group::Kind, tables::Tables};

/// How much is fetched with one request, as far as that can be known before. All that a process asks of the backend
/// shares a connection, so that what is fetched must not hold up the renewal of a lease.
const AT_ONCE: usize = 1 << 20;

/// How large payloads are taken to be before any was seen: larger than most, so that a few tell.
const UNSEEN: usize = 64 << 10;

/// Fetches what stands beside the records of jobs.
#[derive(Debug)]
pub(crate) struct Fetching {
    tables: Arc<Tables>,
    /// How large those of the last requests were, or might have been.
    size: AtomicUsize,
}

impl Fetching {
    pub(crate) fn new(tables: Arc<Tables>) -> Self {
        Self { tables, size: AtomicUsize::new(UNSEEN) }
    }

    /// Fetches as many of those as are not too much for one request; at least one.
    async fn fetch_some(&self, keys: &[&str]) -> Vec<Result<Option<Bytes>, Error>> {
        let size = self.size.load(Ordering::Relaxed).max(1);
        let some = &keys[..(AT_ONCE / size).clamp(1, keys.len())];
        match self.tables.read_entries(some).await {
            Ok(entries) => {
                let bytes: usize = entries.iter().flatten().map(Bytes::len).sum();
                // Small ones are no sign that there are no large ones any more.
                self.size.store((bytes / some.len()).max(size / 2), Ordering::Relaxed);
                entries.into_iter().map(Ok).collect()
            }
            Err(error) => {
                // It may have been too much: whoever asks again goes alone.
                self.size.store(AT_ONCE, Ordering::Relaxed);
                some.iter().map(|_| Err(error.clone())).collect()
            }
        }
    }
}

#[async_trait]
impl Kind for Fetching {
    type Item = JobKey;
    type Answer = Result<Option<Bytes>, Error>;
    /// Some payloads are large.
    const FLIGHTS: usize = 2;

    async fn ask(&self, keys: Vec<JobKey>) -> Vec<Self::Answer> {
        let names: Vec<&str> = keys.iter().map(JobKey::as_str).collect();
        let mut answers = Vec::with_capacity(names.len());
        while answers.len() < names.len() {
            answers.extend(self.fetch_some(&names[answers.len()..]).await);
        }
        answers
    }
}
