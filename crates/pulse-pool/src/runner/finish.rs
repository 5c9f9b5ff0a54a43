//! What becomes of a job that says of itself that it has ended.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use pulse_core::{LeaseId, Version};
use pulse_rmap::Value;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Runner, damage, local::Local, lost::InHand, step};
use crate::{
    Epoch, JobKey,
    decide::Here,
    handler::Ending,
    id::AssignmentId,
    new_job::millis,
    pool::Pool,
    record::{DeadRecord, JobRecord, Phase},
    result::{JobResult, Outcome},
    tables::{Done, Entry, Refusal},
    write::{BackOff, Written, write_on},
    writing::Wrote,
};

/// Results larger than this gain nothing from company.
const LARGE: usize = 8 << 10;

/// How much of a reason is kept, in characters.
const LONGEST_REASON: usize = 1024;

/// A job says how it ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) key: JobKey,
    pub(crate) assignment: AssignmentId,
    pub(crate) epoch: Epoch,
    pub(crate) ending: Ending,
}

/// Where jobs say so.
pub(crate) type Endings = mpsc::UnboundedSender<Ended>;

/// An ending to be written down: under the lease of the node, and expecting the record of the activation, so that
/// nothing is written of one that has lost its job.
pub(super) struct Finish {
    pub(super) pool: Arc<Pool>,
    pub(super) key: JobKey,
    pub(super) record: JobRecord,
    pub(super) raw: Bytes,
    pub(super) job: InHand,
    pub(super) lease: LeaseId,
    /// Cancelled when the lease is lost.
    pub(super) lost: CancellationToken,
    /// It did not go well in company, and does not hold up others again.
    pub(super) goes_alone: bool,
}

impl Finish {
    pub(super) async fn write(mut self, ending: Ending) {
        let lost = self.lost.clone();
        tokio::select! {
            biased;
            () = lost.cancelled() => {}
            () = self.write_whole(ending) => {}
        }
    }

    async fn write_whole(&mut self, ending: Ending) {
        let mut instead = None;
        let mut may_have_happened = false;
        loop {
            let written = self.attempt(instead.as_ref().unwrap_or(&ending), &mut may_have_happened).await;
            self.goes_alone = true;
            // What was refused at first was ours until then. After an unknown outcome the key may be another job's.
            if let Ok(refused @ Written::Refused(_)) = &written
                && let Some(damaged) = damage::found(refused)
            {
                damage::report(&self.pool, &self.key);
                self.raw = damaged;
                continue;
            }
            match written {
                Ok(Written::Done(version)) => return step::caught_up(&self.pool, version).await,
                Ok(Written::Refused(Refusal::Record(found))) if self.has_vanished(found.as_ref()) => {
                    self.job.report_if_lost(&self.pool).await;
                    // So that what the replica still shows is not started again.
                    return step::caught_up(&self.pool, None).await;
                }
                Ok(Written::Refused(refusal) | Written::RefusedAfterUnknown(refusal)) => {
                    tracing::debug!(pool = %self.pool.name, key = %self.key, ?refusal, "a job changed while it ended");
                    step::caught_up(&self.pool, None).await;
                    if !self.look_again() {
                        return;
                    }
                    BackOff::new(step::AFTER_REFUSAL, step::AFTER_REFUSAL).pause().await;
                }
                // What cannot be stored now cannot be stored later.
                Err(error) if instead.is_none() && !is_in_the_way(&error) => {
                    let cause = pulse_core::error_chain::describe(&error);
                    let reason = format!("the job ended, and that cannot be written down: {cause}");
                    instead = Some(Ending::Dead { reason, keep_for: crate::result::KEEP_FOR });
                }
                // What is in the way may be mended. Until then the job stays here: it must not run again and again for
                // that.
                Err(error) => {
                    tracing::error!(pool = %self.pool.name, key = %self.key, %error, "cannot write down how a job ended");
                    instead = None;
                    step::pause_after_failure(&self.lost).await;
                    // The next attempt finds the damage, and writes over it. Where an earlier one may have worked, what is
                    // damaged may be another job's record.
                    let is_damaged = !may_have_happened && damage::shown(&self.pool, &self.key).is_some();
                    if self.pool.shut.load(Ordering::Relaxed) || (!is_damaged && !self.look_again()) {
                        return;
                    }
                }
            }
        }
    }

