//! Dispatching and stopping.

use std::time::Duration;

use pulse_pool::{Error, JobState};
use tests::{Subject, eventually, on_every_backend};

use crate::{board::Board, keys, node};

on_every_backend!(
    a_dispatched_job_runs_with_its_payload_until_it_is_stopped,
    a_job_that_is_dispatched_anywhere_runs_on_the_worker_that_it_belongs_to,
    a_node_knows_the_workers_when_it_has_joined,
    dispatching_an_existing_key_is_an_error_and_disturbs_nothing,
    stopping_an_unknown_job_is_an_error,
    a_job_dispatched_without_a_worker_waits_and_starts_when_one_joins,
    a_waiting_job_can_be_stopped,
    a_handler_that_refuses_is_heard_by_the_dispatcher_and_leaves_no_job,
    a_panicking_handler_harms_nobody_else,
    a_handler_that_hangs_in_start_blocks_nobody_and_can_be_stopped,
    a_handler_that_hangs_in_stop_blocks_nobody_else,
    a_key_can_be_used_again_and_gets_a_greater_epoch,
    a_full_queue_is_an_error,
    absurd_keys_and_payloads_are_keys_and_payloads,
    a_closed_node_says_so,
    a_job_can_be_stopped_from_another_node,
    many_callers_dispatch_at_once,
);

async fn a_dispatched_job_runs_with_its_payload_until_it_is_stopped(subject: Subject) {
    let client = subject.client().await;
    let (node, board) = (node().join(&client).await.unwrap(), Board::default());
    let worker = node.add_worker(board.player("a")).await.unwrap();
    let job = node.dispatch("violin", "allegro").await.unwrap();
    assert_eq!((job.state, job.owner, job.node), (JobState::Running, Some(worker), Some(node.id())));
    let run = board.running()["violin"].clone();
    assert_eq!((run.payload.as_str(), Some(run.epoch)), ("allegro", job.epoch));
    assert_eq!(node.jobs().await.unwrap(), [job]);
    node.stop("violin").await.unwrap();
    assert!(board.running().is_empty());
    assert_eq!(node.jobs().await.unwrap(), []);
    node.close().await.unwrap();
    board.check();
}

async fn a_job_that_is_dispatched_anywhere_runs_on_the_worker_that_it_belongs_to(subject: Subject) {
    let (one, two) = (subject.client().await, subject.client().await);
    let (a, b) = (node().join(&one).await.unwrap(), node().join(&two).await.unwrap());
    let board = Board::default();
    a.add_worker(board.player("a")).await.unwrap();
    b.add_worker(board.player("b")).await.unwrap();
    for (index, key) in keys(20).iter().enumerate() {
        let job = if index % 2 == 0 { &a } else { &b }.dispatch(key, "").await.unwrap();
        let label = if job.node == Some(a.id()) { "a" } else { "b" };
        assert_eq!(board.node_of(key).as_deref(), Some(label));
    }
    let on_a = board.running().values().filter(|run| run.node == "a").count();
    assert!((1..20).contains(&on_a), "{on_a} of 20 jobs run on one of two nodes");
    a.close().await.unwrap();
    b.close().await.unwrap();
    board.check();
}

async fn a_node_knows_the_workers_when_it_has_joined(subject: Subject) {
    let board = Board::default();
    let a = node().join(&subject.client().await).await.unwrap();
    let worker = a.add_worker(board.player("a")).await.unwrap();
    let b = node().join(&subject.client().await).await.unwrap();
    assert_eq!(b.pool_workers().iter().map(|worker| worker.id).collect::<Vec<_>>(), [worker]);
    let client = node().client_only().join(&subject.client().await).await.unwrap();
    assert_eq!(client.stats().await.unwrap().workers, 1);
    for node in [client, b, a] {
        node.close().await.unwrap();
    }
}

async fn dispatching_an_existing_key_is_an_error_and_disturbs_nothing(subject: Subject) {
    let client = subject.client().await;
    let (node, board) = (node().join(&client).await.unwrap(), Board::default());
    node.add_worker(board.player("a")).await.unwrap();
    node.dispatch("violin", "first").await.unwrap();
    let again = node.dispatch("violin", "second").await;
    assert!(matches!(again, Err(Error::Exists { ref key, .. }) if key.as_str() == "violin"), "{again:?}");
    let again = node.enqueue("violin", "third").await;
    assert!(matches!(again, Err(Error::Exists { .. })), "{again:?}");
    assert_eq!(board.running()["violin"].payload, "first");
    assert_eq!(board.starts("violin"), 1);
    node.close().await.unwrap();
}

async fn stopping_an_unknown_job_is_an_error(subject: Subject) {
    let client = subject.client().await;
    let node = node().join(&client).await.unwrap();
    let stopped = node.stop("nobody").await;
    assert!(matches!(stopped, Err(Error::UnknownJob { ref key, .. }) if key.as_str() == "nobody"), "{stopped:?}");
    node.close().await.unwrap();
}

