//! What closing and dropping promise.

use pulse_streaming::{NewEvent, Start};
use tests::{Subject, on_every_backend, soon};

use crate::{LONG, add_all, next_delivery, next_event, number, stream, work_off};

on_every_backend!(
    closing_does_not_wait_for_a_subscriber_that_takes_nothing,
    a_closed_sink_gives_back_at_once_what_it_did_not_hand_out,
    a_delivery_in_hand_survives_the_closing_of_its_sink,
    a_closed_sink_leaves_nothing_behind,
    acknowledgements_on_their_way_are_settled_by_the_closing,
);

async fn closing_does_not_wait_for_a_subscriber_that_takes_nothing(subject: Subject) {
    let client = subject.client().await;
    let stream = stream(&subject, &client);
    let mut reader = stream.reader().buffer(4).start(Start::Oldest).join().await.unwrap();
    let mut sink = stream.sink("s").buffer(4).start(Start::Oldest).ack_grace(LONG).join().await.unwrap();
    stream.add_batch((0..100).map(|n: u32| NewEvent::new("n", n.to_string()))).await.unwrap();
    // Both buffers are full once something came out of them.
    next_event(&mut reader).await;
    drop(next_delivery(&mut sink).await);
    for _ in 0..2 {
        soon("the closing of the reader", reader.close()).await;
        soon("the closing of the sink", sink.close()).await;
        assert!(reader.next().await.is_none());
        assert!(sink.next().await.is_none());
    }
}

async fn a_closed_sink_gives_back_at_once_what_it_did_not_hand_out(subject: Subject) {
    let client = subject.client().await;
    let stream = stream(&subject, &client);
    let mut leaving = stream.sink("s").ack_grace(LONG).join().await.unwrap();
    add_all(&stream, 0..10).await;
    assert_eq!(work_off(&mut leaving, 4).await, [0, 1, 2, 3]);
    leaving.close().await;
    let mut staying = stream.sink("s").ack_grace(LONG).join().await.unwrap();
    let mut rest = work_off(&mut staying, 6).await;
    rest.sort_unstable();
    assert_eq!(rest, [4, 5, 6, 7, 8, 9]);
}

async fn a_delivery_in_hand_survives_the_closing_of_its_sink(subject: Subject) {
    let client = subject.client().await;
    let stream = stream(&subject, &client);
    let mut leaving = stream.sink("s").ack_grace(LONG).join().await.unwrap();
    add_all(&stream, 0..3).await;
    let (one, two) = (next_delivery(&mut leaving).await, next_delivery(&mut leaving).await);
    leaving.close().await;
    let mut staying = stream.sink("s").ack_grace(LONG).join().await.unwrap();
    assert_eq!(work_off(&mut staying, 1).await, [2], "what is in hand stays in hand");
    drop(leaving);
    one.ack().await.unwrap();
    two.in_progress().await.unwrap();
    two.nack().await.unwrap();
    staying.close().await;
    let mut last = stream.sink("s").ack_grace(LONG).join().await.unwrap();
    let again = next_delivery(&mut last).await;
    assert_eq!((number(&again), again.deliveries()), (1, 2));
    again.ack().await.unwrap();
    assert_eq!(stream.sink_info("s").await.unwrap().unwrap().pending, 0);
}

async fn a_closed_sink_leaves_nothing_behind(subject: Subject) {
    let client = subject.client().await;
    let stream = stream(&subject, &client);
    let mut sink = stream.sink("s").ack_grace(LONG).join().await.unwrap();
    add_all(&stream, [1]).await;
    assert_eq!(work_off(&mut sink, 1).await, [1]);
    sink.close().await;
    let info = stream.sink_info("s").await.unwrap().expect("the cursor stays");
    assert_eq!((info.consumers, info.pending), (vec![], 0));
}

async fn acknowledgements_on_their_way_are_settled_by_the_closing(subject: Subject) {
    let client = subject.client().await;
    let stream = stream(&subject, &client);
    let mut sink = stream.sink("s").ack_grace(LONG).join().await.unwrap();
    add_all(&stream, 0..20).await;
    for _ in 0..20 {
        // Nobody waits for the outcome.
        drop(next_delivery(&mut sink).await.ack());
    }
    sink.close().await;
    assert_eq!(stream.sink_info("s").await.unwrap().unwrap().pending, 0);
}
