//! Nodes that die, are cut off, or come back.

use std::time::Duration;

use bytes::Bytes;
use pulse_core::{
    Client, Transaction,
    testing::{Fault, Faulty, Operation},
};
use pulse_pool::{Error, JobState, Node};
use tests::{Subject, eventually, on_every_backend};

use crate::{TTL, board::Board, faulty_client, keys, mortal_node, node, orchestra};

on_every_backend!(
    the_jobs_of_a_dead_node_run_again_and_no_other_job_is_touched,
    a_dropped_node_ends_its_jobs_at_once,
    a_node_that_is_cut_off_stops_before_others_take_over_and_comes_back,
    a_node_that_is_paused_stops_before_others_take_over_and_comes_back,
    an_outage_for_everybody_stops_all_jobs_and_all_run_again_afterwards,
    a_short_outage_disturbs_nothing,
    jobs_whose_nodes_are_all_dead_run_when_a_new_one_joins,
    a_job_that_was_asked_to_stop_when_its_node_died_does_not_run_again,
    a_dispatch_whose_answer_was_lost_runs_the_job_once,
    a_node_that_dies_during_a_hand_over_loses_no_job,
    pools_of_one_server_do_not_see_each_other,
    what_strangers_write_into_the_pools_maps_harms_nobody,
    a_pool_without_workers_can_be_destroyed,
);

async fn workers(node: &Node, count: usize) {
    eventually("the pool has so many workers", async || match node.pool_workers().len() {
        found if found == count => Ok(()),
        found => Err(found),
    })
    .await;
}

async fn the_jobs_of_a_dead_node_run_again_and_no_other_job_is_touched(subject: Subject) {
    let (board, keys) = (Board::default(), keys(30));
    let mut nodes = Vec::new();
    for name in ["a", "b", "c"] {
        let node = mortal_node().join(&subject.client().await).await.unwrap();
        node.add_worker(board.player(name)).await.unwrap();
        nodes.push(node);
    }
    for key in &keys {
        nodes[0].dispatch(key, "").await.unwrap();
    }
    let before = board.running();
    let orphans = board.keys_of("c");
    drop(nodes.pop());
    eventually("the dead node's jobs have ended", async || match board.keys_of("c") {
        keys if keys.is_empty() => Ok(()),
        keys => Err(keys),
    })
    .await;
    board.runs_all(&keys).await;
    let after = board.running();
    for key in &keys {
        if orphans.contains(key) {
            assert!(after[key].epoch > before[key].epoch, "{key}");
        } else {
            assert_eq!(after[key], before[key], "{key} was touched");
        }
    }
    for node in &nodes {
        node.close().await.unwrap();
    }
    board.check();
}

async fn a_dropped_node_ends_its_jobs_at_once(subject: Subject) {
    let (board, keys) = (Board::default(), keys(5));
    let node = node().worker_ttl(Duration::from_secs(3600)).join(&subject.client().await).await.unwrap();
    node.add_worker(board.player("a")).await.unwrap();
    for key in &keys {
        node.dispatch(key, "").await.unwrap();
    }
    drop(node);
    board.runs_all(&[]).await;
}

/// Two nodes with jobs on both, of which the first has the link in hand.
struct Pair {
    link: Faulty,
    a: Node,
    b: Node,
    board: Board,
    keys: Vec<String>,
}

impl Pair {
    async fn new(subject: &Subject) -> Self {
        let (link, client) = faulty_client(subject).await;
        link.set_patience(Duration::from_secs(1));
        let a = mortal_node().join(&client).await.unwrap();
        let b = mortal_node().join(&subject.client().await).await.unwrap();
        let (board, keys) = (Board::default(), keys(20));
        a.add_worker(board.player("a")).await.unwrap();
        b.add_worker(board.player("b")).await.unwrap();
        for key in &keys {
            b.dispatch(key, "").await.unwrap();
        }
        assert!(!board.keys_of("a").is_empty() && !board.keys_of("b").is_empty());
        Self { link, a, b, board, keys }
    }

    /// All jobs move to the second node, then some of them back to the first.
    async fn move_there_and_back(self, heal: impl FnOnce(&Faulty)) {
        let Self { link, a, b, board, keys } = self;
        let old = a.pool_workers();
        board.settles(&keys, |_| Some("b".into())).await;
        heal(&link);
        eventually("the node has joined again", async || {
            let there = a.pool_workers().into_iter().filter(|worker| worker.node == a.id()).collect::<Vec<_>>();
            match there.as_slice() {
                [worker] if !old.contains(worker) => Ok(()),
                _ => Err(there),
            }
        })
        .await;
        eventually("the node has jobs again", async || if board.keys_of("a").is_empty() { Err(()) } else { Ok(()) })
            .await;
        board.runs_all(&keys).await;
        for key in &keys {
            a.stop(key).await.unwrap();
        }
        a.close().await.unwrap();
        b.close().await.unwrap();
        board.check();
    }
}

