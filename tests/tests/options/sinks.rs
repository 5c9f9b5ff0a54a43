//! Options of sinks, of what becomes of a delivery, and of runs.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use pulse_streaming::{Error, EventStream, RetryPolicy, SinkBuilder, Start};
use tests::{Subject, eventually, on_every_backend, soon};
use tokio_util::sync::CancellationToken;

use crate::{Expected, MILLISECOND, NANOSECOND, YEAR};

on_every_backend!(
    an_option_of_a_sink_works_or_is_refused_when_joining,
    an_event_is_given_back_for_any_time,
    a_run_takes_any_number_and_time,
    a_run_in_batches_takes_any_number_and_time,
    an_event_that_failed_waits_for_a_year_at_most,
    a_time_out_of_nothing_lets_a_handler_fail,
);

async fn stream(subject: &Subject) -> EventStream {
    let client = subject.client().await;
    let stream = EventStream::in_scope(&client, &subject.scope(), "events").unwrap();
    stream.add("n", "p").await.unwrap();
    stream
}

async fn an_option_of_a_sink_works_or_is_refused_when_joining(subject: Subject) {
    use Expected::{Refused, Works};

    let stream = stream(&subject).await;
    let sinks = AtomicU64::new(0);
    let sink = || stream.sink(format!("sink {}", sinks.fetch_add(1, Ordering::Relaxed))).start(Start::Oldest);
    let table: Vec<(SinkBuilder, Expected)> = vec![
        (sink().buffer(0), Refused),
        (sink().buffer(1), Works),
        (sink().buffer(usize::MAX), Works),
        (sink().buffer(usize::MAX).no_ack(), Works),
        (sink().block(Duration::ZERO), Refused),
        (sink().block(NANOSECOND), Refused),
        (sink().block(MILLISECOND), Works),
        (sink().block(YEAR), Works),
        (sink().block(Duration::MAX), Refused),
        (sink().ack_grace(Duration::ZERO), Refused),
        (sink().ack_grace(MILLISECOND), Refused),
        (sink().ack_grace(10 * MILLISECOND), Works),
        (sink().ack_grace(YEAR), Works),
        (sink().ack_grace(YEAR).block(YEAR), Works),
        (sink().ack_grace(Duration::MAX), Refused),
        (sink().max_deliveries(0), Refused),
        (sink().max_deliveries(1), Works),
        (sink().max_deliveries(u64::MAX), Works),
    ];
    for (builder, expected) in table {
        let shown = format!("{builder:?}");
        match (builder.join().await, expected) {
            (Ok(mut sink), Works) => {
                let delivery = soon("a delivery", sink.next()).await.expect("open").expect("nothing was lost");
                delivery.ack().await.unwrap_or_else(|error| panic!("{shown} met {error:?}"));
                sink.close().await;
            }
            (Err(Error::InvalidOption { .. }), Refused) => {}
            (other, _) => panic!("{shown} met {other:?}"),
        }
    }
    stream.client().close().await;
}

async fn an_event_is_given_back_for_any_time(subject: Subject) {
    let stream = stream(&subject).await;
    for ack_grace in [Duration::from_secs(30), YEAR] {
        let sink = stream.sink(format!("{ack_grace:?}")).start(Start::Oldest).ack_grace(ack_grace);
        let mut sink = sink.join().await.unwrap();
        for delay in [Duration::ZERO, NANOSECOND, Duration::MAX] {
            let delivery = soon("a delivery", sink.next()).await.unwrap().unwrap();
            delivery.in_progress().await.unwrap();
            delivery.nack_after(delay).await.unwrap();
        }
        sink.close().await;
    }
    stream.client().close().await;
}

