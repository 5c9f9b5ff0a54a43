//! Jobs whose records vanish from the backend while they run.

use std::time::Duration;

use pulse_core::{Client, Transaction, testing::Operation};
use pulse_pool::{HandlerError, Job, JobHandler, JobKey, NewJob, Node};
use tests::{Subject, eventually, on_every_backend};

use crate::{TTL, board::Board, faulty_client, keys, mortal_node, node, orchestra};

on_every_backend!(
    a_job_whose_record_is_deleted_is_stopped_and_reported_as_lost,
    a_job_whose_record_is_another_dispatchs_is_lost,
    all_jobs_are_lost_with_the_map,
    all_jobs_are_lost_with_everything,
    a_job_that_is_lost_while_it_starts_is_reported,
    a_job_that_is_lost_just_before_it_ends_is_reported,
    what_is_stopped_or_ends_or_moves_is_not_lost,
    what_others_took_over_and_ended_is_not_lost,
    what_is_gone_with_its_worker_is_not_lost,
    the_end_of_the_pool_loses_nothing,
);

/// With a server of its own, which it flushes.
#[cfg(feature = "standalone")]
mod flushing {
    use tests::Server;

    use super::*;

    mod standalone {
        #[tokio::test]
        async fn what_a_flush_takes_is_reported_and_the_node_goes_on() {
            super::what_a_flush_takes_is_reported_and_the_node_goes_on().await;
        }
    }

    async fn what_a_flush_takes_is_reported_and_the_node_goes_on() {
        let (server, board) = (Server::start(), Board::default());
        let client = pulse_pool::connect(&server.url()).await.unwrap();
        let node = mortal_node().join(&client).await.unwrap();
        node.add_worker(board.player("a")).await.unwrap();
        for key in keys(20) {
            node.dispatch(&key, "").await.unwrap();
        }
        server.cli(&["FLUSHALL"]);
        has_lost(&node, 20).await;
        board.runs_all(&[]).await;
        eventually("it goes on", async || node.dispatch("encore", "").await.map(|_| ())).await;
        node.close().await.unwrap();
        assert_eq!(node.lost_jobs(), 20);
        board.check();
        client.close().await;
    }
}

async fn deleted(client: &Client, key: &str) {
    client.commit(Transaction::new(&orchestra()).delete("pool:jobs", key)).await.unwrap();
}

async fn has_lost(node: &Node, jobs: u64) {
    eventually("so many jobs are lost", async || match node.lost_jobs() {
        found if found == jobs => Ok(()),
        found => Err(found),
    })
    .await;
}

async fn a_job_whose_record_is_deleted_is_stopped_and_reported_as_lost(subject: Subject) {
    let (client, board) = (subject.client().await, Board::default());
    let (a, b) = (node().join(&client).await.unwrap(), node().join(&subject.client().await).await.unwrap());
    a.add_worker(board.player("a")).await.unwrap();
    b.dispatch("violin", "").await.unwrap();
    b.dispatch("viola", "").await.unwrap();
    deleted(&client, "violin").await;
    has_lost(&a, 1).await;
    board.runs_all(&["viola".to_owned()]).await;
    assert_eq!((a.lost_jobs(), b.lost_jobs()), (1, 0), "it is its node's loss");
    // The key is free.
    b.dispatch("violin", "").await.unwrap();
    b.stop("violin").await.unwrap();
    a.close().await.unwrap();
    b.close().await.unwrap();
    assert_eq!(a.lost_jobs(), 1);
    board.check();
}

async fn a_job_whose_record_is_another_dispatchs_is_lost(subject: Subject) {
    let (client, board) = (subject.client().await, Board::default());
    let node = node().join(&client).await.unwrap();
    node.add_worker(board.player("a")).await.unwrap();
    node.dispatch("violin", "first").await.unwrap();
    let jobs = orchestra().map("pool:jobs").unwrap();
    let first = client.backend().map_get(&jobs, &["violin"]).await.unwrap().remove(0).unwrap();
    node.stop("violin").await.unwrap();
    node.dispatch("violin", "second").await.unwrap();
    // A failover that brings back what was.
    client.commit(Transaction::new(&orchestra()).put("pool:jobs", "violin", first)).await.unwrap();
    has_lost(&node, 1).await;
    node.close().await.unwrap();
}

