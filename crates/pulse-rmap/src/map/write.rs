//! Writing to a map.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use pulse_core::{Committed, MapId, Transaction, Version};

use super::Map;
use crate::{Error, codec::Codec, value::excerpt};

/// What [`Map::set`] did.
#[derive(Debug)]
#[non_exhaustive]
pub struct Set<V> {
    /// The version of the map that has the new value; see [`Map::wait_for`].
    pub version: Version,
    /// What the key had before.
    pub previous: Previous<V>,
}

/// What [`Map::delete`] did.
#[derive(Debug)]
#[non_exhaustive]
pub struct Deleted<V> {
    /// The version of the map that lacks the key; see [`Map::wait_for`]. `None`: the map does not exist.
    pub version: Option<Version>,
    /// What the key had before.
    pub previous: Previous<V>,
}

/// What a key had before it was written, decoded only when asked for.
pub struct Previous<V> {
    map: MapId,
    key: Arc<str>,
    raw: Option<Bytes>,
    codec: Codec<V>,
}

impl<V> Previous<V> {
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

impl<V: Send + Sync + 'static> Map<V> {
    /// Sets a key. Keys are arbitrary non-empty strings; the sizes that are accepted are those of the client's
    /// [`Limits`](crate::Limits).
    ///
    /// Returns once the backend has committed it. The local replica may show it a moment later: wait for the returned
    /// version with [`Map::wait_for`] to read what was written.
    ///
    /// # Errors
    ///
    /// [`Error::Encode`], [`Error::Closed`], and [`Error::Key`] with the backend's error. Where
    /// [`Error::is_outcome_unknown`] says so, the value may have been set all the same.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the key is either set or not.
    pub async fn set(&self, key: impl Into<Arc<str>>, value: &V) -> Result<Set<V>, Error> {
        let key = key.into();
        let value = self.encode(value)?;
        let name = Arc::clone(self.id().name());
        let put = self.transaction().put(Arc::clone(&name), Arc::clone(&key), value);
        let committed = self.commit(&key, put).await?;
        let previous = self.previous(&key, &committed);
        let version = committed.version(&name).ok_or_else(|| self.senseless(&key, "a set without a version"))?;
        Ok(Set { version, previous })
    }

    /// Deletes a key. It is no error, and no change, if the key is absent.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`], and [`Error::Key`] with the backend's error. Where [`Error::is_outcome_unknown`] says so, the
    /// key may have been deleted all the same.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the key is either deleted or not.
    pub async fn delete(&self, key: impl Into<Arc<str>>) -> Result<Deleted<V>, Error> {
        let key = key.into();
        let name = Arc::clone(self.id().name());
        let delete = self.transaction().delete(Arc::clone(&name), Arc::clone(&key));
        let committed = self.commit(&key, delete).await?;
        Ok(Deleted { version: committed.version(&name), previous: self.previous(&key, &committed) })
    }

    /// Encodes a value as the map does, for [`Transaction`]s of one's own.
    ///
    /// ```
    /// # use pulse_rmap::{Map, Transaction};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let client = pulse_rmap::connect("memory:").await?;
    /// let map: Map<u16> = Map::builder("ports").join(&client).await?;
    /// let name = map.id().name();
    /// let both = Transaction::new(map.id().scope())
    ///     .expect_absent(name.clone(), "http")
    ///     .put(name.clone(), "http", map.encode(&80)?)
    ///     .put(name.clone(), "https", map.encode(&443)?);
    /// let committed = client.commit(both).await?;
    /// map.wait_for(committed.version(name)).await?;
    /// assert_eq!(map.len(), 2);
    /// # map.close().await; client.close().await;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Encode`].
    pub fn encode(&self, value: &V) -> Result<Bytes, Error> {
        self.inner.codec.encode(value).map_err(|source| Error::Encode { map: self.id().clone(), source })
    }

    fn transaction(&self) -> Transaction {
        Transaction::new(self.id().scope())
    }

    async fn commit(&self, key: &str, transaction: Transaction) -> Result<Committed, Error> {
        if self.is_closed() {
            return Err(self.closed());
        }
        self.inner.client.commit(transaction).await.map_err(|source| match source {
            pulse_core::Error::Closed => self.closed(),
            source => self.key_error(key, source),
        })
    }

    fn previous(&self, key: &Arc<str>, committed: &Committed) -> Previous<V> {
        let (map, key, raw) = (self.id().clone(), Arc::clone(key), committed.previous(0).cloned());
        Previous { map, key, raw, codec: self.inner.codec }
    }

    fn senseless(&self, key: &str, reason: &str) -> Error {
        let source = pulse_core::Error::Protocol {
            operation: "commit",
            subject: self.id().to_string(),
            reason: reason.to_owned(),
        };
        self.key_error(key, source)
    }

    fn key_error(&self, key: &str, source: pulse_core::Error) -> Error {
        Error::Key { map: self.id().clone(), key: excerpt(key).to_owned(), source: Box::new(source) }
    }
}
