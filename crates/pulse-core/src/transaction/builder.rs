//! Putting a transaction together.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;

use super::{Binding, Deadline, Duplicates, Expectation, Once, Trim, Write};
use crate::{Error, EventId, Group, LeaseId, Limits, NewEvent, Scope, Session, Version};

/// Expectations and writes on one scope, committed together or not at all.
///
/// ```
/// # use pulse_core::{NewEvent, Scope, Transaction};
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), pulse_core::Error> {
/// let client = pulse_core::connect("memory:").await?;
/// let scope = Scope::new("orders")?;
/// // The map and the event: both, or neither.
/// let committed = client
///     .commit(
///         Transaction::new(&scope)
///             .expect_absent("open", "7")
///             .put("open", "7", "new")
///             .append("log", NewEvent::new("opened", "7")),
///     )
///     .await?;
/// assert_eq!(committed.version("open").unwrap().revision.0, 1);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a transaction does nothing until it is committed"]
pub struct Transaction {
    scope: Scope,
    expectations: Vec<Expectation>,
    writes: Vec<Write>,
    without_previous: bool,
    /// What belongs to another scope and was put into it all the same: the first such thing, and its scope.
    foreign: Option<Box<(String, Scope)>>,
}

impl Transaction {
    /// An empty transaction on a scope.
    pub fn new(scope: &Scope) -> Self {
        Self {
            scope: scope.clone(),
            expectations: Vec::new(),
            writes: Vec::new(),
            without_previous: false,
            foreign: None,
        }
    }

    /// Leaves out of the results what puts and deletions replace: they are
    /// [`WriteResult::Done`](super::WriteResult::Done) then. It need not be read, nor travel, where nobody asks for it.
    pub fn without_previous(mut self) -> Self {
        self.without_previous = true;
        self
    }

    /// Whether the results of puts and deletions leave out what was replaced.
    #[must_use]
    pub fn is_without_previous(&self) -> bool {
        self.without_previous
    }

    /// Says that what is added here belongs to that scope. If it is another one than that of the transaction, the commit
    /// is refused with [`Error::OtherScope`], which names the subject and both scopes.
    ///
    /// Maps and streams are named inside the transaction's scope, so one of another scope would silently be taken for
    /// its namesake there. Whatever adds to a transaction of its caller calls this first.
    ///
    /// ```
    /// # use pulse_core::{Error, NewEvent, Scope, Transaction};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), pulse_core::Error> {
    /// # let client = pulse_core::connect("memory:").await?;
    /// let (orders, log) = (Scope::new("orders")?, Scope::new("audit")?.stream("log")?);
    /// let opened = Transaction::new(&orders)
    ///     .put("open", "7", "new")
    ///     .within(log.scope(), format_args!("stream {log}"))
    ///     .append(log.name().clone(), NewEvent::new("opened", "7"));
    /// assert!(matches!(client.commit(opened).await, Err(Error::OtherScope { .. })));
    /// # Ok(()) }
    /// ```
    pub fn within(mut self, scope: &Scope, subject: impl fmt::Display) -> Self {
        if self.foreign.is_none() && *scope != self.scope {
            self.foreign = Some(Box::new((subject.to_string(), scope.clone())));
        }
        self
    }

    /// Adds an expectation.
    pub fn expect(mut self, expectation: Expectation) -> Self {
        self.expectations.push(expectation);
        self
    }

    /// Adds a write; its result will stand at the same place in [`Committed::results`](super::Committed::results).
    pub fn write(mut self, write: Write) -> Self {
        self.writes.push(match write {
            Write::TrimStream { stream, trim } => Write::TrimStream { stream, trim: trim.bounded() },
            write => write,
        });
        self
    }

    /// Expects that the map has the key with exactly this value.
    pub fn expect_equals(self, map: impl Into<Arc<str>>, key: impl Into<Arc<str>>, value: impl Into<Bytes>) -> Self {
        self.expect(Expectation::Equals { map: map.into(), key: key.into(), value: value.into() })
    }

    /// Expects that the map does not have the key.
    pub fn expect_absent(self, map: impl Into<Arc<str>>, key: impl Into<Arc<str>>) -> Self {
        self.expect(Expectation::Absent { map: map.into(), key: key.into() })
    }

    /// Expects that the map has the key.
    pub fn expect_present(self, map: impl Into<Arc<str>>, key: impl Into<Arc<str>>) -> Self {
        self.expect(Expectation::Present { map: map.into(), key: key.into() })
    }

    /// Expects that the map is at exactly this version; `None`: that it does not exist.
    pub fn expect_version(self, map: impl Into<Arc<str>>, version: Option<Version>) -> Self {
        self.expect(Expectation::Version { map: map.into(), version })
    }

    /// Expects that the map has fewer than that many entries.
    pub fn expect_fewer_than(self, map: impl Into<Arc<str>>, entries: u64) -> Self {
        self.expect(Expectation::FewerThan { map: map.into(), entries })
    }

    /// Expects that the session's lease is alive. The session must be one of this scope, or the commit is refused with
    /// [`Error::OtherScope`].
    pub fn expect_session(self, session: &Session) -> Self {
        let lease = session.lease();
        self.within(session.scope(), format_args!("the session with lease {lease}")).expect_lease_alive(lease)
    }

    /// Expects that the lease, one of this scope, is alive. Where there is a [`Session`], use
    /// [`expect_session`](Self::expect_session), which knows whether it is.
    pub fn expect_lease_alive(self, lease: LeaseId) -> Self {
        self.expect(Expectation::LeaseAlive { lease })
    }

    /// Expects that the lease has expired or does not exist.
    pub fn expect_lease_expired(self, lease: LeaseId) -> Self {
        self.expect(Expectation::LeaseExpired { lease })
    }

    /// Expects that the stream exists.
    pub fn expect_stream(self, stream: impl Into<Arc<str>>) -> Self {
        self.expect(Expectation::StreamExists { stream: stream.into() })
    }

    /// Expects that the stream has fewer than that many entries.
    pub fn expect_shorter_than(self, stream: impl Into<Arc<str>>, length: u64) -> Self {
        self.expect(Expectation::ShorterThan { stream: stream.into(), length })
    }

    /// Sets a key for good.
    pub fn put(self, map: impl Into<Arc<str>>, key: impl Into<Arc<str>>, value: impl Into<Bytes>) -> Self {
        self.put_bound(map, key, value, Binding::Permanent)
    }

    /// Sets a key for as long as the binding says.
    pub fn put_bound(
        self,
        map: impl Into<Arc<str>>,
        key: impl Into<Arc<str>>,
        value: impl Into<Bytes>,
        binding: impl Into<Binding>,
    ) -> Self {
        self.write(Write::Put { map: map.into(), key: key.into(), value: value.into(), binding: binding.into() })
    }

    /// Deletes a key.
    pub fn delete(self, map: impl Into<Arc<str>>, key: impl Into<Arc<str>>) -> Self {
        self.write(Write::Delete { map: map.into(), key: key.into() })
    }

    /// Adds to a counter. One that begins here is permanent.
    pub fn add(self, map: impl Into<Arc<str>>, key: impl Into<Arc<str>>, delta: i64) -> Self {
        self.add_bound(map, key, delta, Binding::Permanent)
    }

    /// Adds to a counter. One that begins here lives for as long as the binding says; one that was there keeps its own.
    pub fn add_bound(
        self,
        map: impl Into<Arc<str>>,
        key: impl Into<Arc<str>>,
        delta: i64,
        binding: impl Into<Binding>,
    ) -> Self {
        self.write(Write::Add { map: map.into(), key: key.into(), delta, binding: binding.into() })
    }

    /// Appends items to a list.
    pub fn list_append(
        self,
        map: impl Into<Arc<str>>,
        key: impl Into<Arc<str>>,
        items: Vec<Bytes>,
        duplicates: Duplicates,
    ) -> Self {
        self.write(Write::ListAppend { map: map.into(), key: key.into(), items, duplicates })
    }

    /// Removes items from a list.
    pub fn list_remove(self, map: impl Into<Arc<str>>, key: impl Into<Arc<str>>, items: Vec<Bytes>) -> Self {
        self.write(Write::ListRemove { map: map.into(), key: key.into(), items })
    }

    /// Deletes all keys of a map.
    pub fn clear(self, map: impl Into<Arc<str>>) -> Self {
        self.write(Write::Clear { map: map.into() })
    }

    /// Removes a map altogether.
    pub fn destroy_map(self, map: impl Into<Arc<str>>) -> Self {
        self.write(Write::DestroyMap { map: map.into() })
    }

    /// Sets when a map expires.
    pub fn expire_map(self, map: impl Into<Arc<str>>, deadline: Deadline) -> Self {
        self.write(Write::ExpireMap { map: map.into(), deadline })
    }

    /// Appends an event.
    pub fn append(self, stream: impl Into<Arc<str>>, event: NewEvent) -> Self {
        self.write(Write::Append { stream: stream.into(), event, once: None })
    }

    /// Appends an event unless one was appended by the same once-id already.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use pulse_core::{NewEvent, Once, Scope, Transaction};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), pulse_core::Error> {
    /// let client = pulse_core::connect("memory:").await?;
    /// let scope = Scope::new("orders")?;
    /// let append = || {
    ///     let once = Once::new("order-7-paid", Duration::from_secs(3600));
    ///     Transaction::new(&scope).append_once("log", NewEvent::new("paid", "7"), once)
    /// };
    /// let first = client.commit(append()).await?.event_id(0);
    /// let again = client.commit(append()).await?.event_id(0);
    /// assert_eq!(first, again);
    /// # Ok(()) }
    /// ```
    pub fn append_once(self, stream: impl Into<Arc<str>>, event: NewEvent, once: Once) -> Self {
        self.write(Write::Append { stream: stream.into(), event, once: Some(once) })
    }

    /// Drops old events.
    pub fn trim_stream(self, stream: impl Into<Arc<str>>, trim: Trim) -> Self {
        self.write(Write::TrimStream { stream: stream.into(), trim })
    }

    /// Deletes single events.
    pub fn delete_events(self, stream: impl Into<Arc<str>>, ids: Vec<EventId>) -> Self {
        self.write(Write::DeleteEvents { stream: stream.into(), ids })
    }

    /// Acknowledges events for a consumer group.
    pub fn ack(self, stream: impl Into<Arc<str>>, group: &Group, ids: Vec<EventId>) -> Self {
        self.write(Write::Ack { stream: stream.into(), group: group.clone(), ids })
    }

    /// Removes a stream altogether.
    pub fn destroy_stream(self, stream: impl Into<Arc<str>>) -> Self {
        self.write(Write::DestroyStream { stream: stream.into() })
    }

    /// Sets when a stream expires.
    pub fn expire_stream(self, stream: impl Into<Arc<str>>, deadline: Deadline) -> Self {
        self.write(Write::ExpireStream { stream: stream.into(), deadline })
    }

    /// Begins a lease.
    pub fn grant_lease(self, lease: LeaseId, ttl: Duration) -> Self {
        self.write(Write::GrantLease { lease, ttl })
    }

    /// Renews a lease.
    pub fn renew_lease(self, lease: LeaseId, ttl: Duration) -> Self {
        self.write(Write::RenewLease { lease, ttl })
    }

    /// Ends a lease.
    pub fn drop_lease(self, lease: LeaseId) -> Self {
        self.write(Write::DropLease { lease })
    }

    /// The scope.
    #[must_use]
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// The expectations, in order.
    #[must_use]
    pub fn expectations(&self) -> &[Expectation] {
        &self.expectations
    }

    /// The writes, in order.
    #[must_use]
    pub fn writes(&self) -> &[Write] {
        &self.writes
    }

    /// Takes the transaction apart. Put together again it is not [without](Self::without_previous) anything, and does not
    /// know any more that something was not [within](Self::within) its scope.
    #[must_use]
    pub fn into_parts(self) -> (Scope, Vec<Expectation>, Vec<Write>) {
        (self.scope, self.expectations, self.writes)
    }

    /// Whether committing it once more after it took effect leaves everything as it is after the first time: only
    /// acknowledgements, event deletions, lease operations and appends made [once](Once) (within their window) do, and
    /// only where nothing is expected.
    #[must_use]
    pub fn is_idempotent(&self) -> bool {
        self.expectations.is_empty()
            && self.writes.iter().all(|write| {
                matches!(
                    write,
                    Write::Ack { .. }
                        | Write::DeleteEvents { .. }
                        | Write::GrantLease { .. }
                        | Write::RenewLease { .. }
                        | Write::DropLease { .. }
                        | Write::Append { once: Some(_), .. }
                )
            })
    }

    /// Checks names, sizes and durations against the limits. Every backend calls this first.
    ///
    /// # Errors
    ///
    /// [`Error::OtherScope`], [`Error::InvalidName`], [`Error::InvalidRequest`] or [`Error::LimitExceeded`].
    pub fn validate(&self, limits: &Limits) -> Result<(), Error> {
        if let Some(foreign) = &self.foreign {
            return Err(super::validate::other_scope(self, &foreign.0, &foreign.1));
        }
        super::validate::validate(self, limits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin() -> Transaction {
        Transaction::new(&Scope::new("s").expect("a valid name"))
    }

    #[test]
    fn only_what_may_be_repeated_counts_as_idempotent() {
        let group = Group::new("g").expect("a valid name");
        let ttl = Duration::from_secs(1);
        assert!(begin().is_idempotent(), "nothing may be done twice");
        let repeatable = begin()
            .ack("e", &group, vec![EventId::ZERO])
            .delete_events("e", vec![EventId::ZERO])
            .grant_lease(LeaseId(1), ttl)
            .renew_lease(LeaseId(1), ttl)
            .drop_lease(LeaseId(2))
            .append_once("e", NewEvent::new("n", "p"), Once::new("id", ttl));
        assert!(repeatable.is_idempotent());
        assert!(!repeatable.clone().expect_lease_alive(LeaseId(1)).is_idempotent());
        for once in [
            begin().put("m", "k", "v"),
            begin().delete("m", "k"),
            begin().add("m", "k", 0),
            begin().clear("m"),
            begin().append("e", NewEvent::new("n", "p")),
            begin().trim_stream("e", Trim::MaxLength { length: 1, approximate: true }),
            begin().destroy_stream("e"),
            begin().expire_map("m", Deadline::Never),
        ] {
            assert!(!once.is_idempotent(), "{once:?}");
        }
    }

    #[test]
    fn the_parts_come_out_in_the_order_they_went_in() {
        let built = begin().put("m", "a", "1").expect_absent("m", "a").delete("m", "b").expect_stream("e");
        let (scope, expectations, writes) = built.clone().into_parts();
        assert_eq!((scope.as_str(), &expectations[..], &writes[..]), ("s", built.expectations(), built.writes()));
        assert!(matches!(expectations[..], [Expectation::Absent { .. }, Expectation::StreamExists { .. }]));
        assert!(matches!(writes[..], [Write::Put { binding: Binding::Permanent, .. }, Write::Delete { .. }]));
    }
}