async fn all_jobs_are_lost_with_the_map(subject: Subject) {
    let (client, board) = (subject.client().await, Board::default());
    let node = node().join(&client).await.unwrap();
    node.add_worker(board.player("a")).await.unwrap();
    for key in keys(5) {
        node.dispatch(&key, "").await.unwrap();
    }
    client.commit(Transaction::new(&orchestra()).destroy_map("pool:jobs")).await.unwrap();
    has_lost(&node, 5).await;
    board.runs_all(&[]).await;
    node.close().await.unwrap();
    assert_eq!(node.lost_jobs(), 5);
    board.check();
}

async fn all_jobs_are_lost_with_everything(subject: Subject) {
    let (client, board) = (subject.client().await, Board::default());
    let node = mortal_node().join(&client).await.unwrap();
    node.add_worker(board.player("a")).await.unwrap();
    for key in keys(5) {
        node.dispatch(&key, "").await.unwrap();
    }
    // The workers go too, so that the node takes itself for cut off.
    let maps = ["pool:workers", "pool:jobs", "pool:payloads", "pool:queue"];
    let all = maps.into_iter().fold(Transaction::new(&orchestra()), Transaction::destroy_map);
    client.commit(all).await.unwrap();
    has_lost(&node, 5).await;
    board.runs_all(&[]).await;
    // It joins again, and goes on.
    node.dispatch("encore", "").await.unwrap();
    node.close().await.unwrap();
    assert_eq!(node.lost_jobs(), 5, "none is counted twice");
    board.check();
}

async fn a_job_that_is_lost_while_it_starts_is_reported(subject: Subject) {
    let (client, board) = (subject.client().await, Board::default());
    let node = node().join(&client).await.unwrap();
    let (begun, mut begins) = tokio::sync::mpsc::unbounded_channel();
    node.add_worker(Hanging(begun)).await.unwrap();
    node.enqueue("tuba", "").await.unwrap();
    begins.recv().await.unwrap();
    deleted(&client, "tuba").await;
    has_lost(&node, 1).await;
    node.close().await.unwrap();
    board.check();
}

/// Never comes to the end of a start.
struct Hanging(tokio::sync::mpsc::UnboundedSender<()>);

#[pulse_pool::async_trait]
impl JobHandler for Hanging {
    async fn start(&self, _: Job) -> Result<(), HandlerError> {
        self.0.send(())?;
        std::future::pending().await
    }

    async fn stop(&self, _: &JobKey) -> Result<(), HandlerError> {
        Ok(())
    }
}

async fn a_job_that_is_lost_just_before_it_ends_is_reported(subject: Subject) {
    let client = subject.client().await;
    let node = node().join(&client).await.unwrap();
    let store = client.clone();
    // The node does not know yet that the record is gone when the function returns.
    let work = move |job: Job| {
        let store = store.clone();
        async move {
            deleted(&store, job.key().as_str()).await;
            Err::<(), _>("try again".into())
        }
    };
    node.worker_fn(work).await.unwrap();
    node.enqueue("sonata", "").await.unwrap();
    has_lost(&node, 1).await;
    node.close().await.unwrap();
    assert_eq!(node.lost_jobs(), 1);
}

