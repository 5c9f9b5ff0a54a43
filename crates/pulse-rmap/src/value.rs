//! Values as the replica holds them: decoded once, shared by whoever reads them.

use std::{fmt, ops::Deref, sync::Arc};

use bytes::Bytes;

use crate::codec::Codec;

/// A value of a map, decoded and shared: cloning it copies a pointer, and it never changes.
///
/// Dereferences to `V`. [`Value::raw`] has the bytes as they stand in the map, for a transaction of one's own that
/// expects exactly this value.
pub struct Value<V>(Arc<Decoded<V>>);

struct Decoded<V> {
    value: V,
    raw: Bytes,
}

impl<V> Value<V> {
    /// The value as it stands in the map, encoded.
    #[must_use]
    pub fn raw(&self) -> &Bytes {
        &self.0.raw
    }
}

impl<V> Clone for Value<V> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<V> Deref for Value<V> {
    type Target = V;

    fn deref(&self) -> &V {
        &self.0.value
    }
}

impl<V> AsRef<V> for Value<V> {
    fn as_ref(&self) -> &V {
        self
    }
}

impl<V: PartialEq> PartialEq for Value<V> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<V: Eq> Eq for Value<V> {}

impl<V: fmt::Debug> fmt::Debug for Value<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<V: fmt::Display> fmt::Display for Value<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// What a key holds in the replica.
pub(crate) enum Slot<V> {
    Readable(Value<V>),
    /// The bytes are not a `V`. Behind a pointer, because slots are many and such values are few.
    Unreadable(Arc<Bytes>),
}

impl<V> Clone for Slot<V> {
    fn clone(&self) -> Self {
        match self {
            Self::Readable(value) => Self::Readable(value.clone()),
            Self::Unreadable(raw) => Self::Unreadable(Arc::clone(raw)),
        }
    }
}

impl<V> Slot<V> {
    /// Decodes. The bytes are copied: those of the network are often a slice of a buffer that they would keep alive.
    pub(crate) fn new(codec: &Codec<V>, map: &dyn fmt::Display, key: &str, raw: &[u8]) -> Self {
        let copy = Bytes::copy_from_slice(raw);
        match codec.decode(&copy) {
            Ok(value) => Self::Readable(Value(Arc::new(Decoded { value, raw: copy }))),
            Err(error) => {
                tracing::warn!(%map, key = excerpt(key), %error, "skipped a value that does not decode");
                Self::Unreadable(Arc::new(copy))
            }
        }
    }

    pub(crate) fn value(&self) -> Option<&Value<V>> {
        match self {
            Self::Readable(value) => Some(value),
            Self::Unreadable(_) => None,
        }
    }

    pub(crate) fn into_value(self) -> Option<Value<V>> {
        match self {
            Self::Readable(value) => Some(value),
            Self::Unreadable(_) => None,
        }
    }

    pub(crate) fn raw(&self) -> &Bytes {
        match self {
            Self::Readable(value) => value.raw(),
            Self::Unreadable(raw) => raw,
        }
    }
}

/// The beginning of a key, for logs and errors: a key may be as long as the limits allow.
pub(crate) fn excerpt(key: &str) -> &str {
    let end = key.char_indices().nth(64).map_or(key.len(), |(end, _)| end);
    &key[..end]
}
