//! Connecting to a cluster of which some hosts hang.

use std::time::{Duration, Instant};

use pulse_core::{ClientBuilder, Error};
use tests::{Cluster, Server, SilentHost, in_time};

use crate::scene::{CONNECTED, SCOPE, connect, map};

/// The URL of a cluster, with hosts at these ports.
fn url(ports: &[u16]) -> String {
    let others: Vec<String> = ports[1..].iter().map(|port| format!("node=127.0.0.1:{port}")).collect();
    format!("redis-cluster://127.0.0.1:{}?{}", ports[0], others.join("&"))
}

/// Connects and writes in time, whatever the other hosts do.
async fn connects_and_writes(url: &str) {
    let begun = Instant::now();
    let client = connect(url).await;
    println!("connected after {:?}", begun.elapsed());
    map(&client).await.set("k", &1).await.unwrap();
    let taken = begun.elapsed();
    assert!(taken < CONNECTED, "{taken:?} until the first write");
    client.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_seed_that_answers_is_enough_to_connect() {
    in_time(async {
        let cluster = tokio::task::block_in_place(|| Cluster::start(3, false));
        let (first, second) = (SilentHost::start().await, SilentHost::start().await);
        connects_and_writes(&url(&[first.port(), second.port(), cluster.node(2).port()])).await;
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
        ports.push(cluster.node(0).port());
        connects_and_writes(&url(&ports)).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_was_replaced_and_still_hangs_does_not_delay_a_connection() {
    in_time(async {
        let cluster = tokio::task::block_in_place(|| Cluster::start(3, true));
        let primary = cluster.first_owner_of(SCOPE);
        cluster.node(primary).pause();
        tokio::task::block_in_place(|| cluster.wait_for_successor(primary));
        let all = (0..6).map(|index| cluster.node(index).port());
        let mut ports: Vec<u16> = all.filter(|port| *port != cluster.node(primary).port()).collect();
        ports.insert(0, cluster.node(primary).port());
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
