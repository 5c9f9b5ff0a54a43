//! Looking at jobs: deciding on the next step of each, and having it done.

use std::{panic::AssertUnwindSafe, sync::Arc};

use bytes::Bytes;
use futures::FutureExt;
use pulse_core::{Transaction, Version};
use pulse_rmap::{Snapshot, Value};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::{
    Runner, TaskEnded, damage,
    local::{Activation, Local},
    lost::InHand,
    membership::until,
    start::Start,
    step,
    workers::OurWorker,
};
use crate::{
    JobKey, WorkerId,
    activation::Lifeline,
    decide::{Here, Step, decide},
    history::Begin,
    meter::Cause,
    record::JobRecord,
    trace::{self, Activity, Origin},
};

impl Runner {
    /// Looks at everything, because who knows.
    pub(super) fn audit(&mut self) {
        self.look_at_all();
        self.drain_again();
        self.unregister_again();
        self.remove_if_alone();
        self.take_standing();
        let pool = self.pool.clone();
        self.tasks.spawn(async move {
            // If it fails, the next look will tell.
            let _ = pool.clock.adjust(pool.tables.client(), pool.tables.scope()).await;
            TaskEnded::Nothing
        });
    }

    /// Tells how many jobs are in which state, as far as this node answers for them.
    #[cfg(feature = "metrics")]
    fn take_standing(&mut self) {
        if self.pool.options.replicates && self.lease.is_some() {
            self.standing.take(&self.pool, &self.members, &self.pool.tables.jobs.snapshot());
        } else {
            self.standing.end();
        }
    }

    #[cfg(not(feature = "metrics"))]
    #[expect(clippy::unused_self, clippy::missing_const_for_fn, reason = "it does something only by a feature")]
    fn take_standing(&self) {}

    pub(super) fn look_at_due(&mut self) {
        let jobs = self.pool.tables.jobs.snapshot();
        while let Some(key) = self.later.take_due() {
            self.look_at(&jobs, &key);
        }
    }

    /// Looks at those who wait for room that a worker has now.
    pub(super) fn fill(&mut self, worker: WorkerId) {
        let jobs = self.pool.tables.jobs.snapshot();
        while self.has_room(worker)
            && let Some(key) = self.later.next_of(worker)
        {
            self.look_at(&jobs, &key);
        }
    }

    fn has_room(&self, worker: WorkerId) -> bool {
        self.workers.get(worker).is_some_and(|of| self.jobs.count_of(worker) < of.room())
    }

    /// Whether a job may start now. If not, it is looked at again when it may.
    fn may_start(&mut self, key: &JobKey, record: &JobRecord, worker: WorkerId) -> bool {
        if record.not_before() > self.pool.clock.now() {
            self.later.at(key, self.pool.clock.moment(record.not_before()));
            return false;
        }
        if !self.has_room(worker) {
            self.later.queue(worker, key, record);
            return false;
        }
        // Those before it may be on their way here.
        let first = self.later.first_arrival(worker, record.place(), key);
        if let Some(until) = first {
            self.later.queue(worker, key, record);
            self.later.at(key, until);
        }
        first.is_none()
    }

    fn is_ours_or_dead(&self, worker: WorkerId) -> bool {
        self.workers.ours().contains(&worker) || self.members.get(worker).is_none()
    }

    /// Looks at every job that is recorded or that is here; at those that our workers may have to start, or to take, in
    /// the order in which they are to start where there is not enough room for all.
    pub(super) fn look_at_all(&mut self) {
        let jobs = self.pool.tables.jobs.snapshot();
        self.watch_history(&jobs);
        let mut gone: Vec<JobKey> = self.jobs.keys().filter(|key| !jobs.contains_key(key.as_str())).cloned().collect();
        gone.sort_unstable();
        let mut ours = Vec::new();
        for key in jobs.keys().map(|key| JobKey::from_map(key.clone())).chain(gone) {
            match jobs.value(key.as_str()) {
                Some(record)
                    if record.owner().is_none_or(|owner| self.is_ours_or_dead(owner))
                        && self.jobs.here(key.as_str()) == Here::Nothing =>
                {
                    ours.push((record.place(), key));
                }
                _ => self.look_at(&jobs, &key),
            }
        }
        ours.sort_unstable();
        ours.iter().for_each(|(.., key)| self.look_at(&jobs, key));
        if self.pool.options.replicates {
            self.pool.watches.announce_all(&jobs);
        }
    }

