//! Telling callers what becomes of the job that they wait for.
//!
//! The node's runner sees every change of every record, in order, and passes it on to whoever watches that key. So a
//! caller costs nothing while other jobs change, and misses no state that a record went through, however short. Only
//! where the replica itself has missed changes, it shows what they came to. On a node that does not replicate the jobs,
//! [`follow`](crate::follow) takes the runner's place, for as long as there are watches.

use std::{
    collections::BTreeMap,
    ops::Deref,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt, channel::mpsc};
use pulse_core::Version;
use pulse_rmap::{Snapshot, Value};
use tokio::{sync::Notify, time::Instant};

use crate::{
    JobKey,
    id::DispatchId,
    record::{JobRecord, Phase, Terms},
    result::FOR_WAITERS,
};

/// How long to see nothing of a job before the backend is asked for it.
const ASK_AFTER: Duration = Duration::from_secs(6);

/// The record of a job as of a version of the jobs.
#[derive(Debug, Clone)]
pub(crate) struct Sighting {
    pub(crate) version: Option<Version>,
    pub(crate) record: Option<Seen>,
}

/// A record that was seen.
#[derive(Debug, Clone)]
pub(crate) enum Seen {
    /// In the replica.
    Shown(Value<JobRecord>),
    /// In the backend, with its bytes.
    Read(Arc<JobRecord>, Bytes),
}

impl Seen {
    /// As it was read; `None` if the bytes are no record.
    pub(crate) fn read(raw: Bytes) -> Option<Self> {
        Some(Self::Read(Arc::new(JobRecord::read(&raw)?), raw))
    }

    /// As it stands in the map.
    pub(crate) fn raw(&self) -> Bytes {
        match self {
            Self::Shown(record) => record.raw(),
            Self::Read(_, raw) => raw.clone(),
        }
    }
}

impl Deref for Seen {
    type Target = JobRecord;

    fn deref(&self) -> &JobRecord {
        match self {
            Self::Shown(record) => record,
            Self::Read(record, _) => record,
        }
    }
}

/// Who watches which key.
#[derive(Debug, Default)]
pub(crate) struct Watches {
    /// `None` once the runner has ended.
    by_key: Mutex<Option<Watchers>>,
    /// Told of every new watch.
    began: Notify,
    /// Whether the changes arrive now.
    follows: AtomicBool,
    /// Told when they begin to.
    followed: Notify,
}

#[derive(Debug, Default)]
struct Watchers {
    /// Those who watch a key, in the order in which they began; sorted, so that they are told of the end in one order.
    by_key: BTreeMap<JobKey, BTreeMap<u64, mpsc::UnboundedSender<Sighting>>>,
    next: u64,
}

impl Watches {
    /// `follows`: whether the changes arrive from the beginning.
    pub(crate) fn new(follows: bool) -> Arc<Self> {
        let by_key = Mutex::new(Some(Watchers::default()));
        Arc::new(Self { by_key, began: Notify::new(), follows: AtomicBool::new(follows), followed: Notify::new() })
    }

    /// Says whether the changes arrive.
    pub(crate) fn set_follows(&self, follows: bool) {
        self.follows.store(follows, Ordering::SeqCst);
        if follows {
            self.followed.notify_waiters();
        }
    }

    /// Waits until the changes arrive.
    pub(crate) async fn followed(&self) {
        loop {
            // Made before the look, so that no word between the two is missed.
            let followed = self.followed.notified();
            if self.follows.load(Ordering::SeqCst) {
                return;
            }
            followed.await;
        }
    }

    /// Waits until somebody watches something.
    pub(crate) async fn any(&self) {
        while self.lock().as_ref().is_some_and(|watchers| watchers.by_key.is_empty()) {
            self.began.notified().await;
        }
    }

