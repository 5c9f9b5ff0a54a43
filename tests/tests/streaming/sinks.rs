//! What sinks promise about deliveries, acknowledgements and claims.

use std::{collections::BTreeSet, time::Duration};

use futures::future::join_all;
use pulse_streaming::{Error, NewEvent, Start};
use tests::{Subject, eventually, on_every_backend};

use crate::{LONG, SHORT, add_all, next_delivery, number, stream, work_off};

on_every_backend!(
    each_event_goes_to_one_instance,
    an_acknowledged_event_is_not_delivered_again_and_a_dropped_one_is,
    exactly_what_a_dead_instance_held_goes_to_the_living,
    a_dead_instance_vanishes_once_nothing_is_pending_for_it,
    an_event_given_back_is_delivered_again_at_once,
    work_in_progress_is_not_delivered_again,
    a_holder_learns_that_its_delivery_was_made_again,
    acknowledging_one_delivery_voids_the_copy_that_waits,
    what_a_filter_rejects_does_not_stay_pending,
    a_new_sink_begins_where_it_is_told_to_and_later_instances_go_on,
    a_slow_instance_takes_no_more_than_its_buffer,
    many_acknowledgements_at_once_all_resolve,
    an_instance_works_on_many_streams,
);

async fn each_event_goes_to_one_instance(subject: Subject) {
    let (client, other) = (subject.client().await, subject.client().await);
    let stream = stream(&subject, &client);
    let elsewhere = pulse_streaming::EventStream::in_scope(&other, stream.id().scope(), "events").unwrap();
    let mut one = stream.sink("s").ack_grace(LONG).buffer(4).join().await.unwrap();
    let mut two = elsewhere.sink("s").ack_grace(LONG).buffer(4).join().await.unwrap();
    add_all(&stream, 0..100).await;
    let mut seen = Vec::new();
    let (mut first, mut second) = (Vec::new(), Vec::new());
    while seen.len() < 100 {
        let (delivery, by) = tokio::select! {
            delivery = one.next() => (delivery, &mut first),
            delivery = two.next() => (delivery, &mut second),
        };
        let delivery = delivery.unwrap().unwrap();
        assert_eq!(delivery.deliveries(), 1);
        by.push(number(&delivery));
        seen.push(number(&delivery));
        delivery.ack().await.unwrap();
    }
    assert!(first.is_sorted() && second.is_sorted(), "each instance sees them in order: {first:?} {second:?}");
    assert_eq!(seen.into_iter().collect::<BTreeSet<_>>().len(), 100);
    let info = stream.sink_info("s").await.unwrap().unwrap();
    assert_eq!((info.pending, info.consumers.len()), (0, 2));
}

async fn an_acknowledged_event_is_not_delivered_again_and_a_dropped_one_is(subject: Subject) {
    let client = subject.client().await;
    let stream = stream(&subject, &client);
    let mut sink = stream.sink("s").ack_grace(SHORT).join().await.unwrap();
    add_all(&stream, [1, 2]).await;
    let (done, dropped) = (next_delivery(&mut sink).await, next_delivery(&mut sink).await);
    assert_eq!((number(&done), number(&dropped)), (1, 2));
    done.ack().await.unwrap();
    drop(dropped);
    // The acknowledged one would come first.
    for deliveries in [2, 3] {
        let again = next_delivery(&mut sink).await;
        assert_eq!((number(&again), again.deliveries()), (2, deliveries));
    }
}

async fn exactly_what_a_dead_instance_held_goes_to_the_living(subject: Subject) {
    let client = subject.client().await;
    let stream = stream(&subject, &client);
    let mut doomed = stream.sink("s").ack_grace(SHORT).join().await.unwrap();
    add_all(&stream, 0..20).await;
    for n in 0..10 {
        let delivery = next_delivery(&mut doomed).await;
        if n % 2 == 0 {
            delivery.ack().await.unwrap();
        }
    }
    drop(doomed);
    let mut living = stream.sink("s").ack_grace(SHORT).join().await.unwrap();
    add_all(&stream, 20..25).await;
    let mut again = BTreeSet::new();
    let mut fresh = BTreeSet::new();
    for _ in 0..20 {
        let delivery = next_delivery(&mut living).await;
        let place = if delivery.deliveries() > 1 { &mut again } else { &mut fresh };
        assert!(place.insert(number(&delivery)), "{delivery:?} came twice");
        delivery.ack().await.unwrap();
    }
    // Five that the user had, and ten that waited in the buffer.
    assert_eq!(again, (1..10).step_by(2).chain(10..20).collect());
    assert_eq!(fresh, (20..25).collect());
    assert_eq!(stream.sink_info("s").await.unwrap().unwrap().pending, 0);
}

