//! What a node does when it loses its lease, or gives it up: functions end, whatever grace they have otherwise, and
//! workers come back. On paused time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use pulse_core::{Client, Memory, Write, conformance::eventually, testing::Faulty};
use pulse_pool::{Error, Job, Node};

const TTL: Duration = Duration::from_secs(3);
const GRACE: Duration = Duration::from_secs(60);

/// How many attempts go on.
#[derive(Debug, Clone, Default)]
struct OnStage(Arc<AtomicUsize>);

impl OnStage {
    fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    fn enter(&self) -> Self {
        self.0.fetch_add(1, Ordering::Relaxed);
        self.clone()
    }

    async fn reaches(&self, count: usize) {
        eventually("that many attempts go on", async || if self.count() == count { Ok(()) } else { Err(self.count()) })
            .await;
    }
}

/// An attempt; it ends when it is dropped.
struct Attempt(OnStage);

impl Drop for Attempt {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn join(client: &Client) -> Node {
    Node::builder("choir").worker_ttl(TTL).timeout(2 * TTL).join(client).await.unwrap()
}

/// Two nodes of a pool, and the link of the first.
async fn two_nodes() -> (Faulty, Node, Node) {
    let memory = Arc::new(Memory::default());
    let link = Faulty::new(memory.clone(), 1);
    let a = join(&Client::from_backend(Arc::new(link.clone()))).await;
    (link, a, join(&Client::from_backend(memory)).await)
}

/// A worker whose function goes on for as long as it may.
async fn add_worker(node: &Node, stage: &OnStage) {
    let stage = stage.clone();
    let endless = move |_: Job| {
        let attempt = Attempt(stage.enter());
        async move {
            let _attempt = attempt;
            std::future::pending::<Result<(), _>>().await
        }
    };
    node.worker_fn(endless).stop_grace(GRACE).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_function_ends_with_its_node() {
    let memory = Arc::new(Memory::default());
    let node = join(&Client::from_backend(memory)).await;
    let stage = OnStage::default();
    add_worker(&node, &stage).await;
    node.enqueue("aria", "").await.unwrap();
    stage.reaches(1).await;
    let before = tokio::time::Instant::now();
    drop(node);
    stage.reaches(0).await;
    assert!(before.elapsed() < TTL / 3, "{:?}", before.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_function_that_is_given_time_to_stop_loses_it_with_the_lease() {
    let (link, a, b) = two_nodes().await;
    let stage = OnStage::default();
    add_worker(&a, &stage).await;
    b.enqueue("aria", "").await.unwrap();
    stage.reaches(1).await;
    // It is asked to stop, and takes its time.
    assert!(matches!(b.stop("aria").await, Err(Error::NotStopped { .. })));
    assert_eq!(stage.count(), 1);
    link.partition();
    let on_b = OnStage::default();
    add_worker(&b, &on_b).await;
    eventually("nobody has the job", async || match b.job("aria").await.unwrap() {
        None => Ok(()),
        job => Err(job),
    })
    .await;
    assert_eq!(stage.count(), 0, "it was over when it was removed");
    b.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_cannot_be_written_down_again_yet_is_not_forgotten() {
    let (link, a, b) = two_nodes().await;
    let stage = OnStage::default();
    add_worker(&a, &stage).await;
    link.partition();
    eventually("it is cut off", async || if a.is_cut_off() { Ok(()) } else { Err(()) }).await;
    // As by a server that does not let it write there: nothing that sending it again would heal.
    let refused = Arc::new(AtomicUsize::new(0));
    let count = refused.clone();
    link.rewrite_commits(move |change| {
        let writes_workers = |write: &Write| matches!(write, Write::Put { map, .. } if &**map == "pool:workers");
        if !change.writes().iter().any(writes_workers) {
            return change;
        }
        count.fetch_add(1, Ordering::Relaxed);
        change.put("pool:workers", "", Bytes::from(vec![0; (64 << 20) + 1]))
    });
    link.heal();
    eventually("it cannot write its worker down", async || match refused.load(Ordering::Relaxed) {
        // The node itself, and its worker.
        0..2 => Err(()),
        _ => Ok(()),
    })
    .await;
    link.rewrite_commits(|change| change);
    b.dispatch("aria", "").await.unwrap();
    stage.reaches(1).await;
    drop(a);
    b.close().await.unwrap();
}
