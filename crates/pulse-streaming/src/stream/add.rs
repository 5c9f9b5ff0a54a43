//! Adding events.

use std::sync::Arc;

use bytes::Bytes;
use pulse_core::{EventId, Expectation, Found, NewEvent, Once, Transaction, Trim, WriteResult};
use serde::Serialize;

use super::{EventStream, Retention};
use crate::{Error, Operation, trace};

impl EventStream {
    /// Adds an event with a name, which says what happened, and a payload. Returns its id, which is greater than that
    /// of every event before it.
    ///
    /// # Errors
    ///
    /// [`Error::Full`] if the stream has a [capacity](super::StreamBuilder::capacity), and [`Error::Backend`]. If
    /// [`Error::is_outcome_unknown`], the event may stand in the stream all the same; adding
    /// it again may add it twice; [`add_once`](Self::add_once) does not.
    ///
    /// # Cancel safety
    ///
    /// An add whose future is dropped happens or does not.
    pub async fn add(&self, name: impl Into<Arc<str>>, payload: impl Into<Bytes>) -> Result<EventId, Error> {
        self.add_event(NewEvent::new(name, payload)).await
    }

    /// Adds an event whose payload is a value, encoded as MessagePack; [`Event::decode`](crate::Event::decode) gives it
    /// back. For topics and headers too, there is [`NewEvent::encoded`] with [`add_event`](Self::add_event).
    ///
    /// # Errors
    ///
    /// As [`add`](Self::add), and [`Error::Payload`] if the value cannot be encoded.
    ///
    /// # Cancel safety
    ///
    /// As [`add`](Self::add).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use pulse_streaming::{EventStream, Start};
    /// let client = pulse_streaming::connect("memory:").await?;
    /// let readings = EventStream::new(&client, "readings")?;
    /// readings.add_value("reading", &("kitchen", 20.5)).await?;
    /// let mut reader = readings.reader().start(Start::Oldest).join().await?;
    /// let (room, degrees): (String, f64) = reader.next().await.expect("open until closed")?.decode()?;
    /// assert_eq!((&*room, degrees), ("kitchen", 20.5));
    /// # Ok(()) }
    /// ```
    pub async fn add_value(
        &self,
        name: impl Into<Arc<str>>,
        value: &(impl Serialize + ?Sized),
    ) -> Result<EventId, Error> {
        let encoded = NewEvent::encoded(name, value);
        let event =
            encoded.map_err(|source| Error::Payload { operation: Operation::Add, stream: self.id.clone(), source });
        self.add_event(event?).await
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
        let event = self.traced(event);
        self.add_one(|txn, stream| txn.append(stream, event.clone())).await
    }

