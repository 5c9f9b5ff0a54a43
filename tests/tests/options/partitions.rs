//! Options of partitioned streams, and of their readers and sinks.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use pulse_streaming::{Error, PartitionedSinkBuilder, PartitionedStream, Retention, Start};
use tests::{Subject, on_every_backend, soon};

use crate::{Expected, MILLISECOND, NANOSECOND, YEAR};

on_every_backend!(
    a_stream_has_from_one_partition_to_4096,
    an_option_of_a_reader_of_partitions_works_or_is_refused_when_joining,
    an_option_of_a_sink_of_partitions_works_or_is_refused_when_joining,
    an_event_of_a_partition_is_given_back_for_any_time,
);

async fn stream(subject: &Subject) -> PartitionedStream {
    let client = subject.client().await;
    let stream = PartitionedStream::new(&client, subject.scope().as_str(), 2).unwrap();
    stream.add("key", "n", "p").await.unwrap();
    stream
}

async fn a_stream_has_from_one_partition_to_4096(subject: Subject) {
    let client = subject.client().await;
    for (partitions, is_taken) in [(0, false), (1, true), (4096, true), (4097, false), (u32::MAX, false)] {
        let opened = PartitionedStream::new(&client, subject.scope().as_str(), partitions);
        let as_expected = if is_taken { opened.is_ok() } else { matches!(opened, Err(Error::InvalidOption { .. })) };
        assert!(as_expected, "{partitions} partitions");
    }
    let with_capacity = |capacity| PartitionedStream::builder("s", 1).capacity(capacity).open(&client);
    assert!(matches!(with_capacity(0), Err(Error::InvalidOption { .. })) && with_capacity(u64::MAX).is_ok());
    let within = |age| PartitionedStream::builder("s", 1).retention(Retention::Within(age)).open(&client);
    assert!(matches!(within(Duration::MAX), Err(Error::InvalidOption { .. })) && within(YEAR).is_ok());
    client.close().await;
}

async fn an_option_of_a_reader_of_partitions_works_or_is_refused_when_joining(subject: Subject) {
    use Expected::{Refused, Works};

    let stream = stream(&subject).await;
    let reader = || stream.reader().start(Start::Oldest);
    for (builder, expected) in [
        (reader().buffer(0), Refused),
        (reader().buffer(1), Works),
        (reader().buffer(usize::MAX), Works),
        (reader().block(Duration::ZERO), Refused),
        (reader().block(YEAR), Works),
        (reader().block(Duration::MAX), Refused),
    ] {
        let shown = format!("{builder:?}");
        match (builder.join().await, expected) {
            (Ok(mut reader), Works) => {
                assert!(soon("an event", reader.next()).await.is_some_and(|event| event.is_ok()), "{shown}");
                reader.close().await;
            }
            (Err(Error::InvalidOption { .. }), Refused) => {}
            (other, _) => panic!("{shown} met {other:?}"),
        }
    }
    stream.client().close().await;
}

async fn an_option_of_a_sink_of_partitions_works_or_is_refused_when_joining(subject: Subject) {
    use Expected::{Refused, Works};

    let stream = stream(&subject).await;
    let sinks = AtomicU64::new(0);
    let sink = || stream.sink(format!("sink {}", sinks.fetch_add(1, Ordering::Relaxed))).start(Start::Oldest);
    let table: Vec<(PartitionedSinkBuilder, Expected)> = vec![
        (sink().buffer(0), Refused),
        (sink().buffer(1), Works),
        (sink().buffer(usize::MAX), Works),
        (sink().in_flight(0), Refused),
        (sink().in_flight(1), Works),
        (sink().in_flight(usize::MAX), Works),
        (sink().block(Duration::ZERO), Refused),
        (sink().block(MILLISECOND), Works),
        (sink().block(YEAR), Works),
        (sink().block(Duration::MAX), Refused),
        (sink().ack_grace(Duration::ZERO), Refused),
        (sink().ack_grace(NANOSECOND), Refused),
        (sink().ack_grace(10 * MILLISECOND), Works),
        (sink().ack_grace(YEAR), Works),
        (sink().ack_grace(Duration::MAX), Refused),
        (sink().lease(Duration::ZERO), Refused),
        (sink().lease(MILLISECOND), Refused),
        (sink().lease(YEAR), Works),
        (sink().lease(Duration::MAX), Refused),
        (sink().max_deliveries(0), Refused),
        (sink().max_deliveries(u64::MAX), Works),
    ];
    for (builder, expected) in table {
        let shown = format!("{builder:?}");
        match (builder.join().await, expected) {
            (Ok(mut sink), Works) => {
                let delivery = soon("a delivery", sink.next()).await.expect("open").expect("nothing was lost");
                delivery.ack().await.unwrap_or_else(|error| panic!("{shown} met {error:?}"));
                sink.close().await;
            }
            (Err(Error::InvalidOption { .. }), Refused) => {}
            (other, _) => panic!("{shown} met {other:?}"),
        }
    }
    stream.client().close().await;
}

async fn an_event_of_a_partition_is_given_back_for_any_time(subject: Subject) {
    let stream = stream(&subject).await;
    let mut sink = stream.sink("s").start(Start::Oldest).join().await.unwrap();
    for delay in [Duration::ZERO, NANOSECOND] {
        soon("a delivery", sink.next()).await.unwrap().unwrap().nack_after(delay).await.unwrap();
    }
    // It is kept here for the whole time, so this returns when the sink is closed.
    let given_back = soon("a delivery", sink.next()).await.unwrap().unwrap().nack_after(Duration::MAX);
    tokio::join!(given_back, soon("the end", sink.close())).0.unwrap();
    stream.client().close().await;
}
