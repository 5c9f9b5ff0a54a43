//! Jobs of this node that are not to start yet: their time has not come, or their worker has no room for them.
//!
//! Both are only reasons to look again: what became of a job meanwhile shows when it is looked at.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashMap},
};

use tokio::time::Instant;

use crate::{JobKey, WorkerId, record::JobRecord};

#[derive(Debug, Default)]
pub(super) struct Later {
    due: BTreeSet<(Instant, JobKey)>,
    due_of: HashMap<JobKey, Instant>,
    /// Those that wait for room, the next one first.
    turns: HashMap<WorkerId, BTreeSet<Turn>>,
}

/// The greater priority first, then the older.
type Turn = (Reverse<i32>, u64, JobKey);

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
        let turn = (Reverse(record.priority()), record.due(), key.clone());
        self.turns.entry(worker).or_default().insert(turn);
    }

    /// The one whose turn it is.
    pub(super) fn next_of(&mut self, worker: WorkerId) -> Option<JobKey> {
        let turns = self.turns.get_mut(&worker)?;
        let next = turns.pop_first().map(|(_, _, key)| key);
        if turns.is_empty() {
            self.turns.remove(&worker);
        }
        next
    }

    /// Forgets the workers of a lease that is lost.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}
