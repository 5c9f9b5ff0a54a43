//! What running a handler promises, on paused time.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use pulse_streaming::{
    Attempt, Event, EventId, EventStream, NewEvent, PartitionedSink, PartitionedStream, RetryPolicy, Sink, Start,
    connect,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const GRACE: Duration = Duration::from_secs(30);
const SECOND: Duration = Duration::from_secs(1);

async fn stream_of(events: u32) -> EventStream {
    let client = connect("memory:").await.expect("the embedded backend is always there");
    let stream = EventStream::new(&client, "events").expect("a valid name");
    stream.add_batch((0..events).map(|n| NewEvent::new("n", n.to_string()))).await.expect("the events are added");
    stream
}

async fn sink(stream: &EventStream) -> Sink {
    stream.sink("s").start(Start::Oldest).ack_grace(GRACE).join().await.expect("the sink is joined")
}

fn number(event: &Attempt) -> u32 {
    std::str::from_utf8(event.payload()).expect("a text").parse().expect("a number")
}

/// Ends a run once so many calls were made.
#[derive(Clone, Default)]
struct Calls {
    made: Arc<Mutex<Vec<(u32, u64)>>>,
    done: CancellationToken,
}

impl Calls {
    fn note(&self, event: &Attempt, enough: usize) {
        let mut made = self.made.lock().unwrap();
        made.push((number(event), event.number()));
        if made.len() >= enough {
            self.done.cancel();
        }
    }

    fn made(&self) -> Vec<(u32, u64)> {
        self.made.lock().unwrap().clone()
    }

    fn enough(&self) -> impl Future<Output = ()> + Send + 'static {
        self.done.clone().cancelled_owned()
    }
}

async fn nothing_is_left(stream: &EventStream) {
    let info = stream.sink_info("s").await.unwrap().unwrap();
    assert_eq!((info.pending, info.lag), (0, Some(0)));
    assert!(info.consumers.is_empty(), "the sink was closed");
}

