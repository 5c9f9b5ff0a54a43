//! A partitioned stream: adding events by key, and the way to its readers and sinks.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use futures::future::try_join_all;
use pulse_core::{Client, EventId, Group, NewEvent, Scope, Transaction};
use serde::Serialize;
use tokio::sync::OnceCell;
use xxhash_rust::xxh3::xxh3_64;

use super::{PartitionedReaderBuilder, PartitionedSinkBuilder, PartitionedStreamBuilder, builder::MOST, control};
use crate::{DeadLetters, Error, EventStream, Operation};

/// One logical stream over a fixed number of partitions, each an [`EventStream`] in a scope of its own, so that a Redis
/// Cluster spreads them over its shards. Events of one key go to one partition, and keep their order.
///
/// The partition of a key is `xxh3_64(key) mod partitions`, in this and every later version. The number of partitions
/// is therefore part of what the stream is: the first use records it, and using the stream with another number is an
/// error. A cheap clone.
///
/// - **Sinks** ([`sink`](Self::sink)) give each partition to one instance at a time, so that the events of a key are
///   worked on in order while instances come and go; see [`PartitionedSink`](crate::PartitionedSink).
/// - **Readers** ([`reader`](Self::reader)) see every event of every partition, in the order of each partition.
/// - There is no order between partitions, and no transaction across them.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use pulse_streaming::{PartitionedStream, Start};
///
/// let client = pulse_streaming::connect("memory:").await?;
/// let orders = PartitionedStream::new(&client, "orders", 16)?;
///
/// // Start this in as many processes as there is work for.
/// let mut billing = orders.sink("billing").start(Start::Oldest).join().await?;
///
/// for step in ["placed", "paid", "shipped"] {
///     orders.add("order 7", step, "").await?;
/// }
/// for step in ["placed", "paid", "shipped"] {
///     let delivery = billing.next().await.expect("open until closed")?;
///     assert_eq!(delivery.name(), step);
///     delivery.ack().await?;
/// }
/// billing.close().await;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct PartitionedStream {
    pub(super) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) client: Client,
    pub(super) name: String,
    /// The scope of what all partitions have in common.
    pub(super) scope: Scope,
    pub(super) partitions: Vec<EventStream>,
    /// Set once the number of partitions is known to be the recorded one.
    pub(super) settled: OnceCell<()>,
}

impl PartitionedStream {
    /// The stream of that name with that many partitions, from 1 to 4,096. Talks to nobody yet. Partition `i` is the
    /// stream `NAME` in the scope `NAME#i`.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidName`], [`Error::InvalidOption`].
    pub fn new(client: &Client, name: impl Into<String>, partitions: u32) -> Result<Self, Error> {
        Self::builder(name, partitions).open(client)
    }

    /// Options of the stream of that name with that many partitions: what it keeps, how much it takes, how long it
    /// lives.
    pub fn builder(name: impl Into<String>, partitions: u32) -> PartitionedStreamBuilder {
        PartitionedStreamBuilder::new(name.into(), partitions)
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// The client that it was made with.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.shared.client
    }

    /// The partitions, to look at one of them: its length, say, or how far a sink is. Events that are added to one
    /// directly have their order there, whatever their key.
    #[must_use]
    pub fn partitions(&self) -> &[EventStream] {
        &self.shared.partitions
    }

    /// Which partition the events of a key go to.
    #[must_use]
    pub fn partition_of(&self, key: impl AsRef<[u8]>) -> u32 {
        let partition = xxh3_64(key.as_ref()) % u64::from(self.count());
        u32::try_from(partition).unwrap_or_default()
    }

    /// Adds an event under a key: after every event of that key whose adding has returned. Returns its id, which is
    /// unique within its partition.
    ///
    /// # Errors
    ///
    /// [`Error::PartitionsDiffer`], and those of [`EventStream::add`].
    ///
    /// # Cancel safety
    ///
    /// As [`EventStream::add`].
    pub async fn add(
        &self,
        key: impl AsRef<[u8]>,
        name: impl Into<Arc<str>>,
        payload: impl Into<Bytes>,
    ) -> Result<EventId, Error> {
        self.add_event(key, NewEvent::new(name, payload)).await
    }

    /// Adds an event under a key whose payload is a value, encoded as MessagePack; see [`EventStream::add_value`].
    ///
    /// # Errors
    ///
    /// As [`add`](Self::add), and [`Error::Payload`] if the value cannot be encoded.
    ///
    /// # Cancel safety
    ///
    /// As [`add`](Self::add).
    pub async fn add_value(
        &self,
        key: impl AsRef<[u8]>,
        name: impl Into<Arc<str>>,
        value: &(impl Serialize + ?Sized),
    ) -> Result<EventId, Error> {
        self.settle().await?;
        self.of(key).add_value(name, value).await
    }

    /// Adds an event under a key unless one was added by the same id to the same partition already; see
    /// [`EventStream::add_once`].
    ///
    /// # Errors
    ///
    /// As [`add`](Self::add), but repeating it is safe; and if the id is empty or longer than a kilobyte.
    ///
    /// # Cancel safety
    ///
    /// As [`add`](Self::add).
    pub async fn add_once(
        &self,
        key: impl AsRef<[u8]>,
        id: impl Into<Arc<str>>,
        event: NewEvent,
    ) -> Result<EventId, Error> {
        self.settle().await?;
        self.of(key).add_once(id, event).await
    }

    /// Adds an event with everything that one can have under a key.
    ///
    /// # Errors
    ///
    /// As [`add`](Self::add).
    ///
    /// # Cancel safety
    ///
    /// As [`add`](Self::add).
    pub async fn add_event(&self, key: impl AsRef<[u8]>, event: NewEvent) -> Result<EventId, Error> {
        self.settle().await?;
        self.of(key).add_event(event).await
    }

