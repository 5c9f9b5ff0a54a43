//! Streams and consumer groups: what their methods take and return.

use std::time::Duration;

use crate::{Consumer, Entry, EventId, Group};

/// Where the cursor of a new consumer group stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum GroupStart {
    /// After the last event there is: only later ones are handed out.
    Newest,
    /// Before the oldest event there is.
    Oldest,
    /// After this id.
    After(EventId),
}

/// Whether what a group hands out has to be acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Acks {
    /// It is pending until it is acknowledged: handed out at least once.
    #[default]
    Explicit,
    /// It counts as acknowledged from the start, and is never pending: handed out at most once. What a caller does not
    /// get, because its call was dropped or its answer was lost, nobody gets.
    None,
}

/// What a read of a stream found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Read {
    /// The entries, oldest first.
    pub entries: Vec<Entry>,
    /// Whether the entry after which was read still stood in the stream at the moment of the read. As long as it does,
    /// no trim has dropped anything behind it, so that the reader has missed nothing. It tells nothing where it is
    /// `false`: there may never have been such an entry, or it was deleted.
    pub stands: bool,
}

impl Read {
    /// Puts the result of a read together.
    #[must_use]
    pub fn new(entries: Vec<Entry>, stands: bool) -> Self {
        Self { entries, stands }
    }
}

/// An entry handed to a consumer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Delivery {
    /// The entry.
    pub entry: Entry,
    /// How often it has been handed out, this time included.
    pub deliveries: u64,
}

impl Delivery {
    /// Puts a delivery together.
    #[must_use]
    pub fn new(entry: Entry, deliveries: u64) -> Self {
        Self { entry, deliveries }
    }
}

/// What trims took from a consumer group before it was handed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Missed {
    /// Where the group's cursor stood at the first of the trims, zero if that is not known. What is missing comes after
    /// it.
    pub after: EventId,
    /// What is missing comes before this id: the first that stayed after the last of the trims, or the next that could
    /// come if none stayed.
    pub before: EventId,
    /// How many events it was, `None` if the backend could not tell them all.
    pub events: Option<u64>,
}

impl Missed {
    /// Puts a record together.
    #[must_use]
    pub fn new(after: EventId, before: EventId, events: Option<u64>) -> Self {
        Self { after, before, events }
    }
}

/// What a claim took over.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Claimed {
    /// The entries, oldest first.
    pub deliveries: Vec<Delivery>,
    /// Events that were pending but had been deleted or trimmed from the stream; they are pending no more.
    pub deleted: Vec<EventId>,
}

impl Claimed {
    /// Puts the result of a claim together.
    #[must_use]
    pub fn new(deliveries: Vec<Delivery>, deleted: Vec<EventId>) -> Self {
        Self { deliveries, deleted }
    }
}

/// The longest idle time that [`Backend::group_set_idle`](super::Backend::group_set_idle) gives an event: ten years.
/// Servers count it back from their clock, which does not go to before 1970.
pub const MAX_IDLE: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// Which pending events to list.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PendingQuery {
    /// Only those of this consumer.
    pub consumer: Option<Consumer>,
    /// Only those that have been idle for at least this long.
    pub min_idle: Duration,
    /// Only those after this id.
    pub after: EventId,
    /// At most so many.
    pub limit: usize,
}

impl PendingQuery {
    /// The oldest `limit` of all.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { consumer: None, min_idle: Duration::ZERO, after: EventId::ZERO, limit }
    }

    /// Only those of this consumer.
    #[must_use]
    pub fn of_consumer(mut self, consumer: Consumer) -> Self {
        self.consumer = Some(consumer);
        self
    }

    /// Only those that have been idle for at least this long.
    #[must_use]
    pub fn idle_for(mut self, min_idle: Duration) -> Self {
        self.min_idle = min_idle;
        self
    }

    /// Only those after this id.
    #[must_use]
    pub fn after(mut self, id: EventId) -> Self {
        self.after = id;
        self
    }
}

