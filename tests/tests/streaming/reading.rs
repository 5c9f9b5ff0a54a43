//! What readers promise.

use std::time::Duration;

use futures::StreamExt;
use pulse_streaming::{Error, NewEvent, Reader, Start};
use tests::{Subject, on_every_backend, soon};

use crate::{add_all, next_event, read, stream};

on_every_backend!(
    every_reader_sees_every_event_in_order,
    newest_is_settled_when_the_reader_is_made,
    a_reader_begins_where_it_is_told_to,
    a_reader_of_a_topic_sees_that_topic_only,
    nothing_is_dropped_however_slow_the_reader,
    one_reader_reads_many_streams,
    a_stream_is_not_added_twice,
    a_reader_is_a_stream_of_futures,
    options_without_sense_are_refused,
    a_closed_client_ends_its_readers,
);

async fn every_reader_sees_every_event_in_order(subject: Subject) {
    let (writer, client) = (subject.client().await, subject.client().await);
    let source = stream(&subject, &writer);
    let stream = pulse_streaming::EventStream::in_scope(&client, source.id().scope(), source.id().name()).unwrap();
    let mut one = stream.reader().join().await.unwrap();
    let mut two = stream.reader().buffer(1).join().await.unwrap();
    add_all(&source, 0..100).await;
    let all: Vec<u32> = (0..100).collect();
    assert_eq!(read(&mut one, 100).await, all);
    assert_eq!(read(&mut two, 100).await, all);
}

async fn newest_is_settled_when_the_reader_is_made(subject: Subject) {
    let client = subject.client().await;
    let stream = stream(&subject, &client);
    add_all(&stream, [1]).await;
    // Many reads come back empty before the subscriber looks; none of them settles the start again.
    let mut reader = stream.reader().block(Duration::from_millis(1)).join().await.unwrap();
    add_all(&stream, [2, 3]).await;
    assert_eq!(read(&mut reader, 2).await, [2, 3]);
    let empty = crate::stream(&subject, &client);
    let mut reader = empty.reader().block(Duration::from_millis(1)).join().await.unwrap();
    tokio::time::sleep(Duration::from_millis(5)).await;
    add_all(&empty, [4]).await;
    assert_eq!(read(&mut reader, 1).await, [4]);
}

async fn a_reader_begins_where_it_is_told_to(subject: Subject) {
    let client = subject.client().await;
    let stream = stream(&subject, &client);
    add_all(&stream, [1]).await;
    let second = stream.add("n", "2").await.unwrap();
    add_all(&stream, [3]).await;
    let starting = async |start: Start| -> Reader { stream.reader().start(start).join().await.unwrap() };

    assert_eq!(read(&mut starting(Start::Oldest).await, 3).await, [1, 2, 3]);
    assert_eq!(read(&mut starting(Start::After(second)).await, 1).await, [3]);
    let mut reader = starting(Start::Oldest).await;
    let first = next_event(&mut reader).await;
    assert_eq!(read(&mut starting(Start::At(first.created_at())).await, 3).await, [1, 2, 3]);
    let later = first.created_at() + Duration::from_secs(60);
    let mut reader = starting(Start::At(later)).await;
    assert!(tokio::time::timeout(Duration::from_millis(50), reader.next()).await.is_err());
}

async fn a_reader_of_a_topic_sees_that_topic_only(subject: Subject) {
    let client = subject.client().await;
    let stream = stream(&subject, &client);
    let mut reader = stream.reader().topic("even").join().await.unwrap();
    for n in 0..10_u32 {
        let topic = if n % 2 == 0 { "even" } else { "odd" };
        stream.add_event(NewEvent::new("n", n.to_string()).with_topic(topic)).await.unwrap();
    }
    assert_eq!(read(&mut reader, 5).await, [0, 2, 4, 6, 8]);
}

