//! The whole map at one moment.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use pulse_core::Version;

use crate::{Value, content::Content};

/// The content of a map at one version. It is consistent, costs nothing to take or clone, and never changes.
///
/// A snapshot keeps the values alive that the map has replaced since; drop it when it has served.
pub struct Snapshot<V>(Arc<View<V>>);

/// What a snapshot points to.
pub(crate) struct View<V> {
    pub(crate) content: Content<V>,
    pub(crate) version: Option<Version>,
    /// How often the map was read.
    pub(crate) readings: u64,
}

impl<V> From<Arc<View<V>>> for Snapshot<V> {
    fn from(view: Arc<View<V>>) -> Self {
        Self(view)
    }
}

impl<V> Snapshot<V> {
    pub(crate) fn content(&self) -> &Content<V> {
        &self.0.content
    }

    /// The version that the snapshot shows; `None`: the map did not exist.
    #[must_use]
    pub fn version(&self) -> Option<Version> {
        self.0.version
    }

    /// How often this replica has read the whole map by then, from 1. Between two snapshots of the same number it was
    /// told of every commit one by one; where the numbers differ, the connection was lost or the backend may have lost
    /// writes, and what changed was found by comparing.
    #[must_use]
    pub fn readings(&self) -> u64 {
        self.0.readings
    }

    /// The value of a key, `None` if the key is absent or its value does not decode.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&V> {
        self.value(key).map(|value| &**value)
    }

    /// Like [`Snapshot::get`], but a handle that can be kept beyond the snapshot.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<&Value<V>> {
        self.content().get(key)
    }

    /// The encoded value of a key, whether it decodes or not.
    #[must_use]
    pub fn get_raw(&self, key: &str) -> Option<Bytes>
    where
        V: 'static,
    {
        self.content().get_raw(key)
    }

    /// Whether the key has a value that decodes.
    #[must_use]
    pub fn contains_key(&self, key: &str) -> bool {
        self.value(key).is_some()
    }

    /// How many keys have a value that decodes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.content().len()
    }

    /// Whether no key has a value that decodes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many keys have a value that does not decode.
    #[must_use]
    pub fn unreadable(&self) -> usize {
        self.content().unreadable()
    }

    /// The keys with a value that decodes, in no particular order.
    pub fn keys(&self) -> impl Iterator<Item = &Arc<str>> {
        self.content().iter().map(|(key, _)| key)
    }

    /// The keys and values that decode, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &V)> {
        self.values().map(|(key, value)| (key, &**value))
    }

    /// The keys that begin with a prefix, and their values, in no particular order. Looks at every key of the map.
    pub fn with_prefix(&self, prefix: &str) -> impl Iterator<Item = (&Arc<str>, &V)> {
        self.iter().filter(move |(key, _)| key.starts_with(prefix))
    }

    /// Like [`Snapshot::iter`], with handles that can be kept beyond the snapshot.
    pub fn values(&self) -> impl Iterator<Item = (&Arc<str>, &Value<V>)> {
        self.content().iter()
    }
}

impl<V> Clone for Snapshot<V> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<V> fmt::Debug for Snapshot<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot").field("version", &self.version()).field("len", &self.len()).finish_non_exhaustive()
    }
}
