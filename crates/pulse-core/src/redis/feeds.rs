//! Change feeds and doorbells: one connection on which everything of the process is subscribed.
//!
//! All feeds of one map share one subscription, and so do all listeners of one doorbell. [`Hub`] is the handle;
//! [`Listener`] is the task that owns the subscriptions. Nobody else subscribes, and the client library is not asked to
//! restore anything: whenever the connection was lost, the cluster changed, or a slot moved, the task tells every feed
//! of a gap, subscribes again, channel by channel, and tells it once more when the subscription stands.
//!
//! Servers announce the loss of a subscription when a slot moves away, but the client library drops that message. So in
//! a cluster the task asks for the owners of the slots every few seconds, and at once when the connection for commands
//! hears of a change, and treats a channel whose slot has another owner than when it was subscribed as lost.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use fred::{
    clients::Client as Fred,
    interfaces::{ClientLike, ClusterInterface, EventInterface, PubsubInterface},
    types::{ClusterStateChange, Message, MessageKind, Value, config::Server},
};
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::{
    sync::{
        broadcast::{
            self,
            error::{RecvError, TryRecvError},
        },
        mpsc, oneshot,
    },
    time::{Instant, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;

use super::{doorbell::Bell, link::Awaited, message};
use crate::{FeedItem, FeedSender, GapCause, MapFeed, Reconnect};

/// The most commits and bytes that a feed buffers for a slow reader.
const FEED_ITEMS: usize = 8192;
const FEED_BYTES: usize = 32 << 20;

/// How often feeds that are gone are looked for, and how long a doorbell stays up without listeners.
const HOUSEKEEPING: Duration = Duration::from_secs(2);

/// How often the connection is tried, and in a cluster the owners of the slots are compared.
const VERIFY: Duration = Duration::from_secs(5);

/// The handle that feeds and doorbells are asked from.
#[derive(Debug, Clone)]
pub(super) struct Hub {
    orders: mpsc::UnboundedSender<Order>,
    bells: Arc<Mutex<HashMap<Bytes, Arc<Bell>>>>,
}

#[derive(Debug)]
enum Order {
    Feed { channel: Bytes, feed: FeedSender, stands: oneshot::Sender<()> },
    Bell { channel: Bytes, bell: Arc<Bell> },
}

impl Hub {
    /// Makes the handle and the task. The subscriber is connected already; `commands` tells of changes of the cluster.
    pub(super) fn new(
        subscriber: Fred,
        commands: &Fred,
        awaited: Awaited,
        reconnect: Reconnect,
        timeout: Duration,
        closed: CancellationToken,
    ) -> (Self, Listener) {
        let (orders, received) = mpsc::unbounded_channel();
        let bells = Arc::new(Mutex::new(HashMap::new()));
        let listener = Listener {
            orders: received,
            messages: subscriber.message_rx(),
            errors: subscriber.error_rx(),
            reconnections: subscriber.reconnect_rx(),
            changes: commands.cluster_change_rx(),
            clustered: subscriber.is_clustered(),
            subscriber,
            awaited,
            bells: bells.clone(),
            channels: HashMap::new(),
            attempts: FuturesUnordered::new(),
            attempted: 0,
            checks: FuturesUnordered::new(),
            reconnect,
            timeout,
            closed,
        };
        (Self { orders, bells }, listener)
    }

    /// Subscribes to a channel of commits; the feed stands when the receiver is told. An error there means that the
    /// client was closed.
    pub(super) fn feed(&self, channel: Bytes) -> (MapFeed, oneshot::Receiver<()>) {
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
    waiting: Vec<oneshot::Sender<()>>,
    state: State,
    /// Who owned the slot when it was subscribed.
    owner: Option<Server>,
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
    owner: Option<Server>,
    result: Result<(), fred::error::Error>,
}

/// Owns the subscriptions.
pub(super) struct Listener {
    subscriber: Fred,
    /// The answers that other tasks of this client wait for.
    awaited: Awaited,
    clustered: bool,
    orders: mpsc::UnboundedReceiver<Order>,
    messages: broadcast::Receiver<Message>,
    errors: broadcast::Receiver<(fred::error::Error, Option<Server>)>,
    reconnections: broadcast::Receiver<Server>,
    /// What the connection for commands hears of the cluster.
    changes: broadcast::Receiver<Vec<ClusterStateChange>>,
    bells: Arc<Mutex<HashMap<Bytes, Arc<Bell>>>>,
    channels: HashMap<Bytes, Channel>,
    attempts: FuturesUnordered<BoxFuture<'static, Attempt>>,
    /// How many attempts there were, over all channels: a channel may go and come back while one is under way.
    attempted: u64,
    /// Looks at the connection and at the owners of the slots.
    checks: FuturesUnordered<BoxFuture<'static, ()>>,
    reconnect: Reconnect,
    timeout: Duration,
    closed: CancellationToken,
}

impl Listener {
    pub(super) async fn run(mut self) {
        let mut housekeeping = tokio::time::interval(HOUSEKEEPING);
        housekeeping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut verify = tokio::time::interval(VERIFY);
        verify.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let closed = self.closed.clone();
        loop {
            let idle = self.channels.is_empty();
            // In this order: what happened to the connection comes before what was subscribed on it since.
            tokio::select! {
                biased;
                () = closed.cancelled() => break,
                lost = self.errors.recv() => if !matches!(lost, Err(RecvError::Closed)) { self.lose_all() },
                back = self.reconnections.recv() => if !matches!(back, Err(RecvError::Closed)) { self.lose_all() },
                message = self.messages.recv() => match message {
                    Ok(message) => self.deliver_waiting(message).await,
                    Err(RecvError::Lagged(_)) => self.lag(),
                    Err(RecvError::Closed) => break,
                },
                Some(order) = self.orders.recv() => self.obey(order),
                Some(attempt) = self.attempts.next() => self.finish(attempt),
                Some(()) = self.checks.next() => self.compare_owners(),
                change = self.changes.recv(), if self.clustered => {
                    if change.is_ok() && !idle { self.verify() }
                }
                _ = verify.tick(), if !idle => self.verify(),
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
                    let _ = stands.send(());
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
        let (subscriber, number, timeout) = (self.subscriber.clone(), self.attempted, self.timeout);
        let longest = self.reconnect.min.saturating_mul(1 << tries.min(16)).min(self.reconnect.max);
        self.attempts.push(
            async move {
                if tries > 0 {
                    tokio::time::sleep(longest.mul_f64(0.5 + 0.5 * crate::entropy::fraction())).await;
                }
                let text = String::from_utf8_lossy(&name).into_owned();
                let owner = owner_of(&subscriber, &name);
                let subscribed = tokio::time::timeout(timeout, subscriber.ssubscribe(text)).await;
                let result = subscribed.unwrap_or_else(|_| {
                    Err(fred::error::Error::new(fred::error::ErrorKind::Timeout, "no answer to a subscription"))
                });
                Attempt { channel: name, number, tries, owner, result }
            }
            .boxed(),
        );
    }

    fn finish(&mut self, attempt: Attempt) {
        let owner_now = owner_of(&self.subscriber, &attempt.channel);
        let Some(channel) = self.channels.get_mut(&attempt.channel) else { return };
        if attempt.number != channel.attempt {
            // Another attempt began after it.
            return;
        }
        if let Err(error) = attempt.result {
            tracing::debug!(%error, "subscribing failed, trying again");
            return self.attempt(attempt.channel, attempt.tries + 1);
        }
        if owner_now != attempt.owner {
            // A redirection on the way, or a change in the middle of it: make sure.
            return self.attempt(attempt.channel, attempt.tries);
        }
        channel.state = State::Standing;
        channel.owner = attempt.owner;
        if channel.lost {
            channel.feeds.iter().for_each(|feed| feed.push(FeedItem::Gap(GapCause::Resubscribed)));
        }
        for stands in channel.waiting.drain(..) {
            // Whoever asked may have gone.
            let _ = stands.send(());
        }
        if let Some(bell) = &channel.bell {
            bell.set_standing(true);
        }
    }

    fn lose_all(&mut self) {
        let names: Vec<Bytes> = self.channels.keys().cloned().collect();
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

    /// Delivers a message and those that wait behind it. All of them came before the next loss of the connection,
    /// because nothing is subscribed again before this task has learned of it.
    async fn deliver_waiting(&mut self, first: Message) {
        // A commit's own answer often arrives together with its message, and the one who waits for it goes first:
        // measured, that takes a fifth off the time of a commit to a map that this client follows.
        if self.awaited.any() {
            tokio::task::yield_now().await;
        }
        self.deliver(first);
        for _ in 0..self.messages.len() {
            match self.messages.try_recv() {
                Ok(message) => self.deliver(message),
                Err(TryRecvError::Lagged(_)) => self.lag(),
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
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

    /// The process was too slow for the connection, and nobody knows whose messages are missing.
    fn lag(&mut self) {
        for channel in self.channels.values() {
            channel.feeds.iter().for_each(|feed| feed.push(FeedItem::Gap(GapCause::Lagged)));
            if let Some(bell) = &channel.bell {
                bell.hear();
            }
        }
    }

    /// Sees whether the connection answers and, in a cluster, who owns the slots now.
    fn verify(&mut self) {
        if !self.checks.is_empty() {
            return;
        }
        let (subscriber, clustered, timeout) = (self.subscriber.clone(), self.clustered, self.timeout);
        self.checks.push(
            async move {
                // An error, or none at all in time, makes the library connect again, which is heard of then.
                let check = async {
                    if clustered {
                        let _ = subscriber.sync_cluster().await;
                        ping_nodes(&subscriber).await;
                    } else {
                        let _: Result<Value, _> = subscriber.ping(None).await;
                    }
                };
                let _ = tokio::time::timeout(timeout, check).await;
            }
            .boxed(),
        );
    }

    fn compare_owners(&mut self) {
        if !self.clustered {
            return;
        }
        let moved = |(name, channel): (&Bytes, &Channel)| {
            let moved = channel.state == State::Standing && channel.owner != owner_of(&self.subscriber, name);
            moved.then(|| name.clone())
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
            self.channels.remove(&name);
            let text = String::from_utf8_lossy(&name).into_owned();
            // Polled once it is on its way, ahead of any later subscription; it has no answer to wait for.
            let _ = self.subscriber.sunsubscribe(text).now_or_never();
        }
    }
}

async fn ping_nodes(subscriber: &Fred) {
    for node in subscriber.active_connections() {
        let options = fred::types::config::Options { cluster_node: Some(node), ..Default::default() };
        let _: Result<Value, _> = subscriber.with_options(&options).ping(None).await;
    }
}

/// Who owns the slot of a channel, as far as the client library knows.
fn owner_of(subscriber: &Fred, channel: &Bytes) -> Option<Server> {
    let routing = subscriber.cached_cluster_state()?;
    routing.get_server(fred::util::redis_keyslot(channel)).cloned()
}

fn read_payload(value: Value) -> Result<Bytes, String> {
    match value {
        Value::Bytes(bytes) => Ok(bytes),
        Value::String(text) => Ok(text.into_inner()),
        _ => Err("the message is not a string".to_owned()),
    }
}
