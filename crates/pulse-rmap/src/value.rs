//! Values as the replica holds them: decoded once, shared by whoever reads them.
//!
//! An [`Entry`] is one allocation with the key, the value and, unless the value itself says what its bytes are, those
//! too. A replica has one for each key, so each word counts.

use std::{any::Any, fmt, ops::Deref, sync::Arc};

use bytes::Bytes;

use crate::{
    codec::{Codec, own_bytes},
    trie::Keyed,
};

/// A value of a map, decoded and shared: cloning it copies a pointer, and it never changes.
///
/// Dereferences to `V`. [`Value::raw`] has the bytes as they stand in the map, for a transaction of one's own that
/// expects exactly this value.
pub struct Value<V>(Arc<Entry<V>>);

/// What a key holds in the replica, whether it decodes or not. Users get the value inside only if it does.
pub(crate) struct Slot<V>(Value<V>);

struct Entry<V> {
    key: Arc<str>,
    /// `None`: the bytes are not a `V`.
    value: Option<V>,
    /// `None`: they follow from the value; see [`own_bytes`]. Behind a pointer, so that what needs none pays for one
    /// word.
    raw: Option<Box<Bytes>>,
}

impl<V> Clone for Value<V> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<V> Clone for Slot<V> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<V> Keyed for Slot<V> {
    fn key(&self) -> &str {
        &self.entry().key
    }
}

impl<V: 'static> Slot<V> {
    /// Decodes. Of the bytes nothing is kept but, where it has to be, a copy.
    pub(crate) fn new(codec: &Codec<V>, map: &dyn fmt::Display, key: Arc<str>, raw: &[u8]) -> Self {
        let (value, raw) = match codec.take(raw) {
            Ok((value, raw)) => (Some(value), raw),
            Err((error, raw)) => {
                tracing::warn!(%map, key = excerpt(&key), %error, "skipped a value that does not decode");
                (None, Some(raw))
            }
        };
        Self(Value(Arc::new(Entry { key, value, raw: raw.map(Box::new) })))
    }

    pub(crate) fn raw(&self) -> Bytes {
        self.0.raw()
    }

    /// Whether these are its bytes.
    pub(crate) fn has(&self, bytes: &[u8]) -> bool {
        self.entry().with_bytes(|own| own == bytes)
    }

    /// Whether both have the same bytes.
    pub(crate) fn equals(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0.0, &other.0.0) || other.entry().with_bytes(|bytes| self.has(bytes))
    }
}

impl<V> Slot<V> {
    fn entry(&self) -> &Entry<V> {
        &self.0.0
    }

    pub(crate) fn shared_key(&self) -> &Arc<str> {
        &self.entry().key
    }

    pub(crate) fn value(&self) -> Option<&Value<V>> {
        self.entry().value.is_some().then_some(&self.0)
    }

    pub(crate) fn into_value(self) -> Option<Value<V>> {
        self.entry().value.is_some().then_some(self.0)
    }
}

impl<V: 'static> Entry<V> {
    /// Looks at the bytes. Those that a value has itself are lent: comparing should not copy a text, and a copy of the
    /// handle of bytes would cost them some memory for good.
    fn with_bytes<T>(&self, look: impl FnOnce(&[u8]) -> T) -> T {
        match (&self.raw, &self.value) {
            (Some(raw), _) => look(raw),
            (None, Some(value)) => {
                let any = value as &dyn Any;
                let own = any.downcast_ref::<Bytes>().map(|bytes| &bytes[..]);
                match own.or_else(|| any.downcast_ref::<String>().map(String::as_bytes)) {
                    Some(bytes) => look(bytes),
                    None => look(&own_bytes(value)),
                }
            }
            (None, None) => look(&[]),
        }
    }
}

impl<V: 'static> Value<V> {
    /// The value as it stands in the map, encoded.
    #[must_use]
    pub fn raw(&self) -> Bytes {
        match (&self.0.raw, &self.0.value) {
            (Some(raw), _) => Bytes::clone(raw),
            (None, Some(value)) => own_bytes(value),
            (None, None) => Bytes::new(),
        }
    }
}

impl<V> Deref for Value<V> {
    type Target = V;

    fn deref(&self) -> &V {
        match &self.0.value {
            Some(value) => value,
            // `Slot` gives out nothing else.
            None => unreachable!("a handle of a value that does not decode"),
        }
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

/// The beginning of a key, for logs and errors: a key may be as long as the limits allow.
pub(crate) fn excerpt(key: &str) -> &str {
    let end = key.char_indices().nth(64).map_or(key.len(), |(end, _)| end);
    &key[..end]
}
