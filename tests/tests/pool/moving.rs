//! Workers that come and go.

use std::{collections::HashMap, time::Duration};

use bytes::Bytes;
use pulse_core::{Client, Transaction};
use pulse_pool::{Error, JobState, Node, WorkerId, WorkerOptions};
use tests::{Subject, eventually, on_every_backend};

use crate::{
    board::{Board, Run},
    keys, node, orchestra,
};

on_every_backend!(
    a_joining_worker_gets_what_it_wins_and_nothing_else_moves,
    a_leaving_worker_moves_exactly_its_own_jobs,
    a_worker_gets_its_share_by_weight,
    a_closing_node_hands_its_jobs_over,
    the_last_worker_leaves_its_jobs_waiting_for_the_next,
    removing_a_worker_twice_or_of_another_node_is_an_error,
    a_job_that_starts_or_stops_slowly_does_not_hold_up_a_move_of_others,
    a_job_that_moved_keeps_its_payload_and_gets_a_greater_epoch,
    a_worker_may_come_and_go_a_thousand_times,
    a_worker_leaves_also_if_the_backend_has_forgotten_that_it_drains,
    a_worker_that_has_left_stays_away_also_if_the_backend_has_forgotten_that,
);

/// Which keys run elsewhere than before, or were disturbed.
fn moved(before: &HashMap<String, Run>, after: &HashMap<String, Run>) -> Vec<String> {
    let mut moved: Vec<String> = before.keys().filter(|key| before.get(*key) != after.get(*key)).cloned().collect();
    moved.sort_unstable();
    moved
}

fn of_node(runs: &HashMap<String, Run>, node: &str) -> Vec<String> {
    let mut keys: Vec<String> = runs.iter().filter(|(_, run)| run.node == node).map(|(key, _)| key.clone()).collect();
    keys.sort_unstable();
    keys
}

/// Waits until every job runs where the node's replica says, and no record is under way.
async fn settled(node: &Node, board: &Board, jobs: usize) {
    eventually("all jobs run", async || {
        let all = node.jobs().await.unwrap();
        let running = all.iter().filter(|job| job.state == JobState::Running).count();
        let owned_by_living = all.iter().all(|job| job.node.is_some());
        let seen = board.running().len();
        if running == jobs && seen == jobs && owned_by_living { Ok(()) } else { Err((running, seen)) }
    })
    .await;
}

async fn a_joining_worker_gets_what_it_wins_and_nothing_else_moves(subject: Subject) {
    let (one, two) = (subject.client().await, subject.client().await);
    let (a, b) = (node().join(&one).await.unwrap(), node().join(&two).await.unwrap());
    let (board, keys) = (Board::default(), keys(40));
    a.add_worker(board.player("first")).await.unwrap();
    a.add_worker(board.player("second")).await.unwrap();
    for key in &keys {
        a.enqueue(key, "").await.unwrap();
    }
    board.runs_all(&keys).await;
    let before = board.running();
    b.add_worker(board.player("third")).await.unwrap();
    eventually("the third worker runs something", async || match of_node(&board.running(), "third").len() {
        0 => Err(()),
        _ => Ok(()),
    })
    .await;
    // Nothing is under way once every record names the worker that it belongs to.
    let mut last = board.running();
    loop {
        settled(&a, &board, keys.len()).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        if std::mem::replace(&mut last, board.running()) == last {
            break;
        }
    }
    let after = board.running();
    let (moved, won) = (moved(&before, &after), of_node(&after, "third"));
    assert_eq!(moved, won);
    assert!((3..30).contains(&won.len()), "{} of 40 moved to the third of three workers", won.len());
    a.close().await.unwrap();
    b.close().await.unwrap();
    board.check();
}

async fn a_leaving_worker_moves_exactly_its_own_jobs(subject: Subject) {
    let (one, two) = (subject.client().await, subject.client().await);
    let (a, b) = (node().join(&one).await.unwrap(), node().join(&two).await.unwrap());
    let (board, keys) = (Board::default(), keys(40));
    let first = a.add_worker(board.player("first")).await.unwrap();
    a.add_worker(board.player("second")).await.unwrap();
    b.add_worker(board.player("third")).await.unwrap();
    for key in &keys {
        b.dispatch(key, "").await.unwrap();
    }
    let before = board.running();
    let own = of_node(&before, "first");
    assert!(!own.is_empty());
    a.remove_worker(first).await.unwrap();
    assert!(a.pool_workers().iter().all(|worker| worker.id != first || worker.draining));
    settled(&b, &board, keys.len()).await;
    let after = board.running();
    assert_eq!(of_node(&after, "first"), Vec::<String>::new());
    assert_eq!(moved(&before, &after), own);
    a.close().await.unwrap();
    b.close().await.unwrap();
    board.check();
}

