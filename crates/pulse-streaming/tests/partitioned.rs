//! What partitioned streams promise, on the embedded backend with paused time.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use pulse_core::{Acks, Consumer, Group, Trim};
use pulse_streaming::{
    Client, Delivery, Error, NewEvent, Notice, PartitionedSink, PartitionedSinkBuilder, PartitionedStream, Start,
    connect,
};
use tokio::time::{Instant, sleep, timeout};

const GRACE: Duration = Duration::from_secs(20);
const LEASE: Duration = Duration::from_secs(3);
/// Longer than anything but a grace period takes.
const SOON: Duration = Duration::from_secs(8);
/// So many that two instances own some each, whatever their hashes.
const PARTITIONS: u32 = 32;

async fn client() -> Client {
    connect("memory:").await.expect("the embedded backend is always there")
}

fn stream(client: &Client) -> PartitionedStream {
    PartitionedStream::new(client, "orders", PARTITIONS).expect("a valid name")
}

fn builder(stream: &PartitionedStream) -> PartitionedSinkBuilder {
    stream.sink("s").start(Start::Oldest).ack_grace(GRACE).lease(LEASE)
}

async fn join(stream: &PartitionedStream) -> PartitionedSink {
    builder(stream).join().await.expect("the sink is joined")
}

async fn next(sink: &mut PartitionedSink) -> Delivery {
    let next = timeout(SOON, sink.next()).await.expect("a delivery comes soon");
    next.expect("the sink is open").expect("nothing was lost")
}

/// Fails if something is delivered soon.
async fn nothing(sink: &mut PartitionedSink) {
    if let Ok(next) = timeout(SOON, sink.next()).await {
        panic!("nothing should be delivered: {next:?}");
    }
}

fn number(delivery: &Delivery) -> u32 {
    std::str::from_utf8(delivery.payload()).expect("a text").parse().expect("a number")
}

/// Adds numbered events to one key.
async fn add(stream: &PartitionedStream, key: &str, numbers: impl IntoIterator<Item = u32>) {
    let events = numbers.into_iter().map(|number| (key, NewEvent::new("n", number.to_string())));
    stream.add_batch(events).await.expect("the events are added");
}

