//! Jobs of this node that are not to start yet: their time has not come, or their worker has no room for them.
//!
//! Both are only reasons to look again: what became of a job meanwhile shows when it is looked at. Each look forgets
//! them first, so that nothing stays of jobs that were stopped or have moved.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use tokio::time::Instant;

use crate::{JobKey, WorkerId, order::Place, record::JobRecord};

#[derive(Debug, Default)]
pub(super) struct Later {
    due: BTreeSet<(Instant, JobKey)>,
    due_of: HashMap<JobKey, Instant>,
    /// Those that wait for room, the next one first.
    turns: HashMap<WorkerId, BTreeSet<Turn>>,
    turn_of: HashMap<JobKey, (WorkerId, Turn)>,
    /// Those that are being taken for a worker, which is to start them before others.
    arriving: HashMap<WorkerId, BTreeMap<Turn, Instant>>,
    /// Where each of them goes, and when that was first tried.
    arrives_at: HashMap<JobKey, (WorkerId, Turn, Instant)>,
}

/// In the order in which jobs start.
type Turn = (Place, JobKey);

/// How long a job that is being taken may hold up others that would start after it.
const ARRIVAL: Duration = Duration::from_secs(1);

impl Later {
    pub(super) fn at(&mut self, key: &JobKey, moment: Instant) {
        if let Some(before) = self.due_of.insert(key.clone(), moment) {
            self.due.remove(&(before, key.clone()));
        }
        self.due.insert((moment, key.clone()));
    }

    /// When the next one is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(moment, _)| *moment)
    }

    pub(super) fn take_due(&mut self) -> Option<JobKey> {
        let now = Instant::now();
        self.due.first().filter(|(moment, _)| *moment <= now)?;
        let (_, key) = self.due.pop_first()?;
        self.due_of.remove(&key);
        Some(key)
    }

    pub(super) fn queue(&mut self, worker: WorkerId, key: &JobKey, record: &JobRecord) {
        let turn = (record.place(), key.clone());
        if let Some((before, its_turn)) = self.turn_of.insert(key.clone(), (worker, turn.clone())) {
            self.remove_turn(before, &its_turn);
        }
        self.turns.entry(worker).or_default().insert(turn);
    }

    /// The one whose turn it is; nobody's while one before it is on its way.
    pub(super) fn next_of(&mut self, worker: WorkerId) -> Option<JobKey> {
        let (place, next) = self.turns.get(&worker)?.first()?.clone();
        if let Some(until) = self.first_arrival(worker, place, &next) {
            self.at(&next, until);
            return None;
        }
        self.forget(&next);
        Some(next)
    }

    /// A job is being taken for a worker.
    pub(super) fn arrives(&mut self, worker: WorkerId, key: &JobKey, record: &JobRecord) {
        // However often it is tried.
        let since = self.arrives_at.get(key).map_or_else(Instant::now, |(.., since)| *since);
        self.has_arrived(key);
        let turn = (record.place(), key.clone());
        self.arriving.entry(worker).or_default().insert(turn.clone(), since);
        self.arrives_at.insert(key.clone(), (worker, turn, since));
    }

    /// The worker that a job is being taken for.
    pub(super) fn arrives_at(&self, key: &JobKey) -> Option<WorkerId> {
        self.arrives_at.get(key).map(|(worker, ..)| *worker)
    }

    /// A job is here, or somewhere else.
    pub(super) fn has_arrived(&mut self, key: &JobKey) {
        if self.arrives_at.is_empty() {
            return;
        }
        if let Some((worker, turn, _)) = self.arrives_at.remove(key)
            && let Some(arriving) = self.arriving.get_mut(&worker)
        {
            arriving.remove(&turn);
            if arriving.is_empty() {
                self.arriving.remove(&worker);
            }
        }
    }

    /// Until when a worker waits for one that is to start before that one.
    pub(super) fn first_arrival(&mut self, worker: WorkerId, place: Place, key: &JobKey) -> Option<Instant> {
        let arriving = self.arriving.get_mut(&worker)?;
        let now = Instant::now();
        while let Some(first) = arriving.first_entry() {
            let until = *first.get() + ARRIVAL;
            if until > now {
                return ((first.key().0, &first.key().1) < (place, key)).then_some(until);
            }
            // It has held up others for long enough.
            first.remove();
        }
        None
    }

    /// Forgets a job that is looked at now: if there is a reason to look again, that shows anew.
    pub(super) fn forget(&mut self, key: &JobKey) {
        if !self.due_of.is_empty()
            && let Some(moment) = self.due_of.remove(key)
        {
            self.due.remove(&(moment, key.clone()));
        }
        if !self.turn_of.is_empty()
            && let Some((worker, turn)) = self.turn_of.remove(key)
        {
            self.remove_turn(worker, &turn);
        }
    }

    fn remove_turn(&mut self, worker: WorkerId, turn: &Turn) {
        if let Some(turns) = self.turns.get_mut(&worker) {
            turns.remove(turn);
            if turns.is_empty() {
                self.turns.remove(&worker);
            }
        }
    }

    /// Forgets the workers of a lease that is lost.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{id::DispatchId, record::Terms};

    fn record(priority: i32) -> JobRecord {
        JobRecord::dispatched(DispatchId(1), Terms { priority, ..Terms::default() }, None, None)
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_stays_of_what_is_forgotten() {
        let (mut later, worker) = (Later::default(), WorkerId(1));
        let [one, two] = ["one", "two"].map(|key| JobKey::new(key).unwrap());
        let soon = Instant::now() + Duration::from_secs(1);
        for key in [&one, &two] {
            later.at(key, soon);
            later.queue(worker, key, &record(0));
            // Its terms have changed since.
            later.queue(worker, key, &record(1));
        }
        later.forget(&one);
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!((later.take_due(), later.take_due()), (Some(two.clone()), None));
        assert_eq!((later.next_of(worker), later.next_of(worker)), (Some(two), None));
        assert!(later.due_of.is_empty() && later.turns.is_empty() && later.turn_of.is_empty());
    }

    #[test]
    fn the_next_is_the_most_urgent() {
        let (mut later, worker) = (Later::default(), WorkerId(1));
        for (key, priority) in [("low", -1), ("high", 7), ("middle", 0)] {
            later.queue(worker, &JobKey::new(key).unwrap(), &record(priority));
        }

        let next = std::iter::from_fn(|| later.next_of(worker)).map(|key| key.to_string());
        assert_eq!(next.collect::<Vec<_>>(), ["high", "middle", "low"]);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_is_on_its_way_is_waited_for_but_not_for_long() {
        let (mut later, worker) = (Later::default(), WorkerId(1));
        let [one, two] = ["one", "two"].map(|key| JobKey::new(key).unwrap());
        later.arrives(worker, &one, &record(1));
        later.queue(worker, &two, &record(0));
        assert_eq!(later.next_of(worker), None);
        tokio::time::advance(ARRIVAL / 2).await;
        later.arrives(worker, &one, &record(1));
        assert_eq!((later.next_of(worker), later.arrives_at(&one)), (None, Some(worker)));
        tokio::time::advance(ARRIVAL / 2).await;
        assert_eq!(later.take_due(), Some(two.clone()), "it is looked at again then");
        assert_eq!(later.next_of(worker), Some(two.clone()));
        // Whatever is tried with the first since.
        later.arrives(worker, &one, &record(1));
        later.queue(worker, &two, &record(0));
        assert_eq!(later.next_of(worker), Some(two));
        later.has_arrived(&one);
        assert!(later.arriving.is_empty() && later.arrives_at.is_empty());
    }
}
