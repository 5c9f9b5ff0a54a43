//! Records of jobs that somebody damages who is no node.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use pulse_core::{Client, Transaction, testing::FeedChances};
use pulse_pool::{Error, HandlerError, Job, JobHandler, JobKey, JobState, Node};
use tests::{Subject, eventually, on_every_backend, soon};
use tokio::sync::{Semaphore, mpsc};

use crate::{board::Board, faulty_client, keys, mortal_node, node, orchestra};

on_every_backend!(
    a_damaged_record_is_written_anew_while_its_job_goes_on,
    a_job_whose_record_is_damaged_while_it_starts_is_started_again,
    a_job_whose_record_is_damaged_while_it_stops_goes_where_it_belongs,
    a_job_that_ends_when_its_record_is_damaged_has_ended,
    damage_that_the_node_has_not_seen_holds_nothing_up,
    what_others_run_by_now_is_left_to_them,
);

const GARBAGE: &[u8] = b"\xc1 no record";

async fn damage(client: &Client, key: &str) {
    client.commit(Transaction::new(&orchestra()).put("pool:jobs", key, GARBAGE)).await.unwrap();
}

async fn record(client: &Client, key: &str) -> Option<Bytes> {
    client.backend().map_get(&orchestra().map("pool:jobs").unwrap(), &[key]).await.unwrap().remove(0)
}

async fn is_whole_again(client: &Client, key: &str) -> Bytes {
    eventually("the record is written anew", async || match record(client, key).await {
        Some(record) if record != GARBAGE => Ok(record),
        other => Err(other),
    })
    .await
}

async fn is(node: &Node, key: &str, state: JobState) {
    eventually("the job is in its state", async || match node.job(key).await.unwrap().map(|job| job.state) {
        Some(found) if found == state => Ok(()),
        other => Err(other),
    })
    .await;
}

/// With a server of its own, into which it writes past everybody.
#[cfg(feature = "standalone")]
mod writing {
    use tests::Server;

    use super::*;

    mod standalone {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn what_is_written_past_all_replicas_holds_up_no_close_and_loses_no_job() {
            super::what_is_written_past_all_replicas_holds_up_no_close_and_loses_no_job().await;
        }

        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn what_has_ended_is_not_run_again_because_that_cannot_be_written_down() {
            super::what_has_ended_is_not_run_again_because_that_cannot_be_written_down().await;
        }

        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn what_cannot_be_written_down_holds_up_no_other_node_in_a_shutdown() {
            super::what_cannot_be_written_down_holds_up_no_other_node_in_a_shutdown().await;
        }
    }

    async fn what_is_written_past_all_replicas_holds_up_no_close_and_loses_no_job() {
        let (server, board) = (Server::start(), Board::default());
        let client = pulse_pool::connect(&server.url()).await.unwrap();
        let (a, b) = (node().join(&client).await.unwrap(), node().join(&client).await.unwrap());
        let worker = a.add_worker(board.player("a")).await.unwrap();
        let overwrite = || {
            for key in keys(5) {
                server.cli(&["HSET", "pulse:{orchestra}:m:pool:jobs", &key, "garbage"]);
            }
        };
        for key in keys(5) {
            a.dispatch(&key, "").await.unwrap();
        }
        overwrite();
        soon("the worker goes", a.remove_worker(worker)).await.unwrap();
        a.add_worker(board.player("a")).await.unwrap();
        board.settles(&keys(5), |_| Some("a".into())).await;
        b.add_worker(board.player("b")).await.unwrap();
        overwrite();
        soon("the node closes", a.close()).await.unwrap();
        board.settles(&keys(5), |_| Some("b".into())).await;
        assert_eq!((a.lost_jobs(), b.lost_jobs()), (0, 0));
        b.close().await.unwrap();
        board.check();
        client.close().await;
    }

    /// Where the results of jobs stand.
    const RESULTS: &str = "pulse:{orchestra}:m:pool:results";

    /// Waits until the server has refused that many scripts more: several whenever an end is tried to be written down.
    async fn are_refused(server: &Server, more: usize) {
        let refused = || {
            let stats = server.cli(&["INFO", "commandstats"]);
            let scripts = stats.lines().filter(|line| line.starts_with("cmdstat_evalsha:"));
            let failed = scripts.filter_map(|line| line.trim().rsplit_once("failed_calls=")?.1.parse::<usize>().ok());
            failed.sum::<usize>()
        };
        let before = refused();
        eventually("it is tried again and again", async || match refused() - before {
            count if count > more => Ok(()),
            count => Err(count),
        })
        .await;
    }

