//! What every connection of a client is made with, in the client library's terms.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use fred::{
    error::{Error as FredError, ErrorKind},
    types::config::{Config, Server, ServerConfig},
};

use super::url;
use crate::{ClientBuilder, Error, Reconnect};

/// How long a connection may owe an answer before it is probed, unless the builder says otherwise or a lease in use
/// asks for less.
const UNRESPONSIVE: Duration = Duration::from_millis(500);

/// Options of a client, checked and translated.
pub(crate) struct Settings {
    /// The URL as it may be shown: without user, password and options.
    pub(crate) target: Arc<str>,
    /// Where the servers are.
    pub(crate) place: Place,
    pub(crate) username: Option<String>,
    pub(crate) password: Option<String>,
    /// The database; in a cluster there is only one.
    pub(crate) database: Option<u8>,
    #[cfg(feature = "rustls")]
    pub(crate) tls: Option<fred::types::config::TlsConfig>,
    /// The name that the certificates of servers must hold, if it is not that of the host.
    #[cfg(feature = "rustls")]
    pub(crate) server_name: Option<String>,
    /// How long one attempt to connect may take.
    pub(crate) attempt: Duration,
    /// How long a call may take.
    pub(crate) command_timeout: Duration,
    /// The pauses between attempts.
    pub(crate) reconnect: Reconnect,
    /// How long a connection may owe an answer before it is probed.
    pub(crate) unresponsive: Duration,
    /// Whether it is probed sooner for the sake of short leases.
    pub(crate) minds_leases: bool,
    /// What the server shows the connections as.
    pub(crate) name: Option<String>,
}

/// Where the servers of a client are, and how they find one another.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    /// One server.
    Single(Server),
    /// One server, behind a socket of the file system.
    Unix(PathBuf),
    /// A cluster, known by some of its nodes.
    Cluster(Vec<Server>),
    /// The primary that sentinels name.
    Sentinel(Sentinels),
}

/// Sentinels, and what they are asked for.
#[derive(Clone)]
pub(crate) struct Sentinels {
    pub(crate) hosts: Vec<Server>,
    pub(crate) service: String,
    pub(crate) username: Option<String>,
    pub(crate) password: Option<String>,
}

impl Settings {
    /// Reads the URL of a builder and its options.
    pub(crate) fn of(builder: &ClientBuilder) -> Result<Self, Error> {
        #[cfg(feature = "fred")]
        if let Some(client) = &builder.fred {
            use fred::interfaces::ClientLike;

            return Ok(Self::like(builder, &client.client_config()));
        }
        let mut address = url::parse(&builder.url)?;
        if let Some(password) = &builder.password {
            address.username.clone_from(&builder.username);
            address.password = Some(password.clone());
        }
        // Without a password the client library would not name the user either, and be served as the default user.
        if address.username.is_some() {
            address.password.get_or_insert_default();
        }
        #[cfg(not(feature = "rustls"))]
        if address.tls {
            return Err(Error::InvalidUrl {
                url: address.shown,
                reason: "TLS is not built in: enable the feature `rustls`".into(),
            });
        }
        let config = Config {
            username: address.username,
            password: address.password,
            server: address.server,
            database: address.database,
            #[cfg(feature = "rustls")]
            tls: super::tls::configure(builder, address.tls, &address.shown)?,
            ..Config::default()
        };
        Ok(Self::new(builder, config, address.shown.into()))
    }

    /// Takes over how a client of the caller's connects.
    #[cfg(feature = "fred")]
    fn like(builder: &ClientBuilder, config: &Config) -> Self {
        let target = shown(&config.server).into();
        Self::new(builder, config.clone(), target)
    }

    fn new(builder: &ClientBuilder, config: Config, target: Arc<str>) -> Self {
        let place = match config.server {
            ServerConfig::Centralized { server } => Place::Single(server),
            ServerConfig::Unix { path } => Place::Unix(path),
            ServerConfig::Clustered { hosts, .. } => Place::Cluster(hosts),
            ServerConfig::Sentinel { hosts, service_name, username, password } => {
                Place::Sentinel(Sentinels { hosts, service: service_name, username, password })
            }
        };
        let command_timeout = builder.command_timeout;
        Self {
            target,
            username: config.username,
            password: config.password,
            database: config.database.filter(|_| !matches!(place, Place::Cluster(_))),
            place,
            #[cfg(feature = "rustls")]
            tls: config.tls,
            #[cfg(feature = "rustls")]
            server_name: super::tls::server_name(builder),
            // An attempt to connect must be over before the commands that wait for it are.
            attempt: builder.connect_timeout.min(command_timeout / 5 * 4),
            command_timeout,
            reconnect: builder.reconnect,
            unresponsive: builder.unresponsive_after.unwrap_or(UNRESPONSIVE).min(command_timeout),
            minds_leases: builder.unresponsive_after.is_none(),
            name: builder.connection_name.clone(),
        }
    }

    /// The hosts that the URL names, for errors.
    pub(crate) fn hosts(&self) -> String {
        match &self.place {
            Place::Single(server) => list([server]),
            Place::Unix(path) => path.display().to_string(),
            Place::Cluster(hosts) | Place::Sentinel(Sentinels { hosts, .. }) => list(hosts),
        }
    }
}

impl fmt::Debug for Sentinels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The rest may hold a password.
        f.debug_struct("Sentinels").field("hosts", &self.hosts).field("service", &self.service).finish_non_exhaustive()
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The rest may hold a password.
        f.debug_struct("Settings").field("target", &self.target).finish_non_exhaustive()
    }
}

/// Servers as they are shown.
fn list<'a>(servers: impl IntoIterator<Item = &'a Server>) -> String {
    let shown: Vec<String> = servers.into_iter().map(ToString::to_string).collect();
    shown.join(", ")
}

/// Names servers that no URL was given for.
#[cfg(feature = "fred")]
fn shown(server: &ServerConfig) -> String {
    match server {
        ServerConfig::Unix { path } => format!("redis+unix://{}", path.display()),
        ServerConfig::Clustered { hosts, .. } => format!("redis-cluster://{}", list(hosts).replace(", ", ",")),
        ServerConfig::Sentinel { hosts, .. } => format!("redis-sentinel://{}", list(hosts).replace(", ", ",")),
        ServerConfig::Centralized { server } => format!("redis://{server}"),
    }
}

/// An error in the client library's form, for what goes wrong beside it.
pub(crate) fn failed(reason: impl Into<String>) -> FredError {
    FredError::new(ErrorKind::Unknown, reason.into())
}
