//! Streams, readers and sinks on every backend.

mod choosing;
mod closing;
mod dead;
mod faults;
mod partition_options;
mod partitions;
mod pausing;
#[cfg(feature = "standalone")]
mod processes;
mod reading;
mod retention;
mod retiring;
#[cfg(feature = "standalone")]
mod servers;
mod sharing;
mod sinks;
#[cfg(feature = "standalone")]
mod strangers;
mod terms;
mod writing;

use std::time::Duration;

use pulse_streaming::{Client, Delivery, Event, EventStream, Notice, Reader, Sink};
use tests::{Subject, eventually, soon};

/// A grace period that is over soon.
const SHORT: Duration = Duration::from_secs(1);
/// A grace period that no test lives to see the end of.
const LONG: Duration = Duration::from_secs(600);

/// A stream of its own for one test.
fn stream(subject: &Subject, client: &Client) -> EventStream {
    EventStream::in_scope(client, &subject.scope(), "events").expect("a valid name")
}

/// Adds events with these payloads.
async fn add_all(stream: &EventStream, payloads: impl IntoIterator<Item = u32>) {
    for payload in payloads {
        stream.add("n", payload.to_string()).await.expect("the event is added");
    }
}

/// Destroys a stream, and waits until the server's clock has moved on: ids made within the same millisecond would begin
/// again.
async fn destroy(stream: &EventStream) -> u64 {
    let destroyed = stream.destroy().await.expect("the stream is destroyed");
    let scope = stream.id().scope();
    let time = async || stream.client().backend().server_time(scope).await.expect("the server tells its time");
    let before = time().await;
    eventually("the clock moves on", async || {
        let now = time().await;
        if now > before { Ok(()) } else { Err(now) }
    })
    .await;
    destroyed
}

fn number(event: &Event) -> u32 {
    let text = std::str::from_utf8(event.payload()).expect("a text");
    text.parse().expect("a number")
}

async fn next_event(reader: &mut Reader) -> Event {
    soon("an event", reader.next()).await.expect("the reader is open").expect("nothing was lost")
}

async fn next_delivery(sink: &mut Sink) -> Delivery {
    soon("a delivery", sink.next()).await.expect("the sink is open").expect("nothing was lost")
}

async fn next_notice(sink: &mut Sink) -> Notice {
    soon("a notice", sink.next()).await.expect("the sink is open").expect_err("a notice comes first")
}

/// The payloads of the next events.
async fn read(reader: &mut Reader, count: usize) -> Vec<u32> {
    let mut numbers = Vec::new();
    for _ in 0..count {
        numbers.push(number(&next_event(reader).await));
    }
    numbers
}

/// Takes and acknowledges the next deliveries, and returns their payloads.
async fn work_off(sink: &mut Sink, count: usize) -> Vec<u32> {
    let mut numbers = Vec::new();
    for _ in 0..count {
        let delivery = next_delivery(sink).await;
        numbers.push(number(&delivery));
        delivery.ack().await.expect("the event is acknowledged");
    }
    numbers
}
