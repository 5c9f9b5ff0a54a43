//! Partitioned sinks on a backend that is cut off, loses answers, or refuses; on paused time.

use std::time::Duration;

use pulse_streaming::{Client, NewEvent, PartitionedSink, PartitionedStream, connect};

use crate::{
    GRACE, MINUTE,
    probe::{Probe, Weather},
};

/// Expects this payload from a partitioned sink, and acknowledges it.
async fn work_off(sink: &mut PartitionedSink, expected: &str) {
    let next = tokio::time::timeout(2 * GRACE, sink.next()).await;
    let delivery = next.expect("a delivery comes").expect("the sink is open").expect("nothing was lost");
    assert_eq!(delivery.payload(), expected);
    delivery.ack().await.expect("the event is acknowledged");
}

#[tokio::test(start_paused = true)]
async fn a_partitioned_instance_that_is_cut_off_hands_nothing_out_and_joins_again_when_it_can() {
    let client: Client = connect("memory:").await.unwrap();
    let (far, probe) = Probe::around(&client);
    let lease = GRACE / 2;
    let stream = |client| PartitionedStream::new(client, "orders", 4).expect("a valid name");
    let near = stream(&client);
    let join =
        async |stream: &PartitionedStream| stream.sink("s").ack_grace(6 * GRACE).lease(lease).join().await.unwrap();
    let mut cut_off = join(&stream(&far)).await;
    let numbers: Vec<String> = (0..10).map(|n: u32| n.to_string()).collect();
    near.add_batch(numbers.iter().map(|n| ("k", NewEvent::new("n", n.clone())))).await.unwrap();
    let held = cut_off.next().await.unwrap().unwrap();
    assert_eq!(held.payload(), "0");

    probe.set(Weather::CutOff);
    tokio::time::sleep(lease).await;
    let mut survivor = join(&near).await;
    assert!(tokio::time::timeout(Duration::from_secs(1), cut_off.next()).await.is_err());
    for expected in &numbers {
        work_off(&mut survivor, expected).await;
    }
    probe.set(Weather::Fair);
    let late = held.ack().await;
    assert!(late.is_ok(), "it does no harm: {late:?}");
    tokio::time::sleep(MINUTE).await;
    survivor.close().await;
    near.add("k", "n", "10").await.unwrap();
    work_off(&mut cut_off, "10").await;
    cut_off.close().await;
}

/// Every call fails or loses its answer now and then; what a sink of one partition hands out keeps its order.
#[tokio::test(start_paused = true)]
async fn a_partition_keeps_its_order_whatever_calls_fail() {
    for weather in [Weather::CutOff, Weather::AnswersLost, Weather::CommitsCutOff, Weather::WrongType] {
        let client: Client = connect("memory:").await.unwrap();
        let (far, probe) = Probe::around(&client);
        let near = PartitionedStream::new(&client, "orders", 1).unwrap();
        let far = PartitionedStream::new(&far, "orders", 1).unwrap();
        let mut sink = far.sink("s").ack_grace(GRACE).lease(MINUTE).buffer(8).join().await.unwrap();
        let mut first_seen = Vec::new();
        for round in 0..20_u32 {
            let numbers = (round * 10..round * 10 + 10).map(|n| ("k", NewEvent::new("n", n.to_string())));
            near.add_batch(numbers).await.unwrap();
            probe.set(if round % 2 == 0 { weather } else { Weather::Fair });
            for _ in 0..12 {
                let Ok(next) = tokio::time::timeout(GRACE / 10, sink.next()).await else { break };
                let Ok(delivery) = next.unwrap() else { continue };
                let number: u32 = std::str::from_utf8(delivery.payload()).unwrap().parse().unwrap();
                if !first_seen.contains(&number) {
                    first_seen.push(number);
                }
                match number % 3 {
                    0 => drop(delivery.ack()),
                    1 => drop(delivery.nack()),
                    _ => drop(delivery),
                }
            }
        }
        probe.set(Weather::Fair);
        while first_seen.len() < 200 {
            let next =
                tokio::time::timeout(MINUTE, sink.next()).await.unwrap_or_else(|_| panic!("lost: {first_seen:?}"));
            let Ok(delivery) = next.unwrap() else { continue };
            let number: u32 = std::str::from_utf8(delivery.payload()).unwrap().parse().unwrap();
            if !first_seen.contains(&number) {
                first_seen.push(number);
            }
            delivery.ack().await.unwrap();
        }
        assert!(first_seen.is_sorted(), "{weather:?}: {first_seen:?}");
    }
}
