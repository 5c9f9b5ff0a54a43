//! What a long stream costs.

use std::time::Instant;

use super::content::{add, connect, fill, stream};
use crate::harness::{Bench, Paired, Row, per_second, thousands};

/// How many events the stream retains.
const RETAINED: [usize; 3] = [10_000, 100_000, 1_000_000];
/// How many deliveries are made.
const DELIVERIES: usize = 20_000;

/// Adds to and deliveries from a stream that retains more and more, each as a multiple of those of the shortest.
pub(super) async fn retained_events(bench: &Bench) -> Vec<Row> {
    let client = connect(bench).await;
    let mut rates: [(Paired, Paired); 3] = Default::default();
    for _ in 0..bench.options.rounds.div_ceil(3) {
        let mut shortest = None;
        for (retained, (adds, deliveries)) in RETAINED.into_iter().zip(&mut rates) {
            let stream = stream(&client);
            fill(&stream, retained).await;
            let mut sink = stream.sink("bench").join().await.expect("cannot join");
            let added = {
                let stream = stream.clone();
                per_second(64, bench.options.window, move |_, _| {
                    let stream = stream.clone();
                    async move { add(&stream).await }
                })
                .await
            };
            fill(&stream, DELIVERIES).await;
            let begun = Instant::now();
            for _ in 0..DELIVERIES {
                drop(sink.next().await.expect("the sink ended").expect("the sink has a notice").ack());
            }
            let delivered = DELIVERIES as f64 / begun.elapsed().as_secs_f64();
            let (first_added, first_delivered) = *shortest.get_or_insert((added, delivered));
            adds.push(added, first_added);
            deliveries.push(delivered, first_delivered);
            sink.close().await;
            bench.server.flush();
        }
    }
    client.close().await;
    let row = |what: &str, retained: usize, paired: &Paired| {
        let multiple = format!("{:.2} of that with {} events", paired.multiple(), RETAINED[0]);
        Row::shown(format!("{what} with {retained} events retained"), thousands(paired.ours()), multiple)
    };
    let rows = RETAINED.into_iter().zip(&rates);
    rows.flat_map(|(retained, (adds, deliveries))| {
        [row("add, 64 tasks,", retained, adds), row("sink, acked,", retained, deliveries)]
    })
    .collect()
}
