//! What can be asked of partitioned streams, their readers and sinks: terms, filters, bounds.

use pulse_streaming::{
    Client, Delivery, Error, EventId, NewEvent, PartitionedSink, PartitionedStream, Retention, Start,
};
use tests::{Subject, eventually, on_every_backend, soon};

use crate::{LONG, number};

on_every_backend!(
    terms_hold_for_each_partition,
    an_id_adds_once_to_a_partition,
    values_come_back_as_they_were,
    a_filter_chooses_in_every_partition_and_leaves_nothing_pending,
    what_was_delivered_often_enough_is_a_dead_letter_and_its_partition_goes_on,
    a_dead_letter_is_replayed_into_its_partition,
);

fn stream(client: &Client) -> PartitionedStream {
    PartitionedStream::new(client, "orders", 4).expect("a valid name")
}

async fn add(stream: &PartitionedStream, numbers: std::ops::Range<u32>) {
    for n in numbers {
        let topic = if n % 2 == 0 { "even" } else { "odd" };
        let event = NewEvent::new("n", n.to_string()).with_topic(topic);
        stream.add_event(format!("key-{n}"), event).await.expect("the event is added");
    }
}

async fn next(sink: &mut PartitionedSink) -> Delivery {
    soon("a delivery", sink.next()).await.expect("the sink is open").expect("nothing was lost")
}

async fn nothing_is_left(stream: &PartitionedStream, sink: &str) {
    eventually("nothing is left", async || {
        for partition in stream.partitions() {
            let info = partition.sink_info(sink).await.unwrap().expect("the sink is there");
            if (info.pending, info.lag.unwrap_or(0)) != (0, 0) {
                return Err((partition.id().clone(), info));
            }
        }
        Ok(())
    })
    .await;
}

async fn terms_hold_for_each_partition(subject: Subject) {
    let client = subject.client().await;
    let newest = PartitionedStream::builder("newest", 4).retention(Retention::Newest(2)).open(&client).unwrap();
    add(&newest, 0..40).await;
    for partition in newest.partitions() {
        assert_eq!(partition.info().await.unwrap().map(|info| info.length), Some(2));
    }
    let bounded = PartitionedStream::builder("bounded", 4).capacity(1).open(&client).unwrap();
    bounded.add("a", "n", "p").await.unwrap();
    assert!(matches!(bounded.add("a", "n", "p").await, Err(Error::Full { capacity: 1, .. })));
    let refused = PartitionedStream::builder("none", 4).retention(Retention::Newest(0)).open(&client);
    assert!(matches!(refused, Err(Error::InvalidOption { option: "retention", .. })));
}

async fn an_id_adds_once_to_a_partition(subject: Subject) {
    let client = subject.client().await;
    let stream = stream(&client);
    let first = stream.add_once("a", "id", NewEvent::new("n", "1")).await.unwrap();
    assert_eq!(stream.add_once("a", "id", NewEvent::new("n", "2")).await.unwrap(), first);
    let partition = &stream.partitions()[stream.partition_of("a") as usize];
    assert_eq!(partition.info().await.unwrap().map(|info| info.length), Some(1));
}

async fn values_come_back_as_they_were(subject: Subject) {
    let client = subject.client().await;
    let stream = stream(&client);
    stream.add_value("a", "reading", &("kitchen", 20.5)).await.unwrap();
    let mut reader = stream.reader().start(Start::Oldest).join().await.unwrap();
    let event = soon("an event", reader.next()).await.unwrap().unwrap();
    assert_eq!(event.decode::<(String, f64)>().unwrap(), ("kitchen".to_owned(), 20.5));
}

async fn a_filter_chooses_in_every_partition_and_leaves_nothing_pending(subject: Subject) {
    let client = subject.client().await;
    let stream = stream(&client);
    let builder = stream.sink("s").start(Start::Oldest).ack_grace(LONG);
    let mut sink = builder.topics_matching("^ev").filter(|event| number(event) < 30).join().await.unwrap();
    let mut reader = stream.reader().start(Start::Oldest).topic("odd").join().await.unwrap();
    add(&stream, 0..40).await;
    let mut taken = Vec::new();
    while taken.len() < 15 {
        let delivery = next(&mut sink).await;
        taken.push(number(&delivery));
        delivery.ack().await.unwrap();
    }
    taken.sort_unstable();
    assert!(taken.into_iter().eq((0..30).step_by(2)));
    nothing_is_left(&stream, "s").await;
    let mut read = Vec::new();
    while read.len() < 20 {
        read.push(number(&soon("an event", reader.next()).await.unwrap().unwrap()));
    }
    read.sort_unstable();
    assert!(read.into_iter().eq((1..40).step_by(2)));
    let refused = stream.sink("s").topics_matching("(").join().await.unwrap_err();
    assert!(matches!(refused, Error::InvalidPattern { .. }), "{refused:?}");
}

async fn what_was_delivered_often_enough_is_a_dead_letter_and_its_partition_goes_on(subject: Subject) {
    let client = subject.client().await;
    let stream = stream(&client);
    for payload in ["1", "2"] {
        stream.add("a", "n", payload).await.unwrap();
    }
    let builder = stream.sink("s").start(Start::Oldest).ack_grace(LONG).in_flight(1).max_deliveries(3);
    let mut sink = builder.join().await.unwrap();
    for deliveries in 1..=3 {
        let delivery = next(&mut sink).await;
        assert_eq!((number(&delivery), delivery.deliveries()), (1, deliveries));
        delivery.nack().await.unwrap();
    }
    let delivery = next(&mut sink).await;
    assert_eq!((number(&delivery), delivery.deliveries()), (2, 1));
    delivery.ack().await.unwrap();
    nothing_is_left(&stream, "s").await;
    let letters = &stream.dead_letters("s").unwrap()[stream.partition_of("a") as usize];
    let [letter] = &letters.list(EventId::ZERO, 10).await.unwrap()[..] else { panic!("one letter") };
    assert_eq!((number(letter), letter.deliveries()), (1, 3));
}

async fn a_dead_letter_is_replayed_into_its_partition(subject: Subject) {
    let client = subject.client().await;
    let stream = stream(&client);
    stream.add("a", "n", "1").await.unwrap();
    let mut sink = stream.sink("s").start(Start::Oldest).ack_grace(LONG).join().await.unwrap();
    next(&mut sink).await.dead_letter("no such card").await.unwrap();
    let letters = &stream.dead_letters("s").unwrap()[stream.partition_of("a") as usize];
    let letter = letters.list(EventId::ZERO, 10).await.unwrap().remove(0);
    letters.replay(&letter).await.unwrap();
    let again = next(&mut sink).await;
    assert_eq!(number(&again), 1);
    again.ack().await.unwrap();
    nothing_is_left(&stream, "s").await;
    assert!(letters.is_empty().await.unwrap());
}
