//! Connecting to a cluster of which some hosts hang.

use std::time::{Duration, Instant};

use pulse_core::{ClientBuilder, Error};
use tests::{
    Cluster, Server, SilentHost, in_time,
    scene::{connect, map},
};

use crate::CONNECTED;

/// The URL of a cluster, with hosts at these ports.
fn url(ports: &[u16]) -> String {
    let others: Vec<String> = ports[1..].iter().map(|port| format!("node=127.0.0.1:{port}")).collect();
    format!("redis-cluster://127.0.0.1:{}?{}", ports[0], others.join("&"))
}

/// Connects and writes in time, whatever the other hosts do.
async fn connects_and_writes(url: &str) {
    // Again and again, because a client may ask the hosts in any order.
    for _ in 0..5 {
        let begun = Instant::now();
        let client = connect(url).await;
        println!("connected after {:?}", begun.elapsed());
        map(&client).await.set("k", &1).await.unwrap();
        let taken = begun.elapsed();
        assert!(taken < CONNECTED, "{taken:?} until the first write");
        client.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_seed_that_answers_is_enough_to_connect() {
    in_time(async {
        let cluster = tokio::task::block_in_place(|| Cluster::start(3, false));
        let mut hosts = Vec::new();
        for _ in 0..4 {
            hosts.push(SilentHost::start().await);
        }
        let mut ports: Vec<u16> = hosts.iter().map(SilentHost::port).collect();
        // A client that asks in the order of the ports meets a silent one first.
        ports.extend((0..3).map(|index| cluster.node(index).port()).max());
        connects_and_writes(&url(&ports)).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn seeds_that_were_stopped_do_not_delay_a_connection() {
    in_time(async {
        let cluster = tokio::task::block_in_place(|| Cluster::start(3, true));
        let stopped = [0, 1, 2].map(|primary| cluster.replica_of(primary));
        stopped.iter().for_each(|replica| replica.pause());
        let mut ports = stopped.map(Server::port).to_vec();
        // As above.
        ports.extend((0..3).map(|index| cluster.node(index).port()).max());
        connects_and_writes(&url(&ports)).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_was_replaced_and_still_hangs_does_not_delay_a_connection() {
    in_time(async {
        let cluster = tokio::task::block_in_place(|| Cluster::start(3, true));
        // As above: the lowest port is that of the one that hangs.
        let primary = (0..3).min_by_key(|index| cluster.node(*index).port()).unwrap();
        cluster.node(primary).pause();
        tokio::task::block_in_place(|| cluster.wait_for_successor(primary));
        let last = (0..6).map(|index| cluster.node(index).port()).max().unwrap();
        let ports = [cluster.node(primary).port(), last];
        connects_and_writes(&url(&ports)).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_hangs_altogether_is_an_error_in_time() {
    in_time(async {
        let hosts = [SilentHost::start().await, SilentHost::start().await, SilentHost::start().await];
        let limit = Duration::from_secs(2);
        let begun = Instant::now();
        let builder = ClientBuilder::new(url(&hosts.each_ref().map(SilentHost::port))).connect_timeout(limit);
        let error = builder.connect().await.expect_err("no host answers");
        let taken = begun.elapsed();
        assert!(matches!(error, Error::Connect { .. }), "{error:?}");
        assert!(taken < 2 * limit, "{taken:?}: {error:?}");
    })
    .await;
}
