//! Writing the map as a whole.

use std::time::Duration;

use pulse_core::{Deadline, Expectation, Transaction};

use super::{Cleared, Map, commit::owned};
use crate::Error;

impl<V: Send + Sync + 'static> Map<V> {
    /// Deletes all keys. The map goes on, with its version and, if it has one, the time at which it expires. Subscribers
    /// get one [`Update::Cleared`](crate::Update::Cleared) and the deletions.
    ///
    /// It works on a [closed](Map::close) handle too, so that what is left over can be cleared away at the end.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] if the client is closed, and [`Error::Map`] with the backend's error. Where [`Error::is_outcome_unknown`] says so, the
    /// keys may have been deleted all the same.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, either all keys were deleted or none.
    pub async fn clear(&self) -> Result<Cleared, Error> {
        self.commit_cleared(self.transaction().clear(self.name())).await
    }

    /// Deletes all keys, provided that each of these keys has that value, or is absent where none is given. Compares as
    /// [`Map::compare_and_set`] does.
    ///
    /// ```
    /// # use pulse_rmap::Map;
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let client = pulse_rmap::connect("memory:").await?;
    /// let steps: Map<u16> = Map::builder("steps").join(&client).await?;
    /// steps.set("build", &1).await?;
    /// let refused = steps.clear_if([("build", Some(&1)), ("deploy", Some(&1))]).await;
    /// assert!(refused.is_err_and(|error| error.is_conflict()));
    /// assert_eq!(steps.clear_if([("build", Some(&1)), ("deploy", None)]).await?.keys, 1);
    /// # steps.close().await; client.close().await;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Conflict`] if one of them is otherwise; [`Error::Encode`]; those of [`Map::clear`].
    ///
    /// # Cancel safety
    ///
    /// As of [`Map::clear`].
    pub async fn clear_if<'a, K: AsRef<str>>(
        &self,
        conditions: impl IntoIterator<Item = (K, Option<&'a V>)>,
    ) -> Result<Cleared, Error> {
        let mut transaction = self.transaction();
        for (key, value) in conditions {
            let (map, key) = (self.name(), owned(key));
            transaction = transaction.expect(match value {
                Some(value) => Expectation::Equals { map, key, value: self.encode(value)? },
                None => Expectation::Absent { map, key },
            });
        }
        self.commit_cleared(transaction.clear(self.name())).await
    }

    /// Removes the map with everything that belongs to it. Replicas become empty; the next write begins a new
    /// incarnation, and they follow it. Subscribers get one [`Update::Cleared`](crate::Update::Cleared) and the deletions.
    ///
    /// It works on a [closed](Map::close) handle too.
    ///
    /// # Errors
    ///
    /// Those of [`Map::clear`].
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the map was either removed or not.
    pub async fn destroy(&self) -> Result<Cleared, Error> {
        self.commit_cleared(self.transaction().destroy_map(self.name())).await
    }

    /// Lets the map expire that long after now, by the server's clock, whatever was set before: it is then removed with
    /// all its keys, everywhere. `None`: never. No effect on a map that does not exist, and none that lasts if a handle of
    /// the map was joined with a lifetime and writes.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`], and [`Error::Map`] with the backend's error.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the time was either set or not.
    pub async fn expire_after(&self, ttl: impl Into<Option<Duration>>) -> Result<(), Error> {
        let deadline = ttl.into().map_or(Deadline::Never, Deadline::Renew);
        let expire = self.transaction().expire_map(self.name(), deadline);
        self.commit_only(None, expire).await?;
        Ok(())
    }

    async fn commit_cleared(&self, transaction: Transaction) -> Result<Cleared, Error> {
        let committed = self.commit_also_closed(None, self.with_lifetime(transaction)).await?;
        Ok(Cleared { version: self.version_of(&committed), keys: committed.count(0).unwrap_or_default() })
    }
}
