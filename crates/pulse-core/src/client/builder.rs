//! Options of a connection.

use std::{fmt, sync::Arc, time::Duration};

#[cfg(feature = "rustls")]
use super::Tls;
use super::{Client, options};
use crate::{Error, Limits, Memory};

/// How long to wait between attempts to reconnect: exponential from `min` to `max`, with jitter, for ever. Both are from
/// a millisecond to a day; a shorter or longer time acts as that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reconnect {
    /// Before the first attempt.
    pub min: Duration,
    /// At most.
    pub max: Duration,
}

impl Reconnect {
    /// Waits from `min` to `max`. [`ClientBuilder::connect`] refuses a `min` that is longer than `max`.
    #[must_use]
    pub const fn new(min: Duration, max: Duration) -> Self {
        Self { min, max }
    }
}

impl Default for Reconnect {
    /// From 50 ms to 2 s.
    fn default() -> Self {
        Self::new(Duration::from_millis(50), Duration::from_secs(2))
    }
}

/// Connects with options. Options that a backend has no use for are ignored by it, but what makes no sense is refused by
/// every backend.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), pulse_core::Error> {
/// use std::time::Duration;
/// let client = pulse_core::ClientBuilder::new("memory:")
///     .key_prefix("shop:")
///     .command_timeout(Duration::from_secs(2))
///     .connect()
///     .await?;
/// # client.close().await;
/// # Ok(()) }
/// ```
#[derive(Clone)]
#[must_use = "a builder does nothing until it connects"]
pub struct ClientBuilder {
    pub(crate) url: String,
    pub(crate) limits: Limits,
    pub(crate) connect_timeout: Duration,
    pub(crate) command_timeout: Duration,
    pub(crate) reconnect: Reconnect,
    pub(crate) key_prefix: String,
    pub(crate) connection_name: Option<String>,
    pub(crate) unresponsive_after: Option<Duration>,
    pub(crate) username: Option<String>,
    pub(crate) password: Option<String>,
    /// A client of the caller's, for the commands.
    #[cfg(feature = "fred")]
    pub(crate) fred: Option<fred::clients::Client>,
    #[cfg(feature = "rustls")]
    pub(crate) tls: Option<Tls>,
}

impl ClientBuilder {
    /// Options for a URL; see [`connect`](crate::connect) for the forms.
    pub fn new(url: impl AsRef<str>) -> Self {
        Self {
            url: url.as_ref().to_owned(),
            limits: Limits::default(),
            connect_timeout: Duration::from_secs(5),
            command_timeout: Duration::from_secs(10),
            reconnect: Reconnect::default(),
            key_prefix: "pulse:".into(),
            connection_name: None,
            unresponsive_after: None,
            username: None,
            password: None,
            #[cfg(feature = "fred")]
            fred: None,
            #[cfg(feature = "rustls")]
            tls: None,
        }
    }

    /// Sets the sizes that are checked before anything is sent.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets how long one attempt to connect may take: at least a millisecond, and a day at most, as which a longer time
    /// acts. Default 5 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Sets how long a call may take, beyond the time that it was asked to wait: at least a millisecond, and a day at
    /// most, as which a longer time acts. Default 10 s.
    pub fn command_timeout(mut self, timeout: Duration) -> Self {
        self.command_timeout = timeout;
        self
    }

    /// Sets how long a connection may owe an answer, beyond twice its round trip, until it is doubted. Default half a
    /// second, or an eighth of the shortest lease that this client uses, if that is less.
    ///
    /// A connection that is doubted keeps its commands. A second one is opened beside it, and takes its place only if it
    /// is answered while the first one still is not: so a link that swallows everything is replaced soon, and a server
    /// that is slow keeps its connections. What was sent on a connection that is given up fails like what was sent before
    /// a connection broke.
    pub fn unresponsive_after(mut self, time: Duration) -> Self {
        self.unresponsive_after = Some(time);
        self
    }

