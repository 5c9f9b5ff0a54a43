//! What is dropped from a stream, and who learns of it.

use pulse_core::{Transaction, Trim};
use pulse_streaming::{EventId, EventStream, Notice, Reader, Start};
use tests::{Subject, on_every_backend, soon};

use crate::{add_all, destroy, number, read, stream};

on_every_backend!(
    a_reader_learns_exactly_what_was_dropped_before_it_was_read,
    a_reader_that_keeps_up_misses_nothing_when_what_it_read_is_dropped,
    a_reader_that_was_behind_learns_that_the_stream_ended,
    a_reader_that_goes_on_after_a_dropped_event_is_told,
);

/// Keeps the newest ones only.
async fn keep(stream: &EventStream, newest: u64) {
    let trim = Trim::MaxLength { length: newest, approximate: false };
    let transaction = Transaction::new(stream.id().scope()).trim_stream(stream.id().name().clone(), trim);
    stream.client().commit(transaction).await.expect("the stream is trimmed");
}

/// What a reader says next, which is that it missed something.
async fn missed(reader: &mut Reader) -> (EventId, Option<EventId>, Option<u64>) {
    let said = soon("a notice", reader.next()).await.expect("the reader is open");
    match said.expect_err("a notice comes first") {
        Notice::Missed { sink: None, after, before, events, .. } => (after, before, events),
        other => panic!("another notice: {other:?}"),
    }
}

async fn a_reader_learns_exactly_what_was_dropped_before_it_was_read(subject: Subject) {
    let client = subject.client().await;
    let stream = stream(&subject, &client);
    let mut ids = Vec::new();
    for payload in 1..=10_u32 {
        ids.push(stream.add("n", payload.to_string()).await.unwrap());
    }
    // It reads four, and the next ones when two of them were taken.
    let mut reader = stream.reader().start(Start::Oldest).buffer(4).join().await.unwrap();
    assert_eq!(read(&mut reader, 1).await, [1]);
    keep(&stream, 3).await;
    assert_eq!(read(&mut reader, 3).await, [2, 3, 4]);
    assert_eq!(missed(&mut reader).await, (ids[3], Some(ids[7]), Some(3)));
    assert_eq!(read(&mut reader, 3).await, [8, 9, 10]);
    add_all(&stream, [11]).await;
    assert_eq!(read(&mut reader, 1).await, [11], "it was told once");
}

async fn a_reader_that_keeps_up_misses_nothing_when_what_it_read_is_dropped(subject: Subject) {
    let client = subject.client().await;
    let stream = stream(&subject, &client);
    let mut reader = stream.reader().join().await.unwrap();
    for round in 0..20 {
        add_all(&stream, [2 * round, 2 * round + 1]).await;
        assert_eq!(read(&mut reader, 2).await, [2 * round, 2 * round + 1]);
        keep(&stream, u64::from(round % 2)).await;
    }
}

async fn a_reader_that_was_behind_learns_that_the_stream_ended(subject: Subject) {
    let client = subject.client().await;
    let stream = stream(&subject, &client);
    add_all(&stream, 1..=10).await;
    let mut reader = stream.reader().start(Start::Oldest).buffer(4).join().await.unwrap();
    let first = soon("an event", reader.next()).await.unwrap().unwrap();
    assert_eq!(number(&first), 1);
    destroy(&stream).await;
    assert_eq!(read(&mut reader, 3).await, [2, 3, 4]);
    let (after, _, events) = missed(&mut reader).await;
    assert!(after > first.id());
    assert_eq!(events, None, "nobody can tell any more");
    add_all(&stream, [11]).await;
    assert_eq!(read(&mut reader, 1).await, [11]);
}

async fn a_reader_that_goes_on_after_a_dropped_event_is_told(subject: Subject) {
    let client = subject.client().await;
    let stream = stream(&subject, &client);
    let checkpoint = stream.add("n", "1").await.unwrap();
    add_all(&stream, [2, 3, 4]).await;
    let mut whole = stream.reader().start(Start::After(checkpoint)).join().await.unwrap();
    assert_eq!(read(&mut whole, 3).await, [2, 3, 4]);
    keep(&stream, 1).await;
    let mut late = stream.reader().start(Start::After(checkpoint)).join().await.unwrap();
    let (after, _, events) = missed(&mut late).await;
    assert_eq!((after, events), (checkpoint, None));
    assert_eq!(read(&mut late, 1).await, [4]);
}
