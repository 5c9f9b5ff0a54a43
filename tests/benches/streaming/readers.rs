//! Reading.

use std::time::Instant;

use pulse_streaming::Start;

use super::content::{connect, fill, stream};
use crate::harness::{Bench, Goal, Paired, Row, Yardstick, thousands};

/// One reader that takes all of a filled stream, against `XADD` by the server's own load generator.
pub(super) async fn one_reader(bench: &Bench) -> Vec<Row> {
    let client = connect(bench).await;
    let events = bench.options.requests(1_000_000.0);
    let mut paired = Paired::default();
    for _ in 0..bench.options.rounds {
        let x1 = bench.yardsticks.measure(Yardstick::X1, bench.options.requests(90_000.0)).await;
        let stream = stream(&client);
        fill(&stream, events).await;
        let begun = Instant::now();
        let mut reader = stream.reader().start(Start::Oldest).buffer(4_096).join().await.expect("cannot join");
        let reader = tokio::spawn(async move {
            for _ in 0..events {
                reader.next().await.expect("the reader ended").expect("the reader has a notice");
            }
            reader
        });
        let reader = reader.await.expect("the reader failed");
        paired.push(events as f64 / begun.elapsed().as_secs_f64(), x1);
        reader.close().await;
        bench.server.flush();
    }
    client.close().await;
    let scenario = "reader";
    vec![Row::multiple(scenario, thousands(paired.ours()), &paired, "X1", Goal::AtLeast(11.0), "10.6 X1")]
}
