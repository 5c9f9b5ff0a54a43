//! An instance of a sink that stands still for longer than the grace period, as a process that was stopped.

use std::{sync::Arc, time::Duration};

use pulse_core::{Client, Memory, Scope, testing::Faulty};
use pulse_streaming::{EventStream, Start};
use tokio::time::timeout;

use crate::{add_all, next_delivery, number, work_off};

const GRACE: Duration = Duration::from_secs(2);

/// One stream through a link that can be paused, and through another that never is.
fn two_ways() -> (Faulty, EventStream, EventStream) {
    let store = Memory::default();
    let link = Faulty::new(Arc::new(store.another_client()), 1);
    let scope = Scope::new("shop").unwrap();
    let stream = |client: Client| EventStream::in_scope(&client, &scope, "events").unwrap();
    let paused = stream(Client::from_backend(Arc::new(link.clone())));
    (link, paused, stream(Client::from_backend(Arc::new(store))))
}

/// Stops an instance while its read waits, adds events that the read gets, and lets another instance have them.
async fn after_a_pause(pause: Duration) -> (pulse_streaming::Sink, EventStream, Vec<u32>) {
    let (link, stopped, running) = two_ways();
    let builder = |stream: &EventStream| stream.sink("s").start(Start::Oldest).ack_grace(GRACE);
    let sink = builder(&stopped).join().await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    link.pause();
    add_all(&running, 0..5).await;
    let mut other = builder(&running).join().await.unwrap();
    let mut done = Vec::new();
    let over = tokio::time::Instant::now() + pause;
    while let Ok(Some(Ok(delivery))) = tokio::time::timeout_at(over, other.next()).await {
        done.push(number(&delivery));
        delivery.ack().await.unwrap();
    }
    other.close().await;
    link.resume();
    (sink, running, done)
}

#[tokio::test(start_paused = true)]
async fn after_a_pause_a_sink_hands_out_nothing_that_others_have_acknowledged() {
    let (mut sink, stream, done) = after_a_pause(3 * GRACE).await;
    assert_eq!(done, [0, 1, 2, 3, 4], "the other instance took them over");
    let again = timeout(2 * GRACE, sink.next()).await;
    assert!(again.is_err(), "{again:?}");
    add_all(&stream, [5]).await;
    assert_eq!(work_off(&mut sink, 1).await, [5]);
}

#[tokio::test(start_paused = true)]
async fn after_a_short_pause_a_sink_hands_out_what_it_was_handed() {
    let (mut sink, _stream, done) = after_a_pause(GRACE / 4).await;
    assert!(done.is_empty(), "{done:?}");
    for expected in 0..5 {
        let delivery = next_delivery(&mut sink).await;
        assert_eq!((number(&delivery), delivery.deliveries()), (expected, 1));
        delivery.ack().await.unwrap();
    }
}
