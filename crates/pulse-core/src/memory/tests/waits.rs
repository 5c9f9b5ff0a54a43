//! Blocking reads wake when something is there, end when nothing can come, and take nothing with them when dropped.

use futures::FutureExt;

use super::*;

#[tokio::test(start_paused = true)]
async fn a_wait_ends_after_its_time_and_not_before() {
    let memory = Memory::default();
    let began = Instant::now();
    assert!(memory.stream_read(&stream(), EventId::ZERO, 1, TTL).await.unwrap().entries.is_empty());
    assert_eq!(began.elapsed(), TTL);
    memory.group_create(&stream(), &group(), GroupStart::Oldest).await.unwrap();
    assert!(memory.group_read(&stream(), &group(), &consumer("c"), 1, TTL, Acks::Explicit).await.unwrap().is_empty());
    assert_eq!(began.elapsed(), TTL * 2);
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_ever_is_none_that_overflows() {
    let memory = Memory::default();
    let (stream, began) = (stream(), Instant::now());
    let read = memory.stream_read(&stream, EventId::ZERO, 1, Duration::MAX);
    let later = async {
        tokio::time::sleep(LONG).await;
        id_of_new_event(&memory).await
    };
    let (read, id) = tokio::join!(read, later);
    assert_eq!(read.unwrap().entries[0].id, id);
    assert_eq!(began.elapsed(), LONG, "woken by the event, not by a clock");
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_at_once_when_its_client_is_closed_or_what_it_reads_vanishes() {
    let memory = Memory::default();
    let other = memory.another_client();
    let (stream, group, name) = (stream(), group(), consumer("c"));
    let wait = || memory.group_read(&stream, &group, &name, 1, LONG, Acks::Explicit);
    let create = || other.group_create(&stream, &group, GroupStart::Oldest);
    let began = Instant::now();

    create().await.unwrap();
    let (ended, _) = tokio::join!(wait(), other.group_destroy(&stream, &group));
    assert!(matches!(ended, Err(Error::NoGroup { .. })), "{ended:?}");

    create().await.unwrap();
    let (ended, _) = tokio::join!(wait(), other.commit(begin().destroy_stream("e")));
    assert!(matches!(ended, Err(Error::NoGroup { .. })), "{ended:?}");

    create().await.unwrap();
    let (ended, ()) = tokio::join!(wait(), memory.close());
    assert!(matches!(ended, Err(Error::Closed)), "{ended:?}");
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_wait_on_a_stream_that_expires_ends_at_its_deadline_also_if_that_was_set_meanwhile() {
    let memory = Memory::default();
    let (stream, group, name) = (stream(), group(), consumer("c"));
    let wait = || memory.group_read(&stream, &group, &name, 1, LONG, Acks::Explicit);
    for expires in ["before the wait", "during the wait"] {
        memory.group_create(&stream, &group, GroupStart::Oldest).await.unwrap();
        let began = Instant::now();
        let expire = memory.commit(begin().expire_stream("e", Deadline::Renew(TTL)));
        let ended = if expires == "before the wait" {
            expire.await.unwrap();
            wait().await
        } else {
            let (ended, expiring) = tokio::join!(wait(), expire);
            expiring.unwrap();
            ended
        };
        assert!(matches!(ended, Err(Error::NoGroup { .. })), "{expires}: {ended:?}");
        assert_eq!(began.elapsed(), TTL, "{expires}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_wait_outlives_a_deadline_that_is_moved() {
    let memory = Memory::default();
    memory.group_create(&stream(), &group(), GroupStart::Oldest).await.unwrap();
    memory.commit(begin().expire_stream("e", Deadline::Renew(TTL))).await.unwrap();
    let (stream, group, name) = (stream(), group(), consumer("c"));
    let keep = async {
        for _ in 0..5 {
            tokio::time::sleep(TTL / 2).await;
            memory.commit(begin().expire_stream("e", Deadline::Renew(TTL))).await.unwrap();
        }
        id_of_new_event(&memory).await
    };
    let (read, id) = tokio::join!(memory.group_read(&stream, &group, &name, 1, LONG, Acks::Explicit), keep);
    assert_eq!(read.unwrap()[0].entry.id, id);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_wait_was_handed_nothing() {
    let memory = Memory::default();
    memory.group_create(&stream(), &group(), GroupStart::Oldest).await.unwrap();
    let (stream, group, first, second) = (stream(), group(), consumer("first"), consumer("second"));
    let mut dropped = memory.group_read(&stream, &group, &first, 1, LONG, Acks::Explicit);
    assert!((&mut dropped).now_or_never().is_none());
    // The event has rung the bell of the waiting call, which is dropped before it looks.
    let id = id_of_new_event(&memory).await;
    drop(dropped);
    assert!(memory.group_pending(&stream, &group, PendingQuery::new(1)).await.unwrap().is_empty());
    let read = memory.group_read(&stream, &group, &second, 1, Duration::ZERO, Acks::Explicit).await.unwrap();
    assert_eq!((read[0].entry.id, read[0].deliveries), (id, 1));
}

#[tokio::test(start_paused = true)]
async fn one_event_wakes_every_reader_but_goes_to_one_consumer() {
    let memory = Memory::default();
    memory.group_create(&stream(), &group(), GroupStart::Oldest).await.unwrap();
    let (stream, group) = (stream(), group());
    let names: Vec<Consumer> = (0..10).map(|i| consumer(&format!("c{i}"))).collect();
    let takers = names.iter().map(|name| memory.group_read(&stream, &group, name, 1, TTL, Acks::Explicit));
    let readers = names.iter().map(|_| memory.stream_read(&stream, EventId::ZERO, 1, TTL));
    let (taken, read, id) =
        tokio::join!(futures::future::join_all(takers), futures::future::join_all(readers), id_of_new_event(&memory));
    let taken: Vec<EventId> = taken.into_iter().flat_map(Result::unwrap).map(|delivery| delivery.entry.id).collect();
    assert_eq!(taken, [id]);
    for read in read {
        assert_eq!(read.unwrap().entries[0].id, id);
    }
}

#[tokio::test(start_paused = true)]
async fn what_happens_elsewhere_wakes_nobody() {
    let memory = Memory::default();
    let stream = stream();
    let mut read = watched(memory.stream_read(&stream, EventId::ZERO, 1, LONG));
    assert!(read.wakes_by(async { memory.commit(put("k")).await.map(drop) }).await == 0);
    let elsewhere = begin().append("another", NewEvent::new("n", "p"));
    assert!(read.wakes_by(async { memory.commit(elsewhere).await.map(drop) }).await == 0);
    assert!(read.wakes_by(async { memory.commit(append()).await.map(drop) }).await == 1);
}

/// A future and the number of times that it was woken.
struct Watched<F> {
    future: std::pin::Pin<Box<F>>,
    wakes: Arc<Wakes>,
}

#[derive(Default)]
struct Wakes(std::sync::atomic::AtomicUsize);

impl std::task::Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
}

fn watched<F: Future>(future: F) -> Watched<F> {
    Watched { future: Box::pin(future), wakes: Arc::default() }
}

impl<F: Future> Watched<F> {
    /// Polls the future once, which must not end, then does something, and tells how often that woke the future.
    async fn wakes_by(&mut self, something: impl Future<Output = Result<(), Error>>) -> usize {
        let waker = std::task::Waker::from(self.wakes.clone());
        assert!(self.future.as_mut().poll(&mut std::task::Context::from_waker(&waker)).is_pending());
        let before = self.wakes.0.load(std::sync::atomic::Ordering::Relaxed);
        something.await.unwrap();
        self.wakes.0.load(std::sync::atomic::Ordering::Relaxed) - before
    }
}