    /// Whether what stands at the job's key in the backend is another job's, or nothing.
    fn has_vanished(&self, found: Option<&Bytes>) -> bool {
        let record = found.and_then(|raw| JobRecord::read(raw));
        self.job.has_vanished(record.as_ref())
    }

    /// Takes the record as the replica shows it now; `false` if it is not of the activation that has ended.
    fn look_again(&mut self) -> bool {
        let snapshot = self.pool.tables.jobs.snapshot();
        let Some(record) = snapshot.value(self.key.as_str()) else { return false };
        let is_ours = record.assignment == self.record.assignment && record.phase != Phase::Stopping;
        if is_ours {
            (self.record, self.raw) = ((**record).clone(), record.raw());
        }
        is_ours
    }

    /// Writes down that the job ended well, together with others that end at the same moment.
    async fn in_company(&self, result: Bytes, keep_for: Duration) -> Wrote {
        if self.goes_alone || result.len() > LARGE {
            return Wrote::No;
        }
        let done = Done { key: self.key.clone(), old: self.raw.clone(), result, keep_for, lease: self.lease };
        self.pool.writing.ask(Entry::Done(done)).await.unwrap_or(Wrote::Perhaps)
    }

    /// # Errors
    ///
    /// Those that sending again does not heal.
    async fn attempt(&self, ending: &Ending, may_have_happened: &mut bool) -> Result<Written, crate::Error> {
        let Self { pool, key, record, raw, lease, .. } = self;
        let (tables, now) = (&pool.tables, pool.clock.now());
        let result = |outcome, keep_for| JobResult::kept(record.dispatch, outcome, now, keep_for).encode();
        let (change, leaves) = match ending {
            Ending::Done { value, keep_for } => {
                let result = result(Outcome::Done(value.clone()), *keep_for);
                match self.in_company(result.clone(), *keep_for).await {
                    Wrote::Yes(version) => {
                        pool.meter.done();
                        return Ok(Written::Done(version));
                    }
                    Wrote::No => {}
                    Wrote::Perhaps => *may_have_happened = true,
                }
                (tables.finish(*lease, key, raw, result, *keep_for), None)
            }
            Ending::Again { after, failure } => {
                let again = record.again(now.saturating_add(millis(*after)), failure.is_some());
                tracing::debug!(pool = %pool.name, %key, failure, ?after, "a job is put back");
                let new = pool.encode(&again)?;
                (tables.put_back(key, raw, *lease, new.clone()), Some(new))
            }
            Ending::Dead { reason, keep_for } => {
                tracing::warn!(pool = %pool.name, %key, reason, "a job is given up");
                let reason: String = reason.chars().take(LONGEST_REASON).collect();
                let dead = DeadRecord { reason: reason.clone(), at: now, terms: record.terms() };
                let dead = pulse_core::message_pack::encode(&dead)
                    .map_err(|source| crate::Error::Encode { key: key.to_string(), source })?;
                let entry = self.entry().await.map_err(pool.backend("read a payload"))?;
                let finish = tables.finish(*lease, key, raw, result(Outcome::Failed(reason), *keep_for), *keep_for);
                (tables.bury(finish, key, dead, entry), None)
            }
        };
        let written = write_on(tables.client(), &change, leaves.as_ref(), None, may_have_happened).await;
        if matches!(written, Ok(Written::Refused(_) | Written::RefusedAfterUnknown(_))) {
            *may_have_happened = false;
        }
        let written = written.map_err(pool.backend("end a job"))?;
        if matches!(written, Written::Done(_)) {
            match ending {
                Ending::Done { .. } => pool.meter.done(),
                Ending::Again { failure: Some(_), .. } => pool.meter.failed(),
                Ending::Again { failure: None, .. } => pool.meter.requeued(),
                Ending::Dead { .. } => pool.meter.dead(),
            }
        }
        Ok(written)
    }

