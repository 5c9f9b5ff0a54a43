//! Giving events up, giving them back for later, and what becomes of dead letters.

use std::{future::IntoFuture, time::Duration};

use pulse_streaming::{Attempt, EventId, EventStream, NewEvent, RetryPolicy, Sink, Start};
use tests::{Subject, eventually, on_every_backend};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{LONG, SHORT, add_all, next_delivery, number, read, stream, work_off};

on_every_backend!(
    an_event_that_is_given_up_is_a_dead_letter_and_acknowledged,
    an_event_that_was_delivered_often_enough_is_a_dead_letter,
    a_replayed_letter_goes_to_its_sink_only,
    letters_are_replayed_removed_and_purged,
    an_event_that_is_given_back_for_later_comes_later,
    an_event_can_be_given_back_for_longer_than_the_grace_period,
    deliveries_can_be_settled_outside_of_any_runtime,
    the_reason_of_a_dead_letter_has_every_cause_once,
);

async fn sink(stream: &EventStream, name: &str, grace: Duration) -> Sink {
    stream.sink(name).start(Start::Oldest).ack_grace(grace).join().await.expect("the sink is joined")
}

async fn an_event_that_is_given_up_is_a_dead_letter_and_acknowledged(subject: Subject) {
    let client = subject.client().await;
    let stream = stream(&subject, &client);
    let event = NewEvent::new("placed", "1").with_topic("eu").with_header("tenant", "a");
    let id = stream.add_event(event).await.unwrap();
    let mut sink = sink(&stream, "sink", LONG).await;
    next_delivery(&mut sink).await.dead_letter("no such card").await.unwrap();
    let letters = stream.dead_letters("sink").unwrap();
    let [letter] = &letters.list(EventId::ZERO, 10).await.unwrap()[..] else { panic!("one letter") };
    assert_eq!((letter.reason(), letter.original_id(), letter.deliveries()), ("no such card", id, 1));
    assert_eq!((letter.name(), letter.topic(), number(letter)), ("placed", Some("eu"), 1));
    assert_eq!(letter.headers().get("tenant").map(|tenant| &tenant[..]), Some(&b"a"[..]));
    assert_eq!(stream.sink_info("sink").await.unwrap().unwrap().pending, 0);
}

async fn an_event_that_was_delivered_often_enough_is_a_dead_letter(subject: Subject) {
    let client = subject.client().await;
    let stream = stream(&subject, &client);
    add_all(&stream, [1]).await;
    let builder = stream.sink("sink").start(Start::Oldest).ack_grace(LONG).max_deliveries(3);
    let mut sink = builder.join().await.unwrap();
    for deliveries in 1..=3 {
        let delivery = next_delivery(&mut sink).await;
        assert_eq!(delivery.deliveries(), deliveries);
        delivery.nack().await.unwrap();
    }
    let letters = stream.dead_letters("sink").unwrap();
    eventually("it is a dead letter", async || {
        let letters = letters.list(EventId::ZERO, 10).await.unwrap();
        if letters.len() == 1 { Ok(()) } else { Err(letters) }
    })
    .await;
    assert_eq!(letters.list(EventId::ZERO, 10).await.unwrap()[0].deliveries(), 3);
    assert_eq!(stream.sink_info("sink").await.unwrap().unwrap().pending, 0);
    add_all(&stream, [2]).await;
    assert_eq!(work_off(&mut sink, 1).await, [2]);
}

async fn a_replayed_letter_goes_to_its_sink_only(subject: Subject) {
    let client = subject.client().await;
    let stream = stream(&subject, &client);
    add_all(&stream, [1]).await;
    let (mut failing, mut other) = (sink(&stream, "failing", LONG).await, sink(&stream, "other", LONG).await);
    let mut reader = stream.reader().start(Start::Oldest).join().await.unwrap();
    assert_eq!(work_off(&mut other, 1).await, [1]);
    assert_eq!(read(&mut reader, 1).await, [1]);
    next_delivery(&mut failing).await.dead_letter("r").await.unwrap();
    let letters = stream.dead_letters("failing").unwrap();
    let letter = letters.list(EventId::ZERO, 1).await.unwrap().remove(0);
    let again = letters.replay(&letter).await.unwrap();
    assert_eq!(letters.replay(&letter).await.unwrap(), again, "once, however often it is asked for");
    assert!(letters.is_empty().await.unwrap());
    let delivery = next_delivery(&mut failing).await;
    assert_eq!((number(&delivery), delivery.id(), delivery.deliveries()), (1, again, 1));
    delivery.ack().await.unwrap();
    add_all(&stream, [2]).await;
    assert_eq!(work_off(&mut failing, 1).await, [2]);
    assert_eq!(work_off(&mut other, 1).await, [2]);
    assert_eq!(read(&mut reader, 1).await, [2]);
}

