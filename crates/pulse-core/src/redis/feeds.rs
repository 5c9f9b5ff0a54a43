//! Change feeds and doorbells: everything that the process is subscribed to.
//!
//! All feeds of one map share one subscription, and so do all listeners of one doorbell. [`Hub`] is the handle;
//! [`Listener`] is the task that owns the subscriptions. Nobody else subscribes, and no subscription outlives its
//! connection: whenever a connection was lost or replaced, or a slot moved to another node, the task tells every feed
//! concerned of a gap, subscribes again, channel by channel, and tells it once more when the subscription stands.
//!
//! Servers announce the loss of a subscription when a slot moves away, but the client library drops that message. So
//! the owners of the slots are compared with those at the time of the subscription whenever they change, and
//! [`super::connection`] asks for them every few seconds.

mod subscription;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use fred::{
    interfaces::PubsubInterface,
    types::{Message, MessageKind, Value},
};
use futures::{
    FutureExt, StreamExt,
    future::BoxFuture,
    stream::{BoxStream, FuturesUnordered, SelectAll},
};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;

use self::subscription::{Heard, Subscribed, heard_on, subscribe};
use super::{
    connection::{Connection, Router},
    doorbell::Bell,
    errors::{Refusal, refusal},
    message,
    permissions::warn_of_denied,
};
use crate::{FeedItem, FeedSender, GapCause, MapFeed, Reconnect};

/// The most commits and bytes that a feed buffers for a slow reader.
const FEED_ITEMS: usize = 8192;
const FEED_BYTES: usize = 32 << 20;

/// How often feeds that are gone are looked for, and how long a doorbell stays up without listeners.
const HOUSEKEEPING: Duration = Duration::from_secs(2);

/// The most messages that are handed out before other work of the task has its turn.
const ROW: usize = 256;

/// The handle that feeds and doorbells are asked from.
#[derive(Debug, Clone)]
pub(super) struct Hub {
    orders: mpsc::UnboundedSender<Order>,
    bells: Arc<Mutex<HashMap<Bytes, Arc<Bell>>>>,
}

/// Whether a subscription stands, or else the server's words by which it denied it.
pub(super) type Stands = Result<(), String>;

#[derive(Debug)]
enum Order {
    Feed { channel: Bytes, feed: FeedSender, stands: oneshot::Sender<Stands> },
    Bell { channel: Bytes, bell: Arc<Bell> },
}

impl Hub {
    /// Makes the handle and the task.
    pub(super) fn new(
        router: Arc<Router>,
        reconnect: Reconnect,
        timeout: Duration,
        closed: CancellationToken,
    ) -> (Self, Listener) {
        let (orders, received) = mpsc::unbounded_channel();
        let bells = Arc::new(Mutex::new(HashMap::new()));
        let listener = Listener {
            orders: received,
            messages: SelectAll::new(),
            router,
            bells: bells.clone(),
            channels: HashMap::new(),
            attempts: FuturesUnordered::new(),
            attempted: 0,
            reconnect,
            timeout,
            closed,
        };
        (Self { orders, bells }, listener)
    }

    /// Subscribes to a channel of commits; the receiver is told when the feed stands, or that the user may not have it. An
    /// error there means that the client was closed.
    pub(super) fn feed(&self, channel: Bytes) -> (MapFeed, oneshot::Receiver<Stands>) {
        let (sender, feed) = MapFeed::channel(FEED_ITEMS, FEED_BYTES);
        let (stands, standing) = oneshot::channel();
        // If the task is gone, so is the sender of `standing`.
        let _ = self.orders.send(Order::Feed { channel, feed: sender, stands });
        (feed, standing)
    }

    /// Subscribes to a doorbell.
    pub(super) fn hang(&self, channel: Bytes, bell: Arc<Bell>) {
        // If the task is gone, the client was closed, and nobody waits.
        let _ = self.orders.send(Order::Bell { channel, bell });
    }

