//! The backend that a test runs on.

use std::fmt;

use pulse_core::{Client, ClientBuilder, Scope};

/// Which kind of backend a test runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackendKind {
    /// Embedded, with paused time.
    Memory,
    /// One server.
    Standalone,
    /// A cluster of three primaries.
    Cluster,
}

/// One store for one test: clients opened on it see each other's data and nobody else's.
#[derive(Debug, Clone)]
pub struct Subject {
    kind: BackendKind,
    url: String,
    key_prefix: String,
}

impl Subject {
    /// An embedded store.
    #[must_use]
    pub fn memory() -> Self {
        let name: u64 = rand::random();
        Self { kind: BackendKind::Memory, url: format!("memory:test-{name:016x}"), key_prefix: String::new() }
    }

    /// A part of the standalone server at `PULSE_TEST_REDIS_URL`.
    ///
    /// # Panics
    ///
    /// If the variable is not set.
    #[must_use]
    pub fn standalone() -> Self {
        Self::at_server(BackendKind::Standalone, "PULSE_TEST_REDIS_URL")
    }

    /// A part of the cluster at `PULSE_TEST_CLUSTER_URL`.
    ///
    /// # Panics
    ///
    /// If the variable is not set.
    #[must_use]
    pub fn cluster() -> Self {
        Self::at_server(BackendKind::Cluster, "PULSE_TEST_CLUSTER_URL")
    }

    fn at_server(kind: BackendKind, variable: &str) -> Self {
        let Ok(url) = std::env::var(variable) else {
            panic!("{variable} is not set: run `cargo xtask test`, which starts the servers that the tests need");
        };
        let part: u64 = rand::random();
        Self { kind, url, key_prefix: format!("test-{part:016x}:") }
    }

    /// Which kind of backend it is.
    #[must_use]
    pub fn kind(&self) -> BackendKind {
        self.kind
    }

    /// The URL of the store. On a server, clients that are to see this subject's data also need its key prefix: use
    /// [`Subject::builder`].
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Options for a client of this store.
    pub fn builder(&self) -> ClientBuilder {
        let builder = ClientBuilder::new(&self.url);
        if self.key_prefix.is_empty() { builder } else { builder.key_prefix(&self.key_prefix) }
    }

    /// Opens one more client of this store, with connections of its own.
    ///
    /// # Panics
    ///
    /// If it cannot connect.
    pub async fn client(&self) -> Client {
        match self.builder().connect().await {
            Ok(client) => client,
            Err(error) => panic!("cannot open a client of {self}: {error:?}"),
        }
    }

    /// A scope that nothing was written to yet.
    ///
    /// # Panics
    ///
    /// Never: the name is valid.
    #[must_use]
    pub fn scope(&self) -> Scope {
        let name: u64 = rand::random();
        Scope::new(format!("scope-{name:016x}")).expect("a short name is valid")
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} at {}", self.kind, self.url)
    }
}
