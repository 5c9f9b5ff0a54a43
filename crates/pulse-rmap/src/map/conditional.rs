//! Writing a key only if it is as expected.
//!
//! Values are compared as they are stored, byte for byte. Conflicts carry what was found, so that trying again costs
//! one round trip and not two.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use pulse_core::{Binding, Expectation, Found, entropy};

use super::{Deleted, Map, Previous, Set, Updated, commit::owned};
use crate::Error;

/// How many conflicts [`Map::update`] takes before it pauses: by then others are writing the same key all the time.
const EAGER: u32 = 4;
/// The longest pause.
const PAUSE: Duration = Duration::from_millis(50);

impl<V: Send + Sync + 'static> Map<V> {
    /// Sets a key that is absent.
    ///
    /// # Errors
    ///
    /// [`Error::Conflict`] if the key is there, and [`Error::found`] has its value; those of [`Map::set`].
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the key is either set or not.
    pub async fn set_if_absent(&self, key: impl AsRef<str>, value: &V) -> Result<Set<V>, Error> {
        self.set_absent(owned(key), value, Binding::Permanent).await
    }

    /// Sets a key that is absent, for as long as its binding says; see [`Map::set_bound`]. With a
    /// [`Session`](crate::Session) it is a lock that ends with its owner.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use pulse_rmap::{Map, Session};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let client = pulse_rmap::connect("memory:").await?;
    /// let locks: Map<String> = Map::builder("locks").join(&client).await?;
    /// let session = Session::open(&client, locks.id().scope(), Duration::from_secs(10)).await?;
    /// locks.set_if_absent_bound("report", &"node-1".to_owned(), &session).await?;
    /// let taken = locks.set_if_absent_bound("report", &"node-2".to_owned(), &session).await;
    /// assert!(taken.is_err_and(|error| error.is_conflict()));
    /// # session.close().await?; locks.close().await; client.close().await;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Conflict`] if the key is there, and [`Error::found`] has its value; those of [`Map::set_bound`].
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the key is either set or not.
    pub async fn set_if_absent_bound(
        &self,
        key: impl AsRef<str>,
        value: &V,
        binding: impl Into<Binding>,
    ) -> Result<Set<V>, Error> {
        self.set_absent(owned(key), value, binding.into()).await
    }

    async fn set_absent(&self, key: Arc<str>, value: &V, binding: Binding) -> Result<Set<V>, Error> {
        let (name, value) = (self.name(), self.encode(value)?);
        let put = self.transaction().expect_absent(Arc::clone(&name), Arc::clone(&key));
        self.commit_set(Arc::clone(&key), put.put_bound(name, key, value, binding)).await
    }

    /// Sets a key that has the expected value.
    ///
    /// The key then has no [binding](Map::set_bound), whatever it had before; a [`Batch`](crate::Batch) can do the same
    /// with one.
    ///
    /// Encoded values are compared. A type whose equal values are not always encoded alike, as one with a `HashMap`, is
    /// for [`Map::update`] instead.
    ///
    /// # Errors
    ///
    /// [`Error::Conflict`] if the key is absent or has another value, which [`Error::found`] has; those of
    /// [`Map::set`].
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the key is either set or not.
    pub async fn compare_and_set(&self, key: impl AsRef<str>, expected: &V, value: &V) -> Result<Set<V>, Error> {
        let (key, name) = (owned(key), self.name());
        let (expected, value) = (self.encode(expected)?, self.encode(value)?);
        let put = self.transaction().expect_equals(Arc::clone(&name), Arc::clone(&key), expected);
        self.commit_set(Arc::clone(&key), put.put(name, key, value)).await
    }

    /// Deletes a key that has the expected value; compares as [`Map::compare_and_set`] does.
    ///
    /// # Errors
    ///
    /// [`Error::Conflict`] if the key is absent or has another value, which [`Error::found`] has; those of
    /// [`Map::delete`].
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the key is either deleted or not.
    pub async fn compare_and_delete(&self, key: impl AsRef<str>, expected: &V) -> Result<Deleted<V>, Error> {
        let (key, name, expected) = (owned(key), self.name(), self.encode(expected)?);
        let delete = self.transaction().expect_equals(Arc::clone(&name), Arc::clone(&key), expected);
        self.commit_deletion(Arc::clone(&key), delete.delete(name, key)).await
    }

    /// Replaces what a key has by what `change` makes of it: `None` stands for an absent key, before and after. Where
    /// somebody else changed the key meanwhile, `change` is called again with the value that is there now, until it
    /// succeeds. So no update is lost, whoever else updates the same key.
    ///
    /// The key then has no [binding](Map::set_bound), whatever it had before: what was to end with a session or a time
    /// stays. To keep it to that, use a [`Batch`](crate::Batch) with [`expect`](crate::Batch::expect) and
    /// [`set_bound`](crate::Batch::set_bound).
    ///
    /// The first call gets what the local replica has, which costs no round trip; so do not draw conclusions from the
    /// arguments before this returns.
    ///
    /// ```
    /// # use pulse_rmap::Map;
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let client = pulse_rmap::connect("memory:").await?;
    /// let scores: Map<Vec<u32>> = Map::builder("scores").join(&client).await?;
    /// for score in [7, 9] {
    ///     let with = |old: Option<&Vec<u32>>| Some(old.into_iter().flatten().copied().chain([score]).collect());
    ///     scores.update("alice", with).await?;
    /// }
    /// let emptied = scores.update("alice", |_| None).await?;
    /// assert_eq!(emptied.previous.value()?, Some(vec![7, 9]));
    /// # scores.close().await; client.close().await;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Decode`] if the key has a value that is no `V`; those of [`Map::set`]. An attempt of unknown outcome
    /// ends it, because repeating could apply the change twice.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the key is either updated or not.
    pub async fn update(
        &self,
        key: impl AsRef<str>,
        mut change: impl FnMut(Option<&V>) -> Option<V>,
    ) -> Result<Updated<V>, Error> {
        let key = owned(key);
        let mut current = self.get_raw(&key);
        let mut conflicts = 0;
        loop {
            let value = match (&current, self.get(&key)) {
                (None, _) => change(None),
                (Some(raw), Some(known)) if known.raw() == *raw => change(Some(&known)),
                (Some(raw), _) => change(Some(&self.decode(&key, raw)?)),
            };
            match self.replace(&key, current.clone(), value.as_ref()).await {
                Ok((version, previous)) => return Ok(Updated { version, previous, value }),
                Err(Error::Conflict { map, failed }) => match failed.found {
                    Found::Value(found) => current = found,
                    _ => return Err(Error::Conflict { map, failed }),
                },
                Err(error) => return Err(error),
            }
            conflicts += 1;
            if conflicts > EAGER {
                tokio::time::sleep(PAUSE.mul_f64(entropy::fraction())).await;
            }
        }
    }

    /// Writes what takes the place of exactly these bytes.
    async fn replace(
        &self,
        key: &Arc<str>,
        current: Option<Bytes>,
        value: Option<&V>,
    ) -> Result<(Option<pulse_core::Version>, Previous<V>), Error> {
        let (map, name) = (self.name(), Arc::clone(key));
        let absent = current.is_none();
        let expected = match current {
            Some(value) => Expectation::Equals { map, key: name, value },
            None => Expectation::Absent { map, key: name },
        };
        let transaction = self.transaction().expect(expected);
        let transaction = match value {
            Some(value) => transaction.put(self.name(), Arc::clone(key), self.encode(value)?),
            // A deletion, also of what is absent: so it is the backend that says that it is.
            None => transaction.delete(self.name(), Arc::clone(key)),
        };
        let committed = self.commit(Some(key), transaction).await?;
        let previous = self.previous(key, &committed);
        debug_assert_eq!(previous.existed(), !absent, "the expectation held");
        Ok((self.version_of(&committed), previous))
    }
}
