//! Consumer groups: a cursor, and what was handed out and not acknowledged yet.

use std::{collections::BTreeMap, ops::Bound::Excluded, ops::Bound::Unbounded, time::Duration};

use imbl::OrdMap;

use super::{store::millis, streams::StreamState};
use crate::{
    Acks, Claimed, Consumer, ConsumerInfo, Delivery, EventId, Group, GroupInfo, GroupStart, MAX_IDLE, Missed,
    PendingEvent, PendingQuery,
};

#[derive(Debug, Clone, Default)]
pub(super) struct GroupState {
    cursor: EventId,
    pending: OrdMap<EventId, Pending>,
    /// Each consumer with the time it was last heard of, in milliseconds.
    consumers: OrdMap<Consumer, u64>,
    /// What trims took from it.
    missed: Option<Missed>,
}

#[derive(Debug, Clone)]
struct Pending {
    consumer: Consumer,
    /// When it was handed out, in milliseconds; idle time counts from here.
    since: u64,
    deliveries: u64,
}

impl Pending {
    fn idle(&self, now: u64) -> Duration {
        Duration::from_millis(now.saturating_sub(self.since))
    }
}

impl GroupState {
    /// Acknowledges events and returns how many of them were pending.
    pub(super) fn ack(&mut self, ids: &[EventId]) -> u64 {
        ids.iter().filter(|&id| self.pending.remove(id).is_some()).count() as u64
    }

    /// The first id that it still needs: what is before was handed out and acknowledged. An id after which there can be
    /// no other counts as needed.
    pub(super) fn needs(&self) -> EventId {
        let next = || self.cursor.next().unwrap_or(EventId::MAX);
        self.pending.get_min().map_or_else(next, |(id, _)| *id)
    }

    /// Records what a trim dropped that was not handed out yet. `dropped` is in order.
    pub(super) fn miss(&mut self, dropped: &[EventId], first_left: EventId) {
        let missed = dropped.len() - dropped.partition_point(|id| *id <= self.cursor);
        if missed > 0 {
            let (after, before) = self.missed.map_or((self.cursor, Some(0)), |missed| (missed.after, missed.events));
            self.missed = Some(Missed::new(after, first_left, before.map(|before| before + missed as u64)));
        }
    }

    fn has_pending(&self, consumer: &Consumer) -> bool {
        self.pending.values().any(|pending| pending.consumer == *consumer)
    }

    /// How many events are pending for each consumer that has any.
    fn pending_by_consumer(&self) -> BTreeMap<&Consumer, u64> {
        let mut counts = BTreeMap::new();
        for pending in self.pending.values() {
            *counts.entry(&pending.consumer).or_default() += 1;
        }
        counts
    }
}

impl StreamState {
    pub(super) fn create_group(&mut self, group: &Group, start: GroupStart) -> bool {
        if self.groups.contains_key(group) {
            return false;
        }
        let cursor = match start {
            GroupStart::Newest => self.last,
            GroupStart::Oldest => EventId::ZERO,
            GroupStart::After(id) => id,
        };
        self.groups.insert(group.clone(), GroupState { cursor, ..GroupState::default() });
        true
    }

    pub(super) fn deliver(
        &mut self,
        group: &Group,
        consumer: &Consumer,
        limit: usize,
        acks: Acks,
        now: u64,
    ) -> Vec<Delivery> {
        let Some(state) = self.groups.get(group) else { return Vec::new() };
        let entries = self.after(state.cursor, limit);
        let Some(state) = self.groups.get_mut(group) else { return Vec::new() };
        state.consumers.insert(consumer.clone(), now);
        for entry in &entries {
            if acks == Acks::Explicit {
                let pending = Pending { consumer: consumer.clone(), since: now, deliveries: 1 };
                state.pending.insert(entry.id, pending);
            }
            state.cursor = entry.id;
        }
        entries.into_iter().map(|entry| Delivery::new(entry, 1)).collect()
    }

