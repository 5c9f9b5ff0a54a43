//! What may come between the start of a job and that it is written down, on paused time.

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
    testing::{Chances, Faulty, Operation},
};
use pulse_pool::{HandlerError, Job, JobHandler, JobKey, Node, WorkerOptions};
use tokio::sync::Semaphore;

/// Starts jobs when it is let, and counts those that run.
#[derive(Debug, Clone)]
struct Singer {
    may_start: Arc<Semaphore>,
    starts: Arc<AtomicUsize>,
    running: Arc<AtomicUsize>,
}

impl Singer {
    fn new() -> Self {
        Self { may_start: Arc::new(Semaphore::new(0)), starts: Arc::default(), running: Arc::default() }
    }
}

#[pulse_pool::async_trait]
impl JobHandler for Singer {
    async fn start(&self, job: Job) -> Result<(), HandlerError> {
        self.starts.fetch_add(1, Ordering::Relaxed);
        self.may_start.acquire().await?.forget();
        let running = self.running.clone();
        running.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(async move {
            job.stopped().await;
            running.fetch_sub(1, Ordering::Relaxed);
        });
        Ok(())
    }

    async fn stop(&self, _: &JobKey) -> Result<(), HandlerError> {
        Ok(())
    }
}

async fn has_workers(node: &Node, count: usize) {
    eventually("the node sees the workers", async || {
        let workers = node.pool_workers();
        if workers.len() == count { Ok(()) } else { Err(workers) }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_comes_and_goes_while_a_start_is_written_down_costs_no_job() {
    let memory = Arc::new(Memory::default());
    let slow = Faulty::new(memory.clone(), 1);
    let (one, two) = (Client::from_backend(Arc::new(slow.clone())), Client::from_backend(memory.clone()));
    let (a, b) = (Node::join(&one, "choir").await.unwrap(), Node::join(&two, "choir").await.unwrap());
    let singer = Singer::new();
    a.add_worker(singer.clone()).await.unwrap();
    b.enqueue("aria", "").await.unwrap();
    eventually("it starts", async || match singer.starts.load(Ordering::Relaxed) {
        0 => Err(()),
        _ => Ok(()),
    })
    .await;

    // The job is started, and it takes a second to write that down.
    slow.set_chances_of(Operation::Commit, Chances::none().with_delay(Duration::from_secs(1)..=Duration::from_secs(1)));
    singer.may_start.add_permits(100);
    let commits = slow.calls(Operation::Commit);
    eventually("it is written down", async || if slow.calls(Operation::Commit) > commits { Ok(()) } else { Err(()) })
        .await;
    // Meanwhile it belongs to somebody else for a moment.
    let everything = WorkerOptions::default().with_weight(1_000_000);
    let passing = b.add_worker_with(Singer::new(), everything).await.unwrap();
    has_workers(&a, 2).await;
    b.remove_worker(passing).await.unwrap();
    has_workers(&a, 1).await;
    assert_eq!(slow.calls(Operation::Commit), commits + 1, "it is still being written down");
    slow.set_chances_of(Operation::Commit, Chances::none());

    eventually("it is started again", async || match singer.starts.load(Ordering::Relaxed) {
        2 => Ok(()),
        starts => Err(starts),
    })
    .await;
    eventually("it runs", async || match singer.running.load(Ordering::Relaxed) {
        1 => Ok(()),
        running => Err(running),
    })
    .await;
    a.close().await.unwrap();
    b.close().await.unwrap();
    one.close().await;
    two.close().await;
}
