//! One connection to one server: how it is opened, and how its end is known.
//!
//! The client library is asked for no more than this: to open a socket, to authenticate, and to carry commands and
//! answers in order (version 2 of the protocol, in which every argument travels in binary form). It never connects
//! again by itself, follows no redirection and knows of no cluster and no sentinel; see [`super`].

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use fred::{
    clients::{Client as Fred, WithOptions},
    error::{Error as FredError, ErrorKind},
    interfaces::{ClientLike, EventInterface},
    types::{
        Builder, ClusterHash, CustomCommand, Message, Resp3Frame, RespVersion, Value,
        config::{Config, ConnectionConfig, Options, PerformanceConfig, ReconnectPolicy, ServerConfig, TcpConfig},
    },
};
use futures::FutureExt;
use tokio::{
    sync::broadcast,
    task::AbortHandle,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    super::{errors::is_said, reply},
    settings::{Settings, failed},
    traffic::Traffic,
};

/// How many messages a connection for feeds holds for the task that hands them out.
const MESSAGES: usize = 4096;

/// After how much silence the system probes a connection on its own: a help for middleboxes, not for us.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// The pause before the client library would connect again by itself: it never gets there.
const NEVER: u32 = 7 * 24 * 60 * 60 * 1000;

/// How long a connection may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(1);

/// Commands are sent once; what may be repeated is repeated by [`super::super::link`].
const ONCE: Options = Options {
    max_attempts: Some(1),
    max_redirections: None,
    timeout: None,
    cluster_node: None,
    cluster_hash: None,
    fail_fast: false,
};

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Commands and their answers.
    Commands,
    /// Subscriptions.
    Feeds,
    /// A few questions, after which it is dropped.
    Questions,
}

/// Where a connection leads, and what has to be true there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Demands {
    /// The server must be a primary, as far as the user may ask.
    pub(crate) primary: bool,
    /// The server must be a node of a cluster that serves its slots, as far as the user may ask.
    pub(crate) serving: bool,
}

/// Who a connection authenticates as.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Login<'a> {
    pub(crate) username: Option<&'a str>,
    pub(crate) password: Option<&'a str>,
    pub(crate) database: Option<u8>,
}

/// A connection that stands, or stood. Dropping it, or giving it up, ends it at once.
pub(crate) struct Connection {
    client: Fred,
    once: WithOptions<Fred>,
    host: String,
    pub(crate) traffic: Traffic,
    /// How long a `PING` took while it was opened.
    pub(crate) round_trip: Duration,
    pub(crate) opened: Instant,
    /// What the server calls the connection, if it says so.
    id: Option<i64>,
    /// When a write was last refused on it because the server is a replica, in milliseconds after it was opened, plus 1.
    demoted: AtomicU64,
    ended: CancellationToken,
    driver: AbortHandle,
    messages: Mutex<Option<broadcast::Receiver<Message>>>,
}

impl Connection {
    /// Opens a connection and makes sure that the server answers on it.
    pub(crate) async fn open(
        settings: &Settings,
        server: ServerConfig,
        login: Login<'_>,
        purpose: Purpose,
        demands: Demands,
    ) -> Result<Arc<Self>, FredError> {
        let open = async {
            let mut connection = Self::establish(settings, server, login, purpose).await?;
            connection.prepare(settings, purpose, demands).await?;
            Ok(Arc::new(connection))
        };
        let limit = settings.attempt;
        timeout(limit, open)
            .await
            .unwrap_or_else(|_| Err(FredError::new(ErrorKind::Timeout, format!("no answer within {limit:?}"))))
    }

