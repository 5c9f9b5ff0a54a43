//! The content of one scope, and the elementary changes of maps, bindings and leases.
//!
//! The collections are persistent: a clone is free and shares everything, a change copies only the path to what
//! changes. No function here fails half way.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use imbl::{OrdMap, OrdSet};

use super::streams::StreamState;
use crate::{Change, Cursor, EventId, Incarnation, LeaseId, MapCommit, MapPage, Revision, Version};

#[derive(Debug, Clone, Default)]
pub(super) struct ScopeState {
    pub(super) maps: OrdMap<Arc<str>, MapState>,
    pub(super) streams: OrdMap<Arc<str>, StreamState>,
    /// The last id of any stream that was removed: a stream that comes back within the same millisecond must not use
    /// its ids again, or readers would take new events for old ones.
    pub(super) past_ids: EventId,
    /// Each lease with its deadline, in milliseconds.
    pub(super) leases: OrdMap<LeaseId, u64>,
    /// The entries that hang on each lease.
    pub(super) bound: OrdSet<(LeaseId, Arc<str>, Arc<str>)>,
    /// Everything that a sweep has to look at, in order of time.
    pub(super) deadlines: OrdSet<(u64, Due)>,
    /// The streams that vanish by themselves, in order of time: one that nobody touches again must not stay for ever.
    pub(super) stream_deadlines: OrdSet<(u64, Arc<str>)>,
}

/// What is due at a deadline.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Due {
    Lease(LeaseId),
    Entry(Arc<str>, Arc<str>),
    Map(Arc<str>),
}

#[derive(Debug, Clone)]
pub(super) struct MapState {
    pub(super) version: Version,
    pub(super) entries: OrdMap<Arc<str>, EntryState>,
    pub(super) deadline: Option<u64>,
}

#[derive(Debug, Clone)]
pub(super) struct EntryState {
    pub(super) value: Bytes,
    pub(super) bound: Bound,
}

/// What an entry lives by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bound {
    Nothing,
    Lease(LeaseId),
    /// Until then, in milliseconds.
    Deadline(u64),
}

/// What the outside must be told once the new state is in place.
#[derive(Debug, Default)]
pub(super) struct Changed {
    /// The commits of each map, in order.
    pub(super) commits: Vec<(Arc<str>, MapCommit)>,
    /// The streams that something happened to.
    pub(super) streams: Vec<Arc<str>>,
    /// Commits that may still grow.
    open: BTreeMap<Arc<str>, MapCommit>,
}

impl Changed {
    /// Ends the commits that are still open.
    pub(super) fn finish(&mut self) {
        self.commits.extend(std::mem::take(&mut self.open));
    }
}

impl MapState {
    fn new() -> Self {
        Self {
            version: Version { incarnation: Incarnation(crate::entropy::number()), revision: Revision(0) },
            entries: OrdMap::new(),
            deadline: None,
        }
    }

    pub(super) fn page(&self, after: Option<&str>, limit: usize, cursor: &str) -> MapPage {
        let entry = |(key, entry): (&Arc<str>, &EntryState)| (key.clone(), entry.value.clone());
        let entries: Vec<_> = match after {
            None => self.entries.iter().take(limit).map(entry).collect(),
            Some(after) => {
                let range = (std::ops::Bound::Excluded(after), std::ops::Bound::Unbounded);
                self.entries.range::<_, str>(range).take(limit).map(entry).collect()
            }
        };
        let next = match entries.last() {
            Some((last, _)) if entries.len() == limit => Some(Cursor(format!("{cursor}{last}"))),
            _ => None,
        };
        MapPage::new(entries, next)
    }
}

impl ScopeState {
    pub(super) fn is_empty(&self) -> bool {
        self.maps.is_empty() && self.streams.is_empty() && self.leases.is_empty()
    }

    pub(super) fn is_alive(&self, lease: LeaseId, now: u64) -> bool {
        self.leases.get(&lease).is_some_and(|deadline| *deadline > now)
    }

    pub(super) fn entry(&self, map: &str, key: &str) -> Option<&EntryState> {
        self.maps.get(map)?.entries.get(key)
    }

    pub(super) fn put(&mut self, changed: &mut Changed, map: &Arc<str>, key: &Arc<str>, value: Bytes, bound: Bound) {
        self.record(changed, map, Change::Put { key: key.clone(), value: value.clone() });
        let Some(state) = self.maps.get_mut(map) else { return };
        let old = state.entries.insert(key.clone(), EntryState { value, bound });
        self.unbind(map, key, old.map_or(Bound::Nothing, |old| old.bound));
        match bound {
            Bound::Nothing => {}
            Bound::Lease(lease) => {
                self.bound.insert((lease, map.clone(), key.clone()));
            }
            Bound::Deadline(deadline) => {
                self.deadlines.insert((deadline, Due::Entry(map.clone(), key.clone())));
            }
        }
    }