async fn nothing_is_dropped_however_slow_the_reader(subject: Subject) {
    let client = subject.client().await;
    let stream = stream(&subject, &client);
    let mut reader = stream.reader().buffer(16).join().await.unwrap();
    for batch in 0..10_u32 {
        let events = (0..500).map(|n| NewEvent::new("n", (batch * 500 + n).to_string()));
        stream.add_batch(events).await.unwrap();
    }
    assert_eq!(read(&mut reader, 5_000).await, (0..5_000).collect::<Vec<_>>());
}

async fn one_reader_reads_many_streams(subject: Subject) {
    let client = subject.client().await;
    let (one, two) = (stream(&subject, &client), stream(&subject, &client));
    let mut reader = one.reader().buffer(2).join().await.unwrap();
    add_all(&two, [100]).await;
    reader.add_stream(&two, Start::Oldest).await.unwrap();
    add_all(&one, 0..20).await;
    add_all(&two, 101..120).await;
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for _ in 0..40 {
        let event = next_event(&mut reader).await;
        let from = if event.stream() == one.id() { &mut first } else { &mut second };
        from.push(crate::number(&event));
    }
    assert_eq!(first, (0..20).collect::<Vec<_>>());
    assert_eq!(second, (100..120).collect::<Vec<_>>());
}

async fn a_stream_is_not_added_twice(subject: Subject) {
    let client = subject.client().await;
    let stream = stream(&subject, &client);
    let mut reader = stream.reader().join().await.unwrap();
    let refused = reader.add_stream(&stream, Start::Oldest).await;
    assert!(matches!(refused, Err(Error::AlreadyAdded { .. })), "{refused:?}");
    add_all(&stream, [1, 2]).await;
    assert_eq!(read(&mut reader, 2).await, [1, 2]);
    let sink = stream.sink("s").join().await.unwrap();
    assert!(matches!(sink.add_stream(&stream, Start::Oldest).await, Err(Error::AlreadyAdded { .. })));
    reader.close().await;
    let other = crate::stream(&subject, &client);
    assert!(reader.add_stream(&other, Start::Oldest).await.is_err_and(|error| error.is_closed()));
}

async fn a_reader_is_a_stream_of_futures(subject: Subject) {
    let client = subject.client().await;
    let stream = stream(&subject, &client);
    add_all(&stream, 0..3).await;
    let reader = stream.reader().start(Start::Oldest).join().await.unwrap();
    let numbers = reader.take(3).map(|event| crate::number(&event.unwrap())).collect::<Vec<_>>();
    assert_eq!(soon("three events", numbers).await, [0, 1, 2]);
}

async fn options_without_sense_are_refused(subject: Subject) {
    let client = subject.client().await;
    let stream = stream(&subject, &client);
    let refused = [
        stream.reader().buffer(0).join().await.err(),
        stream.reader().block(Duration::ZERO).join().await.err(),
        stream.sink("s").buffer(0).join().await.err(),
        stream.sink("s").ack_grace(Duration::ZERO).join().await.err(),
    ];
    for error in refused {
        assert!(matches!(error, Some(Error::InvalidOption { .. })), "{error:?}");
    }
    assert!(matches!(stream.sink("").join().await, Err(Error::InvalidName { .. })));
    assert_eq!(stream.info().await.unwrap(), None, "nothing was created");
}

async fn a_closed_client_ends_its_readers(subject: Subject) {
    let client = subject.client().await;
    let stream = stream(&subject, &client);
    let mut reader = stream.reader().join().await.unwrap();
    let mut sink = stream.sink("s").join().await.unwrap();
    client.close().await;
    assert!(soon("the end of the reader", reader.next()).await.is_none());
    assert!(soon("the end of the sink", sink.next()).await.is_none());
    soon("the closing of the reader", reader.close()).await;
    soon("the closing of the sink", sink.close()).await;
    assert!(stream.add("n", "1").await.is_err_and(|error| error.is_closed()));
}