    /// Adds an event unless one was added by the same id already, within the time that
    /// [`once_within`](super::StreamBuilder::once_within) sets, and returns the id of the first one. So an add of
    /// unknown outcome can be repeated; over a server it is, by itself, as long as the client's time-out allows.
    ///
    /// # Errors
    ///
    /// As [`add`](Self::add), but repeating it is safe; and if the id is empty or longer than a kilobyte.
    ///
    /// # Cancel safety
    ///
    /// As [`add`](Self::add).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use pulse_streaming::{EventStream, NewEvent};
    /// let client = pulse_streaming::connect("memory:").await?;
    /// let payments = EventStream::new(&client, "payments")?;
    /// let first = payments.add_once("order-7", NewEvent::new("paid", "12.50")).await?;
    /// let again = payments.add_once("order-7", NewEvent::new("paid", "12.50")).await?;
    /// assert_eq!(first, again);
    /// assert_eq!(payments.info().await?.map(|info| info.length), Some(1));
    /// # Ok(()) }
    /// ```
    pub async fn add_once(&self, id: impl Into<Arc<str>>, event: NewEvent) -> Result<EventId, Error> {
        let (event, once) = (self.traced(event), Once::new(id, self.terms.once_within));
        self.add_one(|txn, stream| txn.append_once(stream, event.clone(), once.clone())).await
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
        let event = self.traced(event);
        let added = self.append(|txn, stream| txn.expect_stream(stream.clone()).append(stream, event.clone())).await;
        match added {
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
        let events: Vec<NewEvent> = events.into_iter().map(|event| self.traced(event)).collect();
        if events.is_empty() {
            return Ok(Vec::new());
        }
        self.append(|txn, stream| events.iter().fold(txn, |txn, event| txn.append(stream.clone(), event.clone()))).await
    }

    /// Puts the adding of an event into a transaction of your own in the stream's scope, on the stream's terms:
    /// together with writes to maps, all or nothing. If the stream has a capacity, the transaction then expects it to
    /// have room.
    ///
    /// A transaction changes one scope. One of another scope than the stream's is refused when it is committed, with
    /// [`OtherScope`](pulse_core::Error::OtherScope): give the map and the stream a scope that they share.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use pulse_streaming::{EventStream, NewEvent, Scope, Transaction};
    /// let client = pulse_streaming::connect("memory:").await?;
    /// let shop = Scope::new("shop")?; // also for the map: `Map::builder("orders").scope(shop.clone())`
    /// let log = EventStream::in_scope(&client, &shop, "log")?;
    /// let placed = Transaction::new(&shop).put("orders", "7", "placed");
    /// client.commit(log.add_to(placed, NewEvent::new("placed", "order 7"))).await?;
    /// # Ok(()) }
    /// ```
    pub fn add_to(&self, transaction: Transaction, event: NewEvent) -> Transaction {
        let (stream, event) = (self.id.name(), self.traced(event));
        let transaction = transaction.within(self.id.scope(), format_args!("stream {}", self.id));
        self.terms.around(stream, transaction, |txn| txn.append(stream.clone(), event))
    }

    /// The event with the context of the current span, if that is to be carried.
    fn traced(&self, event: NewEvent) -> NewEvent {
        trace::carrying(event, self.client.backend().limits().event_bytes)
    }

    async fn add_one(&self, add: impl Fn(Transaction, Arc<str>) -> Transaction) -> Result<EventId, Error> {
        self.append(add).await?.pop().ok_or_else(|| self.missing_id())
    }

    async fn append(&self, add: impl Fn(Transaction, Arc<str>) -> Transaction) -> Result<Vec<EventId>, Error> {
        self.append_with(|txn| add(txn, self.id.name().clone()), |txn| txn).await
    }

    /// Adds on the stream's terms, does something else in the same transaction, and returns the ids.
    pub(crate) async fn append_with(
        &self,
        add: impl Fn(Transaction) -> Transaction,
        more: impl Fn(Transaction) -> Transaction,
    ) -> Result<Vec<EventId>, Error> {
        let transaction = || more(self.terms.around(self.id.name(), Transaction::new(self.id.scope()), &add));
        let mut committed = self.client.commit(transaction()).await;
        if self.terms.retention == Retention::UntilConsumed
            && committed.as_ref().is_err_and(|error| full(error).is_some())
        {
            // It is judged before the add what the stream has, and what was consumed is dropped after it.
            self.trim(Trim::Consumed).await?;
            committed = self.client.commit(transaction()).await;
        }
        let committed = committed.map_err(|error| match full(&error) {
            Some((length, capacity)) => Error::Full { stream: self.id.clone(), length, capacity },
            None => Error::on(Operation::Add, &self.id)(error),
        })?;
        let ids = committed.results.iter().filter_map(|result| match result {
            WriteResult::Event(id) => Some(*id),
            _ => None,
        });
        let ids: Vec<EventId> = ids.collect();
        self.meter.added(ids.len());
        Ok(ids)
    }

    pub(crate) fn missing_id(&self) -> Error {
        Error::on(Operation::Add, &self.id)(pulse_core::Error::Protocol {
            operation: "append",
            subject: self.id.to_string(),
            reason: "the backend gave no event id".into(),
        })
    }
}

/// The length and the capacity, if that is what an add failed by.
fn full(error: &pulse_core::Error) -> Option<(u64, u64)> {
    let failed = error.failed_expectation()?;
    match (&failed.expected, &failed.found) {
        (Expectation::ShorterThan { length: capacity, .. }, Found::Count(length)) => Some((*length, *capacity)),
        _ => None,
    }
}

fn is_missing_stream(error: &Error) -> bool {
    let failed = error.backend().and_then(pulse_core::Error::failed_expectation);
    failed.is_some_and(|failed| matches!(failed.expected, Expectation::StreamExists { .. }))
}