async fn a_dead_instance_vanishes_once_nothing_is_pending_for_it(subject: Subject) {
    let client = subject.client().await;
    let stream = stream(&subject, &client);
    let join = || stream.sink("s").ack_grace(Duration::from_millis(200)).block(Duration::from_millis(100)).join();
    let mut holder = join().await.unwrap();
    add_all(&stream, [1]).await;
    let held = next_delivery(&mut holder).await;
    let idle = join().await.unwrap();
    eventually("two instances are known", async || {
        let info = stream.sink_info("s").await.unwrap().unwrap();
        if info.consumers.len() == 2 { Ok(()) } else { Err(info) }
    })
    .await;
    drop((holder, idle));
    let mut living = join().await.unwrap();
    let again = next_delivery(&mut living).await;
    assert_eq!(number(&again), 1, "what the dead one held is not lost with it");
    drop(held);
    again.ack().await.unwrap();
    eventually("only the living instance is left", async || {
        let info = stream.sink_info("s").await.unwrap().unwrap();
        if info.consumers.len() == 1 && info.pending == 0 { Ok(()) } else { Err(info) }
    })
    .await;
}

async fn an_event_given_back_is_delivered_again_at_once(subject: Subject) {
    let client = subject.client().await;
    let stream = stream(&subject, &client);
    let mut sink = stream.sink("s").ack_grace(LONG).join().await.unwrap();
    add_all(&stream, [1]).await;
    for deliveries in 1..=3 {
        let delivery = next_delivery(&mut sink).await;
        assert_eq!((number(&delivery), delivery.deliveries()), (1, deliveries));
        delivery.nack().await.unwrap();
    }
}

async fn work_in_progress_is_not_delivered_again(subject: Subject) {
    let client = subject.client().await;
    let stream = stream(&subject, &client);
    let mut sink = stream.sink("s").ack_grace(SHORT).join().await.unwrap();
    add_all(&stream, [1, 2]).await;
    let (slow, dropped) = (next_delivery(&mut sink).await, next_delivery(&mut sink).await);
    drop(dropped);
    // By the time that the second one came again twice, the first would have come too.
    for _ in 0..2 {
        let mut extend = tokio::time::interval(SHORT / 20);
        let again = loop {
            tokio::select! {
                again = sink.next() => break again.unwrap().unwrap(),
                _ = extend.tick() => slow.in_progress().await.unwrap(),
            }
        };
        assert_eq!(number(&again), 2);
    }
    slow.ack().await.unwrap();
}

async fn a_holder_learns_that_its_delivery_was_made_again(subject: Subject) {
    let client = subject.client().await;
    let stream = stream(&subject, &client);
    let mut slow = stream.sink("s").ack_grace(SHORT).join().await.unwrap();
    add_all(&stream, [1]).await;
    let held = next_delivery(&mut slow).await;
    held.in_progress().await.unwrap();
    let mut quick = stream.sink("s").ack_grace(SHORT).join().await.unwrap();
    let again = tokio::select! {
        again = quick.next() => again.unwrap().unwrap(),
        again = slow.next() => again.unwrap().unwrap(),
    };
    again.ack().await.unwrap();
    let refused = held.in_progress().await;
    assert!(matches!(refused, Err(Error::Superseded { .. })), "{refused:?}");
    held.ack().await.unwrap();
}

async fn acknowledging_one_delivery_voids_the_copy_that_waits(subject: Subject) {
    let client = subject.client().await;
    let stream = stream(&subject, &client);
    let mut sink = stream.sink("s").ack_grace(SHORT).join().await.unwrap();
    add_all(&stream, [1]).await;
    let first = next_delivery(&mut sink).await;
    eventually("the event is claimed again", async || {
        let query = pulse_core::PendingQuery::new(1);
        let group = pulse_core::Group::new("s").unwrap();
        let pending = client.backend().group_pending(stream.id(), &group, query).await.unwrap();
        if pending[0].deliveries > 1 { Ok(()) } else { Err(pending) }
    })
    .await;
    first.ack().await.unwrap();
    add_all(&stream, [2]).await;
    assert_eq!(work_off(&mut sink, 1).await, [2]);
}

