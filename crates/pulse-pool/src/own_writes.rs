//! What the calls of a node have written of the jobs: its queries show no less.
//!
//! A write is done when the backend confirms it, which is before the replica shows it. So a query that comes right after
//! it waits until the replica has caught up, or is answered by the backend where that takes long.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use pulse_core::Version;
use tokio::time::timeout;

use crate::tables::Tables;

/// How long a query waits for the replica before it asks the backend.
const PATIENCE: Duration = Duration::from_secs(1);

/// The latest write of this node's calls.
#[derive(Debug, Default)]
pub(crate) struct OwnWrites(Mutex<Latest>);

#[derive(Debug, Default, Clone, Copy)]
struct Latest {
    /// Of the jobs, right after it.
    version: Option<Version>,
    /// How many writes there were whose versions are not known.
    unknown: u64,
    /// How many of them the version includes.
    included: u64,
}

impl OwnWrites {
    fn lock(&self) -> MutexGuard<'_, Latest> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a write by the version of the jobs right after it, if that is known.
    pub(crate) fn note(&self, version: Option<Version>) {
        let mut latest = self.lock();
        match version {
            Some(version) => latest.reach(version),
            None => latest.unknown += 1,
        }
    }

    /// Waits until the replica shows all that was written; `false` if that takes long.
    pub(crate) async fn are_shown(&self, tables: &Tables) -> bool {
        timeout(PATIENCE, self.shown(tables)).await.unwrap_or(false)
    }

    async fn shown(&self, tables: &Tables) -> bool {
        let latest = *self.lock();
        if latest.unknown > latest.included {
            // What is read now includes what was written before.
            let Ok(now) = tables.jobs_version().await else { return false };
            let mut known = self.lock();
            known.included = known.included.max(latest.unknown);
            match now {
                Some(now) => known.reach(now),
                None => known.version = None,
            }
        }
        let version = self.lock().version;
        match version {
            Some(version) if !tables.jobs.version().is_some_and(|shown| shown.includes(&version)) => {
                // An error means that the jobs that it is of are gone, or that the node is closed: the replica shows what
                // there is.
                let _ = tables.jobs.wait_for(version).await;
            }
            _ => {}
        }
        true
    }
}

impl Latest {
    fn reach(&mut self, version: Version) {
        let is_earlier = |latest: Version| latest.incarnation == version.incarnation && latest.includes(&version);
        if !self.version.is_some_and(is_earlier) {
            self.version = Some(version);
        }
    }
}

#[cfg(test)]
mod tests {
    use pulse_core::{Incarnation, Revision};

    use super::*;

    #[test]
    fn the_latest_write_counts_whatever_the_order_of_the_answers() {
        let at =
            |incarnation, revision| Version { incarnation: Incarnation(incarnation), revision: Revision(revision) };
        let writes = OwnWrites::default();
        for version in [at(1, 3), at(1, 5), at(1, 4)] {
            writes.note(Some(version));
        }
        assert_eq!(writes.lock().version, Some(at(1, 5)));
        writes.note(Some(at(2, 1)));
        assert_eq!(writes.lock().version, Some(at(2, 1)), "the jobs began anew");
    }
}
