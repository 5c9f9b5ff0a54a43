//! The backend over Redis and Valkey servers, through the fred client.
//!
//! Two logical connections serve a process, however many maps, feeds, readers and groups it has:
//!
//! - `link` carries every command, and `gather` puts the small writes of many callers into one. Nothing that must not
//!   be repeated is ever sent twice; what certainly was not carried out is sent again within the command time-out.
//! - `feeds` owns the subscriptions of change feeds and doorbells. Blocking reads block no connection: a reader listens
//!   to the doorbell of its stream (`doorbell`) and reads when it rings.
//!
//! Everything of a scope lives under one hash tag (`keys`), so one script (`lua/transaction/`, fed by `encode`, read
//! back by `commit`) carries out any transaction, on a single server as in a cluster. `streams`, `groups`, `handouts`
//! and `maps` hold the rest of the contract, `url` and `connect` the way in, `errors` what answers and failures mean.
//!
//! # What differs from an ideal server
//!
//! - While the slot of a scope moves to another node of a cluster, commands on it may be refused until the move is
//!   done; they are tried again until the command time-out, and then fail with a known outcome.
//! - While a primary of a cluster is down and not replaced yet, the client library serves no slot of that cluster;
//!   commands wait for the failover, and fail with a known outcome if it takes longer than the command time-out.
//! - A server cuts the connection of a subscriber whose backlog exceeds `client-output-buffer-limit pubsub` (32 MiB
//!   unless configured otherwise). A single commit to a map larger than that costs every replica a full read of its
//!   maps.
//! - After a failover, writes that the old primary had acknowledged but not replicated are gone, as always with these
//!   servers. The revisions and incarnations make that visible to replicas.

mod appends;
mod commit;
mod connect;
mod doorbell;
mod encode;
mod errors;
mod feeds;
mod gather;
mod groups;
mod handouts;
mod keys;
mod link;
mod maps;
mod message;
mod plain;
mod puts;
mod reply;
mod scripts;
mod streams;
mod url;
mod wait;

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use fred::{clients::Client as Fred, interfaces::ClientLike};
use tokio::sync::Mutex;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    appends::Appends,
    connect::{Connected, Driver, Purpose},
    doorbell::Bells,
    errors::{Ask, ServerSaid},
    feeds::Hub,
    gather::Gatherer,
    handouts::Handouts,
    keys::Keys,
    link::{Link, Repeat},
    puts::Puts,
    wait::Rounds,
};
use crate::{
    Acks, Claimed, Client, ClientBuilder, Committed, Consumer, Cursor, Delivery, Error, EventId, Group, GroupInfo,
    GroupStart, Limits, MapFeed, MapId, MapPage, Missed, Outcome, PendingEvent, PendingQuery, Read, Scope, ServerTime,
    StreamDetail, StreamId, StreamInfo, Swept, Transaction, Version,
};

/// Connects by URL.
pub(crate) async fn connect(builder: ClientBuilder) -> Result<Client, Error> {
    if let Some(client) = builder.fred.clone() {
        return adopt(&builder, client).await;
    }
    let (config, address) = connect::configure(&builder)?;
    let commands = connect::open(&builder, &config, &address.shown, Purpose::Commands).await?;
    let feeds = match connect::open(&builder, &config, &address.shown, Purpose::Feeds).await {
        Ok(feeds) => feeds,
        Err(error) => {
            end(vec![(commands.client, Some(commands.driver))]).await;
            return Err(error);
        }
    };
    let backend = Backend::start(&builder, &address.shown, commands.client, Some(commands.driver), feeds).await?;
    Ok(Client::from_backend(Arc::new(backend)))
}

/// Works through a client of the caller's.
async fn adopt(builder: &ClientBuilder, client: Fred) -> Result<Client, Error> {
    let mut config = client.client_config();
    config.fail_fast = true;
    let shown = connect::shown(&config.server);
    if client.is_clustered() && client.connection_config().max_redirections != 0 {
        return Err(Error::InvalidRequest {
            subject: shown,
            reason: "the client follows redirections by itself, and may then mix up answers while a slot moves: set \
                     max_redirections of its ConnectionConfig to 0, and Pulse follows them"
                .into(),
        });
    }
    let feeds = connect::open(builder, &config, &shown, Purpose::Feeds).await?;
    let backend = Backend::start(builder, &shown, client, None, feeds).await?;
    Ok(Client::from_backend(Arc::new(backend)))
}

