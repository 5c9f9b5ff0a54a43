//! What a transaction expects to find.

use std::{fmt, sync::Arc};

use bytes::Bytes;

use crate::{LeaseId, Version};

/// A condition on the state before the transaction. Maps and streams are named inside the transaction's scope.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Expectation {
    /// The map has the key with exactly this value.
    Equals {
        /// The map.
        map: Arc<str>,
        /// The key.
        key: Arc<str>,
        /// The value.
        value: Bytes,
    },
    /// The map does not have the key.
    Absent {
        /// The map.
        map: Arc<str>,
        /// The key.
        key: Arc<str>,
    },
    /// The map has the key, whatever its value.
    Present {
        /// The map.
        map: Arc<str>,
        /// The key.
        key: Arc<str>,
    },
    /// The map is at exactly this version; `None`: it does not exist.
    Version {
        /// The map.
        map: Arc<str>,
        /// The version.
        version: Option<Version>,
    },
    /// The map has fewer than that many entries.
    FewerThan {
        /// The map.
        map: Arc<str>,
        /// The number of entries that is too many.
        entries: u64,
    },
    /// The lease's deadline lies in the future.
    LeaseAlive {
        /// The lease.
        lease: LeaseId,
    },
    /// The lease's deadline has passed, or there is no such lease.
    LeaseExpired {
        /// The lease.
        lease: LeaseId,
    },
    /// The stream exists (it may be empty).
    StreamExists {
        /// The stream.
        stream: Arc<str>,
    },
    /// The stream has fewer than that many entries; a stream that does not exist has none.
    ShorterThan {
        /// The stream.
        stream: Arc<str>,
        /// The length that is too long.
        length: u64,
    },
}

impl fmt::Display for Expectation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Equals { map, key, value } => write!(f, "{key:?} of map {map} equals {} given bytes", value.len()),
            Self::Absent { map, key } => write!(f, "{key:?} of map {map} is absent"),
            Self::Present { map, key } => write!(f, "{key:?} of map {map} is present"),
            Self::Version { map, version: Some(version) } => write!(f, "map {map} is at {version}"),
            Self::Version { map, version: None } => write!(f, "map {map} does not exist"),
            Self::FewerThan { map, entries } => write!(f, "map {map} has fewer than {entries} entries"),
            Self::LeaseAlive { lease } => write!(f, "lease {lease} is alive"),
            Self::LeaseExpired { lease } => write!(f, "lease {lease} has expired"),
            Self::StreamExists { stream } => write!(f, "stream {stream} exists"),
            Self::ShorterThan { stream, length } => write!(f, "stream {stream} is shorter than {length}"),
        }
    }
}

/// What was found in place of what was expected.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Found {
    /// For [`Expectation::Equals`], [`Absent`](Expectation::Absent) and [`Present`](Expectation::Present): the value,
    /// `None` if the key is absent.
    Value(Option<Bytes>),
    /// For [`Expectation::Version`]: the map's version, `None` if it does not exist.
    Version(Option<Version>),
    /// For [`Expectation::FewerThan`] and [`ShorterThan`](Expectation::ShorterThan): the number of entries.
    Count(u64),
    /// For [`Expectation::LeaseAlive`]: the lease has expired, was dropped, or never was.
    LeaseExpired,
    /// For [`Expectation::LeaseExpired`]: the lease is alive.
    LeaseAlive,
    /// For [`Expectation::StreamExists`]: there is no such stream.
    NoStream,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(Some(value)) => write!(f, "a value of {} bytes", value.len()),
            Self::Value(None) => f.write_str("no such key"),
            Self::Version(Some(version)) => write!(f, "version {version}"),
            Self::Version(None) => f.write_str("no such map"),
            Self::Count(count) => write!(f, "{count} entries"),
            Self::LeaseExpired => f.write_str("that it is not alive"),
            Self::LeaseAlive => f.write_str("that it is alive"),
            Self::NoStream => f.write_str("no such stream"),
        }
    }
}

/// The first expectation that did not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FailedExpectation {
    /// Its place among the transaction's expectations, from 0.
    pub index: usize,
    /// What was expected.
    pub expected: Expectation,
    /// What was found.
    pub found: Found,
}

impl FailedExpectation {
    /// Puts the report of a backend together.
    #[must_use]
    pub fn new(index: usize, expected: Expectation, found: Found) -> Self {
        Self { index, expected, found }
    }
}

impl fmt::Display for FailedExpectation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected that {}, found {}", self.expected, self.found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_what_was_expected_and_found_without_showing_values() {
        let expected = Expectation::Equals { map: "m".into(), key: "k".into(), value: "secret".into() };
        let failed = FailedExpectation::new(2, expected, Found::Value(Some("hidden".into())));
        assert_eq!(failed.to_string(), r#"expected that "k" of map m equals 6 given bytes, found a value of 6 bytes"#);
        let alive = FailedExpectation::new(0, Expectation::LeaseAlive { lease: LeaseId(1) }, Found::LeaseExpired);
        assert_eq!(alive.to_string(), "expected that lease 0000000000000001 is alive, found that it is not alive");
    }
}
