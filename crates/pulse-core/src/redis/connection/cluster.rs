//! The nodes of a cluster: which one owns a slot, and how a change of that is noticed.
//!
//! Every node has connections of its own ([`super::endpoint`]), so one that hangs concerns its own slots and no others.
//! Who owns the slots is asked of all known nodes side by side, and what most of those that answer say counts: no
//! answer of a host that hangs is waited for while others answer. It is asked again every few seconds, at once after a
//! redirection, and over and over while a connection is doubted or missing. A node that owns no slot any more is given
//! up together with everything that it still owes, so a successor is used as soon as the others know it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use fred::{
    error::Error as FredError,
    types::{
        Value,
        config::{Server, ServerConfig},
    },
};
use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::time::Instant;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    endpoint::{Endpoint, Keeper, News},
    locate::Locator,
    settings::{Settings, failed},
    topology::{SLOTS, View},
    wire::{Connection, Demands, Login, Purpose},
};

/// How often the owners of the slots are asked for when nothing is wrong.
const REFRESH: Duration = Duration::from_secs(5);

/// The pauses between questions while something is wrong, from and to.
const HASTE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));

/// How long an answer may take that no other is there for.
const ANSWER: Duration = Duration::from_secs(2);

/// How long after the first answer others are waited for, unless there are enough before.
const STRAGGLERS: Duration = Duration::from_millis(250);

/// A node, and the connections to it.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) server: Server,
    pub(crate) commands: Arc<Endpoint>,
    /// Made when something is subscribed.
    feeds: OnceLock<Arc<Endpoint>>,
}

/// The slots and their owners at one time.
#[derive(Debug)]
struct Topology {
    /// For each slot the owner's place in `nodes`, or [`NO_OWNER`].
    slots: Box<[u16]>,
    nodes: Vec<Arc<Node>>,
}

const NO_OWNER: u16 = u16::MAX;

/// A cluster as a client knows it.
#[derive(Debug)]
pub(crate) struct Cluster {
    settings: Arc<Settings>,
    topology: ArcSwap<Topology>,
    /// Held while the topology is changed.
    changing: Mutex<()>,
    /// The hosts of the URL.
    seeds: Vec<Server>,
    /// They, and every node that the last answers named.
    hosts: Mutex<Vec<Server>>,
    news: Arc<News>,
    tasks: TaskTracker,
    closed: CancellationToken,
}

impl Cluster {
    /// Finds the nodes.
    pub(crate) async fn connect(
        settings: Arc<Settings>,
        seeds: &[Server],
        news: Arc<News>,
        tasks: TaskTracker,
        closed: CancellationToken,
    ) -> Result<Arc<Self>, FredError> {
        let cluster = Arc::new(Self {
            settings,
            topology: ArcSwap::from_pointee(Topology { slots: vec![NO_OWNER; SLOTS].into(), nodes: Vec::new() }),
            changing: Mutex::default(),
            seeds: seeds.to_vec(),
            hosts: Mutex::new(seeds.to_vec()),
            news,
            tasks,
            closed,
        });
        let views = cluster.ask(true).await?;
        cluster.apply(&views);
        if cluster.topology.load().nodes.is_empty() {
            return Err(failed("CLUSTERDOWN no node of the cluster owns a slot"));
        }
        Ok(cluster)
    }

    /// The node that owns a slot.
    pub(crate) fn owner(&self, slot: u16) -> Option<Arc<Node>> {
        let topology = self.topology.load();
        let place = *topology.slots.get(usize::from(slot))?;
        topology.nodes.get(usize::from(place)).cloned()
    }

    /// A node that answers, or else any.
    pub(crate) fn any(&self) -> Option<Arc<Node>> {
        let topology = self.topology.load();
        let well = topology.nodes.iter().find(|node| node.commands.is_well());
        well.or(topology.nodes.first()).cloned()
    }

