//! A primary that dies, and the sentinel that makes its replica the next one.

use pulse_core::{ClientBuilder, Scope};
use tests::{Server, eventually, in_time};

use crate::life::{Life, TIMEOUT};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sentinel_leads_to_the_next_primary() {
    in_time(async {
        let mut primary = Server::start();
        let replica = Server::start_with(&[
            "--replicaof",
            "127.0.0.1",
            &primary.port().to_string(),
            "--repl-diskless-sync-delay",
            "0",
        ]);
        let sentinel = Server::start_sentinel(&primary);
        eventually("the replica is in step, and the sentinel knows it", async || {
            let link = replica.cli(&["INFO", "replication"]);
            let known = sentinel.cli(&["SENTINEL", "replicas", "main"]);
            let ready = link.contains("master_link_status:up") && known.contains(&replica.port().to_string());
            if ready { Ok(()) } else { Err(link) }
        })
        .await;
        let url = format!("redis-sentinel://127.0.0.1:{}?sentinelServiceName=main", sentinel.port());
        let client = ClientBuilder::new(url).command_timeout(TIMEOUT).connect().await.unwrap();
        let life = Life::begin(&client, Scope::new("orders").unwrap()).await;
        life.goes_on(200).await;
        primary.kill();
        life.goes_on(200).await;
        let report = life.end().await;
        assert!(report.gaps.disconnected > 0 && report.gaps.resubscribed > 0, "the feed was silent: {report:?}");
        client.close().await;
    })
    .await;
}
