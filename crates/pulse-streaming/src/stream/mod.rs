//! A stream: adding events, looking at it, destroying it, and the way to its readers and sinks.

use std::sync::Arc;

use bytes::Bytes;
use pulse_core::{
    Client, EventId, Expectation, Group, GroupInfo, NewEvent, Scope, StreamId, StreamInfo, Transaction, WriteResult,
};

use crate::{Error, Operation, ReaderBuilder, SinkBuilder, meter::Meter};

/// A named, ordered log of events. A cheap clone; making one talks to nobody, and the stream itself begins to exist
/// with its first event or sink.
///
/// It is called `EventStream` because readers and sinks *are* `futures::Stream`s, and code that uses both should not
/// have to rename one.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use pulse_streaming::{EventStream, NewEvent};
///
/// let client = pulse_streaming::connect("memory:").await?;
/// let orders = EventStream::new(&client, "orders")?;
/// let first = orders.add("placed", "order 7").await?;
/// let more = orders
///     .add_batch([
///         NewEvent::new("paid", "order 7").with_topic("eu"),
///         NewEvent::new("shipped", "order 7").with_topic("eu"),
///     ])
///     .await?;
/// assert!(first < more[0] && more[0] < more[1]);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct EventStream {
    client: Client,
    id: StreamId,
    meter: Meter,
}

impl EventStream {
    /// The stream of that name, in the scope of the same name.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidName`].
    pub fn new(client: &Client, name: impl AsRef<str>) -> Result<Self, Error> {
        let scope = Scope::new(name.as_ref()).map_err(Error::name)?;
        Self::in_scope(client, &scope, name)
    }

    /// The stream of that name in a given scope. One [`Transaction`] can then change the maps of the scope and append to
    /// the stream, both or neither.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidName`].
    pub fn in_scope(client: &Client, scope: &Scope, name: impl AsRef<str>) -> Result<Self, Error> {
        let id = scope.stream(name).map_err(Error::name)?;
        let meter = Meter::new(&id, "");
        Ok(Self { client: client.clone(), id, meter })
    }

    /// The stream's scope and name.
    #[must_use]
    pub fn id(&self) -> &StreamId {
        &self.id
    }

    /// The client that it was made with.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Adds an event with a name, which says what happened, and a payload. Returns its id, which is greater than that
    /// of every event before it.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`]. If [`Error::is_outcome_unknown`], the event may stand in the stream all the same; adding
    /// it again may add it twice.
    ///
    /// # Cancel safety
    ///
    /// An add whose future is dropped happens or does not.
    pub async fn add(&self, name: impl Into<Arc<str>>, payload: impl Into<Bytes>) -> Result<EventId, Error> {
        self.add_event(NewEvent::new(name, payload)).await
    }

    /// Adds an event with everything that one can have: name, payload, topic, headers.
    ///
    /// # Errors
    ///
    /// As [`add`](Self::add).
    ///
    /// # Cancel safety
    ///
    /// As [`add`](Self::add).
    pub async fn add_event(&self, event: NewEvent) -> Result<EventId, Error> {
        let transaction = Transaction::new(self.id.scope()).append(self.id.name().clone(), event);
        self.append(transaction).await?.pop().ok_or_else(|| self.missing_id())
    }

    /// Adds an event unless the stream does not exist, in which case it returns `None` and does not create it.
    ///
    /// # Errors
    ///
    /// As [`add`](Self::add).
    ///
    /// # Cancel safety
    ///
    /// As [`add`](Self::add).
    pub async fn add_if_exists(&self, event: NewEvent) -> Result<Option<EventId>, Error> {
        let name = self.id.name().clone();
        let transaction = Transaction::new(self.id.scope()).expect_stream(name.clone()).append(name, event);
        match self.append(transaction).await {
            Ok(mut ids) => ids.pop().ok_or_else(|| self.missing_id()).map(Some),
            Err(error) if is_missing_stream(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Adds events in this order, all or none, in one round trip. Returns their ids in the same order.
    ///
    /// # Errors
    ///
    /// As [`add`](Self::add); also when the batch is larger than the client's limits for a transaction.
    ///
    /// # Cancel safety
    ///
    /// As [`add`](Self::add).
    pub async fn add_batch(&self, events: impl IntoIterator<Item = NewEvent>) -> Result<Vec<EventId>, Error> {
        let start = Transaction::new(self.id.scope());
        let transaction = events.into_iter().fold(start, |txn, event| txn.append(self.id.name().clone(), event));
        if transaction.writes().is_empty() {
            return Ok(Vec::new());
        }
        self.append(transaction).await
    }

    async fn append(&self, transaction: Transaction) -> Result<Vec<EventId>, Error> {
        let committed = self.client.commit(transaction).await.map_err(Error::on(Operation::Add, &self.id))?;
        self.meter.added(committed.results.len());
        let id = |result: &WriteResult| match result {
            WriteResult::Event(id) => Ok(*id),
            _ => Err(self.missing_id()),
        };
        committed.results.iter().map(id).collect()
    }

    fn missing_id(&self) -> Error {
        Error::on(Operation::Add, &self.id)(pulse_core::Error::Protocol {
            operation: "append",
            subject: self.id.to_string(),
            reason: "the backend gave no event id".into(),
        })
    }

    /// Describes the stream, `None` if it does not exist.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`].
    pub async fn info(&self) -> Result<Option<StreamInfo>, Error> {
        self.client.backend().stream_info(&self.id).await.map_err(Error::on(Operation::Describe, &self.id))
    }

    /// Describes a sink of the stream: its cursor, how far it lags behind, what is pending for which instance. `None` if
    /// there is no such sink.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidName`], [`Error::Backend`].
    pub async fn sink_info(&self, sink: impl AsRef<str>) -> Result<Option<GroupInfo>, Error> {
        let group = Group::new(sink).map_err(Error::name)?;
        self.client.backend().group_info(&self.id, &group).await.map_err(Error::on(Operation::Describe, &self.id))
    }

    /// Removes the stream with all its events and the cursors of its sinks, and returns how many events it had. The
    /// next event begins it anew; readers and sinks that run go on with that one.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`].
    pub async fn destroy(&self) -> Result<u64, Error> {
        let transaction = Transaction::new(self.id.scope()).destroy_stream(self.id.name().clone());
        let committed = self.client.commit(transaction).await.map_err(Error::on(Operation::Destroy, &self.id))?;
        Ok(committed.count(0).unwrap_or(0))
    }

    /// Options of a reader, which sees every event.
    pub fn reader(&self) -> ReaderBuilder {
        ReaderBuilder::new(self)
    }

    /// Options of an instance of a sink: instances with one name share one cursor, and each event goes to one of them.
    pub fn sink(&self, name: impl Into<String>) -> SinkBuilder {
        SinkBuilder::new(self, name.into())
    }
}

fn is_missing_stream(error: &Error) -> bool {
    let failed = error.backend().and_then(pulse_core::Error::failed_expectation);
    failed.is_some_and(|failed| matches!(failed.expected, Expectation::StreamExists { .. }))
}
