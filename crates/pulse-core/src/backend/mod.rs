//! The contract between Pulse and whatever stores its data.
//!
//! [`Backend`] is small and semantic: it speaks of transactions, maps, streams and leases, not of the commands of a
//! server. It is object-safe, so that everything above holds an `Arc<dyn Backend>` and never knows which one it is.
//! The documentation of each method is the whole promise; the conformance suite (feature `conformance`) checks it, and
//! a third backend is right exactly when it passes.
//!
//! # What holds for every method
//!
//! - **Errors.** A call that fails says so with a typed [`Error`] that names what it was about. A request whose effect
//!   is not known is never sent again silently, unless repeating it cannot change the result; the error then answers
//!   [`Error::is_outcome_unknown`].
//! - **Cancel safety.** Dropping a future never corrupts anything and never loses an event. A commit whose future is
//!   dropped is either carried out whole or not at all.
//! - **Time-outs.** Every call ends within the client's command time-out, plus the `wait` it was given. A wait that no
//!   clock can measure has no end.
//! - **Lifetimes.** From [`MIN_LIFETIME`](crate::MIN_LIFETIME) to [`MAX_LIFETIME`](crate::MAX_LIFETIME); others are
//!   refused with [`Error::InvalidRequest`]. Ages and idle times may be anything.
//! - **Limits.** Asked for at most 0 entries, a method acts as if asked for 1; asked for more than it hands out at once,
//!   it hands out that many. Given no keys or no ids, it does nothing and returns nothing.
//! - **Clock.** Deadlines are judged by one clock per scope, the backend's own.
//! - **Strangers.** Data that Pulse did not write never makes a call panic: it fails that one call with
//!   [`Error::WrongType`] or [`Error::Corrupt`], or is handed out as what it is (see [`Entry`](crate::Entry)).

mod feed;
mod group;

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;

pub use self::{
    feed::{Change, FeedItem, FeedSender, GapCause, MapCommit, MapFeed},
    group::{
        Acks, Claimed, ConsumerInfo, Delivery, GroupInfo, GroupStart, MAX_IDLE, Missed, PendingEvent, PendingQuery,
        Read, StreamDetail, StreamInfo,
    },
};
use crate::{
    Committed, Consumer, Error, EventId, Group, LeaseId, Limits, MapId, Scope, ServerTime, StreamId, Transaction,
    Version,
};

/// Where the next page of a map begins. Made by a backend and meaningful to it alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor(pub String);

/// Some of the entries of a map.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct MapPage {
    /// Keys and values, in no particular order. One key may stand in several pages.
    pub entries: Vec<(Arc<str>, Bytes)>,
    /// Where to go on; `None`: this was the last page.
    pub next: Option<Cursor>,
    /// How many entries were left out because their key is not valid UTF-8, so that Pulse cannot have written them.
    pub skipped: u64,
}

impl MapPage {
    /// Puts a page together.
    #[must_use]
    pub fn new(entries: Vec<(Arc<str>, Bytes)>, next: Option<Cursor>) -> Self {
        Self { entries, next, skipped: 0 }
    }
}

/// What a sweep did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Swept {
    /// The leases that had expired and are gone now.
    pub leases: Vec<LeaseId>,
    /// How many map entries were deleted, because of their lease, their own deadline, or their map's.
    pub entries: u64,
    /// How long until the next deadline of the scope, by the backend's clock; zero if more are due already, `None` if
    /// none stands.
    pub next_deadline: Option<Duration>,
}

