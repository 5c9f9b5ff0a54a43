//! The connections of a client: which one a command or a subscription goes to.

use std::{sync::Arc, time::Duration};

use fred::error::Error as FredError;
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    cluster::Cluster,
    endpoint::{Endpoint, Keeper, News},
    locate::Locator,
    settings::{Place, Settings},
    topology::read_moved,
    wire::{Connection, Demands, Purpose},
};

/// Leads commands and subscriptions to the server that is responsible for them.
#[derive(Debug)]
pub(crate) struct Router {
    routes: Routes,
    news: Arc<News>,
}

#[derive(Debug)]
enum Routes {
    /// One server, or one primary that sentinels name.
    Single {
        commands: Arc<Endpoint>,
        feeds: Arc<Endpoint>,
    },
    Cluster(Arc<Cluster>),
}

impl Router {
    /// Connects to the servers of the settings.
    pub(crate) async fn connect(
        settings: Arc<Settings>,
        tasks: TaskTracker,
        closed: CancellationToken,
    ) -> Result<Self, FredError> {
        let news = Arc::<News>::default();
        let routes = match (Locator::of(&settings.place), &settings.place) {
            (None, Place::Cluster(seeds)) => {
                let cluster =
                    Cluster::connect(settings.clone(), seeds, news.clone(), tasks.clone(), closed.clone()).await?;
                tasks.spawn(cluster.clone().refresh());
                Routes::Cluster(cluster)
            }
            (locator, _) => {
                let Some(locator) = locator else { return Err(super::settings::failed("no server is known")) };
                let demands = Demands::default();
                let (first, second) = tokio::try_join!(
                    locator.open(&settings, Purpose::Commands, demands),
                    locator.open(&settings, Purpose::Feeds, demands)
                )?;
                let commands = Endpoint::standing(news.clone(), closed.child_token(), first.clone());
                let feeds = Endpoint::standing(news.clone(), closed.child_token(), second.clone());
                for (endpoint, purpose, connection, sibling) in
                    [(&commands, Purpose::Commands, first, &feeds), (&feeds, Purpose::Feeds, second, &commands)]
                {
                    let (endpoint, sibling) = (endpoint.clone(), Some(sibling.clone()));
                    let keeper = Keeper::new(endpoint, settings.clone(), locator.clone(), purpose, demands, sibling);
                    tasks.spawn(keeper.run(Some(connection)));
                }
                Routes::Single { commands, feeds }
            }
        };
        Ok(Self { routes, news })
    }

    pub(crate) fn is_clustered(&self) -> bool {
        matches!(self.routes, Routes::Cluster(_))
    }

    /// Where commands on a slot go; those without one go to any server that answers. `None` while no server is known to
    /// own the slot.
    pub(crate) fn commands(&self, slot: Option<u16>) -> Option<Arc<Endpoint>> {
        match (&self.routes, slot) {
            (Routes::Single { commands, .. }, _) => Some(commands.clone()),
            (Routes::Cluster(cluster), Some(slot)) => Some(cluster.owner(slot)?.commands.clone()),
            (Routes::Cluster(cluster), None) => Some(cluster.any()?.commands.clone()),
        }
    }

    /// The connection for commands on a slot, if it stands: the common case, in which nothing is awaited.
    pub(crate) fn connection(&self, slot: Option<u16>) -> Option<Arc<Connection>> {
        match &self.routes {
            Routes::Single { commands, .. } => commands.current(),
            Routes::Cluster(_) => self.commands(slot)?.current(),
        }
    }

    /// Where subscriptions on a slot are made.
    pub(crate) fn feeds(&self, slot: u16) -> Option<Arc<Endpoint>> {
        match &self.routes {
            Routes::Single { feeds, .. } => Some(feeds.clone()),
            Routes::Cluster(cluster) => Some(cluster.feeds(&*cluster.owner(slot)?).clone()),
        }
    }

    /// Whether the answer to a command is awaited.
    pub(crate) fn is_awaited(&self) -> bool {
        let awaits = |endpoint: &Arc<Endpoint>| endpoint.current().is_some_and(|current| current.traffic.is_awaited());
        match &self.routes {
            Routes::Single { commands, .. } => awaits(commands),
            Routes::Cluster(cluster) => cluster.nodes().iter().any(|node| awaits(&node.commands)),
        }
    }

    /// Counts whatever may be a reason to look for a connection again.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.news.changes.subscribe()
    }

    /// A server redirected to another one.
    pub(crate) fn moved(&self, message: &str, from: &Connection) {
        if let (Routes::Cluster(cluster), Some((slot, server))) = (&self.routes, read_moved(message, from.host())) {
            cluster.moved(slot, &server);
        }
    }

    /// A server refused a write on that connection because it is a replica.
    pub(crate) fn demoted(&self, connection: &Connection) {
        match &self.routes {
            Routes::Single { commands, .. } => {
                connection.demote();
                commands.probe();
            }
            // A node of a cluster that is a replica owns no slot, so another one does.
            Routes::Cluster(_) => self.news.trouble.notify_one(),
        }
    }

    /// Something is wrong with a cluster: its nodes are asked.
    pub(crate) fn trouble(&self) {
        self.news.trouble.notify_one();
    }

    /// A lease with that lifetime is in use: connections are doubted in time for it.
    pub(crate) fn lease(&self, ttl: Duration) {
        self.news.lease(ttl);
    }
}
