//! What a transaction changes.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use crate::{EventId, Group, LeaseId, NewEvent, Scope, Session};

/// How long a map entry lives.
///
/// Every write to a key replaces the binding that the key had before. Deleting the key removes it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Binding {
    /// Until it is deleted.
    #[default]
    Permanent,
    /// Until the lease expires or is dropped. The lease must be alive at the commit (an earlier write of the same
    /// transaction may have granted it), else the transaction fails with
    /// [`Error::LeaseLost`](crate::Error::LeaseLost). A lease belongs to one scope, which its id alone does not tell:
    /// where there is a [`Session`], bind to that.
    Lease(LeaseId),
    /// Until the lease of a [`Session`] expires or is dropped, as by [`Lease`](Self::Lease). A transaction of another
    /// scope is refused with [`Error::OtherScope`](crate::Error::OtherScope).
    Session {
        /// The lease.
        lease: LeaseId,
        /// The scope that it was granted in.
        scope: Scope,
    },
    /// For this long from the commit, by the server's clock, at a resolution of one millisecond.
    Ttl(Duration),
}

impl Binding {
    /// The lease that the entry hangs on, if it does.
    #[must_use]
    pub fn lease(&self) -> Option<LeaseId> {
        match self {
            Self::Lease(lease) | Self::Session { lease, .. } => Some(*lease),
            Self::Permanent | Self::Ttl(_) => None,
        }
    }
}

impl From<Duration> for Binding {
    fn from(ttl: Duration) -> Self {
        Self::Ttl(ttl)
    }
}

impl From<LeaseId> for Binding {
    fn from(lease: LeaseId) -> Self {
        Self::Lease(lease)
    }
}

impl From<&Session> for Binding {
    fn from(session: &Session) -> Self {
        Self::Session { lease: session.lease(), scope: session.scope().clone() }
    }
}

/// How the lifetime of a whole map or stream is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Deadline {
    /// That long from the commit, unless a deadline stands already: an absolute lifetime, set by the first write.
    IfUnset(Duration),
    /// That long from the commit, whatever stood before: a sliding lifetime, renewed by each write.
    Renew(Duration),
    /// None any more.
    Never,
}

/// Which events of a stream to drop from its old end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Trim {
    /// All but the newest `length`.
    MaxLength {
        /// How many stay. More than 2^53, which no stream has, acts as that.
        length: u64,
        /// Whether a few more may stay where that makes trimming cheaper (Redis drops whole nodes of about a hundred).
        approximate: bool,
    },
    /// All before this id.
    Before {
        /// The first id that stays.
        id: EventId,
        /// Whether a few more may stay where that makes trimming cheaper.
        approximate: bool,
    },
    /// All that were appended longer ago than this, by the server's clock: whose id's milliseconds lie before then.
    OlderThan {
        /// The greatest age of an event that stays, at a resolution of one millisecond.
        age: Duration,
        /// Whether a few more may stay where that makes trimming cheaper.
        approximate: bool,
    },
    /// All that every consumer group has been handed and has acknowledged: everything before the oldest event that is
    /// pending or was not handed out yet in any group. A stream without groups loses nothing.
    Consumed,
}

impl Trim {
    /// The same, within the numbers that servers and their scripts hold exactly.
    pub(super) fn bounded(self) -> Self {
        const MOST: u64 = 1 << 53;
        match self {
            Self::MaxLength { length, approximate } => Self::MaxLength { length: length.min(MOST), approximate },
            other => other,
        }
    }
}

