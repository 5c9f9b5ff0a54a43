//! Jobs with terms of their own: labels, priorities, delays, values, many at once.

use std::time::{Duration, SystemTime};

use pulse_pool::{Error, JobState, NewJob, WorkerOptions};
use tests::{Subject, eventually, on_every_backend};
use tokio::time::Instant;

use crate::{board::Board, keys, node};

on_every_backend!(
    a_job_runs_only_where_its_labels_are_and_waits_until_they_come,
    jobs_with_labels_move_to_whoever_has_them_and_the_others_stay,
    a_worker_runs_no_more_than_it_has_room_for_and_the_urgent_first,
    room_that_is_taken_by_nobody_any_more_is_given_to_the_next,
    a_delayed_job_waits_for_its_time_and_can_be_stopped_before_it,
    a_value_arrives_as_it_was_and_the_payload_can_be_read,
    a_batch_starts_all_that_it_can_and_says_what_it_cannot,
    a_batch_beyond_the_queue_records_what_fits,
);

/// Waits until a job is in a state.
async fn is(node: &pulse_pool::Node, key: &str, state: JobState) {
    eventually("the job is in its state", async || match node.job(key).await.unwrap().map(|job| job.state) {
        Some(found) if found == state => Ok(()),
        other => Err(other),
    })
    .await;
}

async fn a_job_runs_only_where_its_labels_are_and_waits_until_they_come(subject: Subject) {
    let client = subject.client().await;
    let (node, board) = (node().join(&client).await.unwrap(), Board::default());
    node.add_worker(board.player("plain")).await.unwrap();
    let options = WorkerOptions::default().with_label("gpu");
    node.add_worker_with(board.player("gpu"), options.clone()).await.unwrap();
    for key in keys(20) {
        let job = node.dispatch_job(NewJob::new(&key, "").requires("gpu")).await.unwrap();
        assert_eq!(job.requires, ["gpu"]);
        assert_eq!(board.node_of(&key).as_deref(), Some("gpu"));
    }
    let both = NewJob::new("both", "").requires("zeus").requires("gpu");
    node.enqueue_job(both).await.unwrap();
    is(&node, "both", JobState::Waiting).await;
    node.add_worker_with(board.player("both"), options.with_label("zeus")).await.unwrap();
    is(&node, "both", JobState::Running).await;
    assert_eq!(board.node_of("both").as_deref(), Some("both"));
    node.close().await.unwrap();
    board.check();
}

async fn jobs_with_labels_move_to_whoever_has_them_and_the_others_stay(subject: Subject) {
    let (one, two) = (subject.client().await, subject.client().await);
    let (a, b) = (node().join(&one).await.unwrap(), node().join(&two).await.unwrap());
    let board = Board::default();
    let options = || WorkerOptions::default().with_label("gpu");
    let leaving = a.add_worker_with(board.player("first"), options()).await.unwrap();
    a.add_worker(board.player("plain")).await.unwrap();
    for key in keys(10) {
        a.dispatch_job(NewJob::new(&key, "").requires("gpu")).await.unwrap();
    }
    b.add_worker_with(board.player("second"), options()).await.unwrap();
    a.remove_worker(leaving).await.unwrap();
    board.settles(&keys(10), |_| Some("second".to_owned())).await;
    b.close().await.unwrap();
    eventually("the jobs wait for the label", async || {
        let waiting = a.jobs().await.unwrap().iter().filter(|job| job.state == JobState::Waiting).count();
        if waiting == 10 { Ok(()) } else { Err(waiting) }
    })
    .await;
    assert!(board.running().is_empty());
    a.close().await.unwrap();
    board.check();
}

async fn a_worker_runs_no_more_than_it_has_room_for_and_the_urgent_first(subject: Subject) {
    let client = subject.client().await;
    let (node, board) = (node().join(&client).await.unwrap(), Board::default());
    node.add_worker_with(board.player("a"), WorkerOptions::default().with_concurrency(1)).await.unwrap();
    node.dispatch("first", "").await.unwrap();
    // Of those that were dispatched in the same millisecond, the lesser key goes first.
    for (key, priority) in [("low", -1), ("early", 0), ("high", 7), ("late", 0)] {
        node.enqueue_job(NewJob::new(key, "").priority(priority)).await.unwrap();
        is(&node, key, JobState::Starting).await;
    }
    assert_eq!(board.begun(), ["first"]);
    let mut running = "first".to_owned();
    for next in ["high", "early", "late", "low"] {
        node.stop(&running).await.unwrap();
        board.runs_all(&[next.to_owned()]).await;
        next.clone_into(&mut running);
    }
    node.close().await.unwrap();
    board.check();
}

