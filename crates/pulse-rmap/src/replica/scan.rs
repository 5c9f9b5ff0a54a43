//! Reading a map anew while it changes.
//!
//! The pages are no consistent picture, but the commits since before the first page are in order and absolute. So
//! whatever a commit touched is taken from the commits alone, the rest from the pages; and once the commits have led at
//! least to the version that the map had after the last page, the content is exactly the map at that point.

use std::{collections::HashSet, sync::Arc};

use pulse_core::{MapCommit, MapId, MapPage, Version};

use super::{Broken, Position, Step};
use crate::{codec::Codec, content::Content, value::Slot};

/// The content in the making.
#[derive(Debug)]
pub(crate) struct Scan<V> {
    map: MapId,
    codec: Codec<V>,
    /// What the replica had before. Values that did not change are shared with it rather than decoded again.
    known: Content<V>,
    content: Content<V>,
    position: Position,
    /// Keys that a commit wrote or deleted: pages have nothing to say about them any more.
    touched: HashSet<Arc<str>>,
    /// A commit emptied the map or began it: pages have nothing to say at all, and the content is exact without them.
    emptied: bool,
}

/// Whether the commits have led to the version that was read after the last page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reached {
    /// To it or beyond: the content is exact.
    Yes,
    /// Not yet: the commits are on their way.
    NotYet,
    /// They will not, because the map was replaced without a word: read it again.
    Never,
}

impl<V: 'static> Scan<V> {
    pub(crate) fn new(map: MapId, codec: Codec<V>, known: Content<V>, first: Option<Version>) -> Self {
        let (content, touched, position) = (Content::default(), HashSet::new(), Position::read(first));
        Self { map, codec, known, content, position, touched, emptied: false }
    }

    pub(crate) fn page(&mut self, page: MapPage) {
        if page.skipped > 0 {
            tracing::warn!(map = %self.map, skipped = page.skipped, "skipped keys that are not valid UTF-8");
        }
        if self.emptied {
            return;
        }
        for (key, raw) in page.entries {
            if !self.touched.contains(&key) {
                self.insert(key, &raw);
            }
        }
    }

    /// Takes in a commit that happened meanwhile.
    pub(crate) fn commit(&mut self, commit: MapCommit) -> Result<(), Broken> {
        let begins = self.position.version().is_none();
        if self.position.step(&commit)? == Step::Included {
            return Ok(());
        }
        if begins {
            self.empty();
        }
        for change in commit.changes {
            match change {
                pulse_core::Change::Put { key, value } => {
                    self.touched.insert(Arc::clone(&key));
                    self.insert(key, &value);
                }
                pulse_core::Change::Deleted { key } => {
                    self.content.remove(&key);
                    self.touched.insert(key);
                }
                pulse_core::Change::Cleared | pulse_core::Change::Destroyed => self.empty(),
                _ => return Err(Broken::Unknown),
            }
        }
        Ok(())
    }

    /// Whether the content is exact, given the version that was read after the last page.
    pub(crate) fn reached(&self, second: Option<Version>) -> Reached {
        match (self.position.version(), second) {
            (Some(at), Some(second)) if at.includes(&second) => Reached::Yes,
            (Some(at), Some(second)) if at.incarnation == second.incarnation => Reached::NotYet,
            // Since the map was emptied, its content comes from the commits alone and is exact after each of them.
            _ if self.emptied => Reached::Yes,
            (None, None) => Reached::Yes,
            (None, Some(_)) => Reached::NotYet,
            (Some(_), _) => Reached::Never,
        }
    }

    pub(crate) fn version(&self) -> Option<Version> {
        self.position.version()
    }

    pub(crate) fn into_parts(self) -> (Content<V>, Position) {
        (self.content, self.position)
    }

    fn empty(&mut self) {
        self.content.clear();
        self.touched = HashSet::new();
        self.emptied = true;
    }

    fn insert(&mut self, key: Arc<str>, raw: &[u8]) {
        let known = self.known.slot(&key).filter(|slot| slot.has(raw)).cloned();
        self.content.insert(known.unwrap_or_else(|| Slot::new(&self.codec, &self.map, key, raw)));
    }
}