async fn a_job_dispatched_without_a_worker_waits_and_starts_when_one_joins(subject: Subject) {
    let client = subject.client().await;
    let (node, board) = (node().join(&client).await.unwrap(), Board::default());
    node.enqueue("violin", "allegro").await.unwrap();
    let waiting = async {
        eventually("the job is recorded", async || match node.job("violin").await.unwrap().map(|job| job.state) {
            Some(JobState::Waiting) => Ok(()),
            other => Err(other),
        })
        .await;
        node.add_worker(board.player("a")).await.unwrap();
    };
    let ((), viola) = tokio::join!(waiting, node.dispatch("viola", "andante"));
    assert_eq!(viola.unwrap().state, JobState::Running);
    board.runs_all(&["violin".to_owned(), "viola".to_owned()]).await;
    assert_eq!(board.running()["violin"].payload, "allegro");
    node.close().await.unwrap();
    board.check();
}

async fn a_waiting_job_can_be_stopped(subject: Subject) {
    let client = subject.client().await;
    let node = node().timeout(Duration::from_millis(300)).join(&client).await.unwrap();
    let dispatched = node.dispatch("violin", "").await;
    assert!(matches!(dispatched, Err(Error::NotStarted { .. })), "{dispatched:?}");
    assert_eq!(node.job("violin").await.unwrap().map(|job| job.state), Some(JobState::Waiting));
    node.stop("violin").await.unwrap();
    let stopped = node.stop("violin").await;
    assert!(matches!(stopped, Err(Error::UnknownJob { .. })), "{stopped:?}");
    node.close().await.unwrap();
}

async fn a_handler_that_refuses_is_heard_by_the_dispatcher_and_leaves_no_job(subject: Subject) {
    let (one, two) = (subject.client().await, subject.client().await);
    let (a, b) = (node().join(&one).await.unwrap(), node().join(&two).await.unwrap());
    let board = Board::default();
    b.add_worker(board.player("b")).await.unwrap();
    for _ in 0..3 {
        let refused = a.dispatch("violin", "refuse").await;
        assert!(
            matches!(refused, Err(Error::Rejected { ref message, .. }) if message == "I do not play this"),
            "{refused:?}"
        );
    }
    let stopped = a.stop("violin").await;
    assert!(matches!(stopped, Err(Error::UnknownJob { .. })), "{stopped:?}");
    assert_eq!(a.jobs().await.unwrap(), []);
    a.dispatch("violin", "allegro").await.unwrap();
    a.close().await.unwrap();
    b.close().await.unwrap();
}

async fn a_panicking_handler_harms_nobody_else(subject: Subject) {
    let client = subject.client().await;
    let (node, board) = (node().join(&client).await.unwrap(), Board::default());
    node.add_worker(board.player("a")).await.unwrap();
    node.dispatch("violin", "allegro").await.unwrap();
    let refused = node.dispatch("drum", "panic").await;
    assert!(
        matches!(refused, Err(Error::Rejected { ref message, .. }) if message.contains("I broke a string")),
        "{refused:?}"
    );
    // The same key, too, is as free as ever.
    node.dispatch("drum", "softly").await.unwrap();
    board.runs_all(&["violin".to_owned(), "drum".to_owned()]).await;
    assert_eq!(board.starts("violin"), 1);
    node.close().await.unwrap();
    board.check();
}

async fn a_handler_that_hangs_in_start_blocks_nobody_and_can_be_stopped(subject: Subject) {
    let client = subject.client().await;
    let (node, board) = (node().timeout(Duration::from_secs(5)).join(&client).await.unwrap(), Board::default());
    node.add_worker(board.player("a")).await.unwrap();
    node.enqueue("tuba", "hang").await.unwrap();
    for key in keys(10) {
        node.dispatch(&key, "").await.unwrap();
        node.stop(&key).await.unwrap();
    }
    assert_eq!(node.job("tuba").await.unwrap().map(|job| job.state), Some(JobState::Starting));
    node.stop("tuba").await.unwrap();
    assert_eq!(node.jobs().await.unwrap(), []);
    node.close().await.unwrap();
}

async fn a_handler_that_hangs_in_stop_blocks_nobody_else(subject: Subject) {
    let client = subject.client().await;
    let timeout = Duration::from_millis(500);
    let node = node().timeout(timeout).shutdown_timeout(timeout).join(&client).await.unwrap();
    let board = Board::default();
    node.add_worker(board.player("a")).await.unwrap();
    node.dispatch("tuba", "hang in stop").await.unwrap();
    let stopped = node.stop("tuba").await;
    assert!(matches!(stopped, Err(Error::NotStopped { .. })), "{stopped:?}");
    assert_eq!(node.job("tuba").await.unwrap().map(|job| job.state), Some(JobState::Stopping));
    for key in keys(5) {
        node.dispatch(&key, "").await.unwrap();
        node.stop(&key).await.unwrap();
    }
    let closed = node.close().await;
    assert!(matches!(closed, Err(Error::TimedOut { .. })), "{closed:?}");
}

