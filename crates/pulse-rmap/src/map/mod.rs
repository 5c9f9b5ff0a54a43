//! The handle that users hold.

mod batch;
mod builder;
mod collection;
mod commit;
mod conditional;
mod outcome;
mod wait;
mod whole;
mod write;

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use pulse_core::{Client, Deadline, MapId, Version};
use serde::{Serialize, de::DeserializeOwned};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::{
    batch::Batch,
    builder::MapBuilder,
    outcome::{Cleared, Counted, Deleted, Listed, Previous, Set, Updated},
    wait::Changed,
};
use crate::{
    Changes, Counter, Error, List, Packed, Snapshot, Value,
    codec::Codec,
    shared::{Link, Shared},
};

/// A replicated map from strings to `V`. Cloning is cheap, and clones share the replica.
///
/// Reads come from the local replica, take no lock and never wait. Writes go to the backend and return once they are
/// committed there; the replica shows them when the backend's feed brings them, which [`Map::wait_for`] waits for.
///
/// The replica stops when the map is [closed](Map::close), when the last clone is dropped, or when the client is
/// closed.
///
/// ```
/// # use pulse_rmap::Map;
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let client = pulse_rmap::connect("memory:").await?;
/// let ports: Map<u16> = Map::builder("ports").join(&client).await?;
/// let set = ports.set("http", &80).await?;
/// ports.wait_for(set.version).await?;
/// assert_eq!(ports.get("http").as_deref(), Some(&80));
/// # ports.close().await; client.close().await;
/// # Ok(()) }
/// ```
pub struct Map<V> {
    inner: Arc<Inner<V>>,
}

struct Inner<V> {
    id: MapId,
    client: Client,
    codec: Codec<V>,
    /// How many changes may wait for a subscriber.
    change_buffer: usize,
    /// What every write does to the time at which the map expires.
    lifetime: Option<Deadline>,
    /// Filled by the task.
    shared: Arc<Shared<V>>,
    /// Ends the task.
    cancel: CancellationToken,
    /// Holds the task, for closing to wait for.
    tasks: TaskTracker,
}

impl<V> Drop for Inner<V> {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

impl<V: Serialize + DeserializeOwned + Send + Sync + 'static> Map<V> {
    /// Begins to join a map. Its name is an arbitrary non-empty string of at most 1,024 bytes.
    ///
    /// Values are encoded as MessagePack; structs as maps from field names to values, so that a field that has a
    /// default can be added while programs that do not know it still run. Arrays and maps in a value may stand inside
    /// each other up to 128 deep.
    pub fn builder(name: impl Into<String>) -> MapBuilder<V> {
        MapBuilder::new(name.into(), Codec::message_pack())
    }
}

impl<V: Packed> Map<V> {
    /// Begins to join a map whose values have a form of their own, for other formats than MessagePack, and for maps so
    /// large that each byte of an entry counts.
    pub fn packed(name: impl Into<String>) -> MapBuilder<V> {
        MapBuilder::new(name.into(), Codec::packed())
    }
}

impl Map<Bytes> {
    /// Begins to join a map whose values are byte strings, stored as they are. It reads the values of any map.
    ///
    /// ```
    /// # use pulse_rmap::Map;
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let client = pulse_rmap::connect("memory:").await?;
    /// let blobs = Map::raw("blobs").join(&client).await?;
    /// blobs.set_and_wait("logo", &b"\x89PNG"[..].into()).await?;
    /// assert_eq!(blobs.get("logo").unwrap().len(), 4);
    /// # blobs.close().await; client.close().await;
    /// # Ok(()) }
    /// ```
    pub fn raw(name: impl Into<String>) -> MapBuilder<Bytes> {
        MapBuilder::new(name.into(), Codec::raw())
    }
}

impl Map<String> {
    /// Begins to join a map whose values are strings, stored as they are, so that people and other programs can read
    /// them in the server. [`Map::builder`] would store them as MessagePack.
    pub fn text(name: impl Into<String>) -> MapBuilder<String> {
        MapBuilder::new(name.into(), Codec::text())
    }
}

impl Map<Counter> {
    /// Begins to join a map of counters; see [`Map::increment`].
    pub fn counters(name: impl Into<String>) -> MapBuilder<Counter> {
        MapBuilder::new(name.into(), Codec::counter())
    }
}

