//! The replica's logic as a state machine: what the backend said goes in, content and changes come out.
//!
//! - [`Replica`] follows a map commit by commit, and says when it cannot go on.
//! - [`Scan`] puts the content together anew from pages and the commits that happened meanwhile.
//! - [`Position`] decides whether a commit is the next one.
//!
//! Pure: no clock, no I/O, no locks. The [task](crate::replicator) around it only fetches, waits and publishes.

mod position;
mod scan;

use std::sync::Arc;

use pulse_core::{MapCommit, MapId, Version};

pub(crate) use self::{
    position::{Broken, Position, Step},
    scan::{Reached, Scan},
};
use crate::{
    Cleared,
    change::{Change, Update},
    codec::Codec,
    content::Content,
    snapshot::View,
    value::Slot,
};

/// The local copy of a map, at one version.
#[derive(Debug)]
pub(crate) struct Replica<V> {
    map: MapId,
    codec: Codec<V>,
    content: Content<V>,
    position: Position,
    readings: u64,
    /// Made by the commits since they were last taken.
    changes: Vec<Update<V>>,
}

impl<V: 'static> Replica<V> {
    /// Empty, and at no version.
    pub(crate) fn new(map: MapId, codec: Codec<V>) -> Self {
        Self {
            map,
            codec,
            content: Content::default(),
            position: Position::read(None),
            readings: 0,
            changes: Vec::new(),
        }
    }

    pub(crate) fn version(&self) -> Option<Version> {
        self.position.version()
    }

    /// What readers see from now on.
    pub(crate) fn view(&self) -> View<V> {
        View { content: self.content.clone(), version: self.version(), readings: self.readings }
    }

    pub(crate) fn take_changes(&mut self) -> Vec<Update<V>> {
        std::mem::take(&mut self.changes)
    }

    /// Applies a commit if it is the next one, ignores it if it is known to be included, and changes nothing if it is
    /// another one. After a change of an unknown kind the replica must be read anew.
    pub(crate) fn commit(&mut self, commit: MapCommit) -> Result<(), Broken> {
        if self.position.step(&commit)? == Step::Included {
            return Ok(());
        }
        let version = self.version();
        for change in commit.changes {
            match change {
                pulse_core::Change::Put { key, value } => {
                    let slot = Slot::new(&self.codec, &self.map, Arc::clone(&key), &value);
                    let previous = self.content.insert(slot.clone());
                    self.changes.push(Update::Change(Change::new(version, key, previous, Some(slot))));
                }
                pulse_core::Change::Deleted { key } => {
                    // A backend sends no deletion of what is not there; one that does makes no change here.
                    if let Some(previous) = self.content.remove(&key) {
                        self.changes.push(Update::Change(Change::new(version, key, Some(previous), None)));
                    }
                }
                pulse_core::Change::Cleared | pulse_core::Change::Destroyed => {
                    let cleared = std::mem::take(&mut self.content);
                    let keys = cleared.len() + cleared.unreadable();
                    self.changes.push(Update::Cleared(Cleared::new(version, keys as u64)));
                    let gone = cleared.slots().map(|(key, slot)| (Arc::clone(key), slot.clone()));
                    let gone = gone.map(|(key, slot)| Change::new(version, key, Some(slot), None));
                    self.changes.extend(gone.map(Update::Change));
                }
                // A kind of change that this version does not know cannot be applied.
                _ => return Err(Broken::Unknown),
            }
        }
        Ok(())
    }

    /// Begins to read the map anew, at the version that the backend gave after the feed was subscribed.
    pub(crate) fn scan(&self, first: Option<Version>) -> Scan<V> {
        Scan::new(self.map.clone(), self.codec, self.content.clone(), first)
    }

    /// Takes over what a scan found.
    pub(crate) fn adopt(&mut self, scan: Scan<V>) {
        (self.content, self.position) = scan.into_parts();
        self.readings += 1;
    }
}

#[cfg(test)]
mod tests;