async fn letters_are_replayed_removed_and_purged(subject: Subject) {
    let client = subject.client().await;
    let stream = stream(&subject, &client);
    add_all(&stream, 0..10).await;
    let mut sink = sink(&stream, "sink", LONG).await;
    let letters = stream.dead_letters("sink").unwrap();
    assert_eq!(letters.replay_all().await.unwrap(), 0);
    for _ in 0..10 {
        next_delivery(&mut sink).await.dead_letter("r").await.unwrap();
    }
    assert_eq!(letters.len().await.unwrap(), 10);
    let first = letters.list(EventId::ZERO, 2).await.unwrap();
    assert_eq!(letters.remove(first.iter().map(|letter| letter.id())).await.unwrap(), 2);
    assert_eq!(letters.replay_all().await.unwrap(), 8);
    assert_eq!(work_off(&mut sink, 8).await, (2..10).collect::<Vec<_>>());
    add_all(&stream, [10]).await;
    next_delivery(&mut sink).await.dead_letter("r").await.unwrap();
    assert_eq!(letters.purge().await.unwrap(), 1);
    assert!(letters.is_empty().await.unwrap());
}

async fn an_event_that_is_given_back_for_later_comes_later(subject: Subject) {
    let client = subject.client().await;
    let stream = stream(&subject, &client);
    add_all(&stream, [1, 2]).await;
    let mut sink = sink(&stream, "sink", LONG).await;
    let delay = Duration::from_millis(300);
    let begun = Instant::now();
    next_delivery(&mut sink).await.nack_after(delay).await.unwrap();
    assert_eq!(work_off(&mut sink, 1).await, [2]);
    let again = next_delivery(&mut sink).await;
    assert_eq!((number(&again), again.deliveries()), (1, 2));
    assert!(begun.elapsed() >= delay, "not before its time");
    again.ack().await.unwrap();
}

async fn an_event_can_be_given_back_for_longer_than_the_grace_period(subject: Subject) {
    let client = subject.client().await;
    let stream = stream(&subject, &client);
    add_all(&stream, [1]).await;
    let (mut one, mut two) = (sink(&stream, "sink", SHORT).await, sink(&stream, "sink", SHORT).await);
    let begun = Instant::now();
    let delivery = tokio::select! {
        delivery = next_delivery(&mut one) => delivery,
        delivery = next_delivery(&mut two) => delivery,
    };
    delivery.nack_after(2 * SHORT).await.unwrap();
    let again = tokio::select! {
        delivery = next_delivery(&mut one) => delivery,
        delivery = next_delivery(&mut two) => delivery,
    };
    assert!(begun.elapsed() >= 2 * SHORT, "not before its time: {:?}", begun.elapsed());
    assert_eq!(again.deliveries(), 2);
    again.ack().await.unwrap();
}

/// Settles deliveries of which the runtime knows nothing, as a destructor or a callback of a library in C may.
async fn deliveries_can_be_settled_outside_of_any_runtime(subject: Subject) {
    let client = subject.client().await;
    let stream = stream(&subject, &client);
    add_all(&stream, 0..4).await;
    let mut sink = sink(&stream, "sink", LONG).await;
    let mut taken = Vec::new();
    for _ in 0..4 {
        taken.push(next_delivery(&mut sink).await);
    }
    let settled = std::thread::spawn(move || {
        let mut taken = taken.into_iter();
        let mut next = || taken.next().expect("four were taken");
        [next().ack(), next().nack_after(LONG), next().dead_letter("r"), next().in_progress()]
    });
    for settled in settled.join().expect("nothing panics") {
        settled.await.unwrap();
    }
    assert_eq!(stream.dead_letters("sink").unwrap().len().await.unwrap(), 1);
    assert_eq!(stream.sink_info("sink").await.unwrap().unwrap().pending, 2);
}

/// An error with a cause, as those of libraries are.
#[derive(Debug)]
struct Layer(&'static str, Option<Box<Self>>);

impl std::fmt::Display for Layer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Layer {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.1.as_deref().map(|source| source as _)
    }
}

async fn the_reason_of_a_dead_letter_has_every_cause_once(subject: Subject) {
    let client = subject.client().await;
    let stream = stream(&subject, &client);
    add_all(&stream, [1]).await;
    let once = || RetryPolicy::new().attempts(1);
    let chain = |_: &Attempt| {
        let inner = Layer("no such file", None);
        Layer("rendering the mail", Some(Box::new(Layer("reading template", Some(Box::new(inner))))))
    };
    let end = CancellationToken::new();
    let ended = end.clone().cancelled_owned();
    let single = sink(&stream, "single", LONG).await.run(1, move |attempt| async move { Err(chain(&attempt)) });
    let single = tokio::spawn(single.retry(once()).until(ended).into_future());
    let ended = end.clone().cancelled_owned();
    let batched = sink(&stream, "batched", LONG).await;
    let batched = batched.run_batches(1, SHORT, move |attempts| async move { Err(chain(&attempts[0])) });
    let batched = tokio::spawn(batched.retry(once()).until(ended).into_future());
    for name in ["single", "batched"] {
        let letters = stream.dead_letters(name).unwrap();
        eventually("it is a dead letter", async || {
            let reasons = letters.list(EventId::ZERO, 10).await.unwrap();
            match reasons.first().map(|letter| letter.reason().to_owned()) {
                Some(reason) if reason == "rendering the mail: reading template: no such file" => Ok(()),
                other => Err(other),
            }
        })
        .await;
    }
    end.cancel();
    assert_eq!((single.await.unwrap().dead_lettered, batched.await.unwrap().dead_lettered), (1, 1));
}
