//! Which events of which streams a reader or sink gets: filters, and streams that come and go.

use std::time::Duration;

use pulse_streaming::{Error, EventStream, NewEvent, Start};
use tests::{Subject, on_every_backend, soon};

use crate::{LONG, add_all, next_delivery, number, read, stream, work_off};

on_every_backend!(
    a_pattern_chooses_topics,
    a_predicate_chooses_events,
    what_a_filter_rejects_does_not_stay_pending,
    a_pattern_without_sense_is_refused,
    a_reader_stops_reading_a_stream_that_is_removed,
    a_sink_gives_back_what_waits_of_a_stream_that_is_removed,
);

async fn add_topics(stream: &EventStream, topics: &[&str]) {
    for (number, topic) in (0_u32..).zip(topics) {
        stream.add_event(NewEvent::new("n", number.to_string()).with_topic(*topic)).await.expect("the event is added");
    }
}

async fn a_pattern_chooses_topics(subject: Subject) {
    let client = subject.client().await;
    let stream = stream(&subject, &client);
    add_topics(&stream, &["eu.west", "us.west", "eu.north", "eu"]).await;
    stream.add("n", "4").await.unwrap();
    add_topics(&stream, &["eu.west"]).await;
    let mut reader = stream.reader().start(Start::Oldest).topics_matching(r"^eu\.").join().await.unwrap();
    assert_eq!(read(&mut reader, 3).await, [0, 2, 0]);
    let builder = stream.sink("sink").start(Start::Oldest).ack_grace(LONG).topics_matching("west");
    assert_eq!(work_off(&mut builder.join().await.unwrap(), 3).await, [0, 1, 0]);
}

async fn a_predicate_chooses_events(subject: Subject) {
    let client = subject.client().await;
    let stream = stream(&subject, &client);
    add_all(&stream, 0..10).await;
    let reader = stream.reader().start(Start::Oldest).filter(|event| number(event).is_multiple_of(3));
    assert_eq!(read(&mut reader.join().await.unwrap(), 4).await, [0, 3, 6, 9]);
}

async fn what_a_filter_rejects_does_not_stay_pending(subject: Subject) {
    let client = subject.client().await;
    let stream = stream(&subject, &client);
    let builder = stream.sink("sink").start(Start::Oldest).ack_grace(LONG).filter(|event| number(event) == 99);
    let mut sink = builder.join().await.unwrap();
    add_all(&stream, 0..100).await;
    assert_eq!(work_off(&mut sink, 1).await, [99]);
    tests::eventually("nothing is pending", async || {
        let info = stream.sink_info("sink").await.unwrap().unwrap();
        if info.pending == 0 { Ok(()) } else { Err(info) }
    })
    .await;
}

async fn a_pattern_without_sense_is_refused(subject: Subject) {
    let client = subject.client().await;
    let stream = stream(&subject, &client);
    let refused = stream.reader().topics_matching("(").join().await.unwrap_err();
    assert!(matches!(&refused, Error::InvalidPattern { pattern, .. } if pattern == "("), "{refused:?}");
    assert!(matches!(stream.sink("s").topics_matching("[").join().await, Err(Error::InvalidPattern { .. })));
    assert_eq!(stream.info().await.unwrap(), None, "nothing was made");
}

async fn a_reader_stops_reading_a_stream_that_is_removed(subject: Subject) {
    let client = subject.client().await;
    let (one, two) = (stream(&subject, &client), EventStream::in_scope(&client, &subject.scope(), "other").unwrap());
    let mut reader = one.reader().join().await.unwrap();
    reader.add_stream(&two, Start::Newest).await.unwrap();
    add_all(&one, [1]).await;
    assert_eq!(read(&mut reader, 1).await, [1]);
    add_all(&one, [2, 3]).await;
    reader.remove_stream(&one).await.unwrap();
    add_all(&one, [4]).await;
    add_all(&two, [10]).await;
    assert_eq!(read(&mut reader, 1).await, [10], "nothing of the other stream comes any more");
    assert!(matches!(reader.remove_stream(&one).await, Err(Error::NotAdded { .. })));
    reader.add_stream(&one, Start::Oldest).await.unwrap();
    assert_eq!(read(&mut reader, 4).await, [1, 2, 3, 4]);
    reader.remove_stream(&one).await.unwrap();
    reader.remove_stream(&two).await.unwrap();
    assert!(soon("the end", reader.next()).await.is_none());
}

async fn a_sink_gives_back_what_waits_of_a_stream_that_is_removed(subject: Subject) {
    let client = subject.client().await;
    let (one, two) = (stream(&subject, &client), EventStream::in_scope(&client, &subject.scope(), "other").unwrap());
    add_all(&one, 1..=10).await;
    let builder = one.sink("sink").start(Start::Oldest).ack_grace(LONG);
    let mut sink = builder.clone().join().await.unwrap();
    sink.add_stream(&two, Start::Oldest).await.unwrap();
    let held = next_delivery(&mut sink).await;
    assert_eq!(number(&held), 1);
    sink.remove_stream(&one).await.unwrap();
    let mut other = builder.join().await.unwrap();
    assert_eq!(work_off(&mut other, 9).await, (2..=10).collect::<Vec<_>>());
    held.ack().await.unwrap();
    add_all(&two, [20]).await;
    assert_eq!(work_off(&mut sink, 1).await, [20]);
    let idle = tokio::time::timeout(Duration::from_millis(50), other.next()).await;
    assert!(idle.is_err(), "each event came once");
}