    pub(super) fn take_missed(&mut self, group: &Group) -> Option<Missed> {
        self.groups.get_mut(group)?.missed.take()
    }

    pub(super) fn claim(
        &mut self,
        group: &Group,
        consumer: &Consumer,
        min_idle: Duration,
        limit: usize,
        now: u64,
    ) -> Claimed {
        let mut claimed = Claimed::default();
        let Some(state) = self.groups.get(group) else { return claimed };
        let idle = state.pending.iter().filter(|(_, pending)| pending.idle(now) >= min_idle);
        let ids: Vec<EventId> = idle.map(|(id, _)| *id).take(limit).collect();
        let entries: Vec<_> = ids.iter().map(|id| (*id, self.entry(*id))).collect();
        let Some(state) = self.groups.get_mut(group) else { return claimed };
        state.consumers.insert(consumer.clone(), now);
        for (id, entry) in entries {
            match (entry, state.pending.get_mut(&id)) {
                (Some(entry), Some(pending)) => {
                    pending.consumer = consumer.clone();
                    pending.since = now;
                    pending.deliveries += 1;
                    claimed.deliveries.push(Delivery::new(entry, pending.deliveries));
                }
                _ => {
                    state.pending.remove(&id);
                    claimed.deleted.push(id);
                }
            }
        }
        claimed
    }

    pub(super) fn set_idle(
        &mut self,
        group: &Group,
        consumer: &Consumer,
        ids: &[EventId],
        idle: Duration,
        now: u64,
    ) -> Vec<EventId> {
        let Some(state) = self.groups.get_mut(group) else { return Vec::new() };
        let mut held = Vec::new();
        for id in ids {
            if let Some(pending) = state.pending.get_mut(id).filter(|pending| pending.consumer == *consumer) {
                pending.since = now.saturating_sub(millis(idle.min(MAX_IDLE)));
                held.push(*id);
            }
        }
        if !held.is_empty() {
            state.consumers.insert(consumer.clone(), now);
        }
        held
    }

    pub(super) fn pending(&self, group: &Group, query: &PendingQuery, now: u64) -> Vec<PendingEvent> {
        let Some(state) = self.groups.get(group) else { return Vec::new() };
        let wanted = |(_, pending): &(&EventId, &Pending)| {
            pending.idle(now) >= query.min_idle
                && query.consumer.as_ref().is_none_or(|consumer| pending.consumer == *consumer)
        };
        let event = |(id, pending): (&EventId, &Pending)| {
            PendingEvent::new(*id, pending.consumer.clone(), pending.idle(now), pending.deliveries)
        };
        let after = state.pending.range((Excluded(query.after), Unbounded));
        after.filter(wanted).take(query.limit.max(1)).map(event).collect()
    }

    pub(super) fn group_info(&self, group: &Group, now: u64) -> Option<GroupInfo> {
        let state = self.groups.get(group)?;
        let lag = self.entries.range((Excluded(state.cursor), Unbounded)).count() as u64;
        let pending = state.pending_by_consumer();
        let consumer = |(name, seen): (&Consumer, &u64)| {
            let idle = Duration::from_millis(now.saturating_sub(*seen));
            ConsumerInfo::new(name.clone(), pending.get(name).copied().unwrap_or_default(), idle)
        };
        let consumers = state.consumers.iter().map(consumer).collect();
        let oldest = state.pending.get_min().map(|(id, _)| *id);
        let info = GroupInfo::new(state.cursor, state.pending.len() as u64, Some(lag), consumers);
        Some(info.with_oldest_pending(oldest))
    }

    pub(super) fn remove_consumer(&mut self, group: &Group, consumer: &Consumer) -> bool {
        let Some(state) = self.groups.get_mut(group) else { return true };
        if state.has_pending(consumer) {
            return false;
        }
        state.consumers.remove(consumer);
        true
    }
}
