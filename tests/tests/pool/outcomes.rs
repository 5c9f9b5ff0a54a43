//! Those who wait for a job learn what came of it.

use std::time::Duration;

use pulse_core::testing::FeedChances;
use pulse_pool::{Error, HandlerError, Job, RetryPolicy};
use tests::{Subject, on_every_backend, soon};

use crate::{faulty_client, keys, node};

on_every_backend!(those_who_wait_get_the_outcome_however_briefly_it_is_kept, a_result_that_is_not_kept_is_not_read,);

async fn work(job: Job) -> Result<usize, HandlerError> {
    if job.payload().is_empty() { Err("no ink".into()) } else { Ok(job.payload().len()) }
}

async fn those_who_wait_get_the_outcome_however_briefly_it_is_kept(subject: Subject) {
    let b = node().join(&subject.client().await).await.unwrap();
    let (link, client) = faulty_client(&subject).await;
    let delay = Duration::from_millis(50);
    link.set_feed_chances(FeedChances::none().with_delay(delay..=delay));
    for (keep, builder) in [(0, node()), (1, node()), (1, node().client_only())] {
        let a = builder.join(&client).await.unwrap();
        let once = RetryPolicy::new().attempts(1);
        let worker = b.worker_fn(work).retry(once).keep_result(Duration::from_millis(keep)).await.unwrap();
        let waits = keys(10).into_iter().map(|key| a.dispatch_and_wait::<usize>((key, "123")));
        let outcomes = soon("all have ended", futures::future::join_all(waits)).await;
        assert!(outcomes.iter().all(|outcome| matches!(outcome, Ok(3))), "{outcomes:?}");
        let failed = a.dispatch_and_wait::<usize>(("bad", "")).await;
        assert!(matches!(&failed, Err(Error::Failed { reason, .. }) if reason == "no ink"), "{failed:?}");
        a.dispatch("good", "123").await.unwrap();
        b.remove_worker(worker).await.unwrap();
        a.close().await.unwrap();
    }
    b.close().await.unwrap();
}

async fn a_result_that_is_not_kept_is_not_read(subject: Subject) {
    let node = node().join(&subject.client().await).await.unwrap();
    node.worker_fn(work).keep_result(Duration::ZERO).await.unwrap();
    assert_eq!(node.dispatch_and_wait::<usize>(("aria", "123")).await.unwrap(), 3);
    assert_eq!(node.result::<usize>("aria").await.unwrap(), None);
    node.close().await.unwrap();
}