/// What the parts of the backend share.
#[derive(Debug)]
struct Redis {
    target: Arc<str>,
    limits: Limits,
    keys: Keys,
    link: Arc<Link>,
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
    /// Cancelled by `close` and by dropping the backend.
    closed: CancellationToken,
    /// What `close` has to end, until it has.
    connections: Mutex<Vec<(Fred, Option<Driver>)>>,
}

impl Backend {
    /// Begins to work on connections that stand. The commands' client belongs to somebody else if it has no driver.
    async fn start(
        builder: &ClientBuilder,
        shown: &str,
        commands: Fred,
        driver: Option<Driver>,
        feeds: Connected,
    ) -> Result<Self, Error> {
        let target: Arc<str> = shown.into();
        let keys = Keys::new(&builder.key_prefix);
        let closed = CancellationToken::new();
        let tasks = TaskTracker::new();
        let link = Link::new(
            commands.clone(),
            target.clone(),
            builder.command_timeout,
            driver.is_some(),
            tasks.clone(),
            closed.clone(),
        );
        let link = Arc::new(link);
        let mut connections = vec![(feeds.client.clone(), Some(feeds.driver))];
        if driver.is_some() {
            connections.push((commands.clone(), driver));
        }
        let probe = Scope::new("pulse").map(|scope| keys.key(&scope, "w:", ""));
        let examined = match probe {
            Ok(channel) => connect::examine(&link, shown, channel).await,
            Err(error) => Err(error),
        };
        if let Err(error) = examined {
            end(connections).await;
            return Err(error);
        }
        let (hub, listener) = Hub::new(
            feeds.client,
            &commands,
            link.awaited().clone(),
            builder.reconnect,
            builder.command_timeout,
            closed.clone(),
        );
        tasks.spawn(listener.run());
        if let Some(name) = &builder.connection_name {
            for (client, _) in &connections {
                tasks.spawn(connect::Namer::new(client.clone(), name.clone(), closed.clone()).run());
            }
        }
        let bells = Bells::new(link.clone(), hub.clone(), tasks.clone());
        let redis = Redis {
            target,
            limits: builder.limits,
            keys,
            hub,
            bells,
            rounds: Rounds::new(),
            puts: Gatherer::new(link.clone(), tasks.clone()),
            appends: Gatherer::new(link.clone(), tasks.clone()),
            handouts: Handouts::default(),
            link,
            tasks,
        };
        Ok(Self { redis: Arc::new(redis), closed, connections: Mutex::new(connections) })
    }
}

/// How long a connection may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(1);

async fn end(connections: Vec<(Fred, Option<Driver>)>) {
    for (client, driver) in connections {
        // A connection that cannot say goodbye is cut.
        let _ = tokio::time::timeout(GOODBYE, client.quit()).await;
        if let Some(mut driver) = driver {
            let _ = tokio::time::timeout(GOODBYE, driver.ended()).await;
        }
    }
}

// The connections end with their drivers.
impl Drop for Backend {
    fn drop(&mut self) {
        self.closed.cancel();
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
        self.closed.cancel();
        let connections = std::mem::take(&mut *self.connections.lock().await);
        end(connections).await;
        self.redis.tasks.close();
        self.redis.tasks.wait().await;
    }
}

impl Redis {
    async fn subscribe(&self, map: &MapId) -> Result<MapFeed, Error> {
        if self.link.closed().is_cancelled() {
            return Err(Error::Closed);
        }
        let (feed, stands) = self.hub.feed(self.keys.feed(map));
        match tokio::time::timeout(self.link.timeout(), stands).await {
            Ok(Ok(())) => Ok(feed),
            Ok(Err(_)) => Err(Error::Closed),
            Err(_) => {
                let source = ServerSaid(format!("no subscription stood within {:?}", self.link.timeout()));
                Err(Ask::new("subscribe", map).unavailable(Outcome::NotApplied, Arc::new(source)))
            }
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
