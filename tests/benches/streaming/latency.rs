//! From the publisher to the consumer.

use std::time::Instant;

use pulse_streaming::Start;

use super::content::{connect, event, stream};
use crate::harness::{Bare, Bench, Goal, Paired, Row, Yardstick, median_latency, micros};

/// From the call of an add on one client until a sink of another client, which waits, has handed the event out.
pub(super) async fn publish_until_received(bench: &Bench) -> Vec<Row> {
    let (here, there) = (connect(bench).await, connect(bench).await);
    let publisher = stream(&here);
    let mut sink = stream(&there).sink("bench").start(Start::Oldest).join().await.expect("cannot join");
    let bare = Bare::connect(&bench.options.url).await;
    let samples = bench.options.samples;
    let (mut middle, mut slowest) = (Paired::default(), Paired::default());
    for _ in 0..bench.options.rounds {
        let fred = bare.clone();
        let ping = median_latency(samples, move |_| {
            let fred = fred.clone();
            async move { fred.ping().await }
        });
        let ping = bench.yardsticks.record(Yardstick::F, ping.await);
        let publisher = publisher.clone();
        let measured = tokio::spawn(async move {
            let mut taken = Vec::with_capacity(samples);
            for _ in 0..samples {
                let begun = Instant::now();
                let received = async {
                    let delivery = sink.next().await.expect("the sink ended").expect("the sink has a notice");
                    (begun.elapsed().as_secs_f64(), delivery)
                };
                let (added, (seconds, delivery)) = tokio::join!(publisher.add_event(event()), received);
                added.expect("the add failed");
                delivery.ack().await.expect("the acknowledgement failed");
                taken.push(seconds);
            }
            taken.sort_unstable_by(f64::total_cmp);
            (taken, sink)
        });
        let (taken, handle) = measured.await.expect("the measurement failed");
        sink = handle;
        middle.push(taken[samples / 2], ping);
        slowest.push(taken[samples * 99 / 100], ping);
    }
    sink.close().await;
    bare.close().await;
    here.close().await;
    there.close().await;
    let scenario = "publish until received by a waiting sink";
    let row = |which: &str, paired: &Paired, goal, original| {
        let scenario = format!("{scenario}, {which}");
        Row::multiple(scenario, micros(paired.ours()), paired, "F", Goal::AtMost(goal), original)
    };
    vec![row("median", &middle, 2.2, "1.75 P"), row("p99", &slowest, 3.5, "2.8 P")]
}
