//! What a committed transaction did.

use std::sync::Arc;

use bytes::Bytes;

use crate::{EventId, Version};

/// What one write did.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum WriteResult {
    /// The key's value before the write, `None` if it was absent.
    Previous(Option<Bytes>),
    /// The counter after the write.
    Counter(i64),
    /// The list after the write, empty if the key is gone, and whether the write changed it.
    List {
        /// The items.
        items: Vec<Bytes>,
        /// Whether they are other than before.
        changed: bool,
    },
    /// The id of the appended event.
    Event(EventId),
    /// How many entries, keys or events were affected.
    Count(u64),
    /// Nothing to tell.
    Done,
}

/// The result of a committed transaction.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Committed {
    /// One result for each write, in order.
    pub results: Vec<WriteResult>,
    /// The version after the commit of each map that a write names, in order of first mention; `None` if the map does
    /// not exist. Maps that are touched only through a dropped lease are not listed.
    pub versions: Vec<(Arc<str>, Option<Version>)>,
}

impl Committed {
    /// Puts the report of a backend together.
    #[must_use]
    pub fn new(results: Vec<WriteResult>, versions: Vec<(Arc<str>, Option<Version>)>) -> Self {
        Self { results, versions }
    }

    /// Replaces what puts and deletions say they replaced by [`WriteResult::Done`], for backends to report on a
    /// transaction that is [without](crate::Transaction::without_previous).
    #[must_use]
    pub fn forget_previous(mut self) -> Self {
        for result in &mut self.results {
            if matches!(result, WriteResult::Previous(_)) {
                *result = WriteResult::Done;
            }
        }
        self
    }

    /// The version of a map after the commit; `None` if the map does not exist or no write named it.
    #[must_use]
    pub fn version(&self, map: &str) -> Option<Version> {
        self.versions.iter().find(|(name, _)| &**name == map).and_then(|(_, version)| *version)
    }

    /// The id of the event that the write at this place appended.
    #[must_use]
    pub fn event_id(&self, index: usize) -> Option<EventId> {
        match self.results.get(index) {
            Some(WriteResult::Event(id)) => Some(*id),
            _ => None,
        }
    }

    /// The value that the key of the put or delete at this place had before; `None` if it was absent, or if the
    /// transaction is [without](crate::Transaction::without_previous).
    #[must_use]
    pub fn previous(&self, index: usize) -> Option<&Bytes> {
        match self.results.get(index) {
            Some(WriteResult::Previous(value)) => value.as_ref(),
            _ => None,
        }
    }

    /// The counter after the add at this place.
    #[must_use]
    pub fn counter(&self, index: usize) -> Option<i64> {
        match self.results.get(index) {
            Some(WriteResult::Counter(value)) => Some(*value),
            _ => None,
        }
    }

    /// How many entries, keys or events the write at this place affected.
    #[must_use]
    pub fn count(&self, index: usize) -> Option<u64> {
        match self.results.get(index) {
            Some(WriteResult::Count(count)) => Some(*count),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Incarnation, Revision};

    #[test]
    fn each_result_is_found_at_the_place_of_its_write_and_as_its_kind_only() {
        let version = Version { incarnation: Incarnation(7), revision: Revision(3) };
        let committed = Committed::new(
            vec![
                WriteResult::Previous(Some("old".into())),
                WriteResult::Previous(None),
                WriteResult::Counter(-1),
                WriteResult::Event(EventId::new(1, 2)),
                WriteResult::Count(4),
                WriteResult::Done,
            ],
            vec![("m".into(), Some(version)), ("gone".into(), None)],
        );
        assert_eq!(committed.previous(0), Some(&"old".into()));
        assert_eq!(committed.previous(1), None);
        assert_eq!(committed.counter(2), Some(-1));
        assert_eq!(committed.event_id(3), Some(EventId::new(1, 2)));
        assert_eq!(committed.count(4), Some(4));
        assert_eq!((committed.counter(0), committed.count(5), committed.event_id(99)), (None, None, None));
        assert_eq!(committed.version("m"), Some(version));
        assert_eq!((committed.version("gone"), committed.version("other")), (None, None));
    }
}
