//! The events of one partition that wait to be handed out, oldest first.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use pulse_core::{Event as CoreEvent, EventId, SessionState};
use tokio::{sync::Notify, time::Instant};

use super::{Tenure, books::Books, lanes::Bell};
use crate::{
    Event,
    options::MOST_AT_ONCE,
    sink::{
        Delivery,
        member::{Member, Verdict},
    },
};

/// A queue that keeps the order of the stream, whatever order events come in. Shared by the task that fills it, the
/// subscriber, and the deliveries that say what became of them.
#[derive(Debug)]
pub(in crate::sink) struct Lane {
    state: Mutex<State>,
    capacity: usize,
    /// Told when the lane has come down to half.
    room: Notify,
    /// Told when the user has put a delivery down.
    put_down: Notify,
    /// Rung when something may be handed out that could not before.
    bell: Arc<Bell>,
}

#[derive(Debug)]
struct State {
    waiting: BTreeMap<EventId, Waiting>,
    books: Books,
    /// Nothing is handed out any more once it is shut.
    shut: bool,
}

/// An event that waits.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) event: CoreEvent,
    pub(super) deliveries: u64,
    /// Whether it came by a claim.
    pub(super) claimed: bool,
    /// When its grace period began.
    pub(super) since: Instant,
}

impl Lane {
    pub(super) fn new(capacity: usize, in_flight: Option<usize>, bell: Arc<Bell>) -> Self {
        let state = State { waiting: BTreeMap::new(), books: Books::new(in_flight), shut: false };
        Self { state: Mutex::new(state), capacity, room: Notify::new(), put_down: Notify::new(), bell }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts the oldest event into the user's hands, if it may be.
    pub(super) fn take(&self, tenure: &Tenure) -> Option<Delivery> {
        let member = &tenure.member;
        let mut state = self.lock();
        loop {
            let id = *state.waiting.first_key_value()?.0;
            if state.shut || !state.books.may_hand_out(id) || tenure.session.state() != SessionState::Alive {
                return None;
            }
            let waiting = state.waiting.remove(&id)?;
            if state.waiting.len() == self.capacity / 2 {
                self.room.notify_waiters();
            }
            {
                let mut ledger = member.ledger();
                if !waiting.claimed {
                    ledger.hand_out(id, waiting.deliveries);
                } else if !ledger.hand_out_copy(id, waiting.deliveries) {
                    // It was acknowledged while it waited here.
                    continue;
                }
            }
            state.books.handed_out(id);
            drop(state);
            if waiting.since.elapsed() >= member.timing.touch_at_hand_out_after() {
                member.extend_quietly(id, waiting.deliveries);
            }
            let event = Event::new(member.stream.clone(), waiting.event);
            return Some(Delivery::new(event, waiting.deliveries, member.clone()));
        }
    }

    /// Waits until the lane is down to half, and says how many events to read.
    pub(super) async fn room(&self) -> usize {
        loop {
            let told = self.room.notified();
            let held = self.lock().waiting.len();
            if held <= self.capacity / 2 {
                return (self.capacity - held).min(MOST_AT_ONCE);
            }
            told.await;
        }
    }

    /// How many events to claim now.
    pub(super) fn room_to_claim(&self) -> usize {
        let state = self.lock();
        self.capacity.saturating_sub(state.waiting.len()).max(state.books.returning().len())
    }

    /// Adds first deliveries.
    pub(super) fn push_read(&self, events: impl IntoIterator<Item = Waiting>) {
        self.lock().waiting.extend(events.into_iter().map(|waiting| (waiting.event.id, waiting)));
        self.bell.ring();
    }

    pub(super) fn claim_begins(&self, member: &Member) {
        self.lock().books.claim_begins();
        member.ledger().claim_begins();
    }

    /// Adds what a claim brought, as far as it is wanted, and ends the claim. An older delivery that still waits makes
    /// room for the newer one. Returns what was delivered too often already, of which nobody has to wait for anything.
    #[must_use]
    pub(super) fn claim_ends(&self, member: &Member, events: Vec<Waiting>, gone: &[EventId]) -> Vec<Waiting> {
        let mut spent = Vec::new();
        let mut state = self.lock();
        let mut ledger = member.ledger();
        for waiting in events {
            let id = waiting.event.id;
            if !state.books.came_back(id) {
                continue;
            }
            if member.max_deliveries.is_some_and(|most| waiting.deliveries > most) {
                if state.waiting.remove(&id).is_some_and(|older| older.claimed) {
                    ledger.discard_copy(id);
                }
                state.books.done(id);
                if !ledger.is_acked_during_claim(id) {
                    spent.push(waiting);
                }
                continue;
            }
            if !ledger.claimed(id) {
                continue;
            }
            if state.waiting.insert(id, waiting).is_some_and(|older| older.claimed) {
                ledger.discard_copy(id);
            }
        }
        for id in gone {
            state.books.done(*id);
        }
        ledger.claim_ends();
        state.books.claim_ends();
        drop((ledger, state));
        self.bell.ring();
        spent
    }

    /// The events whose grace period began at least that long ago.
    pub(super) fn idle_for(&self, idle: Duration) -> Vec<EventId> {
        let state = self.lock();
        state.waiting.iter().filter(|(_, waiting)| waiting.since.elapsed() >= idle).map(|(id, _)| *id).collect()
    }

    /// Takes note of which of these are still pending here, as of then. Returns whether all that wait are; the others
    /// wait no longer.
    pub(super) fn touched(&self, member: &Member, asked: &[EventId], held: &HashSet<EventId>, now: Instant) -> bool {
        let mut state = self.lock();
        let mut all = true;
        for id in asked {
            if held.contains(id) {
                if let Some(waiting) = state.waiting.get_mut(id) {
                    waiting.since = now;
                }
            } else if let Some(waiting) = state.waiting.remove(id) {
                if waiting.claimed {
                    member.ledger().discard_copy(*id);
                }
                all = false;
            }
        }
        all
    }

    /// Those of these pending events that are neither here nor in the user's hands.
    pub(super) fn unknown(&self, member: &Member, ids: impl IntoIterator<Item = EventId>) -> HashSet<EventId> {
        let state = self.lock();
        let ledger = member.ledger();
        ids.into_iter().filter(|id| !state.waiting.contains_key(id) && !ledger.is_in_hand(*id)).collect()
    }

    /// The events that were given back and have not returned.
    pub(super) fn returning(&self) -> BTreeSet<EventId> {
        self.lock().books.returning().clone()
    }

    /// These will not return: they are pending no more.
    pub(super) fn will_not_return(&self, ids: impl IntoIterator<Item = EventId>) {
        let mut state = self.lock();
        ids.into_iter().for_each(|id| state.books.done(id));
        drop(state);
        self.bell.ring();
    }

    /// Drops everything, because the group is gone, and returns the oldest event that waited.
    pub(super) fn clear(&self, member: &Member) -> Option<EventId> {
        let mut state = self.lock();
        state.books.clear();
        let waiting = std::mem::take(&mut state.waiting);
        let mut ledger = member.ledger();
        for (id, waiting) in &waiting {
            if waiting.claimed {
                ledger.discard_copy(*id);
            }
        }
        waiting.first_key_value().map(|(id, _)| *id)
    }

    /// Hands out nothing any more.
    pub(super) fn shut(&self) {
        let mut state = self.lock();
        state.shut = true;
        state.waiting.clear();
    }

    /// Waits until the user holds no delivery of a lane that is shut.
    pub(super) async fn let_go(&self, member: &Member) {
        loop {
            let told = self.put_down.notified();
            if member.ledger().is_nothing_in_hand() {
                return;
            }
            told.await;
        }
    }

    /// The user says what became of an event.
    pub(in crate::sink) fn said(&self, id: EventId, verdict: Verdict) {
        let mut state = self.lock();
        match verdict {
            Verdict::Ack => state.books.done(id),
            Verdict::Nack(_) => state.books.given_back(id),
            Verdict::Extend => return,
        }
        drop(state);
        self.bell.ring();
    }

    /// The user holds a delivery no more.
    pub(in crate::sink) fn put_down(&self) {
        self.put_down.notify_waiters();
    }
}
