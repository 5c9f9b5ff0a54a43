//! A primary of a cluster hangs, and its replica takes its place.

use std::time::Duration;

use tests::{Fleet, in_time, scene::SCOPE};

use crate::successor;

fn cluster() -> Fleet {
    tokio::task::block_in_place(|| Fleet::of_cluster(SCOPE, Duration::from_secs(2)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_map_leaves_a_hanging_primary_for_its_successor() {
    in_time(async { successor::a_map_moves_to_it(&cluster()).await }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sink_leaves_a_hanging_primary_for_its_successor() {
    in_time(async { successor::a_sink_moves_to_it(&cluster()).await }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_run_again_while_their_primary_still_hangs() {
    in_time(async { successor::jobs_run_again(&cluster()).await }).await;
}