    /// The keys that are watched, sorted.
    pub(crate) fn keys(&self) -> Vec<JobKey> {
        self.lock().iter().flat_map(|watchers| watchers.by_key.keys().cloned()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Watchers>> {
        // Nothing panics while holding the lock, and the maps are consistent after every statement.
        self.by_key.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Watches a key from now on.
    pub(crate) fn watch(self: &Arc<Self>, key: &JobKey) -> Watch {
        // Only the changes of one key arrive, for as long as one call waits for it. Of tokio's channels each would
        // begin with room for many.
        let (sender, sightings) = mpsc::unbounded();
        let mut id = 0;
        if let Some(watchers) = &mut *self.lock() {
            id = watchers.next;
            watchers.next += 1;
            watchers.by_key.entry(key.clone()).or_default().insert(id, sender);
        }
        self.began.notify_one();
        Watch { watches: self.clone(), key: key.clone(), id, sightings }
    }

    /// Tells those who watch the key of a change.
    pub(crate) fn announce(&self, key: &str, version: Option<Version>, record: impl FnOnce() -> Option<Seen>) {
        if let Some(watchers) = self.lock().as_ref().and_then(|watchers| watchers.by_key.get(key)) {
            let sighting = Sighting { version, record: record() };
            for watcher in watchers.values() {
                // It fails only for a watch that is about to be removed.
                let _ = watcher.unbounded_send(sighting.clone());
            }
        }
    }

    /// Tells everybody how things stand.
    pub(crate) fn announce_all(&self, jobs: &Snapshot<JobRecord>) {
        for key in self.keys() {
            self.announce(key.as_str(), jobs.version(), || jobs.value(key.as_str()).cloned().map(Seen::Shown));
        }
    }

    /// Ends all watches, for good.
    pub(crate) fn end(&self) {
        *self.lock() = None;
        self.began.notify_one();
        self.set_follows(true);
    }
}

/// The changes of one job since the watch began.
#[derive(Debug)]
pub(crate) struct Watch {
    watches: Arc<Watches>,
    key: JobKey,
    id: u64,
    sightings: mpsc::UnboundedReceiver<Sighting>,
}

impl Watch {
    /// Waits for the next change, `None` once the node is closed.
    pub(crate) async fn next(&mut self) -> Option<Sighting> {
        self.sightings.next().await
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(watchers) = &mut *self.watches.lock()
            && let Some(of_key) = watchers.by_key.get_mut(&self.key)
        {
            of_key.remove(&self.id);
            if of_key.is_empty() {
                watchers.by_key.remove(&self.key);
            }
        }
    }
}

/// How the job of a dispatch ended up.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Fate {
    /// It runs.
    Running,
    /// The handler refused it, with this message.
    Rejected(String),
    /// It was stopped, or is about to be.
    Stopped,
}

/// Follows one dispatch through what is seen of its key.
#[derive(Debug)]
pub(crate) struct Follow {
    dispatch: DispatchId,
    /// From this version on the job is there, or is gone again.
    since: Option<Version>,
    seen: bool,
    /// What was seen of it last tells that it can end in no other way than that somebody stops it.
    ends_stopped: bool,
    began: Instant,
    /// Something was seen that is as late as the dispatch.
    is_late: bool,
    ask_at: Instant,
}

impl Follow {
    pub(crate) fn new(dispatch: DispatchId, since: Option<Version>) -> Self {
        let began = Instant::now();
        Self { dispatch, since, seen: false, ends_stopped: false, began, is_late: false, ask_at: began + ASK_AFTER }
    }

    /// The same, of a job whose dispatch began then.
    pub(crate) fn since_call(self, began: Instant) -> Self {
        Self { began, ..self }
    }

    /// Whether a record is of the job that is followed.
    pub(crate) fn is_of(&self, record: &JobRecord) -> bool {
        record.dispatch == self.dispatch
    }

    /// Whether that is the dispatch that is followed.
    pub(crate) fn is_dispatch(&self, dispatch: DispatchId) -> bool {
        dispatch == self.dispatch
    }

    /// The record as it was made, as far as it is known to somebody who has not seen it: with the time of the dispatch.
    pub(crate) fn record_from(&self, at: u64) -> JobRecord {
        JobRecord::dispatched(self.dispatch, Terms { at, ..Terms::default() }, None, None)
    }

    /// Whether nothing was seen yet by which the job could be told from one that is lost.
    pub(crate) fn is_in_the_dark(&self) -> bool {
        !self.seen && !self.is_late
    }

    /// Whether the job, which is there no more and has left no result, was stopped. Otherwise it may have ended so long
    /// ago that its result has expired.
    pub(crate) fn was_stopped(&self) -> bool {
        self.ends_stopped || self.began.elapsed() < FOR_WAITERS
    }

    /// When to ask the backend, as long as nothing is seen.
    pub(crate) fn ask_at(&self) -> Instant {
        self.ask_at
    }

    /// The backend is being asked.
    pub(crate) fn asks(&mut self) {
        self.ask_at = Instant::now() + ASK_AFTER;
    }

    /// The version of the jobs since when the job is there, if it is known.
    pub(crate) fn since(&self) -> Option<Version> {
        self.since
    }

    /// Learns a version of the jobs as of which the job is there, or is gone again.
    pub(crate) fn set_since(&mut self, version: Option<Version>) {
        self.since = version;
    }

    /// What the record of the key as of that version tells about the job, `None` if it is still under way.
    pub(crate) fn judge(&mut self, version: Option<Version>, record: Option<&JobRecord>) -> Option<Fate> {
        self.is_late |= self.since.is_some_and(|since| version.is_some_and(|version| version.includes(&since)));
        let Some(record) = record.filter(|record| record.dispatch == self.dispatch) else {
            if self.since.is_some_and(|since| !version.is_some_and(|version| version.includes(&since))) {
                // The jobs are shown as they were before the dispatch, or are others: the backend has to be asked.
                (self.seen, self.is_late) = (false, false);
            }
            return (self.seen || self.is_late).then_some(Fate::Stopped);
        };
        self.seen = true;
        // One that no worker has can only be stopped, unless a change was missed in which a worker took it.
        self.ends_stopped = record.phase == Phase::Stopping || record.owner().is_none();
        match &record.phase {
            Phase::Assigned => None,
            Phase::Running => Some(Fate::Running),
            Phase::Stopping => Some(Fate::Stopped),
            Phase::Rejected => Some(Fate::Rejected(record.refusal().to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use pulse_core::{Incarnation, Revision};

    use super::*;
    use crate::Epoch;

    fn at(revision: u64) -> Option<Version> {
        Some(Version { incarnation: Incarnation(1), revision: Revision(revision) })
    }

    #[test]
    fn what_was_there_before_a_dispatch_says_nothing_about_it() {
        let record = JobRecord::dispatched(DispatchId(7), Terms::default(), None, None);
        let other = JobRecord::dispatched(DispatchId(8), Terms::default(), None, None);
        let mut follow = Follow::new(DispatchId(7), at(5));
        assert_eq!(follow.judge(at(3), Some(&other)), None);
        assert_eq!(follow.judge(at(4), None), None);
        assert_eq!(follow.judge(at(5), Some(&record)), None);
        assert_eq!(follow.judge(at(6), Some(&record.running(Epoch(5)))), Some(Fate::Running));
    }

    #[test]
    fn a_job_that_vanishes_before_it_runs_was_stopped() {
        let record = JobRecord::dispatched(DispatchId(7), Terms::default(), None, None);
        let mut follow = Follow::new(DispatchId(7), at(5));
        assert_eq!(follow.judge(at(5), Some(&record)), None);
        assert_eq!(follow.judge(at(6), None), Some(Fate::Stopped));
        // Also where all that is seen is a later state of the key.
        let mut follow = Follow::new(DispatchId(7), at(5));
        assert_eq!(
            follow.judge(at(9), Some(&JobRecord::dispatched(DispatchId(8), Terms::default(), None, None))),
            Some(Fate::Stopped)
        );
        // And where it is not known when the dispatch took effect.
        let mut follow = Follow::new(DispatchId(7), None);
        assert_eq!(follow.judge(at(4), None), None);
        assert_eq!(follow.judge(at(5), Some(&record)), None);
        assert_eq!(follow.judge(at(6), None), Some(Fate::Stopped));
    }

    #[test]
    fn a_job_that_is_shown_no_more_by_what_is_older_than_it_may_be_lost() {
        let record = JobRecord::dispatched(DispatchId(7), Terms::default(), None, None);
        let mut follow = Follow::new(DispatchId(7), at(5));
        assert_eq!(follow.judge(at(5), Some(&record)), None);
        assert!(!follow.is_in_the_dark());
        // As by a server that has lost its last writes, or all.
        for version in [at(3), None] {
            assert_eq!(follow.judge(version, None), None);
            assert!(follow.is_in_the_dark());
        }
    }

    #[test]
    fn a_refusal_carries_the_message() {
        let record = JobRecord::dispatched(DispatchId(7), Terms::default(), None, None).rejected("no such song");
        let mut follow = Follow::new(DispatchId(7), at(5));
        assert_eq!(follow.judge(at(6), Some(&record)), Some(Fate::Rejected("no such song".into())));
    }
}
