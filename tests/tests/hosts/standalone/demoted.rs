//! A primary that becomes a replica and stays up, so that its connections stand and lead to a server that takes no
//! writes.

use std::time::{Duration, Instant};

use pulse_core::{ClientBuilder, Error, Transaction};
use tests::{
    Proxy, Server, eventually, in_time,
    scene::{LEASE, Pool, Taker, connect, map, scope, since, stream},
};
use tokio::task::JoinSet;

use super::writes;

/// How soon after the name has moved writes go to the new primary.
const WITHIN: Duration = Duration::from_secs(2);

/// A primary with a replica, and a name that leads to the primary.
struct Pair {
    first: Server,
    second: Server,
    name: Proxy,
}

impl Pair {
    async fn start() -> Self {
        let first = Server::start();
        let second = Server::start_replica_of(&first);
        eventually("the replica is in step", async || if second.is_in_step() { Ok(()) } else { Err(()) }).await;
        let name = Proxy::before(first.port()).await;
        Self { first, second, name }
    }

    /// Has both change places. The name stays where it is.
    fn swap(&self) {
        self.first.wait_until_replicated();
        self.second.cli(&["REPLICAOF", "NO", "ONE"]);
        self.first.cli(&["REPLICAOF", "127.0.0.1", &self.second.port().to_string()]);
    }

    fn move_name(&self) {
        self.name.redirect(self.second.port());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_and_replicas_follow_a_name_that_moves() {
    in_time(async {
        let pair = Pair::start().await;
        let client = connect(&pair.name.url()).await;
        let replica = map(&client).await;
        replica.set("k", &1).await.unwrap();
        pair.swap();
        pair.move_name();
        let begun = Instant::now();
        let direct = connect(&pair.second.url()).await;
        map(&direct).await.set("k", &2).await.unwrap();
        while let Err(error) = replica.set("l", &3).await {
            assert!(begun.elapsed() < WITHIN, "{error:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let taken = begun.elapsed();
        assert!(taken < WITHIN, "{taken:?} until a write succeeded");
        let sees = |key: &str, value: u64| replica.get(key).is_some_and(|found| *found == value);
        let in_step = || replica.is_synced() && sees("k", 2) && sees("l", 3);
        let taken = since(begun, "the replica is in step", in_step).await;
        assert!(taken < WITHIN, "{taken:?}");
        client.close().await;
        direct.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sink_follows_a_name_that_moves() {
    in_time(async {
        let pair = Pair::start().await;
        let client = connect(&pair.name.url()).await;
        let taker = Taker::join(&stream(&client)).await;
        stream(&client).add("n", "1").await.unwrap();
        since(Instant::now(), "the sink delivers", || taker.newest() == 1).await;
        pair.swap();
        pair.move_name();
        let begun = Instant::now();
        let direct = connect(&pair.second.url()).await;
        stream(&direct).add("n", "2").await.unwrap();
        let taken = since(begun, "the sink delivers again", || taker.newest() == 2).await;
        assert!(taken < WITHIN, "{taken:?}");
        // What it acknowledged is known to the new primary.
        let acknowledged = async || {
            let info = stream(&direct).sink_info("s").await.unwrap().expect("there is a sink");
            if info.pending == 0 { Ok(()) } else { Err(info.pending) }
        };
        eventually("the deliveries are acknowledged", acknowledged).await;
        client.close().await;
        direct.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_jobs_of_a_pool_follow_a_name_that_moves() {
    in_time(async {
        let pair = Pair::start().await;
        let pool = Pool::start(&pair.name.url(), 2, 20).await;
        pair.swap();
        pair.move_name();
        let all_run = Instant::now() + LEASE + WITHIN;
        let gap = pool.jobs.last_gap_until(all_run + LEASE, &pool.keys).await;
        pool.jobs.check();
        assert!(gap.is_none_or(|gap| gap < all_run), "not all jobs ran {:?} after the name had moved", LEASE + WITHIN);
        pool.nodes[1].dispatch("encore", "").await.unwrap();
        pool.nodes[0].stop("encore").await.unwrap();
        pool.end().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_stays_demoted_is_asked_now_and_then_and_the_error_says_why() {
    in_time(async {
        let pair = Pair::start().await;
        let limit = Duration::from_secs(3);
        let client = ClientBuilder::new(pair.name.url()).command_timeout(limit).connect().await.unwrap();
        let replica = map(&client).await;
        writes(&client).await;
        pair.swap();
        let before = pair.name.accepted();
        let mut writers = JoinSet::new();
        for writer in 0..4 {
            let client = client.clone();
            writers.spawn(async move {
                let begun = Instant::now();
                let error = client.commit(Transaction::new(&scope()).put("w", format!("{writer}"), "v")).await;
                (begun.elapsed(), error.expect_err("a replica takes no writes"))
            });
        }
        let ends = writers.join_all().await;
        let made = pair.name.accepted() - before;
        println!("{made} connections: {ends:?}");
        for (taken, error) in ends {
            assert!(matches!(error, Error::ReadOnly { .. }), "{error:?} after {taken:?}");
            // It might have become a primary again, or the name have moved.
            assert!(taken > limit / 2, "given up after {taken:?}");
            assert!(taken < limit + Duration::from_secs(1), "ended after {taken:?}");
        }
        assert!(made <= 20, "{made} connections within {limit:?}");
        // The name moves at last.
        pair.move_name();
        let taken = writes(&client).await;
        assert!(taken < WITHIN, "{taken:?} until a write succeeded");
        let begun = Instant::now();
        replica.set("k", &1).await.unwrap();
        since(begun, "the replica is in step", || replica.is_synced() && replica.get("k").is_some()).await;
        client.close().await;
    })
    .await;
}