async fn room_that_is_taken_by_nobody_any_more_is_given_to_the_next(subject: Subject) {
    let client = subject.client().await;
    let (node, board) = (node().join(&client).await.unwrap(), Board::default());
    node.add_worker_with(board.player("a"), WorkerOptions::default().with_concurrency(2)).await.unwrap();
    node.enqueue_batch((0..20).map(|n| (format!("{n}"), if n % 2 == 0 { "refuse" } else { "" }))).await;
    for left in (0..10).rev() {
        eventually("two run, or all that are left", async || {
            let running = board.running();
            if running.len() == 2.min(left + 1) { Ok(()) } else { Err(running) }
        })
        .await;
        let key = board.running().into_keys().next().unwrap();
        node.stop(&key).await.unwrap();
    }
    eventually("nothing is left", async || {
        if node.jobs().await.unwrap().is_empty() { Ok(()) } else { Err(node.jobs().await.unwrap()) }
    })
    .await;
    node.close().await.unwrap();
    board.check();
}

async fn a_delayed_job_waits_for_its_time_and_can_be_stopped_before_it(subject: Subject) {
    let client = subject.client().await;
    let (node, board) = (node().join(&client).await.unwrap(), Board::default());
    node.add_worker(board.player("a")).await.unwrap();
    let (delay, began) = (Duration::from_secs(1), Instant::now());
    node.enqueue_job(NewJob::new("soon", "").run_in(delay)).await.unwrap();
    node.enqueue_job(NewJob::new("never", "").run_in(Duration::from_secs(3600))).await.unwrap();
    node.enqueue_job(NewJob::new("past", "").run_at(SystemTime::UNIX_EPOCH)).await.unwrap();
    is(&node, "never", JobState::Delayed).await;
    is(&node, "past", JobState::Running).await;
    is(&node, "soon", JobState::Running).await;
    assert!(began.elapsed() >= delay - Duration::from_millis(50), "it began after {:?}", began.elapsed());
    node.stop("never").await.unwrap();
    assert_eq!(board.starts("never"), 0);
    // Whoever takes it over waits as well.
    node.enqueue_job(NewJob::new("next", "").run_in(delay)).await.unwrap();
    let began = Instant::now();
    node.add_worker(board.player("b")).await.unwrap();
    is(&node, "next", JobState::Running).await;
    assert!(began.elapsed() >= delay / 2, "it began after {:?}", began.elapsed());
    node.close().await.unwrap();
    board.check();
}

async fn a_value_arrives_as_it_was_and_the_payload_can_be_read(subject: Subject) {
    let client = subject.client().await;
    let (node, board) = (node().join(&client).await.unwrap(), Board::default());
    let job = NewJob::with_value("typed", &("C sharp", 7)).unwrap();
    node.enqueue_job(job).await.unwrap();
    let payload = node.job_payload("typed").await.unwrap().unwrap();
    let value: (String, u8) = pulse_core::message_pack::decode(&payload).unwrap();
    assert_eq!(value, ("C sharp".to_owned(), 7));
    assert_eq!(node.job_payload("untyped").await.unwrap(), None);
    node.stop("typed").await.unwrap();
    assert_eq!(node.job_payload("typed").await.unwrap(), None);
    drop(board);
    node.close().await.unwrap();
}

async fn a_batch_starts_all_that_it_can_and_says_what_it_cannot(subject: Subject) {
    let (one, two) = (subject.client().await, subject.client().await);
    let (a, b) = (node().join(&one).await.unwrap(), node().join(&two).await.unwrap());
    let board = Board::default();
    a.add_worker(board.player("a")).await.unwrap();
    b.add_worker(board.player("b")).await.unwrap();
    a.dispatch("part 7", "").await.unwrap();
    let mut batch: Vec<NewJob> = keys(250).iter().map(|key| NewJob::new(key, "")).collect();
    batch.push(NewJob::new("part 9", "the same once more"));
    batch.push(NewJob::new("", "no key"));
    batch.push(NewJob::new("refused", "refuse"));
    let outcomes = b.dispatch_batch(batch).await;
    assert_eq!(outcomes.len(), 253);
    for (index, outcome) in outcomes.iter().enumerate() {
        match index {
            7 | 250 => assert!(matches!(outcome, Err(Error::Exists { .. })), "{index}: {outcome:?}"),
            251 => assert!(matches!(outcome, Err(Error::InvalidKey { .. })), "{outcome:?}"),
            252 => assert!(matches!(outcome, Err(Error::Rejected { .. })), "{outcome:?}"),
            _ => assert_eq!(outcome.as_ref().unwrap().state, JobState::Running),
        }
    }
    board.runs_all(&keys(250)).await;
    a.close().await.unwrap();
    b.close().await.unwrap();
    board.check();
}

async fn a_batch_beyond_the_queue_records_what_fits(subject: Subject) {
    let client = subject.client().await;
    let node = node().max_queued(5).join(&client).await.unwrap();
    let outcomes = node.enqueue_batch(keys(8).iter().map(|key| (key.clone(), ""))).await;
    let refused = outcomes.iter().filter(|outcome| matches!(outcome, Err(Error::QueueFull { limit: 5, .. }))).count();
    assert_eq!((outcomes.iter().filter(|outcome| outcome.is_ok()).count(), refused), (5, 3));
    node.close().await.unwrap();
}
