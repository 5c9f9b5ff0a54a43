//! The streams that are measured: events with payloads of 100 bytes.

use pulse_core::Client;
use pulse_streaming::{EventStream, NewEvent, Retention};

use crate::harness::{Bench, PAYLOAD};

/// How many events one commit carries when a stream is filled.
const PAGE: usize = 500;

pub(super) async fn connect(bench: &Bench) -> Client {
    pulse_streaming::connect(&bench.options.url).await.expect("cannot connect")
}

/// The stream that everything is added to.
pub(super) fn stream(client: &Client) -> EventStream {
    // As the yardstick does.
    let stream = EventStream::builder("bench").retention(Retention::AboutNewest(1_000_000));
    stream.open(client).expect("sensible terms")
}

pub(super) fn event() -> NewEvent {
    NewEvent::new("e", PAYLOAD.as_slice())
}

/// Adds one event.
pub(super) async fn add(stream: &EventStream) {
    stream.add_event(event()).await.expect("the add failed");
}

/// Adds that many events, as fast as it goes.
pub(super) async fn fill(stream: &EventStream, events: usize) {
    let full = std::iter::repeat_n(PAGE, events / PAGE);
    for page in full.chain((!events.is_multiple_of(PAGE)).then_some(events % PAGE)) {
        stream.add_batch(std::iter::repeat_n(event(), page)).await.expect("the batch failed");
    }
}
