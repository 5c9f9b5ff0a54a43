//! What goes to the backend in company: jobs that are dispatched, payloads that are fetched, jobs that have started.
//!
//! All of it only saves requests. Where company is refused, because of one of those in it or for whatever reason, each
//! goes on alone, and finds out for itself.

use std::{collections::HashSet, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use pulse_core::{Error, LeaseId, Transaction, Version};

use crate::{
    JobKey,
    group::Kind,
    tables::{Dispatch, Tables, jobs_version},
};

/// How often company is tried again without those because of whom it was refused.
const ATTEMPTS: usize = 4;

/// `None`: it is not certain that it was written. Otherwise the version of the jobs right after, if known.
type Wrote = Option<Option<Version>>;

/// Records jobs.
#[derive(Debug)]
pub(crate) struct Recording {
    pub(crate) tables: Arc<Tables>,
    pub(crate) max_queued: u64,
}

#[async_trait]
impl Kind for Recording {
    type Item = Dispatch;
    type Answer = Wrote;
    const FLIGHTS: usize = 1;

    async fn ask(&self, jobs: Vec<Dispatch>) -> Vec<Wrote> {
        let build = |some: &[&Dispatch]| self.tables.dispatch(some.iter().copied(), self.max_queued);
        write_together(&self.tables, &jobs, |job| &job.key, build).await
    }
}

/// A job that its handler has accepted.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) key: JobKey,
    pub(crate) old: Bytes,
    pub(crate) new: Bytes,
    pub(crate) lease: LeaseId,
}

/// Writes down that jobs run.
#[derive(Debug)]
pub(crate) struct Confirming {
    pub(crate) tables: Arc<Tables>,
}

#[async_trait]
impl Kind for Confirming {
    type Item = Started;
    type Answer = Wrote;
    const FLIGHTS: usize = 1;

    async fn ask(&self, jobs: Vec<Started>) -> Vec<Wrote> {
        let Some(lease) = jobs.first().map(|job| job.lease) else { return Vec::new() };
        if jobs.iter().any(|job| job.lease != lease) {
            // The node has lost a lease a moment ago.
            return jobs.iter().map(|_| None).collect();
        }
        let build =
            |some: &[&Started]| self.tables.running(lease, some.iter().map(|job| (&job.key, &job.old, &job.new)));
        write_together(&self.tables, &jobs, |job| &job.key, build).await
    }
}

/// Writes in one transaction, without those whose records are not as expected, and of each key only the first.
async fn write_together<T: Sync>(
    tables: &Tables,
    all: &[T],
    key_of: impl Fn(&T) -> &JobKey + Send,
    build: impl Fn(&[&T]) -> Transaction + Send,
) -> Vec<Wrote> {
    let mut keys = HashSet::new();
    let mut within: Vec<bool> = all.iter().map(|one| keys.insert(key_of(one).clone())).collect();
    let mut wrote = None;
    for _ in 0..ATTEMPTS {
        let some: Vec<&T> = all.iter().zip(&within).filter(|(_, within)| **within).map(|(one, _)| one).collect();
        if some.is_empty() {
            break;
        }
        let change = build(&some);
        drop(some);
        match tables.client().commit(change).await {
            Ok(committed) => {
                wrote = Some(jobs_version(&committed));
                break;
            }
            Err(error) => match Tables::refused_job(&error) {
                Some(refused) => all.iter().zip(&mut within).for_each(|(one, within)| {
                    *within &= key_of(one).as_str() != refused;
                }),
                None => break,
            },
        }
    }
    within.into_iter().map(|within| wrote.filter(|_| within)).collect()
}

/// Fetches what stands beside the records of jobs.
#[derive(Debug)]
pub(crate) struct Fetching {
    pub(crate) tables: Arc<Tables>,
}

#[async_trait]
impl Kind for Fetching {
    type Item = JobKey;
    type Answer = Result<Option<Bytes>, Error>;
    /// Some payloads are large.
    const FLIGHTS: usize = 2;

    async fn ask(&self, keys: Vec<JobKey>) -> Vec<Self::Answer> {
        let names: Vec<&str> = keys.iter().map(JobKey::as_str).collect();
        match self.tables.read_entries(&names).await {
            Ok(entries) => entries.into_iter().map(Ok).collect(),
            Err(error) => names.iter().map(|_| Err(error.clone())).collect(),
        }
    }
}