    async fn establish(
        settings: &Settings,
        server: ServerConfig,
        login: Login<'_>,
        purpose: Purpose,
    ) -> Result<Self, FredError> {
        let host = server.hosts().first().map(|server| server.host.to_string()).unwrap_or_default();
        #[cfg(feature = "rustls")]
        let server = match (server, &settings.server_name) {
            (ServerConfig::Centralized { mut server }, Some(name)) => {
                server.tls_server_name = Some(name.as_str().into());
                ServerConfig::Centralized { server }
            }
            (server, _) => server,
        };
        let config = Config {
            // The connection fails at once if the first attempt does.
            fail_fast: true,
            version: RespVersion::RESP2,
            server,
            username: login.username.map(str::to_owned),
            password: login.password.map(str::to_owned),
            database: login.database,
            #[cfg(feature = "rustls")]
            tls: settings.tls.clone(),
            ..Config::default()
        };
        let connection = ConnectionConfig {
            connection_timeout: settings.attempt,
            internal_command_timeout: settings.attempt,
            max_command_attempts: 1,
            max_redirections: 0,
            // A refusal is told to the caller, and does not take the other commands of the connection with it.
            reconnect_errors: Vec::new(),
            // TCP may gather small packets (`nodelay` stays off): measured, that gains a quarter of the throughput,
            // and a call that is alone on the connection is not delayed by it.
            tcp: TcpConfig {
                keepalive: Some(fred::socket2::TcpKeepalive::new().with_time(KEEP_ALIVE).with_interval(KEEP_ALIVE)),
                ..TcpConfig::default()
            },
            ..ConnectionConfig::default()
        };
        let performance = PerformanceConfig {
            default_command_timeout: settings.command_timeout,
            broadcast_channel_capacity: if purpose == Purpose::Feeds { MESSAGES } else { 16 },
            ..PerformanceConfig::default()
        };
        let mut builder = Builder::from_config(config);
        builder.set_connection_config(connection);
        builder.set_performance_config(performance);
        // Without a policy, a connection that ends would leave behind a queue that takes commands and never sends them.
        // With this one it waits, and is aborted, which fails what is queued.
        builder.set_policy(ReconnectPolicy::new_constant(0, NEVER));
        let client = builder.build()?;
        let messages = (purpose == Purpose::Feeds).then(|| client.message_rx());
        let mut lost = client.error_rx();
        let mut connected = Box::pin(client.wait_for_connect());
        // Listens before the task begins, so that its result cannot be missed.
        let _ = (&mut connected).now_or_never();
        let mut driver = Driver(client.connect());
        let abort = driver.0.abort_handle();
        tokio::select! {
            connected = connected => connected?,
            result = &mut driver.0 => {
                let reason = result.ok().and_then(Result::err);
                return Err(reason.unwrap_or_else(|| FredError::new(ErrorKind::IO, "the connection ended")));
            }
        }
        let ended = CancellationToken::new();
        let token = ended.clone();
        // Ends with the connection, which cancels the token when it is dropped.
        tokio::spawn(async move {
            tokio::select! {
                () = token.cancelled() => {}
                // Both mean that the connection is gone.
                _ = lost.recv() => {}
                _ = &mut driver.0 => {}
            }
            drop(driver);
            token.cancel();
        });
        let once = client.with_options(&Options { timeout: Some(settings.command_timeout), ..ONCE });
        Ok(Self {
            client,
            once,
            host,
            traffic: Traffic::default(),
            round_trip: Duration::ZERO,
            opened: Instant::now(),
            id: None,
            demoted: AtomicU64::new(0),
            ended,
            driver: abort,
            messages: Mutex::new(messages),
        })
    }

    /// Names the connection, and makes sure that the server answers and is what it has to be.
    async fn prepare(&mut self, settings: &Settings, purpose: Purpose, demands: Demands) -> Result<(), FredError> {
        let limit = settings.attempt;
        if let (Some(name), true) = (&settings.name, purpose != Purpose::Questions) {
            let args = vec![Value::from_static_str("SETNAME"), Value::from(name.as_str())];
            if let Err(error) = self.ask("CLIENT", args, limit).await {
                tracing::debug!(%error, "a connection could not be given its name");
            }
        }
        if purpose != Purpose::Questions {
            let id = self.ask("CLIENT", vec![Value::from_static_str("ID")], limit).await;
            self.id = id.ok().and_then(|id| reply::number(id).ok());
            // The better of two, because the first one may have waited for a server that was busy.
            let first = self.ping(limit).await?;
            self.round_trip = self.ping(limit).await?.min(first);
        }
        if demands.primary && !self.may_be_primary(limit).await? {
            return Err(failed("the server is a replica"));
        }
        if demands.serving && !self.may_be_serving(limit).await? {
            return Err(failed("CLUSTERDOWN the node says that the cluster does not serve all of its slots"));
        }
        Ok(())
    }

    /// Asks something, and takes a refusal for a failure.
    pub(crate) async fn ask(
        &self,
        command: &'static str,
        args: Vec<Value>,
        limit: Duration,
    ) -> Result<Resp3Frame, FredError> {
        let owed = self.traffic.sent(0);
        let client = self.client.with_options(&Options { timeout: Some(limit), ..ONCE });
        let reply = client.custom_raw(CustomCommand::new_static(command, ClusterHash::Random, false), args).await?;
        owed.answered();
        match reply {
            Resp3Frame::SimpleError { data, .. } => Err(FredError::new(ErrorKind::Unknown, data.to_string())),
            Resp3Frame::BlobError { data, .. } => {
                Err(FredError::new(ErrorKind::Unknown, String::from_utf8_lossy(&data).into_owned()))
            }
            reply => Ok(reply),
        }
    }

    /// Makes sure that the server answers; returns how long it took.
    pub(crate) async fn ping(&self, limit: Duration) -> Result<Duration, FredError> {
        let asked = Instant::now();
        self.ask("PING", Vec::new(), limit).await?;
        Ok(asked.elapsed())
    }

