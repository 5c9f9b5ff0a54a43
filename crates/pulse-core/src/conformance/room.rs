//! A scope of one check's own, and short ways to say what the check says.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;

use super::{Subject, eventually, soon};
use crate::{
    Acks, Backend, Change, Committed, Consumer, Delivery, Entry, Error, EventId, FeedItem, Group, GroupStart, LeaseId,
    Limits, MapCommit, MapFeed, MapId, NewEvent, Scope, StreamId, Swept, Transaction, Version,
};

/// Long enough that it does not pass during a check.
pub(super) const LONG: Duration = Duration::from_secs(3600);
/// Short enough to wait for.
pub(super) const SHORT: Duration = Duration::from_millis(60);
/// Long enough that the next call comes before its end also on a busy machine, and still short enough to wait for.
pub(super) const MODERATE: Duration = Duration::from_millis(1500);
/// Longer than any call should take, and what a call that should wait "for ever" is given.
pub(super) const WAIT: Duration = Duration::from_secs(15);

/// The content of a map.
pub(super) type Content = BTreeMap<String, Bytes>;

/// A fresh scope, seen through one client.
#[derive(Clone)]
pub(super) struct Room {
    subject: Subject,
    pub(super) backend: Arc<dyn Backend>,
    pub(super) scope: Scope,
}

impl Room {
    /// Opens a client, and draws a scope that nobody has used.
    pub(super) async fn open(subject: &Subject) -> Self {
        Self::with_limits(subject, Limits::default()).await
    }

    pub(super) async fn with_limits(subject: &Subject, limits: Limits) -> Self {
        let name: u64 = rand::random();
        let scope = valid(Scope::new(format!("conformance-{name:016x}")));
        Self { subject: subject.clone(), backend: subject.open(limits).await, scope }
    }

    /// The same scope through another client.
    pub(super) async fn other_client(&self) -> Self {
        let backend = self.subject.open(Limits::default()).await;
        Self { subject: self.subject.clone(), backend, scope: self.scope.clone() }
    }

    /// Another scope through the same client.
    pub(super) fn in_scope(&self, name: &str) -> Self {
        Self { scope: valid(Scope::new(name)), ..self.clone() }
    }

    pub(super) fn begin(&self) -> Transaction {
        Transaction::new(&self.scope)
    }

    /// Commits what must succeed.
    pub(super) async fn commit(&self, transaction: Transaction) -> Committed {
        let shown = format!("{transaction:?}");
        match self.backend.commit(transaction).await {
            Ok(committed) => committed,
            Err(error) => panic!("this should have been committed: {shown}\nbut: {error:?}"),
        }
    }

    /// Commits what must be refused.
    pub(super) async fn refused(&self, transaction: Transaction) -> Error {
        let shown = format!("{transaction:?}");
        match self.backend.commit(transaction).await {
            Ok(committed) => panic!("this should have been refused: {shown}\nbut: {committed:?}"),
            Err(error) => error,
        }
    }

    /// Whether a transaction of only this expectation goes through.
    pub(super) async fn holds(&self, expectation: Transaction) -> bool {
        match self.backend.commit(expectation).await {
            Ok(_) => true,
            Err(error) if error.is_conflict() => false,
            Err(error) => panic!("an expectation met {error:?}"),
        }
    }

    pub(super) fn map(&self, name: &str) -> MapId {
        valid(self.scope.map(name))
    }

    pub(super) fn stream(&self, name: &str) -> StreamId {
        valid(self.scope.stream(name))
    }

    pub(super) async fn get(&self, map: &str, key: &str) -> Option<Bytes> {
        let values = done(self.backend.map_get(&self.map(map), &[key]).await);
        assert_eq!(values.len(), 1, "one key was asked for");
        values.into_iter().next().flatten()
    }

    pub(super) async fn version(&self, map: &str) -> Option<Version> {
        done(self.backend.map_version(&self.map(map)).await)
    }

    /// The revision of a map that must exist.
    pub(super) async fn revision(&self, map: &str) -> u64 {
        match self.version(map).await {
            Some(version) => version.revision.0,
            None => panic!("map {map} does not exist"),
        }
    }

    /// All pages of a map.
    pub(super) async fn content(&self, map: &str) -> Content {
        let map = self.map(map);
        let mut content = Content::new();
        let mut cursor = None;
        loop {
            let page = done(self.backend.map_page(&map, cursor.as_ref(), 100).await);
            assert_eq!(page.skipped, 0, "nobody wrote keys that are not UTF-8");
            content.extend(page.entries.into_iter().map(|(key, value)| (key.to_string(), value)));
            match page.next {
                Some(next) => cursor = Some(next),
                None => return content,
            }
        }
    }

