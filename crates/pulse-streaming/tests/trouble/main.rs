//! Readers and sinks on a backend that is cut off, loses answers, refuses, or holds what Pulse did not write; on paused
//! time, so that the number of calls in a minute is exact.

mod partitioned;
mod probe;

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use pulse_core::{Consumer, Group, GroupStart, Transaction};
use pulse_streaming::{Attempt, Client, Delivery, Error, EventStream, NewEvent, Notice, Sink, Start, connect};
use tokio_util::sync::CancellationToken;

use self::probe::{GARBAGE, Probe, SLOW, Weather};

const GRACE: Duration = Duration::from_secs(10);
const MINUTE: Duration = Duration::from_secs(60);

/// A stream on fair weather, and the same stream through a probe.
async fn two_ways() -> (EventStream, EventStream, Arc<Probe>) {
    let client: Client = connect("memory:").await.expect("the embedded backend is always there");
    let (probed, probe) = Probe::around(&client);
    let stream = |client| EventStream::new(client, "events").expect("a valid name");
    (stream(&client), stream(&probed), probe)
}

async fn next(sink: &mut Sink) -> Delivery {
    let next = tokio::time::timeout(4 * GRACE, sink.next()).await;
    next.expect("a delivery comes").expect("the sink is open").expect("nothing was lost")
}