    /// Whether the server is a primary, or does not say.
    pub(crate) async fn may_be_primary(&self, limit: Duration) -> Result<bool, FredError> {
        match self.ask("ROLE", Vec::new(), limit).await {
            Ok(role) => {
                let role = reply::list(role).ok().and_then(|role| role.into_iter().next());
                Ok(role.and_then(|role| reply::text(role).ok()).is_none_or(|role| role != "slave"))
            }
            Err(error) if is_said(&error) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Whether the server is a node of a cluster that serves all of its slots, or does not say.
    async fn may_be_serving(&self, limit: Duration) -> Result<bool, FredError> {
        match self.ask("CLUSTER", vec![Value::from_static_str("INFO")], limit).await {
            Ok(info) => Ok(reply::text(info).is_ok_and(|info| info.contains("cluster_state:ok"))),
            Err(error) if error.details().starts_with("NOPERM") => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// A write was refused because the server is a replica.
    pub(crate) fn demote(&self) {
        let at = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
        self.demoted.store(at + 1, Ordering::Relaxed);
    }

    /// For how long no write has been refused because the server is a replica; `None` if none ever was.
    pub(crate) fn demoted_for(&self) -> Option<Duration> {
        let at = self.demoted.load(Ordering::Relaxed).checked_sub(1)?;
        Some(self.opened.elapsed().saturating_sub(Duration::from_millis(at)))
    }

    /// Asks the server, on this connection, what it does for another one. `None` if it does not say, or does not know that
    /// one.
    pub(crate) async fn look_at(&self, other: &Self, limit: Duration) -> Option<Seen> {
        let id = other.id?;
        let args = vec![Value::from_static_str("LIST"), Value::from_static_str("ID"), Value::from(id)];
        let list = reply::text(self.ask("CLIENT", args, limit).await.ok()?).ok()?;
        Seen::read(&list)
    }

    /// The client library's handle, for one attempt of a command.
    pub(crate) fn once(&self) -> WithOptions<Fred> {
        self.once.clone()
    }

    /// The same, with less time than usual.
    pub(crate) fn once_within(&self, limit: Duration) -> WithOptions<Fred> {
        self.client.with_options(&Options { timeout: Some(limit), ..ONCE })
    }

    /// The host, as it was asked for.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// What arrives on the connection, for the one who asks first.
    pub(crate) fn take_messages(&self) -> Option<broadcast::Receiver<Message>> {
        // Nothing panics while holding it.
        self.messages.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Cancelled when the connection has ended, however.
    pub(crate) fn ended(&self) -> &CancellationToken {
        &self.ended
    }

    /// Ends the connection at once. What was sent and not answered fails, with an unknown outcome.
    pub(crate) fn give_up(&self) {
        self.driver.abort();
        self.ended.cancel();
    }

    /// Ends the connection after what was sent before has been answered, if that is soon.
    pub(crate) async fn quit(&self) {
        // A connection that cannot say goodbye is cut.
        let _ = timeout(GOODBYE, self.client.quit()).await;
        self.give_up();
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.give_up();
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("host", &self.host).finish_non_exhaustive()
    }
}

/// What a server says of a connection.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The server waits for something before it answers: for writes to be allowed again, for example.
    pub(crate) held_back: bool,
    /// How many bytes wait to be sent to the client. They are counted by whole answers, so they shrink only at the end of
    /// one.
    pub(crate) unsent: u64,
}

impl Seen {
    /// Reads a line of `CLIENT LIST`.
    fn read(line: &str) -> Option<Self> {
        let field = |name: &str| line.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        let number = |name| field(name).and_then(|number| number.parse::<u64>().ok());
        Some(Self { held_back: field("flags")?.contains('b'), unsent: number("obl")? + number("omem")? })
    }
}

/// The task that drives a client, which ends with this.
struct Driver(fred::types::ConnectHandle);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_the_server_works_for_is_told_from_one_that_it_has_forgotten() {
        let line = |flags: &str, obl: u32, omem: u32| {
            format!(
                "id=7 addr=127.0.0.1:1 name=a\\x20b flags={flags} db=0 qbuf=0 obl={obl} oll=0 omem={omem} cmd=ping\n"
            )
        };
        assert_eq!(Seen::read(&line("N", 0, 0)), Some(Seen { held_back: false, unsent: 0 }));
        assert_eq!(Seen::read(&line("b", 0, 0)), Some(Seen { held_back: true, unsent: 0 }));
        assert_eq!(Seen::read(&line("P", 5, 20)), Some(Seen { held_back: false, unsent: 25 }));
        for other in ["", "\n", "flags=N", "flags=N obl=x omem=1"] {
            assert_eq!(Seen::read(other), None, "{other:?}");
        }
    }
}
