//! Values that make no sense, and sizes that few have.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use pulse_core::{
    Client, Memory,
    conformance::eventually,
    testing::{Faulty, Operation},
};
use pulse_pool::{Error, Job, Node};

#[tokio::test]
async fn times_that_no_lease_and_no_clock_can_be_set_to_are_refused_before_anything_is_written() {
    let memory = Arc::new(Memory::default());
    let client = Client::from_backend(memory);
    let builder = || Node::builder("choir");
    let absurd = [
        builder().worker_ttl(Duration::ZERO),
        builder().worker_ttl(Duration::MAX),
        builder().timeout(Duration::MAX),
        builder().shutdown_timeout(Duration::MAX),
    ];
    for builder in absurd {
        assert!(matches!(builder.join(&client).await, Err(Error::InvalidOption { .. })));
    }
    let node = builder().join(&client).await.unwrap();
    assert_eq!(node.pool_workers(), []);
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
