//! Where a connection has to lead: to a server that is known, or to the primary that the sentinels name.
//!
//! Sentinels are asked side by side, so one that hangs delays nothing, and the answer with the newest configuration
//! counts. While a connection is being opened, the question is asked again from time to time: a host that hangs while it
//! is connected to is left as soon as the sentinels name another. A name that stands for several addresses is tried at
//! all of them, one shortly after the other ("Happy Eyeballs", RFC 8305).

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use fred::{
    error::Error as FredError,
    types::{
        Value,
        config::{Server, ServerConfig},
    },
};
use futures::{StreamExt, stream::FuturesUnordered};
use tokio::time::Instant;

use super::{
    super::reply,
    answers::most_answers,
    settings::{Place, Sentinels, Settings, failed},
    wire::{Connection, Demands, Login, Purpose},
};

/// How often the sentinels are asked while a connection to the primary they named is not there yet.
const AGAIN: Duration = Duration::from_millis(300);

/// How long after one address of a host the next one is tried.
const STAGGER: Duration = Duration::from_millis(250);

/// How long an answer of the sentinels is good enough for others who ask the same.
const FRESH: Duration = Duration::from_millis(200);

/// Finds the server that a connection has to lead to.
#[derive(Debug, Clone)]
pub(crate) enum Locator {
    /// Always the same.
    Known(ServerConfig),
    /// The one that the sentinels name.
    Sentinel(Arc<SentinelGroup>),
}

/// The sentinels of a client.
#[derive(Debug)]
pub(crate) struct SentinelGroup {
    sentinels: Sentinels,
    known: Mutex<Vec<Server>>,
    latest: tokio::sync::Mutex<Option<(Instant, Server)>>,
}

impl Locator {
    /// For the only server of a client, or for what its sentinels name. `None` for a cluster.
    pub(crate) fn of(place: &Place) -> Option<Self> {
        match place {
            Place::Single(server) => Some(Self::server(server.clone())),
            Place::Unix(path) => Some(Self::Known(ServerConfig::Unix { path: path.clone() })),
            Place::Sentinel(sentinels) => Some(Self::Sentinel(Arc::new(SentinelGroup {
                known: Mutex::new(sentinels.hosts.clone()),
                sentinels: sentinels.clone(),
                latest: tokio::sync::Mutex::default(),
            }))),
            Place::Cluster(_) => None,
        }
    }

    /// For one node.
    pub(crate) fn server(server: Server) -> Self {
        Self::Known(ServerConfig::Centralized { server })
    }

    /// Whether the place can change without the address that the user gave.
    pub(crate) fn can_move(&self) -> bool {
        matches!(self, Self::Sentinel(_))
    }

    /// Opens a connection to where it has to lead now.
    pub(crate) async fn open(
        &self,
        settings: &Settings,
        purpose: Purpose,
        mut demands: Demands,
    ) -> Result<Arc<Connection>, FredError> {
        let login = Login {
            username: settings.username.as_deref(),
            password: settings.password.as_deref(),
            database: settings.database,
        };
        let group = match self {
            Self::Known(server) => return open_any(settings, server.clone(), login, purpose, demands).await,
            Self::Sentinel(group) => group,
        };
        demands.primary = true;
        let mut target = group.locate(settings).await?;
        loop {
            let server = ServerConfig::Centralized { server: target.clone() };
            let open = open_any(settings, server, login, purpose, demands);
            tokio::select! {
                opened = open => return opened,
                moved = group.moved_from(settings, &target) => target = moved,
            }
        }
    }
}

impl SentinelGroup {
    /// Asks all sentinels who the primary is.
    async fn locate(&self, settings: &Settings) -> Result<Server, FredError> {
        // One asks for all who want to know at the moment.
        let mut latest = self.latest.lock().await;
        if let Some((at, server)) = &*latest
            && at.elapsed() < FRESH
        {
            return Ok(server.clone());
        }
        let server = self.ask_all(settings).await?;
        *latest = Some((Instant::now(), server.clone()));
        Ok(server)
    }

    /// Waits until the sentinels name another primary.
    async fn moved_from(&self, settings: &Settings, server: &Server) -> Server {
        loop {
            tokio::time::sleep(AGAIN.mul_f64(0.75 + 0.5 * crate::entropy::fraction())).await;
            match self.locate(settings).await {
                Ok(named) if named != *server => return named,
                // The attempt under way tells what is wrong.
                _ => {}
            }
        }
    }

    async fn ask_all(&self, settings: &Settings) -> Result<Server, FredError> {
        let hosts = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let asked: FuturesUnordered<_> = hosts.into_iter().map(|host| self.ask(settings, host)).collect();
        let (answers, problem) = most_answers(asked).await;
        let others: Vec<Server> = answers.iter().flat_map(|answer| answer.others.iter().cloned()).collect();
        if !others.is_empty() {
            self.learn(others);
        }
        // Of equals the first one, which came first.
        let newest = answers.into_iter().reduce(|best, next| if next.epoch > best.epoch { next } else { best });
        match newest {
            Some(answer) => Ok(answer.primary),
            None => Err(problem.unwrap_or_else(|| failed("no sentinel is known"))),
        }
    }

