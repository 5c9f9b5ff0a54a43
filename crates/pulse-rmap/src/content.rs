//! The content of a map at one version: a persistent map, so that a copy is a pointer and copies share what they have
//! in common.
//!
//! Pure: no clock, no I/O, no locks.

use std::{fmt, sync::Arc};

use bytes::Bytes;

use crate::{Value, trie::Trie, value::Slot};

/// Keys and what they hold.
pub(crate) struct Content<V> {
    entries: Trie<Slot<V>>,
    /// How many of them do not decode.
    unreadable: usize,
}

impl<V> Clone for Content<V> {
    fn clone(&self) -> Self {
        Self { entries: self.entries.clone(), unreadable: self.unreadable }
    }
}

impl<V> Default for Content<V> {
    fn default() -> Self {
        Self { entries: Trie::default(), unreadable: 0 }
    }
}

impl<V> fmt::Debug for Content<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Content").field("len", &self.entries.len()).field("unreadable", &self.unreadable).finish()
    }
}

impl<V> Content<V> {
    pub(crate) fn slot(&self, key: &str) -> Option<&Slot<V>> {
        self.entries.get(key)
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Value<V>> {
        self.slot(key).and_then(Slot::value)
    }

    pub(crate) fn get_raw(&self, key: &str) -> Option<Bytes>
    where
        V: 'static,
    {
        self.slot(key).map(Slot::raw)
    }

    /// How many keys have a value that decodes.
    pub(crate) fn len(&self) -> usize {
        self.entries.len() - self.unreadable
    }

    /// How many keys have a value that does not decode.
    pub(crate) fn unreadable(&self) -> usize {
        self.unreadable
    }

    /// All slots, those that do not decode included.
    pub(crate) fn slots(&self) -> impl Iterator<Item = (&Arc<str>, &Slot<V>)> {
        self.entries.iter().map(|slot| (slot.shared_key(), slot))
    }

    /// Keys with a value that decodes, in no particular order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Value<V>)> {
        self.slots().filter_map(|(key, slot)| slot.value().map(|value| (key, value)))
    }

    /// Visits what the keys hold in one and in the other content; passes over what the two share.
    pub(crate) fn compare<'a>(&'a self, other: &'a Self, visit: impl FnMut(Option<&'a Slot<V>>, Option<&'a Slot<V>>)) {
        self.entries.compare(&other.entries, visit);
    }

    /// Returns what the key held before.
    pub(crate) fn insert(&mut self, slot: Slot<V>) -> Option<Slot<V>> {
        self.unreadable += usize::from(slot.value().is_none());
        let previous = self.entries.insert(slot);
        self.forget(previous.as_ref());
        previous
    }

    /// Returns what the key held before.
    pub(crate) fn remove(&mut self, key: &str) -> Option<Slot<V>> {
        let previous = self.entries.remove(key);
        self.forget(previous.as_ref());
        previous
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    fn forget(&mut self, slot: Option<&Slot<V>>) {
        self.unreadable -= usize::from(slot.is_some_and(|slot| slot.value().is_none()));
    }
}
