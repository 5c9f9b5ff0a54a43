//! A backend whose feeds lose, repeat, delay and cut, as their seed has it, and whose reads fail now and then.
//!
//! Everything else is passed on to the backend underneath.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use pulse_rmap::pulse_core::{
    Acks, Backend, Claimed, Committed, Consumer, Cursor, Delivery, Error, EventId, FeedItem, FeedSender, GapCause,
    Group, GroupInfo, GroupStart, Limits, MapFeed, MapId, MapPage, Missed, Outcome, PendingEvent, PendingQuery, Read,
    Scope, ServerTime, StreamDetail, StreamId, StreamInfo, Swept, Transaction, Version,
};
use rand::{Rng, SeedableRng, rngs::StdRng};

/// How likely something goes wrong, in percent; shared with the test, which ends all trouble by setting it to 0.
pub(crate) type Trouble = Arc<AtomicU32>;

#[derive(Debug)]
pub(crate) struct Lossy {
    inner: Arc<dyn Backend>,
    seed: u64,
    trouble: Trouble,
    /// Counts what was asked, so that each answer draws its own fate.
    asked: AtomicU32,
    /// How many commits others make to a map before each of its pages.
    beside: u32,
}

impl Lossy {
    pub(crate) fn new(inner: Arc<dyn Backend>, seed: u64, trouble: Trouble) -> Self {
        Self { inner, seed, trouble, asked: AtomicU32::new(0), beside: 0 }
    }

    /// One without trouble that answers at once, and whose maps others write that often before each page.
    pub(crate) fn busy(inner: Arc<dyn Backend>, beside: u32) -> Self {
        Self { beside, ..Self::new(inner, 0, Trouble::default()) }
    }

    fn draw(&self) -> StdRng {
        StdRng::seed_from_u64(self.seed.wrapping_add(self.asked.fetch_add(1, Ordering::Relaxed).into()))
    }

    /// Lets time pass, so that commits happen meanwhile, and fails now and then.
    async fn disturb(&self, operation: &'static str) -> Result<(), Error> {
        let mut draw = self.draw();
        if strikes(&mut draw, &self.trouble) {
            tokio::time::sleep(Duration::from_millis(draw.random_range(0..20))).await;
        }
        if strikes(&mut draw, &self.trouble) {
            let source = Arc::new(std::io::Error::other("injected"));
            return Err(Error::Unavailable { operation, subject: "map".into(), outcome: Outcome::NotApplied, source });
        }
        Ok(())
    }
}

fn strikes(draw: &mut StdRng, trouble: &Trouble) -> bool {
    draw.random_range(0..100) < trouble.load(Ordering::Relaxed)
}

/// Carries items from the feed underneath to the feed that the replica reads.
struct Carrier {
    from: MapFeed,
    to: FeedSender,
    draw: StdRng,
    trouble: Trouble,
}

impl Carrier {
    async fn run(mut self) {
        while let Some(item) = self.from.next().await {
            if self.to.is_closed() {
                return;
            }
            self.carry(item).await;
        }
        self.to.end();
    }

    async fn carry(&mut self, item: FeedItem) {
        if !strikes(&mut self.draw, &self.trouble) {
            return self.to.push(item);
        }
        match self.draw.random_range(0..6) {
            // Lost without a word.
            0 => {}
            1 => {
                self.to.push(item.clone());
                self.to.push(item);
            }
            2 => self.to.push(FeedItem::Gap(GapCause::Malformed { reason: "injected".into() })),
            3 => {
                self.late().await;
                self.to.push(item);
            }
            // A cut: what is sent meanwhile is lost.
            4 => {
                self.to.push(FeedItem::Gap(GapCause::Disconnected));
                self.late().await;
                while self.from.try_next().is_some() {}
                self.to.push(FeedItem::Gap(GapCause::Resubscribed));
            }
            // A cut that the feed does not tell of.
            _ => {
                self.late().await;
                while self.from.try_next().is_some() {}
            }
        }
    }

    async fn late(&mut self) {
        tokio::time::sleep(Duration::from_millis(self.draw.random_range(0..50))).await;
    }
}

