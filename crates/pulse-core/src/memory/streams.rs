//! Streams: events in order of their ids, and what retention does to them.

use std::{ops::Bound::Excluded, ops::Bound::Unbounded, sync::Arc};

use imbl::{OrdMap, OrdSet};

use super::{groups::GroupState, scope::ScopeState, store::millis};
use crate::{Entry, EventId, Group, NewEvent, Read, StreamDetail, StreamInfo, Trim};

#[derive(Debug, Clone, Default)]
pub(super) struct StreamState {
    pub(super) entries: OrdMap<EventId, NewEvent>,
    pub(super) last: EventId,
    /// Its ids are greater than this one.
    past: EventId,
    appended: u64,
    max_deleted: EventId,
    /// When the stream vanishes, in milliseconds; set by [`ScopeState::set_stream_deadline`] alone.
    pub(super) deadline: Option<u64>,
    pub(super) groups: OrdMap<Group, GroupState>,
    onces: Onces,
}

/// About what an event takes besides its own bytes.
const ENTRY_BYTES: usize = size_of::<(EventId, NewEvent)>() + 32;

/// What was appended once.
#[derive(Debug, Clone, Default)]
struct Onces {
    /// For each once-id its event and the end of its window, in milliseconds.
    events: OrdMap<Arc<str>, (EventId, u64)>,
    /// The once-ids by the ends of their windows.
    windows: OrdSet<(u64, Arc<str>)>,
}

