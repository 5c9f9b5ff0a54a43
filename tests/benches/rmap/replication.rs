//! From the writer to the readers.

use std::{sync::Arc, time::Instant};

use pulse_rmap::Update;
use tokio::task::JoinSet;

use super::content::{connect, join, keys, place, value};
use crate::harness::{Bare, Bench, Goal, Paired, Row, Yardstick, median, median_latency, micros};

/// From the call of a set on one client until another client's replica has it.
pub(super) async fn write_until_readable_elsewhere(bench: &Bench) -> Vec<Row> {
    let (here, there) = (connect(bench).await, connect(bench).await);
    let (writer, reader, bare) = (join(&here).await, join(&there).await, Bare::connect(&bench.options.url).await);
    let keys = keys(1_000);
    let samples = bench.options.samples;
    let mut paired = Paired::default();
    for _ in 0..bench.options.rounds {
        let fred = bare.clone();
        let ping = median_latency(samples, move |_| {
            let fred = fred.clone();
            async move { fred.ping().await }
        });
        let ping = bench.yardsticks.record(Yardstick::F, ping.await);
        let (writer, mut changes, keys) = (writer.clone(), reader.subscribe(), Arc::clone(&keys));
        let measured = tokio::spawn(async move {
            let mut taken = Vec::with_capacity(samples);
            for number in 0..samples {
                let value = value();
                let begun = Instant::now();
                let seen = async {
                    let change = changes.next().await;
                    assert!(matches!(change, Some(Update::Change(_))), "the change did not arrive: {change:?}");
                    begun.elapsed().as_secs_f64()
                };
                let (set, seen) = tokio::join!(writer.set(Arc::clone(&keys[number % keys.len()]), &value), seen);
                set.expect("the set failed");
                taken.push(seen);
            }
            median(taken)
        });
        paired.push(measured.await.expect("the measurement failed"), ping);
    }
    bare.close().await;
    for (map, client) in [(writer, here), (reader, there)] {
        map.close().await;
        client.close().await;
    }
    let scenario = "write on A until readable on B, median";
    vec![Row::multiple(scenario, micros(paired.ours()), &paired, "F", Goal::AtMost(1.6), "1.56 P")]
}

/// How long after the last of 20,000 sets by 64 tasks eight replicas, each of a client of its own, have all of them.
pub(super) async fn eight_replicas(bench: &Bench) -> Vec<Row> {
    const SETS: usize = 20_000;
    const TASKS: usize = 64;
    let mut replicas = Vec::new();
    for _ in 0..8 {
        let client = connect(bench).await;
        replicas.push((join(&client).await, client));
    }
    let keys = keys(1_000);
    let mut taken = Vec::new();
    for _ in 0..bench.options.rounds {
        let mut tasks = JoinSet::new();
        for task in 0..TASKS {
            let (map, keys) = (replicas[0].0.clone(), Arc::clone(&keys));
            tasks.spawn(async move {
                let mut last = None;
                for number in 0..SETS / TASKS {
                    let key = Arc::clone(&keys[place(task, number, keys.len())]);
                    last = Some(map.set(key, &value()).await.expect("the set failed").version);
                }
                last
            });
        }
        let versions = tasks.join_all().await;
        let last = versions.into_iter().flatten().max_by_key(|version| version.revision);
        let begun = Instant::now();
        for (map, _) in &replicas {
            map.wait_for(last).await.expect("the replica ended");
        }
        taken.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    for (map, client) in replicas {
        map.close().await;
        client.close().await;
    }
    let worst = median(taken);
    let scenario = "8 replicas, 20,000 sets from 64 tasks: all converged after the last commit";
    vec![Row::plain(scenario, format!("{worst:.1} ms"), worst, "ms", Goal::AtMost(20.0), "not measured")]
}
