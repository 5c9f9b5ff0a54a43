//! Where a connection has to lead: to a server that is known, or to the primary that the sentinels name.
//!
//! Sentinels are asked side by side, so one that hangs delays nothing; what most of those that answer say counts. While
//! a connection is being opened, the question is asked again from time to time: a host that hangs while it is connected
//! to is left as soon as the sentinels name another.

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
    settings::{Place, Sentinels, Settings, failed},
    wire::{Connection, Demands, Login, Purpose},
};

/// How often the sentinels are asked while a connection to the primary they named is not there yet.
const AGAIN: Duration = Duration::from_millis(300);

/// How long after the first answer others are waited for, unless there are enough before.
const STRAGGLERS: Duration = Duration::from_millis(250);

/// How long an answer of the sentinels is good enough for others who ask the same.
const FRESH: Duration = Duration::from_millis(200);

/// Finds the server that a connection has to lead to.
#[derive(Debug, Clone)]
pub(crate) enum Locator {
    /// Always the same.
    Known(ServerConfig),
    /// The one that the sentinels name.
    Sentinel(Arc<Watchers>),
}

/// The sentinels of a client.
#[derive(Debug)]
pub(crate) struct Watchers {
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
            Place::Sentinel(sentinels) => Some(Self::Sentinel(Arc::new(Watchers {
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
        let watchers = match self {
            Self::Known(server) => return Connection::open(settings, server.clone(), login, purpose, demands).await,
            Self::Sentinel(watchers) => watchers,
        };
        demands.primary = true;
        let mut target = watchers.locate(settings).await?;
        loop {
            let server = ServerConfig::Centralized { server: target.clone() };
            let open = Connection::open(settings, server, login, purpose, demands);
            tokio::select! {
                opened = open => return opened,
                moved = watchers.moved_from(settings, &target) => target = moved,
            }
        }
    }
}

impl Watchers {
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
            tokio::time::sleep(AGAIN).await;
            match self.locate(settings).await {
                Ok(named) if named != *server => return named,
                // The attempt under way tells what is wrong.
                _ => {}
            }
        }
    }

    async fn ask_all(&self, settings: &Settings) -> Result<Server, FredError> {
        let hosts = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let total = hosts.len();
        let mut asked: FuturesUnordered<_> = hosts.into_iter().map(|host| self.ask(settings, host)).collect();
        let mut votes: Vec<(Server, usize)> = Vec::new();
        let mut problem = None;
        let mut deadline = None;
        loop {
            let stragglers = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            let answer = tokio::select! {
                answer = asked.next() => answer,
                () = stragglers => None,
            };
            let Some(answer) = answer else { break };
            match answer {
                Ok((server, others)) => {
                    self.learn(others);
                    deadline.get_or_insert_with(|| Instant::now() + STRAGGLERS);
                    match votes.iter_mut().find(|(named, _)| *named == server) {
                        Some((_, count)) => *count += 1,
                        None => votes.push((server, 1)),
                    }
                    if votes.iter().any(|(_, count)| *count * 2 > total) {
                        break;
                    }
                }
                // The others tell more than one that is not there.
                Err(error) => _ = problem.get_or_insert(error),
            }
        }
        let most = votes.iter().map(|(_, count)| *count).max();
        match votes.into_iter().find(|(_, count)| Some(*count) == most) {
            Some((server, _)) => Ok(server),
            None => Err(problem.unwrap_or_else(|| failed("no sentinel is known"))),
        }
    }

    /// Asks one sentinel for the primary and for other sentinels.
    async fn ask(&self, settings: &Settings, host: Server) -> Result<(Server, Vec<Server>), FredError> {
        let login = Login {
            username: self.sentinels.username.as_deref(),
            // Without a password the client library would not name the user.
            password: self.sentinels.password.as_deref().or(self.sentinels.username.as_deref().map(|_| "")),
            database: None,
        };
        let limit = settings.attempt;
        let server = ServerConfig::Centralized { server: host };
        let sentinel = Connection::open(settings, server, login, Purpose::Questions, Demands::default()).await?;
        let service = || Value::from(self.sentinels.service.as_str());
        let named = sentinel.ask("SENTINEL", vec!["get-master-addr-by-name".into(), service()], limit).await?;
        let [host, port] = reply::exactly(named).map_err(|_| {
            failed(format!("the sentinel knows no service {:?}: check sentinelServiceName", self.sentinels.service))
        })?;
        let read = || Ok((reply::text(host)?, reply::text(port)?.parse::<u16>().map_err(|error| error.to_string())?));
        let (host, port) = read().map_err(|reason: reply::Misfit| failed(format!("no address: {reason}")))?;
        let others = sentinel.ask("SENTINEL", vec!["sentinels".into(), service()], limit).await;
        // It names the others as a help; whoever may not ask does without.
        let others = others.ok().and_then(|reply| reply::list(reply).ok()).unwrap_or_default();
        let address = |fields| {
            let mut fields = reply::Fields::of(fields).ok()?;
            let port = reply::text(fields.take("port")).ok()?.parse().ok()?;
            Some(Server::new(reply::text(fields.take("ip")).ok()?, port))
        };
        Ok((Server::new(host, port), others.into_iter().filter_map(address).collect()))
    }

    fn learn(&self, others: Vec<Server>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        for other in others {
            // Those of the URL stay; the rest is bounded, because it comes from the network.
            if known.len() < 32 && !known.contains(&other) {
                known.push(other);
            }
        }
    }
}
