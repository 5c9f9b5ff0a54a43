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
    ways: Ways,
    news: Arc<News>,
    closed: CancellationToken,
}

#[derive(Debug)]
enum Ways {
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
        let ways = match (Locator::of(&settings.place), &settings.place) {
            (None, Place::Cluster(seeds)) => {
                let cluster =
                    Cluster::connect(settings.clone(), seeds, news.clone(), tasks.clone(), closed.clone()).await?;
                tasks.spawn(cluster.clone().refresh());
                Ways::Cluster(cluster)
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
                Ways::Single { commands, feeds }
            }
        };
        Ok(Self { ways, news, closed })
    }

    pub(crate) fn is_clustered(&self) -> bool {
        matches!(self.ways, Ways::Cluster(_))
    }

    /// Where commands on a slot go; those without one go to any server that answers. `None` while no server is known to
    /// own the slot.
    pub(crate) fn commands(&self, slot: Option<u16>) -> Option<Arc<Endpoint>> {
        match (&self.ways, slot) {
            (Ways::Single { commands, .. }, _) => Some(commands.clone()),
            (Ways::Cluster(cluster), Some(slot)) => Some(cluster.owner(slot)?.commands.clone()),
            (Ways::Cluster(cluster), None) => Some(cluster.any()?.commands.clone()),
        }
    }

    /// The connection for commands on a slot, if it stands: the common case, in which nothing is awaited.
    pub(crate) fn connection(&self, slot: Option<u16>) -> Option<Arc<Connection>> {
        match &self.ways {
            Ways::Single { commands, .. } => commands.current(),
            Ways::Cluster(_) => self.commands(slot)?.current(),
        }
    }

    /// Where subscriptions on a slot are made.
    pub(crate) fn feeds(&self, slot: u16) -> Option<Arc<Endpoint>> {
        match &self.ways {
            Ways::Single { feeds, .. } => Some(feeds.clone()),
            Ways::Cluster(cluster) => Some(cluster.feeds(&*cluster.owner(slot)?).clone()),
        }
    }

    /// Whether the answer to a command is awaited.
    pub(crate) fn is_awaited(&self) -> bool {
        let awaits = |endpoint: &Arc<Endpoint>| endpoint.current().is_some_and(|current| current.traffic.is_awaited());
        match &self.ways {
            Ways::Single { commands, .. } => awaits(commands),
            Ways::Cluster(cluster) => cluster.nodes().iter().any(|node| awaits(&node.commands)),
        }
    }

    /// Counts whatever may be a reason to look for a connection again.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.news.changes.subscribe()
    }

    /// A server redirected to another one.
    pub(crate) fn moved(&self, message: &str, from: &Connection) {
        if let (Ways::Cluster(cluster), Some((slot, server))) = (&self.ways, read_moved(message, from.host())) {
            cluster.moved(slot, &server);
        }
    }

    /// A server refused a write because it is a replica.
    pub(crate) fn leads_to_a_replica(&self, slot: Option<u16>) {
        match &self.ways {
            Ways::Single { commands, feeds } => {
                commands.leads_to_a_replica();
                feeds.leads_to_a_replica();
            }
            // A node of a cluster that is a replica owns no slot, so another one does.
            Ways::Cluster(_) => {
                let _ = slot;
                self.news.trouble.notify_one();
            }
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

    /// Ends all connections, after what was sent before has been answered, if that is soon.
    pub(crate) async fn close(&self) {
        let mut endpoints = match &self.ways {
            Ways::Single { commands, feeds } => vec![commands.clone(), feeds.clone()],
            Ways::Cluster(cluster) => {
                let nodes = cluster.nodes();
                let feeds = nodes.iter().filter_map(|node| node.feeds_if_any().cloned());
                nodes.iter().map(|node| node.commands.clone()).chain(feeds).collect()
            }
        };
        let goodbyes = endpoints.iter().filter_map(|endpoint| endpoint.current());
        futures::future::join_all(goodbyes.map(|connection| async move { connection.quit().await })).await;
        self.closed.cancel();
        endpoints.drain(..).for_each(|endpoint| endpoint.close());
    }
}