    /// Asks one sentinel for the primary and for other sentinels.
    async fn ask(&self, settings: &Settings, host: Server) -> Result<Named, FredError> {
        let login = Login {
            username: self.sentinels.username.as_deref(),
            // Without a password the client library would not name the user.
            password: self.sentinels.password.as_deref().or(self.sentinels.username.as_deref().map(|_| "")),
            database: None,
        };
        let limit = settings.attempt;
        let server = ServerConfig::Centralized { server: host };
        let sentinel = open_any(settings, server, login, Purpose::Questions, Demands::default()).await?;
        let service = || Value::from(self.sentinels.service.as_str());
        let primary = sentinel.ask("SENTINEL", vec!["master".into(), service()], limit).await.map_err(|error| {
            if error.details().contains("No such master") {
                let service = &self.sentinels.service;
                return failed(format!("the sentinel knows no service {service:?}: check sentinelServiceName"));
            }
            error
        })?;
        let mut fields = reply::Fields::of(primary).map_err(failed)?;
        let epoch = fields.count("config-epoch").unwrap_or_default();
        let primary = address(&mut fields).ok_or_else(|| failed("the sentinel names no address"))?;
        let others = sentinel.ask("SENTINEL", vec!["sentinels".into(), service()], limit).await;
        // It names the others as a help; a user who may not ask does without.
        let others = others.ok().and_then(|reply| reply::list(reply).ok()).unwrap_or_default();
        let others = others.into_iter().filter_map(|fields| address(&mut reply::Fields::of(fields).ok()?));
        Ok(Named { primary, epoch, others: others.collect() })
    }

    /// Knows the sentinels of the URL, and those that were named last.
    fn learn(&self, others: Vec<Server>) {
        let mut known = self.sentinels.hosts.clone();
        for other in others {
            // Bounded, because it comes from the network.
            if known.len() < 32 && !known.contains(&other) {
                known.push(other);
            }
        }
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = known;
    }
}

/// What a sentinel says.
struct Named {
    primary: Server,
    /// How new its configuration is.
    epoch: u64,
    others: Vec<Server>,
}

fn address(fields: &mut reply::Fields) -> Option<Server> {
    let port = reply::text(fields.take("port")).ok()?.parse().ok()?;
    Some(Server::new(reply::text(fields.take("ip")).ok()?, port))
}

/// Opens a connection to a server at whichever of its addresses is reached first.
async fn open_any(
    settings: &Settings,
    server: ServerConfig,
    login: Login<'_>,
    purpose: Purpose,
    demands: Demands,
) -> Result<Arc<Connection>, FredError> {
    let addresses = match &server {
        ServerConfig::Centralized { server } if server.host.parse::<std::net::IpAddr>().is_err() => {
            addresses_of(server, settings.attempt).await
        }
        _ => Vec::new(),
    };
    let [_, _, ..] = addresses.as_slice() else {
        return Connection::open(settings, server, login, purpose, demands).await;
    };
    let mut attempts = FuturesUnordered::new();
    let mut waiting = addresses.into_iter();
    let mut problem = None;
    loop {
        if let Some(server) = waiting.next() {
            let server = ServerConfig::Centralized { server };
            attempts.push(Connection::open(settings, server, login, purpose, demands));
        }
        let stagger =
            async { if waiting.len() > 0 { tokio::time::sleep(STAGGER).await } else { std::future::pending().await } };
        tokio::select! {
            opened = attempts.next() => match opened {
                Some(Ok(connection)) => return Ok(connection),
                Some(Err(error)) => _ = problem.get_or_insert(error),
                None if waiting.len() == 0 => return Err(problem.unwrap_or_else(|| failed("no address was tried"))),
                None => {}
            },
            () = stagger => {}
        }
    }
}

/// The addresses that a host's name stands for, as servers whose certificate must still be made out to that name. None
/// if they cannot be found out: then the client library says why.
async fn addresses_of(server: &Server, limit: Duration) -> Vec<Server> {
    let found = tokio::time::timeout(limit, tokio::net::lookup_host((&*server.host, server.port))).await;
    let Ok(Ok(addresses)) = found else { return Vec::new() };
    let mut servers: Vec<Server> = Vec::new();
    for address in addresses {
        let at = at_address(server, address.ip());
        if !servers.contains(&at) {
            servers.push(at);
        }
    }
    servers
}

fn at_address(server: &Server, address: std::net::IpAddr) -> Server {
    #[cfg(feature = "rustls")]
    let at = {
        let name = server.tls_server_name.as_ref().unwrap_or(&server.host);
        Server::new_with_tls(address.to_string(), server.port, Some(name.to_string()))
    };
    #[cfg(not(feature = "rustls"))]
    let at = Server::new(address.to_string(), server.port);
    at
}
