//! Adding.

use super::content::{add, connect, event, stream};
use crate::harness::{
    Bare, Bench, Goal, Paired, Row, Yardstick, in_turn, median_latency, micros, per_second, thousands,
};

/// How many events a batch has.
const BATCH: usize = 100;

/// One event per call from 64 tasks, against `XADD` by the server's own load generator.
pub(super) async fn single_adds(bench: &Bench) -> Vec<Row> {
    let client = connect(bench).await;
    let stream = stream(&client);
    let mut paired = Paired::default();
    for _ in 0..bench.options.rounds {
        let x1 = async |_| bench.yardsticks.measure(Yardstick::X1, bench.options.requests(22_500.0)).await;
        let adds = async |window| {
            let stream = stream.clone();
            let added = per_second(64, window, move |_, _| {
                let stream = stream.clone();
                async move { add(&stream).await }
            });
            added.await
        };
        let (ours, x1) = in_turn(bench.options.window, adds, x1).await;
        bench.server.flush();
        paired.push(ours, x1);
    }
    client.close().await;
    let scenario = "add, 64 tasks";
    vec![Row::multiple(scenario, thousands(paired.ours()), &paired, "X1", Goal::AtLeast(1.6), "0.99 X1")]
}

/// A hundred events per call from 8 tasks, against the server's own load generator with a pipeline.
pub(super) async fn batches(bench: &Bench) -> Vec<Row> {
    let client = connect(bench).await;
    let stream = stream(&client);
    let mut paired = Paired::default();
    for _ in 0..bench.options.rounds {
        let x32 = async |_| bench.yardsticks.measure(Yardstick::X32, bench.options.requests(150_000.0)).await;
        let batches = async |window| {
            let stream = stream.clone();
            let added = per_second(8, window, move |_, _| {
                let stream = stream.clone();
                async move {
                    let events = std::iter::repeat_n(event(), BATCH);
                    stream.add_batch(events).await.expect("the batch failed");
                }
            });
            added.await * BATCH as f64
        };
        let (ours, x32) = in_turn(bench.options.window, batches, x32).await;
        bench.server.flush();
        paired.push(ours, x32);
    }
    client.close().await;
    let scenario = "add_batch of 100, 8 tasks";
    vec![Row::multiple(scenario, thousands(paired.ours()), &paired, "X32", Goal::AtLeast(0.55), "has none")]
}

/// One add after the other, against the round trip of a `PING` through fred.
pub(super) async fn sequential_adds(bench: &Bench) -> Vec<Row> {
    let client = connect(bench).await;
    let (stream, bare) = (stream(&client), Bare::connect(&bench.options.url).await);
    let samples = bench.options.samples;
    let mut paired = Paired::default();
    for _ in 0..bench.options.rounds {
        let fred = bare.clone();
        let ping = median_latency(samples, move |_| {
            let fred = fred.clone();
            async move { fred.ping().await }
        });
        let ping = bench.yardsticks.record(Yardstick::F, ping.await);
        let adder = stream.clone();
        let add = median_latency(samples, move |_| {
            let stream = adder.clone();
            async move { add(&stream).await }
        });
        paired.push(add.await, ping);
    }
    bare.close().await;
    client.close().await;
    let scenario = "add, sequential, median";
    vec![Row::multiple(scenario, micros(paired.ours()), &paired, "F", Goal::AtMost(1.3), "not measured")]
}
