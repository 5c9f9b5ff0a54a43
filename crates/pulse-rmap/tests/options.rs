//! Values of options that make no sense are refused when joining, and not when the first write comes.

use std::time::Duration;

use pulse_core::{Error as CoreError, MAX_LIFETIME, MIN_LIFETIME};
use pulse_rmap::{Error, Map, MapBuilder};

fn map() -> MapBuilder<u32> {
    Map::builder("ports")
}

#[tokio::test(start_paused = true)]
async fn a_buffer_of_nothing_and_a_lifetime_that_no_backend_counts_are_refused() {
    let client = pulse_rmap::connect("memory:").await.unwrap();
    for time in [Duration::ZERO, Duration::from_nanos(1), MAX_LIFETIME + Duration::from_nanos(1), Duration::MAX] {
        for (builder, expected) in [
            (map().change_buffer(0), "change_buffer"),
            (map().expires_after(time), "expires_after"),
            (map().expires_unless_written_for(time), "expires_unless_written_for"),
        ] {
            let Err(Error::Map { source, .. }) = builder.join(&client).await else { panic!("{expected} was taken") };
            assert!(matches!(*source, CoreError::InvalidOption { option, .. } if option == expected), "{source:?}");
        }
    }
    client.close().await;
}

#[tokio::test(start_paused = true)]
async fn the_least_and_the_most_work() {
    let client = pulse_rmap::connect("memory:").await.unwrap();
    for builder in [
        map().change_buffer(1),
        map().change_buffer(usize::MAX),
        map().expires_after(MIN_LIFETIME),
        map().expires_after(MAX_LIFETIME),
        map().expires_unless_written_for(MAX_LIFETIME),
    ] {
        let shown = format!("{builder:?}");
        let map = builder.join(&client).await.unwrap();
        let mut changes = map.subscribe();
        for port in 1..=3 {
            let set = map.set("http", &port).await.unwrap();
            map.wait_for(set.version).await.unwrap();
        }
        assert!(changes.try_next().is_some(), "{shown}");
        map.close().await;
    }
    client.close().await;
}
