//! Values of options that make no sense are refused where the builder ends, by name; the least and the most work.

use std::time::Duration;

use pulse_streaming::{Error, EventStream, NewEvent, PartitionedStream, Retention, Start};

const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The name of the option that was refused.
fn refused<T>(result: Result<T, Error>) -> Option<&'static str> {
    match result.err()? {
        Error::InvalidOption { option, .. } => Some(option),
        _ => None,
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_and_what_no_clock_can_measure_are_refused_by_name() {
    let client = pulse_streaming::connect("memory:").await.unwrap();
    let (stream, orders) = (|| EventStream::builder("events"), || PartitionedStream::builder("orders", 2));
    assert_eq!(refused(stream().retention(Retention::Newest(0)).open(&client)), Some("retention"));
    assert_eq!(refused(stream().retention(Retention::AboutNewest(0)).open(&client)), Some("retention"));
    assert_eq!(refused(stream().capacity(0).open(&client)), Some("capacity"));
    assert_eq!(refused(PartitionedStream::new(&client, "orders", 0)), Some("partitions"));
    assert_eq!(refused(PartitionedStream::new(&client, "orders", u32::MAX)), Some("partitions"));
    let (events, partitions) = (stream().open(&client).unwrap(), orders().open(&client).unwrap());
    assert_eq!(refused(events.reader().buffer(0).join().await), Some("buffer"));
    assert_eq!(refused(events.sink("s").buffer(0).join().await), Some("buffer"));
    assert_eq!(refused(events.sink("s").max_deliveries(0).join().await), Some("max deliveries"));
    assert_eq!(refused(partitions.reader().buffer(0).join().await), Some("buffer"));
    assert_eq!(refused(partitions.sink("s").in_flight(0).join().await), Some("in flight"));
    for time in [Duration::ZERO, Duration::from_nanos(1), YEAR + Duration::from_nanos(1), Duration::MAX] {
        assert_eq!(refused(stream().retention(Retention::Within(time)).open(&client)), Some("retention"), "{time:?}");
        assert_eq!(refused(stream().expires_after(time).open(&client)), Some("lifetime"), "{time:?}");
        assert_eq!(
            refused(orders().once_within(time).open(&client)),
            Some("time to remember ids of events"),
            "{time:?}"
        );
        assert_eq!(refused(events.reader().block(time).join().await), Some("block"), "{time:?}");
        assert_eq!(refused(events.sink("s").block(time).join().await), Some("block"), "{time:?}");
        assert_eq!(refused(events.sink("s").ack_grace(time).join().await), Some("ack grace"), "{time:?}");
        assert_eq!(refused(partitions.reader().block(time).join().await), Some("block"), "{time:?}");
        assert_eq!(refused(partitions.sink("s").lease(time).join().await), Some("lease"), "{time:?}");
    }
    assert_eq!(events.info().await.unwrap().map(|info| info.groups), None, "nothing was made");
    client.close().await;
}

#[tokio::test(start_paused = true)]
async fn the_least_and_the_most_work() {
    let client = pulse_streaming::connect("memory:").await.unwrap();
    for (events, times, count) in [(1, Duration::from_millis(10), 1), (usize::MAX, YEAR, u64::MAX)] {
        let stream =
            EventStream::builder(format!("events {count}")).retention(Retention::Newest(count)).capacity(count);
        let stream = stream.once_within(times).expires_after(YEAR).open(&client).unwrap();
        stream.add_once("id", NewEvent::new("n", "p")).await.unwrap();
        let reader = stream.reader().start(Start::Oldest).buffer(events).block(times);
        let sink = stream.sink("s").start(Start::Oldest).buffer(events).block(times).ack_grace(times);
        let (mut reader, mut sink) = (reader.join().await.unwrap(), sink.max_deliveries(count).join().await.unwrap());
        assert!(reader.next().await.is_some_and(|event| event.is_ok()));
        sink.next().await.unwrap().unwrap().nack_after(Duration::MAX).await.unwrap();
        reader.close().await;
        sink.close().await;
    }
    client.close().await;
}
