//! What partitioned streams promise, on every backend.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use pulse_streaming::{
    Client, Delivery, Error, NewEvent, PartitionedSink, PartitionedSinkBuilder, PartitionedStream, Start, StreamId,
};
use tests::{Subject, eventually, on_every_backend, soon};

use crate::{LONG, number};

on_every_backend!(
    the_number_of_partitions_cannot_be_changed,
    readers_see_every_partition_in_its_order,
    the_partitions_are_shared_out_and_taken_over_without_breaking_their_order,
    what_is_given_back_comes_before_what_was_not_handed_out,
    what_a_dead_instance_held_is_taken_over_once_its_lease_has_run_out,
    instances_come_go_and_die_under_load_and_every_partition_keeps_its_order,
);

const PARTITIONS: u32 = 16;
const LEASE: Duration = Duration::from_secs(1);

fn stream(client: &Client) -> PartitionedStream {
    PartitionedStream::new(client, "orders", PARTITIONS).expect("a valid name")
}

fn builder(stream: &PartitionedStream) -> PartitionedSinkBuilder {
    stream.sink("s").start(Start::Oldest).ack_grace(LONG).lease(LEASE)
}

async fn join(stream: &PartitionedStream) -> PartitionedSink {
    builder(stream).join().await.expect("the sink is joined")
}

async fn next(sink: &mut PartitionedSink) -> Delivery {
    soon("a delivery", sink.next()).await.expect("the sink is open").expect("nothing was lost")
}

/// Waits until every partition is owned by exactly one of the instances.
async fn settled(instances: &[&PartitionedSink]) {
    eventually("the partitions are shared out", async || {
        let owned: Vec<u32> = instances.iter().flat_map(|sink| sink.owned()).collect();
        let all = owned.len() == PARTITIONS as usize && owned.iter().collect::<BTreeSet<_>>().len() == owned.len();
        if all { Ok(()) } else { Err(owned) }
    })
    .await;
}

/// Adds numbered events under keys of all partitions.
async fn add(stream: &PartitionedStream, numbers: std::ops::Range<u32>) {
    let events = numbers.map(|n| (format!("key-{}", n % 61), NewEvent::new("n", n.to_string())));
    stream.add_batch(events).await.expect("the events are added");
}

/// Checks that the events of each partition are seen for the first time in their order and without a hole.
#[derive(Default)]
struct Order {
    added: BTreeMap<StreamId, Vec<u32>>,
    seen: BTreeMap<StreamId, usize>,
    done: BTreeSet<u32>,
}

impl Order {
    fn of(stream: &PartitionedStream, count: u32) -> Self {
        let mut order = Self::default();
        for number in 0..count {
            let partition = stream.partition_of(format!("key-{}", number % 61)) as usize;
            order.added.entry(stream.partitions()[partition].id().clone()).or_default().push(number);
        }
        order
    }

    fn see(&mut self, delivery: &Delivery) {
        let number = number(delivery);
        let added = &self.added[delivery.stream()];
        let place = added.iter().position(|other| *other == number).expect("it was added to this partition");
        let seen = self.seen.entry(delivery.stream().clone()).or_default();
        assert!(place <= *seen, "{number} comes before {} of {}", added[*seen], delivery.stream());
        *seen = (*seen).max(place + 1);
        assert!(!self.done.contains(&number), "{number} was acknowledged and comes again");
    }
}

async fn the_number_of_partitions_cannot_be_changed(subject: Subject) {
    let (client, other) = (subject.client().await, subject.client().await);
    stream(&client).add("k", "n", "p").await.unwrap();
    let refused = PartitionedStream::new(&other, "orders", 9).unwrap().sink("s").join().await.unwrap_err();
    assert!(matches!(refused, Error::PartitionsDiffer { asked: 9, recorded: PARTITIONS, .. }), "{refused:?}");
    stream(&other).add("k", "n", "p").await.unwrap();
}

async fn readers_see_every_partition_in_its_order(subject: Subject) {
    let client = subject.client().await;
    let stream = stream(&client);
    let mut reader = stream.reader().start(Start::Oldest).join().await.unwrap();
    add(&stream, 0..500).await;
    let mut last = BTreeMap::new();
    for _ in 0..500 {
        let event = soon("an event", reader.next()).await.unwrap().unwrap();
        assert!(last.insert(event.stream().clone(), number(&event)).is_none_or(|before| before < number(&event)));
    }
    soon("the closing", reader.close()).await;
}

