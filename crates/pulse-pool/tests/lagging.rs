//! What a node does while something takes longer than usual: until a start is written down, or until its replica shows
//! what has happened. On paused time.

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
    testing::{Chances, Faulty, FeedChances, Operation},
};
use pulse_pool::{Error, HandlerError, Job, JobHandler, JobKey, JobState, NewJob, Node, WorkerOptions};
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

const SECOND: Duration = Duration::from_secs(1);

/// Two nodes of a pool, and the link of the first.
async fn two_nodes() -> (Faulty, Node, Node) {
    let memory = Arc::new(Memory::default());
    let link = Faulty::new(memory.clone(), 1);
    let join = async |client: Client| Node::join(&client, "choir").await.unwrap();
    let one = join(Client::from_backend(Arc::new(link.clone()))).await;
    (link, one, join(Client::from_backend(memory)).await)
}

async fn has_workers(node: &Node, count: usize) {
    eventually("the node sees the workers", async || {
        let workers = node.pool_workers();
        if workers.len() == count { Ok(()) } else { Err(workers) }
    })
    .await;
}

async fn reaches(what: &str, counter: &AtomicUsize, count: usize) {
    eventually(what, async || match counter.load(Ordering::Relaxed) {
        now if now == count => Ok(()),
        now => Err(now),
    })
    .await;
}

/// Lets a worker join `other` to which everything belongs, and leave again, so that `node` sees both.
async fn somebody_passes_by(other: &Node, node: &Node) {
    let everything = WorkerOptions::default().with_weight(1_000_000);
    let passing = other.add_worker_with(Singer::new(), everything).await.unwrap();
    has_workers(node, 2).await;
    other.remove_worker(passing).await.unwrap();
    has_workers(node, 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_comes_and_goes_while_a_start_is_written_down_costs_no_job() {
    let (link, a, b) = two_nodes().await;
    let singer = Singer::new();
    a.add_worker(singer.clone()).await.unwrap();
    b.enqueue("aria", "").await.unwrap();
    reaches("it starts", &singer.starts, 1).await;

    link.set_chances_of(Operation::Commit, Chances::none().with_delay(SECOND..=SECOND));
    let commits = link.calls(Operation::Commit);
    singer.may_start.add_permits(100);
    eventually("it is written down", async || if link.calls(Operation::Commit) > commits { Ok(()) } else { Err(()) })
        .await;
    somebody_passes_by(&b, &a).await;
    assert_eq!(link.calls(Operation::Commit), commits + 1, "it is still being written down");

    reaches("it is started again", &singer.starts, 2).await;
    reaches("it runs", &singer.running, 1).await;
    a.close().await.unwrap();
    b.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_task_that_starts_again_before_its_node_sees_that_it_ran_is_called() {
    let (link, a, b) = two_nodes().await;
    let called = Arc::new(AtomicUsize::new(0));
    let count = called.clone();
    a.worker_fn(move |job| {
        let count = count.clone();
        async move {
            count.fetch_add(1, Ordering::Relaxed);
            job.stopped().await;
            Ok(())
        }
    })
    .await
    .unwrap();

    link.set_chances_of(Operation::Commit, Chances::none().with_delay(SECOND..=SECOND));
    let commits = link.calls(Operation::Commit);
    b.enqueue("aria", "").await.unwrap();
    eventually("it is written down that it runs", async || {
        if link.calls(Operation::Commit) > commits { Ok(()) } else { Err(()) }
    })
    .await;
    somebody_passes_by(&b, &a).await;
    // The start that follows has another epoch, by what is seen of others, and does not see that of the first.
    b.enqueue_job(NewJob::new("duet", "").requires("a second voice")).await.unwrap();
    eventually("the other job is seen", async || a.job("duet").await.unwrap().map(|_| ()).ok_or(())).await;
    assert_eq!(link.calls(Operation::Commit), commits + 1, "it is still being written down");
    link.set_feed_chances(FeedChances::none().with_delay(3 * SECOND..=3 * SECOND));

    reaches("it is called", &called, 1).await;
    let job = b.job("aria").await.unwrap().unwrap();
    assert_eq!(job.state, JobState::Running);
    a.close().await.unwrap();
    b.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_took_the_place_of_a_refused_job_can_be_stopped_before_it_is_seen() {
    let (link, a, b) = two_nodes().await;
    let endures = b.worker_fn(|job: Job| async move {
        job.stopped().await;
        Ok(())
    });
    let refuses = b.add_worker(Prude).await.unwrap();
    assert!(matches!(a.dispatch("aria", "").await, Err(Error::Rejected { .. })));
    b.enqueue("aria", "").await.unwrap();
    // Nobody waited for that one, so that its trace stands there.
    eventually("it is refused", async || match a.job("aria").await.unwrap() {
        None => Ok(()),
        job => Err(job),
    })
    .await;
    endures.await.unwrap();
    b.remove_worker(refuses).await.unwrap();
    has_workers(&a, 1).await;

    link.set_feed_chances(FeedChances::none().with_delay(SECOND..=SECOND));
    a.enqueue("aria", "").await.unwrap();
    a.stop("aria").await.unwrap();
    assert_eq!(b.job("aria").await.unwrap(), None);
    a.close().await.unwrap();
    b.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_job_that_the_server_loses_after_it_was_seen_is_lost_and_not_stopped() {
    let memory = Arc::new(Memory::default());
    let link = Faulty::new(memory.clone(), 1);
    let node = Node::join(&Client::from_backend(Arc::new(link.clone())), "choir").await.unwrap();
    node.enqueue("duet", "").await.unwrap();
    let before = memory.checkpoint();
    let lose = async {
        eventually("it is seen", async || node.job("aria").await.unwrap().ok_or(())).await;
        link.partition();
        memory.restore(&before);
        link.heal();
    };
    let (sung, ()) = tokio::join!(node.dispatch_and_wait::<()>(("aria", "")), lose);
    assert!(matches!(sung, Err(Error::Lost { .. })), "{sung:?}");
    drop(node);
}

/// Refuses everything.
struct Prude;

#[pulse_pool::async_trait]
impl JobHandler for Prude {
    async fn start(&self, _: Job) -> Result<(), HandlerError> {
        Err("not that song".into())
    }

    async fn stop(&self, _: &JobKey) -> Result<(), HandlerError> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn an_outcome_that_has_expired_unseen_is_not_taken_for_a_stop() {
    let (link, a, b) = two_nodes().await;
    let may_end = Arc::new(Semaphore::new(0));
    let waits = may_end.clone();
    let work = move |_: Job| {
        let waits = waits.clone();
        async move { Ok(waits.acquire().await.map(|_| 7)?) }
    };
    b.worker_fn(work).keep_result(Duration::ZERO).await.unwrap();
    has_workers(&a, 1).await;
    let meanwhile = async {
        eventually("it runs", async || match a.job("aria").await.unwrap().map(|job| job.state) {
            Some(JobState::Running) => Ok(()),
            other => Err(other),
        })
        .await;
        link.partition();
        may_end.add_permits(1);
        tokio::time::sleep(30 * SECOND).await;
        link.heal();
    };
    let (waited, ()) = tokio::join!(a.dispatch_and_wait::<u32>(("aria", "")), meanwhile);
    assert!(matches!(waited, Err(Error::OutcomeGone { .. })), "{waited:?}");
    a.close().await.unwrap();
    b.close().await.unwrap();
}