    /// The job's payload and headers, as they are stored; nothing if they are missing, which is what the dead job then
    /// is buried with. That they cannot be read now is no reason to bury it without them.
    async fn entry(&self) -> Result<Bytes, pulse_core::Error> {
        let read = || self.pool.tables.read_entry(&self.key);
        Ok(step::readable(&self.pool, &self.key, read).await?.unwrap_or_default())
    }
}

/// Whether an error tells of what stands in the backend, or of the way there, rather than of what is to be stored.
fn is_in_the_way(error: &crate::Error) -> bool {
    use pulse_core::Error::{Auth, Closed, Corrupt, Denied, WrongType};
    let crate::Error::Backend { source, .. } = error else { return false };
    matches!(source, WrongType { .. } | Corrupt { .. } | Auth { .. } | Denied { .. } | Closed)
}

impl Runner {
    pub(super) fn on_job_ended(&mut self, ended: Ended) {
        let key = ended.key.clone();
        self.ended.insert(key.clone(), ended);
        self.look_at(&self.pool.tables.jobs.snapshot(), &key);
    }

    /// The record of a job of ours as it stands in the backend: a short one ends before the replica shows that it runs.
    fn as_recorded(&self, key: &JobKey, record: &Value<JobRecord>) -> (JobRecord, Bytes) {
        if record.phase == Phase::Assigned
            && let Some(activation) = self.jobs.running(key, record.assignment)
            && activation.lifeline.is_recorded()
        {
            let running = record.running(activation.activity.epoch);
            if let Ok(raw) = self.pool.encode(&running) {
                return (running, raw);
            }
        }
        ((**record).clone(), record.raw())
    }

    /// Has the end of a job written down that has said it. Returns whether the job is settled for now.
    pub(super) fn finish_job(
        &mut self,
        key: &JobKey,
        record: Option<&Value<JobRecord>>,
        version: Option<Version>,
    ) -> bool {
        let Some(Ended { assignment, epoch, .. }) = self.ended.get(key) else { return false };
        let is_other_run = self.jobs.running(key, *assignment).is_some_and(|here| here.activity.epoch != *epoch);
        match self.jobs.here(key.as_str()) {
            // Its start, or its stop, is not through yet.
            Here::Starting(_) | Here::Busy => return false,
            Here::Running(here) | Here::Ending(here) if here != *assignment || is_other_run => {}
            Here::Running(_) | Here::Ending(_) | Here::Nothing => {
                let is_ours = |record: &&Value<JobRecord>| {
                    let is_later = record.epoch().is_some_and(|run| run > *epoch);
                    record.assignment == *assignment
                        && !is_later
                        && matches!(record.phase, Phase::Running | Phase::Assigned)
                };
                let worker = record.and_then(|record| record.owner());
                if let (Some(record), Some(lease), Some(worker), Some(version)) =
                    (record.filter(is_ours), self.lease.as_ref(), worker, version)
                {
                    let job = InHand::new(key.clone(), record, worker, version);
                    let (record, raw) = self.as_recorded(key, record);
                    let finish = Finish {
                        job,
                        pool: self.pool.clone(),
                        key: key.clone(),
                        record,
                        raw,
                        lease: lease.session.lease(),
                        lost: lease.lost.clone(),
                        goes_alone: false,
                    };
                    let worker = self.jobs.worker_of(key);
                    let Some(Ended { ending, .. }) = self.ended.remove(key) else { return false };
                    self.jobs.set(key.clone(), Some(Local::Busy(worker)));
                    self.spawn_step(key, async move {
                        finish.write(ending).await;
                        None
                    });
                    return true;
                }
            }
        }
        self.ended.remove(key);
        false
    }
}
