//! Sinks that are no longer wanted: found by what they hold back, and removed.

use pulse_streaming::{Error, EventStream, PartitionedStream, Retention, Start};
use tests::{Subject, on_every_backend};

use crate::{add_all, next_delivery, work_off};

on_every_backend!(
    the_sinks_of_a_stream_are_listed_with_what_each_holds_back,
    a_retired_sink_blocks_producers_no_longer,
    a_sink_that_is_removed_and_joined_again_begins_anew,
    a_retired_sink_of_a_partitioned_stream_leaves_nothing_behind,
);

async fn the_sinks_of_a_stream_are_listed_with_what_each_holds_back(subject: Subject) {
    let client = subject.client().await;
    let stream = crate::stream(&subject, &client);
    assert_eq!(stream.sinks().await.unwrap(), [], "there is no stream yet");
    let mut busy = stream.sink("busy").start(Start::Oldest).join().await.unwrap();
    let idle = stream.sink("idle").start(Start::Oldest).join().await.unwrap();
    idle.close().await;
    add_all(&stream, 1..=5).await;
    assert_eq!(work_off(&mut busy, 1).await, [1]);
    let held = next_delivery(&mut busy).await;

    let sinks = stream.sinks().await.unwrap();
    let names: Vec<&str> = sinks.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["busy", "idle"]);
    let (busy_info, idle_info) = (&sinks[0].1, &sinks[1].1);
    assert_eq!((busy_info.needs(), busy_info.oldest_pending), (held.id(), Some(held.id())));
    assert_eq!(busy_info.holds_back(), Some(4), "all but the one that it acknowledged");
    assert_eq!(busy_info.consumers.len(), 1);
    assert!(idle_info.needs() <= stream.info().await.unwrap().unwrap().first.unwrap());
    assert_eq!((idle_info.holds_back(), idle_info.pending, idle_info.lag), (Some(5), 0, Some(5)));
    assert!(idle_info.consumers.is_empty());
    held.ack().await.unwrap();
    busy.close().await;
}

async fn a_retired_sink_blocks_producers_no_longer(subject: Subject) {
    let client = subject.client().await;
    let stream = EventStream::builder("events")
        .scope(subject.scope())
        .retention(Retention::UntilConsumed)
        .capacity(3)
        .open(&client)
        .unwrap();
    let mut current = stream.sink("current").start(Start::Oldest).join().await.unwrap();
    stream.sink("retired").start(Start::Oldest).join().await.unwrap().close().await;
    add_all(&stream, 1..=3).await;
    assert_eq!(work_off(&mut current, 3).await, [1, 2, 3]);
    let refused = stream.add("n", "4").await.unwrap_err();
    assert!(matches!(refused, Error::Full { .. }), "{refused:?}");

    assert!(stream.remove_sink("retired").await.unwrap());
    assert!(!stream.remove_sink("retired").await.unwrap(), "it is gone");
    add_all(&stream, 4..=6).await;
    assert_eq!(work_off(&mut current, 3).await, [4, 5, 6]);
    current.close().await;
}

async fn a_sink_that_is_removed_and_joined_again_begins_anew(subject: Subject) {
    let client = subject.client().await;
    let stream = crate::stream(&subject, &client);
    let mut sink = stream.sink("s").start(Start::Oldest).join().await.unwrap();
    add_all(&stream, 1..=2).await;
    assert_eq!(work_off(&mut sink, 2).await, [1, 2]);
    sink.close().await;
    assert!(stream.remove_sink("s").await.unwrap());
    assert_eq!(stream.sink_info("s").await.unwrap(), None);
    let mut again = stream.sink("s").start(Start::Oldest).join().await.unwrap();
    assert_eq!(work_off(&mut again, 2).await, [1, 2]);
    again.close().await;
    let refused = stream.remove_sink("").await.unwrap_err();
    assert!(matches!(refused, Error::InvalidName { .. }), "{refused:?}");
}

async fn a_retired_sink_of_a_partitioned_stream_leaves_nothing_behind(subject: Subject) {
    let client = subject.client().await;
    let name = subject.scope().to_string();
    let stream = PartitionedStream::new(&client, &name, 3).unwrap();
    for sink in ["retired", "kept"] {
        stream.sink(sink).start(Start::Oldest).join().await.unwrap().close().await;
    }
    assert!(stream.remove_sink("retired").await.unwrap());
    assert!(!stream.remove_sink("retired").await.unwrap());
    for partition in stream.partitions() {
        let sinks = partition.sinks().await.unwrap();
        assert_eq!(sinks.iter().map(|(sink, _)| sink.as_str()).collect::<Vec<_>>(), ["kept"]);
    }
    let scope = pulse_streaming::Scope::new(&name).unwrap();
    let agreed = async |sink: &str| {
        let map = scope.map(format!("pulse-partitions/{sink}")).unwrap();
        client.backend().map_version(&map).await.unwrap()
    };
    assert_eq!(agreed("retired").await, None);
    assert!(agreed("kept").await.is_some());
    stream.destroy().await.unwrap();
    assert_eq!(agreed("kept").await, None, "a stream that is destroyed leaves nothing of its sinks either");
}
