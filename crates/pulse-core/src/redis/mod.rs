//! The backend over Redis and Valkey servers, through the fred client.
//!
//! To each server lead two connections, however many maps, feeds, readers and groups a process has: one carries every
//! command, the other the subscriptions. `connection` makes, watches and replaces them; on top of it
//!
//! - `link` sends commands, and `gather` puts the small writes of many callers into one. Nothing that must not be
//!   repeated is ever sent twice; what certainly was not carried out is sent again within the command time-out.
//! - `feeds` owns the subscriptions of change feeds and doorbells. Blocking reads block no connection: a reader listens
//!   to the doorbell of its stream (`doorbell`) and reads when it rings.
//!
//! Everything of a scope lives under one hash tag (`keys`), so one script (`lua/transaction/`, fed by `encode`, read
//! back by `commit`) carries out any transaction, on a single server as in a cluster. `streams`, `groups`, `handouts`
//! and `maps` hold the rest of the contract, `connect` and `examine` the way in, `errors` what answers and failures mean,
//! `permissions` what the user may do.
//!
//! # What differs from an ideal server
//!
//! - While the slot of a scope moves to another node of a cluster, commands on it may be refused until the move is
//!   done; they are tried again until the command time-out, and then fail with a known outcome.
//! - While a primary of a cluster is down and not replaced yet, the cluster serves no slot (unless it was configured to);
//!   commands wait for the failover, and fail with a known outcome if it takes longer than the command time-out.
//! - A server cuts the connection of a subscriber whose backlog exceeds `client-output-buffer-limit pubsub` (32 MiB
//!   unless configured otherwise). A single commit to a map larger than that costs every replica a full read of its
//!   maps.
//! - After a failover, writes that the old primary had acknowledged but not replicated are gone, as always with these
//!   servers. The revisions and incarnations make that visible to replicas.

mod appends;
mod commit;
mod connect;
mod connection;
mod doorbell;
mod encode;
mod errors;
mod examine;
mod feeds;
mod gather;
mod groups;
mod handouts;
mod keys;
mod link;
mod maps;
mod message;
mod permissions;
mod plain;
mod puts;
mod reply;
mod scripts;
mod streams;
mod wait;

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    appends::Appends,
    connection::Settings,
    doorbell::Bells,
    errors::Ask,
    feeds::Hub,
    gather::Gatherer,
    handouts::Handouts,
    keys::Keys,
    link::{Link, Repeat},
    permissions::{Needs, Permissions, what_is_missing},
    puts::Puts,
    wait::Rounds,
};
use crate::{
    Acks, Claimed, Client, ClientBuilder, Committed, Consumer, Cursor, Delivery, Error, EventId, Group, GroupInfo,
    GroupStart, Limits, MapFeed, MapId, MapPage, Missed, PendingEvent, PendingQuery, Read, Scope, ServerTime,
    StreamDetail, StreamId, StreamInfo, Swept, Transaction, Version,
};

/// Connects as the builder says.
pub(crate) async fn connect(builder: ClientBuilder) -> Result<Client, Error> {
    let settings = Arc::new(Settings::of(&builder)?);
    // Whatever was begun ends with the guard, unless there is a backend in the end.
    let severed = CancellationToken::new();
    let guard = severed.clone().drop_guard();
    let backend = Backend::start(&builder, settings, severed).await?;
    guard.disarm();
    Ok(Client::from_backend(Arc::new(backend)))
}

/// What the parts of the backend share.
#[derive(Debug)]
struct Redis {
    target: Arc<str>,
    limits: Limits,
    keys: Keys,
    link: Arc<Link>,
    permissions: Permissions,
    hub: Hub,
    bells: Bells,
    rounds: Rounds,
    puts: Gatherer<Puts>,
    appends: Gatherer<Appends>,
    handouts: Handouts,
    /// Everything that runs in the background.
    tasks: TaskTracker,
}

/// The backend.
struct Backend {
    redis: Arc<Redis>,
    /// Cancelled when the connections have to end; the link is closed before, or with it.
    severed: CancellationToken,
}

