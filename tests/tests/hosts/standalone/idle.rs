//! A link that forgets connections while they are idle. What is bounded here is time itself, so these tests let some
//! pass: it is what a client has to find out that its connections are gone before they are needed.

use std::time::{Duration, Instant};

use tests::{
    Proxy, Server, in_time,
    scene::{connect, map, stream},
};

/// How long the client has nothing to do.
const IDLE: Duration = Duration::from_secs(6);
/// How soon the first call after that ends.
const PROMPTLY: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_add_over_a_forgotten_connection_succeeds_at_once() {
    in_time(async {
        let server = Server::start();
        let proxy = Proxy::before(server.port()).await;
        let client = connect(&proxy.url()).await;
        proxy.swallow();
        tokio::time::sleep(IDLE).await;
        let begun = Instant::now();
        let added = stream(&client).add("n", "1").await;
        let taken = begun.elapsed();
        assert!(added.is_ok(), "{added:?} after {taken:?}");
        assert!(taken < PROMPTLY, "{taken:?}");
        client.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_map_over_a_forgotten_connection_is_joined_at_once() {
    in_time(async {
        let server = Server::start();
        let proxy = Proxy::before(server.port()).await;
        let client = connect(&proxy.url()).await;
        proxy.swallow();
        tokio::time::sleep(IDLE).await;
        let begun = Instant::now();
        let map = map(&client).await;
        let taken = begun.elapsed();
        assert!(taken < PROMPTLY, "{taken:?}");
        map.set("k", &1).await.unwrap();
        client.close().await;
    })
    .await;
}
