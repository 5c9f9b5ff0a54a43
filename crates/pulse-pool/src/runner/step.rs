//! The steps for a job other than its start: stopping it, and changing its record.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use pulse_core::{Error, LeaseId, Transaction, Version};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::{damage, local::Activation};
use crate::{
    JobKey,
    id::AssignmentId,
    new_job::millis,
    pool::Pool,
    record::Phase,
    write::{BackOff, Written, write},
};

/// How long to wait before a call is repeated, at first.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// How long to wait after a refusal, for the replica to show why.
pub(super) const AFTER_REFUSAL: Duration = Duration::from_millis(50);
/// How long to wait after an error that sending again does not heal.
pub(super) const AFTER_FAILURE: Duration = Duration::from_secs(2);

/// Stops a job, however long the handler takes. Returns when nothing of it goes on; and after how long the handler
/// wants it back, if it does.
pub(super) async fn stop(pool: &Pool, key: &JobKey, activation: &Activation) -> Option<Duration> {
    activation.stopped.cancel();
    let _turn = activation.turn.lock().await;
    let stop = activation.handler.stop(key);
    let stopped = stop.instrument(activation.activity.stop(pool, key)).await;
    activation.lifeline.sever();
    let failure = stopped.err()?;
    if failure.requeue.is_none() {
        let reason = failure.message;
        tracing::warn!(pool = %pool.name, %key, reason, "the handler failed to stop a job; it counts as stopped");
    }
    failure.requeue
}

/// Puts a job back that somebody wants to stop, and whose handler does not.
pub(super) async fn put_back_stopping(
    pool: &Arc<Pool>,
    key: &JobKey,
    assignment: AssignmentId,
    after: Duration,
    lease: LeaseId,
    lost: &CancellationToken,
) {
    let snapshot = pool.tables.jobs.snapshot();
    let Some(record) = snapshot.value(key.as_str()) else { return };
    if record.assignment != assignment || record.phase != Phase::Stopping {
        return;
    }
    let again = record.again(pool.clock.now().saturating_add(millis(after)), false);
    match pool.encode(&again) {
        Ok(new) => {
            let put_back = pool.tables.put_back(key, &record.raw(), lease, new.clone());
            if change(pool, key, &record.raw(), put_back, Some(new), lost).await {
                pool.meter.requeued();
            }
        }
        Err(error) => tracing::error!(pool = %pool.name, %key, %error, "cannot put a job back"),
    }
}

/// Commits a change of the record `old`, and returns when the replica shows it, so that the next look does not see the
/// record that was just replaced. Says whether the change was made.
pub(super) async fn change(
    pool: &Arc<Pool>,
    key: &JobKey,
    old: &Bytes,
    change: Transaction,
    leaves: Option<Bytes>,
    until: &CancellationToken,
) -> bool {
    tokio::select! {
        biased;
        () = until.cancelled() => false,
        changed = change_and_see(pool, key, old, change, leaves) => changed,
    }
}

async fn change_and_see(
    pool: &Arc<Pool>,
    key: &JobKey,
    old: &Bytes,
    change: Transaction,
    leaves: Option<Bytes>,
) -> bool {
    match write(pool.tables.client(), &change, leaves.as_ref(), None).await {
        Ok(Written::Done(version)) => {
            caught_up(pool, version).await;
            if pool.tables.jobs.get_raw(key.as_str()).as_ref() == Some(old) {
                // What took its place was confirmed, and is gone.
                pool.history.note_lost_change();
            }
            true
        }
        Ok(written) => {
            tracing::debug!(pool = %pool.name, %key, ?written, "a step was refused, looking again");
            match (damage::found(&written), &written) {
                // It may have taken effect. Nothing is to be decided on what was before.
                (_, Written::RefusedAfterUnknown(_)) => caught_up(pool, None).await,
                (Some(damaged), _) => damage::mend(pool, key, old, &damaged).await,
                (None, _) => {}
            }
            BackOff::new(AFTER_REFUSAL, AFTER_REFUSAL).pause().await;
            false
        }
        Err(error) => {
            tracing::error!(pool = %pool.name, %key, %error, "a step for a job failed, trying again later");
            BackOff::new(AFTER_FAILURE, AFTER_FAILURE).pause().await;
            caught_up(pool, None).await;
            false
        }
    }
}

/// Waits until the replica of the jobs shows a version, or, where it is not known, all that is committed by now.
pub(super) async fn caught_up(pool: &Pool, version: Option<Version>) {
    let mut back_off = BackOff::new(Duration::from_millis(20), Duration::from_secs(2));
    let mut version = version;
    while version.is_none() {
        match pool.tables.jobs_version().await {
            Ok(Some(now)) => version = Some(now),
            // There are no jobs at all, so that nothing can be mistaken for what it is not.
            Ok(None) | Err(Error::Closed) => return,
            Err(_) => back_off.pause().await,
        }
    }
    // An error means that the map is closed, or that the version's life of the map is over: there is nothing to see.
    while tokio::time::timeout(AFTER_FAILURE, pool.tables.jobs.wait_for(version)).await.is_err() {
        let now = pool.tables.jobs_version().await;
        if let (Some(version), Ok(now)) = (version, now)
            && !now.is_some_and(|now| now.includes(&version))
        {
            // It was confirmed, and is gone.
            return pool.history.note_lost_change();
        }
    }
}

/// Reads what stands beside the record of a job, however long that takes: that it cannot be read now says nothing of the
/// job.
///
/// # Errors
///
/// That the client is closed.
pub(super) async fn readable<F>(pool: &Pool, key: &JobKey, read: impl Fn() -> F) -> Result<Option<Bytes>, Error>
where
    F: Future<Output = Result<Option<Bytes>, Error>>,
{
    let mut back_off = BackOff::new(FIRST_PAUSE, AFTER_FAILURE);
    loop {
        match read().await {
            Err(error) if !matches!(error, Error::Closed) => {
                if !error.is_retryable() {
                    tracing::error!(pool = %pool.name, %key, %error, "cannot read a payload yet");
                }
                back_off.pause().await;
            }
            read => return read,
        }
    }
}

/// Keeps a failure that repeats from becoming a hot loop.
pub(super) async fn pause_after_failure(until: &CancellationToken) {
    tokio::select! {
        biased;
        () = until.cancelled() => {}
        () = tokio::time::sleep(AFTER_FAILURE) => {}
    }
}
