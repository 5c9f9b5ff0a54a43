//! A link whose connections stay open and carry nothing any more, while new connections work.

use std::time::Instant;

use pulse_core::Transaction;
use tests::{
    Proxy, Server, in_time,
    scene::{Taker, connect, map, scope, since, stream},
};
use tokio::task::JoinSet;

use super::{REPLACED, writes};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_into_a_black_hole_ends_and_the_next_one_succeeds() {
    in_time(async {
        let server = Server::start();
        let proxy = Proxy::before(server.port()).await;
        let client = connect(&proxy.url()).await;
        writes(&client).await;
        proxy.swallow();
        let taken = writes(&client).await;
        assert!(taken < REPLACED, "{taken:?} until a write succeeded");
        client.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_in_flight_over_a_link_that_becomes_a_black_hole_end_and_go_on() {
    in_time(async {
        let server = Server::start();
        let proxy = Proxy::before(server.port()).await;
        let client = connect(&proxy.url()).await;
        let mut writers = JoinSet::new();
        let (swallowed, is_swallowed) = tokio::sync::watch::channel(None::<Instant>);
        for writer in 0..8 {
            let (client, is_swallowed) = (client.clone(), is_swallowed.clone());
            writers.spawn(async move {
                loop {
                    let begun = Instant::now();
                    let put = Transaction::new(&scope()).put("m", format!("{writer}"), "v");
                    match client.commit(put).await {
                        Ok(_) => {}
                        Err(error) => assert!(error.is_retryable() || error.is_outcome_unknown(), "{error:?}"),
                    }
                    // Until a write that began after it succeeds.
                    let after = is_swallowed.borrow().filter(|swallowed| begun > *swallowed);
                    if let Some(swallowed) = after {
                        return swallowed.elapsed();
                    }
                }
            });
        }
        writes(&client).await;
        proxy.swallow();
        swallowed.send_replace(Some(Instant::now()));
        let slowest = writers.join_all().await.into_iter().max().unwrap();
        assert!(slowest < REPLACED, "{slowest:?} until all of them wrote again");
        client.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_behind_a_black_hole_sees_the_changes_of_others_again() {
    in_time(async {
        let server = Server::start();
        let proxy = Proxy::before(server.port()).await;
        let (behind, direct) = (connect(&proxy.url()).await, connect(&server.url()).await);
        let (replica, source) = (map(&behind).await, map(&direct).await);
        source.set("k", &1).await.unwrap();
        since(Instant::now(), "the replica follows", || replica.get("k").is_some()).await;
        proxy.swallow();
        let begun = Instant::now();
        source.set("k", &2).await.unwrap();
        let sees = || replica.is_synced() && replica.get("k").is_some_and(|found| *found == 2);
        let taken = since(begun, "the replica sees the change", sees).await;
        assert!(taken < REPLACED, "{taken:?}");
        behind.close().await;
        direct.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiting_sink_behind_a_black_hole_gets_the_next_event() {
    in_time(async {
        let server = Server::start();
        let proxy = Proxy::before(server.port()).await;
        let (behind, direct) = (connect(&proxy.url()).await, connect(&server.url()).await);
        let taker = Taker::join(&stream(&behind)).await;
        stream(&direct).add("n", "1").await.unwrap();
        since(Instant::now(), "the sink delivers", || taker.newest() == 1).await;
        proxy.swallow();
        let begun = Instant::now();
        stream(&direct).add("n", "2").await.unwrap();
        let taken = since(begun, "the sink delivers again", || taker.newest() == 2).await;
        assert!(taken < REPLACED, "{taken:?}");
        behind.close().await;
        direct.close().await;
    })
    .await;
}