async fn a_worker_gets_its_share_by_weight(subject: Subject) {
    let client = subject.client().await;
    let (node, board) = (node().join(&client).await.unwrap(), Board::default());
    node.add_worker_with(board.player("heavy"), WorkerOptions::default().with_weight(7)).await.unwrap();
    node.add_worker(board.player("light")).await.unwrap();
    node.add_worker_with(board.player("none"), WorkerOptions::default().with_weight(0)).await.unwrap();
    let keys = keys(80);
    for key in &keys {
        node.enqueue(key, "").await.unwrap();
    }
    board.runs_all(&keys).await;
    let runs = board.running();
    let light = of_node(&runs, "light").len();
    assert!((1..30).contains(&light), "{light} of 80 jobs run on a worker of weight 1 of 8");
    assert_eq!(of_node(&runs, "none"), Vec::<String>::new());
    node.close().await.unwrap();
}

async fn a_closing_node_hands_its_jobs_over(subject: Subject) {
    let (one, two) = (subject.client().await, subject.client().await);
    let (a, b) = (node().join(&one).await.unwrap(), node().join(&two).await.unwrap());
    let (board, keys) = (Board::default(), keys(20));
    a.add_worker(board.player("a")).await.unwrap();
    b.add_worker(board.player("b")).await.unwrap();
    for key in &keys {
        a.dispatch(key, "").await.unwrap();
    }
    let before = board.running();
    a.close().await.unwrap();
    assert_eq!(of_node(&board.running(), "a"), Vec::<String>::new());
    settled(&b, &board, keys.len()).await;
    let after = board.running();
    assert_eq!(moved(&before, &after), of_node(&before, "a"));
    assert_eq!(b.pool_workers().len(), 1);
    b.close().await.unwrap();
    board.check();
}

async fn the_last_worker_leaves_its_jobs_waiting_for_the_next(subject: Subject) {
    let (one, two) = (subject.client().await, subject.client().await);
    let (a, b) = (node().join(&one).await.unwrap(), node().join(&two).await.unwrap());
    let (board, keys) = (Board::default(), keys(10));
    a.add_worker(board.player("a")).await.unwrap();
    for key in &keys {
        a.dispatch(key, "").await.unwrap();
    }
    a.close().await.unwrap();
    assert!(board.running().is_empty());
    eventually("the jobs wait", async || {
        let waiting = b.jobs().await.unwrap().into_iter().filter(|job| job.state == JobState::Waiting).count();
        if waiting == 10 { Ok(()) } else { Err(waiting) }
    })
    .await;
    b.add_worker(board.player("b")).await.unwrap();
    board.runs_all(&keys).await;
    b.close().await.unwrap();
    board.check();
}

async fn removing_a_worker_twice_or_of_another_node_is_an_error(subject: Subject) {
    let (one, two) = (subject.client().await, subject.client().await);
    let (a, b) = (node().join(&one).await.unwrap(), node().join(&two).await.unwrap());
    let board = Board::default();
    let worker = a.add_worker(board.player("a")).await.unwrap();
    let removed = b.remove_worker(worker).await;
    assert!(matches!(removed, Err(Error::UnknownWorker { .. })), "{removed:?}");
    a.remove_worker(worker).await.unwrap();
    let removed = a.remove_worker(worker).await;
    assert!(matches!(removed, Err(Error::UnknownWorker { .. })), "{removed:?}");
    a.close().await.unwrap();
    b.close().await.unwrap();
}

async fn a_job_that_starts_or_stops_slowly_does_not_hold_up_a_move_of_others(subject: Subject) {
    let (one, two) = (subject.client().await, subject.client().await);
    let a = node().shutdown_timeout(Duration::from_millis(500)).join(&one).await.unwrap();
    let b = node().join(&two).await.unwrap();
    let (board, keys) = (Board::default(), keys(20));
    a.add_worker(board.player("a")).await.unwrap();
    a.enqueue("tuba", "hang").await.unwrap();
    a.dispatch("gong", "hang in stop").await.unwrap();
    for key in &keys {
        a.dispatch(key, "").await.unwrap();
    }
    b.add_worker(board.player("b")).await.unwrap();
    let closed = a.close().await;
    assert!(matches!(closed, Err(Error::TimedOut { .. })), "{closed:?}");
    eventually("all that can move has moved", async || {
        let on_b = of_node(&board.running(), "b");
        if keys.iter().all(|key| on_b.contains(key)) { Ok(()) } else { Err(on_b) }
    })
    .await;
    b.stop("tuba").await.unwrap();
    b.close().await.unwrap();
    board.check();
}