    /// Adds events, each under its key, and returns their ids in the same order. Events of one partition are added in
    /// this order, all or none, in one round trip; the partitions are independent of each other and go at the same
    /// time.
    ///
    /// # Errors
    ///
    /// As [`add`](Self::add): that of one partition that failed. The events of other partitions may have been added.
    ///
    /// # Cancel safety
    ///
    /// Each partition's events are added or not.
    pub async fn add_batch<K: AsRef<[u8]>>(
        &self,
        events: impl IntoIterator<Item = (K, NewEvent)>,
    ) -> Result<Vec<EventId>, Error> {
        self.settle().await?;
        let mut batches: BTreeMap<u32, (Vec<usize>, Vec<NewEvent>)> = BTreeMap::new();
        for (place, (key, event)) in events.into_iter().enumerate() {
            let batch = batches.entry(self.partition_of(key)).or_default();
            batch.0.push(place);
            batch.1.push(event);
        }
        let adds = batches.into_iter().map(async |(partition, (places, events))| {
            let ids = self.partition(partition).add_batch(events).await?;
            Ok(places.into_iter().zip(ids))
        });
        let mut ids: Vec<(usize, EventId)> = try_join_all(adds).await?.into_iter().flatten().collect();
        ids.sort_unstable_by_key(|(place, _)| *place);
        Ok(ids.into_iter().map(|(_, id)| id).collect())
    }

    /// Retires a sink: removes its cursors and all that its instances agreed on, and returns whether there was one. See
    /// [`EventStream::remove_sink`]; close its instances first. The [partitions](Self::partitions) tell what it
    /// [holds back](EventStream::sinks).
    ///
    /// # Errors
    ///
    /// [`Error::InvalidName`], [`Error::PartitionsDiffer`], [`Error::Backend`]. Some of its cursors may be gone then; try
    /// again.
    pub async fn remove_sink(&self, sink: impl AsRef<str>) -> Result<bool, Error> {
        self.settle().await?;
        let group = Group::new(&sink).map_err(Error::name)?;
        let removed = try_join_all(self.partitions().iter().map(|partition| partition.remove_sink(&sink))).await?;
        self.forget(control::forget_sinks(self.scope(), [&group]), Operation::RemoveSink).await?;
        Ok(removed.contains(&true))
    }

    /// Removes every partition with all its events and the cursors of its sinks, and the record of how many there are.
    /// Returns how many events there were. Close its sinks first: one that runs goes on with the old number.
    ///
    /// # Errors
    ///
    /// [`Error::PartitionsDiffer`], [`Error::Backend`]. Some of the partitions may be gone then; try again.
    pub async fn destroy(&self) -> Result<u64, Error> {
        self.settle().await?;
        // Each instance of a sink has a cursor on its partitions, and every partition had one when the sink was joined.
        let sinks = try_join_all(self.partitions().iter().map(EventStream::sinks)).await?;
        let sinks: BTreeSet<Group> = sinks.into_iter().flatten().map(|(sink, _)| sink).collect();
        let destroyed = try_join_all(self.partitions().iter().map(EventStream::destroy)).await?;
        self.forget(control::forget_sinks(self.scope(), &sinks), Operation::Destroy).await?;
        self.forget(control::forget_count(self.scope()), Operation::Destroy).await?;
        Ok(destroyed.into_iter().sum())
    }

    async fn forget(&self, what: Transaction, operation: Operation) -> Result<(), Error> {
        self.client().commit(what).await.map(drop).map_err(self.failed(operation)?)
    }

    /// The events that a sink gave up on, partition by partition.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidName`].
    pub fn dead_letters(&self, sink: impl AsRef<str>) -> Result<Vec<DeadLetters>, Error> {
        self.partitions().iter().map(|partition| partition.dead_letters(&sink)).collect()
    }

    /// Options of a reader, which sees every event of every partition.
    pub fn reader(&self) -> PartitionedReaderBuilder {
        PartitionedReaderBuilder::new(self)
    }

    /// Options of an instance of a sink: instances with one name share the partitions.
    pub fn sink(&self, name: impl Into<String>) -> PartitionedSinkBuilder {
        PartitionedSinkBuilder::new(self, name.into())
    }

    pub(super) fn scope(&self) -> &Scope {
        &self.shared.scope
    }

    pub(super) fn count(&self) -> u32 {
        // At most `MOST`, and at least 1.
        u32::try_from(self.partitions().len()).unwrap_or(MOST)
    }

    pub(super) fn partition(&self, index: u32) -> &EventStream {
        &self.partitions()[index as usize]
    }

    /// Makes sure that the number of partitions is the recorded one; asks only once.
    pub(super) async fn settle(&self) -> Result<(), Error> {
        let settling = async || {
            let count = self.count();
            let recorded = control::settle_count(self.client(), self.scope(), count).await;
            let recorded = recorded.map_err(self.failed(Operation::Join)?)?;
            if recorded != count {
                let stream = self.name().to_owned();
                return Err(Error::PartitionsDiffer { stream, asked: count, recorded });
            }
            Ok(())
        };
        self.shared.settled.get_or_try_init(settling).await.copied()
    }

    fn of(&self, key: impl AsRef<[u8]>) -> &EventStream {
        self.partition(self.partition_of(key))
    }

    /// Makes the error of a failed call that concerns all partitions; for `map_err`.
    pub(super) fn failed(&self, operation: Operation) -> Result<impl Fn(pulse_core::Error) -> Error + use<>, Error> {
        let id = self.scope().stream(self.name()).map_err(Error::name)?;
        Ok(Error::on(operation, &id))
    }
}
