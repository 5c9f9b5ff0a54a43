//! Joining a map.

use std::{fmt, sync::Arc, time::Duration};

use pulse_core::{Client, Deadline, MAX_LIFETIME, MIN_LIFETIME, Scope};
use tokio_util::task::TaskTracker;

use super::{Inner, Map};
use crate::{Error, codec::Codec, replicator::Replicator};

/// How many changes may wait for a subscriber unless [`MapBuilder::change_buffer`] says otherwise.
const CHANGE_BUFFER: usize = 4096;

/// Joins a map with options.
#[must_use = "a builder does nothing until it joins"]
pub struct MapBuilder<V> {
    name: String,
    scope: Option<Scope>,
    codec: Codec<V>,
    change_buffer: usize,
    lifetime: Option<Deadline>,
}

impl<V: Send + Sync + 'static> MapBuilder<V> {
    pub(super) fn new(name: String, codec: Codec<V>) -> Self {
        Self { name, scope: None, codec, change_buffer: CHANGE_BUFFER, lifetime: None }
    }

    /// Sets the scope that the map belongs to. Maps and streams of one scope can be changed in one transaction.
    /// Default: a scope with the name of the map.
    pub fn scope(mut self, scope: Scope) -> Self {
        self.scope = Some(scope);
        self
    }

    /// Sets how many changes may wait for each subscriber before it counts as lagging: at least one. Default 4,096.
    pub fn change_buffer(mut self, changes: usize) -> Self {
        self.change_buffer = changes;
        self
    }

    /// Lets the map expire that long after it was first written to through a handle that says so; later writes do not
    /// put it off. It is then removed with all its keys, everywhere, and the next such write begins it anew: a version that
    /// was written to before is [gone](Error::VersionGone) then. From a millisecond to a hundred years, at a resolution of
    /// one millisecond, by the server's clock.
    pub fn expires_after(mut self, ttl: Duration) -> Self {
        self.lifetime = Some(Deadline::IfUnset(ttl));
        self
    }

    /// Lets the map expire that long after it was last written to through a handle that says so. It is then removed with
    /// all its keys, everywhere. From a millisecond to a hundred years, at a resolution of one millisecond, by the server's
    /// clock.
    pub fn expires_unless_written_for(mut self, ttl: Duration) -> Self {
        self.lifetime = Some(Deadline::Renew(ttl));
        self
    }

    /// Joins the map: returns once the replica has its whole content. A map that does not exist yet is an empty one.
    ///
    /// # Errors
    ///
    /// [`Error::Map`] if the name or an option is invalid or the backend fails, and [`Error::Unsettled`] if the map
    /// changes in ways that keep it from being read. Nothing is left behind then.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves nothing behind.
    pub async fn join(self, client: &Client) -> Result<Map<V>, Error> {
        let named = |source| Error::Map { map: self.name.clone(), source: Box::new(source) };
        check(self.change_buffer, self.lifetime).map_err(named)?;
        let scope = self.scope.clone().map_or_else(|| Scope::new(&self.name), Ok).map_err(named)?;
        let id = scope.map(&self.name).map_err(named)?;
        let Self { codec, change_buffer, lifetime, .. } = self;
        let replicator = Replicator::start(client, id.clone(), codec).await?;
        let (shared, cancel, tasks) = (replicator.shared(), replicator.cancel(), TaskTracker::new());
        tasks.spawn(replicator.run());
        tasks.close();
        let client = client.clone();
        Ok(Map { inner: Arc::new(Inner { id, client, codec, change_buffer, lifetime, shared, cancel, tasks }) })
    }
}

/// Refuses what makes no sense before anything is joined, and not when the first write comes.
fn check(change_buffer: usize, lifetime: Option<Deadline>) -> Result<(), pulse_core::Error> {
    let invalid = |option, value, reason| Err(pulse_core::Error::InvalidOption { option, value, reason });
    if change_buffer == 0 {
        return invalid("change_buffer", change_buffer.to_string(), "it must be at least 1");
    }
    let (option, ttl) = match lifetime {
        Some(Deadline::IfUnset(ttl)) => ("expires_after", ttl),
        Some(Deadline::Renew(ttl)) => ("expires_unless_written_for", ttl),
        _ => return Ok(()),
    };
    if (MIN_LIFETIME..=MAX_LIFETIME).contains(&ttl) {
        return Ok(());
    }
    invalid(option, format!("{ttl:?}"), "it must be from a millisecond to a hundred years")
}

impl<V> fmt::Debug for MapBuilder<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MapBuilder")
            .field("name", &self.name)
            .field("scope", &self.scope)
            .field("change_buffer", &self.change_buffer)
            .field("lifetime", &self.lifetime)
            .finish_non_exhaustive()
    }
}
