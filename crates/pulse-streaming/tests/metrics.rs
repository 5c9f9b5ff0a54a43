//! What is counted and gauged, as a collector sees it.
#![cfg(feature = "metrics")]

use std::{collections::HashMap, time::Duration};

use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use pulse_streaming::{EventStream, Start, Trim};

/// The values of one stream and sink, by name.
fn collected(snapshotter: &Snapshotter, sink: &str) -> HashMap<String, f64> {
    let own =
        |key: &metrics::Key| key.labels().find(|label| label.key() == "sink").is_none_or(|label| label.value() == sink);
    let value = |value| match value {
        DebugValue::Counter(count) => f64::from(u32::try_from(count).unwrap()),
        DebugValue::Gauge(gauge) => gauge.into_inner(),
        DebugValue::Histogram(_) => f64::NAN,
    };
    let all = snapshotter.snapshot().into_vec();
    let own = all.into_iter().filter(|(key, ..)| own(key.key()));
    own.map(|(key, _, _, found)| (key.key().name().to_owned(), value(found))).collect()
}

async fn work(snapshotter: &Snapshotter) {
    let client = pulse_streaming::connect("memory:").await.unwrap();
    let stream = EventStream::new(&client, "events").unwrap();
    for _ in 0..10 {
        stream.add("n", "p").await.unwrap();
    }
    let mut sink = stream.sink("slow").start(Start::Oldest).buffer(2).join().await.unwrap();
    let delivery = sink.next().await.unwrap().unwrap();
    delivery.ack().await.unwrap();
    let counted = collected(snapshotter, "slow");
    assert_eq!(counted["pulse_streaming_added_total"], 10.0);
    assert_eq!(counted["pulse_streaming_acked_total"], 1.0);
    // The clock is paused, and runs to the next look at the group.
    tokio::time::sleep(Duration::from_secs(30)).await;
    let gauged = collected(snapshotter, "slow");
    let (lag, pending) = (gauged["pulse_streaming_lag"], gauged["pulse_streaming_pending"]);
    assert_eq!(lag + pending, 9.0, "one of ten is acknowledged: {lag} and {pending}");
    let age = gauged["pulse_streaming_oldest_pending_seconds"];
    assert!(pending >= 1.0 && (10.0..=30.0).contains(&age), "looked at in the last 15 s: {gauged:?}");
    stream.trim(Trim::MaxLength { length: 2, approximate: false }).await.unwrap();
    while sink.next().await.unwrap().is_ok() {}
    let counted = collected(snapshotter, "slow");
    assert_eq!(counted["pulse_streaming_gaps_total"], 1.0);
    assert!(counted["pulse_streaming_missed_total"] >= 1.0, "{counted:?}");
}

#[test]
fn a_collector_sees_what_happened_and_where_a_sink_stands() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    metrics::with_local_recorder(&recorder, || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(work(&snapshotter));
    });
}
