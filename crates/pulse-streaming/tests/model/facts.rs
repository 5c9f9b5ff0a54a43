//! What is known of every event, and what of it forbids a delivery or a notice.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound::Excluded,
};

use pulse_streaming::{EventId, Notice};
use tokio::time::Instant;

/// What the promises of a sink are checked against.
#[derive(Default)]
pub(crate) struct Facts {
    pub(crate) added: BTreeSet<EventId>,
    /// Those that no trim dropped.
    pub(crate) standing: BTreeSet<EventId>,
    /// How often each event was seen to be delivered, at least.
    deliveries: BTreeMap<EventId, u64>,
    pub(crate) max_deliveries: Option<u64>,
    /// Acknowledged or given up while the delivery was in time: never to be seen again.
    done: BTreeSet<EventId>,
    /// Acknowledged or given up too late, by which instances: may be seen again, but not through those.
    done_late: BTreeMap<EventId, BTreeSet<usize>>,
    /// Given up by the user.
    given_up: BTreeSet<EventId>,
    /// Given back for later, by whom, and until when.
    delayed: BTreeMap<EventId, Delayed>,
    /// Dropped before the sink had them.
    missed: BTreeSet<EventId>,
    /// Those that nobody was told of yet.
    untold: BTreeSet<EventId>,
    /// Dropped when an instance ended that may have been about to tell of them.
    perhaps_told: BTreeSet<EventId>,
    /// Said to have been dropped while they were pending.
    lost: BTreeSet<EventId>,
}

pub(crate) struct Delayed {
    pub(crate) by: usize,
    pub(crate) until: Instant,
    /// Whether it holds beyond the end of the instance.
    pub(crate) kept_by_backend: bool,
}

impl Facts {
    pub(crate) fn of_a_sink(max_deliveries: Option<u64>) -> Self {
        Self { max_deliveries, ..Self::default() }
    }

    pub(crate) fn add(&mut self, ids: &[EventId]) {
        self.added.extend(ids);
        self.standing.extend(ids);
    }

    /// A trim leaves the newest `length` events; the sink had been handed everything up to `cursor`.
    pub(crate) fn trim(&mut self, length: usize, cursor: EventId) -> usize {
        let dropped = self.standing.len().saturating_sub(length);
        for _ in 0..dropped {
            let Some(id) = self.standing.pop_first() else { break };
            if id > cursor {
                self.missed.insert(id);
                self.untold.insert(id);
            }
        }
        dropped
    }

    /// An instance delivers an event.
    pub(crate) fn take(&mut self, by: usize, id: EventId, deliveries: u64) -> Result<(), String> {
        if self.done.contains(&id) {
            return Err(format!("{id} was settled and is delivered again ({deliveries})"));
        }
        if self.done_late.get(&id).is_some_and(|late| late.contains(&by)) {
            return Err(format!("{id} was settled here, if late, and is delivered here again ({deliveries})"));
        }
        if !self.added.contains(&id) {
            return Err(format!("{id} was never added"));
        }
        if self.missed.contains(&id) || self.lost.contains(&id) {
            return Err(format!("{id} was said to be gone"));
        }
        if self.max_deliveries.is_some_and(|most| deliveries > most) {
            return Err(format!("{id} is delivered too often ({deliveries})"));
        }
        let before = self.deliveries.insert(id, deliveries).unwrap_or(0);
        if deliveries <= before {
            return Err(format!("{id} has delivery count {deliveries} after {before}"));
        }
        match self.delayed.remove(&id) {
            Some(delayed) if Instant::now() < delayed.until => {
                Err(format!("{id} comes {:?} before its time", delayed.until - Instant::now()))
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn settled(&mut self, id: EventId, by: usize, in_time: bool) {
        if in_time {
            self.done.insert(id);
            self.done_late.remove(&id);
        } else if !self.done.contains(&id) {
            self.done_late.entry(id).or_default().insert(by);
        }
    }

    pub(crate) fn gave_up(&mut self, id: EventId) {
        self.given_up.insert(id);
    }

    pub(crate) fn delay(&mut self, id: EventId, delayed: Delayed) {
        self.delayed.insert(id, delayed);
    }

    /// An instance ends. What it had not told is told by nobody, and what it kept back comes earlier.
    pub(crate) fn ended(&mut self, instance: usize) {
        self.delayed.retain(|_, delayed| delayed.by != instance || delayed.kept_by_backend);
        self.untold.clear();
        self.perhaps_told.extend(self.added.difference(&self.standing));
    }

    pub(crate) fn told(&mut self, notice: Notice) -> Result<(), String> {
        match notice {
            Notice::Missed { after, before: Some(before), events: Some(events), .. } => {
                let range = (Excluded(after), Excluded(before));
                let surely: Vec<EventId> = self.untold.range(range).copied().collect();
                let perhaps: Vec<EventId> =
                    self.missed.range(range).filter(|id| self.perhaps_told.contains(id)).copied().collect();
                if events < surely.len() as u64 || events > (surely.len() + perhaps.len()) as u64 || events == 0 {
                    return Err(format!("{events} missed after {after} and before {before}; it were {surely:?}"));
                }
                surely.iter().for_each(|id| _ = self.untold.remove(id));
                Ok(())
            }
            Notice::Lost { ids, .. } => ids.into_iter().try_for_each(|id| {
                if self.standing.contains(&id) || self.done.contains(&id) || self.missed.contains(&id) {
                    return Err(format!("{id} is not lost"));
                }
                if self.lost.insert(id) { Ok(()) } else { Err(format!("{id} is lost twice")) }
            }),
            notice => Err(notice.to_string()),
        }
    }

    /// Whether everything came to an end that was promised; `letters` are the originals of the dead letters.
    pub(crate) fn end(&self, letters: &[EventId]) -> Result<(), String> {
        let dead: BTreeSet<EventId> = letters.iter().copied().collect();
        if dead.len() < letters.len() {
            return Err(format!("an event has two letters: {letters:?}"));
        }
        if let Some(id) = self.given_up.difference(&dead).next() {
            return Err(format!("{id} was given up and has no letter"));
        }
        if let Some(id) = dead.iter().find(|id| self.done.contains(id) && !self.given_up.contains(id)) {
            return Err(format!("{id} was acknowledged and has a letter"));
        }
        let is_over = |id: &EventId| {
            self.done.contains(id)
                || self.done_late.contains_key(id)
                || dead.contains(id)
                || self.lost.contains(id)
                || self.missed.contains(id)
                || self.perhaps_told.contains(id)
        };
        let left: Vec<_> = self.added.iter().filter(|id| !is_over(id)).collect();
        if !left.is_empty() {
            return Err(format!("lost: {left:?}"));
        }
        if !self.untold.is_empty() {
            return Err(format!("dropped in silence: {:?}", self.untold));
        }
        Ok(())
    }
}