    /// The doorbells that are listened to.
    pub(super) fn bells(&self) -> MutexGuard<'_, HashMap<Bytes, Arc<Bell>>> {
        lock(&self.bells)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while holding it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A subscription and who depends on it.
#[derive(Debug, Default)]
struct Channel {
    feeds: Vec<FeedSender>,
    bell: Option<Arc<Bell>>,
    /// Told once the subscription stands.
    waiting: Vec<oneshot::Sender<Stands>>,
    state: State,
    /// What it was subscribed on, and where that led.
    on: Option<Subscribed>,
    /// Whether it was ever lost.
    lost: bool,
    /// The attempt that counts, by its number; those before it began before a loss.
    attempt: u64,
    /// Since when the doorbell has no listeners.
    unused_since: Option<Instant>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    /// An attempt is under way.
    #[default]
    Subscribing,
    Standing,
}

/// How an attempt to subscribe ended.
struct Attempt {
    channel: Bytes,
    number: u64,
    tries: u32,
    result: Result<Subscribed, fred::error::Error>,
}

/// Owns the subscriptions.
pub(super) struct Listener {
    router: Arc<Router>,
    orders: mpsc::UnboundedReceiver<Order>,
    /// Of every connection that something was subscribed on.
    messages: SelectAll<BoxStream<'static, Heard>>,
    bells: Arc<Mutex<HashMap<Bytes, Arc<Bell>>>>,
    channels: HashMap<Bytes, Channel>,
    attempts: FuturesUnordered<BoxFuture<'static, Attempt>>,
    /// How many attempts there were, over all channels: a channel may go and come back while one is under way.
    attempted: u64,
    reconnect: Reconnect,
    timeout: Duration,
    closed: CancellationToken,
}

impl Listener {
    pub(super) async fn run(mut self) {
        let mut housekeeping = tokio::time::interval(HOUSEKEEPING);
        housekeeping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut changes = self.router.changes();
        let closed = self.closed.clone();
        loop {
            let idle = self.channels.is_empty();
            tokio::select! {
                () = closed.cancelled() => break,
                Some(heard) = self.messages.next() => self.hear_waiting(heard).await,
                Some(order) = self.orders.recv() => self.obey(order),
                Some(attempt) = self.attempts.next() => self.finish(attempt),
                Ok(()) = changes.changed() => self.compare_owners(),
                _ = housekeeping.tick(), if !idle => self.tidy(),
            }
        }
        for channel in self.channels.values() {
            channel.feeds.iter().for_each(FeedSender::end);
        }
    }

    fn obey(&mut self, order: Order) {
        let name = match &order {
            Order::Feed { channel, .. } | Order::Bell { channel, .. } => channel.clone(),
        };
        let new = !self.channels.contains_key(&name);
        let channel = self.channels.entry(name.clone()).or_default();
        match order {
            Order::Feed { feed, stands, .. } => {
                channel.feeds.push(feed);
                if channel.state == State::Standing {
                    // Whoever asked may have gone.
                    let _ = stands.send(Ok(()));
                } else {
                    channel.waiting.push(stands);
                }
            }
            Order::Bell { bell, .. } => {
                bell.set_standing(channel.state == State::Standing);
                channel.bell = Some(bell);
                channel.unused_since = None;
            }
        }
        if new {
            self.attempt(name, 0);
        }
    }

    /// Begins to subscribe.
    fn attempt(&mut self, name: Bytes, tries: u32) {
        let Some(channel) = self.channels.get_mut(&name) else { return };
        channel.state = State::Subscribing;
        self.attempted += 1;
        channel.attempt = self.attempted;
        let (router, number, timeout) = (self.router.clone(), self.attempted, self.timeout);
        let longest = self.reconnect.min.saturating_mul(1 << tries.min(16)).min(self.reconnect.max);
        self.attempts.push(
            async move {
                if tries > 0 {
                    tokio::time::sleep(longest.mul_f64(0.5 + 0.5 * crate::entropy::fraction())).await;
                }
                let subscribed = tokio::time::timeout(timeout, subscribe(&router, &name)).await;
                let result = subscribed.unwrap_or_else(|_| {
                    Err(fred::error::Error::new(fred::error::ErrorKind::Timeout, "no answer to a subscription"))
                });
                Attempt { channel: name, number, tries, result }
            }
            .boxed(),
        );
    }

    fn finish(&mut self, attempt: Attempt) {
        if let Ok(subscribed) = &attempt.result {
            self.messages.extend(heard_on(&subscribed.connection));
        }
        let Some(channel) = self.channels.get_mut(&attempt.channel) else { return };
        if attempt.number != channel.attempt {
            // Another attempt began after it.
            return;
        }
        let subscribed = match attempt.result {
            Ok(subscribed) => subscribed,
            Err(error) => {
                if refusal(error.details()) == Refusal::Denied {
                    if attempt.tries == 0 {
                        warn_of_denied(&attempt.channel, error.details());
                    }
                    for stands in channel.waiting.drain(..) {
                        // The caller may have gone.
                        let _ = stands.send(Err(error.details().to_owned()));
                    }
                }
                tracing::debug!(%error, "subscribing failed, trying again");
                return self.attempt(attempt.channel, attempt.tries + 1);
            }
        };
        if !subscribed.stands(&self.router, &attempt.channel) {
            // The connection or the owner of the slot has changed meanwhile.
            return self.attempt(attempt.channel, attempt.tries);
        }
        channel.state = State::Standing;
        channel.on = Some(subscribed);
        if channel.lost {
            channel.feeds.iter().for_each(|feed| feed.push(FeedItem::Gap(GapCause::Resubscribed)));
        }
        for stands in channel.waiting.drain(..) {
            // Whoever asked may have gone.
            let _ = stands.send(Ok(()));
        }
        if let Some(bell) = &channel.bell {
            bell.set_standing(true);
        }
    }

    /// Loses what was subscribed on a connection.
    fn lose_all_on(&mut self, connection: &Arc<Connection>) {
        let is_on = |channel: &Channel| {
            channel.on.as_ref().is_some_and(|subscribed| Arc::ptr_eq(&subscribed.connection, connection))
        };
        let names = self.channels.iter().filter(|(_, channel)| channel.state == State::Standing && is_on(channel));
        let names: Vec<Bytes> = names.map(|(name, _)| name.clone()).collect();
        for name in names {
            self.lose(name);
        }
    }

