//! What users can rely on when a primary hangs and another server takes its place: everything goes on there soon after
//! that server is known, while the old one still hangs, and what was confirmed is not lost.

use std::time::{Duration, Instant};

use tests::{
    Fleet, eventually,
    scene::{LEASE, Pool, Taker, Writer, connect, map, since, stream},
};

/// How soon after the successor is known everything has moved to it.
const WITHIN: Duration = Duration::from_secs(2);

pub(crate) async fn a_map_moves_to_it(fleet: &Fleet) {
    let (writes, reads) = (connect(&fleet.url()).await, connect(&fleet.url()).await);
    let (source, replica) = (map(&writes).await, map(&reads).await);
    source.set("before", &7).await.unwrap();
    replicated(fleet);
    fleet.primary().pause();
    let writer = Writer::of_map(&source);
    let known = successor_is_known(fleet);
    let has_newer = |number: u64| replica.is_synced() && replica.get("n").is_some_and(|found| *found > number);
    let before = writer.newest();
    let taken = since(known, "the other replica is in step again", || has_newer(before)).await;
    assert!(taken < WITHIN, "{taken:?} after the successor was known");
    fleet.primary().resume();
    writer.goes_on(100).await;
    let (written, errors) = writer.end().await;
    println!("{} writes, errors: {errors:?}", written.len());
    for map in [&source, &replica] {
        eventually("the replicas have what was written last", async || {
            let found = (map.get("n").as_deref().copied(), map.get("before").as_deref().copied());
            let is_last = found.0 >= written.last().copied() && found.1 == Some(7);
            if is_last && map.is_synced() { Ok(()) } else { Err(found) }
        })
        .await;
    }
    writes.close().await;
    reads.close().await;
}

pub(crate) async fn a_sink_moves_to_it(fleet: &Fleet) {
    let (adds, takes) = (connect(&fleet.url()).await, connect(&fleet.url()).await);
    let taker = Taker::join(&stream(&takes)).await;
    let first = Writer::of_stream(&stream(&adds));
    first.goes_on(50).await;
    let (mut added, _) = first.end().await;
    replicated(fleet);
    fleet.primary().pause();
    let writer = Writer::of_stream(&stream(&adds));
    let known = successor_is_known(fleet);
    let before = taker.newest().max(writer.newest());
    let taken = since(known, "an event is delivered again", || taker.newest() > before).await;
    assert!(taken < WITHIN, "{taken:?} after the successor was known");
    fleet.primary().resume();
    writer.goes_on(100).await;
    let (again, errors) = writer.end().await;
    println!("{} adds, errors: {errors:?}", again.len());
    added.extend(again);
    taker.has_all(&added).await;
    adds.close().await;
    takes.close().await;
}

pub(crate) async fn jobs_run_again(fleet: &Fleet) {
    let pool = Pool::start(&fleet.url(), 3, 30).await;
    replicated(fleet);
    fleet.primary().pause();
    let known = successor_is_known(fleet);
    // Mostly one lease. A node that sees the server change twice on its way waits for two, which is a known weakness of
    // the pool and not of its connections.
    let all_run = known + 2 * LEASE + WITHIN;
    // And a lease longer, so that what only ran on is not taken for what runs again.
    let gap = pool.jobs.last_gap_until(all_run + LEASE, &pool.keys).await;
    println!("all jobs run {:?} after the successor is known", gap.map(|gap| gap - known));
    pool.jobs.check();
    assert!(
        gap.is_none_or(|gap| gap < all_run),
        "not all jobs ran {:?} after the successor was known",
        2 * LEASE + WITHIN
    );
    fleet.primary().resume();
    let gap = pool.jobs.last_gap_until(Instant::now() + 2 * LEASE, &pool.keys).await;
    assert_eq!(gap, None, "a job stopped when the old primary came back");
    for key in ["encore 1", "encore 2"] {
        pool.nodes[1].dispatch(key, "").await.unwrap();
        pool.nodes[2].stop(key).await.unwrap();
    }
    pool.end().await;
}

/// Waits until a failover would lose nothing.
pub(crate) fn replicated(fleet: &Fleet) {
    tokio::task::block_in_place(|| fleet.primary().wait_until_replicated());
}

/// Waits for the successor, and returns when it was known.
pub(crate) fn successor_is_known(fleet: &Fleet) -> Instant {
    let begun = Instant::now();
    tokio::task::block_in_place(|| fleet.wait_for_successor());
    println!("the successor is known after {:?}", begun.elapsed());
    Instant::now()
}