#[tokio::test(start_paused = true)]
async fn an_outage_costs_few_calls_and_no_event() {
    let (stream, probed, probe) = two_ways().await;
    let mut reader = probed.reader().join().await.unwrap();
    let mut sink = probed.sink("s").ack_grace(GRACE).join().await.unwrap();
    probe.set(Weather::CutOff);
    // Let the reads that wait already run out.
    tokio::time::sleep(GRACE).await;
    let before = probe.calls();
    let added = stream.add_batch((0..5).map(|_| NewEvent::new("n", "p"))).await.unwrap();
    tokio::time::sleep(MINUTE).await;
    let calls = probe.calls() - before;
    assert!((10..80).contains(&calls), "{calls} calls of a reader and a sink in a minute");

    probe.set(Weather::Fair);
    for id in added {
        assert_eq!(reader.next().await.unwrap().unwrap().id(), id);
        let delivery = next(&mut sink).await;
        assert_eq!((delivery.id(), delivery.deliveries()), (id, 1));
        delivery.ack().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn events_whose_answer_was_lost_come_by_a_claim() {
    let (stream, probed, probe) = two_ways().await;
    let mut sink = probed.sink("s").ack_grace(GRACE).join().await.unwrap();
    probe.set(Weather::AnswersLost);
    let added = stream.add("n", "p").await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    probe.set(Weather::Fair);
    let delivery = next(&mut sink).await;
    assert_eq!((delivery.id(), delivery.deliveries()), (added, 2));
}

#[tokio::test(start_paused = true)]
async fn an_acknowledgement_outlives_a_short_outage_and_fails_in_a_long_one() {
    let (stream, probed, probe) = two_ways().await;
    let mut sink = probed.sink("s").ack_grace(GRACE).join().await.unwrap();
    stream.add_batch((0..2).map(|_| NewEvent::new("n", "p"))).await.unwrap();
    let (one, two) = (next(&mut sink).await, next(&mut sink).await);
    probe.set(Weather::CutOff);
    let ack = one.ack();
    tokio::time::sleep(GRACE / 4).await;
    probe.set(Weather::Fair);
    ack.await.unwrap();
    assert_eq!(stream.sink_info("s").await.unwrap().unwrap().pending, 1);

    probe.set(Weather::CutOff);
    let error = two.ack().await.unwrap_err();
    assert!(error.is_retryable() && !error.is_outcome_unknown(), "{error:?}");
}

/// Acknowledges a fresh delivery just before its grace period ends, and lets the acknowledgement through once the sink
/// has claimed the event from itself.
async fn ack_across_a_claim(probe: &Probe, delivery: Delivery) {
    tokio::time::sleep(GRACE.mul_f64(0.9)).await;
    probe.set(Weather::CommitsCutOff);
    let ack = delivery.ack();
    tokio::time::sleep(GRACE.mul_f64(0.42)).await;
    probe.set(Weather::Fair);
    ack.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_is_claimed_while_its_acknowledgement_is_on_its_way_is_not_handed_out_again() {
    let (stream, probed, probe) = two_ways().await;
    let mut sink = probed.sink("s").ack_grace(GRACE).join().await.unwrap();
    stream.add("n", "p").await.unwrap();
    let delivery = next(&mut sink).await;
    ack_across_a_claim(&probe, delivery).await;
    let again = tokio::time::timeout(3 * GRACE, sink.next()).await;
    assert!(again.is_err(), "{again:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_claimed_once_too_often_while_its_acknowledgement_is_on_its_way_is_not_given_up() {
    let (stream, probed, probe) = two_ways().await;
    let mut sink = probed.sink("s").ack_grace(GRACE).max_deliveries(1).join().await.unwrap();
    stream.add("n", "p").await.unwrap();
    let delivery = next(&mut sink).await;
    ack_across_a_claim(&probe, delivery).await;
    tokio::time::sleep(3 * GRACE).await;
    assert!(stream.dead_letters("s").unwrap().is_empty().await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_needs_no_acknowledgements_leaves_what_it_did_not_read_to_the_others() {
    let (stream, probed, _) = two_ways().await;
    let sink = probed.sink("s").no_ack().ack_grace(GRACE).join().await.unwrap();
    tokio::time::sleep(GRACE / 10).await;
    let added = stream.add("n", "p").await.unwrap();
    sink.close().await;
    let mut other = stream.sink("s").no_ack().ack_grace(GRACE).join().await.unwrap();
    assert_eq!(next(&mut other).await.id(), added);
}

#[tokio::test(start_paused = true)]
async fn what_was_given_back_for_later_keeps_its_time_though_the_sink_is_closed() {
    let (stream, _, _) = two_ways().await;
    let mut sink = stream.sink("s").ack_grace(GRACE).join().await.unwrap();
    stream.add("n", "p").await.unwrap();
    let began = tokio::time::Instant::now();
    next(&mut sink).await.nack_after(GRACE / 2).await.unwrap();
    sink.close().await;
    let mut other = stream.sink("s").ack_grace(GRACE).join().await.unwrap();
    let delivery = next(&mut other).await;
    assert!(began.elapsed() >= GRACE / 2, "{:?}", began.elapsed());
    delivery.ack().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_pulse_did_not_write_is_skipped_and_acknowledged() {
    let (stream, probed, _) = two_ways().await;
    let mut reader = probed.reader().join().await.unwrap();
    let mut sink = probed.sink("s").ack_grace(GRACE).join().await.unwrap();
    for name in [GARBAGE, "first", GARBAGE, GARBAGE, "second", GARBAGE] {
        stream.add(name, "p").await.unwrap();
    }
    for name in ["first", "second"] {
        assert_eq!(reader.next().await.unwrap().unwrap().name(), name);
        let delivery = next(&mut sink).await;
        assert_eq!(delivery.name(), name);
        delivery.ack().await.unwrap();
    }
    sink.close().await;
    reader.close().await;
    assert_eq!(stream.sink_info("s").await.unwrap().unwrap().pending, 0);
}

#[tokio::test(start_paused = true)]
async fn a_sink_without_its_group_does_not_spin() {
    let (stream, probed, probe) = two_ways().await;
    let mut sink = probed.sink("s").ack_grace(GRACE).join().await.unwrap();
    stream.add("n", "p").await.unwrap();
    next(&mut sink).await.ack().await.unwrap();
    stream.destroy().await.unwrap();
    let before = probe.calls();
    assert!(tokio::time::timeout(MINUTE, sink.next()).await.is_err());
    let calls = probe.calls() - before;
    assert!(calls < 40, "{calls} calls in a minute while there is no stream");

    // A group that vanishes again and again, as if somebody else cleaned up too eagerly.
    let group = Group::new("s").unwrap();
    let before = probe.calls();
    stream.add("n", "p").await.unwrap();
    for _ in 0..600 {
        tokio::time::sleep(MINUTE / 600).await;
        stream.client().backend().group_destroy(stream.id(), &group).await.unwrap();
    }
    let calls = probe.calls() - before;
    assert!(calls < 600, "{calls} calls in a minute while the group vanishes ten times a second");
}

#[tokio::test(start_paused = true)]
async fn what_does_not_heal_is_told_once_and_tried_on() {
    let (stream, probed, probe) = two_ways().await;
    let mut reader = probed.reader().join().await.unwrap();
    let mut sink = probed.sink("s").ack_grace(GRACE).join().await.unwrap();
    probe.set(Weather::WrongType);
    let told = reader.next().await.unwrap();
    assert!(matches!(told, Err(Notice::Failing { .. })), "{told:?}");
    let told = sink.next().await.unwrap();
    assert!(matches!(told, Err(Notice::Failing { .. })), "{told:?}");
    tokio::time::sleep(MINUTE).await;
    probe.set(Weather::Fair);
    let id = stream.add("n", "p").await.unwrap();
    assert_eq!(reader.next().await.unwrap().unwrap().id(), id);
    assert_eq!(next(&mut sink).await.id(), id);
}

#[tokio::test(start_paused = true)]
async fn closing_ends_while_the_backend_is_cut_off() {
    let (stream, probed, probe) = two_ways().await;
    let mut sink = probed.sink("s").ack_grace(GRACE).join().await.unwrap();
    stream.add_batch((0..5).map(|_| NewEvent::new("n", "p"))).await.unwrap();
    let ack = next(&mut sink).await.ack();
    ack.await.unwrap();
    probe.set(Weather::CutOff);
    let ack = next(&mut sink).await.ack();
    tokio::time::timeout(GRACE, sink.close()).await.expect("closing ends");
    assert!(ack.await.is_err());
    assert!(sink.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn what_is_acknowledged_while_the_sink_leaves_is_not_given_away() {
    let (stream, probed, probe) = two_ways().await;
    let mut sink = probed.sink("s").ack_grace(GRACE).join().await.unwrap();
    stream.add("n", "p").await.unwrap();
    let delivery = next(&mut sink).await;
    let mut other = stream.sink("s").ack_grace(GRACE).join().await.unwrap();
    probe.set(Weather::Slow);
    let mut closing = std::pin::pin!(sink.close());
    // The sink has stopped carrying acknowledgements and asks what is pending.
    assert!(tokio::time::timeout(SLOW / 2, &mut closing).await.is_err());
    let ack = delivery.ack();
    closing.await;
    let given_away = tokio::time::timeout(GRACE / 2, other.next()).await;
    assert!(given_away.is_err(), "{given_away:?}");
    ack.await.unwrap();
    let again = tokio::time::timeout(3 * GRACE, other.next()).await;
    assert!(again.is_err(), "{again:?}");
}

#[tokio::test(start_paused = true)]
async fn a_stream_whose_adding_was_given_up_can_be_added_again() {
    let (stream, probed, probe) = two_ways().await;
    let mut reader = probed.reader().join().await.unwrap();
    let mut sink = probed.sink("s").ack_grace(GRACE).join().await.unwrap();
    let (more, probed_more) = (EventStream::new(stream.client(), "more"), EventStream::new(probed.client(), "more"));
    let (more, probed_more) = (more.unwrap(), probed_more.unwrap());

    probe.set(Weather::Slow);
    let given_up = tokio::time::timeout(SLOW / 2, reader.add_stream(&probed_more, Start::Newest)).await;
    assert!(given_up.is_err(), "{given_up:?}");
    let given_up = tokio::time::timeout(SLOW / 2, sink.add_stream(&probed_more, Start::Newest)).await;
    assert!(given_up.is_err(), "{given_up:?}");

    probe.set(Weather::Fair);
    reader.add_stream(&probed_more, Start::Newest).await.unwrap();
    sink.add_stream(&probed_more, Start::Newest).await.unwrap();
    let id = more.add("n", "p").await.unwrap();
    assert_eq!(reader.next().await.unwrap().unwrap().id(), id);
    assert_eq!(next(&mut sink).await.id(), id);
    let twice = sink.add_stream(&probed_more, Start::Newest).await;
    assert!(matches!(twice, Err(Error::AlreadyAdded { .. })), "{twice:?}");
}

#[tokio::test(start_paused = true)]
async fn a_stuck_subscriber_does_not_keep_its_buffer_from_the_others() {
    let (stream, _, _) = two_ways().await;
    let mut stuck = stream.sink("s").ack_grace(GRACE).join().await.unwrap();
    stream.add_batch((0..5).map(|_| NewEvent::new("n", "p"))).await.unwrap();
    let held = next(&mut stuck).await;
    let mut other = stream.sink("s").ack_grace(GRACE).join().await.unwrap();
    for _ in 0..5 {
        let delivery = next(&mut other).await;
        assert_eq!(delivery.deliveries(), 2);
        delivery.ack().await.unwrap();
    }
    drop(held);
    // What waited in the buffer of the stuck one is not handed out any more.
    let id = stream.add("n", "p").await.unwrap();
    tokio::select! {
        delivery = next(&mut stuck) => assert_eq!(delivery.id(), id),
        delivery = next(&mut other) => assert_eq!(delivery.id(), id),
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_subscriber_keeps_what_waits_in_its_buffer() {
    let (stream, _, _) = two_ways().await;
    let mut slow = stream.sink("s").ack_grace(GRACE).join().await.unwrap();
    stream.add_batch((0..20).map(|_| NewEvent::new("n", "p"))).await.unwrap();
    let first = next(&mut slow).await;
    let other = stream.sink("s").ack_grace(GRACE).join().await.unwrap();
    first.ack().await.unwrap();
    for _ in 1..20 {
        let delivery = next(&mut slow).await;
        assert_eq!(delivery.deliveries(), 1);
        tokio::time::sleep(GRACE.mul_f64(0.8)).await;
        delivery.ack().await.unwrap();
    }
    drop(other);
}

#[tokio::test(start_paused = true)]
async fn an_event_that_was_lost_and_won_back_while_it_waited_is_handed_out_once() {
    let (stream, _, _) = two_ways().await;
    let mut sink = stream.sink("s").ack_grace(GRACE).join().await.unwrap();
    let added = stream.add_batch((0..3).map(|_| NewEvent::new("n", "p"))).await.unwrap();
    let pending = || async { stream.sink_info("s").await.unwrap().unwrap().pending };
    while pending().await < 3 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // Another instance takes them out of the buffer, and gives them back at once.
    let (backend, group) = (stream.client().backend(), Group::new("s").unwrap());
    let other = Consumer::new("other").unwrap();
    let taken = backend.group_claim(stream.id(), &group, &other, Duration::ZERO, 3).await.unwrap();
    assert_eq!(taken.deliveries.len(), 3);
    backend.group_set_idle(stream.id(), &group, &other, &added, 2 * GRACE).await.unwrap();
    // Until the sink has won them back, and then seen to it that it keeps what waits.
    tokio::time::sleep(GRACE.mul_f64(0.97)).await;
    let mut deliveries = Vec::new();
    for id in added {
        let delivery = next(&mut sink).await;
        assert_eq!((delivery.id(), delivery.deliveries()), (id, 3));
        deliveries.push(delivery);
    }
    let again = tokio::time::timeout(GRACE / 2, sink.next()).await;
    assert!(again.is_err(), "{again:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_said_of_an_older_delivery_does_not_touch_the_newer_one() {
    let (stream, _, _) = two_ways().await;
    let mut sink = stream.sink("s").ack_grace(GRACE).join().await.unwrap();
    stream.add("n", "p").await.unwrap();
    let older = next(&mut sink).await;
    // Long enough for the sink to claim the event from itself, into its buffer.
    tokio::time::sleep(2 * GRACE).await;
    let refused = older.in_progress().await;
    assert!(matches!(refused, Err(Error::Superseded { .. })), "{refused:?}");
    let refused = older.nack().await;
    assert!(matches!(refused, Err(Error::Superseded { .. })), "{refused:?}");

    let newer = next(&mut sink).await;
    assert_eq!(newer.deliveries(), 2);
    let mut other = stream.sink("s").ack_grace(GRACE).join().await.unwrap();
    assert!(tokio::time::timeout(GRACE / 2, other.next()).await.is_err(), "nobody else gets it meanwhile");
    newer.ack().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn many_deleted_events_are_reported_without_waiting_between_them() {
    let (stream, _, _) = two_ways().await;
    let (backend, name) = (stream.client().backend(), stream.id().name().clone());
    let (group, dead) = (Group::new("s").unwrap(), Consumer::new("dead").unwrap());
    backend.group_create(stream.id(), &group, GroupStart::Oldest).await.unwrap();
    let added = stream.add_batch((0..40).map(|_| NewEvent::new("n", "p"))).await.unwrap();
    let held =
        backend.group_read(stream.id(), &group, &dead, 40, Duration::ZERO, pulse_core::Acks::Explicit).await.unwrap();
    assert_eq!(held.len(), 40);
    let deletion = Transaction::new(stream.id().scope()).delete_events(name, added.clone());
    stream.client().commit(deletion).await.unwrap();
    tokio::time::sleep(GRACE).await;

    let began = tokio::time::Instant::now();
    let mut sink = stream.sink("s").ack_grace(GRACE).buffer(2).join().await.unwrap();
    let mut lost = Vec::new();
    while lost.len() < added.len() {
        match sink.next().await.unwrap() {
            Err(Notice::Lost { ids, .. }) => lost.extend(ids),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(lost, added);
    assert!(began.elapsed() < GRACE, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn many_abandoned_events_are_delivered_without_waiting_between_them_and_new_ones_among_them() {
    let (stream, _, _) = two_ways().await;
    let (backend, group) = (stream.client().backend(), Group::new("s").unwrap());
    let dead = Consumer::new("dead").unwrap();
    backend.group_create(stream.id(), &group, GroupStart::Oldest).await.unwrap();
    stream.add_batch((0..40).map(|_| NewEvent::new("old", "p"))).await.unwrap();
    let held =
        backend.group_read(stream.id(), &group, &dead, 40, Duration::ZERO, pulse_core::Acks::Explicit).await.unwrap();
    assert_eq!(held.len(), 40);
    stream.add_batch((0..40).map(|_| NewEvent::new("new", "p"))).await.unwrap();
    tokio::time::sleep(GRACE).await;

    let began = tokio::time::Instant::now();
    for buffer in [1, 4] {
        let mut sink = stream.sink("s").ack_grace(GRACE).buffer(buffer).join().await.unwrap();
        let mut names = Vec::new();
        for _ in 0..40 {
            let delivery = next(&mut sink).await;
            names.push(delivery.name().to_owned());
            delivery.ack().await.unwrap();
        }
        let old = names.iter().filter(|name| *name == "old").count();
        assert!((10..=30).contains(&old), "{old} old ones among the 40 with a buffer of {buffer}");
        sink.close().await;
    }
    assert!(began.elapsed() < GRACE, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn times_that_no_clock_can_add_up_are_refused() {
    let (stream, _, _) = two_ways().await;
    let forever = Duration::MAX;
    let refused = [
        stream.sink("s").ack_grace(forever).join().await.err(),
        stream.sink("s").block(forever).join().await.err(),
        stream.reader().block(forever).join().await.err(),
    ];
    for error in refused {
        assert!(matches!(error, Some(Error::InvalidOption { .. })), "{error:?}");
    }
    let year = Duration::from_secs(365 * 24 * 60 * 60);
    let mut sink = stream.sink("s").ack_grace(year).block(year).join().await.unwrap();
    let id = stream.add("n", "p").await.unwrap();
    let delivery = next(&mut sink).await;
    assert_eq!(delivery.id(), id);
    delivery.ack().await.unwrap();
    sink.close().await;
}

#[tokio::test]
async fn everything_can_be_sent_and_shared() {
    fn check<T: Send + Sync + std::fmt::Debug + 'static>() {}
    check::<EventStream>();
    check::<pulse_streaming::Reader>();
    check::<pulse_streaming::ReaderBuilder>();
    check::<Sink>();
    check::<pulse_streaming::SinkBuilder>();
    check::<Delivery>();
    check::<pulse_streaming::Event>();
    check::<Notice>();
    check::<pulse_streaming::Error>();
}

#[tokio::test(start_paused = true)]
async fn a_handler_goes_on_while_the_backend_is_cut_off() {
    let (stream, probed, probe) = two_ways().await;
    stream.add_batch(["long", "short"].map(|name| NewEvent::new(name, "p"))).await.unwrap();
    let sink = probed.sink("s").start(Start::Oldest).ack_grace(GRACE).join().await.unwrap();
    let (took, done) = (Arc::<OnceLock<Duration>>::default(), CancellationToken::new());
    let (taken, end) = (took.clone(), done.clone());
    let handler = move |event: Attempt| {
        let (taken, end, probe) = (taken.clone(), end.clone(), probe.clone());
        async move {
            // The acknowledgement of the short one is tried for a while, and what is said of the long one waits behind
            // it.
            probe.set(Weather::CutOff);
            let began = tokio::time::Instant::now();
            if event.name() == "long" {
                for _second in 0..60 {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                taken.get_or_init(|| began.elapsed());
                probe.set(Weather::Fair);
                end.cancel();
            }
            Ok::<_, Error>(())
        }
    };
    sink.run(2, handler).until(done.cancelled_owned()).await;
    let took = took.get().expect("the long one ends");
    assert!(*took < MINUTE + Duration::from_secs(1), "{took:?} for a minute of work");
}
