//! How long things take by the clock alone: on paused time, which goes on only where everybody waits.

use std::{sync::Arc, time::Duration};

use pulse_core::{
    Client,
    testing::{Faulty, FeedChances},
};
use pulse_pool::Node;
use tokio::time::Instant;

#[tokio::test(start_paused = true)]
async fn a_task_that_ends_before_its_node_sees_that_it_runs_is_not_held_up() {
    let inner = pulse_pool::connect("memory:").await.unwrap();
    let link = Faulty::new(inner.backend().clone(), 1);
    let client = Client::from_backend(Arc::new(link.clone()));
    let node = Node::join(&client, "sums").await.unwrap();
    node.worker_fn(|job| async move { Ok(job.payload().len()) }).await.unwrap();
    let _: usize = node.dispatch_and_wait(("warm", "up")).await.unwrap();

    // What is written is known at once, and shows 10 ms later: that the job is there, that it runs, and that it is
    // gone.
    let delay = Duration::from_millis(10);
    link.set_feed_chances(FeedChances::none().with_delay(delay..=delay));
    let begun = Instant::now();
    let length: usize = node.dispatch_and_wait(("sum", "123")).await.unwrap();
    assert_eq!(length, 3);
    assert!(begun.elapsed() <= 3 * delay, "it took {:?}", begun.elapsed());
    node.close().await.unwrap();
    client.close().await;
    inner.close().await;
}
