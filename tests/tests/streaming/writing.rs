//! What adding, describing and destroying promise.

use pulse_streaming::{EventId, EventStream, NewEvent, Start, Transaction};
use tests::{Subject, on_every_backend};

use crate::{destroy, next_event, read, stream};

on_every_backend!(
    an_event_arrives_whole,
    a_batch_is_added_in_order,
    an_empty_batch_adds_nothing,
    adding_only_if_the_stream_exists_does_not_create_it,
    a_destroyed_stream_is_gone_and_begins_anew,
    streams_of_one_name_in_two_scopes_are_two_streams,
    a_transaction_of_another_scope_is_refused_by_name,
);

async fn an_event_arrives_whole(subject: Subject) {
    let client = subject.client().await;
    let stream = stream(&subject, &client);
    let mut reader = stream.reader().join().await.unwrap();
    let payload = vec![0_u8, 255, b'\n', b'{'];
    let event = NewEvent::new("näme", payload.clone()).with_topic("a topic").with_header("h", vec![0_u8, 1]);
    let id = stream.add_event(event).await.unwrap();

    let event = next_event(&mut reader).await;
    assert_eq!((event.id(), event.stream()), (id, stream.id()));
    assert_eq!((event.name(), event.topic()), ("näme", Some("a topic")));
    assert_eq!(event.headers().get("h").map(|value| &value[..]), Some(&[0_u8, 1][..]));
    assert_eq!(event.payload(), &payload);
}

async fn a_batch_is_added_in_order(subject: Subject) {
    let client = subject.client().await;
    let stream = stream(&subject, &client);
    let ids = stream.add_batch((0..500).map(|n: u32| NewEvent::new("n", n.to_string()))).await.unwrap();
    assert_eq!(ids.len(), 500);
    assert!(ids.is_sorted_by(|one, next| one < next));
    let mut reader = stream.reader().start(Start::Oldest).join().await.unwrap();
    assert_eq!(read(&mut reader, 500).await, (0..500).collect::<Vec<_>>());
}

async fn an_empty_batch_adds_nothing(subject: Subject) {
    let client = subject.client().await;
    let stream = stream(&subject, &client);
    assert_eq!(stream.add_batch([]).await.unwrap(), []);
    assert_eq!(stream.info().await.unwrap(), None);
}

async fn adding_only_if_the_stream_exists_does_not_create_it(subject: Subject) {
    let client = subject.client().await;
    let stream = stream(&subject, &client);
    assert_eq!(stream.add_if_exists(NewEvent::new("n", "1")).await.unwrap(), None);
    assert_eq!(stream.info().await.unwrap(), None);
    let first = stream.add("n", "2").await.unwrap();
    let second = stream.add_if_exists(NewEvent::new("n", "3")).await.unwrap();
    assert!(second > Some(first));
    let info = stream.info().await.unwrap().expect("it exists now");
    assert_eq!((info.length, info.first, Some(info.last)), (2, Some(first), second));
}

async fn a_destroyed_stream_is_gone_and_begins_anew(subject: Subject) {
    let client = subject.client().await;
    let stream = stream(&subject, &client);
    let last = stream.add_batch([NewEvent::new("n", "1"), NewEvent::new("n", "2")]).await.unwrap()[1];
    let mut reader = stream.reader().join().await.unwrap();
    assert_eq!(destroy(&stream).await, 2);
    assert_eq!(stream.info().await.unwrap(), None);
    assert_eq!(stream.destroy().await.unwrap(), 0);

    let id = stream.add("n", "3").await.unwrap();
    assert!(id > EventId::ZERO && id != last);
    assert_eq!(read(&mut reader, 1).await, [3]);
}

async fn streams_of_one_name_in_two_scopes_are_two_streams(subject: Subject) {
    let client = subject.client().await;
    let (one, other) = (stream(&subject, &client), stream(&subject, &client));
    assert_eq!(one.id().name(), other.id().name());
    let mut sinks = Vec::new();
    for (stream, payload) in [(&one, "1"), (&other, "2")] {
        let sink = stream.sink("same").join().await.unwrap();
        stream.add("n", payload).await.unwrap();
        sinks.push(sink);
    }
    for (sink, expected) in sinks.iter_mut().zip([1, 2]) {
        assert_eq!(crate::work_off(sink, 1).await, [expected]);
    }
    let by_default = EventStream::new(&client, "plain").unwrap();
    assert_eq!(by_default.id().scope().as_str(), "plain");
}

async fn a_transaction_of_another_scope_is_refused_by_name(subject: Subject) {
    let client = subject.client().await;
    let (log, orders) = (stream(&subject, &client), subject.scope());
    let event = || NewEvent::new("n", "1");
    let refused = client.commit(log.add_to(Transaction::new(&orders), event())).await.unwrap_err();
    let message = refused.to_string();
    let names = [log.id().scope().as_str(), orders.as_str(), "events"];
    assert!(matches!(refused, pulse_core::Error::OtherScope { .. }), "{refused:?}");
    assert!(names.iter().all(|name| message.contains(name)), "{message}");
    let namesake = EventStream::in_scope(&client, &orders, "events").unwrap();
    assert_eq!((log.info().await.unwrap(), namesake.info().await.unwrap()), (None, None), "nothing was added");

    client.commit(log.add_to(Transaction::new(log.id().scope()), event())).await.unwrap();
    assert_eq!(log.info().await.unwrap().map(|info| info.length), Some(1));
}
