//! A node that closes takes no longer than it may, and says whether its jobs were handed over.

use std::time::Duration;

use pulse_pool::{Error, Node};
use tests::{Subject, eventually, on_every_backend};
use tokio::time::Instant;

use crate::{board::Board, faulty_client, mortal_node, node};

on_every_backend!(
    a_close_takes_no_longer_than_it_may_although_the_server_is_silent,
    a_shutdown_takes_no_longer_than_it_may_although_the_server_is_silent,
    a_node_that_is_cut_off_does_not_say_that_it_handed_its_jobs_over,
    a_node_whose_client_was_closed_does_not_say_that_it_handed_its_jobs_over,
    a_node_that_has_handed_its_jobs_over_says_so_twice,
);

const LIMIT: Duration = Duration::from_secs(3);

/// What a busy machine may take for what takes no time.
const SLACK: Duration = Duration::from_secs(1);

async fn a_close_takes_no_longer_than_it_may_although_the_server_is_silent(subject: Subject) {
    for has_worker in [true, false] {
        let (link, client) = faulty_client(&subject).await;
        let node = node().shutdown_timeout(LIMIT).join(&client).await.unwrap();
        if has_worker {
            node.add_worker(Board::default().player("violin")).await.unwrap();
        }
        link.partition();
        let began = Instant::now();
        let closed = node.close().await;
        assert!(matches!(closed, Err(Error::TimedOut { .. })), "{closed:?}");
        assert!(began.elapsed() < LIMIT + SLACK, "{:?}", began.elapsed());
    }
}

async fn a_shutdown_takes_no_longer_than_it_may_although_the_server_is_silent(subject: Subject) {
    let ttl = Duration::from_secs(2);
    let (link, client) = faulty_client(&subject).await;
    let node = node().shutdown_timeout(LIMIT).worker_ttl(ttl).join(&client).await.unwrap();
    node.add_worker(Board::default().player("violin")).await.unwrap();
    link.partition();
    let began = Instant::now();
    let shut = node.shutdown().await;
    assert!(matches!(shut, Err(Error::TimedOut { .. })), "{shut:?}");
    assert!(began.elapsed() < LIMIT + ttl + SLACK, "{:?}", began.elapsed());
}

/// A node with a job, whose server does not answer it, and which says so when it closes.
async fn cut_off(subject: &Subject, while_closing: bool) -> Result<(), Error> {
    let (link, client) = faulty_client(subject).await;
    let node: Node = mortal_node().shutdown_timeout(10 * LIMIT).join(&client).await.unwrap();
    node.add_worker(Board::default().player("violin")).await.unwrap();
    node.dispatch(format!("sonata {while_closing}"), "").await.unwrap();
    link.partition();
    if !while_closing {
        eventually("it is cut off", async || if node.is_cut_off() { Ok(()) } else { Err(()) }).await;
    }
    let closed = node.close().await;
    let again = node.close().await;
    assert!(matches!(again, Err(Error::NotHandedOver { .. })), "{again:?}");
    closed
}

async fn a_node_that_is_cut_off_does_not_say_that_it_handed_its_jobs_over(subject: Subject) {
    for while_closing in [false, true] {
        let closed = cut_off(&subject, while_closing).await;
        assert!(matches!(closed, Err(Error::NotHandedOver { .. })), "{closed:?}");
    }
}

async fn a_node_whose_client_was_closed_does_not_say_that_it_handed_its_jobs_over(subject: Subject) {
    let client = subject.client().await;
    let node = node().join(&client).await.unwrap();
    node.add_worker(Board::default().player("violin")).await.unwrap();
    node.dispatch("sonata", "").await.unwrap();
    client.close().await;
    let closed = node.close().await;
    assert!(matches!(closed, Err(Error::NotHandedOver { .. } | Error::TimedOut { .. })), "{closed:?}");
}

async fn a_node_that_has_handed_its_jobs_over_says_so_twice(subject: Subject) {
    let node = node().join(&subject.client().await).await.unwrap();
    node.add_worker(Board::default().player("violin")).await.unwrap();
    node.dispatch("sonata", "").await.unwrap();
    node.close().await.unwrap();
    node.close().await.unwrap();
}
