//! Several writes to a map, and conditions on it, in one transaction.

use std::{fmt, sync::Arc};

use pulse_core::{Binding, Committed, NewEvent, StreamId, Transaction, Version};

use super::Map;
use crate::Error;

/// Writes and conditions that take effect together, or not at all. From [`Map::batch`].
///
/// ```
/// # use pulse_rmap::Map;
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let client = pulse_rmap::connect("memory:").await?;
/// let accounts: Map<u64> = Map::builder("accounts").join(&client).await?;
/// accounts.batch().set("ann", &50).set("bob", &0).commit().await?;
/// let moved = accounts.batch().expect("ann", &50).expect("bob", &0).set("ann", &20).set("bob", &30).commit().await?;
/// accounts.wait_for(moved).await?;
/// assert_eq!((accounts.get("ann").as_deref(), accounts.get("bob").as_deref()), (Some(&20), Some(&30)));
/// # accounts.close().await; client.close().await;
/// # Ok(()) }
/// ```
#[must_use = "a batch does nothing until it is committed"]
pub struct Batch<'a, V> {
    map: &'a Map<V>,
    /// An error in place of the first value that cannot be encoded.
    transaction: Result<Transaction, Error>,
}

impl<V: Send + Sync + 'static> Map<V> {
    /// Begins a batch: several writes to this map, under conditions if need be, that take effect together.
    pub fn batch(&self) -> Batch<'_, V> {
        Batch { map: self, transaction: Ok(self.transaction()) }
    }
}

impl<V: Send + Sync + 'static> Batch<'_, V> {
    /// Sets a key.
    pub fn set(self, key: impl AsRef<str>, value: &V) -> Self {
        self.set_bound(key, value, Binding::Permanent)
    }

    /// Sets a key that lives no longer than its binding; see [`Map::set_bound`].
    pub fn set_bound(self, key: impl AsRef<str>, value: &V, binding: impl Into<Binding>) -> Self {
        let value = self.map.encode(value);
        self.and(|transaction, map| Ok(transaction.put_bound(map, key.as_ref(), value?, binding.into())))
    }

    /// Deletes a key.
    pub fn delete(self, key: impl AsRef<str>) -> Self {
        self.and(|transaction, map| Ok(transaction.delete(map, key.as_ref())))
    }

    /// Deletes all keys.
    pub fn clear(self) -> Self {
        self.and(|transaction, map| Ok(transaction.clear(map)))
    }

    /// Makes it depend on a key that has this value; compares as [`Map::compare_and_set`] does.
    pub fn expect(self, key: impl AsRef<str>, value: &V) -> Self {
        let value = self.map.encode(value);
        self.and(|transaction, map| Ok(transaction.expect_equals(map, key.as_ref(), value?)))
    }

    /// Makes it depend on a key that is absent.
    pub fn expect_absent(self, key: impl AsRef<str>) -> Self {
        self.and(|transaction, map| Ok(transaction.expect_absent(map, key.as_ref())))
    }

    /// Makes it depend on a key that is there, whatever its value.
    pub fn expect_present(self, key: impl AsRef<str>) -> Self {
        self.and(|transaction, map| Ok(transaction.expect_present(map, key.as_ref())))
    }

    /// Makes it depend on the version of the whole map: nobody has changed anything since a
    /// [`Snapshot`](crate::Snapshot) of that version. `None`: the map does not exist.
    pub fn expect_version(self, version: Option<Version>) -> Self {
        self.and(|transaction, map| Ok(transaction.expect_version(map, version)))
    }

    /// Appends an event to a stream of the map's scope: together with the writes, or not at all. A stream of another
    /// scope is refused at the commit, with [`OtherScope`](pulse_core::Error::OtherScope).
    ///
    /// ```
    /// # use pulse_rmap::{Map, NewEvent, Scope};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let client = pulse_rmap::connect("memory:").await?;
    /// let shop = Scope::new("shop")?;
    /// let orders: Map<u32> = Map::builder("orders").scope(shop.clone()).join(&client).await?;
    /// let log = shop.stream("log")?; // for readers: `EventStream::in_scope(&client, &shop, "log")`
    /// orders.batch().set("7", &1).append_event(&log, NewEvent::new("placed", "order 7")).commit().await?;
    /// # orders.close().await; client.close().await;
    /// # Ok(()) }
    /// ```
    pub fn append_event(self, stream: &StreamId, event: NewEvent) -> Self {
        self.and(|transaction, _| {
            let transaction = transaction.within(stream.scope(), format_args!("stream {stream}"));
            Ok(transaction.append(Arc::clone(stream.name()), event))
        })
    }

    /// Adds whatever a [`Transaction`] of the map's scope can do. The closure returns the transaction that it is given.
    ///
    /// ```
    /// # use pulse_rmap::Map;
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let client = pulse_rmap::connect("memory:").await?;
    /// # let map: Map<u16> = Map::builder("ports").join(&client).await?;
    /// map.batch().set("http", &80).with(|transaction| transaction.add("statistics", "sets", 1)).commit().await?;
    /// # map.close().await; client.close().await;
    /// # Ok(()) }
    /// ```
    pub fn with(self, add: impl FnOnce(Transaction) -> Transaction) -> Self {
        let map = self.map.id();
        self.and(|transaction, _| Ok(add(transaction).within(map.scope(), format_args!("map {map}"))))
    }

    /// Commits it, and returns the version of the map that shows it, `None` if the map does not exist or the batch
    /// writes nothing to it.
    ///
    /// # Errors
    ///
    /// [`Error::Conflict`] if a condition does not hold; nothing was changed then. [`Error::Encode`],
    /// [`Error::Closed`], and [`Error::Map`] with the backend's error. Where [`Error::is_outcome_unknown`] says so, it
    /// may have taken effect all the same.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, either all of it took effect or nothing.
    pub async fn commit(self) -> Result<Option<Version>, Error> {
        let map = self.map;
        Ok(map.version_of(&self.commit_detailed().await?))
    }

    /// Commits it, and returns what each write did, in order.
    ///
    /// # Errors
    ///
    /// Those of [`Batch::commit`].
    ///
    /// # Cancel safety
    ///
    /// As of [`Batch::commit`].
    pub async fn commit_detailed(self) -> Result<Committed, Error> {
        self.map.commit(None, self.transaction?).await
    }

    fn and(mut self, add: impl FnOnce(Transaction, Arc<str>) -> Result<Transaction, Error>) -> Self {
        self.transaction = self.transaction.and_then(|transaction| add(transaction, self.map.name()));
        self
    }
}

impl<V> fmt::Debug for Batch<'_, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch").field("transaction", &self.transaction).finish_non_exhaustive()
    }
}
