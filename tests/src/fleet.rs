//! Servers of which one can take the place of another, whatever decides that.

use std::time::Duration;

use crate::{Cluster, Sentinels, Server};

/// A fleet that replaces the primary of one scope when that is silent.
#[derive(Debug)]
pub enum Fleet {
    /// A primary and its replica behind Sentinel.
    Sentinels(Sentinels),
    /// A cluster of three primaries with replicas.
    Cluster {
        /// The nodes.
        cluster: Cluster,
        /// Which of them is the first primary of the scope.
        primary: usize,
    },
}

impl Fleet {
    /// Starts a primary and a replica, and the sentinels that watch them.
    ///
    /// # Panics
    ///
    /// If they cannot be started.
    #[must_use]
    pub fn of_sentinels() -> Self {
        Self::Sentinels(Sentinels::start())
    }

    /// Starts a cluster whose nodes take each other for dead after that time, to look at the primary of that scope.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    #[must_use]
    pub fn of_cluster(scope: &str, node_timeout: Duration) -> Self {
        let cluster = Cluster::start_with_timeout(3, true, node_timeout);
        let primary = cluster.first_owner_of(scope);
        Self::Cluster { cluster, primary }
    }

    /// The URL for [`pulse_core::connect`].
    #[must_use]
    pub fn url(&self) -> String {
        match self {
            Self::Sentinels(sentinels) => sentinels.url(),
            Self::Cluster { cluster, .. } => cluster.url(),
        }
    }

    /// The first primary of the scope.
    #[must_use]
    pub fn primary(&self) -> &Server {
        match self {
            Self::Sentinels(sentinels) => sentinels.primary(),
            Self::Cluster { cluster, primary } => cluster.node(*primary),
        }
    }

    /// The server that takes its place.
    #[must_use]
    pub fn successor(&self) -> &Server {
        match self {
            Self::Sentinels(sentinels) => sentinels.replica(),
            Self::Cluster { cluster, primary } => cluster.replica_of(*primary),
        }
    }

    /// Kills the primary without a chance to say goodbye.
    pub fn kill_primary(&mut self) {
        match self {
            Self::Sentinels(sentinels) => sentinels.kill_primary(),
            Self::Cluster { cluster, primary } => cluster.kill(*primary),
        }
    }

    /// Waits until another server has taken the place of the primary, and the servers that lead to it say so.
    ///
    /// # Panics
    ///
    /// If that takes too long.
    pub fn wait_for_successor(&self) {
        match self {
            Self::Sentinels(sentinels) => sentinels.wait_for_successor(),
            Self::Cluster { cluster, primary } => cluster.wait_for_successor(*primary),
        }
    }
}
