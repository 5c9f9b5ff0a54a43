//! The embedded backend: everything in the memory of the process, with the semantics of a server.
//!
//! A [`Memory`] is one client of a store. `memory:` gives each client a store of its own, `memory:NAME` the store of
//! that name, which lives as long as one of its clients. Deadlines follow tokio's clock, so that tests can pause it.
//!
//! - [`store`](self::store): the lock, the clock, who feeds and waits.
//! - [`scope`](self::scope): the content of one scope, in persistent collections, so that a transaction works on a copy
//!   that costs nothing and is thrown away if it fails. That is how "all or nothing" is kept here.
//! - [`commit`](self::commit): transactions. [`groups`](self::groups): consumer groups. [`sweep`](self::sweep):
//!   deadlines.

#[cfg(any(test, feature = "testing"))]
mod checkpoint;
mod commit;
mod groups;
mod scope;
mod store;
mod streams;
mod sweep;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

#[cfg(any(test, feature = "testing"))]
pub use self::checkpoint::Checkpoint;
use self::{
    store::{ClientKey, Store},
    streams::StreamState,
};
use crate::{
    Acks, Backend, Claimed, Committed, Consumer, Cursor, Delivery, Error, EventId, Group, GroupInfo, GroupStart,
    Limits, MAX_LIFETIME, MapFeed, MapId, MapPage, Missed, PendingEvent, PendingQuery, Read, Scope, ServerTime,
    StreamDetail, StreamId, StreamInfo, Swept, Transaction, Version,
};

/// What a cursor begins with; the last key of the page before it follows.
const CURSOR: &str = "after:";

/// A client of an embedded store. Dropping it is like closing it.
///
/// ```
/// # use std::sync::Arc;
/// # use pulse_core::{Client, Limits, Memory};
/// // Two clients of one store, as two processes would have with a server.
/// let store = Memory::with_limits(Limits::default());
/// let one = Client::from_backend(Arc::new(store.another_client()));
/// let two = Client::from_backend(Arc::new(store.another_client()));
/// ```
#[derive(Debug)]
pub struct Memory {
    store: Arc<Store>,
    limits: Limits,
    key: ClientKey,
    closed: CancellationToken,
}

impl Default for Memory {
    fn default() -> Self {
        Self::with_limits(Limits::default())
    }
}

impl Memory {
    /// A client of a new store of its own.
    #[must_use]
    pub fn with_limits(limits: Limits) -> Self {
        Self::of(Arc::new(Store::new("memory:".into())), limits)
    }

    /// A client of the store of that name, which is made if no client of it is left.
    #[must_use]
    pub fn named(name: &str, limits: Limits) -> Self {
        Self::of(Store::named(name), limits)
    }

    /// Another client of the same store, open even if this one is closed.
    #[must_use]
    pub fn another_client(&self) -> Self {
        Self::of(self.store.clone(), self.limits)
    }

    fn of(store: Arc<Store>, limits: Limits) -> Self {
        let key = store.new_client();
        Self { store, limits, key, closed: CancellationToken::new() }
    }

    fn open(&self) -> Result<(), Error> {
        if self.closed.is_cancelled() { Err(Error::Closed) } else { Ok(()) }
    }

    fn end(&self) {
        self.closed.cancel();
        self.store.end_feeds(self.key);
    }

    /// Runs `read` until it finds enough, the wait is over, or the client is closed; each time anything happens to
    /// the stream.
    async fn read_waiting<T>(
        &self,
        stream: &StreamId,
        wait: Duration,
        is_enough: impl Fn(&T) -> bool + Send,
        mut read: impl FnMut() -> Result<T, Error> + Send,
    ) -> Result<T, Error> {
        self.open()?;
        let until = Instant::now() + wait.min(MAX_LIFETIME);
        let bell = self.store.bell(stream);
        loop {
            let rung = bell.notified();
            tokio::pin!(rung);
            // Enabled before the look, so that what happens between the look and the wait is not missed.
            rung.as_mut().enable();
            let found = read()?;
            if is_enough(&found) || wait.is_zero() {
                return Ok(found);
            }
            // A stream that expires during the wait rings no bell.
            let recheck = self.store.stream_deadline(stream).map_or(until, |deadline| deadline.min(until));
            tokio::select! {
                biased;
                () = self.closed.cancelled() => return Err(Error::Closed),
                () = rung => {}
                () = tokio::time::sleep_until(recheck) => {
                    if Instant::now() >= until {
                        return read();
                    }
                }
            }
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.end();
    }
}

#[async_trait]
impl Backend for Memory {
    fn target(&self) -> &str {
        self.store.target()
    }

    fn limits(&self) -> &Limits {
        &self.limits
    }

    async fn commit(&self, transaction: Transaction) -> Result<Committed, Error> {
        self.open()?;
        transaction.validate(&self.limits)?;
        self.store.commit(&transaction, &self.limits)
    }

    async fn map_version(&self, map: &MapId) -> Result<Option<Version>, Error> {
        self.open()?;
        Ok(self.store.read(map.scope(), |scope, _| scope.maps.get(map.name()).map(|map| map.version)))
    }

    async fn map_page(&self, map: &MapId, cursor: Option<&Cursor>, limit: usize) -> Result<MapPage, Error> {
        self.open()?;
        let after = match cursor {
            None => None,
            Some(Cursor(text)) => Some(text.strip_prefix(CURSOR).ok_or_else(|| Error::InvalidRequest {
                subject: format!("map {map}"),
                reason: "the cursor is not one of this backend".into(),
            })?),
        };
        Ok(self.store.read(map.scope(), |scope, _| {
            scope.maps.get(map.name()).map(|map| map.page(after, limit.max(1), CURSOR)).unwrap_or_default()
        }))
    }

