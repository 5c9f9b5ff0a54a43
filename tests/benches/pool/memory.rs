//! What the jobs take on a node that does not run them.

use std::process::Command;

use super::content::{Pool, connect, node};
use crate::harness::{Bench, Goal, Row, resident_bytes};

/// What this program calls itself with, to look at a process in which nothing else happened.
pub(crate) const ALONE: &str = "pool-memory";

const JOBS: usize = 100_000;
/// How many nodes join beside each other.
const NODES: usize = 4;

/// What more of a process is in RAM for each job of a pool.
pub(super) async fn of_jobs_elsewhere(bench: &Bench) -> Vec<Row> {
    let pool = Pool::begin(bench).await;
    pool.fill(0, JOBS).await;
    let url = bench.options.url.clone();
    let measured = tokio::task::spawn_blocking(move || ask_another(&url)).await.expect("the process failed");
    pool.end().await;
    let Some(each) = measured else { return Vec::new() };
    let scenario = "memory of a job on a node that does not run it";
    vec![Row::plain(scenario, format!("{each:.0} B"), each, "B", Goal::AtMost(200.0), "not measured")]
}

fn ask_another(url: &str) -> Option<f64> {
    let program = std::env::current_exe().expect("this program has a path");
    let output = Command::new(program).arg(ALONE).env("PULSE_BENCH_URL", url).output().expect("it cannot be run");
    String::from_utf8_lossy(&output.stdout).trim().parse().ok()
}

/// The other process: prints the bytes for each job. The first node is not counted, because it makes room for what
/// joining takes for a moment.
pub(crate) async fn alone(bench: &Bench) {
    let client = connect(bench).await;
    let _warm = node().join(&client).await.expect("cannot join");
    let before = resident_bytes();
    let mut nodes = Vec::new();
    for _ in 0..NODES {
        nodes.push(node().join(&client).await.expect("cannot join"));
    }
    if let Some((before, after)) = before.zip(resident_bytes()) {
        println!("{}", after.saturating_sub(before) as f64 / (NODES * JOBS) as f64);
    }
    for node in nodes {
        node.close().await.expect("a node does not close");
    }
}
