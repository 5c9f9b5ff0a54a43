//! Writing single keys.

use std::sync::Arc;

use bytes::Bytes;
use pulse_core::{Binding, Transaction};

use super::{Deleted, Map, Set, commit::owned};
use crate::{Error, value::excerpt};

impl<V: Send + Sync + 'static> Map<V> {
    /// Sets a key. Keys are arbitrary non-empty strings, in whatever form the caller has them (`&str`, `String`,
    /// `&String`, `Arc<str>`, …); the sizes that are accepted are those of the client's [`Limits`](crate::Limits).
    ///
    /// Returns once the backend has committed it. The local replica may show it a moment later: wait for the returned
    /// version with [`Map::wait_for`] to read what was written, or use [`Map::set_and_wait`].
    ///
    /// # Errors
    ///
    /// [`Error::Encode`], [`Error::Closed`], and [`Error::Key`] with the backend's error. Where
    /// [`Error::is_outcome_unknown`] says so, the value may have been set all the same.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the key is either set or not.
    pub async fn set(&self, key: impl AsRef<str>, value: &V) -> Result<Set<V>, Error> {
        let key = owned(key);
        let put = self.transaction().put(self.name(), Arc::clone(&key), self.encode(value)?);
        self.commit_set(key, put).await
    }

    /// Sets a key and waits until the local replica shows it, or what was written later.
    ///
    /// # Errors
    ///
    /// Those of [`Map::set`] and [`Map::wait_for`]; after one of the latter, the key was set.
    ///
    /// # Cancel safety
    ///
    /// As of [`Map::set`].
    pub async fn set_and_wait(&self, key: impl AsRef<str>, value: &V) -> Result<Set<V>, Error> {
        let set = self.set(key, value).await?;
        self.wait_for(set.version).await?;
        Ok(set)
    }

    /// Sets a key that lives no longer than its binding: a [`Duration`](std::time::Duration) from now, by the server's
    /// clock, or the life of a [`Session`](crate::Session) and so of this process. Its end reaches every replica as a
    /// deletion. Setting the key again, in whatever way, replaces the binding; [`Map::increment`] and the operations on
    /// lists keep it.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use pulse_rmap::{Map, Session};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let client = pulse_rmap::connect("memory:").await?;
    /// let services: Map<String> = Map::builder("services").join(&client).await?;
    /// let session = Session::open(&client, services.id().scope(), Duration::from_secs(10)).await?;
    /// services.set_bound("api-1", &"10.0.0.7:80".to_owned(), &session).await?; // until the process dies
    /// services.set_bound("hint", &"warm".to_owned(), Duration::from_secs(60)).await?; // for a minute
    /// # session.close().await?; services.close().await; client.close().await;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`Map::set`], and [`Error::Key`] with [`LeaseLost`](pulse_core::Error::LeaseLost) if the session is
    /// over, or with [`OtherScope`](pulse_core::Error::OtherScope) if it is one of another scope; nothing was set then.
    ///
    /// # Cancel safety
    ///
    /// As of [`Map::set`].
    pub async fn set_bound(
        &self,
        key: impl AsRef<str>,
        value: &V,
        binding: impl Into<Binding>,
    ) -> Result<Set<V>, Error> {
        let key = owned(key);
        let put = self.transaction().put_bound(self.name(), Arc::clone(&key), self.encode(value)?, binding.into());
        self.commit_set(key, put).await
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
    pub async fn delete(&self, key: impl AsRef<str>) -> Result<Deleted<V>, Error> {
        let key = owned(key);
        let delete = self.transaction().delete(self.name(), Arc::clone(&key));
        self.commit_deletion(key, delete).await
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

    /// Decodes a value as the map does: one that [`Error::found`] or [`Map::get_raw`] has, for example.
    ///
    /// # Errors
    ///
    /// [`Error::Decode`].
    pub fn decode(&self, key: &str, raw: &Bytes) -> Result<V, Error> {
        let (map, key) = (self.id(), excerpt(key));
        let decoded = self.inner.codec.decode(raw);
        decoded.map_err(|source| Error::Decode { map: map.clone(), key: key.to_owned(), source })
    }

    /// Commits a transaction whose first write puts the key.
    pub(super) async fn commit_set(&self, key: Arc<str>, put: Transaction) -> Result<Set<V>, Error> {
        let committed = self.commit(Some(&key), put).await?;
        let version = self.certain_version(&key, &committed)?;
        Ok(Set { version, previous: self.previous(&key, &committed) })
    }

    /// Commits a transaction whose first write deletes the key.
    pub(super) async fn commit_deletion(&self, key: Arc<str>, delete: Transaction) -> Result<Deleted<V>, Error> {
        let committed = self.commit(Some(&key), delete).await?;
        Ok(Deleted { version: self.version_of(&committed), previous: self.previous(&key, &committed) })
    }
}