    async fn map_get(&self, map: &MapId, keys: &[&str]) -> Result<Vec<Option<Bytes>>, Error> {
        self.open()?;
        Ok(self.store.read(map.scope(), |scope, _| {
            let entries = scope.maps.get(map.name()).map(|map| &map.entries);
            let value = |key: &&str| entries.and_then(|entries| entries.get(*key)).map(|entry| entry.value.clone());
            keys.iter().map(value).collect()
        }))
    }

    async fn map_feed(&self, map: &MapId) -> Result<MapFeed, Error> {
        self.open()?;
        let feed = self.store.feed(self.key, map);
        // A close that came in between has not seen this feed and would never end it.
        self.open()?;
        Ok(feed)
    }

    async fn stream_read(
        &self,
        stream: &StreamId,
        after: EventId,
        limit: usize,
        wait: Duration,
    ) -> Result<Read, Error> {
        let found = |read: &Read| !read.entries.is_empty();
        self.read_waiting(stream, wait, found, || {
            Ok(self.store.read(stream.scope(), |scope, now| {
                scope.live_stream(stream.name(), now).map(|stream| stream.read(after, limit.max(1))).unwrap_or_default()
            }))
        })
        .await
    }

    async fn stream_info(&self, stream: &StreamId) -> Result<Option<StreamInfo>, Error> {
        self.open()?;
        Ok(self.store.read(stream.scope(), |scope, now| scope.live_stream(stream.name(), now).map(StreamState::info)))
    }

    async fn stream_detail(&self, stream: &StreamId) -> Result<Option<StreamDetail>, Error> {
        self.open()?;
        Ok(self
            .store
            .read(stream.scope(), |scope, now| scope.live_stream(stream.name(), now).map(|stream| stream.detail(now))))
    }

    async fn group_create(&self, stream: &StreamId, group: &Group, start: GroupStart) -> Result<bool, Error> {
        self.open()?;
        Ok(self
            .store
            .change(stream.scope(), |scope, now| scope.stream_mut(stream.name(), now).create_group(group, start)))
    }

    async fn group_destroy(&self, stream: &StreamId, group: &Group) -> Result<bool, Error> {
        self.open()?;
        let destroyed = self.store.change(stream.scope(), |scope, now| {
            scope.live_stream_mut(stream.name(), now).is_some_and(|stream| stream.groups.remove(group).is_some())
        });
        if destroyed {
            self.store.ring(stream);
        }
        Ok(destroyed)
    }

    async fn group_read(
        &self,
        stream: &StreamId,
        group: &Group,
        consumer: &Consumer,
        limit: usize,
        wait: Duration,
        acks: Acks,
    ) -> Result<Vec<Delivery>, Error> {
        // Taking and returning happen in one poll, so nothing can be handed to a future that is dropped.
        let found = |deliveries: &Vec<Delivery>| !deliveries.is_empty();
        self.read_waiting(stream, wait, found, || {
            self.store.in_group(stream, group, |stream, now| stream.deliver(group, consumer, limit.max(1), acks, now))
        })
        .await
    }

    async fn group_claim(
        &self,
        stream: &StreamId,
        group: &Group,
        consumer: &Consumer,
        min_idle: Duration,
        limit: usize,
    ) -> Result<Claimed, Error> {
        self.open()?;
        self.store.in_group(stream, group, |stream, now| stream.claim(group, consumer, min_idle, limit.max(1), now))
    }

    async fn group_set_idle(
        &self,
        stream: &StreamId,
        group: &Group,
        consumer: &Consumer,
        ids: &[EventId],
        idle: Duration,
    ) -> Result<Vec<EventId>, Error> {
        self.open()?;
        self.store.in_group(stream, group, |stream, now| stream.set_idle(group, consumer, ids, idle, now))
    }

    async fn group_pending(
        &self,
        stream: &StreamId,
        group: &Group,
        query: PendingQuery,
    ) -> Result<Vec<PendingEvent>, Error> {
        self.open()?;
        self.store.in_group(stream, group, |stream, now| stream.pending(group, &query, now))
    }

    async fn group_info(&self, stream: &StreamId, group: &Group) -> Result<Option<GroupInfo>, Error> {
        self.open()?;
        Ok(self.store.read(stream.scope(), |scope, now| {
            scope.live_stream(stream.name(), now).and_then(|stream| stream.group_info(group, now))
        }))
    }

    async fn group_missed(&self, stream: &StreamId, group: &Group) -> Result<Option<Missed>, Error> {
        self.open()?;
        match self.store.in_group(stream, group, |stream, _| stream.take_missed(group)) {
            Err(Error::NoGroup { .. }) => Ok(None),
            taken => taken,
        }
    }

    async fn group_remove_consumer(
        &self,
        stream: &StreamId,
        group: &Group,
        consumer: &Consumer,
    ) -> Result<bool, Error> {
        self.open()?;
        self.store.in_group(stream, group, |stream, _| stream.remove_consumer(group, consumer))
    }

    async fn sweep(&self, scope: &Scope) -> Result<Swept, Error> {
        self.open()?;
        Ok(self.store.sweep(scope))
    }

    async fn server_time(&self, _: &Scope) -> Result<ServerTime, Error> {
        self.open()?;
        Ok(ServerTime(self.store.now()))
    }

    async fn server_run(&self, _: &Scope) -> Result<Option<String>, Error> {
        self.open()?;
        Ok(Some(self.store.run().to_string()))
    }

    async fn close(&self) {
        self.end();
    }
}

#[cfg(test)]
mod tests;