/// One change. Maps and streams are named inside the transaction's scope.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Write {
    /// Sets a key. Result: [`WriteResult::Previous`](super::WriteResult::Previous), unless the transaction is
    /// [without](super::Transaction::without_previous).
    Put {
        /// The map.
        map: Arc<str>,
        /// The key.
        key: Arc<str>,
        /// The new value.
        value: Bytes,
        /// How long the entry lives.
        binding: Binding,
    },
    /// Deletes a key; no change if it is absent. Result: [`WriteResult::Previous`](super::WriteResult::Previous),
    /// unless the transaction is [without](super::Transaction::without_previous).
    Delete {
        /// The map.
        map: Arc<str>,
        /// The key.
        key: Arc<str>,
    },
    /// Adds to a counter: a value that is a signed 64-bit integer in decimal ASCII, without a plus sign or leading
    /// zeros; an absent key counts as 0. A key that is there keeps its binding, one that is absent gets the one given
    /// here. Another value, or a sum that leaves the range, fails the transaction with
    /// [`Error::WrongValue`](crate::Error::WrongValue). Result: [`WriteResult::Counter`](super::WriteResult::Counter).
    Add {
        /// The map.
        map: Arc<str>,
        /// The key.
        key: Arc<str>,
        /// What to add; may be negative.
        delta: i64,
        /// How long the entry lives if this write makes it. A lease must be alive in any case.
        binding: Binding,
    },
    /// Appends items to a list: a value that is a MessagePack array of byte strings (the `bin` family, each in its
    /// shortest form); an absent key counts as an empty list. No change if there is nothing to append. Keeps the key's
    /// binding. Another value fails the transaction with [`Error::WrongValue`](crate::Error::WrongValue). Result:
    /// [`WriteResult::List`](super::WriteResult::List).
    ListAppend {
        /// The map.
        map: Arc<str>,
        /// The key.
        key: Arc<str>,
        /// The items, in order.
        items: Vec<Bytes>,
        /// What to do with items that the list has already.
        duplicates: Duplicates,
    },
    /// Removes every occurrence of the items from a list; a list left empty is deleted with its key. No change if none
    /// occurs. Keeps the key's binding. A value that is no list fails the transaction with
    /// [`Error::WrongValue`](crate::Error::WrongValue). Result: [`WriteResult::List`](super::WriteResult::List).
    ListRemove {
        /// The map.
        map: Arc<str>,
        /// The key.
        key: Arc<str>,
        /// The items.
        items: Vec<Bytes>,
    },
    /// Deletes all keys of a map; the map itself, its version and its deadline stay. A change also of a map that is empty,
    /// but not of one that does not exist. Result: [`WriteResult::Count`](super::WriteResult::Count) of the deleted keys.
    Clear {
        /// The map.
        map: Arc<str>,
    },
    /// Removes a map with its version and deadline; the next write begins a new incarnation. No change if it does not
    /// exist. Result: [`WriteResult::Count`](super::WriteResult::Count) of the deleted keys.
    DestroyMap {
        /// The map.
        map: Arc<str>,
    },
    /// Sets when a map expires: it is then removed as by [`Write::DestroyMap`], and nothing of it stays. Not a change by
    /// itself; no effect on a map that does not exist after the transaction's other writes. Result:
    /// [`WriteResult::Done`](super::WriteResult::Done).
    ExpireMap {
        /// The map.
        map: Arc<str>,
        /// When.
        deadline: Deadline,
    },
    /// Appends an event, creating the stream if need be; or, with a [`Once`] that names what was appended already, adds
    /// nothing and yields the id that the first event was given. Result:
    /// [`WriteResult::Event`](super::WriteResult::Event).
    Append {
        /// The stream.
        stream: Arc<str>,
        /// The event.
        event: NewEvent,
        /// What it is recognised by, if it is to be appended only once.
        once: Option<Once>,
    },
    /// Drops old events. Result: [`WriteResult::Count`](super::WriteResult::Count) of the dropped events.
    TrimStream {
        /// The stream.
        stream: Arc<str>,
        /// Which.
        trim: Trim,
    },
    /// Deletes single events; ids that are not there are ignored. Result:
    /// [`WriteResult::Count`](super::WriteResult::Count) of the deleted events.
    DeleteEvents {
        /// The stream.
        stream: Arc<str>,
        /// Their ids.
        ids: Vec<EventId>,
    },
    /// Acknowledges events for a consumer group: they leave its pending list. Ids that are not pending are ignored,
    /// and so is a group or stream that does not exist. Result: [`WriteResult::Count`](super::WriteResult::Count) of
    /// the events that were pending.
    Ack {
        /// The stream.
        stream: Arc<str>,
        /// The group.
        group: Group,
        /// Their ids.
        ids: Vec<EventId>,
    },
    /// Removes a stream with its groups. Result: [`WriteResult::Count`](super::WriteResult::Count) of its events.
    DestroyStream {
        /// The stream.
        stream: Arc<str>,
    },
    /// Sets when a stream expires and is removed with its groups, by itself and without a sweep; no effect on a stream
    /// that does not exist after the transaction's other writes. Result:
    /// [`WriteResult::Done`](super::WriteResult::Done).
    ExpireStream {
        /// The stream.
        stream: Arc<str>,
        /// When.
        deadline: Deadline,
    },
    /// Begins a lease that expires that long after the commit, by the server's clock. A lease of that id that is alive
    /// is renewed instead, so that repeating a grant of unknown outcome is safe; one that has expired fails the
    /// transaction with [`Error::LeaseLost`](crate::Error::LeaseLost) as long as the backend remembers it. Result:
    /// [`WriteResult::Done`](super::WriteResult::Done).
    GrantLease {
        /// The lease.
        lease: LeaseId,
        /// How long, at a resolution of one millisecond.
        ttl: Duration,
    },
    /// Moves the deadline of a lease that is alive to that long after the commit. A lease whose deadline has passed,
    /// swept or not, or that was dropped or never granted, fails the transaction with
    /// [`Error::LeaseLost`](crate::Error::LeaseLost). Result: [`WriteResult::Done`](super::WriteResult::Done).
    RenewLease {
        /// The lease.
        lease: LeaseId,
        /// How long, at a resolution of one millisecond.
        ttl: Duration,
    },
    /// Ends a lease, whether or not its deadline has passed, and deletes every entry bound to it, as changes of their
    /// maps. Result:
    /// [`WriteResult::Count`](super::WriteResult::Count) of the deleted entries; 0 if there is no such lease.
    DropLease {
        /// The lease.
        lease: LeaseId,
    },
}

/// What an event is recognised by, so that appending it again adds nothing.
///
/// It counts for one stream, for the length of the window after the first append, also if that event was trimmed or
/// deleted since, and vanishes with the stream. Appending again does not prolong the window.
///
/// Because repeating it is safe within the window, a commit whose outcome is unknown may be made again with the same
/// once-id; the backend over Redis does so by itself, where all writes allow it and the window is longer than the
/// command time-out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Once {
    /// Any text that is not empty, up to [`MAX_ONCE_LEN`] bytes.
    pub id: Arc<str>,
    /// How long after the first append the once-id is known, from a millisecond to a hundred years.
    pub window: Duration,
}

impl Once {
    /// Puts one together.
    #[must_use]
    pub fn new(id: impl Into<Arc<str>>, window: Duration) -> Self {
        Self { id: id.into(), window }
    }
}

/// The longest id of a [`Once`], in bytes.
pub const MAX_ONCE_LEN: usize = 1024;

/// What [`Write::ListAppend`] does with items that the list has already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Duplicates {
    /// Appends them once more.
    Keep,
    /// Leaves them out, and also repeats among the new items; no change if nothing is left to append.
    Skip,
}