    /// All nodes that own slots.
    pub(crate) fn nodes(&self) -> Vec<Arc<Node>> {
        self.topology.load().nodes.clone()
    }

    /// The connection for subscriptions to a node, made when it is asked for first.
    pub(crate) fn feeds<'a>(&self, node: &'a Node) -> &'a Arc<Endpoint> {
        node.feeds.get_or_init(|| self.keep(&node.server, Purpose::Feeds, Some(node.commands.clone())))
    }

    /// A node said that another one owns a slot.
    pub(crate) fn moved(&self, slot: usize, server: &Server) {
        self.change(|slots, nodes| {
            let place = nodes.iter().position(|node| node.server == *server).unwrap_or_else(|| {
                nodes.push(self.node(server));
                nodes.len() - 1
            });
            if let (Some(owner), Ok(place)) = (slots.get_mut(slot), u16::try_from(place)) {
                *owner = place;
            }
        });
        self.news.trouble.notify_one();
    }

    /// Asks for the owners of the slots, from time to time and whenever something is wrong.
    pub(crate) async fn refresh(self: Arc<Self>) {
        let mut pause = HASTE.0;
        loop {
            let troubled = tokio::select! {
                () = self.closed.cancelled() => return,
                () = self.news.trouble.notified() => true,
                () = tokio::time::sleep(REFRESH) => false,
            };
            if let Ok(views) = self.ask(troubled).await {
                self.apply(&views);
            }
            pause = if troubled { (pause * 2).min(HASTE.1) } else { HASTE.0 };
            let pause = pause.mul_f64(0.75 + 0.5 * crate::entropy::fraction());
            if self.closed.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return;
            }
        }
    }

    /// Asks the nodes who owns what: one that is connected and well, or all known hosts if something is wrong.
    async fn ask(&self, all: bool) -> Result<Vec<View>, FredError> {
        let nodes = self.nodes();
        let well = nodes.iter().filter(|node| node.commands.is_well());
        let connections: Vec<Arc<Connection>> = well.filter_map(|node| node.commands.current()).collect();
        let mut asked = FuturesUnordered::<BoxFuture<'_, Result<View, FredError>>>::new();
        let mut total = 0;
        let connected = if all { usize::MAX } else { 1 };
        for connection in connections.iter().take(connected) {
            total += 1;
            asked.push(Box::pin(ask_one(connection)));
        }
        if all || connections.is_empty() {
            let known = self.hosts.lock().unwrap_or_else(PoisonError::into_inner).clone();
            for host in known {
                let is_asked = |node: &Arc<Node>| node.server == host && node.commands.is_well();
                if !nodes.iter().any(is_asked) {
                    total += 1;
                    asked.push(Box::pin(self.ask_host(host)));
                }
            }
        }
        let (mut views, mut problem) = (Vec::new(), None);
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
            match answer {
                None => break,
                Some(Ok(view)) if view.ranges.is_empty() => {
                    problem.get_or_insert_with(|| failed("CLUSTERDOWN a node knows of no slots"));
                }
                Some(Ok(view)) => {
                    views.push(view);
                    deadline.get_or_insert_with(|| Instant::now() + STRAGGLERS);
                    if views.len() * 2 > total {
                        break;
                    }
                }
                Some(Err(error)) => _ = problem.get_or_insert(error),
            }
        }
        if views.is_empty() {
            return Err(problem.unwrap_or_else(|| failed("no node of the cluster is known")));
        }
        Ok(views)
    }

    /// Asks a host that there is no connection to.
    async fn ask_host(&self, server: Server) -> Result<View, FredError> {
        let login = Login {
            username: self.settings.username.as_deref(),
            password: self.settings.password.as_deref(),
            database: None,
        };
        let server = ServerConfig::Centralized { server };
        let connection =
            Connection::open(&self.settings, server, login, Purpose::Questions, Demands::default()).await?;
        ask_one(&connection).await
    }

    /// Takes over what the nodes said.
    fn apply(&self, views: &[View]) {
        let settled = View::settle(views);
        let mut hosts = self.seeds.clone();
        hosts.extend(settled.nodes.into_iter().filter(|node| !self.seeds.contains(node)));
        *self.hosts.lock().unwrap_or_else(PoisonError::into_inner) = hosts;
        self.change(|slots, nodes| {
            let before: HashMap<Server, Arc<Node>> = nodes.drain(..).map(|node| (node.server.clone(), node)).collect();
            let known = |server| before.get(server).cloned().unwrap_or_else(|| self.node(server));
            nodes.extend(settled.primaries.iter().map(known));
            for (slot, owner) in slots.iter_mut().zip(&settled.slots) {
                *slot = owner.and_then(|place| u16::try_from(place).ok()).unwrap_or(NO_OWNER);
            }
        });
    }

    /// Changes the topology, and gives up the nodes that own nothing after it.
    fn change(&self, change: impl FnOnce(&mut [u16], &mut Vec<Arc<Node>>)) {
        let changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.topology.load_full();
        let (mut slots, mut nodes) = (before.slots.clone(), before.nodes.clone());
        change(&mut slots, &mut nodes);
        let after = Topology { slots, nodes };
        if after.is_like(&before) {
            return;
        }
        let after = Arc::new(after);
        self.topology.store(after.clone());
        drop(changing);
        for node in &before.nodes {
            if !after.nodes.iter().any(|kept| Arc::ptr_eq(kept, node)) {
                node.close();
            } else if !node.commands.is_well() && before.has_lost(&after, node) {
                // What it owes for that slot will be asked of the successor.
                node.commands.give_up();
            }
        }
        self.news.changed();
    }

    fn node(&self, server: &Server) -> Arc<Node> {
        let commands = self.keep(server, Purpose::Commands, None);
        Arc::new(Node { server: server.clone(), commands, feeds: OnceLock::new() })
    }

    fn keep(&self, server: &Server, purpose: Purpose, sibling: Option<Arc<Endpoint>>) -> Arc<Endpoint> {
        let endpoint = Endpoint::new(self.news.clone(), self.closed.child_token());
        let demands = Demands { primary: false, serving: true };
        let locator = Locator::server(server.clone());
        let keeper = Keeper::new(endpoint.clone(), self.settings.clone(), locator, purpose, demands, sibling);
        self.tasks.spawn(keeper.run(None));
        endpoint
    }
}