async fn a_key_can_be_used_again_and_gets_a_greater_epoch(subject: Subject) {
    let client = subject.client().await;
    let (node, board) = (node().join(&client).await.unwrap(), Board::default());
    node.add_worker(board.player("a")).await.unwrap();
    let mut last = None;
    for round in 0..5 {
        let job = node.dispatch("violin", format!("{round}")).await.unwrap();
        assert!(job.epoch > last, "{:?} after {last:?}", job.epoch);
        last = job.epoch;
        assert_eq!(board.running()["violin"].payload, format!("{round}"));
        node.stop("violin").await.unwrap();
    }
    node.close().await.unwrap();
    board.check();
}

async fn a_full_queue_is_an_error(subject: Subject) {
    let client = subject.client().await;
    let (node, board) = (node().max_queued(3).join(&client).await.unwrap(), Board::default());
    for key in keys(3) {
        node.enqueue(&key, "").await.unwrap();
    }
    let refused = node.enqueue("one too many", "").await;
    assert!(matches!(refused, Err(Error::QueueFull { limit: 3, .. })), "{refused:?}");
    // Jobs that run are not queued any more.
    node.add_worker(board.player("a")).await.unwrap();
    board.runs_all(&keys(3)).await;
    for key in &keys(8)[3..] {
        node.dispatch(key, "").await.unwrap();
    }
    node.close().await.unwrap();
}

async fn absurd_keys_and_payloads_are_keys_and_payloads(subject: Subject) {
    let client = subject.client().await;
    let (node, board) = (node().join(&client).await.unwrap(), Board::default());
    node.add_worker(board.player("a")).await.unwrap();
    for key in ["", " ", "=", "{a}", "a:b\nc", "\0", "ключ", &"long".repeat(10_000)] {
        let dispatched = node.dispatch(key, "x".repeat(100_000)).await;
        if key.is_empty() {
            assert!(matches!(dispatched, Err(Error::InvalidKey { .. })), "{dispatched:?}");
            assert!(matches!(node.stop(key).await, Err(Error::InvalidKey { .. })));
        } else {
            assert_eq!(dispatched.unwrap().key.as_str(), key);
            assert_eq!(board.running()[key].payload.len(), 100_000);
            node.stop(key).await.unwrap();
        }
    }
    node.dispatch("large", "x".repeat(24 << 20)).await.unwrap();
    assert_eq!(board.running()["large"].payload.len(), 24 << 20);
    assert_eq!(node.job_payload("large").await.unwrap().unwrap().len(), 24 << 20);
    let too_long = node.dispatch("k".repeat(1 << 20), "").await;
    assert!(matches!(too_long, Err(Error::Backend { .. })), "{too_long:?}");
    node.close().await.unwrap();
}

async fn a_closed_node_says_so(subject: Subject) {
    let client = subject.client().await;
    let (node, board) = (node().join(&client).await.unwrap(), Board::default());
    node.close().await.unwrap();
    node.close().await.unwrap();
    assert!(node.is_closed());
    assert!(matches!(node.dispatch("violin", "").await, Err(Error::Closed { .. })));
    assert!(matches!(node.stop("violin").await, Err(Error::Closed { .. })));
    assert!(matches!(node.add_worker(board.player("a")).await, Err(Error::Closed { .. })));
    assert_eq!((node.jobs().await.unwrap(), node.pool_workers()), (vec![], vec![]));
}

async fn a_job_can_be_stopped_from_another_node(subject: Subject) {
    let (one, two) = (subject.client().await, subject.client().await);
    let (a, b) = (node().join(&one).await.unwrap(), node().join(&two).await.unwrap());
    let board = Board::default();
    a.add_worker(board.player("a")).await.unwrap();
    for key in keys(10) {
        a.dispatch(&key, "").await.unwrap();
        // Its own replica may not show the job yet.
        b.stop(&key).await.unwrap();
        assert_eq!(board.node_of(&key), None);
    }
    a.close().await.unwrap();
    b.close().await.unwrap();
    board.check();
}

async fn many_callers_dispatch_at_once(subject: Subject) {
    let (one, two) = (subject.client().await, subject.client().await);
    let (a, b) = (node().join(&one).await.unwrap(), node().join(&two).await.unwrap());
    let board = Board::default();
    for _ in 0..2 {
        a.add_worker(board.player("a")).await.unwrap();
        b.add_worker(board.player("b")).await.unwrap();
    }
    let keys = keys(64);
    let dispatch = async |from: &pulse_pool::Node| {
        let mut accepted = 0;
        for key in &keys {
            match from.dispatch(key, "").await {
                Ok(_) => accepted += 1,
                Err(Error::Exists { .. }) => {}
                Err(error) => panic!("{key}: {error:?}"),
            }
        }
        accepted
    };
    let (of_a, of_b) = tokio::join!(dispatch(&a), dispatch(&b));
    assert_eq!(of_a + of_b, 64);
    board.runs_all(&keys).await;
    assert!(keys.iter().all(|key| board.starts(key) == 1));
    a.close().await.unwrap();
    b.close().await.unwrap();
    board.check();
}