/// Stores maps, streams and leases. See the [module documentation](self) for what holds for every method.
#[async_trait]
pub trait Backend: fmt::Debug + Send + Sync + 'static {
    /// Names the backend and its target for logs and errors; never holds a password.
    fn target(&self) -> &str;

    /// The limits that [`Backend::commit`] checks.
    fn limits(&self) -> &Limits;

    /// Carries out a transaction: if every expectation holds, all writes happen, as one step that nobody can observe
    /// half done; otherwise nothing changes.
    ///
    /// - Expectations are judged on the state before the transaction; writes take effect in order and see each other.
    /// - Entries, maps and leases whose deadline has passed but that were not swept yet: leases count as expired
    ///   at once; entries and maps count as present until a [`Backend::sweep`] removes them.
    /// - Where the transaction is [without](Transaction::without_previous) what it replaces, the results of puts and
    ///   deletions are [`WriteResult::Done`](crate::WriteResult::Done).
    /// - Each map that really changed gets its revision raised by exactly one, whatever the number of changes, and one
    ///   [`MapCommit`] goes to its feeds, with the changes in order as absolute values. A map that no write changed
    ///   (a delete of an absent key, say) keeps its revision and sends nothing. A put counts as a change even
    ///   if the value is the same as before, and so does an addition of 0, and a clear of a map that is empty.
    /// - The first change of a map that does not exist draws a random incarnation and makes the revision 1. A map
    ///   that was emptied key by key or by a clear still exists; only destroying it ends its incarnation.
    /// - A transaction that destroys a map and then writes it again makes two commits of it: one that ends the old
    ///   incarnation, and one that begins the new.
    /// - Commits of one map reach every feed in the order of their revisions.
    /// - Appended events get ids greater than every id the stream ever had, also before it was destroyed, as far as the
    ///   append began after the destruction was reported.
    ///
    /// # Errors
    ///
    /// [`Error::ExpectationFailed`] names the first expectation that did not hold. [`Error::LeaseLost`],
    /// [`Error::WrongValue`], [`Error::WrongType`], [`Error::OtherScope`], [`Error::InvalidName`],
    /// [`Error::InvalidRequest`] and [`Error::LimitExceeded`] also leave everything unchanged. [`Error::Timeout`] and
    /// [`Error::Unavailable`] say whether the outcome is known.
    async fn commit(&self, transaction: Transaction) -> Result<Committed, Error>;

    /// Reads the version of a map, `None` if it does not exist.
    ///
    /// # Errors
    ///
    /// [`Error::WrongType`], [`Error::Corrupt`], and those of the connection.
    async fn map_version(&self, map: &MapId) -> Result<Option<Version>, Error>;

    /// Reads some entries of a map: about `limit` of them, from the beginning (`None`) or where an earlier page ended.
    ///
    /// The pages of one pass are no consistent picture: they hold every key that was there during the whole pass at
    /// least once, and each value is one that the key had at some moment of the pass. Whoever subscribes to the feed,
    /// reads the version, reads all pages, reads the version again, and then applies the feed's commits after the
    /// first version up to at least the second, has the map's content at that point exactly.
    ///
    /// No single page keeps a server busy for long, whatever the size of the map.
    ///
    /// # Errors
    ///
    /// [`Error::WrongType`], [`Error::InvalidRequest`] for a cursor that it did not make, and those of the connection.
    async fn map_page(&self, map: &MapId, cursor: Option<&Cursor>, limit: usize) -> Result<MapPage, Error>;

    /// Reads the values of some keys, in the order of the keys, as of one moment.
    ///
    /// # Errors
    ///
    /// [`Error::WrongType`] and those of the connection.
    async fn map_get(&self, map: &MapId, keys: &[&str]) -> Result<Vec<Option<Bytes>>, Error>;

    /// Subscribes to the commits of a map. When this returns, every later commit will reach the feed, or a
    /// [`FeedItem::Gap`] will say that one may be missing. See [`MapFeed`] for the promises.
    ///
    /// # Errors
    ///
    /// Those of the connection.
    async fn map_feed(&self, map: &MapId) -> Result<MapFeed, Error>;

    /// Reads up to `limit` entries after an id, oldest first; waits up to `wait` for the first one if there is none
    /// yet. An empty result means that nothing came in time. A stream that does not exist is like an empty one.
    /// [`Read::stands`] says whether the entry after which was read was still there.
    ///
    /// # Cancel safety
    ///
    /// Reading has no effect; a dropped call ends its wait promptly.
    ///
    /// # Errors
    ///
    /// [`Error::WrongType`] and those of the connection.
    async fn stream_read(&self, stream: &StreamId, after: EventId, limit: usize, wait: Duration)
    -> Result<Read, Error>;

    /// Describes a stream, `None` if it does not exist.
    ///
    /// # Errors
    ///
    /// [`Error::WrongType`] and those of the connection.
    async fn stream_info(&self, stream: &StreamId) -> Result<Option<StreamInfo>, Error>;

    /// Describes a stream with its groups, as of one moment, `None` if it does not exist. It costs more than
    /// [`Backend::stream_info`] and [`Backend::group_info`]: it is for people and gauges, not for every event.
    ///
    /// # Errors
    ///
    /// [`Error::WrongType`] and those of the connection.
    async fn stream_detail(&self, stream: &StreamId) -> Result<Option<StreamDetail>, Error>;

    /// Creates a consumer group with its cursor at `start`, and the stream if need be. Returns `false`, and leaves the
    /// cursor alone, if the group exists already.
    ///
    /// # Errors
    ///
    /// [`Error::WrongType`] and those of the connection.
    async fn group_create(&self, stream: &StreamId, group: &Group, start: GroupStart) -> Result<bool, Error>;

    /// Removes a consumer group with its cursor and pending list. Returns whether there was one.
    ///
    /// # Errors
    ///
    /// [`Error::WrongType`] and those of the connection.
    async fn group_destroy(&self, stream: &StreamId, group: &Group) -> Result<bool, Error>;

    /// Hands the next events after the group's cursor to a consumer, up to `limit`, oldest first; waits up to `wait`
    /// for the first one if there is none. The cursor moves past them, and they are pending for the consumer, each with
    /// a delivery count of 1, until acknowledged; with [`Acks::None`] they are not, and count as acknowledged at once.
    /// The consumer exists from the first event that it was handed on; a read that found nothing may create it too.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped after the backend had handed events out for it, the next call for the same consumer
    /// with [`Acks::Explicit`] through the same backend returns those first that are still pending for it. With
    /// [`Acks::None`], what a dropped call was handed is lost. Waiting itself has no effect and ends promptly.
    ///
    /// # Errors
    ///
    /// [`Error::NoGroup`] (also when the group or its stream vanishes during the wait), [`Error::WrongType`], and
    /// those of the connection. After an unknown outcome, events may be pending that no call returned; they come back
    /// through [`Backend::group_claim`]. With [`Acks::None`] they do not.
    async fn group_read(
        &self,
        stream: &StreamId,
        group: &Group,
        consumer: &Consumer,
        limit: usize,
        wait: Duration,
        acks: Acks,
    ) -> Result<Vec<Delivery>, Error>;

    /// Takes over up to `limit` pending events, oldest first, that have been idle for at least `min_idle`, whichever
    /// consumer they are pending for. They become pending for `consumer`, their idle time starts again, and their
    /// delivery count rises by one. Those among them that were deleted from the stream are removed from the pending
    /// list instead and reported in [`Claimed::deleted`]; they count towards the limit.
    ///
    /// # Errors
    ///
    /// [`Error::NoGroup`], [`Error::WrongType`], and those of the connection.
    async fn group_claim(
        &self,
        stream: &StreamId,
        group: &Group,
        consumer: &Consumer,
        min_idle: Duration,
        limit: usize,
    ) -> Result<Claimed, Error>;

    /// Sets the idle time of those of the events that are pending for this consumer, and returns which they are. Zero
    /// keeps an event from being claimed; a long time offers it to the next claim, and one of more than [`MAX_IDLE`] acts
    /// as that. Delivery counts stay. The idle time
    /// of one that was deleted from the stream may stay as it is.
    ///
    /// # Errors
    ///
    /// [`Error::NoGroup`], [`Error::WrongType`], and those of the connection.
    async fn group_set_idle(
        &self,
        stream: &StreamId,
        group: &Group,
        consumer: &Consumer,
        ids: &[EventId],
        idle: Duration,
    ) -> Result<Vec<EventId>, Error>;

    /// Lists pending events, oldest first.
    ///
    /// # Errors
    ///
    /// [`Error::NoGroup`], [`Error::WrongType`], and those of the connection.
    async fn group_pending(
        &self,
        stream: &StreamId,
        group: &Group,
        query: PendingQuery,
    ) -> Result<Vec<PendingEvent>, Error>;

    /// Describes a consumer group, `None` if it or its stream does not exist.
    ///
    /// # Errors
    ///
    /// [`Error::WrongType`] and those of the connection.
    async fn group_info(&self, stream: &StreamId, group: &Group) -> Result<Option<GroupInfo>, Error>;

    /// Takes what trims took from a group before it was handed out, `None` if that is nothing, or if there is no such
    /// group. Whoever is returned it is the only one: the record is cleared.
    ///
    /// Every trim of a commit records what it dropped beyond the group's cursor; trims that follow each other before
    /// the record is taken make one record. Events that are deleted by their ids are not recorded, and the record ends
    /// with its group or stream. The backend over Redis counts the events unless very many had been handed out before
    /// those that were dropped.
    ///
    /// What others trim past the backend (an operator, a producer that is not of Pulse) is found out by this call, by the
    /// server's counters: exactly, if it is made before the group reads on; afterwards only on servers that count what a
    /// group was handed rather than where it stands (Redis up to 7.2), and then without a known cursor. Nothing is found
    /// out on a stream from which single events were deleted, nor of what was trimmed between the last call before a
    /// restart or failover of the server and the first one after it.
    ///
    /// # Cancel safety
    ///
    /// A dropped call may take the record with it, as may one of unknown outcome.
    ///
    /// # Errors
    ///
    /// [`Error::WrongType`], [`Error::Corrupt`], and those of the connection.
    async fn group_missed(&self, stream: &StreamId, group: &Group) -> Result<Option<Missed>, Error>;

    /// Removes a consumer that has no pending events. Returns `false`, and leaves it alone, if it has some; `true` if
    /// it is gone, also if it never was.
    ///
    /// # Errors
    ///
    /// [`Error::NoGroup`], [`Error::WrongType`], and those of the connection.
    async fn group_remove_consumer(&self, stream: &StreamId, group: &Group, consumer: &Consumer)
    -> Result<bool, Error>;

    /// Removes what has passed its deadline in a scope: expired leases with every entry bound to them, entries with a
    /// lifetime of their own, expired maps. Each map that changes is changed by one commit like any other, seen by its
    /// feeds. One call does a bounded amount of work; [`Swept::next_deadline`] says when to call again.
    ///
    /// # Errors
    ///
    /// Those of the connection. Calling it again is always safe.
    async fn sweep(&self, scope: &Scope) -> Result<Swept, Error>;

    /// Reads the clock that deadlines of this scope are judged by.
    ///
    /// # Errors
    ///
    /// Those of the connection.
    async fn server_time(&self, scope: &Scope) -> Result<ServerTime, Error>;

    /// Names the run of the server that holds this scope. It has another name after a restart and after a failover,
    /// through which writes may be lost that were confirmed; so whoever must not rely on what is lost can tell. `None`
    /// if the backend cannot.
    ///
    /// # Errors
    ///
    /// Those of the connection.
    async fn server_run(&self, scope: &Scope) -> Result<Option<String>, Error> {
        let _ = scope;
        Ok(None)
    }

    /// Ends all feeds and waits, and closes the connections. Calls that still wait and calls after it fail with
    /// [`Error::Closed`]. Safe to call twice. Other clients of the same store are not disturbed.
    async fn close(&self);
}
