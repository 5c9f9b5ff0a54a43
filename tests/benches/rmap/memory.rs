//! What a replica takes.

use std::process::Command;

use super::{
    SIZES, STATED,
    content::{connect, fill, join, keys},
};
use crate::harness::{Bench, Goal, PAYLOAD, Row, resident_bytes};

/// How many replicas are joined beside each other.
const REPLICAS: usize = 4;

/// What this program calls itself with, to look at a process in which nothing else happened.
pub(crate) const ALONE: &str = "rmap-memory";

/// What more of a process is in RAM for each replica of the same map, as a multiple of the keys and values.
pub(super) async fn replicas(bench: &Bench) -> Vec<Row> {
    let mut rows = Vec::new();
    for size in SIZES {
        let (client, keys) = (connect(bench).await, keys(size));
        let map = join(&client).await;
        fill(&map, &keys).await;
        map.close().await;
        client.close().await;
        let payload = (size * (keys[0].len() + PAYLOAD.len())) as f64;
        let url = bench.options.url.clone();
        let measured = tokio::task::spawn_blocking(move || ask_another(&url)).await.expect("the process failed");
        bench.server.flush();
        let Some(each) = measured else { continue };
        let (scenario, multiple) = (format!("memory of a replica of {size} keys"), each / payload);
        let ours = format!("{:.1} MB, {:.0} B an entry", each / 1e6, each / size as f64);
        rows.push(if size == STATED {
            Row::plain(scenario, ours, multiple, "of the payload", Goal::AtMost(2.5), "-")
        } else {
            Row::shown(scenario, ours, format!("{multiple:.2} of the payload"))
        });
    }
    rows
}

fn ask_another(url: &str) -> Option<f64> {
    let program = std::env::current_exe().expect("this program has a path");
    let output = Command::new(program).arg(ALONE).env("PULSE_BENCH_URL", url).output().expect("it cannot be run");
    String::from_utf8_lossy(&output.stdout).trim().parse().ok()
}

/// The other process: prints the bytes of each replica. The first replica is not counted, because it makes room for
/// what joining takes for a moment.
pub(crate) async fn alone(bench: &Bench) {
    let client = connect(bench).await;
    let _warm = join(&client).await;
    let before = resident_bytes();
    let mut replicas = Vec::new();
    for _ in 0..REPLICAS {
        replicas.push(join(&client).await);
    }
    if let Some((before, after)) = before.zip(resident_bytes()) {
        println!("{}", after.saturating_sub(before) as f64 / REPLICAS as f64);
    }
}
