//! A consumer that takes nothing.

use std::time::{Duration, Instant};

use pulse_streaming::Start;
use tokio::task::JoinSet;

use super::content::{add, connect, stream};
use crate::harness::{Bench, Goal, Row, resident_bytes, thousands};

/// How long the memory may settle before it is looked at for the first time.
const SETTLING: Duration = Duration::from_secs(3);

/// How much more memory the process has when a reader and a sink took nothing for a minute, with producers at full
/// speed.
pub(super) async fn stalled_consumer(bench: &Bench) -> Vec<Row> {
    let client = connect(bench).await;
    let stream = stream(&client);
    let reader = stream.reader().start(Start::Oldest).join().await.expect("cannot join");
    let sink = stream.sink("bench").start(Start::Oldest).join().await.expect("cannot join");
    let (begun, duration) = (Instant::now(), bench.options.idle * 6);
    let mut producers = JoinSet::new();
    for _ in 0..64 {
        let stream = stream.clone();
        producers.spawn(async move {
            let mut added = 0_u64;
            while begun.elapsed() < SETTLING + duration {
                add(&stream).await;
                added += 1;
            }
            added
        });
    }
    tokio::time::sleep(SETTLING).await;
    let before = resident_bytes();
    let added: u64 = producers.join_all().await.into_iter().sum();
    let grown = before.zip(resident_bytes()).map(|(before, after)| after.saturating_sub(before) as f64 / 1e6);
    reader.close().await;
    sink.close().await;
    client.close().await;
    let rate = thousands(added as f64 / begun.elapsed().as_secs_f64());
    // Unknown counts as a goal that is missed.
    let grown = grown.unwrap_or(f64::NAN);
    let scenario = format!("stalled consumers, producers at full speed for {duration:?}: more memory");
    vec![Row::plain(scenario, format!("{grown:.1} MB at {rate}"), grown, "MB", Goal::AtMost(5.0), "not measured")]
}
