//! Several subscribers of one reader, and of one instance of a sink.

use futures::future::join_all;
use pulse_streaming::Start;
use tests::{Subject, on_every_backend, soon};

use crate::{LONG, add_all, next_event, number, read, stream};

on_every_backend!(
    subscribers_of_a_reader_see_the_same,
    the_slowest_subscriber_slows_the_reading_down_and_one_that_left_does_not,
    subscribers_of_a_sink_take_turns,
    closing_one_closes_all,
);

async fn subscribers_of_a_reader_see_the_same(subject: Subject) {
    let client = subject.client().await;
    let stream = stream(&subject, &client);
    let reader = stream.reader().start(Start::Oldest).buffer(16).join().await.unwrap();
    let mut subscribers = [reader.subscribe(), reader.subscribe(), reader];
    let seen = join_all(subscribers.iter_mut().map(|subscriber| read(subscriber, 200)));
    let (seen, ()) = futures::join!(seen, add_all(&stream, 0..200));
    assert!(seen.iter().all(|seen| seen.iter().copied().eq(0..200)), "{seen:?}");
}

async fn the_slowest_subscriber_slows_the_reading_down_and_one_that_left_does_not(subject: Subject) {
    let client = subject.client().await;
    let stream = stream(&subject, &client);
    add_all(&stream, 0..20).await;
    let mut quick = stream.reader().start(Start::Oldest).buffer(4).join().await.unwrap();
    let slow = quick.subscribe();
    assert_eq!(read(&mut quick, 4).await, [0, 1, 2, 3]);
    let next = futures::future::poll_immediate(quick.next()).await;
    assert!(next.is_none(), "the other has taken nothing");
    drop(slow);
    assert!(read(&mut quick, 16).await.into_iter().eq(4..20));
}

async fn subscribers_of_a_sink_take_turns(subject: Subject) {
    let client = subject.client().await;
    let stream = stream(&subject, &client);
    let sink = stream.sink("sink").start(Start::Oldest).ack_grace(LONG).buffer(8).join().await.unwrap();
    let subscribers = [sink.subscribe(), sink.subscribe()].map(|mut sink| {
        tokio::spawn(async move {
            let mut taken = Vec::new();
            while let Some(delivery) = sink.next().await {
                let delivery = delivery.expect("nothing was lost");
                taken.push(number(&delivery));
                delivery.ack().await.expect("it is acknowledged");
            }
            taken
        })
    });
    add_all(&stream, 0..200).await;
    tests::eventually("all is acknowledged", async || {
        let info = stream.sink_info("sink").await.unwrap().unwrap();
        if (info.lag, info.pending) == (Some(0), 0) { Ok(()) } else { Err((info.lag, info.pending)) }
    })
    .await;
    sink.close().await;
    let mut taken: Vec<u32> = join_all(subscribers).await.into_iter().flat_map(Result::unwrap).collect();
    taken.sort_unstable();
    assert!(taken.iter().copied().eq(0..200), "each went to one of them: {taken:?}");
}

async fn closing_one_closes_all(subject: Subject) {
    let client = subject.client().await;
    let stream = stream(&subject, &client);
    let mut reader = stream.reader().join().await.unwrap();
    let mut other = reader.subscribe();
    add_all(&stream, [1, 2]).await;
    assert_eq!(number(&next_event(&mut other).await), 1);
    other.close().await;
    for subscriber in [&mut reader, &mut other] {
        assert!(soon("the end", subscriber.next()).await.is_none());
    }
    assert!(soon("the end", reader.subscribe().next()).await.is_none(), "also for who comes late");
}
