//! Waiting for the replica.

use std::{fmt, time::Duration};

use pulse_core::{MapId, Version};
use tokio::time::timeout;

use super::Map;
use crate::{
    Error,
    shared::{Link, Status, Watcher},
};

/// How soon [`Map::wait_for`] asks again whether the life of the map that it waits for goes on. Nothing else would tell
/// it: a replica that never saw that life does not notice its end either, and the answer may have been an error.
const ASK_AGAIN: Duration = Duration::from_secs(1);

impl<V: Send + Sync + 'static> Map<V> {
    /// Waits until the replica shows a version or a later one: with the version that a write returned, it gives
    /// read-your-writes. `None` (the map did not exist) waits for nothing.
    ///
    /// It waits for as long as the replica is cut off; put a time-out around it where that matters. If an asynchronous
    /// failover undid the write, later writes may take its revision: then this returns although the write is lost, and
    /// only a look at the key tells.
    ///
    /// # Errors
    ///
    /// [`Error::VersionGone`] if the map was destroyed or lost since, so that the version will never come, and
    /// [`Error::Closed`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn wait_for(&self, version: impl Into<Option<Version>>) -> Result<(), Error> {
        let Some(version) = version.into() else { return Ok(()) };
        let mut status = self.inner.shared.watch();
        loop {
            let link = status.look().link;
            let same_life = match self.version() {
                Some(at) if at.includes(&version) => return Ok(()),
                _ if link == Link::Closed => return Err(self.closed()),
                at => at.is_some_and(|at| at.incarnation == version.incarnation),
            };
            if same_life {
                status.changed().await;
            } else {
                // The replica shows another life of the map. Only the backend knows whether it is the earlier one.
                self.ensure_alive(version).await?;
                let _ = timeout(ASK_AGAIN, status.changed()).await;
            }
        }
    }

    /// Fails if the backend is certain that the version's life of the map is over.
    async fn ensure_alive(&self, version: Version) -> Result<(), Error> {
        match self.inner.client.backend().map_version(self.id()).await {
            Ok(server) if server.is_none_or(|server| server.incarnation != version.incarnation) => {
                Err(Error::VersionGone { map: self.id().clone(), version })
            }
            // An error says nothing of the version.
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Waits until the replica [is synced](Map::is_synced).
    ///
    /// # Errors
    ///
    /// [`Error::Closed`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn wait_synced(&self) -> Result<(), Error> {
        let mut status = self.inner.shared.watch();
        match status.wait_for(|status| !matches!(status.link, Link::Behind(_))).await.link {
            Link::Synced => Ok(()),
            Link::Behind(_) | Link::Closed => Err(self.closed()),
        }
    }

    /// A notification that the map has changed, for whoever wants to look at it again rather than follow each change.
    #[must_use]
    pub fn changed(&self) -> Changed {
        let mut status = self.inner.shared.watch();
        let seen = status.look().published;
        Changed { map: self.id().clone(), status, seen }
    }
}

/// Tells that a map has changed, once for any number of changes since it last told. See [`Map::changed`].
pub struct Changed {
    map: MapId,
    status: Watcher<Status>,
    seen: u64,
}

impl Changed {
    /// Waits until the map has changed since this was made or last returned; take a [`Map::snapshot`] then. A commit
    /// counts as a change also if it leaves every key as it was, as a clear of an empty map does. It may also return
    /// without a change after the map was read again.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] once the map is closed or dropped and no change is left to tell of.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub async fn wait(&mut self) -> Result<(), Error> {
        let seen = self.seen;
        let news = self.status.wait_for(|status| status.published != seen || status.link == Link::Closed).await;
        if news.published == seen {
            return Err(Error::Closed { map: self.map.clone() });
        }
        self.seen = news.published;
        Ok(())
    }
}

impl fmt::Debug for Changed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Changed").field("map", &self.map).finish_non_exhaustive()
    }
}