    /// Says that the subscription is gone, and begins to subscribe again.
    fn lose(&mut self, name: Bytes) {
        let Some(channel) = self.channels.get_mut(&name) else { return };
        channel.lost = true;
        if channel.state == State::Standing {
            channel.feeds.iter().for_each(|feed| feed.push(FeedItem::Gap(GapCause::Disconnected)));
            if let Some(bell) = &channel.bell {
                bell.set_standing(false);
            }
        }
        self.attempt(name, 0);
    }

    /// Handles what a connection says, and what waits behind it.
    async fn hear_waiting(&mut self, first: Heard) {
        // A commit's own answer often arrives together with its message, and the one who waits for it goes first:
        // measured, that takes a fifth off the time of a commit to a map that this client follows.
        if self.router.is_awaited() {
            tokio::task::yield_now().await;
        }
        self.hear(first);
        for _ in 0..ROW {
            match self.messages.next().now_or_never() {
                Some(Some(heard)) => self.hear(heard),
                _ => break,
            }
        }
    }

    fn hear(&mut self, heard: Heard) {
        match heard {
            Heard::Message(message) => self.deliver(message),
            Heard::Lagged(connection) => self.lag(&connection),
            Heard::Ended(connection) => self.lose_all_on(&connection),
        }
    }

    fn deliver(&mut self, message: Message) {
        if message.kind != MessageKind::SMessage {
            return;
        }
        let Some(channel) = self.channels.get(message.channel.as_bytes()) else { return };
        if let Some(bell) = &channel.bell {
            bell.hear();
        }
        // What comes before the subscription is known to stand is before the gap that says so, and in what is read
        // after it; passing it on would put a commit between the two gaps of a loss.
        let Some((last, others)) = channel.feeds.split_last() else { return };
        if channel.state != State::Standing {
            return;
        }
        match read_payload(message.value).and_then(message::decode) {
            Ok(commits) => {
                let others = others.iter().filter(|feed| !feed.is_closed());
                others.for_each(|feed| feed.push_commits(commits.clone()));
                last.push_commits(commits);
            }
            Err(reason) => {
                tracing::warn!(channel = %message.channel, reason, "a message of a change feed is malformed");
                let gap = FeedItem::Gap(GapCause::Malformed { reason });
                channel.feeds.iter().for_each(|feed| feed.push(gap.clone()));
            }
        }
    }

    /// The process was too slow for the connection, and it is unknown whose messages are missing.
    fn lag(&mut self, connection: &Arc<Connection>) {
        for channel in self.channels.values() {
            if channel.on.as_ref().is_some_and(|subscribed| Arc::ptr_eq(&subscribed.connection, connection)) {
                channel.feeds.iter().for_each(|feed| feed.push(FeedItem::Gap(GapCause::Lagged)));
                if let Some(bell) = &channel.bell {
                    bell.hear();
                }
            }
        }
    }

    /// Loses what was subscribed where the slot no longer is.
    fn compare_owners(&mut self) {
        if !self.router.is_clustered() {
            return;
        }
        let moved = |(name, channel): (&Bytes, &Channel)| {
            let stays = channel.on.as_ref().is_some_and(|subscribed| subscribed.stands(&self.router, name));
            (channel.state == State::Standing && !stays).then(|| name.clone())
        };
        let moved: Vec<Bytes> = self.channels.iter().filter_map(moved).collect();
        for name in moved {
            self.lose(name);
        }
    }

    /// Drops what nobody listens to any more.
    fn tidy(&mut self) {
        let mut bells = lock(&self.bells);
        let mut unused = Vec::new();
        for (name, channel) in &mut self.channels {
            channel.feeds.retain(|feed| !feed.is_closed());
            if let Some(bell) = &channel.bell {
                // One is held here, and one in the table; listeners get theirs from the table, under the lock.
                if Arc::strong_count(bell) > 2 {
                    channel.unused_since = None;
                } else if channel.unused_since.get_or_insert_with(Instant::now).elapsed() >= HOUSEKEEPING {
                    bells.remove(name);
                    channel.bell = None;
                }
            }
            if channel.feeds.is_empty() && channel.bell.is_none() {
                unused.push(name.clone());
            }
        }
        drop(bells);
        for name in unused {
            let on = self.channels.remove(&name).and_then(|channel| channel.on);
            if let Some(subscribed) = on {
                let text = String::from_utf8_lossy(&name).into_owned();
                // Polled once it is on its way, ahead of any later subscription; it has no answer to wait for.
                let _ = subscribed.connection.once().sunsubscribe(text).now_or_never();
            }
        }
    }
}

fn read_payload(value: Value) -> Result<Bytes, String> {
    match value {
        Value::Bytes(bytes) => Ok(bytes),
        Value::String(text) => Ok(text.into_inner()),
        _ => Err("the message is not a string".to_owned()),
    }
}
