//! What subscribers see, and the exact difference between two snapshots in those terms.

use std::sync::Arc;

use pulse_core::Version;

use crate::{Cleared, KeyFilter, Snapshot, Value, value::Slot};

/// What a subscription yields.
#[derive(Debug)]
#[non_exhaustive]
pub enum Update<V> {
    /// The next change.
    Change(Change<V>),
    /// The map lost all its keys at once: it was cleared, destroyed, or expired. The deletions of those that it had follow,
    /// as changes of the same version, so that whoever folds changes may pass over this. It is said of an empty map too,
    /// and whatever keys the subscription is [for](crate::Changes::only).
    ///
    /// What happened while the replica was cut off arrives as the difference, and not as this.
    Cleared(Cleared),
    /// The subscriber was too slow for its buffer, and single steps were lost. The changes that follow lead from what
    /// it last saw to the map as it is now, one for each key that is other than it was; then single steps go on.
    Lagged,
}

/// One key of a map became other than it was.
#[derive(Debug)]
#[non_exhaustive]
pub struct Change<V> {
    /// The version of the map that the change belongs to. Changes of one commit share it. `None`: the map does not
    /// exist any more.
    pub version: Option<Version>,
    /// The key.
    pub key: Arc<str>,
    /// What happened to it.
    pub kind: ChangeKind,
    /// The value after the change, if the key has one.
    pub value: Option<Value<V>>,
    /// The value before the change, if the key had one.
    pub previous: Option<Value<V>>,
}

/// What happened to a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ChangeKind {
    /// It has a value.
    Set,
    /// It is gone: deleted, expired, or the map was cleared or destroyed.
    Deleted,
    /// It has bytes that do not decode as the map's type; see [`Map::get_raw`](crate::Map::get_raw).
    Unreadable,
}

impl<V> Clone for Change<V> {
    fn clone(&self) -> Self {
        Self {
            version: self.version,
            key: Arc::clone(&self.key),
            kind: self.kind,
            value: self.value.clone(),
            previous: self.previous.clone(),
        }
    }
}

impl<V> Clone for Update<V> {
    fn clone(&self) -> Self {
        match self {
            Self::Change(change) => Self::Change(change.clone()),
            Self::Cleared(cleared) => Self::Cleared(*cleared),
            Self::Lagged => Self::Lagged,
        }
    }
}

impl<V> Update<V> {
    /// Whether it is for a subscription to these keys.
    pub(crate) fn is_wanted(&self, filter: &KeyFilter) -> bool {
        match self {
            Self::Change(change) => filter.accepts(&change.key),
            Self::Cleared(_) | Self::Lagged => true,
        }
    }
}

impl<V> Change<V> {
    /// From what the key held to what it holds; one of the two must be something.
    pub(crate) fn new(
        version: Option<Version>,
        key: Arc<str>,
        previous: Option<Slot<V>>,
        current: Option<Slot<V>>,
    ) -> Self {
        let kind = match &current {
            Some(slot) if slot.value().is_some() => ChangeKind::Set,
            Some(_) => ChangeKind::Unreadable,
            None => ChangeKind::Deleted,
        };
        let [previous, value] = [previous, current].map(|slot| slot.and_then(Slot::into_value));
        Self { version, key, kind, value, previous }
    }
}

/// The changes that lead from one snapshot to another: deletions first, one change for each key that differs.
pub(crate) fn difference<V: 'static>(from: &Snapshot<V>, to: &Snapshot<V>) -> Vec<Update<V>> {
    let (mut gone, mut set) = (Vec::new(), Vec::new());
    from.content().compare(to.content(), |before, after| {
        let change = |slot: &Slot<V>| {
            let key = Arc::clone(slot.shared_key());
            Update::Change(Change::new(to.version(), key, before.cloned(), after.cloned()))
        };
        match (before, after) {
            (Some(before), Some(after)) if before.equals(after) => {}
            (_, Some(after)) => set.push(change(after)),
            (Some(before), None) => gone.push(change(before)),
            (None, None) => {}
        }
    });
    gone.append(&mut set);
    gone
}
