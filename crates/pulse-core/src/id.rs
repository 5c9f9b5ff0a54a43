//! Numbers that must not be mixed up: revisions, incarnations, event ids, lease ids, server times.

use std::{fmt, num::ParseIntError, str::FromStr, time::Duration};

/// Counts the committed transactions that changed a map since its incarnation began; the first one makes it 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Tells one life of a map from the next: random, drawn when the first write creates the map.
///
/// A map that was destroyed, flushed or expired and is written again has another incarnation, so that its revisions,
/// which start again at 1, cannot be mistaken for the old ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Incarnation(pub u64);

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A point in the history of a map: which life of it, and how many commits into it.
///
/// Versions of different incarnations are not ordered; compare revisions only after comparing incarnations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Version {
    /// The life of the map.
    pub incarnation: Incarnation,
    /// The commits into it.
    pub revision: Revision,
}

impl Version {
    /// Whether this point is `other` or comes after it in the same life of the map.
    #[must_use]
    pub fn includes(&self, other: &Self) -> bool {
        self.incarnation == other.incarnation && self.revision >= other.revision
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.revision, self.incarnation)
    }
}

/// Places an event in its stream: the server's clock in milliseconds, then a sequence number within the millisecond.
///
/// Written `MILLISECONDS-SEQUENCE`, as Redis does. Ids of one stream only ever grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct EventId {
    /// Milliseconds since the Unix epoch by the server's clock.
    pub millis: u64,
    /// Tells events of the same millisecond apart.
    pub sequence: u64,
}

impl EventId {
    /// Before every event.
    pub const ZERO: Self = Self { millis: 0, sequence: 0 };
    /// After every event.
    pub const MAX: Self = Self { millis: u64::MAX, sequence: u64::MAX };

    /// Puts an id together from its two parts.
    #[must_use]
    pub const fn new(millis: u64, sequence: u64) -> Self {
        Self { millis, sequence }
    }

    /// The smallest id that is greater, or `None` after [`EventId::MAX`].
    #[must_use]
    pub const fn next(self) -> Option<Self> {
        match self.sequence.checked_add(1) {
            Some(sequence) => Some(Self { millis: self.millis, sequence }),
            None => match self.millis.checked_add(1) {
                Some(millis) => Some(Self { millis, sequence: 0 }),
                None => None,
            },
        }
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.millis, self.sequence)
    }
}

/// A text that is not an event id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an event id: expected MILLISECONDS-SEQUENCE, two decimal numbers")]
pub struct ParseEventIdError(#[source] Option<ParseIntError>);

impl FromStr for EventId {
    type Err = ParseEventIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (millis, sequence) = text.split_once('-').ok_or(ParseEventIdError(None))?;
        let number = |part: &str| part.parse().map_err(|source| ParseEventIdError(Some(source)));
        Ok(Self { millis: number(millis)?, sequence: number(sequence)? })
    }
}

/// Identifies a lease inside its scope; drawn at random by whoever asks for the lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LeaseId(pub u64);

impl LeaseId {
    /// Draws a fresh id.
    #[must_use]
    pub fn random() -> Self {
        Self(crate::entropy::number())
    }
}

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A reading of the backend's clock: milliseconds since the Unix epoch.
///
/// Only differences between readings of one scope mean anything; never compare one with the local clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerTime(pub u64);

impl ServerTime {
    /// How much later this reading is than `earlier`, zero if it is not later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ids_follow_each_other_without_a_hole_up_to_the_largest() {
        assert_eq!(EventId::ZERO.next(), Some(EventId::new(0, 1)));
        assert_eq!(EventId::new(7, u64::MAX).next(), Some(EventId::new(8, 0)));
        assert_eq!(EventId::MAX.next(), None);
    }

    #[test]
    fn a_version_includes_earlier_ones_of_the_same_life_only() {
        let version = |life, revision| Version { incarnation: Incarnation(life), revision: Revision(revision) };
        assert!(version(1, 3).includes(&version(1, 3)) && version(1, 3).includes(&version(1, 2)));
        assert!(!version(1, 3).includes(&version(1, 4)));
        assert!(!version(2, 3).includes(&version(1, 1)));
        assert_eq!(version(255, 3).to_string(), "3@00000000000000ff");
    }

    #[test]
    fn a_text_that_is_no_event_id_is_refused() {
        for text in ["", "-", "1", "1-", "-1", "a-1", "1-a", "1-2-3", " 1-2", "18446744073709551616-0", "*"] {
            assert!(text.parse::<EventId>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn time_that_seems_to_run_backwards_is_no_time() {
        assert_eq!(ServerTime(5).since(ServerTime(3)), Duration::from_millis(2));
        assert_eq!(ServerTime(3).since(ServerTime(5)), Duration::ZERO);
    }

    proptest! {
        #[test]
        fn an_event_id_reads_back_as_written(millis in any::<u64>(), sequence in any::<u64>()) {
            let id = EventId::new(millis, sequence);
            prop_assert_eq!(id.to_string().parse(), Ok(id));
            prop_assert!(id.next().is_none_or(|next| next > id));
        }

        #[test]
        fn garbage_is_no_reason_to_panic(text in ".*") {
            let _ = text.parse::<EventId>();
        }
    }
}