async fn a_node_that_is_cut_off_stops_before_others_take_over_and_comes_back(subject: Subject) {
    let pair = Pair::new(&subject).await;
    pair.link.partition();
    pair.move_there_and_back(Faulty::heal).await;
}

async fn a_node_that_is_paused_stops_before_others_take_over_and_comes_back(subject: Subject) {
    let pair = Pair::new(&subject).await;
    pair.link.pause();
    pair.move_there_and_back(Faulty::resume).await;
}

async fn an_outage_for_everybody_stops_all_jobs_and_all_run_again_afterwards(subject: Subject) {
    let (board, keys) = (Board::default(), keys(10));
    let (link, client) = faulty_client(&subject).await;
    link.set_patience(Duration::from_millis(500));
    let nodes = [mortal_node().join(&client).await.unwrap(), mortal_node().join(&client).await.unwrap()];
    nodes[0].add_worker(board.player("a")).await.unwrap();
    nodes[1].add_worker(board.player("b")).await.unwrap();
    for key in &keys {
        nodes[0].dispatch(key, "").await.unwrap();
    }
    link.partition();
    board.runs_all(&[]).await;
    tokio::time::sleep(TTL).await;
    link.heal();
    board.runs_all(&keys).await;
    for node in &nodes {
        node.close().await.unwrap();
    }
    board.check();
}

async fn a_short_outage_disturbs_nothing(subject: Subject) {
    let (board, keys) = (Board::default(), keys(10));
    let (link, client) = faulty_client(&subject).await;
    let node = node().join(&client).await.unwrap();
    node.add_worker(board.player("a")).await.unwrap();
    for key in &keys {
        node.dispatch(key, "").await.unwrap();
    }
    let before = board.running();
    link.partition();
    let dispatched = node.dispatch("late", "");
    let outage = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(board.running(), before);
        link.heal();
    };
    let (dispatched, ()) = tokio::join!(dispatched, outage);
    dispatched.unwrap();
    node.stop("late").await.unwrap();
    assert_eq!(board.running(), before);
    node.close().await.unwrap();
    board.check();
}

async fn jobs_whose_nodes_are_all_dead_run_when_a_new_one_joins(subject: Subject) {
    let (board, keys) = (Board::default(), keys(10));
    for name in ["a", "b"] {
        let node = mortal_node().join(&subject.client().await).await.unwrap();
        node.add_worker(board.player(name)).await.unwrap();
        for key in &keys {
            match node.dispatch(key, "").await {
                Ok(_) | Err(Error::Exists { .. }) => {}
                Err(error) => panic!("{error:?}"),
            }
        }
    }
    board.runs_all(&[]).await;
    let node = mortal_node().join(&subject.client().await).await.unwrap();
    node.add_worker(board.player("c")).await.unwrap();
    board.settles(&keys, |_| Some("c".into())).await;
    node.close().await.unwrap();
    board.check();
}

async fn a_job_that_was_asked_to_stop_when_its_node_died_does_not_run_again(subject: Subject) {
    let board = Board::default();
    let a = mortal_node().join(&subject.client().await).await.unwrap();
    let b = mortal_node().timeout(TTL * 3).join(&subject.client().await).await.unwrap();
    a.add_worker(board.player("a")).await.unwrap();
    a.dispatch("gong", "hang in stop").await.unwrap();
    let die = async {
        eventually("it is asked to stop", async || match a.job("gong").await.unwrap().map(|job| job.state) {
            Some(JobState::Stopping) => Ok(()),
            other => Err(other),
        })
        .await;
        drop(a);
    };
    let (stopped, ()) = tokio::join!(b.stop("gong"), die);
    stopped.unwrap();
    b.add_worker(board.player("b")).await.unwrap();
    assert_eq!(b.jobs().await.unwrap(), []);
    assert_eq!(board.starts("gong"), 1);
    b.close().await.unwrap();
    board.check();
}

async fn a_dispatch_whose_answer_was_lost_runs_the_job_once(subject: Subject) {
    let board = Board::default();
    let (link, client) = faulty_client(&subject).await;
    // No worker here and a long lease, so that the next commit is the dispatch.
    let a = node().join(&client).await.unwrap();
    let b = node().join(&subject.client().await).await.unwrap();
    b.add_worker(board.player("b")).await.unwrap();
    workers(&a, 1).await;
    for (round, fault) in [Fault::FailAfter, Fault::FailBefore].into_iter().enumerate() {
        let key = format!("violin {round}");
        link.script(Operation::Commit, 1, fault);
        a.dispatch(&key, "").await.unwrap();
        assert_eq!(board.starts(&key), 1);
        link.script(Operation::Commit, 1, fault);
        a.stop(&key).await.unwrap();
        assert_eq!(board.node_of(&key), None);
    }
    a.close().await.unwrap();
    b.close().await.unwrap();
    board.check();
}

