//! Starting a job: fetch the payload, call the handler, write down that the job runs.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use pulse_core::LeaseId;
use pulse_rmap::Value;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::{
    damage,
    local::{Activation, Local},
    membership::until,
    step,
};
use crate::{
    Error, Job, JobKey,
    contain::Failure,
    headers::Content,
    new_job::millis,
    pool::Pool,
    record::{JobRecord, Phase},
    tables::{Entry, Refusal, Started},
    trace::{Activity, Origin},
    write::{BackOff, Written, write},
    writing::Wrote,
};

/// How long to wait before a job that moved here is tried again after its start failed, and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

/// One start under way. In a box, because its futures hand it on.
pub(super) struct Start {
    pub(super) pool: Arc<Pool>,
    pub(super) key: JobKey,
    /// The record that names our worker.
    pub(super) record: Value<JobRecord>,
    pub(super) activation: Activation,
    /// The handler was called before.
    pub(super) has_begun: bool,
    pub(super) lease: LeaseId,
    /// Cancelled when the session is lost.
    pub(super) lost: CancellationToken,
}

impl Start {
    /// Returns what is left here.
    pub(super) async fn run(mut self: Box<Self>) -> Option<Local> {
        let mut back_off = BackOff::new(RETRY.0, RETRY.1);
        loop {
            match self.attempt().await {
                Attempt::Started => return self.confirm().await,
                Attempt::BrokenOff => {
                    self.see_to_record().await;
                    return None;
                }
                Attempt::Failed(Failure { requeue: Some(after), .. }) => {
                    self.put_back(after).await;
                    return None;
                }
                Attempt::Failed(Failure { message, .. }) if self.record.epoch().is_none() => {
                    self.reject(&message).await;
                    return None;
                }
                Attempt::Failed(Failure { message: reason, .. }) => {
                    let (pool, key) = (&self.pool.name, &self.key);
                    tracing::warn!(%pool, %key, reason, "a job that moved did not start, trying again");
                    tokio::select! {
                        biased;
                        () = self.activation.stopped.cancelled() => {
                            self.see_to_record().await;
                            return None;
                        }
                        () = back_off.pause() => {}
                    }
                }
            }
        }
    }

    async fn attempt(&mut self) -> Attempt {
        let broken_off = self.activation.stopped.clone();
        let content = tokio::select! {
            biased;
            () = broken_off.cancelled() => return Attempt::BrokenOff,
            content = self.content() => content,
        };
        let content = match content {
            Ok(content) => content,
            Err(message) => return Attempt::Failed(message.into()),
        };
        self.activation.activity.origin = Origin::of(&content.headers);
        self.note_wait();
        // Of this attempt alone, so that whatever a failed start left behind learns that it must end.
        let stopped = self.activation.stopped.child_token();
        let Activation { activity, handler, lifeline, .. } = &self.activation;
        let Activity { worker, epoch, attempt, .. } = activity;
        let job = Job::new(self.key.clone(), content, *epoch, *worker, *attempt, stopped.clone(), lifeline.clone());
        let (span, begun) = (activity.start(&self.pool, &self.key), Instant::now());
        let started = tokio::select! {
            biased;
            () = broken_off.cancelled() => None,
            started = handler.start(job).instrument(span) => Some(started),
        };
        if started.is_some() {
            self.pool.meter.start_took(begun.elapsed());
        }
        match started {
            Some(Ok(())) => Attempt::Started,
            // What it says once it was told to stop is no refusal.
            Some(Err(failure)) if !broken_off.is_cancelled() => {
                stopped.cancel();
                self.activation.lifeline = Arc::new(self.activation.lifeline.renewed());
                Attempt::Failed(failure)
            }
            Some(Err(_)) | None => {
                // To be stopped in the middle of its start is what it must be.
                let _ = step::stop(&self.pool, &self.key, &self.activation).await;
                Attempt::BrokenOff
            }
        }
    }

    /// Notes how long the job has waited, the first time that it starts.
    fn note_wait(&mut self) {
        if self.record.epoch().is_none() && !std::mem::replace(&mut self.has_begun, true) {
            let waited = self.pool.clock.now().saturating_sub(self.record.due());
            self.pool.meter.waited(Duration::from_millis(waited));
        }
    }

    /// Says so if the start was broken off because the job has vanished, and that is a loss. Where its record is
    /// damaged, that is written anew, so that the job is started again.
    async fn see_to_record(&self) {
        let jobs = self.pool.tables.jobs.snapshot();
        if let Some(damaged) = damage::shown_in(&jobs, &self.key) {
            let worker = self.activation.activity.worker;
            let restored = damage::restore(&self.pool, &self.key, worker, &damaged, self.record.raw());
            until(&self.lost, restored).await;
            return;
        }
        if self.activation.job.has_vanished(jobs.get(self.key.as_str())) {
            self.activation.job.report_if_lost(&self.pool).await;
        }
    }

    async fn content(&self) -> Result<Content, String> {
        let unreadable = |error| format!("the job's payload cannot be read: {error}");
        if let Some(entry) = self.pool.fresh.take(self.record.dispatch) {
            return self.pool.tables.open(&self.key, entry).map_err(unreadable);
        }
        let fetch = async || {
            let fetched = self.pool.fetching.ask(self.key.clone()).await;
            fetched.unwrap_or(Err(pulse_core::Error::Closed))
        };
        match step::readable(&self.pool, &self.key, fetch).await.map_err(unreadable)? {
            Some(entry) => self.pool.tables.open(&self.key, entry).map_err(unreadable),
            None => Err("the job's payload is missing from the backend".into()),
        }
    }