async fn the_partitions_are_shared_out_and_taken_over_without_breaking_their_order(subject: Subject) {
    let (client, other) = (subject.client().await, subject.client().await);
    let (near, far) = (stream(&client), stream(&other));
    let (mut one, mut two) = (join(&near).await, join(&far).await);
    settled(&[&one, &two]).await;
    let mut order = Order::of(&near, 400);
    add(&near, 0..200).await;
    while order.done.len() < 150 {
        let delivery = tokio::select! {
            delivery = next(&mut one) => delivery,
            delivery = next(&mut two) => delivery,
        };
        order.see(&delivery);
        order.done.insert(number(&delivery));
        delivery.ack().await.unwrap();
    }
    let kept = one.owned();
    soon("the closing", two.close()).await;
    add(&near, 200..400).await;
    while order.done.len() < 400 {
        let delivery = next(&mut one).await;
        order.see(&delivery);
        order.done.insert(number(&delivery));
        delivery.ack().await.unwrap();
    }
    settled(&[&one]).await;
    assert!(kept.iter().all(|partition| one.owned().contains(partition)));
    soon("the closing", one.close()).await;
    for partition in near.partitions() {
        let info = partition.sink_info("s").await.unwrap().unwrap();
        assert_eq!((info.pending, info.consumers.len()), (0, 0), "{info:?}");
    }
}

async fn what_is_given_back_comes_before_what_was_not_handed_out(subject: Subject) {
    let client = subject.client().await;
    let stream = stream(&client);
    let mut sink = join(&stream).await;
    stream.add_batch((0..50).map(|n| ("k", NewEvent::new("n", n.to_string())))).await.unwrap();
    let (first, second) = (next(&mut sink).await, next(&mut sink).await);
    drop((second.nack(), first.nack()));
    for expected in 0..50 {
        let delivery = next(&mut sink).await;
        assert_eq!((number(&delivery), delivery.deliveries()), (expected, if expected < 2 { 2 } else { 1 }));
        delivery.ack().await.unwrap();
    }
}

async fn what_a_dead_instance_held_is_taken_over_once_its_lease_has_run_out(subject: Subject) {
    let (client, other) = (subject.client().await, subject.client().await);
    let (near, far) = (stream(&client), stream(&other));
    let mut dead = join(&far).await;
    settled(&[&dead]).await;
    add(&near, 0..300).await;
    let held: Vec<Delivery> = vec![next(&mut dead).await, next(&mut dead).await, next(&mut dead).await];
    drop(dead);
    let mut order = Order::of(&near, 300);
    let mut survivor = join(&near).await;
    while order.done.len() < 300 {
        let delivery = next(&mut survivor).await;
        let again = held.iter().any(|held| held.id() == delivery.id() && held.stream() == delivery.stream());
        assert!(!again || delivery.deliveries() == 2);
        order.see(&delivery);
        order.done.insert(number(&delivery));
        delivery.ack().await.unwrap();
    }
}

async fn instances_come_go_and_die_under_load_and_every_partition_keeps_its_order(subject: Subject) {
    const ROUNDS: u32 = 8;
    const EACH: u32 = 400;
    let (client, other) = (subject.client().await, subject.client().await);
    let (near, far) = (stream(&client), stream(&other));
    let mut order = Order::of(&near, ROUNDS * EACH);
    let mut instances = vec![join(&near).await];
    for round in 0..ROUNDS {
        match round % 4 {
            0 | 2 => instances.push(join(&far).await),
            // It dies.
            1 => drop(instances.remove(0)),
            _ => soon("the closing", instances.remove(0).close()).await,
        }
        instances.push(join(&near).await);
        add(&near, round * EACH..(round + 1) * EACH).await;
        let enough = ((round + 1) * EACH - EACH / 4) as usize;
        while order.done.len() < if round + 1 == ROUNDS { (ROUNDS * EACH) as usize } else { enough } {
            let all = instances.iter_mut().map(|sink| Box::pin(sink.next()));
            let (delivery, _, _) = soon("a delivery", futures::future::select_all(all)).await;
            let delivery = delivery.unwrap().unwrap();
            order.see(&delivery);
            if number(&delivery).is_multiple_of(17) && delivery.deliveries() == 1 {
                delivery.nack().await.unwrap();
            } else {
                order.done.insert(number(&delivery));
                delivery.ack().await.unwrap();
            }
        }
    }
    for instance in instances {
        soon("the closing", instance.close()).await;
    }
}