    /// Sets how long to wait between attempts to reconnect.
    pub fn reconnect(mut self, reconnect: Reconnect) -> Self {
        self.reconnect = reconnect;
        self
    }

    /// Sets what every key in the server begins with, so that applications can share a server: at most 1,024 bytes.
    /// Default `pulse:`.
    pub fn key_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.key_prefix = prefix.into();
        self
    }

    /// Sets the name that the server shows for the connections (`CLIENT LIST`): at most 1,024 ASCII letters, digits and
    /// signs. An empty one is none.
    pub fn connection_name(mut self, name: impl Into<String>) -> Self {
        self.connection_name = Some(name.into());
        self
    }

    /// Sets user and password, in place of those in the URL. An empty user is the server's default user.
    pub fn credentials(mut self, username: impl Into<String>, password: impl Into<String>) -> Self {
        let username = username.into();
        self.username = (!username.is_empty()).then_some(username);
        self.password = Some(password.into());
        self
    }

    /// Sets how TLS connections are made: which certificates to trust, and which to present. Without it, the
    /// certificates that the system trusts are trusted, and none is presented. Only for URLs that ask for TLS.
    ///
    /// A `rustls::ClientConfig` becomes a [`Tls`] by `into()`, with the feature `fred`.
    #[cfg(feature = "rustls")]
    #[cfg_attr(docsrs, doc(cfg(feature = "rustls")))]
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Connects as a [fred](https://docs.rs/fred) client of yours is configured to, in place of a URL: to the same
    /// servers, with the same credentials, database and TLS.
    ///
    /// The connections are Pulse's own, because what it promises of servers that hang or change their role depends on
    /// how they are kept; time-outs and reconnection are those of this builder, and your client is not used. A client
    /// need not be connected for this.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// use pulse_core::{ClientBuilder, fred::types::{Builder, config::Config}};
    ///
    /// let redis = Builder::from_config(Config::from_url("redis://localhost:6379")?).build()?;
    /// let client = ClientBuilder::from_fred(&redis).key_prefix("shop:").connect().await?;
    /// # Ok(()) }
    /// ```
    #[cfg(feature = "fred")]
    #[cfg_attr(docsrs, doc(cfg(feature = "fred")))]
    pub fn from_fred(client: &fred::clients::Client) -> Self {
        Self { fred: Some(client.clone()), ..Self::new("") }
    }

    /// Connects.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`], [`Error::InvalidUrl`], [`Error::InvalidTls`], [`Error::Connect`], [`Error::Auth`],
    /// [`Error::Denied`],
    /// [`Error::UnsupportedServer`].
    #[cfg_attr(not(feature = "redis"), expect(clippy::unused_async, reason = "only servers need to be awaited"))]
    pub async fn connect(self) -> Result<Client, Error> {
        let builder = options::checked(self)?;
        if let Some(name) = builder.url.strip_prefix("memory:") {
            let memory =
                if name.is_empty() { Memory::with_limits(builder.limits) } else { Memory::named(name, builder.limits) };
            return Ok(Client::from_backend(Arc::new(memory)));
        }
        #[cfg(feature = "redis")]
        {
            // In a box, so that the callers' futures stay small.
            Box::pin(crate::redis::connect(builder)).await
        }
        #[cfg(not(feature = "redis"))]
        {
            Err(Error::InvalidUrl {
                url: builder.url.split('@').next_back().unwrap_or_default().to_owned(),
                reason: "only memory: and memory:NAME are known here; enable the feature `redis` for servers".into(),
            })
        }
    }
}

impl fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The URL and the credentials may hold a password.
        f.debug_struct("ClientBuilder")
            .field("limits", &self.limits)
            .field("connect_timeout", &self.connect_timeout)
            .field("command_timeout", &self.command_timeout)
            .field("reconnect", &self.reconnect)
            .field("key_prefix", &self.key_prefix)
            .field("connection_name", &self.connection_name)
            .finish_non_exhaustive()
    }
}
