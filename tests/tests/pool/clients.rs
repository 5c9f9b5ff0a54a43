//! Nodes that only dispatch, stop, notify and ask, and do not hold the jobs.

use std::{collections::BTreeSet, time::Duration};

use pulse_pool::{Error, HandlerError, Job, JobHandler, JobKey, JobState, NewJob, Node, Plan, RetryPolicy};
use tests::{Subject, eventually, on_every_backend};

use crate::{board::Board, keys, mortal_node, node};

on_every_backend!(
    a_client_dispatches_and_stops_and_sees_what_others_see,
    a_client_gets_the_errors_that_any_node_gets,
    a_client_waits_for_results,
    a_client_notifies_jobs_also_while_they_move,
    a_client_dispatches_many_at_once,
    a_client_has_no_workers,
    a_client_is_closed_by_a_shutdown_and_can_order_one,
    a_client_makes_plans,
    a_client_learns_of_jobs_that_end_after_it_was_idle,
);

/// One with a worker, and one that is a client.
async fn pair(subject: &Subject, board: &Board) -> (Node, Node) {
    let worker = node().join(&subject.client().await).await.unwrap();
    worker.add_worker(board.player("a")).await.unwrap();
    (worker, client(subject).await)
}

async fn client(subject: &Subject) -> Node {
    mortal_node().client_only().join(&subject.client().await).await.unwrap()
}

async fn a_client_dispatches_and_stops_and_sees_what_others_see(subject: Subject) {
    let board = Board::default();
    let (worker, client) = pair(&subject, &board).await;
    for key in keys(10) {
        let job = client.dispatch(&key, "").await.unwrap();
        assert_eq!((job.state, job.node), (JobState::Running, Some(worker.id())));
    }
    board.runs_all(&keys(10)).await;
    let seen: BTreeSet<JobKey> = client.job_keys().await.unwrap().into_iter().collect();
    assert_eq!(seen, worker.job_keys().await.unwrap().into_iter().collect());
    assert_eq!(client.jobs().await.unwrap().len(), 10);
    let job = client.job("part 3").await.unwrap().unwrap();
    assert_eq!(Some(job), worker.job("part 3").await.unwrap());
    let stats = client.stats().await.unwrap();
    assert_eq!((stats.nodes, stats.workers, stats.jobs, stats.running, stats.jobs_here), (2, 1, 10, 10, 0));
    assert_eq!(worker.stats().await.unwrap().jobs_here, 10);
    for key in keys(10) {
        client.stop(&key).await.unwrap();
        assert_eq!(board.node_of(&key), None);
    }
    assert_eq!(client.job("part 3").await.unwrap(), None);
    assert_eq!(client.stats().await.unwrap().jobs, 0);
    client.close().await.unwrap();
    board.check();
}

async fn a_client_gets_the_errors_that_any_node_gets(subject: Subject) {
    let board = Board::default();
    let (_worker, client) = pair(&subject, &board).await;
    client.dispatch("violin", "").await.unwrap();
    assert!(matches!(client.dispatch("violin", "").await, Err(Error::Exists { .. })));
    let refused = client.dispatch("viola", "refuse").await;
    assert!(matches!(&refused, Err(Error::Rejected { message, .. }) if message == "I do not play this"), "{refused:?}");
    assert!(matches!(client.dispatch("viola", "panic").await, Err(Error::Rejected { .. })));
    assert!(matches!(client.stop("cello").await, Err(Error::UnknownJob { .. })));
    assert!(matches!(client.notify("cello", "").await, Err(Error::UnknownJob { .. })));
    assert!(matches!(client.notify("violin", "").await, Err(Error::NotNotifiable { .. })));
    assert!(matches!(client.dispatch("", "").await, Err(Error::InvalidKey { .. })));
}

async fn a_client_waits_for_results(subject: Subject) {
    let worker = node().join(&subject.client().await).await.unwrap();
    let doubling = worker.worker_fn(|job| async move {
        let number: u32 = job.decode()?;
        if number == 13 {
            return Err("unlucky".into());
        }
        Ok(number * 2)
    });
    doubling.retry(RetryPolicy::new().attempts(1)).await.unwrap();
    let client = client(&subject).await;
    for number in 0..13 {
        let job = NewJob::with_value(format!("double {number}"), &number).unwrap();
        assert_eq!(client.dispatch_and_wait::<u32>(job).await.unwrap(), number * 2);
    }
    let unlucky = client.dispatch_and_wait::<u32>(NewJob::with_value("unlucky", &13).unwrap()).await;
    assert!(matches!(unlucky, Err(Error::Failed { .. })), "{unlucky:?}");
    assert_eq!(client.dead_jobs().await.unwrap().len(), 1);
}

