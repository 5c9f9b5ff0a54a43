//! One server, whose connections or which itself goes away.

use std::time::Duration;

use tests::{Proxy, Server};

use super::outage::{Activity, Outage, WITHIN, rounds};
use crate::harness::{Bench, Row};

/// How soon a connection that carries nothing any more is replaced.
const REPLACED: Duration = Duration::from_secs(3);
/// For how long the server is away.
const AWAY: Duration = Duration::from_secs(1);

/// The connections stay open and carry nothing any more; new ones work.
pub(super) async fn connections_become_black_holes(bench: &Bench) -> Vec<Row> {
    let mut outage = Outage::default();
    for _ in 0..rounds(bench) {
        let server = Server::start();
        let proxy = Proxy::before(server.port()).await;
        let activity = Activity::begin(&proxy.url()).await;
        proxy.swallow();
        outage.push(&activity.resumes(proxy.port()).await);
    }
    outage.rows("all connections become black holes", REPLACED)
}

/// The server is killed, and started again with its data.
pub(super) async fn a_server_restarts(bench: &Bench) -> Vec<Row> {
    let mut outage = Outage::default();
    for _ in 0..rounds(bench) {
        let mut server = Server::start_durable();
        let activity = Activity::begin(&server.url()).await;
        let port = server.port();
        server.kill();
        let restarted = async {
            tokio::time::sleep(AWAY).await;
            let restart = tokio::task::spawn_blocking(move || {
                server.restart();
                server
            });
            restart.await.expect("the server comes up again")
        };
        // It lives until all goes on.
        let (times, _server) = tokio::join!(activity.resumes(port), restarted);
        outage.push(&times);
    }
    outage.rows("a server is away for 1 s", WITHIN)
}
