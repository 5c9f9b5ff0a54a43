//! Sinks, a partitioned sink and a reader while a primary of the cluster dies under them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use pulse_core::{Client, ClientBuilder, EventId};
use pulse_streaming::{Delivery, Event, EventStream, Notice, PartitionedStream, Start};
use tests::{Cluster, eventually, in_time};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::life::TIMEOUT;

const GRACE: Duration = Duration::from_secs(2);
const KEYS: u32 = 24;

fn number(event: &Event) -> u32 {
    std::str::from_utf8(event.payload()).unwrap().parse().unwrap()
}

/// What was seen, in the order of the first time.
#[derive(Default, Clone)]
struct Seen(Arc<Mutex<(Vec<u32>, BTreeSet<u32>)>>);

impl Seen {
    fn note(&self, event: &Event) {
        let mut seen = self.0.lock().unwrap();
        let number = number(event);
        if seen.1.insert(number) {
            seen.0.push(number);
        }
    }

    /// Waits until everything that stands in the streams was seen.
    async fn everything_of(&self, what: &str, streams: &[EventStream]) {
        eventually(what, async || {
            let mut missing = Vec::new();
            for stream in streams {
                let backend = stream.client().backend();
                let read = backend.stream_read(stream.id(), EventId::ZERO, 100_000, Duration::ZERO).await.unwrap();
                let events = read.entries.into_iter().filter_map(|entry| entry.event.ok());
                let numbers = events.map(|event| String::from_utf8(event.payload.to_vec()).unwrap().parse().unwrap());
                let seen = self.0.lock().unwrap();
                missing.extend(numbers.filter(|number: &u32| !seen.1.contains(number)));
            }
            if missing.is_empty() { Ok(()) } else { Err(missing) }
        })
        .await;
    }
}

/// Adds until it is enough, each number once to both; what fails may be there or not.
async fn produce(plain: EventStream, parts: PartitionedStream, added: Arc<AtomicU32>, enough: Arc<AtomicBool>) {
    for number in 0_u32.. {
        let payload = number.to_string();
        let to_plain = plain.add("n", payload.clone()).await;
        let to_parts = parts.add(format!("key-{}", number % KEYS), "n", payload).await;
        if to_plain.is_err() || to_parts.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        } else {
            added.fetch_add(1, Ordering::Relaxed);
        }
        if enough.load(Ordering::Relaxed) {
            return;
        }
    }
}

/// Notes and acknowledges what comes; a cursor that is lost would be worse than a failover may be.
fn take(next: Option<Result<Delivery, Notice>>, seen: &Seen) -> bool {
    match next {
        None => return false,
        Some(Ok(delivery)) => {
            seen.note(&delivery);
            drop(delivery.ack());
        }
        Some(Err(notice)) => assert!(!matches!(notice, Notice::CursorLost { .. }), "{notice}"),
    }
    true
}

async fn client(cluster: &Cluster) -> Client {
    ClientBuilder::new(cluster.url()).command_timeout(TIMEOUT).connect().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consumers_see_all_that_stands_after_a_primary_died_and_partitions_keep_their_order() {
    in_time(async {
        let mut cluster = Cluster::start(3, true);
        let producer = client(&cluster).await;
        let plain = EventStream::new(&producer, "plain").unwrap();
        let parts = PartitionedStream::new(&producer, "parts", 12).unwrap();
        let (end, mut consumers) = (CancellationToken::new(), JoinSet::new());
        let [shared, ordered, read] = [Seen::default(), Seen::default(), Seen::default()];
        for _ in 0..2 {
            let own = client(&cluster).await;
            let builder = EventStream::new(&own, "plain").unwrap().sink("s").start(Start::Oldest).ack_grace(GRACE);
            let mut sink = builder.join().await.unwrap();
            let (seen, end) = (shared.clone(), end.clone());
            consumers.spawn(async move {
                while let Some(next) = end.run_until_cancelled(sink.next()).await {
                    assert!(take(next, &seen), "a sink ended by itself");
                }
                sink.close().await;
            });
        }
        for _ in 0..2 {
            let own = client(&cluster).await;
            let builder = PartitionedStream::new(&own, "parts", 12).unwrap().sink("s").start(Start::Oldest);
            let mut sink = builder.ack_grace(GRACE).lease(Duration::from_secs(5)).join().await.unwrap();
            let (seen, end) = (ordered.clone(), end.clone());
            consumers.spawn(async move {
                while let Some(next) = end.run_until_cancelled(sink.next()).await {
                    assert!(take(next, &seen), "a partitioned sink ended by itself");
                }
                sink.close().await;
            });
        }
        let mut reader = parts.reader().start(Start::Oldest).join().await.unwrap();
        let (seen, ends) = (read.clone(), end.clone());
        consumers.spawn(async move {
            while let Some(next) = ends.run_until_cancelled(reader.next()).await {
                if let Ok(event) = next.expect("a reader ended by itself") {
                    seen.note(&event);
                }
            }
        });

        let (added, enough) = (Arc::<AtomicU32>::default(), Arc::<AtomicBool>::default());
        let adds = tokio::spawn(produce(plain.clone(), parts.clone(), added.clone(), enough.clone()));
        let more = async |events: u32| {
            let goal = added.load(Ordering::Relaxed) + events;
            eventually("more events are added", async || {
                let added = added.load(Ordering::Relaxed);
                if added >= goal { Ok(()) } else { Err(added) }
            })
            .await;
        };
        more(300).await;
        // Where the cursors themselves are lost, sinks say so, which is not what is looked at here.
        tokio::task::block_in_place(|| cluster.wait_until_replicated(0));
        cluster.kill(0);
        tokio::task::block_in_place(|| cluster.wait_for_successor(0));
        more(600).await;
        enough.store(true, Ordering::Relaxed);
        adds.await.unwrap();

        shared.everything_of("the sink has everything", std::slice::from_ref(&plain)).await;
        ordered.everything_of("the partitioned sink has everything", parts.partitions()).await;
        read.everything_of("the reader has everything", parts.partitions()).await;
        for seen in [&ordered, &read] {
            let mut of_key: BTreeMap<u32, u32> = BTreeMap::new();
            for number in &seen.0.lock().unwrap().0 {
                let before = of_key.insert(number % KEYS, *number);
                assert!(
                    before.is_none_or(|before| before < *number),
                    "{number} came for the first time after {before:?}"
                );
            }
        }
        end.cancel();
        while let Some(ended) = consumers.join_next().await {
            ended.unwrap();
        }
    })
    .await;
}
