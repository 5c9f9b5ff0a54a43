//! Sentinel, of which a primary or some sentinels hang.

use std::time::{Duration, Instant};

use pulse_core::{ClientBuilder, Error};
use tests::{
    Fleet, Sentinels, SilentHost, in_time,
    scene::{connect, map},
};

use crate::{CONNECTED, successor};

fn sentinels() -> Fleet {
    tokio::task::block_in_place(Fleet::of_sentinels)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_map_leaves_a_hanging_primary_for_its_successor() {
    in_time(async { successor::a_map_moves_to_it(&sentinels()).await }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sink_leaves_a_hanging_primary_for_its_successor() {
    in_time(async { successor::a_sink_moves_to_it(&sentinels()).await }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_run_again_while_their_primary_still_hangs() {
    in_time(async { successor::jobs_run_again(&sentinels()).await }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_is_followed_while_one_of_three_sentinels_hangs() {
    in_time(async {
        let fleet = sentinels();
        if let Fleet::Sentinels(sentinels) = &fleet {
            // The one that is asked first.
            sentinels.sentinel(0).pause();
        }
        let begun = Instant::now();
        connect(&fleet.url()).await.close().await;
        let taken = begun.elapsed();
        assert!(taken < CONNECTED, "{taken:?} until the client was connected");
        successor::a_map_moves_to_it(&fleet).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_sentinel_that_answers_is_enough_to_connect() {
    in_time(async {
        let sentinels = tokio::task::block_in_place(Sentinels::start);
        let (first, second) = (SilentHost::start().await, SilentHost::start().await);
        let url = Sentinels::url_of([first.port(), second.port(), sentinels.sentinel(2).port()]);
        let begun = Instant::now();
        let client = connect(&url).await;
        println!("connected after {:?}", begun.elapsed());
        map(&client).await.set("k", &1).await.unwrap();
        let taken = begun.elapsed();
        assert!(taken < CONNECTED, "{taken:?} until the first write");
        client.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels_that_all_hang_are_an_error_in_time() {
    in_time(async {
        let hosts = [SilentHost::start().await, SilentHost::start().await, SilentHost::start().await];
        let limit = Duration::from_secs(2);
        let begun = Instant::now();
        let url = Sentinels::url_of(hosts.each_ref().map(SilentHost::port));
        let error = ClientBuilder::new(url).connect_timeout(limit).connect().await.expect_err("no host answers");
        let taken = begun.elapsed();
        assert!(matches!(error, Error::Connect { .. }), "{error:?}");
        assert!(taken < 2 * limit, "{taken:?}: {error:?}");
    })
    .await;
}
