//! Writing.

use std::sync::Arc;

use super::content::{connect, join, keys, place, value};
use crate::harness::{
    Bare, Bench, Goal, Paired, Row, Yardstick, in_turn, median_latency, micros, per_second, thousands,
};

/// How many keys are written to.
const KEYS: usize = 1_000;
/// How many puts a batch has.
const BATCH: usize = 50;

/// One set after the other, against the round trip of a `PING` through fred.
pub(super) async fn sequential_sets(bench: &Bench) -> Vec<Row> {
    let client = connect(bench).await;
    let (map, bare, keys) = (join(&client).await, Bare::connect(&bench.options.url).await, keys(KEYS));
    let samples = bench.options.samples;
    let mut paired = Paired::default();
    for _ in 0..bench.options.rounds {
        let fred = bare.clone();
        let ping = median_latency(samples, move |_| {
            let fred = fred.clone();
            async move { fred.ping().await }
        });
        let ping = bench.yardsticks.record(Yardstick::F, ping.await);
        let (writer, keys) = (map.clone(), Arc::clone(&keys));
        let set = median_latency(samples, move |number| {
            let (map, key) = (writer.clone(), Arc::clone(&keys[number % KEYS]));
            async move { drop(map.set(key, &value()).await.expect("the set failed")) }
        });
        paired.push(set.await, ping);
    }
    bare.close().await;
    map.close().await;
    client.close().await;
    let scenario = "set, sequential, median";
    vec![Row::multiple(scenario, micros(paired.ours()), &paired, "F", Goal::AtMost(1.35), "not measured")]
}

/// Sets from 64 tasks, against `HSET` by the server's own load generator.
pub(super) async fn many_sets(bench: &Bench) -> Vec<Row> {
    let client = connect(bench).await;
    let (map, keys) = (join(&client).await, keys(KEYS));
    let mut paired = Paired::default();
    for _ in 0..bench.options.rounds {
        let h1 = bench.yardsticks.measure(Yardstick::H1, bench.options.requests(90_000.0)).await;
        let (writer, keys) = (map.clone(), Arc::clone(&keys));
        let sets = per_second(64, bench.options.window, move |task, number| {
            let (map, key) = (writer.clone(), Arc::clone(&keys[place(task, number, KEYS)]));
            async move { drop(map.set(key, &value()).await.expect("the set failed")) }
        });
        paired.push(sets.await, h1);
    }
    map.close().await;
    client.close().await;
    let scenario = "set, 64 tasks over 1,000 keys";
    vec![Row::multiple(scenario, thousands(paired.ours()), &paired, "H1", Goal::AtLeast(1.1), "0.54 H1")]
}

/// Batches of 50 puts from 16 tasks, against the same.
pub(super) async fn batches(bench: &Bench) -> Vec<Row> {
    let client = connect(bench).await;
    let (map, keys) = (join(&client).await, keys(KEYS));
    let mut paired = Paired::default();
    for _ in 0..bench.options.rounds {
        let h1 = async |_| bench.yardsticks.measure(Yardstick::H1, bench.options.requests(22_500.0)).await;
        let batches = async |window| {
            let (writer, keys) = (map.clone(), Arc::clone(&keys));
            let batches = per_second(16, window, move |task, number| {
                let (map, keys) = (writer.clone(), Arc::clone(&keys));
                async move {
                    let first = place(task, number * BATCH, KEYS);
                    let chosen = keys.iter().cycle().skip(first).take(BATCH);
                    let batch = chosen.fold(map.batch(), |batch, key| batch.set(Arc::clone(key), &value()));
                    batch.commit().await.expect("the batch failed");
                }
            });
            batches.await * BATCH as f64
        };
        let (ours, h1) = in_turn(bench.options.window, batches, h1).await;
        paired.push(ours, h1);
    }
    map.close().await;
    client.close().await;
    let scenario = "batches of 50 puts, 16 tasks";
    vec![Row::multiple(scenario, thousands(paired.ours()), &paired, "H1", Goal::AtLeast(4.0), "has none")]
}
