//! Dead letters at the limits of what a client may send.

use pulse_streaming::{Client, ClientBuilder, Error, EventId, EventStream, NewEvent, Start, pulse_core::Limits};

async fn client(event_bytes: usize) -> Client {
    let limits = Limits::default().with_event_bytes(event_bytes);
    ClientBuilder::new("memory:letters").limits(limits).connect().await.expect("the embedded backend is always there")
}

#[tokio::test]
async fn an_event_as_large_as_may_be_is_given_up_and_replayed_where_there_is_room_for_it() {
    let tight = client(100).await;
    let stream = EventStream::new(&tight, "events").unwrap();
    let id = stream.add_event(NewEvent::new("n", vec![7; 99])).await.unwrap();
    let mut sink = stream.sink("s").start(Start::Oldest).join().await.unwrap();
    sink.next().await.unwrap().unwrap().dead_letter("no such card").await.unwrap();
    assert_eq!(stream.sink_info("s").await.unwrap().unwrap().pending, 0);
    let letters = stream.dead_letters("s").unwrap();
    let letter = letters.list(EventId::ZERO, 10).await.unwrap().remove(0);
    assert!(letter.is_cut() && letter.payload().is_empty());
    letters.replay(&letter).await.expect_err("it says for whom it is, which makes it too large for this client");

    let roomy = client(1_000).await;
    let source = EventStream::new(&roomy, "events").unwrap();
    source.dead_letters("s").unwrap().replay(&letter).await.unwrap();
    let again = sink.next().await.unwrap().unwrap();
    assert_eq!((again.payload().len(), again.deliveries()), (99, 1));
    again.ack().await.unwrap();
    assert!(letters.is_empty().await.unwrap());

    source.add_event(NewEvent::new("n", vec![8; 99])).await.unwrap();
    sink.next().await.unwrap().unwrap().dead_letter("no such card").await.unwrap();
    let letter = letters.list(EventId::ZERO, 10).await.unwrap().remove(0);
    source.remove([id, letter.original_id()]).await.unwrap();
    let gone = source.dead_letters("s").unwrap().replay(&letter).await.unwrap_err();
    assert!(matches!(gone, Error::PayloadGone { .. }), "{gone:?}");
}
