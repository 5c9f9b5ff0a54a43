//! A replica of a cluster hangs, which must not matter to a client.

use std::time::{Duration, Instant};

use tests::{
    Cluster, in_time,
    scene::{SCOPE, Taker, Writer, connect, map, since, stream},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hanging_replica_disturbs_nothing() {
    in_time(async {
        let cluster = tokio::task::block_in_place(|| Cluster::start(3, true));
        let primary = cluster.first_owner_of(SCOPE);
        let (writes, reads) = (connect(&cluster.url()).await, connect(&cluster.url()).await);
        let (source, replica) = (map(&writes).await, map(&reads).await);
        let taker = Taker::join(&stream(&reads)).await;
        let (sets, adds) = (Writer::of_map(&source), Writer::of_stream(&stream(&writes)));
        sets.goes_on(20).await;
        cluster.replica_of(primary).pause();
        // Until the other nodes take it for dead, and longer.
        let end = Instant::now() + Duration::from_secs(5);
        while Instant::now() < end {
            let begun = Instant::now();
            sets.goes_on(1).await;
            adds.goes_on(1).await;
            let taken = begun.elapsed();
            assert!(taken < Duration::from_secs(1), "a write took {taken:?} while a replica hung");
            assert!(replica.is_synced(), "the map is cut off from its primary while a replica hangs");
        }
        // Whatever the client asks of the cluster when it connects again, it does not wait for the replica.
        let cut = Instant::now();
        cluster.node(primary).cli(&["CLIENT", "KILL", "TYPE", "normal"]);
        cluster.node(primary).cli(&["CLIENT", "KILL", "TYPE", "pubsub"]);
        let (set, added) = (sets.newest(), adds.newest());
        let has_newer = || replica.is_synced() && replica.get("n").is_some_and(|found| *found > set);
        let taken = since(cut, "the map follows again", has_newer).await;
        let delivered = since(cut, "an event is delivered again", || taker.newest() > added).await;
        assert!(taken.max(delivered) < Duration::from_secs(2), "{taken:?}, {delivered:?} after a cut");
        let (added, errors) = adds.end().await;
        taker.has_all(&added).await;
        // Only the cut may be the reason of one: what was under way then.
        let (_, more) = sets.end().await;
        assert!(errors.len() + more.len() <= 2, "{errors:?}, {more:?}");
        writes.close().await;
        reads.close().await;
    })
    .await;
}
