//! What can go wrong with a map, cut by what the caller can do about it.

use bytes::Bytes;
use pulse_core::{FailedExpectation, Found, MapId, Source, Version};

/// Why an operation on a map failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The backend refused or could not be reached while the map as a whole was concerned.
    #[error("map {map}: {source}")]
    Map {
        /// The map.
        map: String,
        /// The backend's error.
        #[source]
        source: Box<pulse_core::Error>,
    },
    /// The backend refused or could not be reached while one key was concerned.
    #[error("key {key:?} of map {map}: {source}")]
    Key {
        /// The map.
        map: MapId,
        /// The key, shortened if it is long.
        key: String,
        /// The backend's error.
        #[source]
        source: Box<pulse_core::Error>,
    },
    /// A conditional write found something else than it expects; nothing was changed.
    #[error("map {map} is not as expected, nothing was changed: {failed}")]
    Conflict {
        /// The map.
        map: MapId,
        /// What was expected, and what was found instead.
        failed: Box<FailedExpectation>,
    },
    /// The value cannot be encoded; nothing was sent.
    #[error("cannot encode a value for map {map}: {source}")]
    Encode {
        /// The map.
        map: MapId,
        /// What the type's serialisation says.
        #[source]
        source: Source,
    },
    /// The bytes in the map are not a value of the map's type: another program, or another version of it, wrote them.
    #[error("cannot decode the value of key {key:?} of map {map}: {source}")]
    Decode {
        /// The map.
        map: MapId,
        /// The key, shortened if it is long.
        key: String,
        /// What the type's deserialisation says.
        #[source]
        source: Source,
    },
    /// The map changed or lost its feed so often while it was read that no consistent content could be put together.
    #[error("cannot read map {map} consistently after {attempts} attempts ({last}): try again when it is calmer")]
    Unsettled {
        /// The map.
        map: MapId,
        /// How often it was tried.
        attempts: u32,
        /// What ended the last attempt.
        last: String,
    },
    /// The version will never be reached: the map was destroyed since, or expired from the server.
    #[error("version {version} of map {map} is gone: the map was destroyed or lost since; read it again")]
    VersionGone {
        /// The map.
        map: MapId,
        /// The version that was waited for.
        version: Version,
    },
    /// The map or its client was closed.
    #[error("map {map} is closed")]
    Closed {
        /// The map.
        map: MapId,
    },
}

impl Error {
    /// Whether the same call may succeed later without anybody changing anything.
    ///
    /// Retry blindly only what repeating cannot harm; check [`Error::is_outcome_unknown`] for the rest.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unsettled { .. }) || self.backend_error().is_some_and(pulse_core::Error::is_retryable)
    }

    /// Whether the write may have taken effect although it failed.
    #[must_use]
    pub fn is_outcome_unknown(&self) -> bool {
        self.backend_error().is_some_and(pulse_core::Error::is_outcome_unknown)
    }

    /// Whether a condition of the write did not hold. Look at what is there now, and decide anew.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Conflict { .. })
    }

    /// The encoded value that a conditional write found in place of what it expects;
    /// [`Map::decode`](crate::Map::decode) reads it. `None` if the key is absent, or the error is another one.
    #[must_use]
    pub fn found(&self) -> Option<&Bytes> {
        match self {
            Self::Conflict { failed, .. } => match &failed.found {
                Found::Value(value) => value.as_ref(),
                _ => None,
            },
            _ => None,
        }
    }

    /// Whether the map, or its client, was closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        matches!(self, Self::Closed { .. }) || matches!(self.backend_error(), Some(pulse_core::Error::Closed))
    }

    /// The backend's error, if it is the cause.
    #[must_use]
    pub fn backend_error(&self) -> Option<&pulse_core::Error> {
        match self {
            Self::Map { source, .. } | Self::Key { source, .. } => Some(&**source),
            _ => None,
        }
    }
}