/// An event that was handed out and not acknowledged yet.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PendingEvent {
    /// The event.
    pub id: EventId,
    /// Who it was handed to last; something like it, where a stranger's name for it is no [`Consumer`].
    pub consumer: Consumer,
    /// How long ago, or what [`group_set_idle`](super::Backend::group_set_idle) made of it.
    pub idle: Duration,
    /// How often it has been handed out.
    pub deliveries: u64,
}

impl PendingEvent {
    /// Puts a description together.
    #[must_use]
    pub fn new(id: EventId, consumer: Consumer, idle: Duration, deliveries: u64) -> Self {
        Self { id, consumer, idle, deliveries }
    }
}

/// A consumer of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConsumerInfo {
    /// Its name.
    pub name: Consumer,
    /// How many events are pending for it.
    pub pending: u64,
    /// How long since it last read, claimed or extended anything.
    pub idle: Duration,
}

impl ConsumerInfo {
    /// Puts a description together.
    #[must_use]
    pub fn new(name: Consumer, pending: u64, idle: Duration) -> Self {
        Self { name, pending, idle }
    }
}

/// A consumer group.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupInfo {
    /// The cursor: the last event handed out.
    pub last_delivered: EventId,
    /// How many events are pending.
    pub pending: u64,
    /// The oldest of the pending events; `None` if none is pending. Its id says when it was added.
    pub oldest_pending: Option<EventId>,
    /// How many events of the stream were not handed out yet; `None` if the backend cannot tell, as after deletions
    /// from the middle of the stream.
    pub lag: Option<u64>,
    /// Its consumers, by name, without those of strangers whose names are no [`Consumer`].
    pub consumers: Vec<ConsumerInfo>,
}

impl GroupInfo {
    /// Puts a description together.
    #[must_use]
    pub fn new(last_delivered: EventId, pending: u64, lag: Option<u64>, consumers: Vec<ConsumerInfo>) -> Self {
        Self { last_delivered, pending, oldest_pending: None, lag, consumers }
    }

    /// The first event that it still needs, whether there is one yet or not: all before it was handed out and
    /// acknowledged. [`Trim::Consumed`](crate::Trim::Consumed) keeps what is from here on.
    #[must_use]
    pub fn needs(&self) -> EventId {
        self.oldest_pending.or_else(|| self.last_delivered.next()).unwrap_or(EventId::MAX)
    }

    /// How many events it has not acknowledged yet, handed out or not; `None` if the backend cannot tell its lag. Events
    /// that are gone from the stream while they are pending count too.
    #[must_use]
    pub fn holds_back(&self) -> Option<u64> {
        Some(self.pending + self.lag?)
    }

    /// Sets the oldest of the pending events.
    #[must_use]
    pub fn with_oldest_pending(mut self, id: Option<EventId>) -> Self {
        self.oldest_pending = id;
        self
    }
}

/// A stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct StreamInfo {
    /// How many entries it holds.
    pub length: u64,
    /// How many were ever appended.
    pub appended: u64,
    /// The first entry there is, `None` if the stream is empty.
    pub first: Option<EventId>,
    /// The last id ever used, also if that entry was deleted since; zero for a stream that never had one.
    pub last: EventId,
    /// The largest id that was ever deleted by its id; zero if none was. What a trim drops does not count here: it
    /// shows in [`first`](Self::first), because trims drop from the old end only.
    pub max_deleted: EventId,
    /// How many consumer groups it has.
    pub groups: u64,
}

/// A stream with what it costs and its consumer groups.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamDetail {
    /// The stream itself.
    pub info: StreamInfo,
    /// How much memory it takes in the backend, about, in bytes.
    pub bytes: u64,
    /// Its consumer groups by name, without those of strangers whose names are no [`Group`].
    pub groups: Vec<(Group, GroupInfo)>,
}

impl StreamDetail {
    /// Puts a description together.
    #[must_use]
    pub fn new(info: StreamInfo, bytes: u64, groups: Vec<(Group, GroupInfo)>) -> Self {
        Self { info, bytes, groups }
    }
}
