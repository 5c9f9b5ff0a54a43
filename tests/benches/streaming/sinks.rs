//! Consuming through a sink.

use std::time::Instant;

use futures::StreamExt;
use pulse_streaming::{EventStream, Settlement, Sink, Start};

use super::content::{connect, fill, stream};
use crate::harness::{Bench, Goal, Paired, Row, Yardstick, thousands};

/// How many acknowledgements are looked after at a time.
const SETTLED_TOGETHER: usize = 1_000;

/// One loop that takes an event, acknowledges it, and goes on; the outcomes are looked at a thousand at a time.
pub(super) async fn one_loop(bench: &Bench) -> Vec<Row> {
    let paired = rounds(bench, async |mut sink, events| {
        let mut settlements: Vec<Settlement> = Vec::with_capacity(SETTLED_TOGETHER);
        for number in 1..=events {
            let delivery = sink.next().await.expect("the sink ended").expect("the sink has a notice");
            settlements.push(delivery.ack());
            if number.is_multiple_of(SETTLED_TOGETHER) || number == events {
                for settlement in settlements.drain(..) {
                    settlement.await.expect("the acknowledgement failed");
                }
            }
        }
        sink
    });
    let paired = paired.await;
    let scenario = "sink, every event acked, one sequential loop";
    vec![Row::multiple(scenario, thousands(paired.ours()), &paired, "X1", Goal::AtLeast(1.1), "0.22 X1")]
}

/// Sixty-four handlers at a time, each of which waits for its acknowledgement.
pub(super) async fn many_handlers(bench: &Bench) -> Vec<Row> {
    let paired = rounds(bench, async |mut sink, events| {
        let handled = (&mut sink).take(events).for_each_concurrent(64, async |delivery| {
            delivery.expect("the sink has a notice").ack().await.expect("the acknowledgement failed");
        });
        handled.await;
        sink
    });
    let paired = paired.await;
    let scenario = "sink, every event acked, 64 concurrent handlers";
    vec![Row::multiple(scenario, thousands(paired.ours()), &paired, "X1", Goal::AtLeast(2.7), "0.83 X1")]
}

/// Events per second of a consumer that takes all of a filled stream, against X1.
async fn rounds(bench: &Bench, consume: impl AsyncFn(Sink, usize) -> Sink) -> Paired {
    let client = connect(bench).await;
    let events = bench.options.requests(150_000.0);
    let mut paired = Paired::default();
    for _ in 0..bench.options.rounds {
        let x1 = bench.yardsticks.measure(Yardstick::X1, bench.options.requests(90_000.0)).await;
        let stream = stream(&client);
        fill(&stream, events).await;
        let sink = join(&stream).await;
        let begun = Instant::now();
        let sink = consume(sink, events).await;
        paired.push(events as f64 / begun.elapsed().as_secs_f64(), x1);
        let info = stream.sink_info("bench").await.expect("no answer").expect("the sink is there");
        assert_eq!((info.pending, info.lag), (0, Some(0)), "not everything was consumed");
        sink.close().await;
        bench.server.flush();
    }
    client.close().await;
    paired
}

async fn join(stream: &EventStream) -> Sink {
    stream.sink("bench").start(Start::Oldest).buffer(2_048).join().await.expect("cannot join")
}