    /// Changes a value and leaves its binding.
    pub(super) fn replace(&mut self, changed: &mut Changed, map: &Arc<str>, key: &Arc<str>, value: Bytes) {
        let bound = self.entry(map, key).map_or(Bound::Nothing, |entry| entry.bound);
        self.put(changed, map, key, value, bound);
    }

    pub(super) fn delete(&mut self, changed: &mut Changed, map: &Arc<str>, key: &Arc<str>) -> Option<Bytes> {
        let old = self.maps.get_mut(map)?.entries.remove(key)?;
        self.unbind(map, key, old.bound);
        self.record(changed, map, Change::Deleted { key: key.clone() });
        Some(old.value)
    }

    /// Deletes all keys of a map and returns how many there were.
    pub(super) fn clear(&mut self, changed: &mut Changed, map: &Arc<str>) -> u64 {
        if !self.maps.contains_key(map) {
            return 0;
        }
        let count = self.drain(map);
        self.record(changed, map, Change::Cleared);
        count
    }

    /// Removes a map and returns how many keys it had.
    pub(super) fn destroy(&mut self, changed: &mut Changed, map: &Arc<str>) -> u64 {
        if !self.maps.contains_key(map) {
            return 0;
        }
        let count = self.drain(map);
        self.set_map_deadline(map, None);
        self.record(changed, map, Change::Destroyed);
        self.maps.remove(map);
        if let Some(commit) = changed.open.remove(map) {
            changed.commits.push((map.clone(), commit));
        }
        count
    }

    pub(super) fn set_map_deadline(&mut self, map: &Arc<str>, deadline: Option<u64>) {
        let Some(state) = self.maps.get_mut(map) else { return };
        if let Some(old) = std::mem::replace(&mut state.deadline, deadline) {
            self.deadlines.remove(&(old, Due::Map(map.clone())));
        }
        if let Some(deadline) = deadline {
            self.deadlines.insert((deadline, Due::Map(map.clone())));
        }
    }

    pub(super) fn set_lease(&mut self, lease: LeaseId, deadline: u64) {
        if let Some(old) = self.leases.insert(lease, deadline) {
            self.deadlines.remove(&(old, Due::Lease(lease)));
        }
        self.deadlines.insert((deadline, Due::Lease(lease)));
    }

    /// Ends a lease and returns how many entries went with it.
    pub(super) fn drop_lease(&mut self, changed: &mut Changed, lease: LeaseId) -> u64 {
        let Some(deadline) = self.leases.remove(&lease) else { return 0 };
        self.deadlines.remove(&(deadline, Due::Lease(lease)));
        self.delete_bound(changed, lease, usize::MAX)
    }

    /// Deletes up to `limit` of the entries that are bound to a lease and returns how many it deleted.
    pub(super) fn delete_bound(&mut self, changed: &mut Changed, lease: LeaseId, limit: usize) -> u64 {
        let from = (lease, Arc::from(""), Arc::from(""));
        let of_lease = self.bound.range(from..).take_while(|(of, _, _)| *of == lease);
        let bound: Vec<_> = of_lease.take(limit).cloned().collect();
        for (_, map, key) in &bound {
            self.delete(changed, map, key);
        }
        bound.len() as u64
    }

    /// Empties a map without a word and returns how many keys it had.
    fn drain(&mut self, map: &Arc<str>) -> u64 {
        let Some(state) = self.maps.get_mut(map) else { return 0 };
        let entries = std::mem::take(&mut state.entries);
        for (key, entry) in &entries {
            self.unbind(map, key, entry.bound);
        }
        entries.len() as u64
    }

    fn unbind(&mut self, map: &Arc<str>, key: &Arc<str>, bound: Bound) {
        match bound {
            Bound::Nothing => {}
            Bound::Lease(lease) => {
                self.bound.remove(&(lease, map.clone(), key.clone()));
            }
            Bound::Deadline(deadline) => {
                self.deadlines.remove(&(deadline, Due::Entry(map.clone(), key.clone())));
            }
        }
    }

    /// Adds a change to the map's commit; the first one makes the commit, raises the revision, and makes the map if
    /// need be.
    fn record(&mut self, changed: &mut Changed, map: &Arc<str>, change: Change) {
        let commit = changed.open.entry(map.clone()).or_insert_with(|| {
            let version = &mut self.maps.entry(map.clone()).or_insert_with(MapState::new).version;
            let before = version.revision;
            version.revision = Revision(before.0 + 1);
            MapCommit::new(version.incarnation, before, version.revision, Vec::new())
        });
        commit.changes.push(change);
    }
}
