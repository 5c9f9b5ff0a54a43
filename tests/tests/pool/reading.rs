//! A node reads its own writes.

use std::time::Duration;

use pulse_core::testing::FeedChances;
use pulse_pool::{JobState, RetryPolicy};
use tests::{Subject, eventually, on_every_backend};

use crate::{faulty_client, keys, node};

on_every_backend!(
    a_node_sees_what_it_has_enqueued_although_its_replica_is_behind,
    a_node_sees_what_it_has_enqueued_although_its_replica_hears_nothing,
    a_node_sees_what_it_has_replayed,
);

async fn a_node_sees_what_it_has_enqueued_although_its_replica_is_behind(subject: Subject) {
    let (link, client) = faulty_client(&subject).await;
    let delay = Duration::from_millis(30);
    for builder in [node(), node().client_only()] {
        let node = builder.join(&client).await.unwrap();
        link.set_feed_chances(FeedChances::none().with_delay(delay..=delay));
        for key in keys(10) {
            node.enqueue(&key, "").await.unwrap();
            let job = node.job(&key).await.unwrap();
            assert!(job.as_ref().is_some_and(|job| job.state == JobState::Waiting), "{job:?}");
        }
        let batch = node.enqueue_batch((0..150).map(|number| (format!("of many {number}"), ""))).await;
        assert!(batch.iter().all(Result::is_ok));
        assert_eq!(node.job_keys().await.unwrap().len(), 160);
        assert_eq!((node.stats().await.unwrap().jobs, node.jobs().await.unwrap().len()), (160, 160));
        for key in node.job_keys().await.unwrap() {
            node.stop(&key).await.unwrap();
            assert_eq!(node.job(&key).await.unwrap(), None);
        }
        link.set_feed_chances(FeedChances::none());
        node.close().await.unwrap();
    }
}

async fn a_node_sees_what_it_has_enqueued_although_its_replica_hears_nothing(subject: Subject) {
    let (link, client) = faulty_client(&subject).await;
    let node = node().join(&client).await.unwrap();
    link.mute();
    node.enqueue("aria", "").await.unwrap();
    assert!(node.job("aria").await.unwrap().is_some());
    assert_eq!(node.job_keys().await.unwrap().len(), 1);
    link.unmute();
    node.close().await.unwrap();
}

async fn a_node_sees_what_it_has_replayed(subject: Subject) {
    let (link, client) = faulty_client(&subject).await;
    let node = node().join(&client).await.unwrap();
    let once = RetryPolicy::new().attempts(1);
    let worker = node.worker_fn(|_| async { Err::<(), _>("no ink".into()) }).retry(once).await.unwrap();
    node.dispatch_and_wait::<()>(("aria", "")).await.unwrap_err();
    node.remove_worker(worker).await.unwrap();
    eventually("it is dead", async || if node.dead_jobs().await.unwrap().is_empty() { Err(()) } else { Ok(()) }).await;
    let delay = Duration::from_millis(30);
    link.set_feed_chances(FeedChances::none().with_delay(delay..=delay));
    node.replay("aria").await.unwrap();
    assert!(node.job("aria").await.unwrap().is_some());
    link.set_feed_chances(FeedChances::none());
    node.close().await.unwrap();
}