    /// Decides on a job, and has the next step done.
    pub(super) fn look_at(&mut self, jobs: &Snapshot<JobRecord>, key: &JobKey) {
        self.later.forget(key);
        self.watch_history(jobs);
        let record = jobs.value(key.as_str());
        if record.is_none() && self.restore_running(jobs, key) {
            return;
        }
        if !self.ended.is_empty() && self.finish_job(key, record, jobs.version()) {
            return;
        }
        let here = self.jobs.here(key.as_str());
        let step = decide(key.as_str(), record.map(|record| &**record), here, &self.members, self.workers.ours());
        if let Some(step) = step {
            tracing::trace!(pool = %self.pool.name, node = %self.pool.node, %key, ?step, "next step");
        }
        if here == Here::Nothing && step.is_some() {
            match self.pool.history.may_begin(jobs.readings()) {
                Begin::Now => {}
                Begin::HoldsUntil(moment) => return self.later.at(key, moment),
                // It is looked at again then.
                Begin::WhenVerified => return,
            }
        }
        if here == Here::Nothing && !matches!(step, Some(Step::Pull { .. })) {
            self.later.has_arrived(key);
        }
        match step {
            None => {}
            Some(Step::Interrupt) => self.jobs.interrupt(key),
            Some(Step::Stop) => match self.moves_at(jobs, key) {
                None => self.stop_job(jobs, key),
                Some(Begin::HoldsUntil(moment)) => self.later.at(key, moment),
                // It is looked at again then.
                Some(Begin::Now | Begin::WhenVerified) => {}
            },
            Some(Step::Start(worker)) => {
                if !record.is_some_and(|record| self.may_start(key, record, worker)) {
                    return;
                }
                if let Some(start) = self.prepare_start(key, record, jobs.version(), worker) {
                    self.jobs.set(key.clone(), Some(Local::Starting(start.activation.clone())));
                    self.spawn_step(key, start.run());
                }
            }
            Some(change) => {
                if let Some(record) = record
                    && let Some((transaction, leaves, until)) = self.prepare(key, record, change)
                {
                    let old = record.raw();
                    self.jobs.set(key.clone(), Some(Local::Changing(record.owner())));
                    if let Step::Pull { to, .. } = change
                        && self.workers.get(to).is_some_and(|worker| worker.room() < usize::MAX)
                    {
                        self.later.arrives(to, key, record);
                    }
                    let (pool, of) = (self.pool.clone(), key.clone());
                    let cause = self.cause_of(change);
                    let moves = cause.map(|_| self.moves.clone());
                    let span = trace::change(&pool, key, record, change);
                    let step = async move {
                        let _one_of_few = match moves {
                            Some(moves) => moves.acquire_owned().await.ok(),
                            None => None,
                        };
                        let changed = step::change(&pool, &of, &old, transaction, leaves, &until).await;
                        if let (true, Some(cause)) = (changed, cause) {
                            pool.meter.moved(cause);
                        }
                        None
                    };
                    self.spawn_step(key, step.instrument(span));
                }
            }
        }
    }

    /// Why a job changes hands, if it does.
    fn cause_of(&self, step: Step) -> Option<Cause> {
        match step {
            Step::Pull { dead: Some(_), .. } => Some(Cause::Death),
            Step::Pull { dead: None, .. } => Some(Cause::Waiting),
            Step::HandOver { from, .. } => {
                let stays = self.workers.get(from).is_some_and(OurWorker::stays);
                Some(if stays { Cause::Membership } else { Cause::Drain })
            }
            _ => None,
        }
    }

    fn prepare_start(
        &self,
        key: &JobKey,
        record: Option<&Value<JobRecord>>,
        version: Option<Version>,
        worker: WorkerId,
    ) -> Option<Box<Start>> {
        let (record, lease, version) = (record?, self.lease.as_ref()?, version?);
        let epoch = self.pool.history.next_epoch(record);
        let activation = Activation {
            assignment: record.assignment,
            record: record.clone(),
            job: InHand::new(key.clone(), record, worker, version),
            activity: Activity { worker, epoch, attempt: record.failed().saturating_add(1), origin: Origin::default() },
            handler: self.workers.get(worker)?.handler.clone(),
            lifeline: Arc::new(Lifeline::new(
                Arc::downgrade(&lease.session),
                lease.lost.clone(),
                Arc::downgrade(&self.pool),
                record.clone(),
                epoch,
                self.to_endings.clone(),
            )),
            stopped: lease.lost.child_token(),
            turn: Arc::default(),
        };
        self.start_of(key, record, activation)
    }

