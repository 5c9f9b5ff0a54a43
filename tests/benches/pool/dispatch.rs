//! From a dispatch until the job runs.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use super::content::{Pool, connect, key, node};
use crate::harness::{
    Bare, Bench, Goal, PAYLOAD, Paired, Row, Yardstick, median_latency, micros, per_second, thousands,
};

/// How many dispatches make a measurement.
const SAMPLES: usize = 500;
/// Beside how many running jobs it is measured again.
const BESIDE: [usize; 2] = [10_000, 100_000];
/// Where the keys of measured jobs begin.
const MEASURED: usize = 100_000_000;

/// One caller that waits for each job to run.
pub(super) async fn one_after_the_other(bench: &Bench) -> Vec<Row> {
    let mut rows = Vec::new();
    let bare = Bare::connect(&bench.options.url).await;
    let mut alone = Paired::default();
    let mut beside = BESIDE.map(|_| Paired::default());
    // The fuller pools are measured in fewer rounds: filling them takes its time.
    for round in 0..bench.options.rounds {
        let pool = Pool::begin(bench).await;
        let empty = sequential(&pool, MEASURED).await;
        let fred = bare.clone();
        let ping = median_latency(2_000, move |_| {
            let fred = fred.clone();
            async move { fred.ping().await }
        });
        alone.push(empty, bench.yardsticks.record(Yardstick::F, ping.await));
        let mut filled = 0;
        for (at, (jobs, paired)) in BESIDE.iter().zip(&mut beside).enumerate() {
            if at > 0 && round >= 3 {
                break;
            }
            pool.fill(filled, jobs - filled).await;
            filled = *jobs;
            let full = sequential(&pool, MEASURED + (at + 1) * 10 * SAMPLES).await;
            paired.push(full, empty);
        }
        pool.end().await;
    }
    bare.close().await;
    let goal = Goal::AtMost(5.0);
    let scenario = "dispatch until running, one after the other, median";
    rows.push(Row::multiple(scenario, micros(alone.ours()), &alone, "F", goal, "21 P"));
    for (jobs, paired) in BESIDE.iter().zip(&beside) {
        let scenario = format!("the same beside {jobs} running jobs");
        rows.push(Row::multiple(
            scenario,
            micros(paired.ours()),
            paired,
            "of that",
            Goal::AtMost(1.1),
            "4.9 at 10,000",
        ));
    }
    rows
}

async fn sequential(pool: &Pool, from: usize) -> f64 {
    let (node, next) = (pool.nodes[0].clone(), Arc::new(AtomicUsize::new(from)));
    median_latency(SAMPLES, move |_| {
        let (node, next) = (node.clone(), next.clone());
        async move {
            let key = key(next.fetch_add(1, Ordering::Relaxed));
            node.dispatch(key, PAYLOAD.as_slice()).await.expect("the dispatch failed");
        }
    })
    .await
}

/// 64 callers on two nodes with two workers each.
pub(super) async fn many_callers(bench: &Bench) -> Vec<Row> {
    let rate = rate(bench, 64, 1).await;
    let goal = Goal::AtLeast(0.16);
    vec![Row::multiple("dispatch until running, 64 callers", thousands(rate.ours()), &rate, "X1", goal, "0.015")]
}

/// Four callers that dispatch a hundred at once.
pub(super) async fn batches(bench: &Bench) -> Vec<Row> {
    let rate = rate(bench, 4, 100).await;
    let goal = Goal::AtLeast(0.4);
    vec![Row::multiple("dispatch_batch of 100, 4 callers", thousands(rate.ours()), &rate, "X1", goal, "has none")]
}

/// 64 callers that wait for what functions make of their payloads.
pub(super) async fn tasks(bench: &Bench) -> Vec<Row> {
    let mut rate = Paired::default();
    for _ in 0..bench.options.rounds {
        let yardstick = bench.yardsticks.measure(Yardstick::X1, bench.options.requests(90_000.0)).await;
        let clients = [connect(bench).await, connect(bench).await];
        let mut nodes = Vec::new();
        for client in &clients {
            let node = node().join(client).await.expect("cannot join");
            node.worker_fn(|job| async move { Ok(job.payload().len()) }).concurrency(256).await.expect("no worker");
            nodes.push(Arc::new(node));
        }
        let (of, next) = (nodes.clone(), Arc::new(AtomicUsize::new(0)));
        let done = per_second(64, bench.options.window, move |task, _| {
            let (node, key) = (of[task % 2].clone(), key(next.fetch_add(1, Ordering::Relaxed)));
            async move {
                let length: usize = node.dispatch_and_wait((key, PAYLOAD.as_slice())).await.expect("the task failed");
                assert_eq!(length, PAYLOAD.len());
            }
        });
        rate.push(done.await, yardstick);
        nodes[0].shutdown().await.expect("the pool does not shut down");
        for client in clients {
            client.close().await;
        }
    }
    let (low, high) = rate.spread();
    let multiple = format!("{:.2} X1 ({low:.2} to {high:.2})", rate.multiple());
    vec![Row::shown("tasks until their results are known, 64 callers", thousands(rate.ours()), multiple)]
}

/// How many jobs come to run per second.
async fn rate(bench: &Bench, callers: usize, batch: usize) -> Paired {
    let mut rate = Paired::default();
    for _ in 0..bench.options.rounds {
        let yardstick = bench.yardsticks.measure(Yardstick::X1, bench.options.requests(90_000.0)).await;
        let pool = Pool::begin(bench).await;
        let (nodes, next) = (pool.nodes.clone(), Arc::new(AtomicUsize::new(0)));
        let batches = per_second(callers, bench.options.window, move |task, _| {
            let node = nodes[task % 2].clone();
            let first = next.fetch_add(batch, Ordering::Relaxed);
            async move {
                if batch == 1 {
                    node.dispatch(key(first), PAYLOAD.as_slice()).await.expect("the dispatch failed");
                    return;
                }
                let jobs = (first..first + batch).map(|number| (key(number), PAYLOAD.as_slice()));
                for outcome in node.dispatch_batch(jobs).await {
                    outcome.expect("a job was not dispatched");
                }
            }
        });
        rate.push(batches.await * batch as f64, yardstick);
        pool.end().await;
    }
    rate
}