    pub(super) async fn feed(&self, map: &str) -> MapFeed {
        done(self.backend.map_feed(&self.map(map)).await)
    }

    pub(super) async fn append(&self, stream: &str, name: &str) -> EventId {
        let committed = self.commit(self.begin().append(stream, NewEvent::new(name, "payload"))).await;
        match committed.event_id(0) {
            Some(id) => id,
            None => panic!("an append gave {committed:?} in place of an event id"),
        }
    }

    pub(super) async fn append_many(&self, stream: &str, count: usize) -> Vec<EventId> {
        let fill = (0..count).fold(self.begin(), |transaction, i| {
            transaction.append(stream, NewEvent::new(format!("event-{i}"), "payload"))
        });
        let committed = self.commit(fill).await;
        (0..count).filter_map(|i| committed.event_id(i)).collect()
    }

    /// Everything in a stream, without waiting.
    pub(super) async fn read(&self, stream: &str) -> Vec<Entry> {
        done(self.backend.stream_read(&self.stream(stream), EventId::ZERO, 10_000, Duration::ZERO).await).entries
    }

    pub(super) async fn ids(&self, stream: &str) -> Vec<EventId> {
        self.read(stream).await.into_iter().map(|entry| entry.id).collect()
    }

    pub(super) async fn group(&self, stream: &str, group: &str) -> Group {
        let group = valid(Group::new(group));
        let created = done(self.backend.group_create(&self.stream(stream), &group, GroupStart::Oldest).await);
        assert!(created, "the group is new");
        group
    }

    /// Reads for a consumer what there is, without waiting.
    pub(super) async fn take(&self, stream: &str, group: &Group, consumer: &str, limit: usize) -> Vec<Delivery> {
        let consumer = valid(Consumer::new(consumer));
        done(
            self.backend
                .group_read(&self.stream(stream), group, &consumer, limit, Duration::ZERO, Acks::Explicit)
                .await,
        )
    }

    pub(super) async fn sweep(&self) -> Swept {
        done(self.backend.sweep(&self.scope).await)
    }

    /// Sweeps until `enough` says so of all that was swept, and returns the leases and the number of entries.
    pub(super) async fn sweep_until(&self, what: &str, enough: impl Fn(&Swept) -> bool) -> Swept {
        let mut total = Swept::default();
        eventually(what, async || {
            let swept = self.sweep().await;
            total.leases.extend(swept.leases);
            total.entries += swept.entries;
            total.next_deadline = swept.next_deadline;
            if enough(&total) { Ok(total.clone()) } else { Err(total.clone()) }
        })
        .await
    }

    /// Waits until a lease has run out by the backend's clock.
    pub(super) async fn outlive(&self, lease: LeaseId) {
        eventually("the lease has run out", async || {
            let expired = self.holds(self.begin().expect_lease_expired(lease)).await;
            if expired { Ok(()) } else { Err("it is alive") }
        })
        .await;
    }

    /// Waits until so much time has passed by the backend's clock.
    pub(super) async fn let_pass(&self, time: Duration) {
        let start = done(self.backend.server_time(&self.scope).await);
        eventually("time has passed", async || {
            let passed = done(self.backend.server_time(&self.scope).await).since(start);
            if passed > time { Ok(()) } else { Err(passed) }
        })
        .await;
    }
}

/// What must not fail.
#[track_caller]
pub(super) fn done<T>(result: Result<T, Error>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("this should have succeeded: {error:?}"),
    }
}

/// Names that are valid.
#[track_caller]
pub(super) fn valid<T>(name: Result<T, Error>) -> T {
    done(name)
}

pub(super) fn consumer(name: &str) -> Consumer {
    valid(Consumer::new(name))
}

pub(super) fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

pub(super) fn ids_of(deliveries: &[Delivery]) -> Vec<EventId> {
    deliveries.iter().map(|delivery| delivery.entry.id).collect()
}

/// The next commit of a feed, which must come soon and without a gap.
pub(super) async fn next_commit(feed: &mut MapFeed) -> MapCommit {
    match soon("the next commit of the feed", feed.next()).await {
        Some(FeedItem::Commit(commit)) => commit,
        other => panic!("expected a commit from the feed, got {other:?}"),
    }
}

/// Applies a commit to a copy of the map.
pub(super) fn apply(content: &mut Content, commit: &MapCommit) {
    for change in &commit.changes {
        match change {
            Change::Put { key, value } => {
                content.insert(key.to_string(), value.clone());
            }
            Change::Deleted { key } => {
                content.remove(&**key);
            }
            Change::Cleared | Change::Destroyed => content.clear(),
        }
    }
}