    /// The start of an activation by its record.
    pub(super) fn start_of(
        &self,
        key: &JobKey,
        record: &Value<JobRecord>,
        activation: Activation,
    ) -> Option<Box<Start>> {
        let lease = self.lease.as_ref()?;
        Some(Box::new(Start {
            pool: self.pool.clone(),
            key: key.clone(),
            record: record.clone(),
            has_begun: false,
            activation,
            lease: lease.session.lease(),
            lost: lease.lost.clone(),
        }))
    }

    /// The transaction of a step, what it leaves at the key, and what makes it pointless.
    fn prepare(
        &self,
        key: &JobKey,
        record: &Value<JobRecord>,
        step: Step,
    ) -> Option<(Transaction, Option<Bytes>, CancellationToken)> {
        let tables = &self.pool.tables;
        let held = || self.lease.as_ref().map(|lease| (lease.session.lease(), lease.lost.clone()));
        let encoded = |record: JobRecord| match self.pool.encode(&record) {
            Ok(record) => Some(record),
            Err(error) => {
                tracing::error!(pool = %self.pool.name, %key, %error, "cannot move a job");
                None
            }
        };
        match step {
            Step::Pull { to, dead } => {
                let ((lease, lost), known) = (held()?, self.pool.known(to)?);
                let is_former = dead.is_some_and(|dead| self.workers.is_former(dead));
                let pulled = if is_former { JobRecord::taken_back_by } else { JobRecord::pulled_by };
                let new = encoded(pulled(record, to, self.members.version()))?;
                let to = known;
                Some((tables.pull(key, &record.raw(), dead, &to, lease, new.clone()), Some(new), lost))
            }
            Step::HandOver { to, .. } => {
                let (lease, lost) = held()?;
                let known = match to {
                    Some(to) => Some(self.pool.known(to)?),
                    None => None,
                };
                let new = encoded(record.assigned_to(to, self.members.version()))?;
                Some((tables.hand_over(key, &record.raw(), known.as_ref(), lease, new.clone()), Some(new), lost))
            }
            Step::Remove { dead } => Some((tables.remove(key, &record.raw(), dead), None, self.stop.clone())),
            Step::Start(_) | Step::Interrupt | Step::Stop => None,
        }
    }

    fn stop_job(&mut self, jobs: &Snapshot<JobRecord>, key: &JobKey) {
        if let Some(activation) = self.jobs.take_running(key) {
            let (pool, of) = (self.pool.clone(), key.clone());
            let as_it_was = damage::as_it_was(&pool, jobs, key, &activation);
            let vanished = self.vanished(&activation, jobs.get(key.as_str()));
            let vanished = vanished.filter(|_| as_it_was.is_none());
            let held = self.lease.as_ref().map(|lease| (lease.session.lease(), lease.lost.clone()));
            self.spawn_step(key, async move {
                let report = async {
                    if let Some(job) = vanished {
                        job.report_if_lost(&pool).await;
                    }
                };
                let (wanted_back, ()) = tokio::join!(step::stop(&pool, &of, &activation), report);
                let (lease, lost) = held?;
                if let (Some(damaged), Some(record)) = (damage::shown(&pool, &of), as_it_was) {
                    until(&lost, damage::restore(&pool, &of, activation.activity.worker, &damaged, record)).await;
                }
                if let Some(after) = wanted_back {
                    step::put_back_stopping(&pool, &of, activation.assignment, after, lease, &lost).await;
                }
                None
            });
        }
    }

    pub(super) fn on_step_ended(&mut self, key: &JobKey, local: Option<Local>) {
        let worker = self.jobs.worker_of(key).or_else(|| self.later.arrives_at(key));
        self.jobs.set(key.clone(), local);
        // What the job said while it was being stopped comes before that.
        while let Ok(ended) = self.endings.try_recv() {
            self.on_job_ended(ended);
        }
        self.look_at(&self.pool.tables.jobs.snapshot(), key);
        if let Some(worker) = worker {
            self.fill(worker);
        }
        self.next_note(key);
        self.let_drained_workers_leave();
    }

    pub(super) fn spawn_step(&mut self, key: &JobKey, step: impl Future<Output = Option<Local>> + Send + 'static) {
        let (key, pause) = (key.clone(), self.panics.pause_of(key));
        // In a box, which moves into the task and through it at no cost.
        let step = Box::pin(step);
        self.tasks.spawn(async move {
            match AssertUnwindSafe(step).catch_unwind().await {
                Ok(local) => TaskEnded::Step(key, local),
                // The handlers' panics are contained further in: this would be a defect of ours, and must not cost the
                // key, nor make the node spin.
                Err(_) => {
                    tracing::error!(%key, again_after = ?pause, "a step for a job panicked");
                    tokio::time::sleep(pause).await;
                    TaskEnded::Panicked(key)
                }
            }
        });
    }
}