/// How many once-ids whose window has ended are forgotten with each that is added: more than one, so that they do not
/// pile up.
const ENDED_ONCES: usize = 2;

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
        if let Some((name, stream)) = self.streams.remove_with_key(name) {
            self.past_ids = self.past_ids.max(stream.last);
            if let Some(deadline) = stream.deadline {
                self.stream_deadlines.remove(&(deadline, name));
            }
        }
    }

    pub(super) fn set_stream_deadline(&mut self, name: &Arc<str>, deadline: Option<u64>) {
        let Some(stream) = self.streams.get_mut(name) else { return };
        if let Some(old) = std::mem::replace(&mut stream.deadline, deadline) {
            self.stream_deadlines.remove(&(old, name.clone()));
        }
        if let Some(deadline) = deadline {
            self.stream_deadlines.insert((deadline, name.clone()));
        }
    }

    /// Removes up to `limit` of the streams that have expired. They are invisible already; this frees their memory.
    pub(super) fn free_expired_streams(&mut self, now: u64, limit: usize) {
        for _ in 0..limit {
            match self.stream_deadlines.get_min() {
                Some((deadline, name)) if *deadline <= now => {
                    let name = name.clone();
                    self.remove_stream(&name);
                }
                _ => break,
            }
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

    /// The event that was appended by this once-id, if its window has not ended.
    pub(super) fn appended_once(&self, once: &str, now: u64) -> Option<EventId> {
        self.onces.events.get(once).filter(|(_, deadline)| *deadline > now).map(|(id, _)| *id)
    }

    pub(super) fn record_once(&mut self, once: &Arc<str>, id: EventId, deadline: u64, now: u64) {
        if let Some((_, before)) = self.onces.events.insert(once.clone(), (id, deadline)) {
            self.onces.windows.remove(&(before, once.clone()));
        }
        self.onces.windows.insert((deadline, once.clone()));
        for _ in 0..ENDED_ONCES {
            match self.onces.windows.get_min().cloned() {
                Some(ended) if ended.0 <= now => {
                    self.onces.windows.remove(&ended);
                    self.onces.events.remove(&ended.1);
                }
                _ => break,
            }
        }
    }

    pub(super) fn entry(&self, id: EventId) -> Option<Entry> {
        self.entries.get(&id).map(|event| Entry { id, event: Ok(event.clone().with_id(id)) })
    }

    pub(super) fn after(&self, after: EventId, limit: usize) -> Vec<Entry> {
        let entry = |(id, event): (&EventId, &NewEvent)| Entry { id: *id, event: Ok(event.clone().with_id(*id)) };
        self.entries.range((Excluded(after), Unbounded)).take(limit).map(entry).collect()
    }

    pub(super) fn read(&self, after: EventId, limit: usize) -> Read {
        Read::new(self.after(after, limit), self.entries.contains_key(&after))
    }

    /// Drops old events and returns how many.
    pub(super) fn trim(&mut self, trim: Trim, now: u64) -> u64 {
        let (most, first) = match trim {
            Trim::MaxLength { length, .. } => (length, EventId::ZERO),
            Trim::Before { id, .. } => (u64::MAX, id),
            Trim::OlderThan { age, .. } => (u64::MAX, EventId::new(now.saturating_sub(millis(age)), 0)),
            Trim::Consumed => (u64::MAX, self.groups.values().map(GroupState::needs).min().unwrap_or_default()),
        };
        let mut dropped = Vec::new();
        while let Some((id, _)) = self.entries.get_min() {
            let id = *id;
            if self.entries.len() as u64 <= most && id >= first {
                break;
            }
            self.entries.remove(&id);
            dropped.push(id);
        }
        if !dropped.is_empty() {
            let after = || self.last.next().unwrap_or(EventId::MAX);
            let first_left = self.entries.get_min().map_or_else(after, |(id, _)| *id);
            let names: Vec<Group> = self.groups.keys().cloned().collect();
            for name in &names {
                if let Some(group) = self.groups.get_mut(name) {
                    group.miss(&dropped, first_left);
                }
            }
        }
        dropped.len() as u64
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

    pub(super) fn detail(&self, now: u64) -> StreamDetail {
        let events: usize = self.entries.values().map(|event| event.size() + ENTRY_BYTES).sum();
        let groups = self.groups.keys().filter_map(|group| Some((group.clone(), self.group_info(group, now)?)));
        StreamDetail::new(self.info(), (size_of::<Self>() + events) as u64, groups.collect())
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

#[cfg(test)]
mod tests {
    use super::*;

    fn ending_at(last: EventId) -> StreamState {
        StreamState { last, ..StreamState::default() }
    }

    #[test]
    fn ids_grow_even_if_the_clock_goes_backwards() {
        assert_eq!(ending_at(EventId::new(10, 3)).next_id(11), Some(EventId::new(11, 0)));
        assert_eq!(ending_at(EventId::new(10, 3)).next_id(10), Some(EventId::new(10, 4)));
        assert_eq!(ending_at(EventId::new(10, 3)).next_id(2), Some(EventId::new(10, 4)));
        assert_eq!(ending_at(EventId::new(10, u64::MAX)).next_id(2), Some(EventId::new(11, 0)));
    }

    #[test]
    fn after_the_largest_id_there_is_no_other() {
        assert_eq!(ending_at(EventId::MAX).next_id(u64::MAX), None);
        assert_eq!(ending_at(EventId::new(u64::MAX, 0)).next_id(7), Some(EventId::new(u64::MAX, 1)));
    }

    #[test]
    fn trims_drop_the_oldest_and_deletions_are_remembered() {
        let mut stream = StreamState::default();
        let ids: Vec<EventId> = (1..=10).map(|millis| EventId::new(millis, 0)).collect();
        for id in &ids {
            stream.append(*id, NewEvent::new("n", "p"));
        }
        assert_eq!(stream.trim(Trim::MaxLength { length: 7, approximate: false }, 0), 3);
        assert_eq!(stream.trim(Trim::Before { id: ids[4], approximate: true }, 0), 1);
        assert_eq!(stream.delete(&[ids[5], ids[5], EventId::new(99, 0)]), 1);
        let info = stream.info();
        assert_eq!((info.length, info.appended, info.first), (5, 10, Some(ids[4])));
        assert_eq!((info.last, info.max_deleted), (ids[9], ids[5]));
        assert_eq!(stream.trim(Trim::MaxLength { length: 0, approximate: false }, 0), 5);
        assert_eq!((stream.info().first, stream.info().last), (None, ids[9]));
    }
}
