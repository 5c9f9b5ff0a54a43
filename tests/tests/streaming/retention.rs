//! What is dropped from a stream, and who learns of it.

use pulse_core::{Transaction, Trim};
use pulse_streaming::{EventId, EventStream, Notice, Reader, Start};
use tests::{Subject, eventually, on_every_backend, soon};

use crate::{SHORT, add_all, destroy, next_delivery, next_notice, number, read, stream};

on_every_backend!(
    a_reader_learns_exactly_what_was_dropped_before_it_was_read,
    a_reader_that_keeps_up_misses_nothing_when_what_it_read_is_dropped,
    a_reader_that_was_behind_learns_that_the_stream_ended,
    a_reader_that_goes_on_after_a_dropped_event_is_told,
    a_sink_learns_once_what_was_dropped_before_any_instance_had_it,
    a_sink_that_needs_no_acknowledgements_leaves_nothing_pending,
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

async fn a_sink_learns_once_what_was_dropped_before_any_instance_had_it(subject: Subject) {
    let client = subject.client().await;
    let stream = stream(&subject, &client);
    let builder = stream.sink("sink").start(Start::Oldest).ack_grace(SHORT).buffer(2);
    let mut sink = builder.clone().join().await.unwrap();
    let mut ids = Vec::new();
    for payload in 1..=10_u32 {
        ids.push(stream.add("n", payload.to_string()).await.unwrap());
    }
    // It has read two, or one and then one more; the buffer has no room for others.
    let first = next_delivery(&mut sink).await;
    assert_eq!(number(&first), 1);
    first.ack().await.unwrap();
    eventually("a few were read", async || {
        let info = stream.sink_info("sink").await.unwrap().unwrap();
        if info.last_delivered >= ids[1] { Ok(()) } else { Err(info) }
    })
    .await;
    keep(&stream, 3).await;
    let mut numbers = Vec::new();
    let mut missed = Vec::new();
    while numbers.last() != Some(&10) {
        match soon("a delivery or a notice", sink.next()).await.expect("the sink is open") {
            Ok(delivery) => {
                numbers.push(number(&delivery));
                delivery.ack().await.unwrap();
            }
            Err(Notice::Missed { sink: Some(sink), events, .. }) => {
                assert_eq!(sink, "sink");
                missed.push(events);
            }
            // What had been read and was dropped before it was acknowledged.
            Err(Notice::Lost { .. }) => {}
            Err(other) => panic!("another notice: {other:?}"),
        }
    }
    let read_before = numbers.iter().filter(|number| **number <= 7).count() as u64 + 1;
    if missed.is_empty() {
        missed.push(match next_notice(&mut sink).await {
            Notice::Missed { events, .. } => events,
            other => panic!("another notice: {other:?}"),
        });
    }
    assert_eq!(missed, [Some(7 - read_before)], "the others up to 7 were dropped; {numbers:?} came after 1");
}

async fn a_sink_that_needs_no_acknowledgements_leaves_nothing_pending(subject: Subject) {
    let client = subject.client().await;
    let stream = stream(&subject, &client);
    let mut sink = stream.sink("sink").start(Start::Oldest).no_ack().join().await.unwrap();
    add_all(&stream, 0..100).await;
    for expected in 0..100 {
        let delivery = next_delivery(&mut sink).await;
        assert_eq!(number(&delivery), expected);
        match expected % 3 {
            0 => drop(delivery),
            1 => delivery.ack().await.unwrap(),
            _ => assert!(delivery.nack().await.is_err(), "it cannot be given back"),
        }
    }
    let info = stream.sink_info("sink").await.unwrap().unwrap();
    assert_eq!((info.pending, info.lag), (0, Some(0)));
    sink.close().await;
}
