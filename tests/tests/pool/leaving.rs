//! Shutting the whole pool down.

use std::time::Duration;

use pulse_pool::{Error, NewJob, Node};
use tests::{Subject, eventually, on_every_backend};

use crate::{TTL, board::Board, keys, mortal_node, node};

on_every_backend!(
    a_shutdown_stops_everything_everywhere_and_leaves_nothing,
    nobody_joins_or_dispatches_while_the_pool_is_shut_down,
    several_may_shut_the_pool_down_at_once,
    a_shutdown_waits_for_the_dead,
    a_handler_that_hangs_bounds_the_shutdown_and_the_jobs_stay,
    whoever_asks_while_the_pool_is_shut_down_is_told_when_it_is_over,
    a_node_whose_handlers_hang_does_not_call_the_shutdown_done,
    a_node_without_workers_shuts_down_and_is_shut_down,
    a_signal_closes_a_node,
);

async fn two(subject: &Subject, board: &Board) -> (Node, Node) {
    let (one, two) = (subject.client().await, subject.client().await);
    let (a, b) = (node().join(&one).await.unwrap(), node().join(&two).await.unwrap());
    a.add_worker(board.player("a")).await.unwrap();
    b.add_worker(board.player("b")).await.unwrap();
    (a, b)
}

async fn sees_both(node: &Node) {
    eventually("it sees both workers", async || match node.pool_workers().len() {
        2 => Ok(()),
        workers => Err(workers),
    })
    .await;
}

async fn closed(node: &Node) {
    eventually("the node is closed", async || if node.is_closed() { Ok(()) } else { Err(node.jobs().await.unwrap()) })
        .await;
}

async fn a_shutdown_stops_everything_everywhere_and_leaves_nothing(subject: Subject) {
    let board = Board::default();
    let (a, b) = two(&subject, &board).await;
    for key in keys(40) {
        a.dispatch(&key, "").await.unwrap();
    }
    a.enqueue_job(NewJob::new("later", "").run_in(Duration::from_secs(3600))).await.unwrap();
    a.enqueue_job(NewJob::new("nowhere", "").requires("a harp")).await.unwrap();
    b.shutdown().await.unwrap();
    assert!(board.running().is_empty(), "{:?}", board.running());
    closed(&a).await;
    assert!(a.is_shutdown() && b.is_shutdown());
    assert!(matches!(a.dispatch("more", "").await, Err(Error::Closed { .. })));
    a.close().await.unwrap();
    assert!(matches!(b.shutdown().await, Err(Error::Closed { .. })));
    // A pool of that name may begin anew.
    let (a, b) = two(&subject, &board).await;
    assert_eq!((a.jobs().await.unwrap(), a.dead_jobs().await.unwrap()), (vec![], vec![]));
    for key in keys(4) {
        b.dispatch(&key, "").await.unwrap();
    }
    a.close().await.unwrap();
    b.close().await.unwrap();
}

async fn nobody_joins_or_dispatches_while_the_pool_is_shut_down(subject: Subject) {
    let board = Board::default();
    let (a, b) = two(&subject, &board).await;
    a.dispatch("violin", "slow in stop").await.unwrap();
    let client = subject.client().await;
    let meanwhile = async {
        eventually("the pool is shut down", async || if b.is_shutdown() { Ok(()) } else { Err(()) }).await;
        let joined = node().join(&client).await;
        assert!(matches!(joined, Err(Error::ShuttingDown { .. })), "{joined:?}");
        let dispatched = b.dispatch("one more", "").await;
        assert!(matches!(dispatched, Err(Error::ShuttingDown { .. } | Error::Closed { .. })), "{dispatched:?}");
        board.release();
    };
    let (shut, ()) = tokio::join!(a.shutdown(), meanwhile);
    shut.unwrap();
    let again = node().join(&client).await.unwrap();
    assert_eq!(again.jobs().await.unwrap(), []);
    again.close().await.unwrap();
}

async fn several_may_shut_the_pool_down_at_once(subject: Subject) {
    let board = Board::default();
    let (a, b) = two(&subject, &board).await;
    for key in keys(20) {
        a.dispatch(&key, "").await.unwrap();
    }
    let (one, other, same) = tokio::join!(a.shutdown(), b.shutdown(), b.shutdown());
    one.unwrap();
    other.unwrap();
    same.unwrap();
    assert!(board.running().is_empty());
}