impl Map<List> {
    /// Begins to join a map of lists; see [`Map::append`].
    pub fn lists(name: impl Into<String>) -> MapBuilder<List> {
        MapBuilder::new(name.into(), Codec::list())
    }
}

impl<V: Send + Sync + 'static> Map<V> {
    /// The map's scope and name, for transactions of one's own.
    #[must_use]
    pub fn id(&self) -> &MapId {
        &self.inner.id
    }

    /// The value of a key, `None` if the key is absent or its value does not decode.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<Value<V>> {
        self.inner.shared.view().content.get(key).cloned()
    }

    /// The encoded value of a key, whether it decodes or not.
    #[must_use]
    pub fn get_raw(&self, key: &str) -> Option<Bytes> {
        self.inner.shared.view().content.get_raw(key)
    }

    /// Whether the key has a value that decodes.
    #[must_use]
    pub fn contains_key(&self, key: &str) -> bool {
        self.inner.shared.view().content.get(key).is_some()
    }

    /// How many keys have a value that decodes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inner.shared.view().content.len()
    }

    /// Whether no key has a value that decodes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many keys have a value that does not decode. [`Map::get_raw`] has their bytes.
    #[must_use]
    pub fn unreadable(&self) -> usize {
        self.inner.shared.view().content.unreadable()
    }

    /// The keys with a value that decodes, as of one moment, in no particular order.
    #[must_use]
    pub fn keys(&self) -> Vec<Arc<str>> {
        self.snapshot().keys().cloned().collect()
    }

    /// The version that the replica shows; `None`: the map does not exist.
    #[must_use]
    pub fn version(&self) -> Option<Version> {
        self.inner.shared.version()
    }

    /// The whole content at one version. Costs the same whatever the size of the map.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot<V> {
        self.inner.shared.snapshot()
    }

    /// Subscribes to every change from now on; [`Changes::only`] leaves out those of other keys.
    pub fn subscribe(&self) -> Changes<V> {
        self.snapshot_and_subscribe().1
    }

    /// Takes a snapshot and subscribes to every change after it, with nothing lost or repeated between the two.
    ///
    /// ```
    /// # use pulse_rmap::{Map, Update};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let client = pulse_rmap::connect("memory:").await?;
    /// # let map: Map<u16> = Map::builder("ports").join(&client).await?;
    /// let (snapshot, mut changes) = map.snapshot_and_subscribe();
    /// assert!(snapshot.is_empty());
    /// map.set("http", &80).await?;
    /// match changes.next().await {
    ///     Some(Update::Change(change)) => assert_eq!((&*change.key, change.value.as_deref()), ("http", Some(&80))),
    ///     other => unreachable!("{other:?}"),
    /// }
    /// # map.close().await; client.close().await;
    /// # Ok(()) }
    /// ```
    pub fn snapshot_and_subscribe(&self) -> (Snapshot<V>, Changes<V>) {
        self.inner.shared.subscribe(self.inner.change_buffer)
    }

    /// Whether the replica has everything that the backend has announced, as far as it can know. `false` while it is
    /// cut off or reads the map again, and after closing.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.inner.shared.link() == Link::Synced
    }

    /// For how long the replica may have been missing something; `None` if it is synced or closed.
    #[must_use]
    pub fn staleness(&self) -> Option<Duration> {
        self.inner.shared.staleness()
    }

    /// Whether the map was closed, by [`Map::close`] or with its client.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.inner.cancel.is_cancelled() || self.inner.shared.link() == Link::Closed
    }

    /// Stops the replica: applies what has arrived, ends the subscriptions and waits until the task has ended. The last
    /// content stays readable; writes fail with [`Error::Closed`] from now on, except that [`clear`](Map::clear),
    /// [`clear_if`](Map::clear_if) and [`destroy`](Map::destroy) go on working. Safe to call twice, and on any clone.
    pub async fn close(&self) {
        self.inner.cancel.cancel();
        self.inner.tasks.wait().await;
    }

    fn closed(&self) -> Error {
        Error::Closed { map: self.id().clone() }
    }
}

impl<V> Clone for Map<V> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<V> fmt::Debug for Map<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let version = self.inner.shared.version();
        f.debug_struct("Map").field("id", &self.inner.id).field("version", &version).finish_non_exhaustive()
    }
}