/// Takes notifications.
struct Listener(tokio::sync::mpsc::UnboundedSender<String>);

#[pulse_pool::async_trait]
impl JobHandler for Listener {
    async fn start(&self, _job: Job) -> Result<(), HandlerError> {
        Ok(())
    }

    async fn stop(&self, _key: &JobKey) -> Result<(), HandlerError> {
        Ok(())
    }

    async fn notify(&self, _key: &JobKey, payload: bytes::Bytes) -> Result<(), HandlerError> {
        Ok(self.0.send(String::from_utf8(payload.to_vec())?)?)
    }
}

async fn a_client_notifies_jobs_also_while_they_move(subject: Subject) {
    let (to, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let (one, two) = (subject.client().await, subject.client().await);
    let (a, b) = (node().join(&one).await.unwrap(), node().join(&two).await.unwrap());
    let mut workers = vec![a.add_worker(Listener(to.clone())).await.unwrap()];
    b.add_worker(Listener(to.clone())).await.unwrap();
    let client = client(&subject).await;
    client.dispatch("violin", "").await.unwrap();
    let moving = async {
        for _ in 0..3 {
            a.remove_worker(workers.pop().unwrap()).await.unwrap();
            workers.push(a.add_worker(Listener(to.clone())).await.unwrap());
        }
    };
    let notifying = async {
        for number in 0..50 {
            client.notify("violin", format!("note {number}")).await.unwrap();
        }
    };
    tokio::join!(moving, notifying);
    let mut notes = Vec::new();
    while let Ok(note) = heard.try_recv() {
        notes.push(note);
    }
    // At least once each, in order: at a move maybe twice.
    notes.dedup();
    assert_eq!(notes, (0..50).map(|number| format!("note {number}")).collect::<Vec<_>>());
}

async fn a_client_dispatches_many_at_once(subject: Subject) {
    let board = Board::default();
    let (worker, client) = pair(&subject, &board).await;
    let outcomes = client.dispatch_batch(keys(300).into_iter().map(|key| (key, ""))).await;
    assert!(outcomes.iter().all(Result::is_ok));
    board.runs_all(&keys(300)).await;
    assert_eq!(worker.jobs().await.unwrap().len(), 300);
}

async fn a_client_has_no_workers(subject: Subject) {
    let board = Board::default();
    let client = client(&subject).await;
    assert!(matches!(client.add_worker(board.player("a")).await, Err(Error::ClientOnly { .. })));
    assert!(matches!(client.worker_fn(|_| async { Ok(()) }).await, Err(Error::ClientOnly { .. })));
    // A job waits for somebody else's.
    client.enqueue("violin", "").await.unwrap();
    assert_eq!(client.job("violin").await.unwrap().map(|job| job.state), Some(JobState::Waiting));
    let worker = node().join(&subject.client().await).await.unwrap();
    worker.add_worker(board.player("a")).await.unwrap();
    board.runs_all(&["violin".to_owned()]).await;
}

async fn a_client_is_closed_by_a_shutdown_and_can_order_one(subject: Subject) {
    let board = Board::default();
    let (worker, one) = pair(&subject, &board).await;
    let other = client(&subject).await;
    one.dispatch("violin", "").await.unwrap();
    one.shutdown().await.unwrap();
    assert_eq!(board.node_of("violin"), None);
    for node in [&worker, &other] {
        eventually("the node is closed", async || if node.is_closed() { Ok(()) } else { Err(()) }).await;
    }
}

async fn a_client_makes_plans(subject: Subject) {
    let board = Board::default();
    let (_worker, client) = pair(&subject, &board).await;
    client.dispatch("old", "").await.unwrap();
    let producer = |_| async { Ok(Plan::new().start(("new", "")).only_in_pool()) };
    client.schedule("programme", Duration::from_millis(25), producer).await.unwrap();
    board.runs_all(&["new".to_owned()]).await;
}

async fn a_client_learns_of_jobs_that_end_after_it_was_idle(subject: Subject) {
    let board = Board::default();
    let (_worker, client) = pair(&subject, &board).await;
    client.dispatch("violin", "").await.unwrap();
    if subject.kind() == tests::BackendKind::Memory {
        // Longer than it follows the jobs for nobody, on a clock that need not be waited for.
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
    client.stop("violin").await.unwrap();
    client.dispatch("violin", "").await.unwrap();
    board.check();
}
