//! What a map promises when its server or its link fails. Each test has a server of its own.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use pulse_core::{Client, ClientBuilder, Scope};
use pulse_rmap::Map;
use tests::{Server, eventually, in_time, soon};

use super::{content, fold_until, join};

async fn client(server: &Server) -> Client {
    ClientBuilder::new(server.url()).command_timeout(Duration::from_secs(1)).connect().await.unwrap()
}

fn scope() -> Scope {
    Scope::new("s").unwrap()
}

/// Sets a key, again and again while the server is away. Only for values that may be set twice.
async fn set(map: &Map<u64>, key: &str, value: u64) {
    eventually("the write succeeds", async || match map.set(key, &value).await {
        Ok(set) => Ok(set),
        Err(error) => Err(error.to_string()),
    })
    .await;
}

async fn becomes(map: &Map<u64>, expected: &BTreeMap<String, u64>) {
    let begun = Instant::now();
    eventually("the replica is the map", async || {
        let content = content(&map.snapshot());
        if content == *expected && map.is_synced() { Ok(()) } else { Err((map.is_synced(), content.len())) }
    })
    .await;
    println!("converged after {:?}", begun.elapsed());
}

fn entries<const N: usize>(entries: [(&str, u64); N]) -> BTreeMap<String, u64> {
    entries.map(|(key, value)| (key.to_owned(), value)).into()
}

mod standalone {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_feed_that_is_killed_amid_writes_loses_and_repeats_nothing() {
        in_time(async {
            let server = Arc::new(Server::start());
            let (writer, reader) = (client(&server).await, client(&server).await);
            let (source, map) = (join(&writer, &scope()).await, join(&reader, &scope()).await);
            let (snapshot, mut changes) = map.snapshot_and_subscribe();
            let mut known = content(&snapshot);

            let mut tasks = tokio::task::JoinSet::new();
            for key in 0..16 {
                let source = source.clone();
                tasks.spawn(async move {
                    for value in 1..=3_125_u64 {
                        source.set(format!("k{key}"), &value).await.unwrap();
                    }
                });
            }
            let killer = tokio::task::spawn_blocking({
                let server = Arc::clone(&server);
                move || {
                    let mut killed = 0;
                    for _ in 0..5 {
                        killed += server.cli(&["CLIENT", "KILL", "TYPE", "pubsub"]).parse::<u32>().unwrap();
                        std::thread::sleep(Duration::from_millis(100));
                    }
                    killed
                }
            });
            while let Some(ended) = tasks.join_next().await {
                ended.unwrap();
            }
            assert!(killer.await.unwrap() > 2, "the feeds are meant to be killed");

            let expected = (0..16).map(|key| (format!("k{key}"), 3_125)).collect();
            becomes(&map, &expected).await;
            fold_until(&mut changes, &mut known, &expected).await;
            becomes(&source, &expected).await;
            assert!(changes.try_next().is_none(), "a change was told after the last one");
        })
        .await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_flushed_server_is_noticed_by_the_next_write_and_the_difference_told() {
        in_time(async {
            let server = Server::start();
            let (writer, reader) = (client(&server).await, client(&server).await);
            let (source, map) = (join(&writer, &scope()).await, join(&reader, &scope()).await);
            let mut changes = map.subscribe();
            let mut known = BTreeMap::new();
            for (key, value) in [("a", 1), ("b", 2), ("c", 3)] {
                set(&source, key, value).await;
            }
            fold_until(&mut changes, &mut known, &entries([("a", 1), ("b", 2), ("c", 3)])).await;
            server.cli(&["FLUSHALL"]);
            set(&source, "b", 7).await;
            let expected = entries([("b", 7)]);
            becomes(&map, &expected).await;
            fold_until(&mut changes, &mut known, &expected).await;
            set(&source, "d", 8).await;
            fold_until(&mut changes, &mut known, &entries([("b", 7), ("d", 8)])).await;
        })
        .await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_flushed_server_is_noticed_even_in_silence() {
        in_time(async {
            let server = Server::start();
            let client = client(&server).await;
            let map = join(&client, &scope()).await;
            let version = map.set("a", &1).await.unwrap().version;
            soon("the version", map.wait_for(version)).await.unwrap();
            server.cli(&["FLUSHALL"]);
            becomes(&map, &BTreeMap::new()).await;
        })
        .await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_server_that_comes_back_empty_is_followed_and_reads_go_on_meanwhile() {
        in_time(async {
            let mut server = Server::start();
            let (writer, reader) = (client(&server).await, client(&server).await);
            let (source, map) = (join(&writer, &scope()).await, join(&reader, &scope()).await);
            let mut changes = map.subscribe();
            let mut known = BTreeMap::new();
            for (key, value) in [("a", 1), ("b", 2)] {
                set(&source, key, value).await;
            }
            fold_until(&mut changes, &mut known, &entries([("a", 1), ("b", 2)])).await;
            server.kill();
            eventually("the replica says that it is cut off", async || if map.is_synced() { Err(()) } else { Ok(()) })
                .await;
            assert!(map.staleness().is_some());
            assert_eq!(content(&map.snapshot()), entries([("a", 1), ("b", 2)]));
            let write = map.set("a", &2).await;
            assert!(write.as_ref().is_err_and(pulse_rmap::Error::is_retryable), "{write:?}");

            server.restart();
            becomes(&map, &BTreeMap::new()).await;
            assert_eq!(map.staleness(), None);
            fold_until(&mut changes, &mut known, &BTreeMap::new()).await;
            set(&source, "c", 3).await;
            becomes(&map, &entries([("c", 3)])).await;
            fold_until(&mut changes, &mut known, &entries([("c", 3)])).await;
            becomes(&source, &entries([("c", 3)])).await;
        })
        .await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_server_that_comes_back_with_its_data_changes_nothing() {
        in_time(async {
            let mut server = Server::start_durable();
            let client = client(&server).await;
            let map = join(&client, &scope()).await;
            for number in 0..100 {
                set(&map, &format!("k{number}"), number).await;
            }
            let expected: BTreeMap<_, _> = (0..100).map(|number| (format!("k{number}"), number)).collect();
            becomes(&map, &expected).await;
            let (mut changes, mut known) = (map.subscribe(), expected.clone());
            server.restart();
            set(&map, "k0", 7).await;
            let mut expected = expected;
            expected.insert("k0".to_owned(), 7);
            becomes(&map, &expected).await;
            fold_until(&mut changes, &mut known, &expected).await;
            assert!(changes.try_next().is_none(), "more was told than the one change");
        })
        .await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_server_that_hangs_makes_the_replica_say_so_until_it_goes_on() {
        in_time(async {
            let server = Server::start();
            let client = client(&server).await;
            let map = join(&client, &scope()).await;
            let version = map.set("a", &1).await.unwrap().version;
            soon("the version", map.wait_for(version)).await.unwrap();
            server.pause();
            eventually("the replica says that it is cut off", async || if map.is_synced() { Err(()) } else { Ok(()) })
                .await;
            assert_eq!(map.get("a").as_deref(), Some(&1));
            server.resume();
            becomes(&map, &entries([("a", 1)])).await;
            set(&map, "a", 2).await;
            becomes(&map, &entries([("a", 2)])).await;
        })
        .await;
    }
}