async fn what_a_filter_rejects_does_not_stay_pending(subject: Subject) {
    let client = subject.client().await;
    let stream = stream(&subject, &client);
    let mut sink = stream.sink("s").topic("wanted").ack_grace(LONG).join().await.unwrap();
    for n in 0..10_u32 {
        let topic = if n % 5 == 4 { "wanted" } else { "other" };
        stream.add_event(NewEvent::new("n", n.to_string()).with_topic(topic)).await.unwrap();
    }
    assert_eq!(work_off(&mut sink, 2).await, [4, 9]);
    eventually("nothing is pending", async || match stream.sink_info("s").await.unwrap().unwrap().pending {
        0 => Ok(()),
        pending => Err(pending),
    })
    .await;
}

async fn a_new_sink_begins_where_it_is_told_to_and_later_instances_go_on(subject: Subject) {
    let client = subject.client().await;
    let stream = stream(&subject, &client);
    add_all(&stream, [1]).await;
    let second = stream.add("n", "2").await.unwrap();
    add_all(&stream, [3]).await;
    let starting =
        async |name: &str, start: Start| stream.sink(name).start(start).ack_grace(LONG).join().await.unwrap();

    let mut newest = starting("newest", Start::Newest).await;
    let mut after = starting("after", Start::After(second)).await;
    let mut oldest = starting("oldest", Start::Oldest).await;
    add_all(&stream, [4]).await;
    assert_eq!(work_off(&mut newest, 1).await, [4]);
    assert_eq!(work_off(&mut after, 2).await, [3, 4]);
    assert_eq!(work_off(&mut oldest, 4).await, [1, 2, 3, 4]);
    oldest.close().await;
    add_all(&stream, [5]).await;
    let mut later = starting("oldest", Start::Oldest).await;
    assert_eq!(work_off(&mut later, 1).await, [5]);
}

async fn a_slow_instance_takes_no_more_than_its_buffer(subject: Subject) {
    let client = subject.client().await;
    let stream = stream(&subject, &client);
    let mut slow = stream.sink("s").buffer(8).ack_grace(LONG).join().await.unwrap();
    stream.add_batch((0..100).map(|n: u32| NewEvent::new("n", n.to_string()))).await.unwrap();
    let held = next_delivery(&mut slow).await;
    let mut quick = stream.sink("s").ack_grace(LONG).join().await.unwrap();
    let seen = work_off(&mut quick, 91).await;
    assert!(!seen.contains(&number(&held)));
    assert!(stream.sink_info("s").await.unwrap().unwrap().pending <= 9);
}

async fn many_acknowledgements_at_once_all_resolve(subject: Subject) {
    let client = subject.client().await;
    let stream = stream(&subject, &client);
    let mut sink = stream.sink("s").buffer(1_000).ack_grace(LONG).join().await.unwrap();
    stream.add_batch((0..3_000).map(|n: u32| NewEvent::new("n", n.to_string()))).await.unwrap();
    let mut acks = Vec::new();
    for _ in 0..3_000 {
        acks.push(next_delivery(&mut sink).await.ack());
    }
    for outcome in join_all(acks).await {
        outcome.unwrap();
    }
    let info = stream.sink_info("s").await.unwrap().unwrap();
    assert_eq!((info.pending, info.lag), (0, Some(0)));
}

async fn an_instance_works_on_many_streams(subject: Subject) {
    let client = subject.client().await;
    let (one, two) = (stream(&subject, &client), stream(&subject, &client));
    let mut sink = one.sink("s").ack_grace(LONG).join().await.unwrap();
    sink.add_stream(&two, Start::Newest).await.unwrap();
    add_all(&one, [1]).await;
    add_all(&two, [2]).await;
    let mut seen = work_off(&mut sink, 2).await;
    seen.sort_unstable();
    assert_eq!(seen, [1, 2]);
    for stream in [&one, &two] {
        assert_eq!(stream.sink_info("s").await.unwrap().unwrap().pending, 0);
    }
}