async fn ask_one(connection: &Connection) -> Result<View, FredError> {
    let reply = connection.ask("CLUSTER", vec![Value::from_static_str("SLOTS")], ANSWER).await?;
    View::read(reply, connection.host()).map_err(|reason| failed(format!("CLUSTER SLOTS: {reason}")))
}

impl Topology {
    fn is_like(&self, other: &Self) -> bool {
        let same = |(one, other): (&Arc<Node>, &Arc<Node>)| Arc::ptr_eq(one, other);
        self.slots == other.slots
            && self.nodes.len() == other.nodes.len()
            && self.nodes.iter().zip(&other.nodes).all(same)
    }

    /// Whether a node owns a slot here that it does not own there.
    fn has_lost(&self, there: &Self, node: &Arc<Node>) -> bool {
        let place = |topology: &Self| topology.nodes.iter().position(|other| Arc::ptr_eq(other, node));
        let (Some(before), Some(after)) = (place(self), place(there)) else { return true };
        let mut slots = self.slots.iter().zip(&there.slots);
        slots.any(|(was, is)| usize::from(*was) == before && usize::from(*is) != after)
    }
}

impl Node {
    /// The connection for subscriptions, if it was ever asked for.
    pub(crate) fn feeds_if_any(&self) -> Option<&Arc<Endpoint>> {
        self.feeds.get()
    }

    fn close(&self) {
        self.commands.close();
        if let Some(feeds) = self.feeds.get() {
            feeds.close();
        }
    }
}
