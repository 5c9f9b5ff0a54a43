//! Faults under load, and maps that are large or many. Each test has a server of its own.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use pulse_core::{Client, ClientBuilder, Scope};
use pulse_rmap::{Changes, Map, Update};
use tests::{Server, eventually, in_time};
use tokio::task::JoinSet;

use super::{content, fold_until, join};

/// How soon a replica must have caught up once the server is back.
const WITHIN: Duration = Duration::from_secs(2);

async fn client(server: &Server) -> Client {
    ClientBuilder::new(server.url()).command_timeout(Duration::from_secs(5)).connect().await.unwrap()
}

fn scope() -> Scope {
    Scope::new("s").unwrap()
}

/// Tasks that count up in keys of their own until they are told to stop.
struct Load {
    enough: Arc<AtomicBool>,
    writers: JoinSet<()>,
}

impl Load {
    fn begin(map: &Map<u64>) -> Self {
        let (enough, mut writers) = (Arc::<AtomicBool>::default(), JoinSet::new());
        for task in 0..8 {
            let (map, enough) = (map.clone(), enough.clone());
            writers.spawn(async move {
                for number in 0.. {
                    // What fails is not there, or is: the replicas must agree with the server either way.
                    if map.set(format!("k{task}-{}", number % 50), &number).await.is_err() {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                    if enough.load(Ordering::Relaxed) {
                        return;
                    }
                }
            });
        }
        Self { enough, writers }
    }

    async fn end(mut self) {
        self.enough.store(true, Ordering::Relaxed);
        while let Some(ended) = self.writers.join_next().await {
            ended.unwrap();
        }
    }
}

/// The map as the server has it.
async fn on_server(map: &Map<u64>, client: &Client) -> BTreeMap<String, u64> {
    let page = client.backend().map_page(map.id(), None, 100_000).await.unwrap();
    assert!(page.next.is_none());
    page.entries.into_iter().map(|(key, raw)| (key.to_string(), map.decode(&key, &raw).unwrap())).collect()
}

/// Fails unless the replica is soon the map that the server has, and its changes lead there.
async fn catches_up(map: &Map<u64>, client: &Client, changes: &mut Changes<u64>, known: &mut BTreeMap<String, u64>) {
    let begun = Instant::now();
    let expected = on_server(map, client).await;
    eventually("the replica is the map", async || {
        let content = content(&map.snapshot());
        if content == expected && map.is_synced() { Ok(()) } else { Err((map.is_synced(), content.len())) }
    })
    .await;
    assert!(begun.elapsed() <= WITHIN, "it took {:?}", begun.elapsed());
    fold_until(changes, known, &expected).await;
    assert!(!matches!(changes.try_next(), Some(Update::Change(_))), "a change was told after the last one");
}

mod standalone {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn flushed_under_load_the_replicas_follow_what_comes_after() {
        in_time(async {
            let server = Server::start();
            let (here, there) = (client(&server).await, client(&server).await);
            let (source, map) = (join(&here, &scope()).await, join(&there, &scope()).await);
            let (mut changes, mut known) = (map.subscribe(), BTreeMap::new());
            let load = Load::begin(&source);
            for _ in 0..5 {
                eventually("much is written", async || {
                    let revision = map.version().map(|version| version.revision.0);
                    if revision > Some(500) { Ok(()) } else { Err(revision) }
                })
                .await;
                let before = map.version().map(|version| version.incarnation);
                server.cli(&["FLUSHALL"]);
                let flushed = Instant::now();
                eventually("its next life is followed", async || {
                    let now = map.version().map(|version| version.incarnation);
                    if map.is_synced() && now.is_some() && now != before { Ok(()) } else { Err(now) }
                })
                .await;
                assert!(flushed.elapsed() <= WITHIN, "it took {:?}", flushed.elapsed());
            }
            load.end().await;
            catches_up(&map, &there, &mut changes, &mut known).await;
            eventually("the writer's own replica agrees", async || {
                let content = content(&source.snapshot());
                if content == known { Ok(()) } else { Err(content.len()) }
            })
            .await;
        })
        .await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn restarted_under_load_with_and_without_its_data_the_replicas_catch_up() {
        in_time(async {
            for durable in [true, false] {
                let mut server = if durable { Server::start_durable() } else { Server::start() };
                let (here, there) = (client(&server).await, client(&server).await);
                let (source, map) = (join(&here, &scope()).await, join(&there, &scope()).await);
                let (mut changes, mut known) = (map.subscribe(), BTreeMap::new());
                let load = Load::begin(&source);
                eventually("much is written", async || if map.len() > 200 { Ok(()) } else { Err(map.len()) }).await;
                server.restart();
                let back = Instant::now();
                let before = map.version();
                eventually("it goes on", async || {
                    if map.is_synced() && map.version() != before { Ok(()) } else { Err(map.version()) }
                })
                .await;
                assert!(durable || map.version().map(|version| version.incarnation) != before.map(|v| v.incarnation));
                assert!(back.elapsed() <= WITHIN, "it took {:?}", back.elapsed());
                load.end().await;
                catches_up(&map, &there, &mut changes, &mut known).await;
            }
        })
        .await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_feed_that_the_server_cuts_for_being_slow_heals() {
        in_time(async {
            let server = Server::start();
            server.cli(&["CONFIG", "SET", "client-output-buffer-limit", "pubsub 256kb 256kb 1"]);
            let here = client(&server).await;
            let source = join(&here, &scope()).await;
            // A process of its own, as far as that can be: everything of it stands on one thread, which will stand
            // still.
            let (url, (stall, stalled)) = (server.url(), std::sync::mpsc::channel::<()>());
            let (ready, is_ready) = tokio::sync::oneshot::channel();
            let thread = std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async move {
                    let there = ClientBuilder::new(url).connect().await.unwrap();
                    let map = join(&there, &scope()).await;
                    let (mut changes, mut known) = (map.subscribe(), BTreeMap::new());
                    ready.send(()).unwrap();
                    stalled.recv().unwrap();
                    catches_up(&map, &there, &mut changes, &mut known).await;
                });
            });
            is_ready.await.unwrap();
            // The one that stands still cannot come back meanwhile.
            let feeds = || server.cli(&["CLIENT", "LIST", "TYPE", "pubsub"]).lines().count();
            assert_eq!(feeds(), 2);
            // The system's buffers take some megabytes before the server's own begins to fill.
            let padding = "p".repeat(60_000);
            let mut number = 0;
            while feeds() == 2 {
                for _ in 0..50 {
                    number += 1;
                    // The long keys come and go, so that the map stays small and the feed does not.
                    let key = format!("{padding}{}", number % 3);
                    source.set(key.clone(), &number).await.unwrap();
                    source.delete(key).await.unwrap();
                }
                source.set(format!("k{}", number % 7), &number).await.unwrap();
            }
            stall.send(()).unwrap();
            tokio::task::spawn_blocking(move || thread.join()).await.unwrap().unwrap();
        })
        .await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn two_hundred_thousand_entries_are_joined_and_followed() {
        const ENTRIES: u64 = 200_000;
        in_time(async {
            let server = Server::start();
            let here = client(&server).await;
            let source = join(&here, &scope()).await;
            for page in 0..ENTRIES / 1_000 {
                let batch = (page * 1_000..(page + 1) * 1_000)
                    .fold(source.batch(), |batch, number| batch.set(format!("k{number}"), &number));
                batch.commit().await.unwrap();
            }
            let there = client(&server).await;
            let map = join(&there, &scope()).await;
            assert_eq!(map.len() as u64, ENTRIES);
            assert!((0..ENTRIES).all(|number| map.get(&format!("k{number}")).as_deref() == Some(&number)));
            let cleared = source.clear().await.unwrap();
            assert_eq!(cleared.keys, ENTRIES);
            map.wait_for(cleared.version).await.unwrap();
            assert!(map.is_empty());
        })
        .await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_thousand_maps_take_two_connections_and_leave_nothing_behind() {
        in_time(async {
            let server = Server::start();
            let client = client(&server).await;
            let connections = || server.cli(&["CLIENT", "LIST"]).lines().filter(|line| line.contains("cmd=")).count();
            let before = connections();
            let mut maps = Vec::new();
            for number in 0..1_000 {
                maps.push(Map::<u64>::builder(format!("m{number}")).scope(scope()).join(&client).await.unwrap());
            }
            assert_eq!(connections(), before);
            let versions = futures::future::join_all(maps.iter().map(|map| map.set_and_wait("k", &1))).await;
            assert!(versions.iter().all(Result::is_ok));
            for map in maps {
                map.close().await;
            }
            eventually("nothing is subscribed any more", async || {
                let channels = server.cli(&["PUBSUB", "SHARDCHANNELS"]);
                if channels.trim().is_empty() { Ok(()) } else { Err(channels.lines().count()) }
            })
            .await;
            assert_eq!(connections(), before);
            client.close().await;
        })
        .await;
    }
}