#[tokio::test(start_paused = true)]
async fn every_event_is_handled_once_side_by_side_and_acknowledged() {
    let stream = stream_of(100).await;
    let (calls, running, most) = (Calls::default(), Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
    let (noted, most_noted) = (calls.clone(), most.clone());
    let ran = sink(&stream)
        .await
        .run(8, move |event| {
            let (calls, running, most) = (noted.clone(), running.clone(), most_noted.clone());
            async move {
                most.fetch_max(running.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
                tokio::time::sleep(SECOND).await;
                running.fetch_sub(1, Ordering::Relaxed);
                calls.note(&event, 100);
                Ok::<_, String>(())
            }
        })
        .until(calls.enough())
        .await;
    assert_eq!((ran.handled, ran.failed, ran.dead_lettered, ran.unsettled), (100, 0, 0, 0));
    assert_eq!(most.load(Ordering::Relaxed), 8);
    let numbers: BTreeSet<u32> = calls.made().into_iter().map(|(number, _)| number).collect();
    assert_eq!(numbers.len(), 100);
    nothing_is_left(&stream).await;
}

#[tokio::test(start_paused = true)]
async fn what_fails_is_handled_again_later_and_later_and_is_a_dead_letter_in_the_end() {
    let stream = stream_of(1).await;
    let begun = Instant::now();
    let times = Arc::<Mutex<Vec<Duration>>>::default();
    let (calls, noted) = (Calls::default(), times.clone());
    let running = calls.clone();
    let ran = sink(&stream)
        .await
        .run(1, move |event| {
            noted.lock().unwrap().push(begun.elapsed());
            running.note(&event, 4);
            async move {
                match event.number() {
                    1 => Err("an error"),
                    2 => panic!("a panic"),
                    3 => std::future::pending().await,
                    _ => Err("the last error"),
                }
            }
        })
        .retry(RetryPolicy::new().attempts(4).pauses(SECOND, 60 * SECOND))
        .timeout(5 * SECOND)
        .until({
            let done = calls.enough();
            async move {
                done.await;
                tokio::time::sleep(SECOND).await;
            }
        })
        .await;
    assert_eq!(calls.made(), [(0, 1), (0, 2), (0, 3), (0, 4)]);
    assert_eq!((ran.handled, ran.failed, ran.dead_lettered, ran.unsettled), (0, 4, 1, 0));
    let times = times.lock().unwrap().clone();
    let pauses = [times[1] - times[0], times[2] - times[1], times[3] - times[2] - 5 * SECOND];
    for (pause, step) in pauses.into_iter().zip([SECOND, 2 * SECOND, 4 * SECOND]) {
        assert!(pause >= step / 2 && pause <= step + SECOND / 2, "{pauses:?}");
    }
    let letters = stream.dead_letters("s").unwrap().list(EventId::ZERO, 10).await.unwrap();
    assert_eq!((letters.len(), letters[0].reason(), letters[0].deliveries()), (1, "the last error", 4));
    nothing_is_left(&stream).await;
}

#[tokio::test(start_paused = true)]
async fn a_handler_may_work_for_longer_than_the_grace_period() {
    let stream = stream_of(1).await;
    // Another instance would take it over.
    let mut other = sink(&stream).await;
    let calls = Calls::default();
    let running = calls.clone();
    let run = tokio::spawn(
        sink(&stream)
            .await
            .run(1, move |event| {
                let calls = running.clone();
                async move {
                    tokio::time::sleep(10 * GRACE).await;
                    calls.note(&event, 1);
                    Ok::<_, String>(())
                }
            })
            .until(calls.enough())
            .into_future(),
    );
    tokio::select! {
        ran = run => assert_eq!(ran.unwrap().handled, 1),
        taken = other.next() => {
            // Whoever gets it first has it; then there is nothing to show.
            let delivery = taken.unwrap().unwrap();
            assert_eq!(delivery.deliveries(), 1, "it was taken away from the handler");
            delivery.ack().await.unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn events_of_one_key_are_handled_one_after_the_other_even_if_one_fails() {
    let stream = stream_of(60).await;
    let (calls, running) = (Calls::default(), Arc::<Mutex<BTreeSet<u32>>>::default());
    let noted = calls.clone();
    let ran = sink(&stream)
        .await
        .run(16, move |event| {
            let (calls, running) = (noted.clone(), running.clone());
            async move {
                let key = number(&event) % 5;
                assert!(running.lock().unwrap().insert(key), "two of one key at a time");
                tokio::time::sleep(SECOND * (1 + number(&event) % 3)).await;
                running.lock().unwrap().remove(&key);
                let fails = number(&event).is_multiple_of(7) && event.number() < 3;
                calls.note(&event, 60 + 2 * 9);
                if fails { Err("not yet") } else { Ok(()) }
            }
        })
        .keyed_by(|event| std::str::from_utf8(event.payload()).unwrap().parse::<u32>().unwrap() % 5)
        .retry(RetryPolicy::new().attempts(5).pauses(GRACE, 2 * GRACE))
        .until(calls.enough())
        .await;
    assert_eq!((ran.handled, ran.failed, ran.unsettled), (60, 18, 0));
    let mut by_key: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for (number, _) in calls.made() {
        by_key.entry(number % 5).or_default().push(number);
    }
    for (key, numbers) in by_key {
        assert!(numbers.is_sorted(), "key {key}: {numbers:?}");
    }
    nothing_is_left(&stream).await;
}

#[tokio::test(start_paused = true)]
async fn an_error_that_no_attempt_mends_is_given_up_at_once() {
    let stream = stream_of(2).await;
    let calls = Calls::default();
    let noted = calls.clone();
    let ran = sink(&stream)
        .await
        .run(1, move |event| {
            noted.note(&event, 2);
            async move { Err::<(), _>(if number(&event) == 0 { "hopeless" } else { "maybe later" }) }
        })
        .give_up_if(|error| *error == "hopeless")
        .until(calls.enough())
        .await;
    assert_eq!((ran.failed, ran.dead_lettered), (2, 1));
    let letters = stream.dead_letters("s").unwrap().list(EventId::ZERO, 10).await.unwrap();
    assert_eq!((letters.len(), letters[0].reason()), (1, "hopeless"));
}

#[tokio::test(start_paused = true)]
async fn a_run_that_ends_lets_handlers_finish_and_gives_back_what_does_not() {
    let stream = stream_of(3).await;
    let (started, cancelled) = (CancellationToken::new(), Arc::<Mutex<Vec<CancellationToken>>>::default());
    let (start, tokens) = (started.clone(), cancelled.clone());
    let end = async move {
        started.cancelled().await;
        tokio::time::sleep(SECOND).await;
    };
    let begun = Instant::now();
    let ran = sink(&stream)
        .await
        .run(2, move |event| {
            let (started, tokens) = (start.clone(), tokens.clone());
            async move {
                tokens.lock().unwrap().push(event.cancelled().clone());
                started.cancel();
                match number(&event) {
                    0 => tokio::time::sleep(5 * SECOND).await,
                    _ => std::future::pending().await,
                }
                Ok::<_, String>(())
            }
        })
        .until(end)
        .drain(10 * SECOND)
        .await;
    assert_eq!((ran.handled, ran.failed), (1, 0));
    assert!(begun.elapsed() < 12 * SECOND, "bounded by the time to drain");
    assert!(cancelled.lock().unwrap().iter().all(CancellationToken::is_cancelled), "all of them know");
    // The others come at once to whoever is there.
    let mut next = sink(&stream).await;
    let mut numbers = BTreeSet::new();
    for _ in 0..2 {
        let delivery = tokio::time::timeout(GRACE / 2, next.next()).await.expect("at once").unwrap().unwrap();
        numbers.insert(String::from_utf8(delivery.payload().to_vec()).unwrap());
        delivery.ack().await.unwrap();
    }
    assert_eq!(numbers, ["1", "2"].map(String::from).into());
}

#[tokio::test(start_paused = true)]
async fn batches_are_full_or_as_old_as_they_may_be() {
    let stream = stream_of(25).await;
    let (sizes, done) = (Arc::<Mutex<Vec<usize>>>::default(), CancellationToken::new());
    let (noted, end) = (sizes.clone(), done.clone());
    let ran = sink(&stream)
        .await
        .run_batches(10, SECOND, move |batch| {
            noted.lock().unwrap().push(batch.len());
            if noted.lock().unwrap().iter().sum::<usize>() == 25 {
                done.cancel();
            }
            async { Ok::<_, String>(()) }
        })
        .until(end.cancelled_owned())
        .await;
    assert_eq!(*sizes.lock().unwrap(), [10, 10, 5]);
    assert_eq!((ran.handled, ran.unsettled), (25, 0));
    nothing_is_left(&stream).await;
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_fails_comes_again_and_its_events_are_dead_letters_in_the_end() {
    let stream = stream_of(2).await;
    let (calls, done) = (Arc::<AtomicUsize>::default(), CancellationToken::new());
    let (made, end) = (calls.clone(), done.clone());
    let ran = sink(&stream)
        .await
        .run_batches(1, SECOND, move |batch| {
            let last = made.fetch_add(1, Ordering::Relaxed) + 1 == 4;
            let (spoilt, done) = (number(&batch[0]) == 1, done.clone());
            async move {
                if last {
                    done.cancel();
                }
                if spoilt { Err("spoilt") } else { Ok(()) }
            }
        })
        .retry(RetryPolicy::new().attempts(3).pauses(SECOND, 2 * SECOND))
        .until(end.cancelled_owned())
        .await;
    assert_eq!((ran.handled, ran.failed, ran.dead_lettered), (1, 3, 1));
    let letters = stream.dead_letters("s").unwrap().list(EventId::ZERO, 10).await.unwrap();
    assert_eq!((letters.len(), letters[0].reason(), &letters[0].payload()[..]), (1, "spoilt", &b"1"[..]));
    nothing_is_left(&stream).await;
}

/// Adds events of 40 keys to 8 partitions, `each` of every key, and returns where each key is.
async fn partitions(each: u32) -> (PartitionedStream, BTreeMap<u32, u32>) {
    let client = connect("memory:").await.expect("the embedded backend is always there");
    let stream = PartitionedStream::new(&client, "events", 8).expect("a valid name");
    let events = (0..40 * each).map(|n| ((n % 40).to_string(), NewEvent::new("n", n.to_string())));
    stream.add_batch(events).await.expect("the events are added");
    let places = (0..40).map(|key| (key, stream.partition_of(key.to_string()))).collect();
    (stream, places)
}

async fn partitioned_sink(stream: &PartitionedStream) -> PartitionedSink {
    stream.sink("s").start(Start::Oldest).ack_grace(GRACE).join().await.expect("the sink is joined")
}

#[tokio::test(start_paused = true)]
async fn a_partition_is_handled_in_order_even_if_events_fail_or_panic() {
    let (stream, places) = partitions(5).await;
    let (calls, running) = (Calls::default(), Arc::<Mutex<BTreeSet<u32>>>::default());
    let (noted, places_of, most) = (calls.clone(), places.clone(), Arc::<AtomicUsize>::default());
    let seen = most.clone();
    let ran = partitioned_sink(&stream)
        .await
        .run(16, move |event| {
            let (calls, running, seen) = (noted.clone(), running.clone(), seen.clone());
            let place = places_of[&(number(&event) % 40)];
            async move {
                {
                    let mut running = running.lock().unwrap();
                    assert!(running.insert(place), "two of one partition at a time");
                    seen.fetch_max(running.len(), Ordering::Relaxed);
                }
                tokio::time::sleep(SECOND * (1 + number(&event) % 3)).await;
                running.lock().unwrap().remove(&place);
                let fails = number(&event).is_multiple_of(10) && event.number() < 3;
                calls.note(&event, 200 + 2 * 20);
                assert!(!fails || event.number() == 1, "a panic is a failure too");
                if fails { Err("not yet") } else { Ok(()) }
            }
        })
        .retry(RetryPolicy::new().attempts(5).pauses(GRACE, 2 * GRACE))
        .until(calls.enough())
        .await;
    assert_eq!((ran.handled, ran.failed, ran.unsettled), (200, 40, 0));
    assert_eq!(most.load(Ordering::Relaxed), 8, "all partitions are handled side by side");
    let mut by_place: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for (number, _) in calls.made() {
        by_place.entry(places[&(number % 40)]).or_default().push(number);
    }
    for (place, numbers) in by_place {
        assert!(numbers.is_sorted(), "partition {place}: {numbers:?}");
    }
    for partition in stream.partitions() {
        let info = partition.sink_info("s").await.unwrap().unwrap();
        assert_eq!((info.pending, info.lag), (0, Some(0)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_is_stuck_holds_up_no_other() {
    let (stream, places) = partitions(50).await;
    let (stuck, calls) = (places[&0], Calls::default());
    let others = 50 * places.values().filter(|place| **place != stuck).count();
    let (noted, places_of) = (calls.clone(), places.clone());
    let began = Instant::now();
    let ran = partitioned_sink(&stream)
        .await
        .run(4, move |event| {
            let calls = noted.clone();
            let is_stuck = places_of[&(number(&event) % 40)] == stuck;
            async move {
                if is_stuck {
                    return Err("not ever");
                }
                calls.note(&event, others);
                Ok(())
            }
        })
        .retry(RetryPolicy::new().attempts(9).pauses(GRACE, GRACE))
        .drain(Duration::ZERO)
        .until(calls.enough())
        .await;
    assert_eq!((calls.made().len(), ran.handled), (others, others as u64));
    assert!(began.elapsed() < SECOND, "the others waited for the one that is stuck");
}

#[tokio::test(start_paused = true)]
async fn keys_of_one_partition_are_handled_side_by_side_if_only_keys_are_to_be_in_order() {
    let client = connect("memory:").await.unwrap();
    let stream = PartitionedStream::new(&client, "events", 1).unwrap();
    stream.add_batch((0..8).map(|n| (n.to_string(), NewEvent::new("n", n.to_string())))).await.unwrap();
    let (calls, all) = (Calls::default(), Arc::new(tokio::sync::Barrier::new(8)));
    let noted = calls.clone();
    let ran = partitioned_sink(&stream)
        .await
        .run(8, move |event| {
            let (calls, all) = (noted.clone(), all.clone());
            async move {
                // Met only if all are handled at once.
                all.wait().await;
                calls.note(&event, 8);
                Ok::<_, &str>(())
            }
        })
        .keyed_by(Event::id)
        .until(calls.enough())
        .await;
    assert_eq!(ran.handled, 8);
}
