//! Consuming through a sink.

use std::{
    convert::Infallible,
    future::IntoFuture,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use pulse_streaming::{Settlement, Sink, SinkBuilder, Start};
use tokio_util::sync::CancellationToken;

use super::content::{connect, fill, stream};
use crate::harness::{Bench, Goal, Paired, Row, Yardstick, thousands};

/// How many acknowledgements are looked after at a time.
const SETTLED_TOGETHER: usize = 1_000;

/// One loop that takes an event, acknowledges it, and goes on; the outcomes are looked at a thousand at a time.
pub(super) async fn one_loop(bench: &Bench) -> Vec<Row> {
    let paired = rounds(bench, 150_000.0, |sink| sink, take_and_acknowledge).await;
    let scenario = "sink, every event acked, one sequential loop";
    vec![Row::multiple(scenario, thousands(paired.ours()), &paired, "X1", Goal::AtLeast(1.1), "0.22 X1")]
}

/// Sixty-four handlers at a time.
pub(super) async fn many_handlers(bench: &Bench) -> Vec<Row> {
    let paired = rounds(bench, 150_000.0, |sink| sink, run_handlers).await;
    let scenario = "sink, every event acked, 64 concurrent handlers";
    vec![Row::multiple(scenario, thousands(paired.ours()), &paired, "X1", Goal::AtLeast(2.7), "0.83 X1")]
}

/// One loop over a sink that needs no acknowledgements.
pub(super) async fn without_acks(bench: &Bench) -> Vec<Row> {
    let paired = rounds(bench, 600_000.0, SinkBuilder::no_ack, take).await;
    let scenario = "sink, no-ack";
    vec![Row::multiple(scenario, thousands(paired.ours()), &paired, "X1", Goal::AtLeast(7.5), "6.7 X1")]
}

async fn take(mut sink: Sink, events: usize) {
    for _ in 0..events {
        sink.next().await.expect("the sink ended").expect("the sink has a notice");
    }
    sink.close().await;
}

async fn take_and_acknowledge(mut sink: Sink, events: usize) {
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
    sink.close().await;
}

async fn run_handlers(sink: Sink, events: usize) {
    let (handled, done) = (Arc::<AtomicUsize>::default(), CancellationToken::new());
    let end = done.clone();
    let run = sink.run(64, move |_| {
        if handled.fetch_add(1, Ordering::Relaxed) + 1 == events {
            done.cancel();
        }
        std::future::ready(Ok::<_, Infallible>(()))
    });
    let ran = run.until(end.cancelled_owned()).into_future().await;
    assert_eq!((ran.handled, ran.unsettled), (events as u64, 0));
}

/// Events per second of a consumer that takes all of a filled stream, against X1.
async fn rounds<F>(
    bench: &Bench,
    about: f64,
    with: fn(SinkBuilder) -> SinkBuilder,
    consume: fn(Sink, usize) -> F,
) -> Paired
where
    F: Future<Output = ()> + Send + 'static,
{
    let client = connect(bench).await;
    let events = bench.options.requests(about);
    let mut paired = Paired::default();
    for _ in 0..bench.options.rounds {
        let x1 = bench.yardsticks.measure(Yardstick::X1, bench.options.requests(90_000.0)).await;
        let stream = stream(&client);
        fill(&stream, events).await;
        let sink = with(stream.sink("bench").start(Start::Oldest).buffer(2_048));
        let sink = sink.join().await.expect("cannot join");
        let begun = Instant::now();
        // In a task of its own: the main task would pay for being woken from another thread.
        tokio::spawn(consume(sink, events)).await.expect("the consumer failed");
        paired.push(events as f64 / begun.elapsed().as_secs_f64(), x1);
        let info = stream.sink_info("bench").await.expect("no answer").expect("the sink is there");
        assert_eq!((info.pending, info.lag), (0, Some(0)), "not everything was consumed");
        bench.server.flush();
    }
    client.close().await;
    paired
}