#[async_trait::async_trait]
impl Backend for Lossy {
    async fn map_version(&self, map: &MapId) -> Result<Option<Version>, Error> {
        self.disturb("map_version").await?;
        self.inner.map_version(map).await
    }

    async fn map_page(&self, map: &MapId, cursor: Option<&Cursor>, _: usize) -> Result<MapPage, Error> {
        self.disturb("map_page").await?;
        for _ in 0..self.beside {
            let put = Transaction::new(map.scope()).put(map.name().clone(), "beside", Bytes::from_static(b"\x07"));
            self.inner.commit(put).await?;
        }
        // Small pages, so that even a small map is read in several.
        let page = self.inner.map_page(map, cursor, 3).await;
        self.disturb("map_page").await?;
        page
    }

    async fn map_feed(&self, map: &MapId) -> Result<MapFeed, Error> {
        self.disturb("map_feed").await?;
        let from = self.inner.map_feed(map).await?;
        if self.beside > 0 {
            // The carrier would have to have its turn.
            return Ok(from);
        }
        let (to, feed) = MapFeed::channel(64, 1 << 20);
        tokio::spawn(Carrier { from, to, draw: self.draw(), trouble: Arc::clone(&self.trouble) }.run());
        Ok(feed)
    }

    fn target(&self) -> &str {
        self.inner.target()
    }
    fn limits(&self) -> &Limits {
        self.inner.limits()
    }
    async fn commit(&self, transaction: Transaction) -> Result<Committed, Error> {
        self.inner.commit(transaction).await
    }
    async fn map_get(&self, map: &MapId, keys: &[&str]) -> Result<Vec<Option<Bytes>>, Error> {
        self.inner.map_get(map, keys).await
    }
    async fn stream_read(
        &self,
        stream: &StreamId,
        after: EventId,
        limit: usize,
        wait: Duration,
    ) -> Result<Read, Error> {
        self.inner.stream_read(stream, after, limit, wait).await
    }
    async fn stream_info(&self, stream: &StreamId) -> Result<Option<StreamInfo>, Error> {
        self.inner.stream_info(stream).await
    }
    async fn stream_detail(&self, stream: &StreamId) -> Result<Option<StreamDetail>, Error> {
        self.inner.stream_detail(stream).await
    }

    async fn group_create(&self, stream: &StreamId, group: &Group, start: GroupStart) -> Result<bool, Error> {
        self.inner.group_create(stream, group, start).await
    }
    async fn group_destroy(&self, stream: &StreamId, group: &Group) -> Result<bool, Error> {
        self.inner.group_destroy(stream, group).await
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
        self.inner.group_read(stream, group, consumer, limit, wait, acks).await
    }
    async fn group_claim(
        &self,
        stream: &StreamId,
        group: &Group,
        consumer: &Consumer,
        min_idle: Duration,
        limit: usize,
    ) -> Result<Claimed, Error> {
        self.inner.group_claim(stream, group, consumer, min_idle, limit).await
    }
    async fn group_set_idle(
        &self,
        stream: &StreamId,
        group: &Group,
        consumer: &Consumer,
        ids: &[EventId],
        idle: Duration,
    ) -> Result<Vec<EventId>, Error> {
        self.inner.group_set_idle(stream, group, consumer, ids, idle).await
    }
    async fn group_pending(
        &self,
        stream: &StreamId,
        group: &Group,
        query: PendingQuery,
    ) -> Result<Vec<PendingEvent>, Error> {
        self.inner.group_pending(stream, group, query).await
    }
    async fn group_info(&self, stream: &StreamId, group: &Group) -> Result<Option<GroupInfo>, Error> {
        self.inner.group_info(stream, group).await
    }
    async fn group_missed(&self, stream: &StreamId, group: &Group) -> Result<Option<Missed>, Error> {
        self.inner.group_missed(stream, group).await
    }

    async fn group_remove_consumer(
        &self,
        stream: &StreamId,
        group: &Group,
        consumer: &Consumer,
    ) -> Result<bool, Error> {
        self.inner.group_remove_consumer(stream, group, consumer).await
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
