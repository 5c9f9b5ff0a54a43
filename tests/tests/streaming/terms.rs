//! The terms on which events are added: retention, capacity, lifetime, once.

use std::time::Duration;

use pulse_core::Transaction;
use pulse_streaming::{Client, Error, EventStream, NewEvent, Retention, Start, StreamBuilder};
use tests::{Subject, eventually, on_every_backend};

use crate::{LONG, add_all, next_event, number, read, work_off};

on_every_backend!(
    the_newest_events_are_kept_exactly,
    about_the_newest_events_are_kept,
    events_are_kept_for_a_time,
    events_are_kept_until_every_sink_has_consumed_them,
    a_full_stream_refuses_and_takes_again_when_its_sinks_have_caught_up,
    a_stream_expires_once_or_when_nothing_is_added,
    an_event_added_once_is_there_once,
    terms_hold_in_a_transaction_of_the_users,
    terms_without_sense_are_refused,
);

fn open(subject: &Subject, client: &Client, terms: impl FnOnce(StreamBuilder) -> StreamBuilder) -> EventStream {
    terms(EventStream::builder("events").scope(subject.scope())).open(client).expect("sensible terms")
}

async fn length(stream: &EventStream) -> u64 {
    stream.info().await.expect("the stream is described").map_or(0, |info| info.length)
}

async fn the_newest_events_are_kept_exactly(subject: Subject) {
    let client = subject.client().await;
    let stream = open(&subject, &client, |stream| stream.retention(Retention::Newest(3)));
    add_all(&stream, 1..=10).await;
    stream.add_batch((11..=12).map(|payload: u32| NewEvent::new("n", payload.to_string()))).await.unwrap();
    assert_eq!(length(&stream).await, 3);
    let mut reader = stream.reader().start(Start::Oldest).join().await.unwrap();
    assert_eq!(read(&mut reader, 3).await, [10, 11, 12]);
}

async fn about_the_newest_events_are_kept(subject: Subject) {
    let client = subject.client().await;
    let stream = open(&subject, &client, |stream| stream.retention(Retention::AboutNewest(100)));
    add_all(&stream, 0..500).await;
    let length = length(&stream).await;
    assert!((100..=300).contains(&length), "{length} are there");
}

async fn events_are_kept_for_a_time(subject: Subject) {
    let client = subject.client().await;
    let kept = Duration::from_millis(50);
    let stream = open(&subject, &client, |stream| stream.retention(Retention::Within(kept)));
    let plain = EventStream::in_scope(&client, &subject.scope(), "events").unwrap();
    // A whole node of Redis, because less is not dropped.
    add_all(&plain, 0..300).await;
    eventually("the first ones are dropped", async || {
        stream.add("n", "1000").await.unwrap();
        let length = length(&stream).await;
        if length < 250 { Ok(()) } else { Err(length) }
    })
    .await;
}

async fn events_are_kept_until_every_sink_has_consumed_them(subject: Subject) {
    let client = subject.client().await;
    let stream = open(&subject, &client, |stream| stream.retention(Retention::UntilConsumed));
    add_all(&stream, 1..=3).await;
    assert_eq!(length(&stream).await, 3, "nobody consumes");
    let mut quick = stream.sink("quick").start(Start::Oldest).ack_grace(LONG).join().await.unwrap();
    let mut slow = stream.sink("slow").start(Start::Oldest).ack_grace(LONG).join().await.unwrap();
    assert_eq!(work_off(&mut quick, 3).await, [1, 2, 3]);
    add_all(&stream, [4]).await;
    assert_eq!(length(&stream).await, 4, "the slow one has consumed nothing");
    assert_eq!(work_off(&mut slow, 2).await, [1, 2]);
    add_all(&stream, [5]).await;
    assert_eq!(length(&stream).await, 3, "3, 4 and 5");
    assert_eq!(work_off(&mut slow, 3).await, [3, 4, 5]);
    assert_eq!(work_off(&mut quick, 2).await, [4, 5]);
    add_all(&stream, [6]).await;
    assert_eq!(length(&stream).await, 1);
}

