//! Joining a map.

use std::{fmt, marker::PhantomData, sync::Arc};

use pulse_core::{Client, Scope};
use serde::{Serialize, de::DeserializeOwned};
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
    change_buffer: usize,
    values: PhantomData<fn() -> V>,
}

impl<V: Send + Sync + 'static> MapBuilder<V> {
    pub(super) fn new(name: String) -> Self {
        Self { name, scope: None, change_buffer: CHANGE_BUFFER, values: PhantomData }
    }

    /// Sets the scope that the map belongs to. Maps and streams of one scope can be changed in one transaction. Default:
    /// a scope with the name of the map.
    pub fn scope(mut self, scope: Scope) -> Self {
        self.scope = Some(scope);
        self
    }

    /// Sets how many changes may wait for each subscriber before it counts as lagging. Default 4,096.
    pub fn change_buffer(mut self, changes: usize) -> Self {
        self.change_buffer = changes;
        self
    }

    /// Joins the map: returns once the replica has its whole content. A map that does not exist yet is an empty one.
    ///
    /// Values are encoded as MessagePack; structs as maps from field names to values, so that a field that has a default
    /// can be added while programs that do not know it still run.
    ///
    /// # Errors
    ///
    /// [`Error::Map`] if the name is invalid or the backend fails, and [`Error::Unsettled`] if the map changes in ways
    /// that keep it from being read. Nothing is left behind then.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves nothing behind.
    pub async fn join(self, client: &Client) -> Result<Map<V>, Error>
    where
        V: Serialize + DeserializeOwned,
    {
        let named = |source| Error::Map { map: self.name.clone(), source: Box::new(source) };
        let scope = self.scope.map_or_else(|| Scope::new(&self.name), Ok).map_err(named)?;
        let id = scope.map(&self.name).map_err(named)?;
        let codec = Codec::message_pack();
        let replicator = Replicator::start(client, id.clone(), codec).await?;
        let (shared, cancel, tasks) = (replicator.shared(), replicator.cancel(), TaskTracker::new());
        tasks.spawn(replicator.run());
        tasks.close();
        let (client, change_buffer) = (client.clone(), self.change_buffer);
        Ok(Map { inner: Arc::new(Inner { id, client, codec, change_buffer, shared, cancel, tasks }) })
    }
}

impl<V> fmt::Debug for MapBuilder<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MapBuilder")
            .field("name", &self.name)
            .field("scope", &self.scope)
            .field("change_buffer", &self.change_buffer)
            .finish()
    }
}