impl Backend {
    async fn start(
        builder: &ClientBuilder,
        settings: Arc<Settings>,
        severed: CancellationToken,
    ) -> Result<Self, Error> {
        let closed = severed.child_token();
        let target = settings.target.clone();
        let keys = Keys::new(&builder.key_prefix);
        let tasks = TaskTracker::new();
        let router = Arc::new(connect::open(&settings, &tasks, &severed).await?);
        let link = Arc::new(Link::new(router.clone(), target.clone(), settings.command_timeout, closed.clone()));
        examine::examine(&link, &settings.place, &target).await?;
        let permissions = Permissions::new(link.clone(), keys.clone());
        permissions.look_everywhere(&target).await?;
        let (hub, listener) = Hub::new(router, settings.reconnect, settings.command_timeout, closed.clone());
        tasks.spawn(listener.run());
        let bells = Bells::new(link.clone(), hub.clone(), tasks.clone());
        let redis = Redis {
            target,
            limits: builder.limits,
            keys,
            permissions,
            hub,
            bells,
            rounds: Rounds::new(),
            puts: Gatherer::new(link.clone(), tasks.clone()),
            appends: Gatherer::new(link.clone(), tasks.clone()),
            handouts: Handouts::default(),
            link,
            tasks,
        };
        Ok(Self { redis: Arc::new(redis), severed })
    }
}

// The connections end with the tasks that keep them.
impl Drop for Backend {
    fn drop(&mut self) {
        self.severed.cancel();
    }
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redis").field("target", &self.redis.target).finish_non_exhaustive()
    }
}

#[async_trait]
impl crate::Backend for Backend {
    fn target(&self) -> &str {
        &self.redis.target
    }

    fn limits(&self) -> &Limits {
        &self.redis.limits
    }

    async fn commit(&self, transaction: Transaction) -> Result<Committed, Error> {
        self.redis.commit_transaction(transaction).await
    }

    async fn map_version(&self, map: &MapId) -> Result<Option<Version>, Error> {
        self.redis.read_version(map).await
    }

    async fn map_page(&self, map: &MapId, cursor: Option<&Cursor>, limit: usize) -> Result<MapPage, Error> {
        self.redis.read_page(map, cursor, limit).await
    }

    async fn map_get(&self, map: &MapId, keys: &[&str]) -> Result<Vec<Option<Bytes>>, Error> {
        self.redis.read_values(map, keys).await
    }

    async fn map_feed(&self, map: &MapId) -> Result<MapFeed, Error> {
        self.redis.subscribe(map).await
    }

    async fn stream_read(
        &self,
        stream: &StreamId,
        after: EventId,
        limit: usize,
        wait: Duration,
    ) -> Result<Read, Error> {
        self.redis.read_stream(stream, after, limit, wait).await
    }

    async fn stream_info(&self, stream: &StreamId) -> Result<Option<StreamInfo>, Error> {
        self.redis.read_stream_info(stream).await
    }

    async fn stream_detail(&self, stream: &StreamId) -> Result<Option<StreamDetail>, Error> {
        self.redis.describe_stream(stream).await
    }

    async fn group_create(&self, stream: &StreamId, group: &Group, start: GroupStart) -> Result<bool, Error> {
        self.redis.create_group(stream, group, start).await
    }

    async fn group_destroy(&self, stream: &StreamId, group: &Group) -> Result<bool, Error> {
        self.redis.destroy_group(stream, group).await
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
        self.read_group(stream, group, consumer, limit, wait, acks).await
    }

    async fn group_claim(
        &self,
        stream: &StreamId,
        group: &Group,
        consumer: &Consumer,
        min_idle: Duration,
        limit: usize,
    ) -> Result<Claimed, Error> {
        self.redis.claim(stream, group, consumer, min_idle, limit).await
    }

    async fn group_set_idle(
        &self,
        stream: &StreamId,
        group: &Group,
        consumer: &Consumer,
        ids: &[EventId],
        idle: Duration,
    ) -> Result<Vec<EventId>, Error> {
        self.redis.set_idle(stream, group, consumer, ids, idle).await
    }