    async fn what_has_ended_is_not_run_again_because_that_cannot_be_written_down() {
        let (server, calls) = (Server::start(), Arc::new(AtomicUsize::new(0)));
        let client = pulse_pool::connect(&server.url()).await.unwrap();
        let node = node().join(&client).await.unwrap();
        let counted = calls.clone();
        let work = move |_: Job| {
            let calls = counted.clone();
            async move { Ok(calls.fetch_add(1, Ordering::SeqCst)) }
        };
        node.worker_fn(work).await.unwrap();
        server.cli(&["SET", RESULTS, "stranger"]);
        for key in ["kept", "damaged", "stopped"] {
            node.enqueue(key, "").await.unwrap();
        }
        are_refused(&server, 24).await;
        assert_eq!(calls.load(Ordering::SeqCst), 3, "a job has run again");
        damage(&client, "damaged").await;
        are_refused(&server, 24).await;
        soon("a job stops", node.stop("stopped")).await.unwrap();
        let another = node.dispatch_and_wait::<usize>(("another", ""));
        let mended = async {
            eventually("the fourth has run", async || match calls.load(Ordering::SeqCst) {
                4 => Ok(()),
                count => Err(count),
            })
            .await;
            server.cli(&["DEL", RESULTS]);
        };
        let (another, ()) = soon("what is mended counts", async { tokio::join!(another, mended) }).await;
        assert_eq!(another.unwrap(), 3);
        for key in ["kept", "damaged"] {
            eventually("it has its result", async || match node.result::<usize>(key).await.unwrap() {
                Some(0..3) => Ok(()),
                other => Err(other),
            })
            .await;
        }
        assert_eq!(calls.load(Ordering::SeqCst), 4, "a job has run again");
        node.close().await.unwrap();
        client.close().await;
    }

    async fn what_cannot_be_written_down_holds_up_no_other_node_in_a_shutdown() {
        let server = Server::start();
        let client = pulse_pool::connect(&server.url()).await.unwrap();
        let (a, b) = (Arc::new(node().join(&client).await.unwrap()), node().join(&client).await.unwrap());
        b.worker_fn(|_| async { Ok(()) }).await.unwrap();
        server.cli(&["SET", RESULTS, "stranger"]);
        a.enqueue("etude", "").await.unwrap();
        are_refused(&server, 8).await;
        let shutdown = tokio::spawn({
            let a = a.clone();
            async move { a.shutdown().await }
        });
        eventually("the node with the job is closed", async || if b.is_closed() { Ok(()) } else { Err(()) }).await;
        // Nobody tries to write down the end of the job any more: what is refused now is the removal of the pool.
        are_refused(&server, 0).await;
        assert!(!shutdown.is_finished());
        server.cli(&["DEL", RESULTS]);
        soon("the pool is removed", shutdown).await.unwrap().unwrap();
        client.close().await;
    }
}

async fn a_damaged_record_is_written_anew_while_its_job_goes_on(subject: Subject) {
    let (client, board) = (subject.client().await, Board::default());
    let (a, b) = (node().join(&client).await.unwrap(), node().join(&subject.client().await).await.unwrap());
    a.add_worker(board.player("a")).await.unwrap();
    b.dispatch("violin", "").await.unwrap();
    // Refused by the handler, as soon as its node knows that the start is through. Before that it would be repeated.
    let refused = b.notify("violin", "").await;
    assert!(matches!(refused, Err(Error::NotNotifiable { .. })), "{refused:?}");
    let before = record(&client, "violin").await;
    for _ in 0..3 {
        damage(&client, "violin").await;
        assert_eq!(Some(is_whole_again(&client, "violin").await), before);
    }
    is(&b, "violin", JobState::Running).await;
    assert_eq!((board.starts("violin"), a.lost_jobs()), (1, 0));
    damage(&client, "violin").await;
    is_whole_again(&client, "violin").await;
    // Its replica may show the damage for a moment yet.
    eventually("it can be stopped", async || b.stop("violin").await).await;
    assert_eq!(board.node_of("violin"), None);
    a.close().await.unwrap();
    b.close().await.unwrap();
    board.check();
}

/// Says when it starts and stops a job, and does either when it is let.
struct Gated {
    says: mpsc::UnboundedSender<&'static str>,
    starts: Arc<Semaphore>,
    stops: Arc<Semaphore>,
}

#[pulse_pool::async_trait]
impl JobHandler for Gated {
    async fn start(&self, _: Job) -> Result<(), HandlerError> {
        self.says.send("starts")?;
        self.starts.acquire().await?.forget();
        Ok(())
    }

    async fn stop(&self, _: &JobKey) -> Result<(), HandlerError> {
        self.says.send("stops")?;
        self.stops.acquire().await?.forget();
        Ok(())
    }
}

fn gated() -> (Gated, mpsc::UnboundedReceiver<&'static str>, Arc<Semaphore>, Arc<Semaphore>) {
    let (says, said) = mpsc::unbounded_channel();
    let (starts, stops) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    (Gated { says, starts: starts.clone(), stops: stops.clone() }, said, starts, stops)
}

