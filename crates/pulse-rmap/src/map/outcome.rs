//! What writes report.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use pulse_core::{MapId, Version};

use crate::{Error, List, codec::Codec, value::excerpt};

/// What setting a key did.
#[derive(Debug)]
#[non_exhaustive]
pub struct Set<V> {
    /// The version of the map that has the new value; see [`Map::wait_for`](crate::Map::wait_for).
    pub version: Version,
    /// What the key had before.
    pub previous: Previous<V>,
}

/// What deleting a key did.
#[derive(Debug)]
#[non_exhaustive]
pub struct Deleted<V> {
    /// The version of the map that lacks the key; see [`Map::wait_for`](crate::Map::wait_for). `None`: the map does not
    /// exist.
    pub version: Option<Version>,
    /// What the key had before.
    pub previous: Previous<V>,
}

/// What [`Map::update`](crate::Map::update) did.
#[derive(Debug)]
#[non_exhaustive]
pub struct Updated<V> {
    /// The version of the map that shows it; see [`Map::wait_for`](crate::Map::wait_for). `None`: the map does not
    /// exist.
    pub version: Option<Version>,
    /// What the key had before.
    pub previous: Previous<V>,
    /// What it has now; `None`: it is absent.
    pub value: Option<V>,
}

/// What [`Map::increment`](crate::Map::increment) did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counted {
    /// The version of the map that shows it; see [`Map::wait_for`](crate::Map::wait_for).
    pub version: Version,
    /// The counter after it.
    pub value: i64,
}

/// What an operation on a list did.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Listed {
    /// The version of the map that shows it; see [`Map::wait_for`](crate::Map::wait_for). `None`: the map does not
    /// exist.
    pub version: Option<Version>,
    /// The list after it; empty if the key is absent.
    pub list: List,
    /// Whether the list is other than before.
    pub changed: bool,
}

/// What emptying a map did, for the one who did it and for [subscribers](crate::Update::Cleared).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cleared {
    /// The version of the map after it; see [`Map::wait_for`](crate::Map::wait_for). `None`: the map does not exist.
    pub version: Option<Version>,
    /// How many keys were deleted.
    pub keys: u64,
}

impl Cleared {
    pub(crate) fn new(version: Option<Version>, keys: u64) -> Self {
        Self { version, keys }
    }
}

/// What a key had before it was written, decoded only when asked for.
pub struct Previous<V> {
    map: MapId,
    key: Arc<str>,
    raw: Option<Bytes>,
    codec: Codec<V>,
}

impl<V> Previous<V> {
    pub(super) fn new(map: MapId, key: Arc<str>, raw: Option<Bytes>, codec: Codec<V>) -> Self {
        Self { map, key, raw, codec }
    }

    /// Whether the key was there.
    #[must_use]
    pub fn existed(&self) -> bool {
        self.raw.is_some()
    }

    /// The encoded value, `None` if the key was absent.
    #[must_use]
    pub fn raw(&self) -> Option<&Bytes> {
        self.raw.as_ref()
    }

    /// The value, `None` if the key was absent.
    ///
    /// # Errors
    ///
    /// [`Error::Decode`] if it was no `V`.
    pub fn value(&self) -> Result<Option<V>, Error> {
        let decode = |raw: &Bytes| self.codec.decode(raw);
        self.raw.as_ref().map(decode).transpose().map_err(|source| Error::Decode {
            map: self.map.clone(),
            key: excerpt(&self.key).to_owned(),
            source,
        })
    }
}

impl<V> fmt::Debug for Previous<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.raw.as_ref().map(Bytes::len);
        f.debug_struct("Previous").field("key", &self.key).field("bytes", &bytes).finish_non_exhaustive()
    }
}
