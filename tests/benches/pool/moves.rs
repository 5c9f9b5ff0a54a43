//! What moves when workers come and go, and how long that takes.

use std::time::{Duration, Instant};

use super::content::{Pool, connect, node};
use crate::harness::{Bench, Goal, Row, median};

const JOBS: usize = 10_000;
/// The name of the worker that comes and goes.
const FIFTH: usize = 4;
/// Of the node that dies.
const TTL: Duration = Duration::from_secs(2);

/// What was seen in the rounds.
#[derive(Default)]
struct Seen {
    seconds: Vec<f64>,
    moved: Vec<f64>,
    /// Starts of jobs that had no reason to move.
    stirred: Vec<f64>,
}

impl Seen {
    fn push(&mut self, seconds: f64, moved: usize, stirred: usize) {
        self.seconds.push(seconds);
        self.moved.push(moved as f64);
        self.stirred.push(stirred as f64);
    }

    fn time(&self, scenario: &str, goal: f64, original: &'static str) -> Row {
        let seconds = median(self.seconds.clone());
        Row::plain(scenario, format!("{seconds:.2} s"), seconds, "s", Goal::AtMost(goal), original)
    }

    fn stirred(&self, original: &'static str) -> Row {
        let most = self.stirred.iter().copied().fold(0.0, f64::max);
        Row::plain(
            "the same: other jobs that were started anew",
            format!("{most}"),
            most,
            "",
            Goal::AtMost(0.0),
            original,
        )
    }
}

/// A fifth worker joins four.
pub(super) async fn a_fifth_worker_joins(bench: &Bench) -> Vec<Row> {
    let mut seen = Seen::default();
    for _ in 0..bench.options.rounds.min(5) {
        let pool = Pool::begin(bench).await;
        pool.fill(0, JOBS).await;
        let client = connect(bench).await;
        let fifth = node().join(&client).await.expect("cannot join");
        let before = pool.running.starts();
        let begun = Instant::now();
        fifth.add_worker(pool.running.handler(FIFTH)).await.expect("cannot add a worker");
        let settled = until_quiet(&pool).await;
        let moved = pool.running.starts() - before;
        seen.push((settled - begun).as_secs_f64(), moved, moved - pool.running.of(FIFTH));
        pool.end().await;
        client.close().await;
    }
    let moved = median(seen.moved.clone()) * 100.0 / JOBS as f64;
    let off = (moved - 20.0).abs();
    vec![
        Row::plain(
            "a fifth worker joins: moved",
            format!("{moved:.1} %"),
            off,
            "% off 20 %",
            Goal::AtMost(3.0),
            "0 moved",
        ),
        seen.time("the same: until all run again", 1.0, "never"),
        seen.stirred("0"),
    ]
}

/// One worker of five leaves.
pub(super) async fn a_worker_leaves(bench: &Bench) -> Vec<Row> {
    let mut seen = Seen::default();
    for _ in 0..bench.options.rounds.min(5) {
        let pool = Pool::begin(bench).await;
        let client = connect(bench).await;
        let fifth = node().join(&client).await.expect("cannot join");
        let worker = fifth.add_worker(pool.running.handler(FIFTH)).await.expect("cannot add a worker");
        pool.fill(0, JOBS).await;
        let (own, before) = (pool.running.of(FIFTH), pool.running.starts());
        let begun = Instant::now();
        fifth.remove_worker(worker).await.expect("the worker does not leave");
        let settled = pool.running.settles(JOBS, before + own).await;
        let moved = pool.running.starts() - before;
        seen.push((settled - begun).as_secs_f64(), moved, moved - own);
        pool.end().await;
        client.close().await;
    }
    vec![seen.time("one worker of five leaves: until all run again", 1.0, "all moved"), seen.stirred("all moved")]
}

/// The node of one worker of five dies: it is dropped, so that its lease has to run out.
pub(super) async fn a_node_dies(bench: &Bench) -> Vec<Row> {
    let mut seen = Seen::default();
    for _ in 0..bench.options.rounds.min(5) {
        let pool = Pool::begin_with(bench, node().worker_ttl(TTL)).await;
        let client = connect(bench).await;
        let fifth = node().worker_ttl(TTL).join(&client).await.expect("cannot join");
        fifth.add_worker(pool.running.handler(FIFTH)).await.expect("cannot add a worker");
        pool.fill(0, JOBS).await;
        let (own, before) = (pool.running.of(FIFTH), pool.running.starts());
        let begun = Instant::now();
        drop(fifth);
        pool.running.died(FIFTH);
        let settled = pool.running.settles(JOBS, before + own).await;
        let moved = pool.running.starts() - before;
        seen.push((settled - begun).as_secs_f64(), moved, moved - own);
        pool.end().await;
        client.close().await;
    }
    let goal = (TTL + Duration::from_millis(500)).as_secs_f64();
    vec![seen.time("a node dies, TTL 2 s: until its jobs run again", goal, "2.8 s"), seen.stirred("170 of 400")]
}

/// Waits until all jobs run and none was started for a while. Returns when that began.
async fn until_quiet(pool: &Pool) -> Instant {
    loop {
        let starts = pool.running.starts();
        let settled = pool.running.settles(JOBS, starts).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        if pool.running.starts() == starts {
            return settled;
        }
    }
}
