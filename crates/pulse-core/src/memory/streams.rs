//! Streams: events in order of their ids, and what retention does to them.

use std::{ops::Bound::Excluded, ops::Bound::Unbounded, sync::Arc};

use imbl::OrdMap;

use super::{groups::GroupState, scope::ScopeState};
use crate::{Entry, EventId, Group, NewEvent, StreamInfo, Trim};

#[derive(Debug, Clone, Default)]
pub(super) struct StreamState {
    pub(super) entries: OrdMap<EventId, NewEvent>,
    pub(super) last: EventId,
    /// Its ids are greater than this one.
    past: EventId,
    appended: u64,
    max_deleted: EventId,
    /// When the stream vanishes, in milliseconds.
    pub(super) deadline: Option<u64>,
    pub(super) groups: OrdMap<Group, GroupState>,
}

impl ScopeState {
    /// The stream, unless it has expired.
    pub(super) fn live_stream(&self, name: &str, now: u64) -> Option<&StreamState> {
        self.streams.get(name).filter(|stream| !stream.has_expired(now))
    }

    /// The stream; one that has expired is removed.
    pub(super) fn live_stream_mut(&mut self, name: &str, now: u64) -> Option<&mut StreamState> {
        if self.streams.get(name)?.has_expired(now) {
            self.remove_stream(name);
        }
        self.streams.get_mut(name)
    }

    /// The stream, a new one if there is none.
    pub(super) fn stream_mut(&mut self, name: &Arc<str>, now: u64) -> &mut StreamState {
        if self.streams.get(name).is_some_and(|stream| stream.has_expired(now)) {
            self.remove_stream(name);
        }
        let past = self.past_ids;
        self.streams.entry(name.clone()).or_insert_with(|| StreamState { past, ..StreamState::default() })
    }

    pub(super) fn remove_stream(&mut self, name: &str) {
        if let Some(stream) = self.streams.remove(name) {
            self.past_ids = self.past_ids.max(stream.last);
        }
    }
}

impl StreamState {
    fn has_expired(&self, now: u64) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= now)
    }

    /// The id of the next event, `None` if there cannot be another.
    pub(super) fn next_id(&self, now: u64) -> Option<EventId> {
        let last = self.last.max(self.past);
        if now > last.millis { Some(EventId::new(now, 0)) } else { last.next() }
    }

    pub(super) fn append(&mut self, id: EventId, event: NewEvent) {
        self.entries.insert(id, event);
        self.last = id;
        self.appended += 1;
    }

    pub(super) fn entry(&self, id: EventId) -> Option<Entry> {
        self.entries.get(&id).map(|event| Entry { id, event: Ok(event.clone().with_id(id)) })
    }

    pub(super) fn after(&self, after: EventId, limit: usize) -> Vec<Entry> {
        let entry = |(id, event): (&EventId, &NewEvent)| Entry { id: *id, event: Ok(event.clone().with_id(*id)) };
        self.entries.range((Excluded(after), Unbounded)).take(limit).map(entry).collect()
    }

    pub(super) fn trim(&mut self, trim: Trim) -> u64 {
        let mut dropped = 0;
        while let Some((id, _)) = self.entries.get_min() {
            let id = *id;
            let surplus = match trim {
                Trim::MaxLength { length, .. } => self.entries.len() as u64 > length,
                Trim::Before { id: first, .. } => id < first,
            };
            if !surplus {
                break;
            }
            self.entries.remove(&id);
            dropped += 1;
        }
        dropped
    }

    pub(super) fn delete(&mut self, ids: &[EventId]) -> u64 {
        let mut deleted = 0;
        for id in ids {
            if self.entries.remove(id).is_some() {
                self.max_deleted = self.max_deleted.max(*id);
                deleted += 1;
            }
        }
        deleted
    }

    pub(super) fn info(&self) -> StreamInfo {
        StreamInfo {
            length: self.entries.len() as u64,
            appended: self.appended,
            first: self.entries.get_min().map(|(id, _)| *id),
            last: self.last,
            max_deleted: self.max_deleted,
            groups: self.groups.len() as u64,
        }
    }
}