async fn a_run_takes_any_number_and_time(subject: Subject) {
    let stream = stream(&subject).await;
    let mut runs = 0;
    for concurrency in [0, 1, usize::MAX] {
        for limit in [NANOSECOND, Duration::MAX] {
            for policy in [
                RetryPolicy::new().attempts(0).pauses(Duration::ZERO, Duration::ZERO),
                RetryPolicy::new().attempts(u64::MAX).pauses(Duration::MAX, Duration::MAX),
            ] {
                runs += 1;
                let sink = stream.sink(format!("run {runs}")).start(Start::Oldest).join().await.unwrap();
                let done = CancellationToken::new();
                let end = done.clone();
                let run = sink.run(concurrency, |_| async { Ok::<_, Error>(()) }).timeout(limit).drain(Duration::MAX);
                let run = tokio::spawn(run.retry(policy).until(end.cancelled_owned()).into_future());
                until_acknowledged(&stream, &format!("run {runs}")).await;
                done.cancel();
                assert_eq!(run.await.unwrap().handled, 1, "{concurrency} at a time, for {limit:?}, {policy:?}");
            }
        }
    }
    stream.client().close().await;
}

async fn until_acknowledged(stream: &EventStream, sink: &str) {
    eventually("the event is acknowledged", async || {
        let info = stream.sink_info(sink).await.unwrap().expect("the sink is there");
        if (info.pending, info.lag) == (0, Some(0)) { Ok(()) } else { Err(info) }
    })
    .await;
}

async fn a_run_in_batches_takes_any_number_and_time(subject: Subject) {
    let stream = stream(&subject).await;
    for (run, (most, wait)) in [
        (0, Duration::ZERO),
        (0, Duration::MAX),
        (1, Duration::MAX),
        (usize::MAX, Duration::ZERO),
        (usize::MAX, NANOSECOND),
    ]
    .into_iter()
    .enumerate()
    {
        let sink = stream.sink(format!("batches {run}")).start(Start::Oldest).join().await.unwrap();
        let done = CancellationToken::new();
        let end = done.clone();
        let batches = sink.run_batches(most, wait, |_| async { Ok::<_, Error>(()) }).timeout(Duration::MAX);
        let batches = tokio::spawn(batches.drain(Duration::ZERO).until(end.cancelled_owned()).into_future());
        until_acknowledged(&stream, &format!("batches {run}")).await;
        done.cancel();
        assert_eq!(batches.await.unwrap().handled, 1, "up to {most} within {wait:?}");
    }
    stream.client().close().await;
}

async fn an_event_that_failed_waits_for_a_year_at_most(subject: Subject) {
    let stream = stream(&subject).await;
    let endless = RetryPolicy::new().pauses(Duration::MAX, Duration::MAX);
    for in_place in [false, true] {
        let sink = stream.sink(format!("in place {in_place}")).start(Start::Oldest).join().await.unwrap();
        let done = CancellationToken::new();
        let end = done.clone();
        let run = sink.run(1, move |_| {
            done.cancel();
            async { Err("no such card") }
        });
        let run = if in_place { run.keyed_by(|_| 0) } else { run };
        let ran = soon("the end", run.retry(endless).drain(Duration::ZERO).until(end.cancelled_owned()).into_future());
        assert_eq!((ran.await.handled, letters(&stream, in_place).await), (0, 0));
    }
    stream.client().close().await;
}

async fn letters(stream: &EventStream, in_place: bool) -> u64 {
    stream.dead_letters(format!("in place {in_place}")).unwrap().len().await.unwrap()
}

async fn a_time_out_of_nothing_lets_a_handler_fail(subject: Subject) {
    let stream = stream(&subject).await;
    let sink = stream.sink("s").start(Start::Oldest).join().await.unwrap();
    let (done, called) = (CancellationToken::new(), Arc::new(AtomicU64::new(0)));
    let (end, calls) = (done.clone(), called.clone());
    let run = sink.run(1, move |_| {
        calls.fetch_add(1, Ordering::Relaxed);
        std::future::pending::<Result<(), Error>>()
    });
    let policy = RetryPolicy::new().attempts(2).pauses(Duration::ZERO, Duration::ZERO);
    let run = tokio::spawn(run.timeout(Duration::ZERO).retry(policy).until(end.cancelled_owned()).into_future());
    let letters = stream.dead_letters("s").unwrap();
    eventually("it is given up", async || match letters.len().await.unwrap() {
        1 => Ok(()),
        other => Err(other),
    })
    .await;
    done.cancel();
    let ran = run.await.unwrap();
    assert_eq!((ran.failed, ran.dead_lettered, called.load(Ordering::Relaxed)), (2, 1, 2));
    stream.client().close().await;
}
