//! Counters and lists: values that the backend changes in place, so that no change is lost and none waits for another.

use std::sync::Arc;

use bytes::Bytes;
use pulse_core::{Binding, Duplicates, Transaction, Write, WriteResult};

use super::{Counted, Listed, Map, commit::owned};
use crate::{Counter, Error, List};

impl Map<Counter> {
    /// Adds to a counter, exactly, over the whole range of an `i64`; an absent key counts as 0. `by` may be negative.
    ///
    /// ```
    /// # use pulse_rmap::Map;
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let client = pulse_rmap::connect("memory:").await?;
    /// let visits = Map::counters("visits").join(&client).await?;
    /// visits.increment("/", 2).await?;
    /// assert_eq!(visits.increment("/", -1).await?.value, 1);
    /// # visits.close().await; client.close().await;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Key`] with [`WrongValue`](pulse_core::Error::WrongValue) if the sum leaves the range or the key has
    /// something else than a counter, and with the backend's error; [`Error::Closed`]. Where
    /// [`Error::is_outcome_unknown`] says so, it may have been added all the same.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, it was either added or not.
    pub async fn increment(&self, key: impl AsRef<str>, by: i64) -> Result<Counted, Error> {
        self.add(owned(key), by, Binding::Permanent).await
    }

    /// Adds to a counter that ends with its binding: a [`Duration`](std::time::Duration) after the first increment, or
    /// with a [`Session`](crate::Session). The binding counts only if the key is absent: a counter that is there keeps
    /// its own, so that later increments do not put its end off.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use pulse_rmap::Map;
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let client = pulse_rmap::connect("memory:").await?;
    /// // A quota: at most 100 calls of each customer within a minute of the first.
    /// let calls = Map::counters("calls").join(&client).await?;
    /// let allowed = calls.increment_bound("ann", 1, Duration::from_secs(60)).await?.value <= 100;
    /// assert!(allowed);
    /// # calls.close().await; client.close().await;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`Map::increment`], and [`Error::Key`] with [`LeaseLost`](pulse_core::Error::LeaseLost) if the session is
    /// over, or with [`OtherScope`](pulse_core::Error::OtherScope) if it is one of another scope.
    ///
    /// # Cancel safety
    ///
    /// As of [`Map::increment`].
    pub async fn increment_bound(
        &self,
        key: impl AsRef<str>,
        by: i64,
        binding: impl Into<Binding>,
    ) -> Result<Counted, Error> {
        self.add(owned(key), by, binding.into()).await
    }

    async fn add(&self, key: Arc<str>, by: i64, binding: Binding) -> Result<Counted, Error> {
        let add = self.transaction().add_bound(self.name(), Arc::clone(&key), by, binding);
        let committed = self.commit(Some(&key), add).await?;
        let value = committed.counter(0).ok_or_else(|| self.senseless(&key, "an increment without a sum"))?;
        Ok(Counted { version: self.certain_version(&key, &committed)?, value })
    }
}

impl Map<List> {
    /// Appends items to a list, in order; an absent key counts as an empty list.
    ///
    /// ```
    /// # use pulse_rmap::Map;
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let client = pulse_rmap::connect("memory:").await?;
    /// let members = Map::lists("members").join(&client).await?;
    /// members.append("red", ["ann", "bob"]).await?;
    /// let listed = members.append_unique("red", ["bob", "cleo"]).await?;
    /// assert_eq!(listed.list.texts().collect::<Vec<_>>(), ["ann", "bob", "cleo"]);
    /// # members.close().await; client.close().await;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Key`] with [`WrongValue`](pulse_core::Error::WrongValue) if the key has something else than a list,
    /// with [`LimitExceeded`](pulse_core::Error::LimitExceeded) if it would become larger than a value may be, and with
    /// the backend's error; [`Error::Closed`]. Where [`Error::is_outcome_unknown`] says so, the items may have been
    /// appended all the same.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, either all items were appended or none.
    pub async fn append<T: Into<Bytes>>(
        &self,
        key: impl AsRef<str>,
        items: impl IntoIterator<Item = T>,
    ) -> Result<Listed, Error> {
        self.list_append(owned(key), collect(items), Duplicates::Keep).await
    }

    /// Appends those of the items that the list does not have, each once.
    ///
    /// # Errors
    ///
    /// Those of [`Map::append`].
    ///
    /// # Cancel safety
    ///
    /// As of [`Map::append`].
    pub async fn append_unique<T: Into<Bytes>>(
        &self,
        key: impl AsRef<str>,
        items: impl IntoIterator<Item = T>,
    ) -> Result<Listed, Error> {
        self.list_append(owned(key), collect(items), Duplicates::Skip).await
    }

    /// Removes every occurrence of the items from a list. A list that is left empty is deleted with its key.
    ///
    /// # Errors
    ///
    /// Those of [`Map::append`].
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, either all of them were removed or none.
    pub async fn remove_values<T: Into<Bytes>>(
        &self,
        key: impl AsRef<str>,
        items: impl IntoIterator<Item = T>,
    ) -> Result<Listed, Error> {
        let key = owned(key);
        let remove = self.transaction().list_remove(self.name(), Arc::clone(&key), collect(items));
        self.commit_list(key, remove).await
    }

    async fn list_append(&self, key: Arc<str>, items: Vec<Bytes>, duplicates: Duplicates) -> Result<Listed, Error> {
        let append = Write::ListAppend { map: self.name(), key: Arc::clone(&key), items, duplicates };
        self.commit_list(key, self.transaction().write(append)).await
    }

    async fn commit_list(&self, key: Arc<str>, transaction: Transaction) -> Result<Listed, Error> {
        let committed = self.commit(Some(&key), transaction).await?;
        let version = self.version_of(&committed);
        match committed.results.into_iter().next() {
            Some(WriteResult::List { items, changed }) => Ok(Listed { version, list: items.into(), changed }),
            _ => Err(self.senseless(&key, "a change of a list without the list")),
        }
    }
}

fn collect<T: Into<Bytes>>(items: impl IntoIterator<Item = T>) -> Vec<Bytes> {
    items.into_iter().map(Into::into).collect()
}