async fn a_shutdown_waits_for_the_dead(subject: Subject) {
    let board = Board::default();
    let living = node().join(&subject.client().await).await.unwrap();
    let dead = mortal_node().join(&subject.client().await).await.unwrap();
    dead.add_worker(board.player("dead")).await.unwrap();
    living.dispatch("violin", "").await.unwrap();
    drop(dead);
    let began = tokio::time::Instant::now();
    living.shutdown().await.unwrap();
    assert!(began.elapsed() >= TTL / 2, "it did not wait: {:?}", began.elapsed());
    let again = node().join(&subject.client().await).await.unwrap();
    assert_eq!((again.jobs().await.unwrap(), again.pool_workers()), (vec![], vec![]));
    again.close().await.unwrap();
}

async fn a_handler_that_hangs_bounds_the_shutdown_and_the_jobs_stay(subject: Subject) {
    let board = Board::default();
    let client = subject.client().await;
    let limit = Duration::from_millis(500);
    let doomed = mortal_node().shutdown_timeout(limit).join(&client).await.unwrap();
    doomed.add_worker(board.player("doomed")).await.unwrap();
    doomed.dispatch("violin", "hang in stop").await.unwrap();
    let shut = doomed.shutdown().await;
    assert!(matches!(shut, Err(Error::TimedOut { .. })), "{shut:?}");
    assert!(doomed.is_closed());
    let next = eventually("somebody can join again", async || node().join(&client).await).await;
    next.add_worker(board.player("next")).await.unwrap();
    board.settles(&["violin".to_owned()], |_| Some("next".to_owned())).await;
    drop(next);
}

async fn whoever_asks_while_the_pool_is_shut_down_is_told_when_it_is_over(subject: Subject) {
    let board = Board::default();
    let (a, b) = two(&subject, &board).await;
    sees_both(&a).await;
    // So many that both have some.
    for key in keys(40) {
        a.dispatch(&key, "slow in stop").await.unwrap();
    }
    let late = async {
        eventually("the pool is shut down", async || if b.is_shutdown() { Ok(()) } else { Err(()) }).await;
        let (asked, ()) = tokio::join!(b.shutdown(), async { board.release() });
        asked
    };
    let (first, late) = tokio::join!(a.shutdown(), late);
    first.unwrap();
    late.unwrap();
    board.check();
}

async fn a_node_whose_handlers_hang_does_not_call_the_shutdown_done(subject: Subject) {
    let board = Board::default();
    let (one, two) = (subject.client().await, subject.client().await);
    let brief = || mortal_node().shutdown_timeout(Duration::from_millis(500));
    let (a, b) = (brief().join(&one).await.unwrap(), brief().join(&two).await.unwrap());
    for (node, name) in [(&a, "a"), (&b, "b")] {
        node.add_worker(board.player(name)).await.unwrap();
    }
    sees_both(&a).await;
    for key in keys(40) {
        a.dispatch(&key, "hang in stop").await.unwrap();
    }
    let (first, second) = tokio::join!(a.shutdown(), b.shutdown());
    assert!(matches!(first, Err(Error::TimedOut { .. })), "{first:?}");
    assert!(matches!(second, Err(Error::TimedOut { .. })), "{second:?}");
}

async fn a_node_without_workers_shuts_down_and_is_shut_down(subject: Subject) {
    let a = node().join(&subject.client().await).await.unwrap();
    let b = node().join(&subject.client().await).await.unwrap();
    a.enqueue("violin", "").await.unwrap();
    b.shutdown().await.unwrap();
    closed(&a).await;
    let again = node().join(&subject.client().await).await.unwrap();
    assert_eq!(again.jobs().await.unwrap(), []);
    again.close().await.unwrap();
}

async fn a_signal_closes_a_node(subject: Subject) {
    let node = node().join(&subject.client().await).await.unwrap();
    let (send, signal) = tokio::sync::oneshot::channel::<()>();
    let (closed, ()) = tokio::join!(node.close_on(signal), async {
        assert!(!node.is_closed());
        send.send(()).unwrap();
    });
    closed.unwrap();
    assert!(node.is_closed() && !node.is_shutdown());
}