async fn a_job_that_moved_keeps_its_payload_and_gets_a_greater_epoch(subject: Subject) {
    let (one, two) = (subject.client().await, subject.client().await);
    let (a, b) = (node().join(&one).await.unwrap(), node().join(&two).await.unwrap());
    let (board, key) = (Board::default(), vec!["violin".to_owned()]);
    a.add_worker(board.player("a")).await.unwrap();
    let first = a.dispatch("violin", "allegro").await.unwrap();
    b.add_worker(board.player("b")).await.unwrap();
    a.close().await.unwrap();
    board.settles(&key, |_| Some("b".into())).await;
    let run = board.running()["violin"].clone();
    assert_eq!(run.payload, "allegro");
    assert!(Some(run.epoch) > first.epoch);
    b.close().await.unwrap();
    board.check();
}

async fn a_worker_may_come_and_go_a_thousand_times(subject: Subject) {
    let (one, two) = (subject.client().await, subject.client().await);
    let (a, b) = (node().join(&one).await.unwrap(), node().join(&two).await.unwrap());
    let (board, keys) = (Board::default(), keys(10));
    a.add_worker(board.player("a")).await.unwrap();
    for dispatched in a.dispatch_batch(keys.iter().map(|key| (key, ""))).await {
        dispatched.unwrap();
    }
    for _ in 0..1_000 {
        let worker = b.add_worker(board.player("b")).await.unwrap();
        b.remove_worker(worker).await.unwrap();
        assert_eq!(b.workers(), []);
    }
    board.settles(&keys, |_| Some("a".into())).await;
    eventually("only one worker is left", async || {
        let workers = a.pool_workers().len();
        if workers == 1 { Ok(()) } else { Err(workers) }
    })
    .await;
    a.close().await.unwrap();
    b.close().await.unwrap();
    board.check();
}

/// The record of a worker as the backend has it.
async fn record(client: &Client, worker: WorkerId) -> Option<Bytes> {
    let workers = orchestra().map("pool:workers").unwrap();
    client.backend().map_get(&workers, &[&worker.to_string()]).await.unwrap().remove(0)
}

async fn a_worker_leaves_also_if_the_backend_has_forgotten_that_it_drains(subject: Subject) {
    let (client, board) = (subject.client().await, Board::default());
    let node = node().join(&client).await.unwrap();
    let worker = node.add_worker(board.player("a")).await.unwrap();
    node.dispatch("violin", "slow in stop").await.unwrap();
    let (change, record) = (Transaction::new(&orchestra()), async || record(&client, worker).await.unwrap());
    let before = record().await;
    let changes = async || match record().await {
        found if found == before => Err(found),
        _ => Ok(()),
    };
    let forget = async {
        eventually("it drains", changes).await;
        // As a failover would that undoes it.
        client.commit(change.put("pool:workers", worker.to_string(), before.clone())).await.unwrap();
        eventually("it drains again", changes).await;
        board.release();
    };
    let (removed, ()) = tokio::join!(node.remove_worker(worker), forget);
    removed.unwrap();
    assert_eq!(board.running().len(), 0);
    assert_eq!(node.job("violin").await.unwrap().map(|job| job.state), Some(JobState::Waiting));
    node.close().await.unwrap();
    board.check();
}

async fn a_worker_that_has_left_stays_away_also_if_the_backend_has_forgotten_that(subject: Subject) {
    let (client, board) = (subject.client().await, Board::default());
    let node = node().join(&client).await.unwrap();
    let worker = node.add_worker(board.player("a")).await.unwrap();
    let before = record(&client, worker).await.unwrap();
    node.remove_worker(worker).await.unwrap();
    // As a failover would that undoes it.
    let undone = Transaction::new(&orchestra()).put("pool:workers", worker.to_string(), before);
    client.commit(undone).await.unwrap();
    node.enqueue("violin", "").await.unwrap();
    eventually("it is gone", async || record(&client, worker).await.map_or(Ok(()), Err)).await;
    node.add_worker(board.player("b")).await.unwrap();
    board.settles(&["violin".to_owned()], |_| Some("b".into())).await;
    node.close().await.unwrap();
    board.check();
}
