//! Connecting: from options to two connections that are known to lead to a server that Pulse can work with.

use std::{fmt, pin::pin, sync::Arc, time::Duration};

use fred::{
    clients::Client as Fred,
    error::{Error as FredError, ErrorKind},
    interfaces::{ClientLike, EventInterface},
    types::{
        Builder, ClusterHash, ConnectHandle, CustomCommand, RespVersion, Value,
        config::{
            Config, ConnectionConfig, Options, PerformanceConfig, ReconnectPolicy, Server, ServerConfig,
            UnresponsiveConfig,
        },
    },
};
use futures::FutureExt;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use super::{
    errors::{Ask, Refusal, source},
    link::{Answer, Link, Repeat, Route},
    reply,
    url::{self, Address},
};
use crate::{ClientBuilder, Error, Reconnect};

/// How many messages the connection for feeds holds for the task that hands them out.
const MESSAGES: usize = 4096;

/// A connected client and the task that drives it.
pub(super) struct Connected {
    pub(super) client: Fred,
    pub(super) driver: Driver,
}

/// The task that drives a client. It ends with its owner, because on its own it would reconnect for ever.
pub(super) struct Driver(ConnectHandle);

impl Driver {
    /// Waits for the task to end by itself.
    pub(super) async fn ended(&mut self) {
        // How it ended makes no difference any more.
        let _ = (&mut self.0).await;
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Reads the URL of a builder and its options into the client library's terms.
pub(super) fn configure(builder: &ClientBuilder) -> Result<(Config, Address), Error> {
    let mut address = url::parse(&builder.url)?;
    if let Some(password) = &builder.password {
        address.username.clone_from(&builder.username);
        address.password = Some(password.clone());
    }
    let mut config = Config {
        fail_fast: true,
        username: address.username.clone(),
        password: address.password.clone(),
        server: address.server.clone(),
        database: address.database,
        ..Config::default()
    };
    set_tls(&mut config, builder, &address)?;
    Ok((config, address))
}

#[cfg(feature = "rustls")]
fn set_tls(config: &mut Config, builder: &ClientBuilder, address: &Address) -> Result<(), Error> {
    use fred::types::config::TlsConnector;

    let invalid = |reason: String| Error::InvalidUrl { url: address.shown.clone(), reason };
    let connector = match (&builder.tls, address.tls) {
        (None, false) => return Ok(()),
        (Some(tls), true) => TlsConnector::from(tls.clone()),
        (None, true) => TlsConnector::default_rustls()
            .map_err(|error: FredError| invalid(format!("TLS cannot be set up: {}", error.details())))?,
        (Some(_), false) => {
            return Err(invalid("TLS was configured, but the URL asks for none: begin it with rediss".into()));
        }
    };
    config.tls = Some(connector.into());
    Ok(())
}

#[cfg(not(feature = "rustls"))]
fn set_tls(_: &mut Config, _: &ClientBuilder, address: &Address) -> Result<(), Error> {
    if address.tls {
        return Err(Error::InvalidUrl {
            url: address.shown.clone(),
            reason: "TLS is not built in: enable the feature `rustls`".into(),
        });
    }
    Ok(())
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Commands,
    Feeds,
}

/// Opens a connection, or says what was tried.
pub(super) async fn open(
    builder: &ClientBuilder,
    config: &Config,
    shown: &str,
    purpose: Purpose,
) -> Result<Connected, Error> {
    // An attempt to connect must be over before the commands that wait for it are.
    let attempt = builder.connect_timeout.min(builder.command_timeout.mul_f32(0.8));
    let mut config = config.clone();
    // Pushed messages need the third version of the protocol; the second is a little cheaper to read.
    config.version = if purpose == Purpose::Feeds { RespVersion::RESP3 } else { RespVersion::RESP2 };
    // TCP may gather small packets (`nodelay` stays off): measured, that gains a quarter of the throughput, and a call
    // that is alone on the connection is not delayed by it.
    let connection = ConnectionConfig {
        connection_timeout: attempt,
        internal_command_timeout: attempt,
        // No command is sent again unless it says so, and no redirection followed; see `link`. A subscription may be
        // led on: servers answer it with MOVED, never with ASK.
        max_command_attempts: if purpose == Purpose::Commands { 1 } else { 3 },
        max_redirections: if purpose == Purpose::Commands { 0 } else { 5 },
        unresponsive: unresponsive(builder, &config, purpose),
        // A refusal is told to whoever asked, and does not take the other commands of the connection with it.
        reconnect_errors: Vec::new(),
        ..ConnectionConfig::default()
    };
    let performance = PerformanceConfig {
        default_command_timeout: builder.command_timeout,
        broadcast_channel_capacity: if purpose == Purpose::Feeds { MESSAGES } else { 64 },
        ..PerformanceConfig::default()
    };
    let mut fred = Builder::from_config(config.clone());
    fred.set_connection_config(connection);
    fred.set_performance_config(performance);
    fred.set_policy(policy(builder.reconnect));
    let failed = |error: FredError| connect_error(shown, &config.server, error);
    let client = fred.build().map_err(failed)?;
    let limit = attempt * 2 * u32::try_from(config.server.hosts().len().max(1)).unwrap_or(1);
    let connected = {
        let mut connected = pin!(client.wait_for_connect());
        // Listens before the task begins, so that its result cannot be missed.
        let _ = (&mut connected).now_or_never();
        // Not the library's `init`, whose task would outlive this future.
        let driver = Driver(client.connect());
        tokio::time::timeout(limit, connected).await.map(|result| result.map(|()| driver))
    };
    match connected {
        Ok(Ok(driver)) => Ok(Connected { client, driver }),
        Ok(Err(error)) => Err(failed(error)),
        Err(_) => Err(failed(FredError::new(ErrorKind::Timeout, format!("no connection within {limit:?}")))),
    }
}

/// When the library gives a connection up that does not answer.
///
/// It looks at its watch for every command, which costs a twentieth of the throughput. With a single connection for the
/// commands, `link` needs no watch: the first command that times out tells. In a cluster only the library knows which
/// of the connections it is, and on the connection for feeds there is next to nothing to time.
fn unresponsive(builder: &ClientBuilder, config: &Config, purpose: Purpose) -> UnresponsiveConfig {
    let watched = purpose == Purpose::Feeds || config.server.is_clustered();
    UnresponsiveConfig {
        max_timeout: watched.then_some(builder.command_timeout),
        interval: (builder.command_timeout / 4).clamp(Duration::from_millis(50), Duration::from_secs(2)),
    }
}

fn policy(reconnect: Reconnect) -> ReconnectPolicy {
    let millis = |duration: Duration| u32::try_from(duration.as_millis()).unwrap_or(u32::MAX);
    let min = millis(reconnect.min).max(1);
    let mut policy = ReconnectPolicy::new_exponential(0, min, millis(reconnect.max).max(min), 2);
    policy.set_jitter(min);
    policy
}

/// What was tried, and how it failed.
#[derive(Debug, thiserror::Error)]
#[error("tried {tried}")]
struct Tried {
    tried: String,
    #[source]
    error: FredError,
}

pub(super) fn connect_error(shown: &str, server: &ServerConfig, error: FredError) -> Error {
    let target = shown.to_owned();
    if *error.kind() == ErrorKind::Auth || error.details().starts_with("NOPERM") {
        return Error::Auth { target, source: source(error) };
    }
    if error.details().contains("unknown command") || error.details().starts_with("NOPROTO") {
        return Error::UnsupportedServer { target, found: "a server without RESP3".into(), needed: NEEDED };
    }
    Error::Connect { target, source: Arc::new(Tried { tried: servers(server), error }) }
}

fn servers(server: &ServerConfig) -> String {
    match server {
        ServerConfig::Unix { path } => path.display().to_string(),
        other => {
            let hosts = other.hosts();
            hosts.iter().map(|server| format!("{}:{}", server.host, server.port)).collect::<Vec<_>>().join(", ")
        }
    }
}

/// Names a server that no URL was given for.
pub(super) fn shown(server: &ServerConfig) -> String {
    let scheme = match server {
        ServerConfig::Unix { .. } => "redis+unix",
        ServerConfig::Clustered { .. } => "redis-cluster",
        ServerConfig::Sentinel { .. } => "redis-sentinel",
        ServerConfig::Centralized { .. } => "redis",
    };
    format!("{scheme}://{}", servers(server).replace(", ", ","))
}

/// Gives every connection of a client its name, as the server shows it; the library only knows how to show its own id.
pub(super) struct Namer {
    client: Fred,
    name: String,
    /// Every connection that is made.
    made: tokio::sync::broadcast::Receiver<Server>,
    closed: CancellationToken,
}

impl Namer {
    pub(super) fn new(client: Fred, name: String, closed: CancellationToken) -> Self {
        Self { made: client.reconnect_rx(), client, name, closed }
    }

    pub(super) async fn run(mut self) {
        for server in self.client.active_connections() {
            self.set_name(server).await;
        }
        loop {
            let server = tokio::select! {
                () = self.closed.cancelled() => return,
                server = self.made.recv() => server,
            };
            match server {
                Ok(server) => self.set_name(server).await,
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            }
        }
    }

    async fn set_name(&self, server: Server) {
        let cluster_node = self.client.is_clustered().then_some(server);
        let options = Options { cluster_node, timeout: Some(Duration::from_secs(5)), ..Options::default() };
        let command = CustomCommand::new_static("CLIENT", ClusterHash::Random, false);
        let args = vec![Value::from_static_str("SETNAME"), Value::from(self.name.as_str())];
        // The name is for people who look; nothing depends on it.
        if let Err(error) = self.client.with_options(&options).custom_raw(command, args).await {
            tracing::debug!(%error, "a connection could not be named");
        }
    }
}

const NEEDED: &str = "Redis 7.0 or later, or Valkey 7.2 or later";

/// Checks that the server is one that Pulse works with, and that the user may do what Pulse does.
pub(super) async fn examine(link: &Link, shown: &str, channel: bytes::Bytes) -> Result<(), Error> {
    let ask = Ask::new("look at the server", &shown);
    let args = || vec![Value::from_static_str("everything")];
    match link.try_call(ask, Repeat::Freely, "INFO", Route::Any, args).await? {
        Answer::Reply(info) => {
            let info = reply::text(info).map_err(|misfit| ask.protocol(misfit))?;
            check_version(shown, &info)?;
            warn_of_eviction(shown, &info);
        }
        Answer::Refused(Refusal::Auth, message) if message.starts_with("NOPERM") => {
            tracing::warn!(target = shown, "the user may not run INFO, so version and eviction policy are not checked");
        }
        Answer::Refused(refusal, message) => return Err(link.error(ask, refusal, &message)),
    }
    // Users of an ACL often lack the permission for channels; then every commit would fail half-way.
    let args = || vec![Value::Bytes(channel.clone()), Value::from_static_str("")];
    match link.try_call(ask, Repeat::Freely, "SPUBLISH", Route::Key(0), args).await? {
        Answer::Reply(_) => Ok(()),
        Answer::Refused(refusal, message) => Err(link.error(ask, refusal, &message)),
    }
}

fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

fn check_version(shown: &str, info: &str) -> Result<(), Error> {
    let (name, version, least) = match (field(info, "valkey_version"), field(info, "redis_version")) {
        (Some(version), _) => ("Valkey", version, (7, 2)),
        (None, Some(version)) => ("Redis", version, (7, 0)),
        (None, None) => ("a server", "without a version", (0, 0)),
    };
    let mut parts = version.split('.').map(str::parse::<u32>);
    let found = match (parts.next(), parts.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Some((major, minor)),
        _ => None,
    };
    if found.is_some_and(|found| found >= least) {
        return Ok(());
    }
    Err(Error::UnsupportedServer { target: shown.to_owned(), found: format!("{name} {version}"), needed: NEEDED })
}

fn warn_of_eviction(shown: &str, info: &str) {
    if let Some(policy) = evicting_policy(info) {
        tracing::warn!(
            target = shown,
            policy,
            "the server evicts keys when its memory is full, and with them maps and streams: set maxmemory-policy to noeviction"
        );
    }
}

/// The policy by which the server throws keys away, whether or not its memory has a limit yet: that can be set later.
fn evicting_policy(info: &str) -> Option<&str> {
    field(info, "maxmemory_policy").filter(|policy| *policy != "noeviction")
}

impl fmt::Debug for Connected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connected").field("id", &self.client.id()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_below_the_minimum_are_refused() {
        for (info, fine) in [
            ("redis_version:7.0.15\r\n", true),
            ("redis_version:8.2.0\r\n", true),
            ("redis_version:6.2.14\r\n", false),
            ("redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.0.1\r\n", true),
            ("redis_version:7.2.4\r\nvalkey_version:7.1.0\r\n", false),
            ("redis_version:many\r\n", false),
            ("", false),
        ] {
            assert_eq!(check_version("redis://h", info).is_ok(), fine, "{info:?}");
        }
    }

    #[test]
    fn every_policy_that_evicts_is_warned_of() {
        for (info, policy) in [
            ("maxmemory:0\r\nmaxmemory_policy:noeviction\r\n", None),
            ("maxmemory:1000\r\nmaxmemory_policy:allkeys-lru\r\n", Some("allkeys-lru")),
            // The limit can be set later.
            ("maxmemory:0\r\nmaxmemory_policy:volatile-ttl\r\n", Some("volatile-ttl")),
            ("", None),
        ] {
            assert_eq!(evicting_policy(info), policy, "{info:?}");
        }
    }
}
