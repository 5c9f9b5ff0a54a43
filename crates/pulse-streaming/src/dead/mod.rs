//! Dead letters: events that a sink gave up on, kept beside the stream until somebody looks at them.
//!
//! Those of one sink are a stream of their own in the scope of the stream. An event goes there in the same transaction
//! that acknowledges it, so it is never in both places and never in none. What a dead letter was stands in its headers
//! ([`letter`]).

pub(crate) mod letter;

use bytes::Bytes;
use pulse_core::{EventId, Group, Once, Transaction};

pub use self::letter::DeadLetter;
use crate::{Error, EventStream, Operation, sink::plan};

/// How many letters are looked at in one round trip.
const PAGE: usize = 100;
/// How long it is remembered that an event was buried or replayed. Longer than any call is repeated.
pub(crate) const REMEMBERED: std::time::Duration = std::time::Duration::from_secs(24 * 60 * 60);

/// The events that one sink gave up on; made by [`EventStream::dead_letters`].
///
/// An event gets here by [`Delivery::dead_letter`](crate::Delivery::dead_letter), by
/// [`max_deliveries`](crate::SinkBuilder::max_deliveries), or by the last attempt of [`Sink::run`](crate::Sink::run).
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use pulse_streaming::{EventId, EventStream, Start};
///
/// let client = pulse_streaming::connect("memory:").await?;
/// let orders = EventStream::new(&client, "orders")?;
/// orders.add("placed", "order 7").await?;
/// let mut billing = orders.sink("billing").start(Start::Oldest).join().await?;
/// let delivery = billing.next().await.expect("open until closed")?;
/// delivery.dead_letter("the card is unknown").await?;
///
/// let letters = orders.dead_letters("billing")?;
/// let letter = letters.list(EventId::ZERO, 10).await?.remove(0);
/// assert_eq!((letter.reason(), &letter.payload()[..]), ("the card is unknown", &b"order 7"[..]));
///
/// // Once the card is known: once more, for this sink only.
/// letters.replay(&letter).await?;
/// let again = billing.next().await.expect("open until closed")?;
/// assert_eq!(again.payload(), "order 7");
/// again.ack().await?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct DeadLetters {
    source: EventStream,
    letters: EventStream,
    group: Group,
}

impl DeadLetters {
    pub(crate) fn of(source: &EventStream, group: &Group) -> Result<Self, Error> {
        let letters =
            EventStream::in_scope(source.client(), source.id().scope(), letter::stream_name(source.id(), group))?;
        Ok(Self { source: source.clone(), letters, group: group.clone() })
    }

    /// The stream that they stand in, to follow it with a reader or a sink of its own. Its events have the names,
    /// topics and payloads of the originals; [`DeadLetter::read`] makes sense of their headers.
    #[must_use]
    pub fn stream(&self) -> &EventStream {
        &self.letters
    }

    /// How many there are.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`].
    pub async fn len(&self) -> Result<u64, Error> {
        Ok(self.letters.info().await?.map_or(0, |info| info.length))
    }

    /// Whether there is none.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`].
    pub async fn is_empty(&self) -> Result<bool, Error> {
        Ok(self.len().await? == 0)
    }

    /// Reads up to `limit` of them, oldest first, after the one with this id ([`EventId::ZERO`] for all). What
    /// strangers wrote there is left out.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`].
    pub async fn list(&self, after: EventId, limit: usize) -> Result<Vec<DeadLetter>, Error> {
        Ok(self.page(after, limit).await?.0)
    }

    /// The letters of a page, and the last id of it.
    async fn page(&self, after: EventId, limit: usize) -> Result<(Vec<DeadLetter>, Option<EventId>), Error> {
        let id = self.letters.id();
        let read = self.letters.client().backend().stream_read(id, after, limit, std::time::Duration::ZERO).await;
        let entries = read.map_err(Error::on(Operation::Read, id))?.entries;
        let last = entries.last().map(|entry| entry.id);
        let events = entries.into_iter().filter_map(|entry| entry.event.ok());
        Ok((events.filter_map(|event| DeadLetter::read(crate::Event::new(id.clone(), event))).collect(), last))
    }

    /// Adds an event to the stream once more, for this sink only, and takes it off the dead letters, in one
    /// transaction. Other sinks and readers do not see it. It gets a new id, and its deliveries are counted from one.
    ///
    /// Repeated, also by two people at once, it adds the event once. The id of the event that was added is returned.
    ///
    /// # Errors
    ///
    /// [`Error::Full`] and [`Error::Backend`], as those of an add; repeating it is safe. [`Error::PayloadGone`] if the
    /// letter is [cut](DeadLetter::is_cut) and the stream does not have the original any more.
    pub async fn replay(&self, letter: &DeadLetter) -> Result<EventId, Error> {
        let once = letter::short(format!("replay/{}/{}", self.group, letter.id()));
        let once = Once::new(once, REMEMBERED);
        let event = letter.revive(&self.group, self.payload(letter).await?);
        let replay = |txn: Transaction| txn.append_once(self.source.id().name().clone(), event.clone(), once.clone());
        let taken = vec![letter.id()];
        let ids =
            self.source.append_with(replay, |txn| txn.delete_events(self.letters.id().name().clone(), taken.clone()));
        ids.await?.pop().ok_or_else(|| self.source.missing_id())
    }

    /// The payload of the original.
    async fn payload(&self, letter: &DeadLetter) -> Result<Bytes, Error> {
        if !letter.is_cut() {
            return Ok(letter.payload().clone());
        }
        let (id, original) = (self.source.id(), letter.original_id());
        let backend = self.source.client().backend();
        let read = backend.stream_read(id, plan::id_before(original), 1, std::time::Duration::ZERO).await;
        let entries = read.map_err(Error::on(Operation::Read, id))?.entries;
        let found = entries.into_iter().find(|entry| entry.id == original).and_then(|entry| entry.event.ok());
        found.map(|event| event.payload).ok_or_else(|| Error::PayloadGone { stream: id.clone(), id: original })
    }

    /// Replays all that are there now, and returns how many.
    ///
    /// # Errors
    ///
    /// As [`replay`](Self::replay); those before the one that failed were replayed.
    pub async fn replay_all(&self) -> Result<u64, Error> {
        let Some(info) = self.letters.info().await? else { return Ok(0) };
        let (mut after, mut replayed) = (EventId::ZERO, 0);
        while after < info.last {
            let (letters, last) = self.page(after, PAGE).await?;
            let Some(last) = last else { break };
            for letter in letters.iter().filter(|letter| letter.id() <= info.last) {
                self.replay(letter).await?;
                replayed += 1;
            }
            after = last;
        }
        Ok(replayed)
    }

    /// Deletes some of them, and returns how many there were.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`].
    pub async fn remove(&self, ids: impl IntoIterator<Item = EventId>) -> Result<u64, Error> {
        self.letters.remove(ids).await
    }

    /// Deletes all of them, and returns how many there were.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`].
    pub async fn purge(&self) -> Result<u64, Error> {
        self.letters.destroy().await
    }
}
