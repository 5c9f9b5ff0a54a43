//! A backend wrapper for tests: counts the calls that readers and sinks make, fails them at will, and hands out entries
//! that are no events.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use pulse_core::{
    Acks, Backend, Claimed, Client, Committed, Consumer, Cursor, Delivery, Entry, Error, EventId, Group, GroupInfo,
    GroupStart, Limits, Malformed, MapFeed, MapId, MapPage, Missed, Outcome, PendingEvent, PendingQuery, Read, Scope,
    ServerTime, StreamDetail, StreamId, StreamInfo, Swept, Transaction, Version,
};

/// The name of events that are handed out as something that Pulse did not write.
pub(crate) const GARBAGE: &str = "garbage";

/// How long a slow call takes.
pub(crate) const SLOW: Duration = Duration::from_secs(1);

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Weather {
    /// It goes through.
    #[default]
    Fair,
    /// It never reaches the backend.
    CutOff,
    /// If it is a transaction, as acknowledgements are, it never reaches the backend; all others go through.
    CommitsCutOff,
    /// It reaches the backend, and the answer is lost.
    AnswersLost,
    /// The key holds something else.
    WrongType,
    /// It takes [`SLOW`] to reach the backend.
    Slow,
}

/// Wraps a backend.
pub(crate) struct Probe {
    inner: Arc<dyn Backend>,
    weather: Mutex<Weather>,
    calls: AtomicU64,
}

impl Probe {
    /// A client whose calls can be watched and disturbed, beside the client that it wraps.
    pub(crate) fn around(client: &Client) -> (Client, Arc<Self>) {
        let inner = client.backend().clone();
        let probe = Arc::new(Self { inner, weather: Mutex::default(), calls: AtomicU64::new(0) });
        (Client::from_backend(probe.clone()), probe)
    }

    pub(crate) fn set(&self, weather: Weather) {
        *self.weather.lock().unwrap_or_else(PoisonError::into_inner) = weather;
    }

    /// How many calls were made.
    pub(crate) fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    fn weather(&self) -> Weather {
        *self.weather.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn pass<T>(&self, call: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        match self.weather() {
            Weather::CutOff => return Err(failed(Outcome::NotApplied)),
            Weather::WrongType => return Err(Error::WrongType { key: "the stream".into() }),
            Weather::Slow => tokio::time::sleep(SLOW).await,
            Weather::Fair | Weather::AnswersLost | Weather::CommitsCutOff => {}
        }
        let done = call.await;
        if self.weather() == Weather::AnswersLost { Err(failed(Outcome::Unknown)) } else { done }
    }
}

impl fmt::Debug for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Probe")
    }
}

fn failed(outcome: Outcome) -> Error {
    let source = Arc::new(std::io::Error::other("the test cut the line"));
    Error::Unavailable { operation: "call", subject: "the test".into(), outcome, source }
}

fn garble(mut entry: Entry) -> Entry {
    if entry.event.as_ref().is_ok_and(|event| &*event.name == GARBAGE) {
        entry.event = Err(Malformed { reason: "the test says so".into() });
    }
    entry
}

fn garble_delivery(mut delivery: Delivery) -> Delivery {
    delivery.entry = garble(delivery.entry);
    delivery
}

#[async_trait]
impl Backend for Probe {
    fn target(&self) -> &str {
        self.inner.target()
    }

    fn limits(&self) -> &Limits {
        self.inner.limits()
    }

    async fn commit(&self, transaction: Transaction) -> Result<Committed, Error> {
        if self.weather() == Weather::CommitsCutOff {
            return Err(failed(Outcome::NotApplied));
        }
        self.pass(self.inner.commit(transaction)).await
    }

    async fn map_version(&self, map: &MapId) -> Result<Option<Version>, Error> {
        self.inner.map_version(map).await
    }

    async fn map_page(&self, map: &MapId, cursor: Option<&Cursor>, limit: usize) -> Result<MapPage, Error> {
        self.inner.map_page(map, cursor, limit).await
    }

    async fn map_get(&self, map: &MapId, keys: &[&str]) -> Result<Vec<Option<Bytes>>, Error> {
        self.inner.map_get(map, keys).await
    }

    async fn map_feed(&self, map: &MapId) -> Result<MapFeed, Error> {
        self.inner.map_feed(map).await
    }

    async fn stream_read(
        &self,
        stream: &StreamId,
        after: EventId,
        limit: usize,
        wait: Duration,
    ) -> Result<Read, Error> {
        let mut read = self.pass(self.inner.stream_read(stream, after, limit, wait)).await?;
        read.entries = read.entries.into_iter().map(garble).collect();
        Ok(read)
    }

    async fn stream_info(&self, stream: &StreamId) -> Result<Option<StreamInfo>, Error> {
        self.pass(self.inner.stream_info(stream)).await
    }

    async fn stream_detail(&self, stream: &StreamId) -> Result<Option<StreamDetail>, Error> {
        self.pass(self.inner.stream_detail(stream)).await
    }

    async fn group_create(&self, stream: &StreamId, group: &Group, start: GroupStart) -> Result<bool, Error> {
        self.pass(self.inner.group_create(stream, group, start)).await
    }

    async fn group_destroy(&self, stream: &StreamId, group: &Group) -> Result<bool, Error> {
        self.pass(self.inner.group_destroy(stream, group)).await
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
        let deliveries = self.pass(self.inner.group_read(stream, group, consumer, limit, wait, acks)).await?;
        Ok(deliveries.into_iter().map(garble_delivery).collect())
    }

    async fn group_claim(
        &self,
        stream: &StreamId,
        group: &Group,
        consumer: &Consumer,
        min_idle: Duration,
        limit: usize,
    ) -> Result<Claimed, Error> {
        let mut claimed = self.pass(self.inner.group_claim(stream, group, consumer, min_idle, limit)).await?;
        claimed.deliveries = claimed.deliveries.into_iter().map(garble_delivery).collect();
        Ok(claimed)
    }

    async fn group_set_idle(
        &self,
        stream: &StreamId,
        group: &Group,
        consumer: &Consumer,
        ids: &[EventId],
        idle: Duration,
    ) -> Result<Vec<EventId>, Error> {
        self.pass(self.inner.group_set_idle(stream, group, consumer, ids, idle)).await
    }

    async fn group_pending(
        &self,
        stream: &StreamId,
        group: &Group,
        query: PendingQuery,
    ) -> Result<Vec<PendingEvent>, Error> {
        self.pass(self.inner.group_pending(stream, group, query)).await
    }

    async fn group_info(&self, stream: &StreamId, group: &Group) -> Result<Option<GroupInfo>, Error> {
        self.pass(self.inner.group_info(stream, group)).await
    }

    async fn group_missed(&self, stream: &StreamId, group: &Group) -> Result<Option<Missed>, Error> {
        self.pass(self.inner.group_missed(stream, group)).await
    }

    async fn group_remove_consumer(
        &self,
        stream: &StreamId,
        group: &Group,
        consumer: &Consumer,
    ) -> Result<bool, Error> {
        self.pass(self.inner.group_remove_consumer(stream, group, consumer)).await
    }

    async fn sweep(&self, scope: &Scope) -> Result<Swept, Error> {
        self.inner.sweep(scope).await
    }

    async fn server_time(&self, scope: &Scope) -> Result<ServerTime, Error> {
        self.inner.server_time(scope).await
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}
