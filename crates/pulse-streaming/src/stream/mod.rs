//! A stream: looking at it, dropping events, destroying it, and the way to its readers and sinks. Adding stands in
//! [`add`], its options in [`builder`], looking after its sinks in [`sinks`].

mod add;
mod builder;
mod retention;
mod sinks;
pub(crate) mod terms;

use std::sync::Arc;

use pulse_core::{Client, EventId, Group, Scope, StreamDetail, StreamId, StreamInfo, Transaction, Trim};

use self::terms::Terms;
pub use self::{builder::StreamBuilder, retention::Retention};

use crate::{DeadLetters, Error, Operation, ReaderBuilder, SinkBuilder, meter::Meter};

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
    terms: Arc<Terms>,
    meter: Meter,
}

impl EventStream {
    /// Options of a stream of that name: what it keeps, how much it takes, how long it lives.
    pub fn builder(name: impl Into<String>) -> StreamBuilder {
        StreamBuilder::new(name.into())
    }

    /// The stream of that name, in the scope of the same name.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidName`].
    pub fn new(client: &Client, name: impl AsRef<str>) -> Result<Self, Error> {
        let scope = Scope::new(name.as_ref()).map_err(Error::name)?;
        Self::in_scope(client, &scope, name)
    }

    /// The stream of that name in a given scope. One [`Transaction`] can then change the maps of the scope and append
    /// to the stream, both or neither.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidName`].
    pub fn in_scope(client: &Client, scope: &Scope, name: impl AsRef<str>) -> Result<Self, Error> {
        let id = scope.stream(name).map_err(Error::name)?;
        Ok(Self::with_terms(client, id, Terms::default()))
    }

    pub(crate) fn with_terms(client: &Client, id: StreamId, terms: Terms) -> Self {
        let meter = Meter::new(&id, "");
        Self { client: client.clone(), id, terms: Arc::new(terms), meter }
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

    /// Describes the stream, `None` if it does not exist.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`].
    pub async fn info(&self) -> Result<Option<StreamInfo>, Error> {
        self.client.backend().stream_info(&self.id).await.map_err(Error::on(Operation::Describe, &self.id))
    }

    /// Describes the stream with its size in bytes and all its sinks, as of one moment, `None` if it does not exist. It
    /// costs the server more than [`info`](Self::info): it is for people and dashboards.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`].
    pub async fn detail(&self) -> Result<Option<StreamDetail>, Error> {
        self.client.backend().stream_detail(&self.id).await.map_err(Error::on(Operation::Describe, &self.id))
    }

    /// Removes single events, for everybody, and returns how many there were. Sinks that hold them may go on with them;
    /// those that had not acknowledged them learn that they are [lost](crate::Notice::Lost).
    ///
    /// # Errors
    ///
    /// [`Error::Backend`]. Repeating it is safe.
    pub async fn remove(&self, ids: impl IntoIterator<Item = EventId>) -> Result<u64, Error> {
        let ids: Vec<EventId> = ids.into_iter().collect();
        if ids.is_empty() {
            return Ok(0);
        }
        self.drop_events(Transaction::new(self.id.scope()).delete_events(self.id.name().clone(), ids)).await
    }

    /// Drops events from the old end, and returns how many. Readers and sinks that had not had them yet are told
    /// ([`Notice::Missed`](crate::Notice::Missed)).
    ///
    /// # Errors
    ///
    /// [`Error::Backend`].
    pub async fn trim(&self, trim: Trim) -> Result<u64, Error> {
        self.drop_events(Transaction::new(self.id.scope()).trim_stream(self.id.name().clone(), trim)).await
    }

    async fn drop_events(&self, transaction: Transaction) -> Result<u64, Error> {
        let committed = self.client.commit(transaction).await.map_err(Error::on(Operation::Remove, &self.id))?;
        Ok(committed.count(0).unwrap_or(0))
    }

    /// The events of this stream that a sink gave up on.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidName`].
    pub fn dead_letters(&self, sink: impl AsRef<str>) -> Result<DeadLetters, Error> {
        DeadLetters::of(self, &Group::new(sink).map_err(Error::name)?)
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