    /// Writes down that the job runs, under the lease, and tells the job so. Where that is refused, the record has
    /// become another one, and the runner will see to it when its replica shows it.
    pub(super) async fn confirm(self: Box<Self>) -> Option<Local> {
        self.confirm_over(None).await
    }

    /// The same. `damage`: what stands in the place of the record, where that is known to be none.
    pub(super) async fn confirm_over(self: Box<Self>, mut damage: Option<Bytes>) -> Option<Local> {
        let pool = &self.pool;
        let written = loop {
            let written = tokio::select! {
                biased;
                () = self.lost.cancelled() => return Some(Local::Running(self.activation)),
                written = self.write_running(damage.as_ref()) => written,
            };
            match written.as_ref().ok().and_then(damage::found) {
                Some(damaged) => damage = Some(damaged),
                None => break written,
            }
        };
        match written {
            Ok(Written::Done(_)) => {
                if damage.is_some() {
                    damage::report(pool, &self.key);
                }
                if self.activation.lifeline.set_recorded() {
                    pool.meter.started();
                }
                Some(Local::Running(self.activation))
            }
            Ok(
                Written::Refused(Refusal::Record(Some(found)))
                | Written::RefusedAfterUnknown(Refusal::Record(Some(found))),
            ) if self.is_earlier_start(&found) => {
                let _ = step::stop(pool, &self.key, &self.activation).await;
                until(&self.lost, step::caught_up(pool, None)).await;
                None
            }
            Ok(Written::Refused(refusal) | Written::RefusedAfterUnknown(refusal)) => {
                tracing::debug!(pool = %pool.name, key = %self.key, ?refusal, "the job changed while it started");
                Some(Local::Running(self.activation))
            }
            Err(error) => {
                tracing::error!(pool = %pool.name, key = %self.key, %error, "cannot write down that the job runs");
                let _ = step::stop(pool, &self.key, &self.activation).await;
                step::pause_after_failure(&self.lost).await;
                None
            }
        }
    }

    /// Whether a record that stands in the place of ours says that the job runs, by a start of this node that is over.
    /// So our record is older, because the replica was behind.
    fn is_earlier_start(&self, found: &Bytes) -> bool {
        let found = JobRecord::read(found);
        found.is_some_and(|found| {
            found.assignment == self.record.assignment
                && found.phase == Phase::Running
                && found.epoch() != Some(self.activation.activity.epoch)
        })
    }

    /// Together with others that start at the same moment, or alone.
    async fn write_running(&self, damage: Option<&Bytes>) -> Result<Written, Error> {
        let (pool, tables) = (&self.pool, &self.pool.tables);
        // Made again rather than kept: to share them costs every start what only a refusal needs.
        let old = || damage.cloned().unwrap_or_else(|| self.record.raw());
        let new = || pool.encode(&self.record.running(self.activation.activity.epoch));
        let started = Started { key: self.key.clone(), old: old(), new: new()?, lease: self.lease };
        match pool.writing.ask(Entry::Started(started)).await {
            Some(Wrote::Yes(version)) => return Ok(Written::Done(version)),
            // If it is written down, it is recognised.
            Some(Wrote::No | Wrote::Perhaps) | None => {}
        }
        let (old, new) = (old(), new()?);
        let change = tables.running(self.lease, &self.key, &old, &new);
        match write(tables.client(), &change, Some(&new), None).await.map_err(pool.backend("start"))? {
            // In company it was.
            Written::Refused(Refusal::Record(Some(found))) if found == new => Ok(Written::Done(None)),
            written => Ok(written),
        }
    }

    async fn put_back(&self, after: Duration) {
        let pool = &self.pool;
        let again = self.record.again(pool.clock.now().saturating_add(millis(after)), false);
        tracing::debug!(pool = %pool.name, key = %self.key, ?after, "a job is put back by its handler");
        match pool.encode(&again) {
            Ok(new) => {
                let change = pool.tables.put_back(&self.key, &self.record.raw(), self.lease, new.clone());
                if step::change(pool, &self.key, &self.record.raw(), change, Some(new), &self.lost).await {
                    pool.meter.requeued();
                }
            }
            Err(error) => tracing::error!(pool = %pool.name, key = %self.key, %error, "cannot put a job back"),
        }
    }

    async fn reject(&self, message: &str) {
        let pool = &self.pool;
        pool.meter.rejected();
        tracing::debug!(pool = %pool.name, key = %self.key, reason = message, "job refused");
        match pool.encode(&self.record.rejected(message)) {
            Ok(trace) => {
                let change = pool.tables.reject(&self.key, &self.record.raw(), self.lease, trace.clone());
                step::change(pool, &self.key, &self.record.raw(), change, Some(trace), &self.lost).await;
            }
            Err(error) => tracing::error!(pool = %pool.name, key = %self.key, %error, "cannot refuse a job"),
        }
    }
}

/// How an attempt to start ended.
enum Attempt {
    Started,
    /// The job is to stop, and nothing of it goes on.
    BrokenOff,
    Failed(Failure),
}