async fn what_is_stopped_or_ends_or_moves_is_not_lost(subject: Subject) {
    let (one, two) = (subject.client().await, subject.client().await);
    let (a, b) = (node().join(&one).await.unwrap(), node().join(&two).await.unwrap());
    let work = |job: Job| async move {
        match job.payload().as_ref() {
            b"fail" if job.attempt() == 1 => Err("again".into()),
            b"give up" => {
                job.give_up("no audience");
                Ok(())
            }
            b"stay" => {
                job.stopped().await;
                Err("interrupted".into())
            }
            _ => Ok(()),
        }
    };
    a.worker_fn(work).await.unwrap();
    for (index, key) in keys(30).into_iter().enumerate() {
        let payload = ["fail", "give up", "stay", "", "stay"][index % 5];
        b.enqueue_job(NewJob::new(&key, payload)).await.unwrap();
    }
    b.worker_fn(work).await.unwrap();
    let staying: Vec<String> =
        keys(30).into_iter().enumerate().filter(|(index, _)| matches!(index % 5, 2 | 4)).map(|(_, key)| key).collect();
    eventually("only those are left that stay", async || match b.job_keys().await.unwrap() {
        left if left.len() == staying.len() => Ok(()),
        left => Err(left),
    })
    .await;
    let (stopped, left) = staying.split_at(6);
    for key in stopped {
        b.stop(key).await.unwrap();
    }
    a.close().await.unwrap();
    for key in left {
        b.stop(key).await.unwrap();
    }
    b.close().await.unwrap();
    assert_eq!((a.lost_jobs(), b.lost_jobs()), (0, 0));
}

async fn what_others_took_over_and_ended_is_not_lost(subject: Subject) {
    let board = Board::default();
    let (link, client) = faulty_client(&subject).await;
    link.set_patience(Duration::from_secs(1));
    let (a, b) = (
        mortal_node().join(&client).await.unwrap(),
        mortal_node().timeout(TTL * 4).join(&subject.client().await).await.unwrap(),
    );
    a.add_worker(board.player("a")).await.unwrap();
    for key in keys(5) {
        a.dispatch(&key, "").await.unwrap();
    }
    link.partition();
    b.add_worker(board.player("b")).await.unwrap();
    board.settles(&keys(5), |_| Some("b".into())).await;
    for key in keys(5) {
        b.stop(&key).await.unwrap();
    }
    let (before, asked) = (a.pool_workers(), link.calls(Operation::MapVersion));
    link.heal();
    eventually("the node has joined again", async || {
        let own = a.workers();
        if own.len() == 1 && !before.contains(&own[0]) { Ok(()) } else { Err(own) }
    })
    .await;
    a.dispatch("encore", "").await.unwrap();
    assert!(link.calls(Operation::MapVersion) > asked, "it asks whether all is lost, and is answered");
    a.close().await.unwrap();
    b.close().await.unwrap();
    assert_eq!((a.lost_jobs(), b.lost_jobs()), (0, 0));
    board.check();
}

async fn what_is_gone_with_its_worker_is_not_lost(subject: Subject) {
    let (client, board) = (subject.client().await, Board::default());
    let node = node().join(&client).await.unwrap();
    let worker = node.add_worker(board.player("a")).await.unwrap();
    for key in keys(5) {
        node.dispatch(&key, "").await.unwrap();
    }
    // As if others had taken the worker for dead, and its jobs over, and the jobs had ended, all before the node heard
    // of any of it.
    let gone = Transaction::new(&orchestra()).delete("pool:workers", worker.to_string());
    let gone = keys(5).iter().fold(gone, |gone, key| gone.delete("pool:jobs", key.as_str()));
    client.commit(gone).await.unwrap();
    board.runs_all(&[]).await;
    node.dispatch("encore", "").await.unwrap();
    node.close().await.unwrap();
    assert_eq!(node.lost_jobs(), 0);
    board.check();
}

async fn the_end_of_the_pool_loses_nothing(subject: Subject) {
    let board = Board::default();
    let (a, b) =
        (node().join(&subject.client().await).await.unwrap(), node().join(&subject.client().await).await.unwrap());
    a.add_worker(board.player("a")).await.unwrap();
    b.add_worker(board.player("b")).await.unwrap();
    for key in keys(20) {
        a.dispatch(&key, "").await.unwrap();
    }
    b.shutdown().await.unwrap();
    a.close().await.unwrap();
    board.runs_all(&[]).await;
    assert_eq!((a.lost_jobs(), b.lost_jobs()), (0, 0));
    board.check();
}