async fn a_node_that_dies_during_a_hand_over_loses_no_job(subject: Subject) {
    for fault in [Fault::KillBefore, Fault::KillAfter] {
        for nth in 1..=4 {
            let (board, keys) = (Board::default(), keys(4));
            let (link, client) = faulty_client(&subject).await;
            let pool = format!("orchestra {fault:?} {nth}");
            let join = async |client: &Client| Node::builder(&pool).worker_ttl(TTL).join(client).await.unwrap();
            let (a, b) = (join(&client).await, join(&subject.client().await).await);
            a.add_worker(board.player("a")).await.unwrap();
            for key in &keys {
                b.dispatch(key, "").await.unwrap();
            }
            b.add_worker(board.player("b")).await.unwrap();
            board.runs_all(&keys).await;
            link.script(Operation::Commit, nth, fault);
            // It dies while it closes: it stops its jobs, and cannot say so.
            let close = async {
                let _ = tokio::time::timeout(Duration::from_millis(500), a.close()).await;
            };
            close.await;
            drop(a);
            board.settles(&keys, |_| Some("b".into())).await;
            b.close().await.unwrap();
            board.check();
        }
    }
}

async fn pools_of_one_server_do_not_see_each_other(subject: Subject) {
    let (client, boards) = (subject.client().await, [Board::default(), Board::default()]);
    let a = Node::join(&client, "strings").await.unwrap();
    let b = Node::join(&client, "winds").await.unwrap();
    a.add_worker(boards[0].player("a")).await.unwrap();
    b.add_worker(boards[1].player("b")).await.unwrap();
    a.dispatch("solo", "").await.unwrap();
    b.dispatch("solo", "").await.unwrap();
    a.stop("solo").await.unwrap();
    assert_eq!(boards[0].node_of("solo"), None);
    assert_eq!(boards[1].node_of("solo").as_deref(), Some("b"));
    a.close().await.unwrap();
    assert_eq!(boards[1].node_of("solo").as_deref(), Some("b"));
    b.close().await.unwrap();
}

async fn what_strangers_write_into_the_pools_maps_harms_nobody(subject: Subject) {
    let (client, board) = (subject.client().await, Board::default());
    let node = node().join(&client).await.unwrap();
    node.add_worker(board.player("a")).await.unwrap();
    let scope = orchestra();
    let rubbish = [Bytes::new(), Bytes::from_static(b"\xff\x00"), Bytes::from_static(b"\x93\x01\x02\x03")];
    for (index, rubbish) in rubbish.into_iter().enumerate() {
        let garbage = Transaction::new(&scope)
            .put("pool:jobs", format!("garbage {index}"), rubbish.clone())
            .put("pool:workers", format!("garbage {index}"), rubbish.clone())
            .put("pool:workers", "0123456789abcdef", rubbish.clone())
            .put("pool:payloads", "violin", rubbish);
        client.commit(garbage).await.unwrap();
        node.dispatch("violin", "allegro").await.unwrap();
        assert_eq!(board.running()["violin"].payload, "allegro");
        node.stop("violin").await.unwrap();
        let key = format!("garbage {index}");
        for failed in [node.dispatch(&key, "").await.map(|_| ()), node.stop(&key).await] {
            let named = failed.as_ref().err().map(|error| format!("{error:?}"));
            assert!(named.as_ref().is_some_and(|error| error.contains(&key)), "{failed:?}");
        }
    }
    assert_eq!((node.jobs().await.unwrap(), node.pool_workers().len()), (vec![], 1));
    node.close().await.unwrap();
    board.check();
}

async fn a_pool_without_workers_can_be_destroyed(subject: Subject) {
    let (client, board) = (subject.client().await, Board::default());
    let node = node().join(&client).await.unwrap();
    node.add_worker(board.player("a")).await.unwrap();
    node.dispatch("violin", "").await.unwrap();
    let destroyed = pulse_pool::destroy(&client, "orchestra").await;
    assert!(matches!(destroyed, Err(Error::InUse { .. })), "{destroyed:?}");
    node.close().await.unwrap();
    pulse_pool::destroy(&client, "orchestra").await.unwrap();
    pulse_pool::destroy(&client, "orchestra").await.unwrap();
    let scope = orchestra();
    for map in ["pool:workers", "pool:jobs", "pool:payloads", "pool:queue"] {
        assert_eq!(client.backend().map_version(&scope.map(map).unwrap()).await.unwrap(), None, "{map}");
    }
}