    async fn group_pending(
        &self,
        stream: &StreamId,
        group: &Group,
        query: PendingQuery,
    ) -> Result<Vec<PendingEvent>, Error> {
        self.redis.list_pending(stream, group, query).await
    }

    async fn group_info(&self, stream: &StreamId, group: &Group) -> Result<Option<GroupInfo>, Error> {
        self.redis.describe_group(stream, group).await
    }

    async fn group_missed(&self, stream: &StreamId, group: &Group) -> Result<Option<Missed>, Error> {
        self.redis.take_missed(stream, group).await
    }

    async fn group_remove_consumer(
        &self,
        stream: &StreamId,
        group: &Group,
        consumer: &Consumer,
    ) -> Result<bool, Error> {
        self.redis.remove_consumer(stream, group, consumer).await
    }

    async fn sweep(&self, scope: &Scope) -> Result<Swept, Error> {
        self.redis.sweep_scope(scope).await
    }

    async fn server_time(&self, scope: &Scope) -> Result<ServerTime, Error> {
        self.redis.read_time(scope).await
    }

    async fn server_run(&self, scope: &Scope) -> Result<Option<String>, Error> {
        self.redis.read_run(scope).await
    }

    async fn close(&self) {
        self.redis.link.close();
        self.severed.cancel();
        self.redis.tasks.close();
        self.redis.tasks.wait().await;
    }
}

impl Redis {
    async fn subscribe(&self, map: &MapId) -> Result<MapFeed, Error> {
        if self.link.closed().is_cancelled() {
            return Err(Error::Closed);
        }
        let ask = Ask::new("subscribe", map);
        self.permissions.require(ask, map.scope(), Needs::FEEDS).await?;
        let (feed, stands) = self.hub.feed(self.keys.feed(map));
        match tokio::time::timeout(self.link.timeout(), stands).await {
            Ok(Ok(Ok(()))) => Ok(feed),
            Ok(Ok(Err(words))) => Err(ask.denied(what_is_missing(&words).unwrap_or_default(), Some(&words))),
            Ok(Err(_)) => Err(Error::Closed),
            Err(_) => Err(self.link.not_subscribed(ask, &self.keys.feed(map))),
        }
    }

    /// `None` also where the user may not ask.
    async fn read_run(&self, scope: &Scope) -> Result<Option<String>, Error> {
        let ask = Ask::new("read which server it is", scope);
        let hash = link::Route::Slot(fred::util::redis_keyslot(&self.keys.leases(scope)));
        let section = || vec![fred::types::Value::from("server")];
        let answer = self.link.try_call(ask, Repeat::Freely, "INFO", hash, section).await?;
        let info = match answer {
            link::Answer::Reply(reply) => reply::text(reply).map_err(|misfit| ask.protocol(misfit))?,
            link::Answer::Refused(refusal, message) => {
                tracing::debug!(%scope, ?refusal, message, "the server does not say which one it is");
                return Ok(None);
            }
        };
        Ok(info.lines().find_map(|line| line.strip_prefix("run_id:")).map(|run| run.trim().to_owned()))
    }

    async fn read_time(&self, scope: &Scope) -> Result<ServerTime, Error> {
        let ask = Ask::new("read the time", scope);
        // The command has no key, so the slot is given: every node has a clock of its own.
        let slot = fred::util::redis_keyslot(&self.keys.leases(scope));
        let hash = link::Route::Slot(slot);
        let answer = self.link.try_call(ask, Repeat::Freely, "TIME", hash, Vec::new).await?;
        let reply = match answer {
            link::Answer::Reply(reply) => reply,
            link::Answer::Refused(refusal, message) => return Err(self.link.error(ask, refusal, &message)),
        };
        let read = || {
            let [seconds, micros] = reply::exactly(reply)?;
            Ok(ServerTime(reply::count(seconds)? * 1000 + reply::count(micros)? / 1000))
        };
        read().map_err(|misfit: reply::Misfit| ask.protocol(misfit))
    }
}
