//! Values that make no sense, and sizes that few have.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use pulse_core::{
    Client, MAX_LIFETIME, Memory,
    conformance::eventually,
    testing::{Faulty, Operation},
};
use pulse_pool::{Error, Job, NewJob, Node, RetryPolicy};

#[tokio::test]
async fn times_that_no_lease_and_no_clock_can_be_set_to_are_refused_before_anything_is_written() {
    let memory = Arc::new(Memory::default());
    let client = Client::from_backend(memory);
    let builder = || Node::builder("choir");
    for time in [Duration::ZERO, Duration::from_nanos(1), MAX_LIFETIME + Duration::from_nanos(1), Duration::MAX] {
        for builder in [builder().worker_ttl(time), builder().timeout(time), builder().shutdown_timeout(time)] {
            let shown = format!("{builder:?}");
            let Err(Error::InvalidOption { reason, .. }) = builder.join(&client).await else { panic!("{shown}") };
            assert!(reason.contains(&format!("{time:?}")), "{reason}");
        }
    }
    let node = builder().join(&client).await.unwrap();
    assert_eq!(node.pool_workers(), []);
    let none = node.worker_fn(|_| async { Ok(()) }).timeout(Duration::ZERO).await;
    assert!(matches!(none, Err(Error::InvalidOption { .. })), "{none:?}");
    node.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_longest_times_and_the_largest_numbers_work() {
    let client = Client::from_backend(Arc::new(Memory::default()));
    let builder = Node::builder("choir").worker_ttl(MAX_LIFETIME).timeout(MAX_LIFETIME).shutdown_timeout(MAX_LIFETIME);
    let node = builder.max_queued(u64::MAX).join(&client).await.unwrap();
    let worker = node.worker_fn(|job: Job| async move { Ok(job.payload().len()) }).timeout(Duration::MAX);
    let worker = worker.stop_grace(Duration::MAX).weight(u32::MAX).concurrency(usize::MAX);
    worker.retry(RetryPolicy::new().attempts(u32::MAX).pauses(Duration::MAX, Duration::MAX)).await.unwrap();
    assert_eq!(node.dispatch_and_wait::<usize>(("sum", "123")).await.unwrap(), 3);
    for job in [NewJob::new("later", "").run_in(Duration::MAX), NewJob::new("last", "").priority(i32::MIN)] {
        node.enqueue_job(job).await.unwrap();
    }
    node.stop("later").await.unwrap();
    let ticker = node.ticker("rarely", Duration::MAX).await.unwrap();
    ticker.stop().await.unwrap();
    node.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_result_that_is_kept_for_ever_is_kept_for_long() {
    let client = Client::from_backend(Arc::new(Memory::default()));
    let node = Node::join(&client, "choir").await.unwrap();
    node.worker_fn(|job: Job| async move { Ok(job.payload().len()) }).keep_result(Duration::MAX).await.unwrap();
    assert_eq!(node.dispatch_and_wait::<usize>(("sum", "123")).await.unwrap(), 3);
    assert_eq!(node.result::<usize>("sum").await.unwrap(), Some(3));
    node.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn large_payloads_are_fetched_a_few_at_once() {
    const JOBS: usize = 100;
    let memory = Arc::new(Memory::default());
    let link = Faulty::new(memory.clone(), 1);
    let (one, two) = (Client::from_backend(Arc::new(link.clone())), Client::from_backend(memory));
    let (a, b) = (Node::join(&one, "choir").await.unwrap(), Node::join(&two, "choir").await.unwrap());
    let payload = bytes::Bytes::from(vec![7; 512 << 10]);
    for recorded in b.enqueue_batch((0..JOBS).map(|number| (number.to_string(), payload.clone()))).await {
        recorded.unwrap();
    }
    let read = Arc::new(AtomicUsize::new(0));
    let count = read.clone();
    let before = link.calls(Operation::MapGet);
    let reads = move |job: Job| {
        count.fetch_add(job.payload().len(), Ordering::Relaxed);
        async { Ok(()) }
    };
    a.worker_fn(reads).await.unwrap();
    eventually("all have run", async || match read.load(Ordering::Relaxed) {
        bytes if bytes == JOBS * payload.len() => Ok(()),
        bytes => Err(bytes),
    })
    .await;
    // Two go with one request, as soon as it is known how large they are.
    let requests = link.calls(Operation::MapGet) - before;
    assert!(requests >= JOBS as u64 / 3, "{requests} requests");
    a.close().await.unwrap();
    b.close().await.unwrap();
}
