//! A primary with a replica, and three sentinels that watch both.

use crate::{Server, wait::wait_until};

const SENTINELS: usize = 3;
/// How many of them have to agree.
const QUORUM: usize = 2;

/// A primary, its replica, and three sentinels that make the replica the next primary when two of them find that the
/// primary has been silent for half a second.
#[derive(Debug)]
pub struct Sentinels {
    /// The first primary, and the replica that is to succeed it.
    servers: Vec<Server>,
    sentinels: Vec<Server>,
}

impl Sentinels {
    /// Starts them, and waits until the sentinels know each other and the replica.
    ///
    /// # Panics
    ///
    /// If they cannot be started.
    #[must_use]
    pub fn start() -> Self {
        let primary = Server::start();
        let replica = Server::start_replica_of(&primary);
        wait_until("the replica is in step", || replica.is_in_step());
        let sentinels = (0..SENTINELS).map(|_| Server::start_sentinel_of(&primary, QUORUM)).collect();
        let fleet = Self { servers: vec![primary, replica], sentinels };
        wait_until("the sentinels know each other and the replica", || fleet.sentinels.iter().all(knows_all));
        fleet
    }

    /// The URL for [`pulse_core::connect`], with all sentinels in their order.
    #[must_use]
    pub fn url(&self) -> String {
        Self::url_of(self.sentinels.iter().map(Server::port))
    }

    /// The URL for [`pulse_core::connect`] with sentinels at these ports.
    ///
    /// # Panics
    ///
    /// If there are none.
    #[must_use]
    pub fn url_of(ports: impl IntoIterator<Item = u16>) -> String {
        let mut ports = ports.into_iter();
        let first = ports.next().expect("there is a sentinel");
        let others: String = ports.map(|port| format!("&node=127.0.0.1:{port}")).collect();
        format!("redis-sentinel://127.0.0.1:{first}?sentinelServiceName=main{others}")
    }

    /// The first primary.
    #[must_use]
    pub fn primary(&self) -> &Server {
        &self.servers[0]
    }

    /// The first replica, which is to succeed the primary.
    #[must_use]
    pub fn replica(&self) -> &Server {
        &self.servers[1]
    }

    /// One of the three sentinels.
    #[must_use]
    pub fn sentinel(&self, index: usize) -> &Server {
        &self.sentinels[index]
    }

    /// Kills the primary without a chance to say goodbye.
    pub fn kill_primary(&mut self) {
        self.servers[0].kill();
    }

    /// Waits until the replica has taken the place of the primary and most of the sentinels say so.
    ///
    /// # Panics
    ///
    /// If that takes too long.
    pub fn wait_for_successor(&self) {
        let successor = self.replica().port().to_string();
        let says_so = |sentinel: &&Server| names_primary(sentinel).lines().any(|line| line == successor);
        wait_until("the sentinels name another primary", || {
            self.replica().is_primary() && self.sentinels.iter().filter(says_so).count() >= QUORUM
        });
    }
}

/// Host and port of the primary by a sentinel that may be paused.
fn names_primary(sentinel: &Server) -> String {
    if sentinel.is_paused() {
        return String::new();
    }
    sentinel.cli(&["SENTINEL", "get-master-addr-by-name", "main"])
}

fn knows_all(sentinel: &Server) -> bool {
    let told = sentinel.cli(&["SENTINEL", "master", "main"]);
    let told: Vec<&str> = told.lines().collect();
    let others = (SENTINELS - 1).to_string();
    let tells = |name: &str, value: &str| told.windows(2).any(|pair| pair == [name, value]);
    tells("num-slaves", "1") && tells("num-other-sentinels", &others)
}
