//! Stopping jobs.

use std::time::Duration;

use bytes::Bytes;
use pulse_core::Version;
use tokio::time::{Instant, timeout_at};

use super::Node;
use crate::{
    Error, JobKey,
    id::DispatchId,
    record::{JobRecord, Phase},
    tables::Refusal,
    watch::Watch,
    write::{BackOff, Written, write},
};

/// What a request to stop a job came to.
enum Asked {
    /// There is no such job any more, because of us.
    Gone,
    /// Its owner has to stop it; asked for by this version of the jobs.
    Stopping(DispatchId, Option<Version>),
}

impl Node {
    /// Stops a job for good, and returns once its handler has stopped it and it is forgotten.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownJob`] if there is no such job; [`Error::Requeued`] if its handler put it back;
    /// [`Error::NotStopped`] if the handler takes too long: it is stopped as soon as it can be; [`Error::Backend`],
    /// [`Error::TimedOut`] and [`Error::Closed`], of which the first two say by [`Error::is_outcome_unknown`] whether
    /// it may have been asked to stop.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the job is stopped all the same once the request has been made.
    pub async fn stop(&self, key: impl AsRef<str>) -> Result<(), Error> {
        let (key, deadline) = (JobKey::new(key)?, self.deadline());
        let watch = self.watch(&key, deadline, "stop").await?;
        let asked = timeout_at(deadline, self.ask_to_stop(&key, deadline));
        match asked.await.map_err(|_| self.pool.timed_out("stop"))?? {
            Asked::Gone => Ok(()),
            Asked::Stopping(dispatch, since) => {
                let gone = async {
                    self.until_gone(&key, dispatch, since, watch).await?;
                    self.until_gone_for_certain(&key, dispatch).await;
                    Ok(())
                };
                let gone = timeout_at(deadline, gone).await;
                gone.unwrap_or_else(|_| {
                    let (pool, after) = (self.pool.name.to_string(), self.pool.options.timeout);
                    Err(Error::NotStopped { pool, key, after })
                })
            }
        }
    }

    async fn ask_to_stop(&self, key: &JobKey, deadline: Instant) -> Result<Asked, Error> {
        let (pool, failed) = (&self.pool, self.pool.backend("stop"));
        let mut raw = pool.tables.jobs.get_raw(key.as_str());
        // The replica may be behind: by what it shows a job may be changed, which fails then, but not be given up.
        let mut seen_by_backend = false;
        loop {
            if self.is_closed() {
                return Err(pool.closed());
            }
            if raw.is_none() && !seen_by_backend {
                raw = pool.tables.read_record(key).await.map_err(&failed)?;
                seen_by_backend = true;
            }
            let unknown = || Error::UnknownJob { pool: pool.name.to_string(), key: key.clone() };
            let old = raw.take().ok_or_else(unknown)?;
            let is_to_end = |record: &JobRecord| record.is_job() && record.phase != Phase::Stopping;
            if !seen_by_backend && !JobRecord::read(&old).is_some_and(|record| is_to_end(&record)) {
                continue;
            }
            let record = self.decode(key, &old)?;
            if !record.is_job() {
                return Err(unknown());
            }
            let (change, leaves) = self.stopping(key, &record, &old)?;
            let Some(change) = change else {
                // Somebody else asked before us.
                let since = pool.tables.jobs_version().await.map_err(&failed)?;
                return Ok(Asked::Stopping(record.dispatch, since));
            };
            let written = write(pool.tables.client(), &change, leaves.as_ref(), Some(deadline)).await;
            match (written.map_err(&failed)?, leaves) {
                (Written::Done(version), None) => {
                    pool.own_writes.note(version);
                    return Ok(Asked::Gone);
                }
                (Written::Done(Some(version)), Some(_)) => return Ok(Asked::Stopping(record.dispatch, Some(version))),
                (Written::Done(None), Some(_)) => {
                    let since = pool.tables.jobs_version().await.map_err(&failed)?;
                    return Ok(Asked::Stopping(record.dispatch, since));
                }
                (Written::RefusedAfterUnknown(Refusal::Record(found)), _)
                    if (seen_by_backend || found.is_none()) && !is_of(found.as_ref(), record.dispatch) =>
                {
                    // The answer was lost, but the job that was to be stopped is gone.
                    return Ok(Asked::Gone);
                }
                (Written::Refused(refusal) | Written::RefusedAfterUnknown(refusal), _) => {
                    (raw, seen_by_backend) = match refusal {
                        Refusal::Record(found) => (found, true),
                        _ => (None, false),
                    };
                }
            }
        }
    }

    /// The change that stops a job, and what it leaves at the key: nothing if nobody has the job. No change if it is
    /// asked to stop already.
    fn stopping(
        &self,
        key: &JobKey,
        record: &JobRecord,
        old: &Bytes,
    ) -> Result<(Option<pulse_core::Transaction>, Option<Bytes>), Error> {
        let tables = &self.pool.tables;
        if record.phase == Phase::Stopping {
            return Ok((None, None));
        }
        if record.owner().is_none() {
            return Ok((Some(tables.remove(key, old, None)), None));
        }
        let new = self.pool.encode(&record.stopping())?;
        Ok((Some(tables.replace(key, old, new.clone())), Some(new)))
    }

    /// A replica that is behind may show the jobs as they were before the server lost something.
    async fn until_gone_for_certain(&self, key: &JobKey, dispatch: DispatchId) {
        let mut back_off = BackOff::new(Duration::from_millis(20), Duration::from_secs(1));
        if self.pool.tables.jobs.is_synced() {
            return;
        }
        loop {
            match self.pool.tables.read_record(key).await {
                Ok(record) if !is_of(record.as_ref(), dispatch) => return,
                _ => back_off.pause().await,
            }
        }
    }

    async fn until_gone(
        &self,
        key: &JobKey,
        dispatch: DispatchId,
        since: Option<Version>,
        mut watch: Watch,
    ) -> Result<(), Error> {
        let gone = |version: Option<Version>, record: Option<&JobRecord>| {
            let up_to_date = since.is_none_or(|since| version.is_some_and(|version| version.includes(&since)));
            up_to_date && record.is_none_or(|record| record.dispatch != dispatch || !record.is_job())
        };
        // Its handler did not want it to end.
        let put_back = |version: Option<Version>, record: Option<&JobRecord>| {
            let up_to_date = since.is_none_or(|since| version.is_some_and(|version| version.includes(&since)));
            let lives = record.is_some_and(|record| record.dispatch == dispatch && record.phase != Phase::Stopping);
            up_to_date && lives
        };
        let requeued = || Err(Error::Requeued { pool: self.pool.name.to_string(), key: key.clone() });
        let now = self.pool.tables.jobs.snapshot();
        if gone(now.version(), now.get(key.as_str())) {
            return Ok(());
        }
        if put_back(now.version(), now.get(key.as_str())) {
            return requeued();
        }
        loop {
            let sighting = watch.next().await.ok_or_else(|| self.pool.closed())?;
            if gone(sighting.version, sighting.record.as_deref()) {
                return Ok(());
            }
            if put_back(sighting.version, sighting.record.as_deref()) {
                return requeued();
            }
        }
    }
}

/// Whether a record is that of a dispatch.
fn is_of(raw: Option<&Bytes>, dispatch: DispatchId) -> bool {
    let record = raw.and_then(|raw| JobRecord::read(raw));
    record.is_some_and(|record| record.dispatch == dispatch)
}
