//! What goes to the backend in company: jobs that are dispatched, payloads that are fetched, jobs that have started,
//! and those that have ended.
//!
//! All of it only saves requests. Where company is refused, because of one of those in it or for whatever reason, each
//! goes on alone, and finds out for itself.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

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

/// What became of something that was to be written in company.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Wrote {
    /// It was written. The version of the jobs right after, if known.
    Yes(Option<Version>),
    No,
    /// Nobody knows.
    Perhaps,
}

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
        let Some(lease) = one_lease(jobs.iter().map(|job| job.lease)) else {
            return jobs.iter().map(|_| Wrote::No).collect();
        };
        let build =
            |some: &[&Started]| self.tables.running(lease, some.iter().map(|job| (&job.key, &job.old, &job.new)));
        write_together(&self.tables, &jobs, |job| &job.key, build).await
    }
}

/// A job that has ended well.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) key: JobKey,
    pub(crate) old: Bytes,
    pub(crate) result: Bytes,
    pub(crate) keep_for: Duration,
    pub(crate) lease: LeaseId,
}

/// Removes jobs that have ended well, and leaves their results.
#[derive(Debug)]
pub(crate) struct Finishing {
    pub(crate) tables: Arc<Tables>,
}

#[async_trait]
impl Kind for Finishing {
    type Item = Done;
    type Answer = Wrote;
    const FLIGHTS: usize = 1;

    async fn ask(&self, jobs: Vec<Done>) -> Vec<Wrote> {
        let Some(lease) = one_lease(jobs.iter().map(|job| job.lease)) else {
            return jobs.iter().map(|_| Wrote::No).collect();
        };
        let build = |some: &[&Done]| {
            let jobs = some.iter().map(|job| (&job.key, &job.old, job.result.clone(), job.keep_for));
            self.tables.finish(lease, jobs)
        };
        write_together(&self.tables, &jobs, |job| &job.key, build).await
    }
}

/// The lease, if it is one and the same: a node that has lost one a moment ago may have jobs of two.
fn one_lease(mut leases: impl Iterator<Item = LeaseId>) -> Option<LeaseId> {
    let first = leases.next()?;
    leases.all(|lease| lease == first).then_some(first)
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
    let mut wrote = Wrote::No;
    for _ in 0..ATTEMPTS {
        let some: Vec<&T> = all.iter().zip(&within).filter(|(_, within)| **within).map(|(one, _)| one).collect();
        if some.is_empty() {
            break;
        }
        let change = build(&some);
        drop(some);
        match tables.client().commit(change).await {
            Ok(committed) => {
                wrote = Wrote::Yes(jobs_version(&committed));
                break;
            }
            Err(error) => match Tables::refused_job(&error) {
                Some(refused) => all.iter().zip(&mut within).for_each(|(one, within)| {
                    *within &= key_of(one).as_str() != refused;
                }),
                None => {
                    if error.is_outcome_unknown() {
                        wrote = Wrote::Perhaps;
                    }
                    break;
                }
            },
        }
    }
    within.into_iter().map(|within| if within { wrote } else { Wrote::No }).collect()
}

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