/// Waits until every partition is owned by exactly one of the instances.
async fn settled(instances: &[&PartitionedSink]) {
    let all = async {
        loop {
            let owned: Vec<u32> = instances.iter().flat_map(|sink| sink.owned()).collect();
            if owned.len() == PARTITIONS as usize && owned.iter().collect::<BTreeSet<_>>().len() == owned.len() {
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(SOON, all).await.expect("the partitions are shared out soon");
}

/// A key of a partition that this instance owns.
fn key_of(stream: &PartitionedStream, sink: &PartitionedSink) -> String {
    let owned = sink.owned();
    let mut keys = (0..10_000).map(|n| format!("key-{n}"));
    keys.find(|key| owned.contains(&stream.partition_of(key))).expect("it owns a partition")
}

/// Adds some events to every partition, takes one of each, and lets a rival join. Returns the deliveries that are held
/// of the partitions that the rival is to get, and it.
async fn hand_over(stream: &PartitionedStream, first: &mut PartitionedSink) -> (Vec<Delivery>, PartitionedSink) {
    for partition in 0..PARTITIONS {
        let mut keys = (0..10_000).map(|n| format!("key-{n}"));
        let key = keys.find(|key| stream.partition_of(key) == partition).expect("every partition has keys");
        add(stream, &key, 0..EACH).await;
    }
    let mut held = Vec::new();
    for _ in 0..PARTITIONS {
        held.push(next(first).await);
    }
    assert!(held.iter().all(|delivery| number(delivery) == 0), "one of each is in flight");
    let rival = builder(stream).in_flight(1).join().await.expect("the sink is joined");
    sleep(Duration::from_millis(100)).await;
    let kept = first.owned();
    held.retain(|delivery| {
        let is_of = |partition: &u32| stream.partitions()[*partition as usize].id() == delivery.stream();
        !kept.iter().any(is_of)
    });
    assert!(!held.is_empty(), "the rival wins some");
    (held, rival)
}

/// How many events each partition gets.
const EACH: u32 = 10;

#[tokio::test(start_paused = true)]
async fn the_number_of_partitions_is_recorded_by_the_first_use_and_another_one_is_refused() {
    let client = client().await;
    let stream = stream(&client);
    stream.add("k", "n", "p").await.unwrap();
    let other = PartitionedStream::new(&client, "orders", 9).unwrap();
    for refused in [
        other.add("k", "n", "p").await.unwrap_err(),
        other.add_batch([("k", NewEvent::new("n", "p"))]).await.unwrap_err(),
        other.reader().join().await.unwrap_err(),
        other.sink("s").join().await.unwrap_err(),
        other.destroy().await.unwrap_err(),
    ] {
        assert!(matches!(refused, Error::PartitionsDiffer { asked: 9, recorded: PARTITIONS, .. }), "{refused:?}");
    }
    assert_eq!(stream.destroy().await.unwrap(), 1);
    other.add("k", "n", "p").await.unwrap();
    for none in [0, 4097] {
        assert!(matches!(PartitionedStream::new(&client, "orders", none), Err(Error::InvalidOption { .. })));
    }
}

#[tokio::test(start_paused = true)]
async fn keys_keep_their_partition_in_every_version() {
    let stream = stream(&client().await);
    let places: Vec<u32> = (0..12).map(|n| stream.partition_of(format!("key-{n}"))).collect();
    assert_eq!(places, [24, 25, 4, 22, 31, 16, 2, 15, 14, 2, 29, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_split_by_partition_and_its_ids_come_in_its_order() {
    let client = client().await;
    let stream = stream(&client);
    let mut reader = stream.reader().start(Start::Oldest).join().await.unwrap();
    let keys: Vec<String> = (0..40).map(|n| format!("key-{}", n % 10)).collect();
    let batch = keys.iter().enumerate().map(|(n, key)| (key, NewEvent::new("n", n.to_string())));
    let ids = stream.add_batch(batch).await.unwrap();
    let mut last = BTreeMap::new();
    for _ in 0..40 {
        let event = reader.next().await.unwrap().unwrap();
        let n: usize = std::str::from_utf8(event.payload()).unwrap().parse().unwrap();
        assert_eq!(event.id(), ids[n]);
        let partition = stream.partition_of(&keys[n]);
        assert_eq!(event.stream(), stream.partitions()[partition as usize].id());
        assert!(last.insert(partition, n).is_none_or(|before| before < n));
    }
    reader.close().await;
}

#[tokio::test(start_paused = true)]
async fn every_partition_belongs_to_one_instance_and_one_that_leaves_moves_only_its_own() {
    let client = client().await;
    let stream = stream(&client);
    let (one, two, three) = (join(&stream).await, join(&stream).await, join(&stream).await);
    settled(&[&one, &two, &three]).await;
    let before = (one.owned(), two.owned());
    three.close().await;
    settled(&[&one, &two]).await;
    assert!(before.0.iter().all(|partition| one.owned().contains(partition)));
    assert!(before.1.iter().all(|partition| two.owned().contains(partition)));
    two.close().await;
    settled(&[&one]).await;
}

#[tokio::test(start_paused = true)]
async fn a_hand_over_waits_for_what_the_user_holds_and_the_next_owner_goes_on_after_it() {
    let client = client().await;
    let stream = stream(&client);
    let mut first = builder(&stream).in_flight(1).join().await.unwrap();
    let (held, mut rival) = hand_over(&stream, &mut first).await;
    nothing(&mut rival).await;
    let mut moved: BTreeMap<_, u32> = held.iter().map(|delivery| (delivery.stream().clone(), 0)).collect();
    for delivery in held {
        delivery.ack().await.unwrap();
    }
    for _ in 0..moved.len() * (EACH as usize - 1) {
        let delivery = next(&mut rival).await;
        let last = moved.get_mut(delivery.stream()).expect("a partition that moved");
        assert_eq!(number(&delivery), *last + 1);
        *last += 1;
        delivery.ack().await.unwrap();
    }
    nothing(&mut rival).await;
}

#[tokio::test(start_paused = true)]
async fn a_hand_over_waits_no_longer_than_the_grace_period() {
    let client = client().await;
    let stream = stream(&client);
    let mut first = builder(&stream).in_flight(1).join().await.unwrap();
    let (held, mut rival) = hand_over(&stream, &mut first).await;
    nothing(&mut rival).await;
    let again = timeout(GRACE, rival.next()).await.unwrap().unwrap().unwrap();
    assert_eq!((number(&again), again.deliveries()), (0, 2));
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn what_a_dead_instance_held_goes_to_the_next_owner_in_order_once_its_lease_has_run_out() {
    let client = client().await;
    let stream = stream(&client);
    let mut dead = join(&stream).await;
    let mut survivor = join(&stream).await;
    settled(&[&dead, &survivor]).await;
    let key = key_of(&stream, &dead);
    add(&stream, &key, 0..200).await;
    let held: Vec<Delivery> = vec![next(&mut dead).await, next(&mut dead).await, next(&mut dead).await];
    drop(dead);
    let began = Instant::now();
    for expected in 0..200 {
        let delivery = next(&mut survivor).await;
        assert_eq!(number(&delivery), expected);
        delivery.ack().await.unwrap();
    }
    assert!(began.elapsed() < GRACE, "it does not wait for the grace period");
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn an_event_that_is_given_back_comes_before_anything_that_was_not_handed_out() {
    let client = client().await;
    let stream = stream(&client);
    let mut sink = join(&stream).await;
    add(&stream, "k", 0..50).await;
    let (first, second) = (next(&mut sink).await, next(&mut sink).await);
    drop((second.nack(), first.nack()));
    for expected in 0..50 {
        let delivery = next(&mut sink).await;
        assert_eq!((number(&delivery), delivery.deliveries()), (expected, if expected < 2 { 2 } else { 1 }));
        delivery.ack().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn with_one_in_flight_nothing_newer_comes_before_everything_older_is_done() {
    let client = client().await;
    let stream = stream(&client);
    let mut sink = builder(&stream).in_flight(1).join().await.unwrap();
    add(&stream, "k", 0..5).await;
    let first = next(&mut sink).await;
    nothing(&mut sink).await;
    first.nack().await.unwrap();
    let again = next(&mut sink).await;
    assert_eq!((number(&again), again.deliveries()), (0, 2));
    drop(again);
    nothing(&mut sink).await;
    let late = timeout(2 * GRACE, sink.next()).await.unwrap().unwrap().unwrap();
    assert_eq!((number(&late), late.deliveries()), (0, 3));
    late.ack().await.unwrap();
    assert_eq!(number(&next(&mut sink).await), 1);
}

#[tokio::test(start_paused = true)]
async fn a_closed_sink_hands_nothing_out_and_leaves_nothing_behind() {
    let client = client().await;
    let stream = stream(&client);
    let mut sink = join(&stream).await;
    add(&stream, "k", 0..10).await;
    next(&mut sink).await.ack().await.unwrap();
    sink.close().await;
    sink.close().await;
    assert!(sink.next().await.is_none());
    let mut heir = join(&stream).await;
    for expected in 1..10 {
        let delivery = next(&mut heir).await;
        assert_eq!(number(&delivery), expected);
        delivery.ack().await.unwrap();
    }
    heir.close().await;
    for partition in stream.partitions() {
        let info = partition.sink_info("s").await.unwrap().unwrap();
        assert_eq!((info.pending, info.lag, info.consumers.len()), (0, Some(0), 0), "{info:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_an_earlier_owner_reads_too_late_comes_in_its_place_all_the_same() {
    let client = client().await;
    let stream = stream(&client);
    let mut sink = builder(&stream).buffer(1).join().await.unwrap();
    add(&stream, "k", 0..10).await;
    sleep(SOON).await;
    // It sent this before it lost the partition, and it arrives only now that the next owner has read the first event.
    let partition = stream.partitions()[stream.partition_of("k") as usize].id();
    let (group, ghost) = (Group::new("s").unwrap(), Consumer::new("ghost").unwrap());
    let read = client.backend().group_read(partition, &group, &ghost, 3, Duration::ZERO, Acks::Explicit).await;
    assert_eq!(read.unwrap().len(), 3);
    for expected in 0..10 {
        let delivery = next(&mut sink).await;
        assert_eq!(number(&delivery), expected);
        delivery.ack().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_dropped_before_it_was_handed_out_is_told() {
    let client = client().await;
    let stream = stream(&client);
    let mut sink = builder(&stream).buffer(1).join().await.unwrap();
    add(&stream, "k", 0..10).await;
    sleep(SOON).await;
    let partition = &stream.partitions()[stream.partition_of("k") as usize];
    partition.trim(Trim::MaxLength { length: 3, approximate: false }).await.unwrap();
    let notice = timeout(SOON, async {
        loop {
            match sink.next().await.unwrap() {
                Ok(delivery) => delivery.ack().await.unwrap(),
                Err(notice) => return notice,
            }
        }
    });
    let notice = notice.await.unwrap();
    assert!(matches!(&notice, Notice::Missed { sink: Some(sink), events: Some(6), .. } if sink == "s"), "{notice:?}");
}