async fn a_full_stream_refuses_and_takes_again_when_its_sinks_have_caught_up(subject: Subject) {
    let client = subject.client().await;
    let stream = open(&subject, &client, |stream| stream.retention(Retention::UntilConsumed).capacity(2));
    let mut sink = stream.sink("sink").start(Start::Oldest).ack_grace(LONG).join().await.unwrap();
    add_all(&stream, [1, 2]).await;
    let full = stream.add("n", "3").await.unwrap_err();
    assert!(matches!(full, Error::Full { length: 2, capacity: 2, .. }), "{full:?}");
    assert!(full.is_retryable());
    assert_eq!(work_off(&mut sink, 2).await, [1, 2]);
    add_all(&stream, [3]).await;
    assert_eq!(work_off(&mut sink, 1).await, [3]);
}

async fn a_stream_expires_once_or_when_nothing_is_added(subject: Subject) {
    let client = subject.client().await;
    let ttl = Duration::from_millis(400);
    let sliding = open(&subject, &client, |stream| stream.expires_unless_added_to_for(ttl));
    let absolute = EventStream::builder("absolute").scope(subject.scope()).expires_after(ttl).open(&client).unwrap();
    let begun = tokio::time::Instant::now();
    let mut last = begun;
    add_all(&absolute, [0]).await;
    let mut lived = 1;
    while length(&absolute).await >= lived {
        last = tokio::time::Instant::now();
        add_all(&sliding, [1]).await;
        absolute.add_if_exists(NewEvent::new("n", "2")).await.unwrap();
        lived = length(&absolute).await.max(1);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(begun.elapsed() >= ttl, "it lives for all of its time");
    if last.elapsed() < ttl {
        assert!(length(&sliding).await > 1, "it was added to all the time");
    }
    eventually("the other one expires too", async || {
        let length = length(&sliding).await;
        if length == 0 { Ok(()) } else { Err(length) }
    })
    .await;
}

async fn an_event_added_once_is_there_once(subject: Subject) {
    let client = subject.client().await;
    let stream = open(&subject, &client, |stream| stream.once_within(Duration::from_secs(60)));
    let first = stream.add_once("a", NewEvent::new("n", "1")).await.unwrap();
    let other = stream.add_once("b", NewEvent::new("n", "2")).await.unwrap();
    assert_eq!(stream.add_once("a", NewEvent::new("n", "3")).await.unwrap(), first);
    assert!(other > first);
    let mut reader = stream.reader().start(Start::Oldest).join().await.unwrap();
    assert_eq!(read(&mut reader, 2).await, [1, 2]);
    assert_eq!(length(&stream).await, 2);
    assert!(stream.add_once("", NewEvent::new("n", "4")).await.is_err());
}

async fn terms_hold_in_a_transaction_of_the_users(subject: Subject) {
    let client = subject.client().await;
    let stream = open(&subject, &client, |stream| stream.retention(Retention::Newest(1)).capacity(5));
    add_all(&stream, [1]).await;
    let both = Transaction::new(stream.id().scope()).put("states", "order", "placed");
    client.commit(stream.add_to(both, NewEvent::new("n", "2"))).await.unwrap();
    let mut reader = stream.reader().start(Start::Oldest).join().await.unwrap();
    assert_eq!(number(&next_event(&mut reader).await), 2);
    assert_eq!(length(&stream).await, 1);
}

async fn terms_without_sense_are_refused(subject: Subject) {
    let client = subject.client().await;
    let refused = |terms: fn(StreamBuilder) -> StreamBuilder| {
        let opened = terms(EventStream::builder("events")).open(&client);
        assert!(matches!(opened, Err(Error::InvalidOption { .. })), "{opened:?}");
    };
    refused(|stream| stream.retention(Retention::Newest(0)));
    refused(|stream| stream.retention(Retention::Within(Duration::ZERO)));
    refused(|stream| stream.capacity(0));
    refused(|stream| stream.expires_after(Duration::MAX));
    refused(|stream| stream.once_within(Duration::ZERO));
    assert!(matches!(EventStream::builder("").open(&client), Err(Error::InvalidName { .. })));
}
