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
use futures::{future::BoxFuture, stream::FuturesUnordered};
use tokio::time::Instant;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    answers::most_answers,
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

/// How many hosts without a connection are asked at once.
const HOSTS: usize = 3;

/// How long a redirection counts against what nodes say that may not know of it yet.
const REDIRECTED: Duration = Duration::from_secs(5);

/// A node, and the connections to it.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) server: Server,
    pub(crate) commands: Arc<Endpoint>,
    /// Made when something is subscribed.
    feeds: OnceLock<Arc<Endpoint>>,
    /// Cancelled when it owns nothing any more.
    closed: CancellationToken,
}

/// The slots and their owners at one time.
#[derive(Debug)]
struct Topology {
    /// For each slot the owner's place in `nodes`, or [`NO_OWNER`].
    slots: Box<[u16]>,
    nodes: Vec<Arc<Node>>,
}

const NO_OWNER: u16 = u16::MAX;

/// Who is asked for the owners of the slots.
#[derive(Debug, Clone, Copy)]
enum Asked {
    /// All hosts of the URL.
    Seeds,
    /// One node that there is a connection to.
    One,
    /// All nodes that there are connections to, and some other hosts.
    Everyone,
}

/// A cluster as a client knows it.
#[derive(Debug)]
pub(crate) struct Cluster {
    settings: Arc<Settings>,
    topology: ArcSwap<Topology>,
    /// Held while the topology is changed: what nodes said of single slots just now, by redirecting there.
    moved: Mutex<HashMap<usize, (Instant, Server)>>,
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
            moved: Mutex::default(),
            seeds: seeds.to_vec(),
            hosts: Mutex::new(seeds.to_vec()),
            news,
            tasks,
            closed,
        });
        let views = cluster.ask(Asked::Seeds).await?;
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
        node.feeds.get_or_init(|| {
            self.keep(&node.server, Purpose::Feeds, Some(node.commands.clone()), node.closed.child_token())
        })
    }

    /// A node said that another one owns a slot.
    pub(crate) fn moved(&self, slot: usize, server: &Server) {
        self.change(|_, nodes, moved| {
            if !nodes.iter().any(|node| node.server == *server) {
                nodes.push(self.node(server));
            }
            moved.insert(slot, (Instant::now(), server.clone()));
        });
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if !hosts.contains(server) {
            hosts.push(server.clone());
        }
        drop(hosts);
        self.news.trouble.notify_one();
    }

    /// Asks for the owners of the slots, from time to time and whenever something is wrong.
    pub(crate) async fn refresh(self: Arc<Self>) {
        let mut pause = HASTE.0;
        loop {
            let mut troubled = tokio::select! {
                () = self.closed.cancelled() => return,
                () = self.news.trouble.notified() => true,
                () = tokio::time::sleep(REFRESH) => false,
            };
            let views = if troubled {
                self.closed.run_until_cancelled(self.ask(Asked::Everyone)).await
            } else {
                tokio::select! {
                    () = self.closed.cancelled() => return,
                    () = self.news.trouble.notified() => {
                        self.news.trouble.notify_one();
                        continue;
                    }
                    views = self.ask(Asked::One) => Some(views),
                }
            };
            match views {
                None => return,
                Some(Ok(views)) => self.apply(&views),
                Some(Err(error)) => {
                    tracing::debug!(target = &*self.settings.target, %error, "no node says who owns the slots");
                    troubled = true;
                    self.news.trouble.notify_one();
                }
            }
            pause = if troubled { (pause * 2).min(HASTE.1) } else { HASTE.0 };
            let pause = pause.mul_f64(0.75 + 0.5 * crate::entropy::fraction());
            if self.closed.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return;
            }
        }
    }

    /// Asks nodes who owns what, over the connections that stand, and where that may not be enough, hosts that there is
    /// no connection to.
    async fn ask(&self, whom: Asked) -> Result<Vec<View>, FredError> {
        let nodes = self.nodes();
        let mut connected: Vec<(&Server, Arc<Connection>)> =
            nodes.iter().filter_map(|node| Some((&node.server, node.commands.current()?))).collect();
        let known = self.hosts.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut others: Vec<Server> =
            known.into_iter().filter(|host| !connected.iter().any(|(server, _)| *server == host)).collect();
        match whom {
            Asked::One if !connected.is_empty() => {
                let chosen = crate::entropy::below(connected.len());
                connected = vec![connected.swap_remove(chosen)];
                others.clear();
            }
            Asked::One | Asked::Everyone => {
                // A few, at random, so that a fleet does not knock at every door at once.
                while others.len() > HOSTS {
                    others.swap_remove(crate::entropy::below(others.len()));
                }
            }
            Asked::Seeds => {}
        }
        let asked = FuturesUnordered::<BoxFuture<'_, Result<View, FredError>>>::new();
        for (_, connection) in &connected {
            asked.push(Box::pin(ask_one(connection)));
        }
        for host in others {
            asked.push(Box::pin(self.ask_host(host)));
        }
        let (views, problem) = most_answers(asked).await;
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
        self.change(|slots, nodes, _| {
            let before: HashMap<Server, Arc<Node>> = nodes.drain(..).map(|node| (node.server.clone(), node)).collect();
            let known = |server| before.get(server).cloned().unwrap_or_else(|| self.node(server));
            nodes.extend(settled.primaries.iter().map(known));
            for (slot, owner) in slots.iter_mut().zip(&settled.slots) {
                *slot = owner.and_then(|place| u16::try_from(place).ok()).unwrap_or(NO_OWNER);
            }
        });
    }

    /// Changes the topology, and gives up the nodes that own nothing after it. Redirections of the last moments have the
    /// last word.
    fn change(&self, change: impl FnOnce(&mut [u16], &mut Vec<Arc<Node>>, &mut HashMap<usize, (Instant, Server)>)) {
        let mut moved = self.moved.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.topology.load_full();
        let (mut slots, mut nodes) = (before.slots.clone(), before.nodes.clone());
        change(&mut slots, &mut nodes, &mut moved);
        moved.retain(|_, (at, _)| at.elapsed() < REDIRECTED);
        for (slot, (_, server)) in moved.iter() {
            let known = nodes.iter().position(|node| node.server == *server);
            let place = known.unwrap_or_else(|| {
                let kept = before.nodes.iter().find(|node| node.server == *server);
                nodes.push(kept.cloned().unwrap_or_else(|| self.node(server)));
                nodes.len() - 1
            });
            slots[*slot] = u16::try_from(place).unwrap_or(NO_OWNER);
        }
        let after = Topology { slots, nodes };
        if after.is_like(&before) {
            return;
        }
        let after = Arc::new(after);
        self.topology.store(after.clone());
        drop(moved);
        for node in &before.nodes {
            if !after.nodes.iter().any(|kept| Arc::ptr_eq(kept, node)) {
                node.closed.cancel();
                node.commands.close();
                if let Some(feeds) = node.feeds.get() {
                    feeds.close();
                }
            } else if !node.commands.is_well() && before.has_lost(&after, node) {
                // What it owes for that slot will be asked of the successor.
                node.commands.give_up();
            }
        }
        self.news.changed();
    }

    fn node(&self, server: &Server) -> Arc<Node> {
        let closed = self.closed.child_token();
        let commands = self.keep(server, Purpose::Commands, None, closed.clone());
        Arc::new(Node { server: server.clone(), commands, feeds: OnceLock::new(), closed })
    }

    fn keep(
        &self,
        server: &Server,
        purpose: Purpose,
        sibling: Option<Arc<Endpoint>>,
        closed: CancellationToken,
    ) -> Arc<Endpoint> {
        let endpoint = Endpoint::new(self.news.clone(), closed);
        let demands = Demands { primary: false, serving: true };
        let locator = Locator::server(server.clone());
        let keeper = Keeper::new(endpoint.clone(), self.settings.clone(), locator, purpose, demands, sibling);
        self.tasks.spawn(keeper.run(None));
        endpoint
    }
}

async fn ask_one(connection: &Connection) -> Result<View, FredError> {
    let reply = connection.ask("CLUSTER", vec![Value::from_static_str("SLOTS")], ANSWER).await?;
    let view = View::read(reply, connection.host()).map_err(|reason| failed(format!("CLUSTER SLOTS: {reason}")))?;
    if view.ranges.is_empty() { Err(failed("CLUSTERDOWN the node knows of no slots")) } else { Ok(view) }
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