async fn a_job_whose_record_is_damaged_while_it_starts_is_started_again(subject: Subject) {
    let client = subject.client().await;
    let node = node().join(&client).await.unwrap();
    let (handler, mut said, starts, stops) = gated();
    stops.add_permits(9);
    node.add_worker(handler).await.unwrap();
    node.enqueue("violin", "").await.unwrap();
    soon("it starts", said.recv()).await.unwrap();
    damage(&client, "violin").await;
    let again = soon("it starts again", async { (said.recv().await, said.recv().await) }).await;
    assert_eq!(again, (Some("stops"), Some("starts")));
    starts.add_permits(1);
    is(&node, "violin", JobState::Running).await;
    assert_eq!(node.lost_jobs(), 0);
    node.close().await.unwrap();
}

async fn a_job_whose_record_is_damaged_while_it_stops_goes_where_it_belongs(subject: Subject) {
    let (client, board) = (subject.client().await, Board::default());
    let (a, b) = (node().join(&client).await.unwrap(), node().join(&subject.client().await).await.unwrap());
    let (handler, mut said, starts, stops) = gated();
    starts.add_permits(1);
    a.add_worker(handler).await.unwrap();
    a.dispatch("violin", "").await.unwrap();
    b.add_worker(board.player("b")).await.unwrap();
    let damaged = async {
        while said.recv().await != Some("stops") {}
        damage(&client, "violin").await;
        eventually("everybody knows", async || a.job("violin").await.unwrap().map_or(Ok(()), Err)).await;
        stops.add_permits(1);
    };
    let (closed, ()) = tokio::join!(a.close(), damaged);
    closed.unwrap();
    board.settles(&["violin".to_owned()], |_| Some("b".into())).await;
    assert_eq!((a.lost_jobs(), b.lost_jobs()), (0, 0));
    b.close().await.unwrap();
}

async fn a_job_that_ends_when_its_record_is_damaged_has_ended(subject: Subject) {
    let client = subject.client().await;
    let node = node().join(&client).await.unwrap();
    let (store, calls) = (client.clone(), Arc::new(AtomicUsize::new(0)));
    let made = calls.clone();
    let work = move |job: Job| {
        let (store, made) = (store.clone(), made.clone());
        async move {
            damage(&store, job.key().as_str()).await;
            Ok(made.fetch_add(1, Ordering::SeqCst))
        }
    };
    node.worker_fn(work).await.unwrap();
    for (call, key) in keys(10).into_iter().enumerate() {
        node.enqueue(&key, "").await.unwrap();
        eventually("it has ended", async || match node.result::<usize>(&key).await {
            Ok(Some(result)) if result == call => Ok(()),
            other => Err(other),
        })
        .await;
        assert_eq!(record(&client, &key).await, None);
    }
    node.close().await.unwrap();
    assert_eq!((calls.load(Ordering::SeqCst), node.lost_jobs()), (10, 0));
}

async fn damage_that_the_node_has_not_seen_holds_nothing_up(subject: Subject) {
    let (link, client) = faulty_client(&subject).await;
    let (board, stranger) = (Board::default(), subject.client().await);
    let a = node().join(&client).await.unwrap();
    let worker = a.add_worker(board.player("a")).await.unwrap();
    for key in keys(5) {
        a.dispatch(&key, "").await.unwrap();
    }
    link.set_feed_chances(FeedChances::none().with_loss(1.0));
    for key in keys(5) {
        damage(&stranger, &key).await;
    }
    // Until it would have been told. If that takes longer, it is told, and written anew.
    tokio::time::sleep(Duration::from_millis(300)).await;
    link.set_feed_chances(FeedChances::none());
    a.remove_worker(worker).await.unwrap();
    a.add_worker(board.player("again")).await.unwrap();
    board.settles(&keys(5), |_| Some("again".into())).await;
    assert_eq!(a.lost_jobs(), 0);
    a.close().await.unwrap();
    board.check();
}

async fn what_others_run_by_now_is_left_to_them(subject: Subject) {
    let (link, client) = faulty_client(&subject).await;
    link.set_patience(Duration::from_secs(1));
    let (board, b) = (Board::default(), mortal_node().join(&subject.client().await).await.unwrap());
    let a = mortal_node().join(&client).await.unwrap();
    a.add_worker(board.player("a")).await.unwrap();
    for key in keys(5) {
        a.dispatch(&key, "").await.unwrap();
    }
    link.partition();
    b.add_worker(board.player("b")).await.unwrap();
    board.settles(&keys(5), |_| Some("b".into())).await;
    for key in keys(5) {
        damage(&subject.client().await, &key).await;
        is_whole_again(&subject.client().await, &key).await;
    }
    link.heal();
    eventually("the node has joined again", async || if a.is_cut_off() { Err(()) } else { Ok(()) }).await;
    a.close().await.unwrap();
    board.settles(&keys(5), |_| Some("b".into())).await;
    b.close().await.unwrap();
    assert_eq!((a.lost_jobs(), b.lost_jobs()), (0, 0));
    board.check();
}
