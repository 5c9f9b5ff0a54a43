//! A cluster of one test's own, to lose nodes and to move slots.

use std::time::Duration;

use crate::{Server, wait::wait_until};

const SLOTS: usize = 16_384;

/// Nodes on the loopback interface that form one cluster: primaries that share the slots evenly, in order, and replicas
/// behind them.
#[derive(Debug)]
pub struct Cluster {
    /// The primaries first, then their replicas in the same order.
    nodes: Vec<Server>,
    primaries: usize,
}

impl Cluster {
    /// Starts a cluster whose nodes take each other for dead after a second.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    #[must_use]
    pub fn start(primaries: usize, with_replicas: bool) -> Self {
        Self::start_with_timeout(primaries, with_replicas, Duration::from_secs(1))
    }

    /// Starts a cluster whose nodes take each other for dead after that time.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    #[must_use]
    pub fn start_with_timeout(primaries: usize, with_replicas: bool, node_timeout: Duration) -> Self {
        let count = if with_replicas { 2 * primaries } else { primaries };
        let node_timeout = node_timeout.as_millis().to_string();
        let cluster = ["--cluster-enabled", "yes", "--cluster-node-timeout", &node_timeout];
        let options = [cluster.as_slice(), &["--repl-diskless-sync-delay", "0"]].concat();
        let nodes = (0..count).map(|_| Server::start_with(&options)).collect();
        let cluster = Self { nodes, primaries };
        cluster.form();
        cluster
    }

    /// The URL for [`pulse_core::connect`], with all nodes.
    #[must_use]
    pub fn url(&self) -> String {
        let others: Vec<String> =
            self.nodes[1..].iter().map(|node| format!("node=127.0.0.1:{}", node.port())).collect();
        format!("redis-cluster://127.0.0.1:{}?{}", self.nodes[0].port(), others.join("&"))
    }

    /// A node; the primaries come first.
    #[must_use]
    pub fn node(&self, index: usize) -> &Server {
        &self.nodes[index]
    }

    /// The replica that a primary had when the cluster was formed with replicas.
    #[must_use]
    pub fn replica_of(&self, primary: usize) -> &Server {
        &self.nodes[self.primaries + primary]
    }

    /// Waits until the replica of a primary says that it has everything that was written until now; see
    /// [`Server::wait_until_replicated`].
    ///
    /// # Panics
    ///
    /// If that takes too long.
    pub fn wait_until_replicated(&self, primary: usize) {
        self.nodes[primary].wait_until_replicated();
    }

    /// Which primary had the slot of a key when the cluster was formed. What stands in braces in the key counts alone,
    /// as always.
    ///
    /// # Panics
    ///
    /// If the first node does not answer.
    #[must_use]
    pub fn first_owner_of(&self, key: &str) -> usize {
        let slot = self.nodes[0].cli(&["CLUSTER", "KEYSLOT", key]);
        self.first_owner(slot.parse().expect("a slot is a number"))
    }

    /// Kills a node without a chance to say goodbye.
    pub fn kill(&mut self, index: usize) {
        self.nodes[index].kill();
    }

    /// Waits until the replica of a killed or paused primary has taken its place and every other node serves again.
    ///
    /// # Panics
    ///
    /// If that takes too long.
    pub fn wait_for_successor(&self, dead: usize) {
        let successor = dead + self.primaries;
        let serves = |node: &Server| node.cli(&["CLUSTER", "INFO"]).contains("cluster_state:ok");
        wait_until("another node takes over", || {
            let leads = self.nodes[successor].is_primary();
            leads && (0..self.nodes.len()).filter(|node| *node != dead).all(|node| serves(&self.nodes[node]))
        });
    }

    /// Which primary had the slot when the cluster was formed.
    #[must_use]
    pub fn first_owner(&self, slot: u16) -> usize {
        (0..self.primaries).rfind(|index| self.first_slot(*index) <= usize::from(slot)).unwrap_or_default()
    }

    /// Begins to move a slot: from now on, what the old owner does not have is asked of the new one.
    pub fn begin_move(&self, slot: u16, from: usize, to: usize) {
        let slot = slot.to_string();
        self.nodes[to].cli(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &self.id(from)]);
        self.nodes[from].cli(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &self.id(to)]);
    }

    /// Moves some keys of a slot that is being moved; returns how many there were to move.
    pub fn move_keys(&self, slot: u16, from: usize, to: usize, most: usize) -> usize {
        let keys = self.nodes[from].cli(&["CLUSTER", "GETKEYSINSLOT", &slot.to_string(), &most.to_string()]);
        let port = self.nodes[to].port().to_string();
        let keys: Vec<&str> = keys.lines().filter(|key| !key.is_empty()).collect();
        for key in &keys {
            self.nodes[from].cli(&["MIGRATE", "127.0.0.1", &port, key, "0", "5000"]);
        }
        keys.len()
    }

    /// Ends the move of a slot.
    pub fn end_move(&self, slot: u16, from: usize, to: usize) {
        let id = self.id(to);
        // The new owner first, so that the slot never belongs to nobody.
        let others = (0..self.nodes.len()).filter(|node| *node != from && *node != to);
        for node in [to, from].into_iter().chain(others) {
            self.nodes[node].cli(&["CLUSTER", "SETSLOT", &slot.to_string(), "NODE", &id]);
        }
    }

    fn id(&self, node: usize) -> String {
        self.nodes[node].cli(&["CLUSTER", "MYID"])
    }

    fn first_slot(&self, primary: usize) -> usize {
        SLOTS * primary / self.primaries
    }

    fn form(&self) {
        for (index, node) in self.nodes.iter().enumerate() {
            node.cli(&["CLUSTER", "SET-CONFIG-EPOCH", &(index + 1).to_string()]);
            if index < self.primaries {
                let (first, last) = (self.first_slot(index), self.first_slot(index + 1) - 1);
                node.cli(&["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &last.to_string()]);
            }
            node.cli(&["CLUSTER", "MEET", "127.0.0.1", &self.nodes[0].port().to_string()]);
        }
        let known = format!("cluster_known_nodes:{}\r\n", self.nodes.len());
        let agreed = |node: &Server| {
            let info = format!("{}\r\n", node.cli(&["CLUSTER", "INFO"]));
            info.contains("cluster_state:ok") && info.contains(&known)
        };
        wait_until("the nodes agree", || self.nodes.iter().all(agreed));
        let replicas = &self.nodes[self.primaries..];
        for (index, replica) in replicas.iter().enumerate() {
            replica.cli(&["CLUSTER", "REPLICATE", &self.id(index)]);
        }
        wait_until("the replicas are in step", || replicas.iter().all(Server::is_in_step));
        // A primary learns of its replicas last; without that nobody would take its place.
        let seen = format!("connected_slaves:{}", usize::from(!replicas.is_empty()));
        let has_seen = |node: &Server| node.cli(&["INFO", "replication"]).contains(&seen);
        wait_until("the primaries know their replicas", || self.nodes[..self.primaries].iter().all(has_seen));
    }
}
