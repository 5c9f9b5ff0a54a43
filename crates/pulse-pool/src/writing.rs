//! What a node writes down of its jobs: those that are dispatched, that have started and that have ended at the same
//! moment, in one transaction.
//!
//! It only saves requests. If the transaction is refused, those to blame are left out and the rest is tried again.
//! Whoever is left out goes on alone, and finds out for itself; where nobody is to blame, all do.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use pulse_core::Version;

use crate::{
    group::Kind,
    tables::{Blame, Entry, Tables, jobs_version},
};

/// How often it is tried, each time without those because of whom all were refused.
const ATTEMPTS: usize = 6;

/// What became of something that was to be written in company.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Wrote {
    /// It was written. The version of the jobs right after, if known.
    Yes(Option<Version>),
    No,
    /// Nobody knows.
    Perhaps,
}

/// Writes down what becomes of jobs.
#[derive(Debug)]
pub(crate) struct Writing {
    pub(crate) tables: Arc<Tables>,
    pub(crate) max_queued: u64,
    /// There was no room when a new job was last refused, and none was recorded alone since.
    pub(crate) is_full: Arc<AtomicBool>,
}

#[async_trait]
impl Kind for Writing {
    type Item = Entry;
    type Answer = Wrote;
    /// With few at a time, nobody waits for another's request. With many, the more go together the better.
    const FLIGHTS: usize = 2;
    const FEW: usize = 2;

    /// What has begun makes room for what is new.
    fn hurries(entry: &Entry) -> bool {
        !entry.is_new()
    }

    async fn ask(&self, entries: Vec<Entry>) -> Vec<Wrote> {
        let mut within = together(&entries);
        let mut wrote = Wrote::No;
        let mut refused_new = false;
        for _ in 0..ATTEMPTS {
            let some: Vec<&Entry> = those(&entries, &within).collect();
            if some.is_empty() {
                break;
            }
            let change = self.tables.write_down(&some, self.max_queued);
            match self.tables.client().commit(change).await {
                Ok(committed) => {
                    wrote = Wrote::Yes(jobs_version(&committed));
                    break;
                }
                Err(error) if error.is_outcome_unknown() => {
                    wrote = Wrote::Perhaps;
                    break;
                }
                Err(error) => {
                    let Some(failed) = error.failed_expectation() else { break };
                    let blame = Blame::of(failed);
                    // For the second time because of new jobs: without all of them, the rest waits no longer.
                    let blame = if refused_new && blame.concerns_new() { Blame::AllNew } else { blame };
                    refused_new |= blame.concerns_new();
                    if !self.leave_out(&entries, &mut within, blame).await {
                        break;
                    }
                }
            }
        }
        within.into_iter().map(|within| if within { wrote } else { Wrote::No }).collect()
    }
}

impl Writing {
    /// Leaves out those because of whom all were refused. Returns whether there are any, as far as that can be told.
    async fn leave_out(&self, entries: &[Entry], within: &mut [bool], blame: Blame<'_>) -> bool {
        let (mut stale, mut room) = (HashSet::new(), 0);
        match blame {
            Blame::Record(_) => match self.stale(those(entries, within).collect()).await {
                Ok(keys) => stale = keys,
                Err(_) => return false,
            },
            Blame::Queue { queued } => {
                room = self.max_queued.saturating_sub(queued);
                self.is_full.store(room == 0, Ordering::Relaxed);
            }
            _ => {}
        }
        let mut is_to_blame = |entry: &Entry| match blame {
            Blame::Record(key) => entry.key().as_str() == key || stale.contains(entry.key().as_str()),
            Blame::Queue { .. } => {
                let fits = !entry.is_new() || room > 0;
                room = room.saturating_sub(u64::from(entry.is_new()));
                !fits
            }
            Blame::AllNew => entry.is_new(),
            Blame::Worker(name) => entry.owner().is_some_and(|worker| worker.to_string() == name),
            Blame::Lease => entry.lease().is_some(),
            Blame::Nobody => false,
        };
        let mut any = false;
        for (entry, within) in entries.iter().zip(within).filter(|(_, within)| **within) {
            *within = !is_to_blame(entry);
            any |= !*within;
        }
        any
    }

    /// The keys whose records are not as expected. Where one is not, others are likely: somebody dispatches many that are
    /// there already, on a node that does not know them, say.
    async fn stale<'a>(&self, entries: Vec<&'a Entry>) -> Result<HashSet<&'a str>, pulse_core::Error> {
        if entries.len() == 1 {
            // It is known to be.
            return Ok(HashSet::new());
        }
        let keys: Vec<&str> = entries.iter().map(|entry| entry.key().as_str()).collect();
        let found = self.tables.read_records(&keys).await?;
        let stale = entries.into_iter().zip(found).filter(|(entry, found)| entry.expects() != found.as_ref());
        Ok(stale.map(|(entry, _)| entry.key().as_str()).collect())
    }
}

/// Which go together: of each key the first, and of two leases, of which a node may have jobs that has lost one a moment
/// ago, those of the first.
fn together(entries: &[Entry]) -> Vec<bool> {
    let mut keys = HashSet::new();
    let lease = entries.iter().find_map(Entry::lease);
    let go_together = entries.iter().map(|entry| {
        let of_entry = entry.lease();
        (of_entry.is_none() || of_entry == lease) && keys.insert(entry.key())
    });
    go_together.collect()
}

fn those<'a>(entries: &'a [Entry], within: &[bool]) -> impl Iterator<Item = &'a Entry> {
    entries.iter().zip(within).filter_map(|(entry, within)| within.then_some(entry))
}

#[cfg(test)]
mod tests;
